//! What is wrong, and the panics of the whole process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

/// An input, and what is wrong with what came of it.
#[derive(Debug)]
pub struct Finding {
    /// What is wrong.
    pub what: String,
    /// The input.
    pub file: PathBuf,
    target: &'static str,
}

impl Finding {
    /// Writes the input to where it can be given again.
    pub(super) fn keep(target: &'static str, input: &[u8], what: String) -> Self {
        let name = innkeeper::plugin::Digest::of(input).to_string();
        let name = name.trim_start_matches("sha256:").get(..12).unwrap_or("input").to_owned();
        let file = folder(target).join(name);
        // Where it cannot be kept, what is wrong is still told.
        if let Err(error) = std::fs::write(&file, input) {
            eprintln!("{}: {error}", file.display());
        }
        Self { what, file, target }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FINDING: {}", self.what)?;
        write!(f, "  again: cargo xtask fuzz {} {}", self.target, self.file.display())
    }
}

/// What tells one finding from another: its first line, without numbers and addresses.
pub(super) fn key(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The folder of a target in the target folder of cargo.
///
/// # Panics
/// Where it cannot be made.
pub(super) fn folder(target: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a process knows its file");
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    let root = program.ancestors().find(marked).unwrap_or(Path::new("target"));
    let folder = root.join("fuzz").join(target);
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on panics are noted, on whatever thread and whoever catches them: the host catches
/// most, so that one plugin's does not end it.
pub(super) fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            // A failure of the test itself is told as ever.
            if place.starts_with("tests/") {
                return before(panic);
            }
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let backtrace = std::backtrace::Backtrace::force_capture();
            let told = format!("panicked at {place}: {}\n{backtrace}", text.unwrap_or("no text"));
            PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        }));
    });
}

/// The panics since the last time.
pub(super) fn take_panics() -> Vec<String> {
    std::mem::take(&mut PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}
