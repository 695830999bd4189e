//! The demo's folder: the example configuration, the plugin, and the databases' files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::data::AUDIT_RETENTION_DAYS;

/// The jobs of the example, each of which has a schedule.
pub const JOBS: [&str; 2] = ["session-cleanup", "audit-log-pruning"];

/// Says that the folder may be emptied, and is locked while a demo uses it.
const MARKER: &str = ".innkeeper-demo";

/// The folder of a demo.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Where the two databases are.
pub enum Databases {
    /// Files in the folder; this one is the application's.
    Sqlite { application: PathBuf },
    /// The URLs of two databases on a server.
    Postgres { store: String, application: String },
}

impl Folder {
    /// Makes a folder, or empties the one that an earlier demo has made. Anything else is left
    /// alone.
    pub fn prepare(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("the folder {} cannot be made", path.display()))?;
        let path = path.canonicalize()?;
        let marker = path.join(MARKER);
        let empty = fs::read_dir(&path)?.next().is_none();
        ensure!(
            empty || marker.is_file(),
            "{} was not made by this demo, and would be emptied; name another folder with --folder",
            path.display()
        );
        let lock = File::options().create(true).append(true).open(&marker)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => bail!("another demo is running in {}", path.display()),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false if entry.file_name() != MARKER => fs::remove_file(entry.path())?,
                false => {}
            }
        }
        for folder in ["data", "plugins"] {
            fs::create_dir(path.join(folder))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The operator's file.
    pub fn config(&self) -> PathBuf {
        self.path.join("innkeeper.toml")
    }

    /// What the daemon writes to its standard output and standard error.
    pub fn log(&self) -> PathBuf {
        self.path.join("innkeeper.log")
    }

    /// The application's database, where it is a file.
    pub fn application_file(&self) -> PathBuf {
        self.path.join("data").join("app.db")
    }

    /// Writes the example configuration and puts the plugin next to it.
    pub fn write_example(&self, databases: &Databases, guests: &Path) -> Result<()> {
        let component = guests.join("maintenance.wasm");
        fs::copy(&component, self.path.join("plugins").join("maintenance.wasm")).with_context(|| {
            format!("the plugin {} cannot be copied; `cargo xtask demo` builds it", component.display())
        })?;
        fs::write(self.config(), configuration(databases))?;
        Ok(())
    }
}

fn configuration(databases: &Databases) -> String {
    let (store, application, times) = match databases {
        Databases::Sqlite { .. } => ("sqlite:innkeeper.db", "sqlite:app.db", "seconds"),
        Databases::Postgres { store, application } => (store.as_str(), application.as_str(), "timestamp"),
    };
    let (store, application) = (toml_text(store), toml_text(application));
    format!(
        r#"# The example of `cargo xtask demo`: two jobs that clean up the database of a web application.

[host]
name = "demo"
data_dir = "data"            # SQLite databases are in here; relative to this file

[store]                      # the host's own records: jobs and executions
url = {store}

[databases.app]              # the application's database, which plugins may be granted
url = {application}

[plugins.maintenance]
component = "plugins/maintenance.wasm"

[plugins.maintenance.config] # which tables the plugin works on
sessions = {{ table = "sessions", key_column = "id", expires_column = "expires_at", time_format = "{times}" }}
audit = {{ table = "audit_log", key_column = "id", created_column = "recorded_at", time_format = "{times}" }}

[[plugins.maintenance.databases]]
name = "app"

[jobs.session-cleanup]
plugin = "maintenance"
handler = "cleanup-expired-sessions"
args = {{ retention_days = 0, batch_size = 500 }}
schedule = {{ every = "5s" }}  # a real one would rather be {{ cron = "30 2 * * *", timezone = "Europe/Berlin" }}

[jobs.audit-log-pruning]
plugin = "maintenance"
handler = "prune-audit-log"
args = {{ retention_days = {AUDIT_RETENTION_DAYS} }}
schedule = {{ every = "7s" }}
"#
    )
}

/// A basic string of TOML. `$` begins a variable in the operator's file, so a URL with one
/// could not be written as it is.
fn toml_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '$' => quoted.push_str("%24"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_the_demos_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let keepsake = root.path().join("keepsake");
        fs::write(&keepsake, "mine").unwrap();
        let error = Folder::prepare(root.path()).err().expect("the folder holds somebody's file").to_string();
        assert!(error.contains("--folder"), "{error}");
        assert_eq!(fs::read_to_string(&keepsake).unwrap(), "mine");
    }

    #[test]
    fn the_folder_of_an_earlier_demo_is_emptied_unless_it_still_runs() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("demo");
        let first = Folder::prepare(&path).unwrap();
        fs::write(first.application_file(), "old").unwrap();
        let error = Folder::prepare(&path).err().expect("the first demo still runs").to_string();
        assert!(error.contains("another demo"), "{error}");
        drop(first);
        let second = Folder::prepare(&path).unwrap();
        assert!(!second.application_file().exists());
    }

    #[test]
    fn the_example_names_every_job_and_only_those() {
        let text = configuration(&Databases::Sqlite { application: PathBuf::new() });
        let jobs: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("[jobs.")?.strip_suffix(']')).collect();
        assert_eq!(jobs, JOBS);
        assert!(text.contains("url = \"sqlite:app.db\""));
    }

    #[test]
    fn a_url_is_quoted_for_the_file() {
        assert_eq!(toml_text(r#"a"b\c$d"#), r#""a\"b\\c%24d""#);
    }
}
