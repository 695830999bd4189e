//! What a call's ending means: a result, or whose fault it is and why.

use std::fmt::Write as _;
use std::time::Duration;

use super::trap::{Circumstances, broken_off};
use crate::bounds;
use crate::execution::{Failure, FailureKind, Outcome};
use crate::interfaces::activity::Seen;
use crate::interfaces::bindings::innkeeper::plugin::types;
use crate::limits::Limits;

/// How the guest's part of a call ended.
pub(super) enum Ending {
    Returned(Result<String, types::Failure>),
    /// There was no instance to call.
    NotInstantiated(wasmtime::Error),
    Trapped(wasmtime::Error),
    TimedOut(Place),
    Stopped(Place),
}

/// Where a guest was when it was stopped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) seen: Seen,
    /// Processor time until then.
    pub(super) cpu: Duration,
}

/// What becomes of a call that ended so.
pub(super) fn outcome(ending: Ending, found: &Circumstances) -> Outcome {
    let mut failure = match ending {
        Ending::Returned(Ok(result)) => match kept_result(&result, found.limits) {
            Ok(result) => return Outcome::Succeeded(result),
            Err(failure) => failure,
        },
        Ending::Returned(Err(failure)) => handler_failure(failure),
        Ending::Stopped(_) => return Outcome::Released,
        Ending::TimedOut(place) => Failure::new(
            FailureKind::Timeout,
            format!(
                "the handler was stopped after its time-out of {}: it was {}; raise `timeout` of the job or \
                 `limits.timeout` of the plugin if it needs longer",
                humantime::format_duration(found.timeout),
                place.within(found.timeout)
            ),
        ),
        Ending::NotInstantiated(error) => broken_off(&error, false, found),
        Ending::Trapped(error) => broken_off(&error, true, found),
    };
    failure.message = bounds::cut(failure.message, bounds::MESSAGE);
    if failure.kind != FailureKind::Memory
        && let Some(complaint) = &found.complaint
    {
        let _ = write!(failure.message, "\nnote: memory was refused before that: {complaint}");
    }
    Outcome::Failed(failure)
}

fn kept_result(result: &str, limits: Limits) -> Result<serde_json::Value, Failure> {
    let wrong = |why: String| Failure::new(FailureKind::Result, format!("the handler's result {why}"));
    let most = usize::try_from(limits.result_bytes).unwrap_or(usize::MAX);
    if result.len() > most {
        let why = bounds::too_large(result.len(), most);
        let advice = if most < bounds::DOCUMENT {
            "raise `limits.result_bytes` of the plugin, or keep it in a database"
        } else {
            "keep it in a database, and return where it is"
        };
        return Err(wrong(format!("{why}: {advice}")));
    }
    bounds::document(result).map_err(wrong)
}

fn handler_failure(failure: types::Failure) -> Failure {
    match failure {
        types::Failure::Retryable(message) => Failure::new(FailureKind::Handler, message),
        types::Failure::Permanent(message) => Failure::new(FailureKind::Permanent, message),
        types::Failure::RetryAfter((message, milliseconds)) => Failure {
            retry_after: Some(Duration::from_millis(milliseconds.min(MOST_RETRY_AFTER))),
            ..Failure::new(FailureKind::Handler, message)
        },
    }
}

/// A hundred years in milliseconds: later than any retry, and within every engine's times.
const MOST_RETRY_AFTER: u64 = 100 * 366 * 86_400_000;

impl Place {
    /// The end of a sentence that begins with "it was", of an attempt with this much time.
    pub(super) fn within(&self, whole: Duration) -> String {
        let Seen { now, computing, in_databases, in_requests, in_host } = &self.seen;
        let of_whole = |time: Duration| format!("{} of {} s", seconds(time, whole), seconds(whole, whole));
        let (mut place, here) = match now {
            Some((what, time)) => (format!("{what} for {}", of_whole(*time)), *time),
            None if *computing => {
                (format!("computing ({} s of CPU time)", seconds(self.cpu, whole)), self.cpu)
            }
            None => ("waiting (asleep, or for input or output)".to_owned(), Duration::ZERO),
        };
        // Many short calls are as slow as a long one, which is nowhere when somebody looks.
        for (time, what) in [
            (in_databases, "calls of `db`"),
            (in_requests, "HTTP requests"),
            (in_host, "other calls of the host"),
        ] {
            if *time > whole / 2 && *time > here * 2 {
                let time = *time;
                let _ = write!(place, ", and had spent {} in {what}", of_whole(time));
            }
        }
        place
    }

    /// The same where it does not matter how much time there was.
    pub(super) fn then(&self) -> String {
        match &self.seen.now {
            Some((what, time)) => format!("{what} for {} s", seconds(*time, *time)),
            None if self.seen.computing => {
                format!("computing ({} s of CPU time)", seconds(self.cpu, self.cpu))
            }
            None => "waiting (asleep, or for input or output)".to_owned(),
        }
    }
}

/// Seconds with as many digits as tell parts of `whole` apart.
fn seconds(time: Duration, whole: Duration) -> String {
    let digits = match whole.as_secs() {
        0 => 3,
        1..10 => 2,
        10..600 => 1,
        _ => 0,
    };
    format!("{:.digits$}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use wasmtime::Trap;
    use wasmtime_wasi::I32Exit;

    use super::*;
    use crate::interfaces::activity::What;

    fn found(complaint: Option<&str>) -> Circumstances {
        Circumstances {
            timeout: Duration::from_secs(30),
            limits: Limits::default(),
            complaint: complaint.map(str::to_owned),
            shortage: None,
            last_words: String::new(),
        }
    }

    fn failed(ending: Ending, found: &Circumstances) -> Failure {
        match outcome(ending, found) {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn place(seen: Seen, cpu: f64) -> Place {
        Place { seen, cpu: Duration::from_secs_f64(cpu) }
    }

    fn in_a_query(seconds: f64, in_databases: f64) -> Seen {
        Seen {
            now: Some((What::Database("in a query"), Duration::from_secs_f64(seconds))),
            in_databases: Duration::from_secs_f64(in_databases),
            ..Seen::default()
        }
    }

    #[test]
    fn a_time_out_says_where_it_was() {
        let told = |seen, cpu| failed(Ending::TimedOut(place(seen, cpu)), &found(None)).message;
        let first = "the handler was stopped after its time-out of 30s: it was";
        let advice = "raise `timeout` of the job or `limits.timeout` of the plugin if it needs longer";
        let waiting = "waiting (asleep, or for input or output)";
        for (seen, cpu, expected) in [
            (in_a_query(29.8, 29.8), 0.1, "in a query for 29.8 of 30.0 s".to_owned()),
            (
                in_a_query(0.3, 28.94),
                0.1,
                "in a query for 0.3 of 30.0 s, and had spent 28.9 of 30.0 s in calls of `db`".to_owned(),
            ),
            (Seen { computing: true, ..Seen::default() }, 29.93, "computing (29.9 s of CPU time)".to_owned()),
            (Seen::default(), 0.0, waiting.to_owned()),
            (
                Seen { in_requests: Duration::from_secs(25), ..Seen::default() },
                0.0,
                format!("{waiting}, and had spent 25.0 of 30.0 s in HTTP requests"),
            ),
        ] {
            assert_eq!(told(seen, cpu), format!("{first} {expected}; {advice}"));
        }
        let short = place(in_a_query(0.1995, 0.1995), 0.0).within(Duration::from_millis(200));
        assert_eq!(short, "in a query for 0.200 of 0.200 s");
        assert_eq!(place(in_a_query(3.21, 3.21), 0.0).then(), "in a query for 3.21 s");
    }

    #[test]
    fn a_result_that_cannot_be_kept_is_no_success() {
        let large = format!("\"{}\"", "x".repeat(bounds::DOCUMENT));
        for (result, why) in [
            ("{".to_owned(), "is not JSON"),
            (large, "has 1048578 bytes, and at most 1048576 are kept: keep it in a database, and return"),
            ("[".repeat(65) + &"]".repeat(65), "65 deep"),
        ] {
            let failure = failed(Ending::Returned(Ok(result)), &found(None));
            assert_eq!(failure.kind, FailureKind::Result);
            assert!(
                failure.message.starts_with("the handler's result") && failure.message.contains(why),
                "{why}"
            );
        }
        let limits = Limits { result_bytes: 10, ..Limits::default() };
        let failure =
            failed(Ending::Returned(Ok("[1,2,3,4,5]".to_owned())), &Circumstances { limits, ..found(None) });
        assert!(failure.message.contains("at most 10 are kept: raise `limits.result_bytes`"), "{failure:?}");
    }

    #[test]
    fn a_failures_message_is_cut() {
        let long = types::Failure::Retryable("x".repeat(10 * bounds::MESSAGE));
        let failure = failed(Ending::Returned(Err(long)), &found(None));
        assert!(failure.message.len() < bounds::MESSAGE + 100, "{}", failure.message.len());
        assert!(failure.message.ends_with("more bytes were cut off]"));
    }

    #[test]
    fn a_stopped_call_is_released() {
        let stopped = Ending::Stopped(place(Seen::default(), 0.0));
        assert_eq!(outcome(stopped, &found(Some("out of memory"))), Outcome::Released);
    }

    #[test]
    fn refused_memory_is_the_cause_of_a_failed_allocation_and_a_note_on_any_other_end() {
        let refused = found(Some("out of memory: …"));
        let minimum = || wasmtime::Error::msg("memory minimum size of 9 pages exceeds memory limits");
        let unreachable = || Ending::Trapped(Trap::UnreachableCodeReached.into());
        for ending in [unreachable(), Ending::NotInstantiated(minimum())] {
            let failure = failed(ending, &refused);
            assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Memory, "out of memory: …"));
        }
        let said = |last_words: &str| Circumstances {
            last_words: last_words.to_owned(),
            ..found(Some("out of memory: …"))
        };
        let allocation = failed(unreachable(), &said("memory allocation of 1048576 bytes failed"));
        assert_eq!(allocation.kind, FailureKind::Memory);
        let by_itself = || Ending::Returned(Err(types::Failure::Permanent("no such customer".to_owned())));
        let panicked = said("thread panicked at src/lib.rs:3:5:\nindex out of bounds");
        let timed_out = || Ending::TimedOut(place(Seen::default(), 0.0));
        for (ending, found, kind) in [
            (Ending::Trapped(Trap::StackOverflow.into()), &refused, FailureKind::Trap),
            (timed_out(), &refused, FailureKind::Timeout),
            (by_itself(), &refused, FailureKind::Permanent),
            (unreachable(), &panicked, FailureKind::Trap),
        ] {
            let failure = failed(ending, found);
            assert_eq!(failure.kind, kind);
            assert!(
                failure.message.ends_with("memory was refused before that: out of memory: …"),
                "{failure:?}"
            );
        }
        assert_eq!(failed(by_itself(), &found(None)).message, "no such customer");
    }

    #[test]
    fn what_the_guest_does_wrong_is_not_blamed_on_the_host() {
        let odd = || wasmtime::Error::msg("incomplete utf-8 byte sequence from index 0");
        let failure = failed(Ending::Trapped(odd()), &found(None));
        assert_eq!(failure.kind, FailureKind::Trap);
        assert!(failure.message.contains("utf-8"), "{failure:?}");
        assert_eq!(failed(Ending::Trapped(I32Exit(3).into()), &found(None)).kind, FailureKind::Trap);
        let start = Ending::NotInstantiated(Trap::IntegerDivisionByZero.into());
        assert_eq!(failed(start, &found(None)).kind, FailureKind::Trap);
        assert_eq!(failed(Ending::NotInstantiated(odd()), &found(None)).kind, FailureKind::Host);
    }

    #[test]
    fn what_this_machine_cannot_give_is_not_blamed_on_the_guest() {
        let short = |last_words: &str| Circumstances {
            shortage: Some("Cannot allocate memory (os error 12)".to_owned()),
            last_words: last_words.to_owned(),
            ..found(None)
        };
        let unreachable = || Ending::Trapped(Trap::UnreachableCodeReached.into());
        let failure = failed(unreachable(), &short("memory allocation of 1048576 bytes failed"));
        assert_eq!(failure.kind, FailureKind::Host);
        assert!(failure.message.contains("(os error 12)\nmemory allocation"), "{failure:?}");
        assert_eq!(failed(unreachable(), &short("no customer 17")).kind, FailureKind::Trap);
    }

    #[test]
    fn a_wait_that_a_handler_asks_for_is_bounded() {
        let failure = handler_failure(types::Failure::RetryAfter(("later".to_owned(), u64::MAX)));
        assert_eq!(failure.retry_after, Some(Duration::from_millis(MOST_RETRY_AFTER)));
    }
}
