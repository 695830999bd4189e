//! The crash tests: three hosts on one PostgreSQL, and faults that strike wherever it hurts most.
//!
//! `plan` deals the faults from a seed, `relay` (with `wire`, which reads the protocol) is the
//! network of each host and holds it at a point of an execution's life, `fleet` is the hosts,
//! `stage` all of them with their databases, `faults` what is done to them, `check` what has to
//! hold in the end, and `report` what is printed. `docs/reliability.md` says what is tested.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};

mod check;
mod faults;
mod fleet;
mod patience;
pub mod plan;
mod relay;
mod report;
mod server;
mod stage;
mod wire;

pub use report::Report;
use stage::Stage;

/// How many hosts there are.
pub const HOSTS: usize = 3;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides which faults strike, where, and in which order.
    pub seed: u64,
    /// How many.
    pub faults: usize,
    /// Says on standard error what is being done.
    pub is_loud: bool,
}

/// Strikes, and looks at what is left. The hosts' logs are in the folder that the report names
/// where something is wrong, and gone where nothing is.
///
/// # Errors
/// Where a fault could not be carried out, or the hosts did not go on after it: with the seed, the
/// fault, and the folder with the logs.
pub async fn run(options: Options) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("innkeeper-chaos-").tempdir()?;
    let result = strike_all(options, folder.path().to_owned()).await;
    if !result.as_ref().is_ok_and(|report| report.violations.is_empty()) {
        let _ = folder.keep();
    }
    result
}

async fn strike_all(options: Options, folder: PathBuf) -> Result<Report> {
    let faults = plan::deal(options.seed, options.faults, HOSTS);
    let context =
        |doing: &str| format!("seed {}: {doing} (the hosts' logs are in {})", options.seed, folder.display());
    let started = Instant::now();
    let mut stage =
        Stage::build(&folder, HOSTS).await.with_context(|| context("while the hosts were started"))?;
    for (number, fault) in (1..).zip(&faults) {
        if options.is_loud {
            eprintln!(
                "chaos: {:>5.1} s  fault {number} of {}: {fault}",
                started.elapsed().as_secs_f64(),
                faults.len()
            );
        }
        stage.strike(fault).await.with_context(|| context(&format!("fault {number}: {fault}")))?;
    }
    stage.finish().await.with_context(|| context("after the last fault"))?;
    let findings = check::look(&stage).await.with_context(|| context("while the result was looked at"))?;
    Ok(Report {
        seed: options.seed,
        faults,
        took: started.elapsed(),
        counts: findings.counts,
        violations: findings.violations,
        folder,
    })
}
