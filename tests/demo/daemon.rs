//! The daemon of the demo: the real binary, started, asked and stopped as an operator would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::example::Folder;

/// Longer than the 30 seconds that a shutdown waits for running executions.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// How long a command that reads the store may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// `innkeeper serve`, running. It ends with this program, however this program ends.
pub struct Daemon {
    child: Child,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
}

/// An execution, as `innkeeper execution list --json` tells it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Execution {
    pub id: String,
    pub job: String,
    pub state: String,
    pub attempt: u32,
    pub triggered_by: String,
    pub scheduled_at: Option<jiff::Timestamp>,
    pub started_at: Option<jiff::Timestamp>,
    pub finished_at: Option<jiff::Timestamp>,
    pub result: Option<Value>,
    pub error: Option<ExecutionError>,
    pub progress: Option<Progress>,
}

/// Why an execution failed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ExecutionError {
    pub kind: String,
    pub message: String,
}

/// How far a running execution is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    pub message: Option<String>,
}

#[derive(Deserialize)]
struct Executions {
    executions: Vec<Execution>,
}

impl Daemon {
    /// Starts `innkeeper serve`. To be called by the main thread: the system ends the daemon
    /// when the thread that started it ends.
    pub fn start(program: &Path, folder: &Folder) -> Result<Self> {
        let (config, log) = (folder.config(), folder.log());
        let output = File::create(&log)?;
        let mut command = std::process::Command::new(program);
        command.arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A Ctrl-C at the terminal is for this program, which then stops the daemon.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        end_with_parent(&mut command);
        let child = Command::from(command).kill_on_drop(true).spawn().with_context(|| {
            format!("{} cannot be started; `cargo xtask demo` builds it", program.display())
        })?;
        Ok(Self { child, program: program.to_owned(), config, log })
    }

    /// Fails when the daemon has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon has ended by itself ({status})\n{}", self.end_of_log()),
        }
    }

    /// The latest executions, the oldest of them first.
    pub async fn executions(&self, limit: u32) -> Result<Vec<Execution>> {
        let mut command = Command::new(&self.program);
        command.args(["execution", "list", "--json", "--limit", &limit.to_string(), "--config"]);
        command.arg(&self.config).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(COMMAND_LIMIT, command.output())
            .await
            .with_context(|| format!("`innkeeper execution list` took more than {COMMAND_LIMIT:?}"))??;
        ensure!(
            output.status.success(),
            "`innkeeper execution list` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        parse(&output.stdout)
    }

    /// Asks the daemon to stop, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        self.check_alive()?;
        self.send_sigterm();
        let Ok(status) = timeout(STOP_LIMIT, self.child.wait()).await else {
            self.child.kill().await?;
            bail!("the daemon had not stopped {STOP_LIMIT:?} after SIGTERM\n{}", self.end_of_log());
        };
        let status: ExitStatus = status?;
        ensure!(status.success(), "the daemon did not stop well ({status})\n{}", self.end_of_log());
        Ok(())
    }

    /// What the daemon said last.
    pub fn end_of_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("The end of its log, {}:\n{end}", self.log.display())
    }

    fn send_sigterm(&self) {
        let Some(process) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        #[expect(unsafe_code, reason = "std can send SIGKILL only")]
        // SAFETY: kill takes two numbers.
        unsafe {
            libc::kill(process, libc::SIGTERM);
        }
    }
}

fn parse(document: &[u8]) -> Result<Vec<Execution>> {
    let executions: Executions = serde_json::from_slice(document)
        .context("`innkeeper execution list --json` did not print what it should")?;
    let mut executions = executions.executions;
    // A UUIDv7 begins with its time.
    executions.sort_by(|one, two| one.id.cmp(&two.id));
    Ok(executions)
}

/// Asks the system to end the child when this program dies, so that no daemon is left behind.
fn end_with_parent(command: &mut std::process::Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let prepare = move || {
            #[expect(unsafe_code, reason = "std has no counterpart of PR_SET_PDEATHSIG")]
            // SAFETY: prctl with PR_SET_PDEATHSIG takes one number and no pointer.
            let status = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            // A parent that died before the call above would never be noticed.
            if status != 0 || std::os::unix::process::parent_id() != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        #[expect(unsafe_code, reason = "the setting has to be made by the child itself")]
        // SAFETY: between fork and exec the closure makes two system calls and allocates
        // nothing.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, prepare);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_with_what_they_have_and_in_the_order_of_time() {
        let document = br#"{"executions": [
            {"id": "019a-2", "job": "b", "state": "running", "attempt": 1, "started_at": "2026-11-23T04:05:06Z",
             "finished_at": null, "result": null, "error": null, "progress": {"done": 5, "total": null}},
            {"id": "019a-1", "job": "a", "state": "failed", "attempt": 3, "triggered_by": "schedule",
             "result": null, "error": {"kind": "trap", "message": "unreachable"}, "more": [1]}]}"#;
        let executions = parse(document).unwrap();
        assert_eq!(executions[0].job, "a");
        assert_eq!(executions[0].error.as_ref().unwrap().kind, "trap");
        assert_eq!(executions[1].progress.as_ref().unwrap().done, 5);
        assert!(parse(b"[]").is_err());
    }
}
