//! Whether the fences of the grants are there, and out of the plugins' reach.

use super::facts::{Fence, Session};
use super::{Granted, Inspector};
use crate::config::GrantKey;

impl Inspector<'_> {
    /// Looks at the fence of a grant over the plugin's own connection.
    pub(super) async fn look_at_fence(
        &mut self,
        granted: Granted<'_>,
        session: &mut Session,
    ) -> Result<(), String> {
        let Granted { plugin, database, grant, of_database } = granted;
        if !grant.fence {
            return Ok(());
        }
        let login = &session.login;
        let (user, superuser) = (login.user.clone(), login.superuser);
        match session.fence().await? {
            Fence::Made { is_owner: true } if !superuser => {
                let message = format!(
                    "plugin `{plugin}`: its login in database `{database}`, `{user}`, owns the fence there, so that \
                     SQL of the plugin could lower it: give the plugin a login of its own, as `url`, or the fence \
                     another owner"
                );
                self.found.warnings.push(self.at(&granted, GrantKey::Fence, message));
            }
            Fence::Made { .. } => {}
            Fence::Missing { may_make } => {
                let may_make = match grant.url {
                    None => may_make,
                    // The database's own login makes it. Where it cannot be used, others say so.
                    Some(_) => may_make_fence(of_database).await.unwrap_or(true),
                };
                if !may_make {
                    let message = format!(
                        "plugin `{plugin}`: database `{database}` has no fence, and the login of \
                         [databases.{database}] cannot make one: run the statements of docs/db.md (\"Late \
                         hosts\") there, as a login that may create a schema"
                    );
                    self.found.errors.push(self.at(&granted, GrantKey::Fence, message));
                }
            }
        }
        Ok(())
    }
}

async fn may_make_fence(url: &str) -> Option<bool> {
    let mut session = Session::open(url).await.ok()?;
    let fence = session.fence().await.ok();
    session.close().await;
    fence.map(|fence| matches!(fence, Fence::Missing { may_make: true } | Fence::Made { .. }))
}
