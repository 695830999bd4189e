//! Bringing the schema up to date.

use super::StoreError;
use super::connection::Store;

/// One step of the schema, for one engine.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// 1 for the first.
    pub number: i32,
    /// The name of its file, the same for both engines.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// What [`Store::migrate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations that it applied, none where the schema was up to date.
    pub applied: Vec<AppliedMigration>,
}

/// A migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: String,
}

pub(super) async fn apply(_store: &Store) -> Result<MigrationReport, StoreError> {
    unimplemented!()
}
pub(super) async fn check(_store: &Store) -> Result<(), StoreError> {
    unimplemented!()
}
