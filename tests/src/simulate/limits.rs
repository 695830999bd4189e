//! What has to hold at each START: limits, rates, pauses, and what a job comes after.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use innkeeper::execution::{Attempt, Trigger};
use innkeeper::job::Job;
use innkeeper::policy::{Queue, Rate};
use innkeeper::store::QueueRecord;
use uuid::Uuid;

use super::stage::{Open, Stage};

/// What bounds something. What was let through under a higher bound still counts against the lower
/// one, and may be more than that until it has ended.
#[derive(Clone, Copy, Debug, Default)]
struct Bound {
    /// None: any number.
    most: Option<u32>,
    /// The lower one that was set since.
    next: Option<u32>,
}

impl Bound {
    fn set(&mut self, limit: Option<u32>) {
        match (self.most, limit) {
            (Some(most), Some(limit)) if limit >= most => *self = Self { most: Some(limit), next: None },
            (_, Some(limit)) => self.next = Some(limit),
            (_, None) => *self = Self::default(),
        }
    }

    /// So many are there at most.
    fn tighten(&mut self, there: usize) {
        if let Some(next) = self.next.filter(|next| there <= *next as usize) {
            *self = Self { most: Some(next), next: None };
        }
    }

    fn is_broken_by(self, number: usize) -> bool {
        self.most.is_some_and(|most| number > most as usize)
    }
}

/// What is known of the limits.
#[derive(Debug, Default)]
pub struct Limits {
    jobs: BTreeMap<String, Bound>,
    queues: BTreeMap<String, Bound>,
    rates: BTreeMap<String, (Bound, Rate)>,
    /// When attempts of jobs with a rate started, by the store's clock.
    starts: HashMap<String, BTreeMap<(Uuid, u32), i64>>,
    pub follows: Follows,
}

impl Limits {
    pub fn synced(&mut self, jobs: &[Job], queues: &[Queue]) {
        for job in jobs {
            let limit = job.policies.concurrency.as_ref().and_then(|limits| limits.limit);
            self.jobs.entry(job.name.to_string()).or_default().set(limit);
            if let Some(rate) = job.policies.rate {
                let entry = self.rates.entry(job.name.to_string()).or_insert((Bound::default(), rate));
                entry.0.set(Some(rate.count));
                entry.1 = rate;
            }
        }
        for queue in queues {
            self.queues.entry(queue.name.to_string()).or_default().set(queue.limit);
        }
    }

    /// The clock was set back: what started before counts no more here, though it does in the store
    /// for as long as it is not later than the clock.
    pub fn forget_starts(&mut self) {
        self.starts.clear();
    }

    fn in_period(&self, job: &str, period: i64, now: i64) -> usize {
        let starts = self.starts.get(job).into_iter().flat_map(BTreeMap::values);
        starts.filter(|at| **at > now - period).count()
    }
}

/// What is known of `down-scheduled`, whose fires wait for `up-a` and `up-b`.
#[derive(Debug, Default)]
pub struct Follows {
    /// Counts up with all that is noted here.
    number: u64,
    /// The latest success of each job, and how many there were.
    successes: HashMap<String, (u64, u64)>,
    /// When each execution was made.
    created: HashMap<Uuid, u64>,
    /// When the last one was made that has started, and how many have.
    started: (u64, u64),
}

impl Follows {
    pub fn created(&mut self, job: &str, execution: Uuid) {
        self.number += 1;
        if job == "down-scheduled" {
            self.created.insert(execution, self.number);
        }
    }

    fn succeeded(&mut self, job: &str) {
        self.number += 1;
        let (latest, many) = self.successes.entry(job.to_owned()).or_default();
        (*latest, *many) = (self.number, *many + 1);
    }

    /// What is wrong with this start.
    fn starts(&mut self, attempt: &Attempt) -> Option<String> {
        if attempt.job.name.as_str() != "down-scheduled" || attempt.triggered_by != Trigger::Schedule {
            return None;
        }
        // None: it is tried again.
        let created = self.created.remove(&attempt.execution)?;
        let (last, many) = self.started;
        self.started = (created, many + 1);
        ["up-a", "up-b"].into_iter().find_map(|job| {
            let (latest, successes) = self.successes.get(job).copied().unwrap_or_default();
            (latest < last || successes <= many).then(|| {
                format!("down-scheduled starts for the {}th time, after {successes} of {job}", many + 1)
            })
        })
    }
}

impl Stage {
    /// An attempt was started on a host.
    pub fn started(&mut self, host: usize, queue: &QueueRecord, attempt: &Attempt) {
        let job = attempt.job.name.to_string();
        let per_key = attempt.job.policies.concurrency.as_ref().and_then(|limits| limits.per_key.as_ref());
        let open = Open {
            lease: attempt.lease,
            execution: attempt.execution,
            session: self.hosts[host].session,
            key: per_key.map(|by| by.key(&attempt.args)),
            queue: queue.name.to_string(),
            job: job.clone(),
        };
        self.say(format!(
            "{job} lease {} attempt {} starts on {} in {}",
            attempt.lease, attempt.attempt, self.hosts[host].name, queue.name
        ));
        self.count("attempts started");
        if self.paused.contains(&job) || self.paused_queues.contains(queue.name.as_str()) {
            self.violate(format!("{job} was started, and it or its queue is paused"));
        }
        if self.open.values().any(|other| other.execution == open.execution) {
            self.violate(format!("an execution of {job} runs twice"));
        }
        self.open.insert(open.lease, open.clone());
        self.check_limits(&open, per_key.map(|by| by.limit));
        self.check_rate(&job, attempt);
        if let Some(wrong) = self.limits.follows.starts(attempt) {
            self.violate(wrong);
        }
    }

    fn check_limits(&mut self, started: &Open, per_key: Option<u32>) {
        let count = |is_one: &dyn Fn(&Open) -> bool| self.open.values().filter(|open| is_one(open)).count();
        let of_job = count(&|open| open.job == started.job);
        let of_key = count(&|open| open.job == started.job && open.key == started.key);
        let of_queue = count(&|open| open.queue == started.queue);
        let bound =
            |bounds: &BTreeMap<String, Bound>, name: &str| bounds.get(name).copied().unwrap_or_default();
        let Open { job, queue, key, .. } = started;
        if bound(&self.limits.jobs, job).is_broken_by(of_job) {
            let limit = bound(&self.limits.jobs, job);
            self.violate(format!("{of_job} of {job} run at once: {limit:?}"));
        }
        if bound(&self.limits.queues, queue).is_broken_by(of_queue) {
            self.violate(format!("{of_queue} of queue {queue} run at once"));
        }
        if per_key.is_some_and(|limit| of_key > limit as usize) {
            self.violate(format!("{of_key} of {job} with key {key:?} run at once"));
        }
    }

    fn check_rate(&mut self, job: &str, attempt: &Attempt) {
        let now = attempt.started_at.as_microsecond();
        let Some((bound, rate)) = self.limits.rates.get(job).copied() else { return };
        let period = i64::try_from(rate.period.as_micros()).unwrap_or(i64::MAX);
        let starts = self.limits.starts.entry(job.to_owned()).or_default();
        // What was given back and starts again is the same attempt.
        starts.insert((attempt.execution, attempt.attempt), now);
        let many = self.limits.in_period(job, period, now);
        if bound.is_broken_by(many) {
            self.violate(format!("{many} of {job} started within its period, and the rate is {rate}"));
        }
    }

    /// An attempt has succeeded.
    pub fn succeeded(&mut self, job: &str) {
        self.limits.follows.succeeded(job);
    }

    /// Lower limits hold from when what was let through before has ended.
    pub async fn tighten_limits(&mut self) -> Result<()> {
        let now = self.now().as_microsecond();
        for name in self.limits.jobs.keys().cloned().collect::<Vec<_>>() {
            let is_loose = self.limits.jobs.get(&name).is_some_and(|bound| bound.next.is_some())
                || self.limits.rates.get(&name).is_some_and(|(bound, _)| bound.next.is_some());
            if !is_loose {
                continue;
            }
            let ready =
                format!("select count(*) from ready r join job j on j.id = r.job_id where j.name = '{name}'");
            let ready = usize::try_from(self.records.number(&ready).await?)?;
            let running = self.open.values().filter(|open| open.job == name).count();
            if let Some(bound) = self.limits.jobs.get_mut(&name) {
                bound.tighten(ready + running);
            }
            let Some((_, rate)) = self.limits.rates.get(&name).copied() else { continue };
            let period = i64::try_from(rate.period.as_micros())?;
            let used = self.limits.in_period(&name, period, now);
            if let Some((bound, _)) = self.limits.rates.get_mut(&name) {
                bound.tighten(ready + used);
            }
        }
        for (name, bound) in &mut self.limits.queues {
            bound.tighten(self.open.values().filter(|open| open.queue == *name).count());
        }
        Ok(())
    }
}
