//! What the demo shows: each execution as it is recorded, and a table of them at the end.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use jiff::tz::TimeZone;

use crate::daemon::{Execution, Progress};

/// A result or an error is cut off after this many characters.
const WIDEST: usize = 60;

/// How much has been shown so far.
pub struct Screen {
    /// What was last shown of each execution: its state and attempt, or its progress.
    shown: HashMap<String, String>,
    terminal: bool,
    /// A line of progress stands at the bottom and is to be overwritten.
    unfinished_line: bool,
}

impl Screen {
    /// A screen on the standard output.
    pub fn new() -> Self {
        Self { shown: HashMap::new(), terminal: std::io::stdout().is_terminal(), unfinished_line: false }
    }

    /// Shows what has changed since the last time.
    pub fn update(&mut self, executions: &[Execution]) {
        let lines = self.changes(executions);
        let progress = if self.terminal { running(executions) } else { String::new() };
        let mut text = String::new();
        if self.unfinished_line && (!lines.is_empty() || progress.is_empty()) {
            text.push_str("\r\x1b[K");
        }
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        if !progress.is_empty() {
            // Without wrapping at the right margin: only the last row could be overwritten.
            text.push_str(&format!("\r\x1b[K\x1b[?7l{progress}\x1b[?7h"));
        }
        self.unfinished_line = !progress.is_empty();
        // A screen that has gone away is no reason to stop: the records are in the store.
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    }

    /// Clears the line of progress, so that something else can be printed.
    pub fn end_line(&mut self) {
        self.update(&[]);
    }

    /// A line for each execution that is in another state or, without a terminal to overwrite
    /// a line on, at another point of its progress.
    fn changes(&mut self, executions: &[Execution]) -> Vec<String> {
        let mut lines = Vec::new();
        for execution in executions {
            let line = match execution.state.as_str() {
                "scheduled" | "queued" => continue,
                "running" if self.terminal || execution.progress.is_none() => continue,
                _ => line(execution),
            };
            if self.shown.insert(execution.id.clone(), line.clone()).is_none_or(|before| before != line) {
                lines.push(line);
            }
        }
        // What is not listed any more never comes back.
        if !executions.is_empty() {
            self.shown.retain(|id, _| executions.iter().any(|execution| execution.id == *id));
        }
        lines
    }
}

/// Every execution in a table.
pub fn table(executions: &[Execution]) -> String {
    let head = ["JOB", "STATE", "ATTEMPT", "TRIGGERED BY", "SCHEDULED", "TOOK", "RESULT"].map(str::to_owned);
    let rows = executions.iter().map(|execution| {
        [
            execution.job.clone(),
            execution.state.clone(),
            execution.attempt.to_string(),
            execution.triggered_by.clone(),
            execution.scheduled_at.map_or_else(String::new, time_of_day),
            took(execution),
            outcome(execution),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn line(execution: &Execution) -> String {
    let at = execution.finished_at.or(execution.started_at).or(execution.scheduled_at);
    let time = at.map_or_else(|| " ".repeat(8), time_of_day);
    let end = match execution.progress.as_ref().filter(|_| execution.state == "running") {
        Some(progress) => bar(progress),
        None => outcome(execution),
    };
    let attempt = match execution.attempt {
        0 | 1 => String::new(),
        attempt => format!("attempt {attempt}  "),
    };
    let line = format!(
        "{time}  {:<18} {:<10} {:>8}  {attempt}{end}",
        execution.job,
        execution.state,
        took(execution)
    );
    line.trim_end().to_owned()
}

/// The running executions in one line.
fn running(executions: &[Execution]) -> String {
    let running = executions.iter().filter(|execution| execution.state == "running");
    let parts: Vec<String> = running
        .map(|execution| match &execution.progress {
            Some(progress) => format!("{} {}", execution.job, bar(progress)),
            None => format!("{} is running", execution.job),
        })
        .collect();
    if parts.is_empty() { String::new() } else { format!("          {}", parts.join("   ")) }
}

fn bar(progress: &Progress) -> String {
    const WIDTH: u64 = 20;
    let message = progress.message.as_deref().unwrap_or_default();
    let text = match progress.total {
        Some(total) => {
            // What is done may be more than was expected.
            let filled = (progress.done.min(total) * WIDTH).checked_div(total).unwrap_or(WIDTH);
            let bar: String = (0..WIDTH).map(|place| if place < filled { '#' } else { '.' }).collect();
            format!("[{bar}] {} of {total} {message}", progress.done)
        }
        None => format!("{} {message}", progress.done),
    };
    text.trim_end().to_owned()
}

fn outcome(execution: &Execution) -> String {
    let text = match (&execution.error, &execution.result) {
        (Some(error), _) => format!("{}: {}", error.kind, error.message),
        (None, Some(result)) if !result.is_null() => result.to_string(),
        _ => String::new(),
    };
    // One line, whatever a handler has put into its message.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn took(execution: &Execution) -> String {
    match (execution.started_at, execution.finished_at) {
        (Some(start), Some(end)) => format!("{:.2} s", end.duration_since(start).as_secs_f64()),
        _ => String::new(),
    }
}

fn time_of_day(at: jiff::Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::ExecutionError;

    fn execution(id: &str, state: &str) -> Execution {
        Execution {
            id: id.into(),
            job: "session-cleanup".into(),
            state: state.into(),
            attempt: 1,
            triggered_by: "schedule".into(),
            started_at: Some("2026-11-23T04:05:06Z".parse().unwrap()),
            ..Execution::default()
        }
    }

    fn succeeded(id: &str) -> Execution {
        Execution {
            finished_at: Some("2026-11-23T04:05:07.5Z".parse().unwrap()),
            result: Some(serde_json::json!({"deleted": 60})),
            ..execution(id, "succeeded")
        }
    }

    fn progressing(done: u64) -> Execution {
        let progress = Progress { done, total: Some(40), message: Some("rows deleted".into()) };
        Execution { progress: Some(progress), ..execution("1", "running") }
    }

    #[test]
    fn each_execution_is_shown_once_when_it_is_recorded() {
        let mut screen = Screen { shown: HashMap::new(), terminal: true, unfinished_line: false };
        assert!(screen.changes(&[execution("1", "queued"), progressing(1)]).is_empty());
        let lines = screen.changes(&[succeeded("1")]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(r#"session-cleanup    succeeded    1.50 s  {"deleted":60}"#), "{lines:?}");
        assert!(screen.changes(&[succeeded("1")]).is_empty());
        assert_eq!(screen.changes(&[succeeded("1"), succeeded("2")]).len(), 1);
    }

    #[test]
    fn progress_is_a_line_of_its_own_only_where_no_line_can_be_overwritten() {
        let mut screen = Screen { shown: HashMap::new(), terminal: false, unfinished_line: false };
        let lines = screen.changes(&[progressing(10)]);
        assert!(lines[0].ends_with("[#####...............] 10 of 40 rows deleted"), "{lines:?}");
        assert!(screen.changes(&[progressing(10)]).is_empty());
        assert_eq!(screen.changes(&[progressing(11)]).len(), 1);
    }

    #[test]
    fn progress_beyond_the_total_or_of_nothing_is_no_problem() {
        let progress = |done, total| bar(&Progress { done, total, message: None });
        assert_eq!(progress(50, Some(40)), format!("[{}] 50 of 40", "#".repeat(20)));
        assert_eq!(progress(0, Some(0)), format!("[{}] 0 of 0", "#".repeat(20)));
        assert_eq!(progress(7, None), "7");
    }

    #[test]
    fn a_message_stays_on_one_line_and_within_its_width() {
        let error = ExecutionError { kind: "trap".into(), message: format!("a\n{}", "ż".repeat(100)) };
        let text = outcome(&Execution { error: Some(error), ..Execution::default() });
        assert!(text.starts_with("trap: a ż") && text.ends_with('…'), "{text}");
        assert_eq!(text.chars().count(), WIDEST + 1);
        let table = table(&[succeeded("1"), execution("2", "running")]);
        assert_eq!(table.lines().count(), 3);
    }
}
