//! pgbouncer, which the tests put before PostgreSQL.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::apt;

/// Where Debian and its children put it, which is not in everybody's PATH.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// Where the tests look first.
const VARIABLE: &str = "INNKEEPER_TEST_PGBOUNCER";

/// Finds pgbouncer, or installs it where it is missing and can be installed.
pub fn find_or_install() -> Result<()> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    if named.is_some_and(|program| program.is_file()) || Path::new(PROGRAM).is_file() {
        return Ok(());
    }
    eprintln!("xtask: there is no {PROGRAM}");
    ensure!(
        apt::may_install(),
        "pgbouncer is missing, and only root on a system with apt-get gets it installed by this command. \
         Install it (Debian and Ubuntu: `sudo apt-get install pgbouncer`; Fedora: `sudo dnf install \
         pgbouncer`), or set {VARIABLE} to its file"
    );
    apt::install("pgbouncer")?;
    ensure!(Path::new(PROGRAM).is_file(), "pgbouncer was installed, but is not {PROGRAM}");
    Ok(())
}
