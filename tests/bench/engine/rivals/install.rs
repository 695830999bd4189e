//! Makes the programs of the rivals runnable: pinned versions, out of the public registries,
//! into the folder of our own builds. What is there already is used again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The oldest version of Node.js that was tried.
const NODE: u32 = 20;

/// `graphile-worker` from npm, with the hashes of `package-lock.json`.
///
/// # Errors
/// Where Node.js or npm is missing, or the registry cannot be reached.
pub fn graphile_worker() -> Result<Vec<OsString>> {
    let version = output(Command::new("node").arg("--version"))
        .context("graphile-worker needs Node.js: install it, `apt-get install nodejs npm` on Debian")?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|it| it.parse::<u32>().ok());
    ensure!(
        major.is_some_and(|major| major >= NODE),
        "graphile-worker needs Node.js {NODE} or newer, and this is {version}"
    );
    let (source, folder) = (source("graphile-worker"), target()?.join("bench-graphile-worker"));
    std::fs::create_dir_all(&folder)?;
    let lock = "package-lock.json";
    // npm writes the hidden file last: with it, the installation is whole.
    let installed = folder.join("node_modules/.package-lock.json").is_file()
        && std::fs::read(folder.join(lock)).ok() == Some(std::fs::read(source.join(lock))?);
    for file in ["package.json", lock, "bench.js"] {
        std::fs::copy(source.join(file), folder.join(file))
            .with_context(|| format!("{} could not be copied", source.join(file).display()))?;
    }
    if !installed {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
        succeed(&mut npm).context(
            "graphile-worker could not be installed: `npm` and registry.npmjs.org are needed for it",
        )?;
    }
    Ok(vec!["node".into(), folder.join("bench.js").into()])
}

/// A small program around the crate `awa`, which is no part of our workspace.
///
/// # Errors
/// Where it cannot be built, for example because crates.io cannot be reached.
pub fn awa() -> Result<Vec<OsString>> {
    let folder = target()?.join("bench-awa");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--manifest-path"]);
    cargo.arg(source("awa").join("Cargo.toml")).arg("--target-dir").arg(&folder);
    succeed(&mut cargo)
        .context("the program around awa could not be built: cargo and crates.io are needed for it")?;
    Ok(vec![folder.join("release/bench-awa").into()])
}

/// Where a rival's own files are.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(name)
}

/// Where cargo has put this program: two folders above it.
fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("this program is in no target folder")?;
    Ok(folder.to_owned())
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| could_not_start(command))?;
    ensure!(output.status.success(), "{command:?} failed ({})", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Runs a command that shows people what it does: standard output is for the figures.
fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| could_not_start(command))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

fn could_not_start(command: &Command) -> String {
    format!("{} could not be started", command.get_program().display())
}
