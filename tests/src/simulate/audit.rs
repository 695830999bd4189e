//! What has to hold of the store's tables: every simulated day, and at the end, when all has come to
//! rest.

use anyhow::Result;

use super::host::{Host, Mode};
use super::stage::{DAY, HOUR, Stage};

/// Rows that there must not be at any time, in words, with a statement that finds one.
const NEVER: &[(&str, &str)] = &[
    (
        "an execution that is in several places, or in none",
        "select cast(count(*) as text), min(j.name) from execution e join job j on j.id = e.job_id
         where (case when exists (select 1 from ready r where r.execution_id = e.id) then 1 else 0 end)
             + (case when exists (select 1 from waiting w where w.execution_id = e.id) then 1 else 0 end)
             + (case when exists (select 1 from completion c where c.execution_id = e.id and c.final)
                     then 1 else 0 end)
             + (case when exists (select 1 from start s where s.execution_id = e.id and not exists
                         (select 1 from completion c where c.execution_id = s.execution_id
                          and c.lease = s.lease)) then 1 else 0 end) <> 1",
    ),
    (
        "a start of a dead session that has no end",
        "select cast(count(*) as text), min(j.name)
         from start s join host_session h on h.id = s.session_id
         join execution e on e.id = s.execution_id join job j on j.id = e.job_id
         where h.dead_at is not null and not exists
             (select 1 from completion c where c.execution_id = s.execution_id and c.lease = s.lease)",
    ),
    (
        "a permit of what neither runs nor may start nor waits for another one",
        "select cast(count(*) as text), min(p.scope) from permit p
         where exists (select 1 from completion c where c.execution_id = p.execution_id and c.final)
            or not exists (select 1 from execution e where e.id = p.execution_id)
            or exists (select 1 from waiting w where w.execution_id = p.execution_id
                       and w.blocker <> 'limit')",
    ),
    (
        "a place in a rate that is held by what will not start",
        "select cast(count(*) as text), min(j.name) from rate_use u join job j on j.id = u.job_id
         where u.at is null and not exists (select 1 from ready r where r.execution_id = u.execution_id)",
    ),
    (
        "a unique key that is held by what has ended",
        "select cast(count(*) as text), min(k.key) from unique_key k
         where exists (select 1 from completion c where c.execution_id = k.execution_id and c.final)
            or not exists (select 1 from execution e where e.id = k.execution_id)",
    ),
    (
        "what has a unique key and has not ended, without holding it",
        "select cast(count(*) as text), min(e.unique_key) from execution e
         where e.unique_key is not null
           and not exists (select 1 from completion c where c.execution_id = e.id and c.final)
           and not exists (select 1 from unique_key k where k.execution_id = e.id)",
    ),
    (
        "two executions of a job that counts from the end of the last one",
        "select cast(count(*) as text), min(j.name) from execution e join job j on j.id = e.job_id
         where j.name = 'paced' and e.fire_time is not null
           and not exists (select 1 from completion c where c.execution_id = e.id and c.final)
         having count(*) > 1",
    ),
];

/// Rows that there must not be once nothing happens any more.
const AT_REST: &[(&str, &str)] = &[
    (
        "what may start",
        "select cast(count(*) as text), min(j.name) from ready r join job j on j.id = r.job_id",
    ),
    (
        "what waits for something that does not come",
        "select cast(count(*) as text), min(w.blocker || ' ' || j.name)
         from waiting w join job j on j.id = w.job_id where w.blocker <> 'after'",
    ),
    (
        "several fires of one job that wait for others",
        "select cast(count(*) as text), min(j.name) from waiting w join job j on j.id = w.job_id
         where w.blocker = 'after' having count(*) > 1",
    ),
    ("a permit", "select cast(count(*) as text), min(scope) from permit"),
    ("a place in a rate", "select cast(count(*) as text), null from rate_use where at is null"),
    ("a unique key", "select cast(count(*) as text), min(key) from unique_key"),
    ("a wish to cancel", "select cast(count(*) as text), min(reason) from cancel_request"),
    (
        "word that nobody heeds",
        "select cast(count(*) as text), min(j.name || ' ' || s.kind)
         from signal s join job j on j.id = s.job_id
         where s.kind = 'failure' or j.name in ('down-any', 'tell')",
    ),
];

impl Stage {
    /// Looks at all that there is.
    pub async fn audit(&mut self) -> Result<()> {
        self.count("audits");
        let recorded = self.records.fires().await?;
        for (job, fire) in self.ledger.verify(&recorded) {
            self.violate(format!("{job} has nothing on record for {fire}"));
        }
        let leases = self.records.open_leases().await?;
        let known = self.open.keys().copied().collect();
        if leases != known {
            self.violate(format!("the open leases are {leases:?}, and should be {known:?}"));
        }
        self.look_for(NEVER).await?;
        self.nothing_waits_for_a_free_slot().await?;
        self.nothing_waits_for_a_wrong_time().await
    }

    async fn look_for(&mut self, wrong: &[(&str, &str)]) -> Result<()> {
        for (what, statement) in wrong {
            for (count, example) in self.records.pairs(statement).await? {
                if count != "0" {
                    self.violate(format!("there is {what}: {count}, such as {example:?}"));
                }
            }
        }
        Ok(())
    }

    /// A host that has a slot, and a queue that may use it: nothing is left in it. The hosts have just
    /// taken what they could.
    async fn nothing_waits_for_a_free_slot(&mut self) -> Result<()> {
        if self.plan_at <= self.now() {
            return Ok(());
        }
        for queue in self.store.queues().await? {
            let running = self.open.values().filter(|open| open.queue == queue.name.as_str()).count();
            let is_full = queue.total_limit.is_some_and(|limit| running >= limit as usize);
            let has_room = self.hosts.iter().any(|host| {
                let here = host.running.iter().filter(|run| run.queue == queue.id).count();
                let may = queue.host_limit.is_none_or(|limit| here < limit as usize);
                host.is_up() && host.free() > 0 && may
            });
            if queue.paused || is_full || !has_room {
                continue;
            }
            let ready = format!("select count(*) from ready where queue_id = {}", queue.id.0);
            let left = self.records.number(&ready).await?;
            if left > 0 {
                self.violate(format!("{left} wait in queue {} for no reason", queue.name));
            }
        }
        Ok(())
    }

    /// Whatever became of the clock: retries wait as long as they were to, rates count no start of the
    /// future, and what a host left is rescued.
    async fn nothing_waits_for_a_wrong_time(&mut self) -> Result<()> {
        // Somebody has to have looked since.
        if self.real - self.undisturbed_since < HOUR {
            return Ok(());
        }
        let now = self.now().as_microsecond();
        let late = format!(
            "select cast(count(*) as text), min(j.name) from waiting w join job j on j.id = w.job_id
             where w.blocker = 'retry' and {{micros:w.due_at}} > {}",
            now + 3 * HOUR
        );
        let future = format!(
            "select cast(count(*) as text), min(j.name) from rate_use u join job j on j.id = u.job_id
             where {{micros:u.at}} > {now}"
        );
        self.look_for(&[
            ("a retry that waits for longer than any is to", late.as_str()),
            ("a start of the future that counts against a rate", future.as_str()),
        ])
        .await?;
        let lives = |host: &&Host| !host.is_gone_since(self.real - HOUR);
        let living: Vec<_> = self.hosts.iter().filter(lives).map(|host| host.session).collect();
        if let Some(open) = self.open.values().find(|open| !living.contains(&open.session)) {
            let what = format!("{} lease {} was left by a host that is gone", open.job, open.lease);
            self.violate(what);
        }
        Ok(())
    }

    /// Nothing happens any more, every host is up, and schedules are switched off: then all ends.
    pub async fn come_to_rest(&mut self) -> Result<()> {
        self.say("from here on nothing happens any more".to_owned());
        (self.next_event, self.correct_at) = (i64::MAX, None);
        if self.offset != 0 {
            self.step_clock(0);
        }
        for job in &self.all_jobs {
            if self.file.iter().all(|known| known.name != job.name) {
                self.file.push(job.clone());
            }
        }
        for host in &mut self.hosts {
            if let Mode::Down { until } | Mode::Asleep { until } = &mut host.mode {
                *until = self.real;
            }
        }
        self.sync().await?;
        for job in self.paused.clone() {
            self.resume_job(&job).await?;
        }
        for queue in std::mem::take(&mut self.paused_queues) {
            self.store.resume_queue(&super::cast::name(&queue)).await?;
        }
        self.go_on(self.real + DAY).await?;
        for job in self.file.iter_mut().filter(|job| job.schedule.is_some()) {
            job.enabled = false;
        }
        self.sync().await?;
        self.may_cancel = true;
        self.go_on(self.real + 2 * DAY).await?;
        self.audit().await?;
        if !self.open.is_empty() {
            let open: Vec<_> = self.open.values().map(|open| &open.job).collect();
            let what = format!("attempts run without end: {open:?}");
            self.violate(what);
        }
        self.look_for(AT_REST).await
    }

    async fn go_on(&mut self, end: i64) -> Result<()> {
        while self.real < end && !self.is_violated() {
            self.step().await?;
            self.advance(end);
        }
        self.step().await
    }
}
