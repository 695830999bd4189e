//! The process that compiles: how it is started, and what it does.
//!
//! It is told the component on its standard input, a length and then so many bytes, and writes the code
//! to its standard output. Its input stays open until it is done: where it ends before that, the
//! parent is gone, and so is the child.

use std::io::{Read as _, Write};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use wasmtime::Engine;

use super::{CompileBounds, CompileError, code_config};
use crate::runtime::reason::reason;

/// The hidden command of a program that can be a child.
pub const COMMAND: &str = "compile-component";

/// Exit codes of the child; 0 is done. Others are a crash.
const INVALID: u8 = 3;
const OUT_OF_MEMORY: u8 = 4;
const ORPHANED: i32 = 5;

/// What a child may complain about, in bytes.
const MOST_COMPLAINT: u64 = 16 << 10;

/// Has a child compile `wasm`, and writes its output to `sink`. Dropped, it kills the child.
pub(super) async fn compile(
    program: &Path,
    bounds: CompileBounds,
    fuel: bool,
    wasm: &[u8],
    sink: &mut (dyn Write + Send),
) -> Result<(), CompileError> {
    let mut child = start(program, bounds, fuel).map_err(CompileError::Host)?;
    let compiled = tokio::time::timeout(bounds.timeout, drive(&mut child, wasm, sink)).await;
    let Ok(driven) = compiled else {
        let _ = child.kill().await;
        return Err(CompileError::Timeout(bounds.timeout));
    };
    let (status, complaint) = driven.map_err(CompileError::Host)?;
    judge(status, complaint, bounds)
}

fn start(program: &Path, bounds: CompileBounds, fuel: bool) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg(COMMAND).arg("--memory").arg(bounds.memory.to_string()).args(fuel.then_some("--fuel"));
    // Passwords may be in the environment, and what is compiled is anybody's. Each arena of the
    // allocator reserves address space, of which the child has little.
    command.env_clear().env("MALLOC_ARENA_MAX", "2");
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn()
}

async fn drive(
    child: &mut Child,
    wasm: &[u8],
    sink: &mut (dyn Write + Send),
) -> std::io::Result<(ExitStatus, String)> {
    let (Some(input), Some(output), Some(complaints)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("it has no pipes"));
    };
    let (input, copied, complaint) =
        tokio::join!(feed(input, wasm), copy(output, sink), read_complaint(complaints));
    copied?;
    let status = child.wait().await?;
    drop(input);
    Ok((status, complaint))
}

/// Returns the input, which has to stay open. A child that is gone says why by its end.
async fn feed(mut input: ChildStdin, wasm: &[u8]) -> ChildStdin {
    let length = (wasm.len() as u64).to_le_bytes();
    if input.write_all(&length).await.is_ok() && input.write_all(wasm).await.is_ok() {
        let _ = input.flush().await;
    }
    input
}

async fn copy(mut output: ChildStdout, sink: &mut (dyn Write + Send)) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match output.read(&mut buffer).await? {
            0 => return Ok(()),
            read => sink.write_all(&buffer[..read])?,
        }
    }
}

/// The start of what it complains about; the rest is read and dropped, so that it does not block.
async fn read_complaint(mut complaints: ChildStderr) -> String {
    let mut kept = Vec::new();
    let _ = (&mut complaints).take(MOST_COMPLAINT).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut complaints, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn judge(status: ExitStatus, complaint: String, bounds: CompileBounds) -> Result<(), CompileError> {
    // What the standard library says before it aborts.
    let is_memory = complaint.contains("memory allocation of");
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(INVALID) => Err(CompileError::Invalid(complaint)),
        Some(code) if code == i32::from(OUT_OF_MEMORY) => Err(CompileError::Memory(bounds.memory)),
        None if is_memory => Err(CompileError::Memory(bounds.memory)),
        _ if complaint.is_empty() => Err(CompileError::Crashed(status.to_string())),
        _ => Err(CompileError::Crashed(format!("{status}: {complaint}"))),
    }
}

/// What the child does: the whole of a program. `memory` is in bytes of address space.
#[must_use]
pub fn compile_component(memory: u64, fuel: bool) -> ExitCode {
    restrain(memory);
    let code = match read_component() {
        Ok(wasm) => Engine::new(&code_config(fuel)).and_then(|engine| {
            end_with_parent();
            engine.precompile_component(&wasm)
        }),
        Err(error) => Err(error.into()),
    };
    let written = code.and_then(|code| {
        let mut output = std::io::stdout().lock();
        Ok(output.write_all(&code).and_then(|()| output.flush())?)
    });
    let Err(error) = written else { return ExitCode::SUCCESS };
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    if io.is_some_and(|error| error.kind() == std::io::ErrorKind::OutOfMemory)
        || error.is::<wasmtime::OutOfMemory>()
    {
        return ExitCode::from(OUT_OF_MEMORY);
    }
    eprintln!("{}", reason(&error));
    ExitCode::from(if io.is_some() { 1 } else { INVALID })
}

fn read_component() -> std::io::Result<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(std::io::Error::other)?;
    let mut wasm = Vec::new();
    wasm.try_reserve_exact(length).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    wasm.resize(length, 0);
    input.read_exact(&mut wasm)?;
    Ok(wasm)
}

/// Ends this process when its input does.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().lock().read(&mut byte), Ok(1..)) {}
        std::process::exit(ORPHANED);
    });
}

/// Takes from this process what a component could take the machine down with. What the system does
/// not allow is left out.
fn restrain(memory: u64) {
    // Where memory runs out, this process is the first to go.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let to = |most: u64| libc::rlimit { rlim_cur: most, rlim_max: most };
    let (memory, none) = (to(memory), to(0));
    #[expect(unsafe_code, reason = "std cannot set limits; the pointers are to live locals")]
    // SAFETY: setrlimit reads one rlimit from a valid pointer, and setpriority takes numbers only.
    unsafe {
        libc::setrlimit(libc::RLIMIT_AS, &raw const memory);
        // An abort for want of memory would write all of it to the disk.
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        // Executions that are running come first.
        libc::setpriority(libc::PRIO_PROCESS, 0, 5);
    }
}
