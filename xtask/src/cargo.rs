//! Calls of cargo, and where its results are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::toolchain::GUEST_TARGET;

/// What is built for the host: every package that is not only a guest. Builds, tests and the
/// demo all name the same packages, because cargo unites the features of dependencies over
/// those, and a smaller selection would compile wasmtime and sqlx a second time.
pub const HOST_PACKAGES: &[&str] = &[
    "--workspace",
    "--exclude",
    "probe",
    "--exclude",
    "hostile",
    "--exclude",
    "bench",
    "--exclude",
    "command",
    "--exclude",
    "capable",
];

/// The components that tests, demo and benchmarks run.
const GUESTS: &[&str] = &["bench", "capable", "command", "hostile", "maintenance", "probe"];

/// The program of the benchmarks.
const BENCH: &str = "innkeeper-bench";

/// Where the build left what runs.
pub struct Built {
    /// The host, `innkeeper`.
    pub host: PathBuf,
    /// The demo program.
    pub demo: PathBuf,
    /// The crash tests, `innkeeper-chaos`.
    pub chaos: PathBuf,
    /// The fuzz targets, `innkeeper-fuzz`.
    pub fuzz: PathBuf,
    /// The simulation, `innkeeper-simulate`.
    pub simulate: PathBuf,
    /// The soak test, `innkeeper-soak`.
    pub soak: PathBuf,
    /// The folder with the guests' `.wasm` files.
    pub guests: PathBuf,
}

/// Where the build left the program of the benchmarks.
pub struct BenchProgram {
    /// The program, `innkeeper-bench`.
    pub program: PathBuf,
    /// The folder with the guests' `.wasm` files.
    pub guests: PathBuf,
}

/// How the program of the benchmarks is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As operators run the host.
    Release,
    /// As tests are: what is built is used again.
    Dev,
}

/// A call of the cargo that called this program, in the workspace.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo told this program about its own package. Some build scripts run again
    // whenever one of these has changed, so `cargo build` and `cargo xtask` would undo each
    // other's work.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| name.starts_with(p))
        {
            command.env_remove(name.as_ref());
        }
    }
    command.current_dir(workspace());
    command
}

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Builds the guests, as small as they are delivered.
pub fn build_guests() -> Result<()> {
    let mut build = command();
    build.args(["build", "--profile", "plugin", "--target", GUEST_TARGET]);
    for guest in GUESTS {
        build.args(["--package", guest]);
    }
    process::run_to_success(&mut build).context("the guests could not be built")
}

/// Builds the programs of the host, the demo, the crash tests, the fuzz targets, the simulation and the
/// soak test.
pub fn build_programs() -> Result<()> {
    let mut build = command();
    // Without this program itself, which is running.
    build.arg("build").args(HOST_PACKAGES).args(["--exclude", "xtask", "--bins"]);
    process::run_to_success(&mut build).context("the host could not be built")
}

/// Builds the program of the benchmarks.
pub fn build_bench(profile: Profile) -> Result<()> {
    let mut build = command();
    build.arg("build").args(HOST_PACKAGES).args(["--exclude", "xtask", "--bin", BENCH]);
    build.args((profile == Profile::Release).then_some("--release"));
    process::run_to_success(&mut build).context("the benchmarks could not be built")
}

impl BenchProgram {
    /// Finds what was built.
    pub fn find(profile: Profile) -> Result<Self> {
        let target = target_folder()?;
        let folder = match profile {
            Profile::Release => "release",
            Profile::Dev => "debug",
        };
        let program = target.join(folder).join(BENCH);
        ensure!(program.is_file(), "cargo has built it, but there is no {}", program.display());
        Ok(Self { program, guests: target.join(GUEST_TARGET).join("plugin") })
    }
}

impl Built {
    /// Finds what was built.
    pub fn find() -> Result<Self> {
        let target = target_folder()?;
        let guests = target.join(GUEST_TARGET).join("plugin");
        let programs = target.join("debug");
        let program = |name| programs.join(name);
        let (host, demo) = (program("innkeeper"), program("innkeeper-demo"));
        let (chaos, soak) = (program("innkeeper-chaos"), program("innkeeper-soak"));
        let (fuzz, simulate) = (program("innkeeper-fuzz"), program("innkeeper-simulate"));
        let built = Self { host, demo, chaos, fuzz, simulate, soak, guests };
        let guests = GUESTS.iter().map(|guest| built.guests.join(format!("{guest}.wasm")));
        let programs = [&built.host, &built.demo, &built.chaos, &built.fuzz, &built.simulate, &built.soak];
        let programs = programs.map(Clone::clone);
        for file in guests.chain(programs) {
            ensure!(file.is_file(), "cargo has built everything, but there is no {}", file.display());
        }
        Ok(built)
    }
}

/// Where cargo puts its results, which its configuration and environment decide.
pub fn target_folder() -> Result<PathBuf> {
    let output = command()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(output.status.success(), "`cargo metadata` failed");
    let metadata = String::from_utf8(output.stdout).context("`cargo metadata` did not print UTF-8")?;
    let folder = json_text(&metadata, "target_directory");
    folder.map(PathBuf::from).context("`cargo metadata` did not name the target folder")
}

/// The text that the first key of this name has in a JSON document that cargo printed. Enough
/// of JSON for a path; a JSON library would be most of this program's build.
fn json_text(document: &str, key: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("\"{key}\":\""))?;
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next().filter(|c| matches!(c, '"' | '\\' | '/'))?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_from_json() {
        let document = r#"{"packages":[],"target_directory":"/home/a \"b\"/ż\\c","version":1}"#;
        assert_eq!(json_text(document, "target_directory").as_deref(), Some(r#"/home/a "b"/ż\c"#));
        assert_eq!(json_text(document, "build_directory"), None);
    }
}
