//! The soak test: a host under steady work for a long time must not grow.
//!
//! `work` is what it is given, `gauge` what is read of it and of its databases, `flatness` how it is
//! judged, and `report` what is printed. `docs/reliability.md` says what is tested.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::database::Engine;
use crate::host::{Scene, TestHost};
use crate::release::Release;

pub mod flatness;
mod gauge;
mod reloads;
mod report;
mod work;

pub use gauge::Gauge;
pub use report::Report;

use gauge::{Gauges, Sample};
use reloads::Reloads;
use work::{Work, configured};

/// The fewest minutes: what ended within the last minute is never removed from the history, and the
/// host removes the rest once in a minute, so its tables are as full as they get after two.
pub const SHORTEST: i64 = 6;

/// How often there is new work.
const TICK: Duration = Duration::from_secs(1);

/// The host is looked at so often in all. A third of it is enough for a median.
const SAMPLES: u32 = 720;

/// The short form reloads so often in each block of its warm-up.
const WARM_UP_RELOADS: usize = 2;

/// The short form gives up after as many stretches.
const STRETCHES: usize = 4;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// On which engine the store and the plugin's database are.
    pub engine: Engine,
    /// How long, at least [`SHORTEST`].
    pub minutes: u32,
    /// Rounds of the mix of 22 executions that are enqueued in each second.
    pub rounds: u32,
}

/// Works for so long, and reports. It tells how it goes on standard error.
///
/// # Panics
/// Where the host or its databases fail.
pub async fn run(options: Options) -> Report {
    let Options { engine, minutes, rounds } = options;
    let rounds = rounds as usize;
    let time = Duration::from_secs(60) * minutes;
    let (scene, host, mut reloads) = serve(engine).await;
    let (mut work, mut gauges) = (Work::new(&scene).await, Gauges::new(&scene).await);
    let mut samples: Vec<Sample> = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (begun, mut told) = (Instant::now(), 0);
    while begun.elapsed() < time {
        ticks.tick().await;
        // Slower machines get less: a queue that grows would be growth of another kind.
        if gauges.queued().await < i64::try_from(rounds * work::MIX.len()).unwrap_or(i64::MAX) {
            work.enqueue(rounds).await;
        }
        reloads.keep_up(&host, work.executions()).await;
        if begun.elapsed() >= time / SAMPLES * u32::try_from(samples.len()).unwrap_or(u32::MAX) {
            samples.push(gauges.read(&host, work.executions()).await);
        }
        let minute = begun.elapsed().as_secs() / 60;
        if let Some(last) = samples.last().filter(|_| minute > told) {
            told = minute;
            eprintln!("soak: {} after {minute} min: {last}", report::name(engine));
        }
    }
    reloads.assert_unnoticed().await;
    host.stop().await;
    Report::new(engine, begun.elapsed(), samples)
}

/// What a host keeps of each execution, in bytes, while no execution runs; see [`kept_in`].
#[derive(Debug)]
pub struct Kept {
    /// Executions ended, and the anonymous memory of the host then.
    pub points: Vec<(u64, u64)>,
    /// Bytes for each execution in the last stretch.
    pub of_each: f64,
    /// Open files before and after.
    pub files: (usize, usize),
}

/// Works in blocks of so many rounds, and reads the host's memory after each, when everything has
/// ended, until a stretch of so many `blocks` grows by less than `flat` bytes for each execution. Pools
/// and caches are full some day; a host that keeps something is never flat, and has had `STRETCHES`
/// stretches then. The first `warm_up` blocks are not in the result.
///
/// # Panics
/// Where the host or its databases fail.
pub async fn kept_in(engine: Engine, warm_up: usize, blocks: usize, rounds: usize, flat: f64) -> Kept {
    let (scene, host, mut reloads) = serve(engine).await;
    let (mut work, mut gauges) = (Work::new(&scene).await, Gauges::new(&scene).await);
    let mut points = Vec::new();
    let (mut files, mut of_each) = ((0, 0), f64::INFINITY);
    for block in 0..warm_up + STRETCHES * blocks {
        if block == warm_up {
            files.0 = host.open_files().len();
        }
        work.enqueue(rounds).await;
        if block < warm_up {
            // What compiles keeps memory for the next time, on each of its threads.
            for _ in 0..WARM_UP_RELOADS {
                reloads.reload(&host).await;
            }
        }
        reloads.keep_up(&host, work.executions()).await;
        gauges.until_all_have_ended(work.executions()).await;
        if block >= warm_up {
            points.push((work.executions(), host.memory().1));
        }
        if let Some(from) = points.len().checked_sub(blocks) {
            of_each = flatness::slope(&points[from..]);
            if of_each < flat {
                break;
            }
        }
    }
    files.1 = host.open_files().len();
    reloads.assert_unnoticed().await;
    host.stop().await;
    Kept { points, of_each, files }
}

async fn serve(engine: Engine) -> (Scene, TestHost, Reloads) {
    let scene = configured(Scene::new(engine).await);
    let release = Release::of_probe(scene.dir());
    let scene = scene.with_component(&release.path);
    let host = TestHost::start_quiet(&scene.configure("inn-1", work::JOBS));
    work::prepare(&scene).await;
    host.wait_for_log("serving").await;
    let reloads = Reloads::new(&scene, release).await;
    (scene, host, reloads)
}
