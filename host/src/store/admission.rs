//! Executions that wait for more than a time go on: past the jobs that theirs comes after, the limit
//! of their key, and the limits of their job, to `ready`.
//!
//! Each stage is a transaction of its own and looks only where a mark says that something may have
//! changed ([`super::gate`]). Whoever takes a mark is the only one that grants permits of that job and
//! key, so a limit holds over all hosts; what it grants is a row for each holder ([`super::permit`]).

use uuid::Uuid;

use super::StoreError;
use super::blocked::{BATCH, BlockedRow, PASS_KEY, UNBLOCK, blocked, ids, unblock};
use super::cancel::request_cancel;
use super::connection::Store;
use super::follow;
use super::gate::{Gate, Stage, open_gates, take_gates};
use super::permit::{self, Scope};
use super::phase::{PhaseName, PhaseTx};
use super::place::insert_ready;
use super::rate::{self, Allowance};
use super::row::{LoadedJob, load_jobs, on_engine};
use super::unstarted::{Unstarted, end_unstarted};
use crate::policy::{Policies, WhenFull};

/// What [`Store::admit`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Marks that it looked at.
    pub looked: usize,
    /// Executions that are ready now.
    pub ready: usize,
    /// Executions that were made, of jobs that follow others.
    pub triggered: usize,
    /// Executions that are not run, since a limit was reached or another one replaces them.
    pub skipped: usize,
    /// Running executions that were asked to end in favour of another one.
    pub replaced: usize,
}

impl Store {
    /// Lets executions go on that wait for permits or for other jobs, where there is reason to look;
    /// at `limit` places for each stage.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn admit(&self, limit: u32) -> Result<Admitted, StoreError> {
        let mut admitted = Admitted::default();
        for stage in [Stage::After, Stage::Key, Stage::Job] {
            let mut phase = self.begin(PhaseName::Plan).await?;
            let gates = take_gates(phase.tx(), stage, limit).await?;
            if gates.is_empty() {
                continue;
            }
            admitted.looked += gates.len();
            pass(self, phase.tx(), gates, &mut admitted).await?;
            phase.commit().await?;
        }
        Ok(admitted)
    }
}

/// Looks at each of the marks that were taken.
async fn pass(
    store: &Store,
    tx: &mut PhaseTx,
    gates: Vec<Gate>,
    admitted: &mut Admitted,
) -> Result<(), StoreError> {
    let jobs = load_jobs(tx, gates.iter().map(|gate| gate.job)).await?;
    let mut look = Look::default();
    for gate in gates {
        let Some(loaded) = jobs.get(&gate.job) else { continue };
        match gate.stage {
            Stage::After if loaded.facts.paused => {
                follow::pass_while_paused(store, tx, loaded, &mut look.then).await?;
            }
            // Whoever resumes the job sets the mark again.
            _ if loaded.facts.paused => {}
            Stage::After => follow::pass(store, tx, loaded, &mut look.then).await?,
            Stage::Key => pass_key(tx, loaded, gate, &mut look).await?,
            Stage::Job => pass_job(tx, loaded, gate, &mut look).await?,
        }
    }
    insert_ready(tx, &look.then.ready).await?;
    admitted.ready += look.then.ready.len();
    admitted.triggered += look.then.triggered;
    admitted.skipped += look.skipped + look.then.skipped;
    admitted.replaced += look.replaced;
    open_gates(tx, look.then.gates, None).await
}

/// What the looks of one transaction have come to.
#[derive(Default)]
struct Look {
    then: follow::Then,
    skipped: usize,
    replaced: usize,
}

/// From the limit of their key to those of their job.
async fn pass_key(
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    gate: Gate,
    look: &mut Look,
) -> Result<(), StoreError> {
    let (id, policies) = (gate.job, policies(loaded));
    let per_key = policies.concurrency.as_ref().and_then(|limits| limits.per_key.as_ref());
    let free = match per_key {
        Some(limit) => limit.limit.saturating_sub(permit::count(tx, Scope::Key, id, &gate.key).await?),
        // The job has lost its limit since.
        None => u32::MAX,
    };
    let mut waiting = blocked(tx, id, "key", &gate.key, BATCH).await?;
    let more = waiting.len() == BATCH as usize;
    let rest = waiting.split_off(waiting.len().min(free as usize));
    let passed = ids(&unblock(tx, PASS_KEY, "key", waiting).await?);
    if per_key.is_some() {
        permit::grant(tx, &passed, Scope::Key, id, &gate.key).await?;
    }
    if !passed.is_empty() {
        look.then.gates.push(Gate::of_limit(id, None));
    }
    if let Some(limit) = per_key.filter(|_| !rest.is_empty()) {
        let what = format!("{} at once for key {}", limit.limit, gate.key);
        full(tx, &policies, Full { scope: Scope::Key, gate: &gate, limit: limit.limit, what }, look).await?;
    }
    if more && (rest.is_empty() || turns_away(&policies)) {
        look.then.gates.push(gate);
    }
    Ok(())
}

/// From the limits of their job to `ready`.
async fn pass_job(
    tx: &mut PhaseTx,
    loaded: &LoadedJob,
    gate: Gate,
    look: &mut Look,
) -> Result<(), StoreError> {
    let (id, policies) = (gate.job, policies(loaded));
    let limit = policies.concurrency.as_ref().and_then(|limits| limits.limit);
    let by_limit = match limit {
        Some(limit) => limit.saturating_sub(permit::count(tx, Scope::Job, id, "").await?),
        None => u32::MAX,
    };
    let by_rate = match policies.rate {
        Some(rate) => rate::allowance(tx, id, rate).await?,
        None => Allowance { free: u32::MAX, more_at: None },
    };
    let mut waiting = blocked(tx, id, "limit", "", BATCH).await?;
    let more = waiting.len() == BATCH as usize;
    let rest = waiting.split_off(waiting.len().min(by_limit.min(by_rate.free) as usize));
    let waiting = unblock(tx, UNBLOCK, "limit", waiting).await?;
    let passed = ids(&waiting);
    if limit.is_some() {
        permit::grant(tx, &passed, Scope::Job, id, "").await?;
    }
    if policies.rate.is_some() {
        let attempts: Vec<_> = waiting.iter().map(|row| (row.execution_id, row.attempt + 1)).collect();
        rate::reserve(tx, id, &attempts).await?;
    }
    look.then.ready.extend(waiting.iter().map(|row| row.ready(id)));
    let is_full = by_limit as usize <= passed.len();
    if let Some(limit) = limit.filter(|_| is_full && !rest.is_empty()) {
        let what = format!("{limit} at once");
        full(tx, &policies, Full { scope: Scope::Job, gate: &gate, limit, what }, look).await?;
    }
    if by_rate.free as usize <= passed.len() && !rest.is_empty() && by_rate.more_at.is_some() {
        // Later than anything that is marked in this transaction: a row of its own.
        open_gates(tx, vec![gate.clone()], by_rate.more_at).await?;
    }
    if more && (rest.is_empty() || (is_full && turns_away(&policies))) {
        look.then.gates.push(gate);
    }
    Ok(())
}

/// A definition that this binary cannot read limits nothing: its executions fail at their START,
/// which says so.
fn policies(loaded: &LoadedJob) -> Policies {
    loaded.job.as_ref().map_or_else(|_| Policies::default(), |job| job.policies.clone())
}

fn turns_away(policies: &Policies) -> bool {
    policies.concurrency.as_ref().is_some_and(|limits| limits.when_full != WhenFull::Queue)
}

/// A limit that is reached.
struct Full<'a> {
    scope: Scope,
    gate: &'a Gate,
    limit: u32,
    /// The limit, in words.
    what: String,
}

/// Deals with executions that found the limit reached, as the job says. One that has been tried
/// already waits in line in any case: it is no new one.
async fn full(
    tx: &mut PhaseTx,
    policies: &Policies,
    full: Full<'_>,
    look: &mut Look,
) -> Result<(), StoreError> {
    let when_full = policies.concurrency.as_ref().map_or(WhenFull::Queue, |limits| limits.when_full);
    let kept = match when_full {
        WhenFull::Queue => return Ok(()),
        WhenFull::Skip => 0,
        WhenFull::Replace => full.limit,
    };
    let Gate { job, key, .. } = full.gate;
    let blocker = if full.scope == Scope::Key { "key" } else { "limit" };
    let mut untried: Vec<BlockedRow> = on_engine!(tx, sql, conn => {
        sqlx::query_as(sql::BLOCKED_LAST)
            .bind(*job)
            .bind(blocker)
            .bind(key)
            .bind(i64::from(BATCH))
            .fetch_all(conn)
            .await?
    });
    let turned_away = untried.split_off(untried.len().min(kept as usize));
    let turned_away = unblock(tx, UNBLOCK, blocker, turned_away).await?;
    let holders = permit::holders(tx, full.scope, *job, key).await?;
    let why = match (when_full, untried.first()) {
        (WhenFull::Replace, Some(newest)) => format!("replaced by execution {}", newest.execution_id),
        _ => format!("the limit of {} was reached{}", full.what, by_whom(&holders)),
    };
    look.skipped += turned_away.len();
    let ended: Vec<_> = turned_away.iter().map(|row| (row.execution_id, row.attempt)).collect();
    look.then.gates.extend(end_unstarted(tx, &ended, Unstarted::Skipped, &why).await?);
    if when_full == WhenFull::Replace {
        // As many as come in their places, those that have been at it for the longest.
        let replaced: Vec<Uuid> = holders.into_iter().take(untried.len()).collect();
        look.replaced += replaced.len();
        request_cancel(tx, &replaced, &why).await?;
    }
    Ok(())
}

/// The holders of a limit, as far as anybody reads on.
fn by_whom(holders: &[Uuid]) -> String {
    const NAMED: usize = 3;
    let named: Vec<String> = holders.iter().take(NAMED).map(ToString::to_string).collect();
    match (named.is_empty(), holders.len().saturating_sub(NAMED)) {
        (true, _) => String::new(),
        (false, 0) => format!(" by {}", named.join(", ")),
        (false, more) => format!(" by {} and {more} more", named.join(", ")),
    }
}
