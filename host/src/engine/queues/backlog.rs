//! A queue in which a plugin with a limit has a long line: what is started, and what it costs to find.

#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::execution::{Effects, Trigger};
use crate::job::{History, Job, OnCrash};
use crate::policy::Policies;
use crate::retry::{Backoff, RetryPolicy};

const SECOND: i64 = 1_000_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn attempt(plugin: &Name, rank: i64) -> Attempt {
    let retry = RetryPolicy {
        max_attempts: 1,
        backoff: Backoff::Constant,
        initial: Duration::ZERO,
        maximum: Duration::ZERO,
        jitter: 0.0,
    };
    let job = Job {
        name: name("j"),
        plugin: plugin.clone(),
        handler: "h".into(),
        args: serde_json::Value::Null,
        schedule: None,
        enabled: true,
        retry,
        timeout: Duration::from_secs(1),
        on_crash: OnCrash::Retry,
        history: History::default(),
        policies: Policies::default(),
    };
    let time = jiff::Timestamp::from_microsecond(rank).unwrap();
    Attempt {
        lease: 0,
        execution: Uuid::nil(),
        attempt: 1,
        max_attempts: 1,
        job: Arc::new(job),
        args: serde_json::Value::Null,
        triggered_by: Trigger::Manual,
        scheduled_at: time,
        started_at: time,
        checkpoint: None,
        has_unique_key: false,
        effects: Effects::default(),
        component: "".into(),
    }
}

/// A host with one queue, and the store that it claims from.
struct Scene {
    lane: Lane,
    plugins: Plugins,
    ready: BTreeMap<i64, Name>,
    begun: Instant,
    /// Microseconds since then, and since 1970.
    now: i64,
    /// Rows that scans have looked at.
    walked: usize,
    slots: usize,
    running: Vec<(i64, Name)>,
}

impl Scene {
    fn new(slots: usize, limit: u32) -> Self {
        let begun = Instant::now();
        let mut queues = Queues::new(begun);
        let mut plugins = Plugins::default();
        plugins.limit([(name("p"), limit)].into_iter());
        let lane = queues.lanes.remove(0);
        let (ready, running) = (BTreeMap::new(), Vec::new());
        Self { lane, plugins, ready, begun, now: 1_000 * SECOND, walked: 0, slots, running }
    }

    /// As the statement does it; a row takes a microsecond.
    fn claim(&mut self, scan: Scan<'_>) -> Started {
        let mut free: BTreeMap<&Name, u32> =
            scan.rooms.iter().map(|room| (&room.plugin, room.free)).collect();
        let mut started = Started::default();
        let mut taken = Vec::new();
        for (rank, plugin) in self.ready.range(scan.floor.unwrap_or(i64::MIN)..) {
            if started.found == scan.limit as usize {
                break;
            }
            self.walked += 1;
            if scan.rooms.iter().any(|room| room.plugin == *plugin && room.free == 0) {
                continue;
            }
            started.found += 1;
            started.highest_rank = Some(*rank);
            match free.get_mut(plugin) {
                Some(0) => continue,
                Some(free) => *free -= 1,
                None => {}
            }
            started.lowest_rank.get_or_insert(*rank);
            taken.push((*rank, plugin.clone()));
        }
        started.claimed = taken.len();
        started.to_the_end = started.found < scan.limit as usize;
        for (rank, plugin) in taken {
            self.ready.remove(&rank);
            self.plugins.running(&plugin).fetch_add(1, Ordering::SeqCst);
            started.attempts.push(attempt(&plugin, rank));
            self.running.push((rank, plugin));
        }
        started
    }

    /// A START. Returns the ranks of what it has started.
    fn start(&mut self) -> Vec<i64> {
        let before: Vec<i64> = self.running.iter().map(|(rank, _)| *rank).collect();
        (self.lane.is_empty, self.lane.is_whole, self.lane.to_the_end) = (false, false, false);
        while !self.lane.is_empty && self.running.len() < self.slots {
            let limit = u32::try_from(self.slots - self.running.len()).unwrap();
            let rooms = self.plugins.rooms();
            let began = self.begun + Duration::from_micros((self.now - 1_000 * SECOND).unsigned_abs());
            let scan = self.lane.scan(began, limit, &rooms);
            let walked = self.walked;
            let started = self.claim(scan);
            let took = Duration::from_micros((self.walked - walked) as u64 + 100);
            self.now += i64::try_from(took.as_micros()).unwrap();
            self.lane.note(scan, Taken { began, took, now: self.now }, &started);
        }
        self.running.iter().map(|(rank, _)| *rank).filter(|rank| !before.contains(rank)).collect()
    }

    /// The first one of the plugin that runs has ended.
    fn end(&mut self, plugin: &str) {
        let at = self.running.iter().position(|(_, running)| running.as_str() == plugin);
        let (_, plugin) = self.running.remove(at.expect("one runs"));
        self.plugins.running(&plugin).fetch_sub(1, Ordering::SeqCst);
    }

    /// Adds one that is due now.
    fn add(&mut self, plugin: &str) -> i64 {
        self.now += 1;
        self.ready.insert(self.now, name(plugin));
        self.now
    }

    /// Adds so many to the line, a millisecond apart.
    fn line_up(&mut self, count: i64) -> Vec<i64> {
        let first = self.now;
        self.now += count * 1_000;
        (0..count)
            .map(|number| first + number * 1_000)
            .inspect(|rank| drop(self.ready.insert(*rank, name("p"))))
            .collect()
    }
}

#[test]
fn what_stands_in_line_for_a_plugin_starts_one_by_one_as_soon_as_there_is_room_and_is_not_walked_over() {
    let mut scene = Scene::new(10, 1);
    let line = scene.line_up(100_000);
    assert_eq!(scene.start(), line[..1]);
    let walked = scene.walked;
    for rank in &line[1..1_001] {
        scene.now += 20_000;
        scene.end("p");
        assert_eq!(scene.start(), [*rank]);
    }
    // 20 s of which scans of everything have two hundredths, at a microsecond for each row.
    let each = (scene.walked - walked) / 1_000;
    assert!(each < 1_000, "each START has looked at {each} rows");
}

#[test]
fn a_neighbour_s_executions_start_at_once_behind_the_line() {
    let mut scene = Scene::new(10, 1);
    scene.line_up(100_000);
    scene.start();
    let walked = scene.walked;
    for _ in 0..1_000 {
        scene.now += 20_000;
        let rank = scene.add("q");
        assert_eq!(scene.start(), [rank]);
        scene.end("q");
    }
    let each = (scene.walked - walked) / 1_000;
    assert!(each < 1_000, "each START has looked at {each} rows");
}

#[test]
fn what_comes_late_into_the_line_with_a_higher_priority_is_found() {
    let mut scene = Scene::new(10, 1);
    let line = scene.line_up(1_000);
    scene.start();
    scene.end("p");
    scene.start();
    let urgent = line[0] - 60 * SECOND;
    scene.ready.insert(urgent, name("p"));
    for _ in 0..1_000 {
        scene.now += 20_000;
        scene.end("p");
        if scene.start() == [urgent] {
            return;
        }
    }
    panic!("it was not found before the whole line had been run");
}

/// Numbers in no order (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn nothing_is_forgotten_and_no_limit_exceeded_whatever_comes_and_ends() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..200 {
        let limit = 1 + random.below(3) as u32;
        let mut scene = Scene::new(1 + random.below(5) as usize, limit);
        let mut left = 300;
        for _ in 0..20_000 {
            match random.below(4) {
                0 if left > 0 => {
                    left -= 1;
                    scene.add(if random.below(2) == 0 { "p" } else { "q" });
                }
                1 if !scene.running.is_empty() => {
                    let at = random.below(scene.running.len() as u64) as usize;
                    let plugin = scene.running[at].1.to_string();
                    scene.end(&plugin);
                }
                2 => scene.now += random.below(2_000_000) as i64,
                _ => drop(scene.start()),
            }
            let of_p = scene.running.iter().filter(|(_, plugin)| plugin.as_str() == "p").count();
            assert!(of_p <= limit as usize, "{of_p} run, of {limit} at most");
            if left == 0 && scene.ready.is_empty() {
                break;
            }
        }
        assert!(scene.ready.is_empty(), "{} were never started", scene.ready.len());
    }
}
