//! Our side: hosts as an operator runs them, each a process of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::guest;
use innkeeper_tests::raw::Raw;

use super::guest::NOOP;

/// Executions at once, of all hosts together: two batches, so that one is called while the
/// next is claimed and the last one recorded.
pub const CONCURRENCY: usize = 1_000;

/// How often it is looked whether everything is done.
const INTERVAL: Duration = Duration::from_millis(20);

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What hosts did.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// From the first recorded start until everything was seen to be done.
    pub took: Duration,
    /// The hosts' own processor time, of their whole life.
    pub processor: Duration,
}

/// One host process. It is killed when it is dropped.
pub struct Host {
    child: Child,
    folder: tempfile::TempDir,
}

impl Host {
    /// Starts a host on this store.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn start(store: &TestDatabase, name: &str, concurrency: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("innkeeper.toml");
        let text = format!(
            "[host]\nname = \"{name}\"\ndata_dir = \"data\"\nconcurrency = {concurrency}\n\n\
             [store]\nurl = {:?}\n\n[plugins.bench]\ncomponent = {:?}\n\n\
             [jobs.{NOOP}]\nplugin = \"bench\"\nhandler = \"{NOOP}\"\nargs = {{ customer = 1 }}\ntimeout = \"60s\"\n",
            store.address(),
            guest("bench"),
        );
        std::fs::write(&config, text)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .context("a host could not be started")?;
        Ok(Self { child, folder })
    }

    /// The processor time that it has used so far.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn processor(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name, and may have anything in it.
        let (_, rest) = stat.rsplit_once(')').context("no process state")?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<u32>().ok()).unwrap_or_default();
        // Linux reports it in hundredths of a second, on every architecture: proc(5).
        Ok(Duration::from_millis(u64::from(ticks() + ticks()) * 10))
    }

    /// An error where it has ended by itself, with the end of its log.
    fn ensure_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            bail!("a host ended ({status}):\n{}", lines[lines.len().saturating_sub(10)..].join("\n"));
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Lets so many hosts run everything that is ready.
///
/// # Errors
/// Where a host ends, or the work does not.
pub async fn run(store: &TestDatabase, hosts: usize, executions: usize) -> Result<Ran> {
    let mut raw = Raw::connect(store.url()).await;
    let mut running = Vec::new();
    for number in 0..hosts {
        running.push(Host::start(store, &format!("bench-{number}"), CONCURRENCY / hosts)?);
    }
    let since = Instant::now();
    let schema = schema(store);
    let ready = format!("select count(*) from (select 1 from {schema}ready limit 1) r");
    let done = format!("select count(*) from {schema}completion where final and outcome = 'succeeded'");
    let wanted = i64::try_from(executions)?;
    while raw.count(&ready).await > 0 || raw.count(&done).await < wanted {
        tokio::time::sleep(INTERVAL).await;
        for host in &mut running {
            host.ensure_alive()?;
        }
        ensure!(since.elapsed() < PATIENCE, "the hosts are not done after {PATIENCE:?}");
    }
    let end = Duration::from_micros(u64::try_from(innkeeper::clock::now().as_microsecond())?);
    let first = match store.engine() {
        Engine::Postgres => {
            "select (extract(epoch from min(started_at)) * 1000000)::bigint from innkeeper.start"
        }
        Engine::Sqlite => "select min(started_at) from start",
    };
    let first = Duration::from_micros(u64::try_from(raw.count(first).await)?);
    let mut processor = Duration::ZERO;
    for host in &running {
        processor += host.processor()?;
    }
    Ok(Ran { took: end.saturating_sub(first), processor })
}

/// What stands before the names of the store's tables.
pub fn schema(store: &TestDatabase) -> &'static str {
    match store.engine() {
        Engine::Postgres => "innkeeper.",
        Engine::Sqlite => "",
    }
}
