//! Where the programs of PostgreSQL are, and how they get there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::has_server;
use crate::apt;

/// Where Debian and its children put PostgreSQL: a folder for each version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// Debian's settings for the cluster that its packages set up by themselves.
const CLUSTER_SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// The programs of one PostgreSQL.
#[derive(Debug, PartialEq, Eq)]
pub struct Programs {
    /// Makes the files of a server.
    pub initdb: PathBuf,
    /// The server.
    pub postgres: PathBuf,
}

/// Finds PostgreSQL in the PATH or where Debian puts it; installs it where it is missing and
/// can be installed.
pub fn find_or_install() -> Result<Programs> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Some(programs) = find(&folders, Path::new(DEBIAN_FOLDER)) {
        return Ok(programs);
    }
    eprintln!("xtask: there is no PostgreSQL in the PATH or in {DEBIAN_FOLDER}");
    ensure!(
        apt::may_install(),
        "PostgreSQL is missing, and only root on a system with apt-get gets it installed by this command. \
         Install its server (Debian and Ubuntu: `sudo apt-get install postgresql`; Fedora: \
         `sudo dnf install postgresql-server`), so that `initdb` and `postgres` are in the PATH, or set \
         INNKEEPER_TEST_POSTGRES_URL (for the demo INNKEEPER_DEMO_POSTGRES_URL) to a superuser's URL of a server"
    );
    install()?;
    find(&folders, Path::new(DEBIAN_FOLDER))
        .with_context(|| format!("PostgreSQL was installed, but is not in {DEBIAN_FOLDER}"))
}

fn find(path: &[PathBuf], debian: &Path) -> Option<Programs> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(debian)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    let folder = path.iter().cloned().chain(newest_first).find(|folder| has_server(folder))?;
    Some(Programs { initdb: folder.join("initdb"), postgres: folder.join("postgres") })
}

fn install() -> Result<()> {
    let settings = NoCluster::new()?;
    let installed = apt::install("postgresql");
    drop(settings);
    installed.context(
        "PostgreSQL is missing. Install the package `postgresql` by hand, or set INNKEEPER_TEST_POSTGRES_URL",
    )
}

/// While this lives, Debian's package sets up no server of its own and starts none: the
/// machine gets programs and nothing that runs. Settings that are there already are somebody's
/// own, and stay.
struct NoCluster {
    made: bool,
}

impl NoCluster {
    fn new() -> Result<Self> {
        let file = Path::new(CLUSTER_SETTINGS);
        if file.exists() {
            return Ok(Self { made: false });
        }
        let folder = file.parent().context("the file is in a folder")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(file, "create_main_cluster = false\n"))
            .with_context(|| format!("{CLUSTER_SETTINGS} cannot be written"))?;
        Ok(Self { made: true })
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        // The package's own settings replace ours, as they would be without us.
        let standard = Path::new("/usr/share/postgresql-common/createcluster.conf");
        let _ = match standard.is_file() {
            true => fs::copy(standard, CLUSTER_SETTINGS).map(|_| ()),
            false => fs::remove_file(CLUSTER_SETTINGS),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install_fake(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for program in ["initdb", "postgres"] {
            fs::write(folder.join(program), "").unwrap();
        }
    }

    #[test]
    fn the_path_comes_first_and_then_the_newest_version() {
        let root = std::env::temp_dir().join(format!("innkeeper-xtask-find-{}", std::process::id()));
        let (path, debian) = (root.join("bin"), root.join("lib"));
        fs::create_dir_all(&path).unwrap();
        let search = || find(std::slice::from_ref(&path), &debian).map(|programs| programs.postgres);

        assert_eq!(search(), None);
        install_fake(&debian.join("9").join("bin"));
        install_fake(&debian.join("15").join("bin"));
        // A client's tools are no server.
        fs::create_dir_all(debian.join("17").join("bin")).unwrap();
        assert_eq!(search(), Some(debian.join("15").join("bin").join("postgres")));
        install_fake(&path);
        assert_eq!(search(), Some(path.join("postgres")));
        fs::remove_dir_all(&root).unwrap();
    }
}
