//! Programs: components that export `wasi:cli/run`, as any command-line program does that is built
//! for WASI.
//!
//! A job runs one as a shell would: `argv` of the job's arguments is what follows the program's
//! name, the arguments as a whole are on standard input as JSON, and what is on standard output at
//! the end is the result, if it is JSON. It succeeds with exit code 0.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncWrite;
use wasmtime::Store;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

use super::ending::Ending;
use super::state::GuestState;
use crate::bounds;
use crate::execution::{Attempt, LogLevel, LogLine};
use crate::interfaces::bindings::innkeeper::plugin::types;
use crate::interfaces::output::Output;
use crate::interfaces::stdio::Stream;
use crate::limits::Limits;
use crate::plugin::Handler;

/// What the only handler of a program is called.
const HANDLER: &str = "run";

/// Bytes of the end of standard error that a failure is told with.
const LAST_WORDS: usize = 4 * 1024;

/// How a program looks to whoever writes a job.
pub(super) fn handler(description: Option<&str>) -> Handler {
    let summary = description.map(str::trim).filter(|text| !text.is_empty());
    let summary = summary.and_then(|text| text.lines().next()).unwrap_or("Runs the program.");
    let args_schema = json!({
        "type": "object",
        "description": "All of it is on the program's standard input, as JSON.",
        "properties": {
            "argv": {
                "type": "array",
                "items": { "type": "string" },
                "description": "The program's arguments, without its own name.",
            },
        },
    });
    let summary = bounds::cut(summary.to_owned(), 200);
    Handler { name: HANDLER.to_owned(), summary, args_schema: Some(args_schema) }
}

/// One run of a program: what it is given, and what it says.
pub(super) struct Program<'a> {
    pre: &'a CommandPre<GuestState>,
    argv: Vec<String>,
    input: Bytes,
    env: [(&'static str, String); 3],
    said: Said,
}

/// What a program has said so far.
#[derive(Clone)]
struct Said(Arc<Mutex<Streams>>);

struct Streams {
    /// Bytes that a result can have.
    most: usize,
    /// The beginning of standard output: more than a result can have is not kept.
    out: Vec<u8>,
    out_length: usize,
    /// The end of standard error.
    err: Vec<u8>,
}

impl<'a> Program<'a> {
    pub(super) fn new(pre: &'a CommandPre<GuestState>, attempt: &Attempt, limits: Limits) -> Self {
        let given = attempt.args.get("argv").and_then(Value::as_array).into_iter().flatten();
        let given = given.filter_map(Value::as_str).map(str::to_owned);
        let argv = std::iter::once(attempt.job.plugin.to_string()).chain(given).collect();
        let env = [
            ("INNKEEPER_EXECUTION", attempt.execution.to_string()),
            ("INNKEEPER_JOB", attempt.job.name.to_string()),
            ("INNKEEPER_ATTEMPT", attempt.attempt.to_string()),
        ];
        let said = Said::new(usize::try_from(limits.result_bytes).unwrap_or(usize::MAX));
        Self { pre, argv, input: format!("{}\n", attempt.args).into(), env, said }
    }

    /// What it says goes to `output` all the same.
    pub(super) fn set_up(&self, builder: &mut WasiCtxBuilder, output: &Output) {
        builder.args(&self.argv).stdin(MemoryInputPipe::new(self.input.clone()));
        for (name, value) in &self.env {
            builder.env(name, value);
        }
        builder.stdout(Tee { stream: output.stdout(), said: self.said.clone(), is_err: false });
        builder.stderr(Tee { stream: output.stderr(), said: self.said.clone(), is_err: true });
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, store: &mut Store<GuestState>) -> Ending {
        let instance = match self.pre.instantiate_async(&mut *store).await {
            Ok(instance) => instance,
            Err(error) => return Ending::NotInstantiated(error),
        };
        let code = match instance.wasi_cli_run().call_run(&mut *store).await {
            Ok(Ok(())) => 0,
            Ok(Err(())) => 1,
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => *code,
                None => return Ending::Trapped(error),
            },
        };
        if code == 0 {
            return Ending::Returned(Ok(self.said.result()));
        }
        let message = format!("the program ended with exit code {code}{}", self.said.last_words());
        Ending::Returned(Err(types::Failure::Retryable(message)))
    }

    /// What the execution's log should say of a result that was none.
    pub(super) fn remark(&self) -> Option<LogLine> {
        let streams = self.said.lock();
        let begins_like_one =
            streams.out.trim_ascii_start().first().is_some_and(|b| matches!(b, b'{' | b'['));
        let message = if streams.out_length > streams.most && begins_like_one {
            format!(
                "standard output has {} bytes, and a result at most {} (`limits.result_bytes` of the plugin): it is \
                 in this log, and the result is null",
                streams.out_length, streams.most
            )
        } else {
            return None;
        };
        Some(LogLine {
            at: crate::clock::now(),
            level: LogLevel::Warn,
            message,
            fields: serde_json::Map::new(),
        })
    }
}

impl Said {
    /// Nothing yet, of which so many bytes may be a result.
    fn new(most: usize) -> Self {
        let most = most.min(bounds::DOCUMENT);
        Self(Arc::new(Mutex::new(Streams { most, out: Vec::new(), out_length: 0, err: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, is_err: bool, bytes: &[u8]) {
        let mut streams = self.lock();
        if is_err {
            let bytes = &bytes[bytes.len().saturating_sub(LAST_WORDS)..];
            streams.err.extend_from_slice(bytes);
            let too_many = streams.err.len().saturating_sub(LAST_WORDS);
            streams.err.drain(..too_many);
        } else {
            streams.out_length = streams.out_length.saturating_add(bytes.len());
            let room = streams.most.saturating_sub(streams.out.len());
            streams.out.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Standard output where it is JSON, or else `null`.
    fn result(&self) -> String {
        let mut streams = self.lock();
        if streams.out_length > streams.most {
            return "null".to_owned();
        }
        let text = String::from_utf8(std::mem::take(&mut streams.out)).unwrap_or_default();
        if bounds::document(&text).is_ok() { text } else { "null".to_owned() }
    }

    fn last_words(&self) -> String {
        const MOST_LINES: usize = 10;
        let streams = self.lock();
        let text = String::from_utf8_lossy(&streams.err);
        let lines = text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>();
        let last = &lines[lines.len().saturating_sub(MOST_LINES)..];
        last.iter().map(|line| format!("\n{line}")).collect()
    }
}

/// One of the two streams, which is heard here as well.
#[derive(Clone)]
struct Tee {
    stream: Stream,
    said: Said,
    is_err: bool,
}

impl IsTerminal for Tee {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Tee {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Tee {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

impl OutputStream for Tee {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.stream.write(bytes.clone())?;
        self.said.note(self.is_err, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        OutputStream::flush(&mut self.stream)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.stream.check_write()
    }
}

impl AsyncWrite for Tee {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            this.said.note(this.is_err, &bytes[..*count]);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(out: &[u8]) -> String {
        said_within(bounds::DOCUMENT, out)
    }

    fn said_within(most: usize, out: &[u8]) -> String {
        let said = Said::new(most);
        for piece in out.chunks(7) {
            said.note(false, piece);
        }
        said.result()
    }

    #[test]
    fn what_is_printed_is_the_result_only_where_it_is_json() {
        assert_eq!(said(b" {\"rows\": 3}\n"), " {\"rows\": 3}\n");
        assert_eq!(said(b"42"), "42");
        for text in ["", "\n", "done\n", "{\"a\": 1}\n{\"a\": 2}\n", "\u{fffd}"] {
            assert_eq!(said(text.as_bytes()), "null", "{text:?}");
        }
        assert_eq!(said(&[0xff]), "null");
        assert_eq!(
            said(format!("\"{}\"", "x".repeat(bounds::DOCUMENT)).as_bytes()),
            "null",
            "it is too long"
        );
        assert_eq!(said("[".repeat(65).as_bytes()), "null");
        assert_eq!(said_within(3, b"\"x\""), "\"x\"");
        assert_eq!(said_within(2, b"\"x\""), "null", "it is longer than the plugin's results may be");
    }

    #[test]
    fn a_failure_is_told_with_the_end_of_standard_error() {
        let said = Said::new(bounds::DOCUMENT);
        for n in 0..1000 {
            said.note(true, format!("line {n}\n\n").as_bytes());
        }
        let words = said.last_words();
        assert!(words.ends_with("\nline 999") && words.starts_with("\nline 990"), "{words}");
        said.note(true, &vec![b'x'; 10 * LAST_WORDS]);
        assert_eq!(said.last_words().len(), 1 + LAST_WORDS);
    }

    #[test]
    fn a_program_has_one_handler_and_its_own_description() {
        assert_eq!(handler(Some(" Counts things.\nAt length.\n")).summary, "Counts things.");
        assert_eq!(handler(Some(" ")).summary, "Runs the program.");
        let schema = crate::args::ArgsSchema::compile(handler(None).args_schema.unwrap()).unwrap();
        assert!(schema.check(&json!({})).is_ok());
        assert!(schema.check(&json!({ "argv": ["--days", "7"], "more": 1 })).is_ok());
        assert!(schema.check(&json!({ "argv": "--days 7" })).is_err());
        assert!(schema.check(&json!([])).is_err());
    }
}
