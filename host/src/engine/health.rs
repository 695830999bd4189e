//! What is known of this host's health, without asking anything: the loops tell what fails, and
//! whoever wants to know reads it here.
//!
//! The store is never asked on behalf of a reader. The loops ask it all the time, so they know
//! first; and a store in trouble gets no further question from everybody who wonders about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::clock;
use crate::store::StoreError;

/// Characters of an error of the store that are told.
const LONGEST_REASON: usize = 500;

/// Reasons of one outage that are logged. A failover has three or four, one after the other.
const MOST_REASONS: usize = 8;

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// This host: it is starting or draining.
    Host,
    /// Its host session.
    Session,
    /// The store.
    Store,
    /// One of the loops of the engine.
    Loop,
}

impl Subject {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Session => "session",
            Self::Store => "store",
            Self::Loop => "loop",
        }
    }
}

/// Something that keeps the host from its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub what: Subject,
    /// Since when, by this machine's clock.
    pub since: Timestamp,
    /// For a person. Holds no secret: store errors name places without passwords.
    pub message: String,
}

/// The health of one host. Made before the host starts, so that it can be asked meanwhile.
#[derive(Debug)]
pub struct Health {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    phase: Phase,
    phase_since: Timestamp,
    session: Option<Problem>,
    /// Since when which work fails on the store, such as `heartbeat`.
    failing: BTreeMap<&'static str, Timestamp>,
    /// Why the last of it failed: as a rule there is one cause for all.
    reason: String,
    /// What was logged of this outage.
    logged: BTreeSet<String>,
    dead: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Draining,
}

impl Default for Health {
    fn default() -> Self {
        let known = Known {
            phase: Phase::Starting,
            phase_since: clock::now(),
            session: None,
            failing: BTreeMap::new(),
            reason: String::new(),
            logged: BTreeSet::new(),
            dead: Vec::new(),
        };
        Self { known: Mutex::new(known) }
    }
}

impl Health {
    /// Why the host can take no work, and since when; empty where it can.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let known = self.known();
        let host = known.phase.problem().map(|message| Problem {
            what: Subject::Host,
            since: known.phase_since,
            message: message.to_owned(),
        });
        let work = known.failing.keys().copied().collect::<Vec<_>>().join(", ");
        let store = known.failing.values().min().map(|since| Problem {
            what: Subject::Store,
            since: *since,
            message: format!("the store fails ({work}): {}", known.reason),
        });
        let session = known.session.clone();
        host.into_iter().chain(store).chain(session).chain(known.dead.iter().cloned()).collect()
    }

    /// The loops that a bug has ended. Only a restart brings them back.
    #[must_use]
    pub fn dead_loops(&self) -> Vec<Problem> {
        self.known().dead.clone()
    }

    /// The host takes work from here on.
    pub(super) fn serving(&self) {
        self.enter(Phase::Serving);
    }

    /// The host starts nothing new from here on.
    pub(super) fn draining(&self) {
        self.enter(Phase::Draining);
    }

    fn enter(&self, phase: Phase) {
        let mut known = self.known();
        known.phase = phase;
        known.phase_since = clock::now();
    }

    /// The host session is over.
    pub(super) fn session_lost(&self, message: &str) {
        self.known().session.get_or_insert_with(|| Problem::now(Subject::Session, message));
    }

    /// The host has a live session again.
    pub(super) fn session_lives(&self) {
        self.known().session = None;
    }

    /// The store failed at this work. What is told of it is the first time and the last reason.
    /// True where the reason is new in this outage, and is to be logged: every loop fails when
    /// the store does, and goes on failing.
    pub(super) fn store_fails(&self, work: &'static str, error: &StoreError) -> bool {
        let mut known = self.known();
        known.failing.entry(work).or_insert_with(clock::now);
        known.reason = brief(&error.to_string());
        // What was being done and where stands before it, and differs from loop to loop.
        let cause = known.reason.rsplit(": ").next().unwrap_or_default().to_owned();
        known.logged.len() < MOST_REASONS && known.logged.insert(cause)
    }

    /// The store did this work, or nobody asks it to any more. Returns since when the store had
    /// failed, if this was the last that did not work.
    pub(super) fn store_works(&self, work: &'static str) -> Option<Timestamp> {
        let mut known = self.known();
        let since = known.failing.values().min().copied();
        known.failing.remove(work)?;
        if !known.failing.is_empty() {
            return None;
        }
        known.logged.clear();
        since
    }

    /// Runs a loop that must not end by a panic, and notes if it does.
    pub(super) async fn watch(self: Arc<Self>, name: &'static str, running: impl Future<Output = ()>) {
        let _noted = Watched { health: self, name };
        running.await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A loop that runs. It is dropped where the loop ends, whatever way.
struct Watched {
    health: Arc<Health>,
    name: &'static str,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = format!("the {} has panicked, which is a bug: restart the host", self.name);
            tracing::error!(
                name = self.name,
                "a loop of the engine has panicked, which is a bug: restart the host"
            );
            self.health.known().dead.push(Problem::now(Subject::Loop, &message));
        }
    }
}

impl Phase {
    fn problem(self) -> Option<&'static str> {
        match self {
            Self::Starting => Some("the host is starting: it loads its plugins and opens its store"),
            Self::Serving => None,
            Self::Draining => Some("the host is draining: it starts nothing new, and waits for what runs"),
        }
    }
}

impl Problem {
    fn now(what: Subject, message: &str) -> Self {
        Self { what, since: clock::now(), message: message.to_owned() }
    }
}

/// One line that is not too long, of whatever a database says.
fn brief(message: &str) -> String {
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST_REASON) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(message: &str) -> StoreError {
        StoreError::Unavailable(message.to_owned())
    }

    fn messages(health: &Health) -> Vec<String> {
        health.problems().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_host_is_ready_from_serving_to_draining() {
        let health = Health::default();
        assert_eq!(health.problems()[0].what, Subject::Host, "it is starting");
        health.serving();
        assert_eq!(health.problems(), []);
        health.draining();
        assert!(messages(&health)[0].starts_with("the host is draining"));
    }

    #[test]
    fn a_store_that_fails_is_one_problem_since_the_first_failure_for_the_last_reason() {
        let health = Health::default();
        health.serving();
        health.store_fails("plan", &unavailable("terminated"));
        let since = health.problems()[0].since;
        health.store_fails("heartbeat", &unavailable("not\naccepting connections"));
        assert_eq!(messages(&health), ["the store fails (heartbeat, plan): not accepting connections"]);
        assert_eq!(health.problems()[0].since, since);
        health.store_works("plan");
        assert_eq!(health.problems().len(), 1, "the heartbeat still fails");
        health.store_works("heartbeat");
        assert_eq!(health.problems(), []);
    }

    #[test]
    fn of_an_outage_each_cause_is_logged_once_whoever_meets_it() {
        let health = Health::default();
        assert!(health.store_fails("plan", &unavailable("no planning: terminated")));
        assert!(!health.store_fails("start", &unavailable("no START: terminated")));
        assert!(health.store_fails("start", &unavailable("no START: refused")));
        assert!(!health.store_fails("plan", &unavailable("no planning: refused")));
        assert_eq!(health.store_works("plan"), None, "the starts still fail");
        assert_eq!(health.store_works("plan"), None);
        let since = health.problems()[1].since;
        assert_eq!(health.store_works("start"), Some(since));
        assert!(health.store_fails("plan", &unavailable("no planning: terminated")), "another outage");
        let logged = (0..1000).filter(|n| health.store_fails("plan", &unavailable(&n.to_string()))).count();
        assert!(logged < MOST_REASONS, "{logged}");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let health = Health::default();
        health.store_fails("plan", &unavailable(&"ä".repeat(10_000)));
        assert!(messages(&health)[1].chars().count() < LONGEST_REASON + 100);
    }

    #[test]
    fn a_session_is_lost_once_until_there_is_another_one() {
        let health = Health::default();
        health.serving();
        health.session_lost("first");
        health.session_lost("second");
        assert_eq!(messages(&health), ["first"]);
        health.session_lives();
        assert_eq!(health.problems(), []);
    }

    #[tokio::test]
    async fn a_loop_that_panics_is_dead_and_one_that_ends_is_not() {
        let health = Arc::new(Health::default());
        health.serving();
        tokio::spawn(health.clone().watch("rescuer", async {})).await.unwrap();
        assert_eq!(health.dead_loops(), []);
        tokio::spawn(health.clone().watch("planner", async { panic!("on purpose") })).await.unwrap_err();
        assert_eq!(health.dead_loops(), health.problems());
        assert!(messages(&health)[0].contains("the planner has panicked"));
    }
}
