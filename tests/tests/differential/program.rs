//! Programs: what may be asked of a store, in any order.
//!
//! Whatever names something that a program has made (a host session, an attempt) is a number,
//! which is counted round what there is: any part of a program is a program.

use innkeeper::execution::FailureKind;
use proptest::prelude::*;

/// How many jobs, plugins, hosts, components and unique keys there are to choose from.
pub const JOBS: usize = 4;
pub const PLUGINS: usize = 2;
pub const HOSTS: usize = 3;
pub const COMPONENTS: usize = 2;
pub const KEYS: usize = 2;

/// One step.
#[derive(Clone, Debug)]
pub enum Op {
    SaveComponent(usize),
    SavePlugin {
        plugin: usize,
        component: usize,
    },
    SyncJobs {
        owner: usize,
        jobs: Vec<JobChoice>,
    },
    Pause {
        job: usize,
        reason: Option<usize>,
    },
    Resume(usize),
    TurnBack,
    /// For the times of the last so many seconds.
    Backfill {
        job: usize,
        seconds: i64,
        again: bool,
    },
    Register {
        host: usize,
        plugins: Vec<(usize, usize)>,
        ttl: u64,
    },
    Heartbeat {
        session: usize,
        ttl: u64,
    },
    EndSession(usize),
    /// Of this many sessions at most. `own`: a session that the rescuer leaves alone.
    Rescue {
        limit: u32,
        own: Option<usize>,
    },
    /// Turns the clock, in milliseconds.
    Wait(u64),
    Plan,
    Enqueue {
        job: usize,
        args: Option<usize>,
        run_at: Option<RunAt>,
        key: Option<usize>,
        by: Option<usize>,
    },
    Claim {
        session: usize,
        limit: u32,
        /// How many more of the first plugin its host has room for, where that has a limit.
        room: Option<u32>,
        then: AfterClaim,
    },
    ReleaseUnknown(usize),
    /// Records the end of an attempt, and of the next ones of its session: several at once.
    Complete {
        attempt: usize,
        more: usize,
        end: End,
        /// In the name of a session that it may not be of.
        session: Option<usize>,
    },
    Log {
        attempt: usize,
        lines: usize,
        text: usize,
    },
    Progress {
        attempt: usize,
        done: u64,
        total: Option<u64>,
    },
    Checkpoint {
        attempt: usize,
        state: usize,
    },
    /// An execution, and the next ones.
    Cancel {
        execution: usize,
        more: usize,
        reason: usize,
    },
    /// What a host does about requests, in the name of a session.
    Settle(usize),
    Repeat {
        execution: usize,
        even_succeeded: bool,
    },
}

/// What becomes of a START once it has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterClaim {
    Commit,
    /// The host dies, or the connection breaks.
    RollBack,
    /// It is committed, and the host does not hear of it.
    LoseAnswer,
}

/// A time not before which an execution may start.
#[derive(Clone, Copy, Debug)]
pub enum RunAt {
    /// Seconds from now; negative: ago.
    Seconds(i64),
    /// Ten thousand years ago, or as long from now as there is time.
    Extreme(bool),
}

/// How a handler ended.
#[derive(Clone, Debug)]
pub enum End {
    Succeeded(usize),
    Failed { kind: FailureKind, retry_after: Option<u64>, message: usize },
    Released,
}

/// A definition of a job.
#[derive(Clone, Debug)]
pub struct JobChoice {
    pub job: usize,
    pub plugin: usize,
    /// Seconds.
    pub every: Option<u64>,
    pub enabled: bool,
    pub max_attempts: u32,
    pub exponential: bool,
    pub retry_on_crash: bool,
}

/// Programs. Each begins with something to run and somebody to run it.
pub fn program() -> impl Strategy<Value = Vec<Op>> {
    let begin = (proptest::collection::vec(job(), JOBS), plugins()).prop_map(|(jobs, some)| {
        // Each job once.
        let jobs = jobs.into_iter().enumerate().map(|(job, choice)| JobChoice { job, ..choice }).collect();
        vec![
            Op::SaveComponent(0),
            Op::SyncJobs { owner: 0, jobs },
            Op::Register { host: 0, plugins: vec![(0, 0), (1, 0)], ttl: 30_000 },
            Op::Register { host: 1, plugins: some, ttl: 30_000 },
            Op::Enqueue { job: 0, args: None, run_at: None, key: Some(0), by: None },
            Op::Enqueue { job: 1, args: Some(2), run_at: None, key: None, by: None },
            Op::Claim { session: 1, limit: 2, room: None, then: AfterClaim::Commit },
        ]
    });
    (begin, proptest::collection::vec(op(), 20..80)).prop_map(|(mut ops, more)| {
        ops.extend(more);
        ops
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => definition(),
        3 => schedules(),
        7 => hosts(),
        4 => prop_oneof![4 => 0..8_000_u64, 1 => Just(31_000)].prop_map(Op::Wait),
        5 => Just(Op::Plan),
        12 => enqueue(),
        10 => (session(), 1..4_u32, prop::option::weighted(0.3, 0..3_u32), after_claim())
            .prop_map(|(session, limit, room, then)| Op::Claim { session, limit, room, then }),
        12 => (pick(), 0..3_usize, end(), prop::option::weighted(0.1, pick()))
            .prop_map(|(attempt, more, end, session)| Op::Complete { attempt, more, end, session }),
        5 => records(),
        6 => ending(),
    ]
}

fn definition() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..COMPONENTS).prop_map(Op::SaveComponent),
        2 => (0..PLUGINS, 0..COMPONENTS)
            .prop_map(|(plugin, component)| Op::SavePlugin { plugin, component }),
        2 => (0..2_usize, proptest::collection::vec(job(), 0..=JOBS)).prop_map(|(owner, jobs)| Op::SyncJobs { owner, jobs }),
    ]
}

fn schedules() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..JOBS, prop::option::of(0..8_usize)).prop_map(|(job, reason)| Op::Pause { job, reason }),
        // One job more than there can be.
        5 => (0..=JOBS).prop_map(Op::Resume),
        1 => Just(Op::TurnBack),
        2 => (0..JOBS, 1..30_i64, prop::bool::weighted(0.2))
            .prop_map(|(job, seconds, again)| Op::Backfill { job, seconds, again }),
    ]
}

fn hosts() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..HOSTS, plugins(), ttl()).prop_map(|(host, plugins, ttl)| Op::Register { host, plugins, ttl }),
        5 => (session(), ttl()).prop_map(|(session, ttl)| Op::Heartbeat { session, ttl }),
        1 => pick().prop_map(Op::EndSession),
        3 => session().prop_map(Op::ReleaseUnknown),
        6 => (1..4_u32, prop::option::weighted(0.2, session()))
            .prop_map(|(limit, own)| Op::Rescue { limit, own }),
    ]
}

fn enqueue() -> impl Strategy<Value = Op> {
    let run_at = prop_oneof![
        8 => (-20..40_i64).prop_map(RunAt::Seconds),
        1 => any::<bool>().prop_map(RunAt::Extreme),
    ];
    // One job and one key more than there can be.
    (
        prop_oneof![15 => 0..JOBS, 1 => Just(JOBS)],
        prop::option::of(0..8_usize),
        prop::option::weighted(0.4, run_at),
        prop::option::weighted(0.4, prop_oneof![9 => 0..KEYS, 1 => Just(KEYS)]),
        prop::option::weighted(0.3, pick()),
    )
        .prop_map(|(job, args, run_at, key, by)| Op::Enqueue { job, args, run_at, key, by })
}

fn records() -> impl Strategy<Value = Op> {
    prop_oneof![
        (pick(), 0..3_usize, 0..8_usize).prop_map(|(attempt, lines, text)| Op::Log { attempt, lines, text }),
        (pick(), any::<u64>(), prop::option::of(0..9_u64)).prop_map(|(attempt, done, total)| Op::Progress {
            attempt,
            done,
            total
        }),
        (pick(), 0..8_usize).prop_map(|(attempt, state)| Op::Checkpoint { attempt, state }),
    ]
}

fn ending() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (pick(), 0..2_usize, 0..8_usize)
            .prop_map(|(execution, more, reason)| Op::Cancel { execution, more, reason }),
        2 => session().prop_map(Op::Settle),
        2 => (pick(), any::<bool>())
            .prop_map(|(execution, even_succeeded)| Op::Repeat { execution, even_succeeded }),
    ]
}

fn job() -> impl Strategy<Value = JobChoice> {
    let every = prop::option::of(prop_oneof![Just(3), Just(10), Just(3_600)]);
    (0..JOBS, 0..PLUGINS, every, prop::bool::weighted(0.8), 1..4_u32, any::<bool>(), any::<bool>()).prop_map(
        |(job, plugin, every, enabled, max_attempts, exponential, retry_on_crash)| JobChoice {
            job,
            plugin,
            every,
            enabled,
            max_attempts,
            exponential,
            retry_on_crash,
        },
    )
}

fn plugins() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop_oneof![
        5 => all_plugins(),
        2 => component().prop_map(|p| vec![(0, p)]),
        1 => Just(vec![]),
    ]
}

fn all_plugins() -> impl Strategy<Value = Vec<(usize, usize)>> {
    (component(), component()).prop_map(|(p, q)| vec![(0, p), (1, q)])
}

/// The second may not be there.
fn component() -> impl Strategy<Value = usize> {
    prop_oneof![9 => Just(0_usize), 1 => Just(1_usize)]
}

fn end() -> impl Strategy<Value = End> {
    let kind = prop_oneof![
        4 => Just(FailureKind::Handler),
        1 => Just(FailureKind::Permanent),
        1 => Just(FailureKind::Timeout),
        1 => Just(FailureKind::Host),
    ];
    let retry_after = prop::option::weighted(0.2, prop_oneof![3 => 0..60_u64, 1 => Just(u64::MAX)]);
    prop_oneof![
        3 => (0..8_usize).prop_map(End::Succeeded),
        4 => (kind, retry_after, 0..8_usize)
            .prop_map(|(kind, retry_after, message)| End::Failed { kind, retry_after, message }),
        2 => Just(End::Released),
    ]
}

fn after_claim() -> impl Strategy<Value = AfterClaim> {
    prop_oneof![
        8 => Just(AfterClaim::Commit),
        1 => Just(AfterClaim::RollBack),
        2 => Just(AfterClaim::LoseAnswer),
    ]
}

/// Milliseconds: now and then a session that expires at once.
fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(30_000_u64), 1 => 0..20_000_u64]
}

/// Mostly one of the newest.
fn session() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..2_usize, 1 => pick()]
}

fn pick() -> impl Strategy<Value = usize> {
    0..12_usize
}
