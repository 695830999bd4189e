//! What the build needs of Rust itself, added with rustup where it is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// What guests are compiled to.
pub const GUEST_TARGET: &str = "wasm32-wasip2";

/// Adds the target of the guests where this Rust does not have it.
pub fn add_guest_target() -> Result<()> {
    if has_guest_target()? {
        return Ok(());
    }
    rustup(&["target", "add", GUEST_TARGET], "the target that plugins are compiled to")
}

/// Adds rustfmt and clippy where this Rust does not have them.
pub fn add_lint_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let mut probe = crate::cargo::command();
        probe.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        if !process::run(&mut probe)?.success() {
            rustup(&["component", "add", component], "a part of Rust that the checks need")?;
        }
    }
    Ok(())
}

fn has_guest_target() -> Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", GUEST_TARGET])
        .stderr(Stdio::inherit())
        .output()
        .context("rustc could not be started; install Rust from https://rustup.rs")?;
    if !output.status.success() {
        bail!("this rustc does not know the target {GUEST_TARGET}; Rust 1.95 or later is needed");
    }
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

fn rustup(args: &[&str], what: &str) -> Result<()> {
    let said = format!("rustup {}", args.join(" "));
    eprintln!("xtask: {said}");
    let status = process::run(Command::new("rustup").args(args)).with_context(|| {
        format!(
            "{what} is missing, and there is no rustup to add it with. Install Rust from https://rustup.rs, \
             or what `{said}` would have added by other means"
        )
    })?;
    if !status.success() {
        bail!("`{said}` failed; {what} is missing");
    }
    Ok(())
}
