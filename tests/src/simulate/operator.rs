//! What people and misfortune do: hosts stop, crash and sleep, clocks are set, the file is edited, and
//! executions are asked for, cancelled and repeated.

use anyhow::Result;
use innkeeper::execution::{State, Trigger};
use innkeeper::store::{CancelResult, ExecutionFilter, NewExecution, Pruned, Repeated};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::cast;
use super::host::Mode;
use super::stage::{DAY, HOUR, MINUTE, Stage};

impl Stage {
    /// One event.
    pub async fn something_happens(&mut self) -> Result<()> {
        self.count("events");
        match self.random.u8(..40) {
            0..6 => self.a_host_goes().await?,
            6 => self.all_hosts_go(),
            7..10 => self.the_clock_is_set(),
            10..14 => self.the_file_is_edited().await?,
            14..16 => self.a_job_leaves_or_comes_back().await?,
            16..20 => self.a_job_is_paused_or_resumed().await?,
            20..22 => self.a_queue_is_paused_or_resumed().await?,
            22..30 => self.executions_are_asked_for().await?,
            30..34 => self.executions_are_cancelled().await?,
            34..36 => self.executions_are_repeated().await?,
            36..38 => self.a_job_is_backfilled().await?,
            _ => self.history_is_pruned().await?,
        }
        self.plan_at = self.now();
        Ok(())
    }

    async fn a_host_goes(&mut self) -> Result<()> {
        let Some(number) = self.any_host_up() else { return Ok(()) };
        let until = self.real + self.random.i64(MINUTE..10 * HOUR);
        match self.random.u8(..4) {
            0 => self.drain_host(number, until).await?,
            1 | 2 => self.crash_host(number, until),
            _ => {
                self.say(format!("{} sleeps", self.hosts[number].name));
                self.hosts[number].mode = Mode::Asleep { until };
            }
        }
        Ok(())
    }

    fn all_hosts_go(&mut self) {
        let until = self.real + self.random.i64(HOUR..40 * HOUR);
        for number in 0..self.hosts.len() {
            if self.hosts[number].is_up() {
                self.crash_host(number, until);
            } else {
                self.hosts[number].mode = match self.hosts[number].mode {
                    Mode::Asleep { .. } => Mode::Asleep { until },
                    _ => Mode::Down { until },
                };
            }
        }
    }

    fn the_clock_is_set(&mut self) {
        let by = match self.random.u8(..3) {
            0 => self.random.i64(2 * MINUTE..HOUR),
            1 => self.random.i64(HOUR..DAY),
            _ => self.random.i64(DAY..9 * DAY),
        };
        let offset = if self.offset != 0 { 0 } else { self.random.choice([by, -by]).unwrap_or(by) };
        self.correct_at = (offset != 0).then(|| self.real + self.random.i64(MINUTE..30 * HOUR));
        self.step_clock(offset);
    }

    async fn the_file_is_edited(&mut self) -> Result<()> {
        let at = self.random.usize(..self.file.len());
        let what = cast::edit(&mut self.file[at], &mut self.random)?;
        self.say(format!("the file is edited: {what}"));
        if self.random.u8(..4) == 0 {
            let (total, host) = (self.random.u32(1..5), self.random.u32(1..4));
            self.queues[0].limit = Some(total);
            self.queues[0].limit_per_host = Some(host);
            self.say(format!("queue {} runs {total}, {host} on a host", self.queues[0].name));
        }
        self.sync().await
    }

    async fn a_job_leaves_or_comes_back(&mut self) -> Result<()> {
        let gone: Vec<_> =
            self.all_jobs.iter().filter(|job| self.file.iter().all(|known| known.name != job.name)).collect();
        if let Some(job) = gone.first() {
            let job = (*job).clone();
            self.say(format!("{} is in the file again", job.name));
            self.file.push(job);
        } else {
            let at = self.random.usize(..self.file.len());
            if cast::KEPT.contains(&self.file[at].name.as_str()) {
                return Ok(());
            }
            let job = self.file.remove(at);
            self.say(format!("{} is taken out of the file", job.name));
        }
        self.sync().await
    }

    async fn a_job_is_paused_or_resumed(&mut self) -> Result<()> {
        if let Some(job) = self.paused.iter().next().cloned().filter(|_| self.random.bool()) {
            return self.resume_job(&job).await;
        }
        let job = self.file[self.random.usize(..self.file.len())].name.clone();
        self.store.pause_job(&job, Some("somebody said so")).await?;
        self.say(format!("{job} is paused"));
        self.paused.insert(job.to_string());
        Ok(())
    }

    pub async fn resume_job(&mut self, job: &str) -> Result<()> {
        if self.file.iter().all(|known| known.name.as_str() != job) {
            return Ok(());
        }
        let resumed = self.store.resume_job(&cast::name(job)).await?;
        let now = self.now();
        self.say(format!("{job} is resumed: {} skipped, next {:?}", resumed.skipped, resumed.next_fire_at));
        if resumed.paused_at.is_none() {
            self.violate(format!("{job} was not paused any more"));
        }
        self.paused.remove(job);
        self.ledger.resumed(job, now);
        self.count_many("fires skipped, or records of several", resumed.skipped);
        Ok(())
    }

    async fn a_queue_is_paused_or_resumed(&mut self) -> Result<()> {
        if let Some(queue) = self.paused_queues.pop_first() {
            self.store.resume_queue(&cast::name(&queue)).await?;
            self.say(format!("queue {queue} is resumed"));
            return Ok(());
        }
        let queue = self.queues[self.random.usize(..self.queues.len())].name.clone();
        self.store.pause_queue(&queue, None).await?;
        self.say(format!("queue {queue} is paused"));
        self.paused_queues.insert(queue.to_string());
        Ok(())
    }

    async fn executions_are_asked_for(&mut self) -> Result<()> {
        const OFTEN: [&str; 6] = ["keyed", "keyed-replace", "rated", "rated-two", "patient", "urgent"];
        let often = self.random.u8(..4) > 0;
        let job = if often {
            cast::name(OFTEN[self.random.usize(..OFTEN.len())])
        } else {
            self.file[self.random.usize(..self.file.len())].name.clone()
        };
        if self.file.iter().all(|known| known.name != job) {
            return Ok(());
        }
        let many = self.random.usize(1..8);
        self.say(format!("{many} of {job} are asked for"));
        for _ in 0..many {
            let args = json!({ "customer": self.random.u8(..3) });
            let unique = (self.random.u8(..3) == 0).then(|| format!("k{}", self.random.u8(..3)));
            let later = (self.random.u8(..5) == 0).then(|| self.random.i64(MINUTE..10 * HOUR));
            let run_at =
                later.and_then(|later| Timestamp::from_microsecond(self.now().as_microsecond() + later).ok());
            let new = NewExecution {
                job: &job,
                args: Some(&args),
                triggered_by: Trigger::Manual,
                run_at,
                unique_key: unique.as_deref(),
                by: None,
            };
            let enqueued = self.store.enqueue(&new).await?;
            self.count("executions asked for");
            if !enqueued.created {
                let holder = self.store.execution(enqueued.id).await?;
                if holder.is_none_or(|holder| holder.state.is_final() || unique.is_none()) {
                    self.violate(format!("a key of {job} is held by what has ended"));
                }
            }
        }
        Ok(())
    }

    async fn some(&mut self, is_wanted: impl Fn(State) -> bool) -> Result<Vec<Uuid>> {
        let filter = ExecutionFilter { job: None, state: None, before: None, limit: 60 };
        let mut found: Vec<Uuid> = self
            .store
            .executions(&filter)
            .await?
            .into_iter()
            .filter(|execution| is_wanted(execution.state))
            .map(|execution| execution.id)
            .collect();
        self.random.shuffle(&mut found);
        found.truncate(self.random.usize(1..5));
        Ok(found)
    }

    async fn executions_are_cancelled(&mut self) -> Result<()> {
        let some = self.some(|state| !state.is_final()).await?;
        let results = self.store.cancel(&some, "nobody needs it").await?;
        for (execution, result) in results {
            self.say(format!("an execution is cancelled: {result:?}"));
            self.count("executions cancelled, or asked to end");
            if result == CancelResult::Requested {
                self.requested.insert(execution);
                if self.open.values().all(|open| open.execution != execution) {
                    self.violate("what does not run was asked to end".to_owned());
                }
            } else if result != CancelResult::Cancelled {
                self.violate(format!("what had not ended was {result:?}"));
            }
            self.may_cancel = true;
        }
        Ok(())
    }

    async fn executions_are_repeated(&mut self) -> Result<()> {
        for execution in self.some(State::is_final).await? {
            let repeated = self.store.repeat(execution, self.random.bool()).await?;
            if let Repeated::Unfinished(_) | Repeated::Unknown = repeated {
                self.violate(format!("what had ended was {repeated:?}"));
            }
            self.count("executions repeated, or not");
        }
        self.say("executions are repeated".to_owned());
        Ok(())
    }

    async fn a_job_is_backfilled(&mut self) -> Result<()> {
        let scheduled: Vec<_> = self
            .file
            .iter()
            .filter(|job| job.schedule.as_ref().is_some_and(|schedule| schedule.every_after().is_none()))
            .map(|job| job.name.clone())
            .collect();
        let job = &scheduled[self.random.usize(..scheduled.len())];
        let until = self.now();
        let from = Timestamp::from_microsecond(until.as_microsecond() - self.random.i64(HOUR..2 * DAY))?;
        let fates = self.store.backfill(job, from, until, false).await?;
        self.say(format!("{job} is backfilled: {} times", fates.len()));
        self.count_many("times that were backfilled, or had run", fates.len());
        Ok(())
    }

    async fn history_is_pruned(&mut self) -> Result<()> {
        // What is removed cannot be looked for.
        self.audit().await?;
        let known = std::mem::take(&mut self.histories);
        let mut histories = self.store.job_histories(&known).await?;
        let mut removed = 0;
        for history in &mut histories {
            while let Pruned::Some(count) = self.store.prune(history, 200).await? {
                removed += count;
            }
        }
        self.histories = histories;
        self.store.prune_leftovers(200).await?;
        self.say(format!("the history is pruned: {removed}"));
        Ok(())
    }
}
