//! How a host shares its free slots between the queues: by their weights, within their limits and those
//! of the plugins.
//!
//! Each queue has a clock that a started execution moves on by the inverse of the queue's weight, and
//! whichever is furthest behind is served next (start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM
//! 1996). A queue that had nothing to run does not save up for later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::floor::Floor;
use super::rooms::{Passed, Plugins, Scan};
use super::session::LiveSession;
use crate::clock;
use crate::execution::Attempt;
use crate::job::Name;
use crate::policy::Queue;
use crate::store::{Claim, PhaseName, PluginRoom, QueueId, QueueRecord, Started, Store, StoreError};

/// How long a change of a queue may go unseen.
const REFRESH: Duration = Duration::from_secs(1);

/// Candidates of a scan that looks for what was passed by, at least.
const FEW: u32 = 8;

/// When a scan was made.
#[derive(Clone, Copy)]
struct Taken {
    began: Instant,
    took: Duration,
    /// The time of its end, in microseconds since 1970.
    now: i64,
}

/// The queues, as this host knows them.
pub(super) struct Queues {
    lanes: Vec<Lane>,
    plugins: Plugins,
    refresh_at: Instant,
}

/// One queue.
struct Lane {
    queue: QueueRecord,
    floor: Floor,
    /// The next scan is one of everything as well: the last one found what it could not take.
    is_whole: bool,
    passed: Passed,
    /// Executions that were started, each by the inverse of the weight.
    clock: f64,
    /// Executions of it that run here.
    running: Arc<AtomicU32>,
    /// It had less to run than it could have.
    is_empty: bool,
    /// The last scan has come to its end.
    to_the_end: bool,
}

/// The right to run an execution, in the host, in its queue and of its plugin. Given back when it is
/// dropped.
pub(super) struct Slot {
    _host: OwnedSemaphorePermit,
    running: [Arc<AtomicU32>; 2],
}

impl Slot {
    fn new(host: OwnedSemaphorePermit, running: [Arc<AtomicU32>; 2]) -> Self {
        for running in &running {
            running.fetch_add(1, Ordering::SeqCst);
        }
        Self { _host: host, running }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for running in &self.running {
            running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// What one START has come to.
pub(super) struct Claimed {
    pub(super) attempts: Vec<(Attempt, Slot)>,
    /// There may be more to start, were there more slots.
    pub(super) is_full: bool,
}

impl Queues {
    /// The default queue, until the store is asked.
    pub(super) fn new(now: Instant) -> Self {
        let name = Name::new(Queue::DEFAULT).ok();
        let record = name.map(|name| QueueRecord {
            id: QueueId::DEFAULT,
            name,
            owner: String::new(),
            weight: 1,
            total_limit: None,
            host_limit: None,
            paused: false,
        });
        Self {
            lanes: record.map(|record| Lane::new(record, now)).into_iter().collect(),
            plugins: Plugins::default(),
            refresh_at: now,
        }
    }

    /// Takes over how many executions may run at once, of the plugins that have a limit.
    pub(super) fn limit_plugins(&mut self, limits: impl Iterator<Item = (Name, u32)>) {
        self.plugins.limit(limits);
    }

    /// Reads the queues again, once in a while.
    pub(super) async fn refresh(&mut self, store: &Store, now: Instant) -> Result<(), StoreError> {
        if now < self.refresh_at {
            return Ok(());
        }
        self.refresh_at = now + REFRESH;
        let queues = store.queues().await?;
        self.take_over(queues, now);
        Ok(())
    }

    fn take_over(&mut self, queues: Vec<QueueRecord>, now: Instant) {
        let mut before = std::mem::take(&mut self.lanes);
        for queue in queues {
            let known = before.iter().position(|lane| lane.queue.id == queue.id);
            let lane = match known {
                Some(at) => Lane { queue, ..before.swap_remove(at) },
                None => Lane::new(queue, now),
            };
            self.lanes.push(lane);
        }
        self.lanes.sort_by_key(|lane| lane.queue.id);
    }

    /// True where the end of an execution may let others start that had to wait for it, though there
    /// were slots.
    pub(super) fn are_limited(&self) -> bool {
        let is_limited = |lane: &Lane| {
            lane.queue.host_limit.is_some() || lane.queue.total_limit.is_some() || lane.passed.is_any()
        };
        self.lanes.iter().any(is_limited)
    }

    /// True where what was passed by in the last START has room by now.
    pub(super) fn have_room_again(&self) -> bool {
        let rooms = self.plugins.rooms();
        // Where the last scan has come to the end, what it passed by had no room then.
        self.lanes.iter().any(|lane| lane.to_the_end && lane.passed.to_look_at(&rooms).is_some())
    }

    /// START: fills the slots, in one transaction.
    pub(super) async fn start(
        &mut self,
        store: &Store,
        session: &LiveSession,
        mut slots: OwnedSemaphorePermit,
    ) -> Result<Claimed, StoreError> {
        for lane in &mut self.lanes {
            lane.is_empty = false;
            lane.is_whole = false;
            lane.to_the_end = false;
        }
        let mut attempts = Vec::new();
        let mut phase = store.begin(PhaseName::Start).await?;
        phase.tx().hold_session(session.id).await?;
        let mut last_locked = None;
        loop {
            let free = u32::try_from(slots.num_permits()).unwrap_or(u32::MAX);
            let shares = self.shares(free, last_locked);
            if shares.is_empty() {
                break;
            }
            for (at, limit) in shares {
                let lane = &mut self.lanes[at];
                let (rooms, began) = (self.plugins.rooms(), Instant::now());
                let scan = lane.scan(began, limit, &rooms);
                let is_limited = lane.queue.total_limit.is_some();
                let Scan { floor, limit, rooms } = scan;
                let claim = Claim { queue: lane.queue.id, limit, floor, is_limited, rooms };
                let started = phase.tx().start_from(session.id, claim).await?;
                if is_limited {
                    last_locked = Some(lane.queue.id);
                }
                let (took, now) = (began.elapsed(), clock::now().as_microsecond());
                lane.note(scan, Taken { began, took, now }, &started);
                for attempt in started.attempts {
                    // The store starts no more than it was asked for.
                    let Some(host) = slots.split(1) else { break };
                    let running = [lane.running.clone(), self.plugins.running(&attempt.job.plugin)];
                    attempts.push((attempt, Slot::new(host, running)));
                }
            }
            self.catch_up();
        }
        phase.commit().await?;
        Ok(Claimed { attempts, is_full: slots.num_permits() == 0 })
    }

    /// How many of the free slots each queue may fill, those that have shown to be empty left out;
    /// by the place of a queue in the list. Rows of queues with a limit over all hosts are locked
    /// in the order of their numbers, by every host, and `last_locked` is the last one that was.
    fn shares(&self, free: u32, last_locked: Option<QueueId>) -> Vec<(usize, u32)> {
        let out_of_order = |lane: &Lane| {
            lane.queue.total_limit.is_some() && last_locked.is_some_and(|last| lane.queue.id < last)
        };
        let mut shares: Vec<(usize, u32, f64)> = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.may_start() > 0 && !out_of_order(lane))
            .map(|(at, lane)| (at, 0, lane.clock))
            .collect();
        if let [(_, share, _)] = shares.as_mut_slice() {
            *share = free;
        } else {
            for _ in 0..free {
                let open = shares.iter_mut().filter(|(at, share, _)| *share < self.lanes[*at].may_start());
                let Some(next) = open.min_by(|a, b| a.2.total_cmp(&b.2)) else { break };
                next.1 += 1;
                next.2 += self.lanes[next.0].step();
            }
        }
        let bounded = shares.into_iter().map(|(at, share, _)| (at, share.min(self.lanes[at].may_start())));
        bounded.filter(|(_, share)| *share > 0).collect()
    }

    /// A queue that had nothing to run has no claim on what others had meanwhile.
    fn catch_up(&mut self) {
        let busy = self.lanes.iter().filter(|lane| !lane.is_empty).map(|lane| lane.clock);
        let Some(behind) = busy.min_by(f64::total_cmp) else { return };
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_empty) {
            lane.clock = lane.clock.max(behind);
        }
    }
}

impl Lane {
    fn new(queue: QueueRecord, now: Instant) -> Self {
        Self {
            queue,
            floor: Floor::new(now),
            is_whole: false,
            passed: Passed::default(),
            clock: 0.0,
            running: Arc::default(),
            is_empty: false,
            to_the_end: false,
        }
    }

    /// What the next scan is to look at: from the floor on, or from where something was passed by that
    /// has room now. Then not much more than that is a candidate, since one that is too many of its
    /// plugin is locked for nothing.
    fn scan<'a>(&self, now: Instant, limit: u32, rooms: &'a [PluginRoom]) -> Scan<'a> {
        let floor = if self.is_whole { None } else { self.floor.of_scan(now) };
        match (floor, self.passed.to_look_at(rooms)) {
            (Some(own), Some((passed, free))) if passed < own => {
                Scan { floor: Some(passed), limit: limit.min(free.max(FEW)), rooms }
            }
            (floor, _) => Scan { floor, limit, rooms },
        }
    }

    fn note(&mut self, scan: Scan<'_>, taken: Taken, started: &Started) {
        let own = if self.is_whole { None } else { self.floor.of_scan(taken.began) };
        if scan.floor == own {
            let is_too_many = started.found > started.claimed;
            // One of a low priority says nothing of those that are due now; nor does one whose plugin has
            // more of them, for which there is no room.
            let now = started.attempts.first().map_or(i64::MAX, |a| a.started_at.as_microsecond());
            let lowest = started.lowest_rank.filter(|_| !is_too_many).map(|rank| rank.min(now));
            self.floor.note(scan.floor, taken.began, taken.took, lowest);
            self.is_whole = scan.floor.is_none() && is_too_many;
            if started.to_the_end && started.found == 0 && scan.rooms.iter().any(|room| room.free == 0) {
                self.floor.only_waits(taken.now);
            }
        }
        self.passed.note(scan, started);
        self.to_the_end = started.to_the_end;
        self.served(started.claimed, started.found < scan.limit as usize);
    }

    /// How many more may run here.
    fn may_start(&self) -> u32 {
        if self.queue.paused || self.is_empty {
            return 0;
        }
        let running = self.running.load(Ordering::SeqCst);
        self.queue.host_limit.map_or(u32::MAX, |limit| limit.saturating_sub(running))
    }

    fn step(&self) -> f64 {
        1.0 / f64::from(self.queue.weight)
    }

    fn served(&mut self, claimed: usize, is_empty: bool) {
        let claimed = u32::try_from(claimed).unwrap_or(u32::MAX);
        self.clock += f64::from(claimed) * self.step();
        self.is_empty = is_empty;
    }
}

#[cfg(test)]
mod backlog;

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(weights: &[u32]) -> Queues {
        let now = Instant::now();
        let mut queues = Queues::new(now);
        let records = weights.iter().enumerate().map(|(at, weight)| QueueRecord {
            id: QueueId(i32::try_from(at).unwrap()),
            name: Name::new(format!("q{at}")).unwrap(),
            owner: String::new(),
            weight: *weight,
            total_limit: None,
            host_limit: None,
            paused: false,
        });
        queues.take_over(records.collect(), now);
        queues
    }

    /// Starts what the shares allow of what each queue has waiting, and counts it.
    fn serve(queues: &mut Queues, free: u32, waiting: &mut [u32]) -> Vec<u32> {
        let mut started = vec![0; waiting.len()];
        let mut left = free;
        for lane in &mut queues.lanes {
            lane.is_empty = false;
        }
        loop {
            let shares = queues.shares(left, None);
            if shares.is_empty() || left == 0 {
                break;
            }
            for (at, limit) in shares {
                let claimed = limit.min(waiting[at]);
                waiting[at] -= claimed;
                started[at] += claimed;
                left -= claimed;
                queues.lanes[at].served(claimed as usize, claimed < limit);
            }
            queues.catch_up();
        }
        started
    }

    #[test]
    fn queues_that_are_never_empty_share_the_slots_by_their_weights() {
        let mut queues = queues(&[1, 3]);
        let mut waiting = [1_000, 1_000];
        assert_eq!(serve(&mut queues, 40, &mut waiting), [10, 30]);
        let mut sums = [0, 0];
        for _ in 0..40 {
            let started = serve(&mut queues, 1, &mut waiting);
            sums = [sums[0] + started[0], sums[1] + started[1]];
        }
        assert_eq!(sums, [10, 30], "also where a slot comes free at a time");
    }

    #[test]
    fn what_a_queue_does_not_need_the_others_have() {
        let mut queues = queues(&[1, 3]);
        assert_eq!(serve(&mut queues, 40, &mut [1_000, 2]), [38, 2]);
        assert_eq!(serve(&mut queues, 40, &mut [1_000, 0]), [40, 0]);
    }

    #[test]
    fn a_queue_that_was_empty_has_not_saved_up() {
        let mut queues = queues(&[1, 1]);
        serve(&mut queues, 1_000, &mut [1_000, 0]);
        let started = serve(&mut queues, 10, &mut [100, 100]);
        assert!(started[0] >= 4, "{started:?}");
    }

    #[test]
    fn a_queue_stays_within_its_limit_on_this_host_and_starts_nothing_while_it_is_paused() {
        let mut queues = queues(&[1, 1]);
        queues.lanes[0].queue.host_limit = Some(3);
        queues.lanes[0].running.store(1, Ordering::SeqCst);
        assert_eq!(queues.shares(10, None), [(0, 2), (1, 8)]);
        queues.lanes[1].queue.paused = true;
        assert_eq!(queues.shares(10, None), [(0, 2)]);
    }

    #[test]
    fn queues_with_a_limit_over_all_hosts_are_locked_in_one_order() {
        let mut queues = queues(&[1, 1]);
        queues.lanes[0].queue.total_limit = Some(5);
        assert_eq!(queues.shares(10, Some(QueueId(1))), [(1, 10)]);
    }

    #[test]
    fn a_change_of_the_queues_keeps_what_is_known_of_them() {
        let mut queues = queues(&[1, 1]);
        serve(&mut queues, 10, &mut [10, 0]);
        let before: Vec<f64> = queues.lanes.iter().map(|lane| lane.clock).collect();
        let mut records: Vec<QueueRecord> = queues.lanes.iter().map(|lane| lane.queue.clone()).collect();
        records[1].weight = 7;
        queues.take_over(records, Instant::now());
        assert_eq!(queues.lanes.iter().map(|lane| lane.clock).collect::<Vec<_>>(), before);
        assert_eq!(queues.lanes[1].queue.weight, 7);
    }
}
