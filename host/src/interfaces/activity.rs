//! What an execution is doing at this moment, as far as the host can see.
//!
//! Each interface notes the call that it has under way. When an execution is stopped, that is
//! where it was: the one thing that whoever reads its record wants to know.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::job::Name;

/// What one execution is doing. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// It has its own code to run, and waits for nothing but the processor.
    computing: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// What was entered and not left, in that order.
    under_way: Vec<Under>,
    /// It could go on since then, if it had a processor.
    ready_since: Option<Instant>,
    in_databases: Duration,
    in_requests: Duration,
    in_host: Duration,
}

#[derive(Debug)]
struct Under {
    number: u64,
    what: What,
    since: Instant,
}

/// Something that an execution waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A call of `db`, in words that follow "it was": "in a query".
    Database(&'static str),
    /// A free connection to this database.
    Connection(Name),
    /// Another call of the host, as its interface names it: `context.log`.
    Host(&'static str),
    /// An HTTP request to this server.
    Http(String),
    /// Its turn on a processor: what it had called has ended, perhaps long ago.
    Turn,
}

/// Something is under way until this is dropped.
#[derive(Debug)]
pub struct Entered {
    activity: Activity,
    number: u64,
}

/// What an execution was doing when somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it had begun last of what is under way, and for how long.
    pub now: Option<(What, Duration)>,
    /// Nothing is under way, and it runs code of its own.
    pub computing: bool,
    /// Time in calls of `db`, this one included.
    pub in_databases: Duration,
    /// Time in HTTP requests, this one included. Several at once count each.
    pub in_requests: Duration,
    /// Time in other calls of the host, this one included.
    pub in_host: Duration,
}

impl Activity {
    /// Notes that something is under way from now on.
    #[must_use]
    pub fn enter(&self, what: What) -> Entered {
        self.enter_at(what, Instant::now())
    }

    fn enter_at(&self, what: What, since: Instant) -> Entered {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.under_way.push(Under { number, what, since });
        Entered { activity: self.clone(), number }
    }

    /// Notes whether it was interrupted in code of its own when it ran last.
    pub fn set_computing(&self, computing: bool) {
        self.0.computing.store(computing, Ordering::Relaxed);
    }

    /// Notes that it is about to go on, if it may: from now on it waits for its turn.
    pub fn wait_for_turn(&self) {
        self.wait_for_turn_at(Instant::now());
    }

    fn wait_for_turn_at(&self, at: Instant) {
        self.lock().ready_since.get_or_insert(at);
    }

    /// Notes that it goes on. The time until its turn was none of the calls that are under way.
    pub fn begin_turn(&self) {
        self.begin_turn_at(Instant::now());
    }

    fn begin_turn_at(&self, at: Instant) {
        let mut state = self.lock();
        let Some(since) = state.ready_since.take() else { return };
        let waited = at.saturating_duration_since(since);
        for under in &mut state.under_way {
            under.since += waited;
        }
    }

    /// What is under way. A guest is in one call at a time, but requests go on behind it, and a
    /// call may wait for something else first: what was entered last is the answer.
    #[must_use]
    pub fn look(&self) -> Seen {
        self.look_at(Instant::now())
    }

    fn look_at(&self, at: Instant) -> Seen {
        let state = self.lock();
        let ends = state.ready_since.map_or(at, |since| since.min(at));
        let mut seen = Seen {
            now: None,
            computing: self.0.computing.load(Ordering::Relaxed),
            in_databases: state.in_databases,
            in_requests: state.in_requests,
            in_host: state.in_host,
        };
        for under in &state.under_way {
            let time = ends.saturating_duration_since(under.since);
            match under.what {
                What::Database(_) => seen.in_databases += time,
                What::Http(_) => seen.in_requests += time,
                What::Host(_) => seen.in_host += time,
                What::Connection(_) | What::Turn => {}
            }
            seen.now = Some((under.what.clone(), time));
        }
        // One that was interrupted in code of its own computes, in its turns.
        if let (Some(since), false) = (state.ready_since, seen.computing) {
            seen.now = Some((What::Turn, at.saturating_duration_since(since)));
        }
        seen
    }

    fn leave_at(&self, number: u64, at: Instant) {
        let mut state = self.lock();
        let Some(index) = state.under_way.iter().rposition(|under| under.number == number) else { return };
        let Under { what, since, .. } = state.under_way.remove(index);
        let time = at.saturating_duration_since(since);
        match what {
            What::Database(_) => state.in_databases += time,
            What::Http(_) => state.in_requests += time,
            What::Host(_) => state.in_host += time,
            // Within a call of `db`.
            What::Connection(_) | What::Turn => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.activity.leave_at(self.number, Instant::now());
    }
}

impl fmt::Display for What {
    /// The end of a sentence that begins with "it was".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(words) => f.write_str(words),
            Self::Connection(database) => {
                write!(f, "waiting for a connection to database `{database}`")
            }
            Self::Host(call) => write!(f, "in `{call}`"),
            Self::Turn => f.write_str("waiting for a processor"),
            Self::Http(server) => write!(f, "in an HTTP request to {server}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doing(activity: &Activity) -> Option<String> {
        activity.look().now.map(|(what, _)| what.to_string())
    }

    #[test]
    fn what_was_entered_last_and_not_left_is_what_it_is_doing() {
        let activity = Activity::default();
        assert_eq!(doing(&activity), None);
        let request = activity.enter(What::Http("api.example.org".to_owned()));
        let query = activity.enter(What::Database("in a query"));
        let waiting = activity.enter(What::Connection(Name::new("app").unwrap()));
        assert_eq!(doing(&activity).unwrap(), "waiting for a connection to database `app`");
        drop(waiting);
        assert_eq!(doing(&activity).unwrap(), "in a query");
        // Requests end in any order.
        let log = activity.enter(What::Host("context.log"));
        drop(query);
        assert_eq!(doing(&activity).unwrap(), "in `context.log`");
        drop(log);
        assert_eq!(doing(&activity).unwrap(), "in an HTTP request to api.example.org");
        drop(request);
        assert_eq!(doing(&activity), None);
    }

    #[test]
    fn the_wait_for_a_processor_is_none_of_the_call_before_it() {
        let activity = Activity::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let query = activity.enter_at(What::Database("in a query"), at(0));
        activity.wait_for_turn_at(at(2));
        activity.wait_for_turn_at(at(3));
        let seen = activity.look_at(at(9));
        assert_eq!(seen.now, Some((What::Turn, Duration::from_secs(7))));
        assert_eq!(seen.in_databases, Duration::from_secs(2));
        activity.begin_turn_at(at(9));
        activity.leave_at(query.number, at(10));
        let seen = activity.look_at(at(20));
        assert_eq!((seen.now, seen.in_databases), (None, Duration::from_secs(3)));
        activity.set_computing(true);
        activity.wait_for_turn_at(at(20));
        assert_eq!(activity.look_at(at(21)).now, None, "it computes, in its turns");
    }

    #[test]
    fn time_counts_while_a_call_is_under_way_and_after_it() {
        let activity = Activity::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let query = activity.enter_at(What::Database("in a query"), at(0));
        let seen = activity.look_at(at(2));
        assert_eq!(seen.now, Some((What::Database("in a query"), Duration::from_secs(2))));
        assert_eq!(seen.in_databases, Duration::from_secs(2));
        activity.leave_at(query.number, at(2));
        let _second = activity.enter_at(What::Database("in a query"), at(4));
        let seen = activity.look_at(at(5));
        assert_eq!(seen.now, Some((What::Database("in a query"), Duration::from_secs(1))));
        assert_eq!((seen.in_databases, seen.in_requests), (Duration::from_secs(3), Duration::ZERO));
    }
}
