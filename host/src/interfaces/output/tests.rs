//! What is kept of what an execution says.

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::interfaces::{EnqueueError, EnqueueRequest};

/// What a port was asked to record, each call a list.
#[derive(Default)]
struct Records {
    lines: Mutex<Vec<Vec<LogLine>>>,
    progress: Mutex<Vec<u64>>,
}

#[async_trait]
impl Port for Records {
    async fn log(&self, lines: Vec<LogLine>) {
        self.lines.lock().unwrap().push(lines);
    }

    async fn progress(&self, progress: Progress) {
        self.progress.lock().unwrap().push(progress.done);
    }

    async fn save_checkpoint(&self, _state: Value) -> Result<(), String> {
        Ok(())
    }

    fn cancelled(&self) -> bool {
        false
    }

    async fn enqueue(&self, _request: EnqueueRequest) -> Result<Uuid, EnqueueError> {
        Err(EnqueueError::Denied("nothing is enqueued here".to_owned()))
    }
}

impl Records {
    fn messages(&self) -> Vec<(LogLevel, String)> {
        let calls = self.lines.lock().unwrap();
        calls.iter().flatten().map(|line| (line.level, line.message.clone())).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.messages().into_iter().map(|(_, message)| message).collect()
    }

    fn calls(&self) -> usize {
        self.lines.lock().unwrap().len()
    }
}

fn output(limits: Limits) -> (Arc<Records>, Output) {
    let records = Arc::new(Records::default());
    (records.clone(), Output::new(records, limits))
}

fn line(message: &str) -> LogLine {
    mark(message.to_owned(), Map::new())
}

async fn end(output: &Output) {
    output.close();
    output.finish().await;
}

#[tokio::test]
async fn bytes_become_lines_and_the_last_one_needs_no_end() {
    let (records, output) = output(Limits::default());
    output.write(LogLevel::Info, b"one\ntw").unwrap();
    output.write(LogLevel::Error, b"oops\r\n").unwrap();
    output.write(LogLevel::Info, b"o\nthree").unwrap();
    output.log(line("logged")).await;
    end(&output).await;
    end(&output).await;
    let expected = [
        (LogLevel::Info, "one"),
        (LogLevel::Error, "oops"),
        (LogLevel::Info, "two"),
        (LogLevel::Warn, "logged"),
        (LogLevel::Info, "three"),
    ];
    assert_eq!(records.messages(), expected.map(|(level, message)| (level, message.to_owned())));
}

#[tokio::test]
async fn lines_beyond_the_limit_cost_no_record_and_are_counted_in_one() {
    let (records, output) = output(Limits { log_lines: 3, ..Limits::default() });
    output.write(LogLevel::Info, b"printed\n").unwrap();
    for number in 0..1_000_000 {
        if output.admits(2) {
            output.log(line(&number.to_string())).await;
        }
    }
    output.write(LogLevel::Info, b"late\n").unwrap();
    assert_eq!(records.calls(), 2);
    end(&output).await;
    let mark = "… 999,999 more lines (1.9 MiB) were not kept: `limits.log_lines` of the plugin is 3";
    assert_eq!(records.texts(), ["printed", "0", "1", mark]);
    let mut usage = Usage::default();
    output.count(&mut usage);
    assert_eq!((usage.log_lines, usage.log_bytes), (1_000_002, 7 + 2_000_000 + 4));
}

#[tokio::test]
async fn what_is_cut_is_said_when_it_is_cut_and_counted_when_it_is_over() {
    let (records, output) = output(Limits { log_bytes: 10, ..Limits::default() });
    output.write(LogLevel::Info, b"12345678\nabc\nd\n").unwrap();
    output.record(None).await;
    let told = "… no more lines are kept: `limits.log_bytes` of the plugin is 10 B";
    assert_eq!(records.texts(), ["12345678", told], "a smaller line after a gap would mislead");
    output.write(LogLevel::Info, b"e\n").unwrap();
    output.record(None).await;
    end(&output).await;
    let mark = "… 3 more lines (5 B) were not kept: `limits.log_bytes` of the plugin is 10 B";
    assert_eq!(records.texts(), ["12345678", told, mark]);
}

#[tokio::test]
async fn whoever_prints_much_waits_until_it_is_recorded() {
    let (records, output) = output(Limits { log_lines: u64::MAX, ..Limits::default() });
    let mut written = 0;
    while !output.is_full() {
        output.write(LogLevel::Info, b"\n").unwrap();
        written += 1;
    }
    assert!(written < MANY_WAITING / size_of::<LogLine>() + 2, "empty lines take memory as well");
    output.make_room().await;
    assert!(!output.is_full());
    assert_eq!((records.calls(), records.texts().len()), (1, written));
    let flood = vec![b'\n'; MANY_WAITING];
    assert!(output.write(LogLevel::Info, &flood).is_ok());
    assert!(output.write(LogLevel::Info, b"\n").is_err(), "who does not wait is stopped");
}

#[tokio::test]
async fn progress_is_recorded_now_and_then_and_the_last_one_always() {
    let (records, output) = output(Limits::default());
    for done in 0..100_000 {
        output.progress(Progress { done, total: None, message: None }).await;
    }
    end(&output).await;
    end(&output).await;
    let progress = records.progress.lock().unwrap().clone();
    assert_eq!((progress.first(), progress.last()), (Some(&0), Some(&99_999)));
    assert!(progress.len() < 1_000, "{}", progress.len());
}

#[tokio::test]
async fn last_words_are_the_end_of_standard_error_even_where_the_log_is_full() {
    let (_, output) = output(Limits { log_lines: 1, ..Limits::default() });
    output.write(LogLevel::Error, b"an old warning\n").unwrap();
    output.log(line("done with that")).await;
    output.write(LogLevel::Info, b"working\n").unwrap();
    output.write(LogLevel::Error, b"panicked\n").unwrap();
    let rest = b"\nboom\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
    output.write(LogLevel::Error, rest).unwrap();
    output.close();
    assert_eq!(output.last_words(), "panicked\nboom");
    for number in 0..30 {
        output.write(LogLevel::Error, format!("{number}\n").as_bytes()).unwrap();
    }
    assert_eq!(output.last_words().lines().collect::<Vec<_>>().len(), LAST_LINES);
    assert!(output.last_words().ends_with("28\n29"));
}

#[tokio::test]
async fn what_is_being_recorded_when_it_ends_is_recorded_before_the_rest() {
    let (records, output) = output(Limits::default());
    let ended = Notify::new();
    let mut recording = std::pin::pin!(output.keep_recording(&ended));
    output.write(LogLevel::Info, b"one\n").unwrap();
    assert!(futures_util::poll!(recording.as_mut()).is_pending(), "more may come");
    assert_eq!(records.calls(), 0);
    ended.notify_one();
    recording.await;
    end(&output).await;
    assert_eq!(records.texts(), ["one"]);
}
