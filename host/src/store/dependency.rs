//! Which job follows which, as the definitions say.

use std::collections::{HashMap, HashSet};

use super::phase::{EngineTx, PhaseTx};
use super::row::{json_text, row};
use super::{StoreError, postgres, sqlite};
use crate::job::Job;

row! {
    /// `job_id` waits for the success of `upstream_id` or is triggered by it, or by its failure.
    #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
    struct Dependency {
        job_id: i32,
        upstream_id: i32,
        /// `success` or `failure`.
        kind: String,
    }
}

impl Dependency {
    /// The job whose definition says so.
    fn said_by(&self) -> i32 {
        if self.kind == "success" { self.job_id } else { self.upstream_id }
    }
}

/// What the definitions of these jobs say, of jobs that are known.
pub(super) fn wanted(jobs: &[Job], id: impl Fn(&str) -> Option<i32>) -> HashSet<Dependency> {
    let mut wanted = HashSet::new();
    for job in jobs {
        let (after, on_failure) = (&job.policies.after, &job.policies.on_failure);
        if after.is_none() && on_failure.is_none() {
            continue;
        }
        let Some(own) = id(job.name.as_str()) else { continue };
        let upstream = after.iter().flat_map(|after| &after.jobs).filter_map(|name| id(name.as_str()));
        wanted.extend(upstream.map(|upstream_id| Dependency {
            job_id: own,
            upstream_id,
            kind: "success".to_owned(),
        }));
        let follower = on_failure.iter().filter_map(|name| id(name.as_str()));
        wanted.extend(follower.map(|job_id| Dependency {
            job_id,
            upstream_id: own,
            kind: "failure".to_owned(),
        }));
    }
    wanted
}

/// True where the store has other dependencies of these jobs.
pub(super) fn differ(
    jobs: &[Job],
    id: impl Fn(&str) -> Option<i32>,
    wanted: &HashSet<Dependency>,
    known: &HashSet<Dependency>,
) -> bool {
    if wanted.is_empty() && known.is_empty() {
        return false;
    }
    let own: HashSet<i32> = jobs.iter().filter_map(|job| id(job.name.as_str())).collect();
    !wanted.is_subset(known) || known.iter().any(|row| own.contains(&row.said_by()) && !wanted.contains(row))
}

/// Makes the dependencies of these jobs what their definitions say, and forgets those of `retired`.
/// Returns the jobs that follow others than before.
pub(super) async fn change(
    tx: &mut PhaseTx,
    jobs: &[Job],
    ids: &HashMap<String, i32>,
    retired: &[i32],
    known: &HashSet<Dependency>,
) -> Result<Vec<i32>, StoreError> {
    let wanted = wanted(jobs, |name| ids.get(name).copied());
    if wanted.is_empty() && known.is_empty() {
        return Ok(Vec::new());
    }
    let mut own: HashSet<i32> = jobs.iter().filter_map(|job| ids.get(job.name.as_str())).copied().collect();
    own.extend(retired);
    let mut new: Vec<&Dependency> = wanted.difference(known).collect();
    let mut gone: Vec<&Dependency> =
        known.iter().filter(|row| own.contains(&row.said_by()) && !wanted.contains(*row)).collect();
    new.sort();
    gone.sort();
    write(tx, postgres::DELETE_DEPENDENCIES, sqlite::DELETE_DEPENDENCIES, &gone).await?;
    write(tx, postgres::INSERT_DEPENDENCIES, sqlite::INSERT_DEPENDENCIES, &new).await?;
    let mut followers: Vec<i32> = new.iter().chain(&gone).map(|row| row.job_id).collect();
    followers.sort_unstable();
    followers.dedup();
    Ok(followers)
}

async fn write(
    tx: &mut PhaseTx,
    on_postgres: &'static str,
    on_sqlite: &'static str,
    rows: &[&Dependency],
) -> Result<(), StoreError> {
    for rows in rows.chunks(1_000) {
        match &mut tx.engine {
            EngineTx::Postgres(conn) => {
                sqlx::query(on_postgres)
                    .bind(rows.iter().map(|row| row.job_id).collect::<Vec<_>>())
                    .bind(rows.iter().map(|row| row.upstream_id).collect::<Vec<_>>())
                    .bind(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>())
                    .execute(&mut **conn)
                    .await?;
            }
            EngineTx::Sqlite(conn) => {
                let list: Vec<_> = rows.iter().map(|row| (row.job_id, row.upstream_id, &row.kind)).collect();
                sqlx::query(on_sqlite).bind(json_text(&list)?).execute(&mut **conn).await?;
            }
        }
    }
    Ok(())
}
