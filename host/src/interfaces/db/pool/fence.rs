//! The fence of a database: made where it is missing, and raised.

use super::{Database, Engine, control_of};
use crate::database_url::DatabaseUrl;
use crate::interfaces::db::error::Failure;
use crate::interfaces::db::fence::Pass;
use crate::interfaces::db::grant::Grant;
use crate::interfaces::db::{Error, ErrorKind, error, postgres, sqlite};

impl Database {
    /// Raises the fence of an execution, for a plugin that is granted this database.
    pub(in crate::interfaces::db) async fn raise_fence(&self, grant: &Grant, to: Pass) -> Result<(), Error> {
        match (&self.url, &self.engine) {
            (DatabaseUrl::Postgres(url), Engine::Postgres(controls)) => {
                let control = control_of(controls, grant.url.as_ref().unwrap_or(url));
                let raised = match control.raise_fence(to).await {
                    Err(failure) if postgres::is_missing_fence(&failure) => {
                        self.make_fence().await?;
                        control.raise_fence(to).await
                    }
                    raised => raised,
                };
                raised.map_err(|failure| failure.error)
            }
            (DatabaseUrl::Sqlite(path), Engine::Sqlite(writers)) => {
                let opened = sqlite::connect(path, writers, self.acquire_timeout, self.max_size, None).await;
                let mut connection = opened.map_err(|failure| failure.error)?;
                let raised = connection.raise_fence(to).await.map_err(|failure| failure.error);
                let _closed = connection.close().await;
                raised
            }
            _ => unreachable!("the engine is chosen by the URL when the database is made"),
        }
    }

    /// Looks whether the database that a plugin has connected to has a fence, and makes it
    /// otherwise.
    pub(super) async fn require_fence(&self, connection: &mut postgres::Connection) -> Result<(), Failure> {
        if connection.has_fence().await? {
            return Ok(());
        }
        self.make_fence().await?;
        if connection.has_fence().await? {
            return Ok(());
        }
        let message = format!(
            "the plugin's `url` leads to another database than that of [databases.{}], which has the fence: \
             correct it, or make the fence there as well (docs/db.md has the statements)",
            self.name
        );
        Err(error::new(ErrorKind::Denied, message).into())
    }

    /// Makes the fence, by the database's own login.
    async fn make_fence(&self) -> Result<(), Error> {
        let (DatabaseUrl::Postgres(url), Engine::Postgres(controls)) = (&self.url, &self.engine) else {
            return Ok(());
        };
        let Err(Failure { error: why, .. }) = control_of(controls, url).make_fence().await else {
            tracing::info!(database = %self.name, "the fence was made");
            return Ok(());
        };
        let message = format!(
            "it has no fence (`fence = true`), and its login cannot make one ({}): run the statements of \
             docs/db.md there, as a login that may create a schema",
            why.message
        );
        Err(Error { message, ..why })
    }
}
