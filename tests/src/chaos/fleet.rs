//! The hosts: the real binary, each behind a network of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::patience::wait_until;
use super::relay::Relay;
use super::server::{OwnServer, send};
use crate::host::{binary, guest};
use crate::http;

/// Short, since every other fault lasts until sessions are over.
pub(super) const SESSION_TIMEOUT: &str = "2s";

/// Executions that one host runs at once.
pub(super) const CONCURRENCY: usize = 4;

/// A host under its name, through its lives.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) relay: Relay,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Host {
    /// Writes its configuration. It does not run yet.
    pub(super) async fn new(name: String, server: &OwnServer, folder: &Path) -> Result<Self> {
        let relay = Relay::to(server.port()).await?;
        let url = |database: &str| {
            format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", relay.port())
        };
        let text = format!(
            "[host]\nname = \"{name}\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n\
             concurrency = {CONCURRENCY}\nsession_timeout = \"{SESSION_TIMEOUT}\"\ndrain_timeout = \"1s\"\n\n\
             [store]\nurl = {:?}\nmax_connections = 4\n\n\
             [databases.app]\nurl = {:?}\nmax_connections = 6\n\n\
             [plugins.probe]\ncomponent = {:?}\n\n[[plugins.probe.databases]]\nname = \"app\"\n\n{JOBS}",
            url("store"),
            url("app"),
            guest("probe"),
        );
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, text)?;
        let log = folder.join(format!("{name}.log"));
        Ok(Self { name, relay, config, log, child: None })
    }

    /// Starts it. It need not serve yet.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(&self.config)
            .env("INNKEEPER_LOG", "innkeeper=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("the host could not be started")?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        let child = self.child.as_ref().context("the host does not run")?;
        send(child.id(), signal);
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the host does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the host does not run")?;
        let ended = wait_until(&format!("{} ends", self.name), async || Ok(child.try_wait()?)).await;
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended
    }

    /// Fails where it has ended by itself.
    pub(super) fn check_it_runs(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the host does not run")?;
        let status = child.try_wait()?;
        ensure!(status.is_none(), "{} has ended by itself: {status:?}", self.name);
        Ok(())
    }

    /// How much it has logged.
    pub(super) fn mark(&self) -> usize {
        std::fs::metadata(&self.log).map_or(0, |log| usize::try_from(log.len()).unwrap_or(usize::MAX))
    }

    /// What it has logged since a mark.
    pub(super) fn log_since(&self, mark: usize) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(mark..).unwrap_or_default()).into_owned()
    }

    /// What it says on `/readyz`, unless it says nothing.
    pub(super) async fn readiness(&self) -> Option<Value> {
        Some(http::get(self.address()?, "/readyz").await?.body)
    }

    /// Waits until it says that it has this problem.
    pub(super) async fn wait_for_problem(&self, what: &str) -> Result<()> {
        wait_until(
            &format!("{} says on /readyz that something is wrong with the {what}", self.name),
            async || {
                let problems = self.readiness().await.map(|body| body["problems"].clone());
                let found = problems
                    .as_ref()
                    .and_then(Value::as_array)
                    .is_some_and(|problems| problems.iter().any(|problem| problem["what"] == what));
                Ok(found.then_some(()))
            },
        )
        .await
    }

    /// The address that it listens on in its latest life, which its log tells.
    fn address(&self) -> Option<SocketAddr> {
        let log = self.log_since(0);
        let told = log.rsplit("listening address=").next()?;
        told.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// More attempts than faults, so that nothing fails for good but what is to.
const JOBS: &str = r#"
[jobs.ledger]
plugin = "probe"
handler = "ledger"
args = { steps = 3 }
timeout = "2m"
retry = { max_attempts = 100, initial = "50ms", maximum = "200ms" }

[jobs.fragile]
plugin = "probe"
handler = "ledger"
args = { steps = 2 }
timeout = "2m"
retry = { max_attempts = 100, initial = "50ms", maximum = "200ms" }
on_crash = "fail"
"#;
