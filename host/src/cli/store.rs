//! `innkeeper store …`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{CliError, Global, Report};
use crate::store::{BackupError, backup};

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Copy a store on SQLite to a file, while hosts work on it, and check the copy.
    Backup {
        /// The file to make. It can be served from as it is.
        file: PathBuf,
        /// Replace the file if it is there.
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn run(global: &Global, command: StoreCommand) -> Result<Report, CliError> {
    let StoreCommand::Backup { file, force } = command;
    // Whatever the version of the schema: an upgrade is what one makes a backup before.
    let url = global.load()?.store.url;
    let made = backup(&url, &file, force).await?;
    let text = format!(
        "Copied the store to {}: {} bytes, at migration {}, checked and found sound.",
        made.file.display(),
        made.size,
        made.migration
    );
    let json = json!({
        "store": url.to_string(),
        "file": made.file,
        "bytes": made.size,
        "migration": made.migration,
    });
    Ok(Report::new(&json, text))
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Store(error) => error.into(),
            BackupError::NotSqlite { .. } | BackupError::Refused(_) | BackupError::File { .. } => {
                Self::usage(error.to_string())
            }
            BackupError::Damaged { .. } => Self::unreachable(error.to_string()),
        }
    }
}
