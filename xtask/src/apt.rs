//! Packages of Debian and its children, for what the tests need of the system.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::process;

/// Whether this command may install packages: as root, where there is apt-get.
pub fn may_install() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("apt-get").is_file()) && is_root()
}

/// Installs a package without those that it only recommends.
pub fn install(package: &str) -> Result<()> {
    eprintln!("xtask: installing {package} with apt-get");
    apt_get(&["update"])?;
    apt_get(&["install", "--yes", "--no-install-recommends", package])
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let status = process::run(&mut command)?;
    ensure!(status.success(), "`apt-get {}` failed, see above", args.join(" "));
    Ok(())
}

fn is_root() -> bool {
    let user = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    user.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
