//! Programs of Debian's that the tests start: what they are called, where they are, and how they
//! come there.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::apt;

/// A program, and the package that has it.
pub struct ServerProgram {
    /// What finding it is called while it is done.
    pub title: &'static str,
    /// The package of Debian and its children.
    package: &'static str,
    /// Where they put it, which is not in everybody's PATH.
    path: &'static str,
    /// The environment variable where the tests look first.
    variable: &'static str,
}

/// Stands before PostgreSQL in some tests.
pub const PGBOUNCER: ServerProgram = ServerProgram {
    title: "pgbouncer, installed where it is missing",
    package: "pgbouncer",
    path: "/usr/sbin/pgbouncer",
    variable: "INNKEEPER_TEST_PGBOUNCER",
};

/// Components are loaded from it.
pub const REGISTRY: ServerProgram = ServerProgram {
    title: "docker-registry, installed where it is missing",
    package: "docker-registry",
    path: "/usr/bin/docker-registry",
    variable: "INNKEEPER_TEST_REGISTRY",
};

impl ServerProgram {
    /// Finds it, or installs it where it is missing and can be installed.
    pub fn find_or_install(&self) -> Result<()> {
        let Self { package, path, variable, .. } = self;
        let named = std::env::var_os(variable).map(PathBuf::from);
        if named.is_some_and(|program| program.is_file()) || Path::new(path).is_file() {
            return Ok(());
        }
        eprintln!("xtask: there is no {path}");
        ensure!(
            apt::may_install(),
            "{package} is missing, and only root on a system with apt-get gets it installed by this command. \
             Install it (Debian and Ubuntu: `sudo apt-get install {package}`; Fedora has it as well), or set \
             {variable} to its file"
        );
        apt::install(package)?;
        ensure!(Path::new(path).is_file(), "{package} was installed, but is not {path}");
        Ok(())
    }
}
