//! `innkeeper migrate`

use serde_json::json;

use super::{CliError, Global, Report};
use crate::engine::store_options;
use crate::store::{Store, StoreOptions};

/// Bring the store's schema up to date.
#[derive(Debug, clap::Args)]
pub(super) struct Migrate {}

pub(super) async fn run(global: &Global, _command: &Migrate) -> Result<Report, CliError> {
    let config = global.load()?;
    let options = StoreOptions { max_connections: 1, create: true, ..store_options(&config) };
    let store = Store::connect(&config.store.url, &options).await?;
    let report = store.migrate().await?;
    store.check_schema().await?;
    let applied = report.applied.iter().map(|applied| applied.name.clone()).collect::<Vec<_>>();
    let text = if applied.is_empty() {
        "The store's schema was up to date.".to_owned()
    } else {
        format!("Applied {}.", applied.join(", "))
    };
    Ok(Report::new(&json!({ "applied": applied }), text))
}
