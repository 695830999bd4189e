//! Child processes: signals reach them, and none outlives this program.
//!
//! A child that is waited for gets a process group of its own. A Ctrl-C at the terminal then
//! reaches this program only, which passes it on once, to the whole group: `cargo test` does
//! not pass a SIGTERM on to the test programs that it started.

use std::io::Read;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};

/// A signal asked this program to stop.
#[derive(Debug)]
pub struct Interrupted {
    /// The number of the signal.
    pub signal: i32,
}

/// A child that said itself what went wrong.
#[derive(Debug)]
pub struct ChildFailed {
    /// The child's exit code, for this program to exit with.
    pub code: u8,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped by signal {}", self.signal)
    }
}

impl std::fmt::Display for ChildFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a command failed with exit code {}", self.code)
    }
}

impl std::error::Error for Interrupted {}
impl std::error::Error for ChildFailed {}

/// What the thread that receives signals and the main thread share.
struct Shared {
    /// The first signal that was received.
    signal: Option<i32>,
    /// The process group of the child that is being waited for.
    group: Option<i32>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared { signal: None, group: None });

fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Receives SIGINT and SIGTERM from now on: the first is passed on to the child as it is, a
/// further one kills the child. Call it before any other thread is started.
pub fn listen_for_signals() -> Result<()> {
    let signals = block_signals(&[libc::SIGINT, libc::SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        loop {
            let mut signal = 0;
            #[expect(unsafe_code, reason = "std has no way to wait for a signal")]
            // SAFETY: both pointers are to live values of the right types.
            let status = unsafe { libc::sigwait(&raw const signals, &raw mut signal) };
            if status == 0 {
                pass_on(signal);
            }
        }
    })?;
    Ok(())
}

fn pass_on(signal: i32) {
    let mut shared = shared();
    let sent = if shared.signal.is_none() { signal } else { libc::SIGKILL };
    shared.signal.get_or_insert(signal);
    if let Some(group) = shared.group {
        send(sent, -group);
    }
}

/// Fails when a signal has asked this program to stop.
pub fn check_interrupted() -> Result<()> {
    match shared().signal {
        Some(signal) => Err(Interrupted { signal }.into()),
        None => Ok(()),
    }
}

/// Runs a command to its end, its output going where ours goes.
pub fn run(command: &mut Command) -> Result<ExitStatus> {
    let status = run_through(command)?;
    check_interrupted()?;
    Ok(status)
}

/// The same for a command that decides itself what a signal means for its exit code.
pub fn run_through(command: &mut Command) -> Result<ExitStatus> {
    let mut child = spawn_in_group(command.stdin(Stdio::null()))?;
    let status = child.wait();
    end_group(&child);
    Ok(status?)
}

/// Runs a command to its end and fails unless it succeeded. The command says itself what is
/// wrong.
pub fn run_to_success(command: &mut Command) -> Result<()> {
    let status = run(command)?;
    if status.success() { Ok(()) } else { Err(failed(status).into()) }
}

/// How a command failed, as an exit code for this program.
pub fn failed(status: ExitStatus) -> ChildFailed {
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    ChildFailed { code: code.unwrap_or(1) }
}

/// Runs a command to its end; `read` gets what it writes to its standard output, as it comes.
pub fn run_reading<T: Send + 'static>(
    command: &mut Command,
    read: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
) -> Result<(ExitStatus, T)> {
    let mut child = spawn_in_group(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut output = child.stdout.take().context("the child has no standard output")?;
    let (sender, receiver) = mpsc::channel();
    // This thread spawned the child and must stay until the child ends, so another one reads.
    std::thread::spawn(move || {
        let _ = sender.send(read(&mut output));
    });
    let status = child.wait();
    // A process that was left behind and holds the pipe open ends here, if it is in the group.
    end_group(&child);
    check_interrupted()?;
    let result = receiver
        .recv_timeout(Duration::from_secs(30))
        .context("a process that outlived the command that started it still holds its standard output")?;
    Ok((status?, result))
}

/// This program's standard output, for one child alone.
pub struct Output(OwnedFd);

impl Output {
    /// Takes it. What this program and its other children print to it from now on goes to
    /// standard error.
    pub fn take() -> Result<Self> {
        let output = std::io::stdout().as_fd().try_clone_to_owned()?;
        #[expect(unsafe_code, reason = "std cannot replace standard output")]
        // SAFETY: both descriptors are this program's own, and replacing one moves no memory.
        let replaced = unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) };
        anyhow::ensure!(
            replaced == libc::STDOUT_FILENO,
            "standard output cannot be redirected: {}",
            std::io::Error::last_os_error()
        );
        Ok(Self(output))
    }

    /// Gives it to a child.
    pub fn into_stdio(self) -> Stdio {
        self.0.into()
    }
}

/// Starts a child in a process group of its own that gets the signals that this program gets.
fn spawn_in_group(command: &mut Command) -> Result<Child> {
    // With the lock held, a signal comes either before the start, which then fails, or after
    // the group is known.
    let mut shared = shared();
    if let Some(signal) = shared.signal {
        return Err(Interrupted { signal }.into());
    }
    let child = spawn_mortal(command, libc::SIGTERM)?;
    shared.group = Some(group_of(&child));
    Ok(child)
}

/// Ends what is left of the group of a child that has ended.
fn end_group(child: &Child) {
    shared().group = None;
    send(libc::SIGKILL, -group_of(child));
}

fn group_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a process id fits the type that the system has for it")
}

/// Starts a child in a process group of its own that gets `signal` when this program dies,
/// however it dies (on Linux). To be called by the main thread: the system watches the thread
/// that started the child, not the process.
pub fn spawn_mortal(command: &mut Command, signal: i32) -> Result<Child> {
    command.process_group(0);
    let parent = std::process::id();
    let prepare = move || {
        unblock_signals()?;
        die_with(parent, signal)
    };
    #[expect(unsafe_code, reason = "a child can only change its own mask and its own settings")]
    // SAFETY: between fork and exec the closure makes system calls that are safe in a signal
    // handler, and allocates nothing.
    unsafe {
        command.pre_exec(prepare);
    }
    let program = command.get_program().to_owned();
    command.spawn().with_context(|| format!("{} could not be started", program.display()))
}

/// Sends a signal to a process, or to a group for a negative number. A process that is gone
/// is no error.
pub fn send(signal: i32, process: i32) {
    #[expect(unsafe_code, reason = "std can send SIGKILL only")]
    // SAFETY: kill takes two numbers.
    unsafe {
        libc::kill(process, signal);
    }
}

/// Asks the system to send this process a signal when its parent dies.
#[cfg(target_os = "linux")]
fn die_with(parent: u32, signal: i32) -> std::io::Result<()> {
    #[expect(unsafe_code, reason = "std has no counterpart of PR_SET_PDEATHSIG")]
    // SAFETY: prctl with PR_SET_PDEATHSIG takes one number and no pointer.
    let status = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    // A parent that died before the call above would never be noticed.
    if status != 0 || std::os::unix::process::parent_id() != parent {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Other systems have nothing of the kind.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32, _signal: i32) -> std::io::Result<()> {
    Ok(())
}

/// Blocks signals in this thread and in those that it starts.
fn block_signals(signals: &[i32]) -> Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "std has no signal masks")]
    // SAFETY: sigemptyset initialises the set, whose pointer is valid; the further calls get
    // pointers to it, and null where the old mask would go.
    let (status, set) = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        let set = set.assume_init();
        (libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()), set)
    };
    anyhow::ensure!(status == 0, "signals cannot be blocked: {}", std::io::Error::from_raw_os_error(status));
    Ok(set)
}

/// Blocks no signal any more. A child inherits the mask of the thread that started it, and a
/// program that starts with SIGTERM blocked could not be ended.
fn unblock_signals() -> std::io::Result<()> {
    let mut set = std::mem::MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "std has no signal masks")]
    // SAFETY: sigemptyset initialises the set that pthread_sigmask reads; null is where the old
    // mask would go.
    let status = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if status == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_starts_with_no_signal_blocked() {
        // In a thread of its own, since the mask belongs to a thread.
        let status = std::thread::spawn(|| {
            block_signals(&[libc::SIGINT]).unwrap();
            let mut command = Command::new("grep");
            command.args(["^SigBlk:", "/proc/self/status"]).stdout(Stdio::piped());
            spawn_mortal(&mut command, libc::SIGKILL).unwrap().wait_with_output().unwrap()
        })
        .join()
        .unwrap();
        assert_eq!(String::from_utf8(status.stdout).unwrap().trim(), "SigBlk:\t0000000000000000");
    }

    #[test]
    fn what_a_command_writes_is_read_and_its_exit_code_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; exit 3"]);
        let (status, text) = run_reading(&mut command, |output| {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            text
        })
        .unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert_eq!(failed(status).code, 3);
    }

    #[test]
    fn a_process_that_a_command_left_behind_does_not_hold_us_up() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo done"]);
        let (status, length) = run_reading(&mut command, |output| {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            text.len()
        })
        .unwrap();
        assert!(status.success());
        assert_eq!(length, 5);
    }
}
