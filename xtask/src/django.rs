//! A Python environment with Django, which the tests of the maintenance plugin use: made under
//! the target folder, and made again when its requirements have changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{apt, cargo, process};

/// What is installed, each file of it with its hash.
const REQUIREMENTS: &str = "tests/django/requirements.txt";

/// In the environment: the requirements that it was made of. It is written last, so that an
/// environment without it is not whole.
const STAMP: &str = "innkeeper-requirements.txt";

/// The interpreter of the environment, which is made where it is missing. Installs Python
/// where it is missing and can be installed.
pub fn find_or_install() -> Result<PathBuf> {
    let file = cargo::workspace().join(REQUIREMENTS);
    let requirements = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let environment = cargo::target_folder()?.join("django-venv");
    let interpreter = environment.join("bin").join("python");
    let stamp = environment.join(STAMP);
    let unchanged = fs::read(&stamp).is_ok_and(|made_of| made_of == requirements);
    // The Python that it was made with may have been replaced since.
    if unchanged && runs(&interpreter, "import django, psycopg") {
        return Ok(interpreter);
    }
    let python = find_or_install_python()?;
    let status = process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment))?;
    ensure!(
        status.success(),
        "the Python environment {} could not be made, see above",
        environment.display()
    );
    let status = process::run(
        Command::new(&interpreter)
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(&file),
    )?;
    ensure!(status.success(), "Django, which some tests use, could not be installed from PyPI, see above");
    fs::write(&stamp, requirements).with_context(|| format!("{} cannot be written", stamp.display()))?;
    Ok(interpreter)
}

fn find_or_install_python() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Some(python) = find_python(&folders, can_make_environment) {
        return Ok(python);
    }
    eprintln!(
        "xtask: there is no python3 in the PATH that is at least 3.10 and has the modules venv and ensurepip"
    );
    ensure!(
        apt::may_install(),
        "Python is missing, and only root on a system with apt-get gets it installed by this command. \
         Install Python 3.10 or later with its modules venv and ensurepip (Debian and Ubuntu: \
         `sudo apt-get install python3-venv`; Fedora: `sudo dnf install python3`), so that `python3` is in the PATH"
    );
    apt::install("python3-venv").context("Python is missing. Install the package `python3-venv` by hand")?;
    find_python(&folders, can_make_environment)
        .context("python3-venv was installed, but no python3 in the PATH is at least 3.10 and works")
}

/// The first one in these folders that will do: before Debian's there may be another one that
/// will not.
fn find_python(folders: &[PathBuf], will_do: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join("python3")).find(|python| python.is_file() && will_do(python))
}

/// False for a Python that is too old for this Django, and for Debian's without the package
/// `python3-venv`.
fn can_make_environment(python: &Path) -> bool {
    runs(python, "import sys, venv, ensurepip; ensurepip.version(); sys.exit(sys.version_info < (3, 10))")
}

fn runs(python: &Path, program: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", program]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_that_cannot_make_environments_is_passed_over() {
        let root = std::env::temp_dir().join(format!("innkeeper-xtask-python-{}", std::process::id()));
        let folders = [root.join("none"), root.join("first"), root.join("second")];
        for folder in &folders[1..] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("python3"), "").unwrap();
        }
        let second = folders[2].join("python3");
        assert_eq!(find_python(&folders, |python| *python == second), Some(second.clone()));
        assert_eq!(find_python(&folders, |_| false), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
