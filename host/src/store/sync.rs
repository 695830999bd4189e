//! The jobs and queues of a file become those of the store.
//!
//! Several hosts may have files of their own, and share files. Whoever names a job last owns it; a
//! job is retired only by a file of its owner.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::StoreError;
use super::connection::Store;
use super::dependency::{self, Dependency};
use super::phase::{EngineTx, PhaseName, PhaseTx};
use super::place::JobFacts;
use super::plan::move_fire_times;
use super::reopen::open_gates_of_jobs;
use super::row::{json_text, on_engine, row, storable, stored_name};
use super::skip::{SkippedFires, record_skips};
use super::time::Time;
use super::{postgres, sqlite};
use crate::catch_up::{self, Skips};
use crate::job::{Job, Name};
use crate::policy::Queue;

/// What [`Store::sync_jobs`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobSync {
    /// Jobs that were not there, or were retired.
    pub added: Vec<Name>,
    /// Jobs whose definition or owner is another one now.
    pub changed: Vec<Name>,
    /// Jobs of the owner that were not named.
    pub retired: Vec<Name>,
    /// Jobs that had another owner, and whom.
    pub taken_over: Vec<(Name, String)>,
    /// How many records of fires were made that are not run, since the job is not what it was when
    /// they were due.
    pub skipped: usize,
}

/// Jobs that one statement writes.
const BATCH: usize = 1_000;

/// Fires that one call records one by one; what is more shares a record for each job.
const MOST_SINGLE: usize = 50_000;

impl Store {
    /// Makes `jobs` the jobs of `owner`.
    ///
    /// A job whose schedule did not change keeps its next fire time, so that what was missed while
    /// no host was up is caught up, unless that is later than it can be: then the clock was set
    /// back. A new or changed schedule fires from now on, and what the old one had due before is
    /// recorded as skipped. Jobs of this owner that are not named are retired: they fire no more,
    /// and their history stays. A job of another owner that is named becomes this owner's.
    ///
    /// Where nothing changed, nothing is written.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn sync_jobs(&self, owner: &str, jobs: &[Job]) -> Result<JobSync, StoreError> {
        let mut phase = self.begin(PhaseName::Jobs).await?;
        let (sync, changed) = change_jobs(phase.tx(), self, owner, jobs).await?;
        phase.commit().await?;
        open_gates_of_jobs(self, &changed).await?;
        Ok(sync)
    }

    /// Makes `queues` the queues of `owner`. One of this owner that is not named goes back to the
    /// defaults: weight 1, no limits. Returns those that changed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn sync_queues(&self, owner: &str, queues: &[Queue]) -> Result<Vec<Name>, StoreError> {
        let mut phase = self.begin(PhaseName::Jobs).await?;
        let changed = change_queues(phase.tx(), owner, queues).await?;
        phase.commit().await?;
        Ok(changed)
    }
}

/// [`Store::sync_jobs`], as a part of a transaction. Returns also the jobs whose gates are to be
/// opened once it is committed: whoever waits may be free to go on under the new definition. Not in
/// the same transaction, since others lock gates before jobs.
pub(super) async fn change_jobs(
    tx: &mut PhaseTx,
    store: &Store,
    owner: &str,
    jobs: &[Job],
) -> Result<(JobSync, Vec<i32>), StoreError> {
    let file = File::new(owner, jobs)?;
    // Mostly nothing has changed, and then nobody is kept waiting.
    let mut known = Known::read(tx, &file).await?;
    if known.changes(&file, true)?.is_empty() {
        return Ok((JobSync::default(), Vec::new()));
    }
    if let EngineTx::Postgres(conn) = &mut tx.engine {
        sqlx::query(postgres::LOCK_JOBS).execute(&mut **conn).await?;
        known = Known::read(tx, &file).await?;
    }
    let mut changes = known.changes(&file, false)?;
    changes.sync.skipped = record_skips(tx, store, known.now, &changes.skips).await?;
    retire(tx, &changes.retire).await?;
    take_over(tx, &file.owner, &changes.take_over).await?;
    move_fire_times(tx, &changes.moved).await?;
    let mut ids = known.ids();
    ids.extend(save_jobs(tx, &file, &changes.save).await?);
    let followers = dependency::change(tx, jobs, &ids, &changes.retire, &known.dependencies).await?;
    let mut changed = changes.changed;
    changed.extend(followers);
    Ok((changes.sync, changed))
}

/// [`Store::sync_queues`], as a part of a transaction.
pub(super) async fn change_queues(
    tx: &mut PhaseTx,
    owner: &str,
    queues: &[Queue],
) -> Result<Vec<Name>, StoreError> {
    let owner = storable(owner);
    let rows: Vec<QueueRow> =
        on_engine!(tx, sql, conn => sqlx::query_as(sql::FILE_QUEUES).fetch_all(conn).await?);
    let named: HashSet<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
    let mut wanted: Vec<QueueRow> = queues.iter().map(|queue| QueueRow::new(queue, &owner)).collect();
    let left = rows.iter().filter(|row| row.owner == owner && !named.contains(row.name.as_str()));
    wanted.extend(left.map(|row| QueueRow { name: row.name.clone(), ..QueueRow::of_nobody() }));
    // In one order, so that two hosts that start at once do not wait for each other.
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut changed = Vec::new();
    for queue in wanted.iter().filter(|queue| !rows.contains(queue)) {
        let now = tx.now;
        on_engine!(tx, sql, conn => {
            sqlx::query(sql::SAVE_QUEUE)
                .bind(now)
                .bind(&queue.name)
                .bind(&queue.owner)
                .bind(queue.weight)
                .bind(queue.total_limit)
                .bind(queue.host_limit)
                .execute(conn)
                .await?;
        });
        changed.push(stored_name(&queue.name)?);
    }
    Ok(changed)
}

row! {
    #[derive(Clone, PartialEq)]
    struct QueueRow {
        name: String,
        owner: String,
        weight: i32,
        total_limit: Option<i32>,
        host_limit: Option<i32>,
    }
}

impl QueueRow {
    fn new(queue: &Queue, owner: &str) -> Self {
        let count = super::row::to_count;
        Self {
            name: queue.name.to_string(),
            owner: owner.to_owned(),
            weight: count(queue.weight),
            total_limit: queue.limit.map(count),
            host_limit: queue.limit_per_host.map(count),
        }
    }

    fn of_nobody() -> Self {
        Self { name: String::new(), owner: String::new(), weight: 1, total_limit: None, host_limit: None }
    }
}

/// What a host's file says.
struct File<'a> {
    owner: String,
    jobs: &'a [Job],
    /// The jobs as they are stored.
    specs: Vec<String>,
}

impl<'a> File<'a> {
    fn new(owner: &str, jobs: &'a [Job]) -> Result<Self, StoreError> {
        let specs = jobs.iter().map(json_text).collect::<Result<_, _>>()?;
        Ok(Self { owner: storable(owner).into_owned(), jobs, specs })
    }
}

row! {
    struct KnownRow {
        id: i32,
        name: String,
        owner: String,
        spec: String,
        queue_id: i32,
        priority: i32,
        gated: bool,
        /// When it fires next, or would if it were not paused.
        fire_at: Option<Time>,
        paused: bool,
        retired: bool,
    }
}

impl KnownRow {
    /// A definition that cannot be read is as good as another one.
    fn job(&self) -> Option<Job> {
        serde_json::from_str(&self.spec).ok()
    }

    /// True when the other definition has the fire times of this one.
    fn fires_like(&self, other: &Job) -> bool {
        // To read all of a definition takes some times as long.
        let before: Option<Timing> = serde_json::from_str(&self.spec).ok();
        let schedule = serde_json::to_value(&other.schedule).ok();
        if before.is_some_and(|before| before.enabled == other.enabled && Some(before.schedule) == schedule) {
            return true;
        }
        self.job().is_some_and(|job| job.enabled == other.enabled && job.schedule == other.schedule)
    }

    fn facts(&self) -> JobFacts {
        let Self { id, queue_id, priority, gated, paused, .. } = *self;
        JobFacts { id, queue_id, priority, gated, paused }
    }
}

/// The part of a definition that says when a job fires.
#[derive(Deserialize)]
struct Timing {
    schedule: Value,
    enabled: bool,
}

/// What the store has.
struct Known {
    now: Time,
    rows: Vec<KnownRow>,
    /// Of the file's jobs that count from the end of an execution, those where one is under way.
    unfinished: HashSet<i32>,
    dependencies: HashSet<Dependency>,
}

/// What is to be written. Numbers are places in the file.
#[derive(Default)]
struct Changes {
    save: Vec<(usize, Option<Time>)>,
    take_over: Vec<i32>,
    retire: Vec<i32>,
    moved: Vec<(i32, Option<Time>)>,
    skips: Vec<SkippedFires>,
    /// How many of them are recorded one by one.
    single: usize,
    /// Jobs that were there, and are others now.
    changed: Vec<i32>,
    dependencies_differ: bool,
    sync: JobSync,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.save.is_empty()
            && self.take_over.is_empty()
            && self.retire.is_empty()
            && self.moved.is_empty()
            && !self.dependencies_differ
    }

    /// The old schedule's fires that are due by now and were not fired.
    fn skip(&mut self, row: &KnownRow, before: Option<&Job>, now: Timestamp, reason: String) {
        let Some(before) = before else { return };
        let (Some(schedule), Some(first)) = (&before.schedule, row.fire_at) else { return };
        let single = if self.single < MOST_SINGLE { catch_up::ONE_BY_ONE } else { 0 };
        let fires: Skips = catch_up::skip_all(schedule, first.0, now, single);
        self.single += fires.single.len();
        if !fires.is_empty() {
            self.skips.push(SkippedFires { facts: row.facts(), job: before.clone(), fires, reason });
        }
    }
}

impl Known {
    async fn read(tx: &mut PhaseTx, file: &File<'_>) -> Result<Self, StoreError> {
        let bound = tx.now;
        let (now, rows, dependencies): (Time, Vec<KnownRow>, Vec<Dependency>) = on_engine!(tx, sql, conn => (
            sqlx::query_scalar(sql::NOW).bind(bound).fetch_one(&mut *conn).await?,
            sqlx::query_as(sql::KNOWN_JOBS).fetch_all(&mut *conn).await?,
            sqlx::query_as(sql::DEPENDENCIES).fetch_all(conn).await?,
        ));
        let paced: HashSet<&str> =
            file.jobs.iter().filter(|job| is_paced(job)).map(|job| job.name.as_str()).collect();
        let paced = rows.iter().filter(|row| row.fire_at.is_none() && paced.contains(row.name.as_str()));
        let unfinished = unfinished_fires(tx, &paced.map(|row| row.id).collect::<Vec<_>>()).await?;
        Ok(Self { now, rows, unfinished, dependencies: dependencies.into_iter().collect() })
    }

    fn ids(&self) -> HashMap<String, i32> {
        self.rows.iter().map(|row| (row.name.clone(), row.id)).collect()
    }

    /// `any`: the first is enough.
    fn changes(&self, file: &File<'_>, any: bool) -> Result<Changes, StoreError> {
        let mut known: HashMap<&str, &KnownRow> =
            self.rows.iter().map(|row| (row.name.as_str(), row)).collect();
        let mut changes = Changes::default();
        for (place, job) in file.jobs.iter().enumerate() {
            if any && !changes.is_empty() {
                return Ok(changes);
            }
            match known.remove(job.name.as_str()) {
                Some(row) => self.compare(&mut changes, row, file, place),
                None => {
                    changes.save.push((place, fire_after(job, self.now)));
                    changes.sync.added.push(job.name.clone());
                }
            }
        }
        let mut left: Vec<&&KnownRow> =
            known.values().filter(|row| row.owner == file.owner && !row.retired).collect();
        left.sort_by(|a, b| a.name.cmp(&b.name));
        for row in left {
            let is_due = row.fire_at.is_some_and(|at| at <= self.now);
            let before = if is_due { row.job() } else { None };
            let reason = "the job was taken out of the configuration before it was run".to_owned();
            changes.skip(row, before.as_ref(), self.now.0, reason);
            changes.retire.push(row.id);
            changes.sync.retired.push(stored_name(&row.name)?);
        }
        let ids: HashMap<&str, i32> = self.rows.iter().map(|row| (row.name.as_str(), row.id)).collect();
        let wanted = dependency::wanted(file.jobs, |name| ids.get(name).copied());
        changes.dependencies_differ =
            dependency::differ(file.jobs, |name| ids.get(name).copied(), &wanted, &self.dependencies);
        Ok(changes)
    }

    fn compare(&self, changes: &mut Changes, row: &KnownRow, file: &File<'_>, place: usize) {
        let job = &file.jobs[place];
        if row.retired {
            changes.save.push((place, self.fire_anew(row, job)));
            changes.sync.added.push(job.name.clone());
            return;
        }
        let is_taken = row.owner != file.owner;
        if is_taken {
            changes.sync.taken_over.push((job.name.clone(), row.owner.clone()));
        }
        if row.spec == file.specs[place] {
            let next = self.fire_as_before(row, job);
            if next != row.fire_at {
                changes.moved.push((row.id, next));
            }
            if is_taken {
                changes.take_over.push(row.id);
                changes.sync.changed.push(job.name.clone());
            }
            return;
        }
        let next = if row.fires_like(job) {
            self.fire_as_before(row, job)
        } else {
            if row.fire_at.is_some_and(|at| at <= self.now) {
                let what =
                    if job.enabled { "the job's schedule was changed" } else { "the job was disabled" };
                changes.skip(row, row.job().as_ref(), self.now.0, format!("{what} before it was run"));
            }
            self.fire_anew(row, job)
        };
        changes.save.push((place, next));
        changes.changed.push(row.id);
        changes.sync.changed.push(job.name.clone());
    }

    /// Of a schedule that did not change: what is due stays due. What is later than it can be was
    /// planned while the clock was wrong, and what is nowhere was lost.
    fn fire_as_before(&self, row: &KnownRow, job: &Job) -> Option<Time> {
        match row.fire_at {
            Some(due) if due <= self.now => Some(due),
            Some(due) => Some(fire_after(job, self.now).map_or(due, |next| next.min(due))),
            None if self.unfinished.contains(&row.id) => None,
            None => fire_after(job, self.now),
        }
    }

    /// Of a schedule that is another one now.
    fn fire_anew(&self, row: &KnownRow, job: &Job) -> Option<Time> {
        // The end of what is under way counts, if it was started as one that counts.
        let goes_on = self.unfinished.contains(&row.id) && row.job().as_ref().is_some_and(is_paced);
        if goes_on { None } else { fire_after(job, self.now) }
    }
}

/// True where the end of an execution decides when it fires next.
fn is_paced(job: &Job) -> bool {
    job.enabled && job.schedule.as_ref().is_some_and(|schedule| schedule.every_after().is_some())
}

fn fire_after(job: &Job, now: Time) -> Option<Time> {
    let schedule = job.schedule.as_ref().filter(|_| job.enabled)?;
    schedule.next_after(now.0).map(Time)
}

/// Of these jobs, those with a fire whose execution has not ended.
pub(super) async fn unfinished_fires(tx: &mut PhaseTx, ids: &[i32]) -> Result<HashSet<i32>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let unfinished: Vec<i32> = match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query_scalar(postgres::UNFINISHED_FIRES).bind(ids).fetch_all(&mut **conn).await?
        }
        EngineTx::Sqlite(conn) => {
            sqlx::query_scalar(sqlite::UNFINISHED_FIRES).bind(json_text(&ids)?).fetch_all(&mut **conn).await?
        }
    };
    Ok(unfinished.into_iter().collect())
}

async fn retire(tx: &mut PhaseTx, ids: &[i32]) -> Result<(), StoreError> {
    let now = tx.now;
    for ids in ids.chunks(BATCH) {
        match &mut tx.engine {
            EngineTx::Postgres(conn) => {
                sqlx::query(postgres::RETIRE_JOBS).bind(now).bind(ids).execute(&mut **conn).await?;
            }
            EngineTx::Sqlite(conn) => {
                let ids = json_text(&ids)?;
                sqlx::query(sqlite::RETIRE_JOBS).bind(now).bind(ids).execute(&mut **conn).await?;
            }
        }
    }
    Ok(())
}

async fn take_over(tx: &mut PhaseTx, owner: &str, ids: &[i32]) -> Result<(), StoreError> {
    let now = tx.now;
    for ids in ids.chunks(BATCH) {
        match &mut tx.engine {
            EngineTx::Postgres(conn) => {
                let query = sqlx::query(postgres::TAKE_OVER_JOBS).bind(now).bind(owner).bind(ids);
                query.execute(&mut **conn).await?;
            }
            EngineTx::Sqlite(conn) => {
                let query = sqlx::query(sqlite::TAKE_OVER_JOBS).bind(now).bind(owner).bind(json_text(&ids)?);
                query.execute(&mut **conn).await?;
            }
        }
    }
    Ok(())
}

/// Writes definitions. Returns the ids of the jobs.
async fn save_jobs(
    tx: &mut PhaseTx,
    file: &File<'_>,
    save: &[(usize, Option<Time>)],
) -> Result<HashMap<String, i32>, StoreError> {
    let queue_of = |job: &Job| job.policies.queue.as_ref().map_or(Queue::DEFAULT, Name::as_str).to_owned();
    let mut queues: Vec<String> = save.iter().map(|(place, _)| queue_of(&file.jobs[*place])).collect();
    queues.sort_unstable();
    queues.dedup();
    ensure_queues(tx, &queues).await?;
    let (now, mut ids) = (tx.now, HashMap::new());
    for save in save.chunks(BATCH) {
        let jobs = || save.iter().map(|(place, _)| &file.jobs[*place]);
        let specs = || save.iter().map(|(place, _)| file.specs[*place].as_str());
        let saved: Vec<IdRow> = match &mut tx.engine {
            EngineTx::Postgres(conn) => {
                sqlx::query_as(postgres::SAVE_JOBS)
                    .bind(now)
                    .bind(&file.owner)
                    .bind(jobs().map(|job| job.name.as_str()).collect::<Vec<_>>())
                    .bind(jobs().map(|job| job.plugin.as_str()).collect::<Vec<_>>())
                    .bind(jobs().map(|job| storable(&job.handler).into_owned()).collect::<Vec<_>>())
                    .bind(specs().collect::<Vec<_>>())
                    .bind(save.iter().map(|(_, next)| *next).collect::<Vec<_>>())
                    .bind(jobs().map(queue_of).collect::<Vec<_>>())
                    .bind(jobs().map(|job| job.policies.priority).collect::<Vec<_>>())
                    .bind(jobs().map(|job| job.policies.is_gated()).collect::<Vec<_>>())
                    .fetch_all(&mut **conn)
                    .await?
            }
            EngineTx::Sqlite(conn) => {
                let rows: Vec<_> = jobs()
                    .zip(specs())
                    .zip(save)
                    .map(|((job, spec), (_, next))| {
                        let policies = &job.policies;
                        let at = next.map(Time::micros);
                        let (queue, gated) = (queue_of(job), policies.is_gated());
                        (
                            &job.name,
                            &job.plugin,
                            storable(&job.handler),
                            spec,
                            at,
                            queue,
                            policies.priority,
                            gated,
                        )
                    })
                    .collect();
                sqlx::query_as(sqlite::SAVE_JOBS)
                    .bind(now)
                    .bind(&file.owner)
                    .bind(json_text(&rows)?)
                    .fetch_all(&mut **conn)
                    .await?
            }
        };
        ids.extend(saved.into_iter().map(|row| (row.name, row.id)));
    }
    Ok(ids)
}

row! {
    struct IdRow {
        id: i32,
        name: String,
    }
}

/// A queue that no file describes has the defaults.
async fn ensure_queues(tx: &mut PhaseTx, names: &[String]) -> Result<(), StoreError> {
    let now = tx.now;
    match &mut tx.engine {
        EngineTx::Postgres(conn) => {
            sqlx::query(postgres::ENSURE_QUEUES).bind(now).bind(names).execute(&mut **conn).await?;
        }
        EngineTx::Sqlite(conn) => {
            let names = json_text(&names)?;
            sqlx::query(sqlite::ENSURE_QUEUES).bind(now).bind(names).execute(&mut **conn).await?;
        }
    }
    Ok(())
}
