//! How long whoever waits puts up with a store that does not answer, or a host that is away.

use std::time::{Duration, Instant};

/// How often the store is asked.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// A restart of either is no reason to give up.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// What a person is told of a new trouble.
pub(super) fn patience(why: &str) -> String {
    format!("{why}; waiting {} for that to change", humantime::format_duration(GRACE))
}

/// Since when something is wrong.
#[derive(Default)]
pub(super) struct Grace {
    since: Option<Instant>,
}

/// What a sign of trouble means to whoever waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    New,
    Going,
    TooLong,
}

impl Grace {
    /// Notes a sign of it.
    pub(super) fn note(&mut self, now: Instant) -> Trouble {
        match self.since {
            None => {
                self.since = Some(now);
                Trouble::New
            }
            Some(since) if now.saturating_duration_since(since) < GRACE => Trouble::Going,
            Some(_) => Trouble::TooLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_borne_for_a_while_and_the_while_begins_with_its_first_sign() {
        let start = Instant::now();
        let mut grace = Grace::default();
        assert_eq!(grace.note(start), Trouble::New);
        assert_eq!(grace.note(start + GRACE - POLL), Trouble::Going);
        assert_eq!(grace.note(start + GRACE), Trouble::TooLong);
    }
}
