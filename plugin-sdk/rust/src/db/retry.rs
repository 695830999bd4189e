//! Running a transaction again when it lost to another one.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::thread;
use std::time::Duration;

use super::Error;
use crate::log::{self, Level};

/// How often a transaction is run in all.
const MOST_RUNS: u32 = 5;

/// The shortest pause, after the first run. It doubles with each.
const PAUSE: Duration = Duration::from_millis(10);

/// One run's transaction. Dropping it rolls it back.
pub(super) trait Attempt {
    /// The conflict that a call of it met, if any did.
    fn conflict(&self) -> Option<Error>;

    fn commit(self) -> Result<(), Error>;
}

/// Why a run failed, and the conflict if it was one.
struct Failed<E> {
    error: E,
    conflict: Option<Error>,
}

impl<E: From<Error>> From<Error> for Failed<E> {
    fn from(error: Error) -> Self {
        let conflict = error.is_conflict().then(|| error.clone());
        Self { error: error.into(), conflict }
    }
}

/// Runs `work` until it has not met a conflict, or often enough. `pause` is told how many runs
/// there were and what conflict the last one met.
pub(super) fn run<A: Attempt, T, E: From<Error>>(
    mut begin: impl FnMut() -> Result<A, Error>,
    mut work: impl FnMut(&A) -> Result<T, E>,
    mut pause: impl FnMut(u32, &Error),
) -> Result<T, E> {
    let mut runs = 1;
    loop {
        match run_once(&mut begin, &mut work) {
            Ok(value) => return Ok(value),
            Err(Failed { conflict: Some(conflict), .. }) if runs < MOST_RUNS => pause(runs, &conflict),
            Err(Failed { error, .. }) => return Err(error),
        }
        runs += 1;
    }
}

/// A transaction that remembers a conflict is run again whatever `work` says of it: the error may
/// have been turned into words on its way.
fn run_once<A: Attempt, T, E: From<Error>>(
    begin: &mut impl FnMut() -> Result<A, Error>,
    work: &mut impl FnMut(&A) -> Result<T, E>,
) -> Result<T, Failed<E>> {
    let attempt = begin()?;
    match work(&attempt) {
        Ok(value) => {
            attempt.commit()?;
            Ok(value)
        }
        Err(error) => Err(Failed { error, conflict: attempt.conflict() }),
    }
}

/// Waits a little longer each time, and by chance, so that those that met do not meet again.
pub(super) fn pause(runs: u32, conflict: &Error) {
    let next = runs + 1;
    let line =
        format!("the transaction runs again, {next} of {MOST_RUNS} times, after a conflict: {conflict}");
    log::write(Level::Debug, &line, &[]);
    thread::sleep(pause_after(runs, RandomState::new().build_hasher().finish()));
}

/// Between one and two times the shortest pause, doubled with each run.
fn pause_after(runs: u32, random: u64) -> Duration {
    let least = PAUSE * 2_u32.pow(runs.saturating_sub(1).min(10));
    let thousandths = u32::try_from(random % 1000).unwrap_or(0);
    least + least * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::Failure;
    use crate::db::ErrorKind;

    /// A transaction that only says what was done with it.
    struct Fake<'a> {
        log: &'a RefCell<Vec<&'static str>>,
        conflict: bool,
        commit: Option<ErrorKind>,
    }

    impl Attempt for Fake<'_> {
        fn conflict(&self) -> Option<Error> {
            self.conflict.then(|| Error::new(ErrorKind::Conflict, "deadlock detected"))
        }

        fn commit(self) -> Result<(), Error> {
            self.log.borrow_mut().push("commit");
            self.commit.map_or(Ok(()), |kind| Err(Error::new(kind, "the commit failed")))
        }
    }

    impl Drop for Fake<'_> {
        fn drop(&mut self) {
            self.log.borrow_mut().push("end");
        }
    }

    /// Runs `work` with transactions that a run meets in order: whether a statement of it
    /// meets a conflict, and how its commit fails.
    fn with<T, E: From<Error>>(
        attempts: &[(bool, Option<ErrorKind>)],
        work: impl FnMut(&Fake<'_>) -> Result<T, E>,
    ) -> (Result<T, E>, Vec<&'static str>) {
        let log = RefCell::default();
        let mut attempts = attempts.iter();
        let begin = || {
            let (conflict, commit) = attempts.next().expect("no further run is expected");
            Ok(Fake { log: &log, conflict: *conflict, commit: *commit })
        };
        let result = run(begin, work, |_, _| log.borrow_mut().push("pause"));
        (result, log.into_inner())
    }

    /// What most closures do: the first error is passed on.
    fn statement(attempt: &Fake<'_>) -> Result<u32, Error> {
        attempt.conflict().map_or(Ok(7), Err)
    }

    #[test]
    fn what_meets_no_conflict_runs_once() {
        let (result, log) = with(&[(false, None)], statement);
        assert_eq!(result, Ok(7));
        assert_eq!(log, ["commit", "end"]);
        let (result, log) = with(&[(false, None)], |_| Err::<(), _>(Failure::permanent("no money")));
        assert_eq!(result, Err(Failure::permanent("no money")));
        assert_eq!(log, ["end"], "and is not committed when it fails");
    }

    #[test]
    fn a_conflict_of_a_statement_or_of_the_commit_is_run_again_after_a_pause() {
        let attempts = [(true, None), (false, Some(ErrorKind::Conflict)), (false, None)];
        let (result, log) = with(&attempts, statement);
        assert_eq!(result, Ok(7));
        let expected = ["end", "pause", "commit", "end", "pause", "commit", "end"];
        assert_eq!(log, expected, "each transaction has ended before the pause");
    }

    #[test]
    fn a_conflict_counts_whatever_the_closure_makes_of_it() {
        let in_words = |attempt: &Fake<'_>| match attempt.conflict() {
            Some(_) => Err(Failure::permanent("could not book the seat")),
            None => Ok("booked"),
        };
        let (result, _) = with(&[(true, None), (false, None)], in_words);
        assert_eq!(result, Ok("booked"));
    }

    #[test]
    fn a_conflict_at_the_begin_is_run_again() {
        let log = RefCell::default();
        let mut begun = 0;
        let begin = || {
            begun += 1;
            if begun < 3 {
                return Err(Error::new(ErrorKind::Conflict, "the writer's turn did not come in time"));
            }
            Ok(Fake { log: &log, conflict: false, commit: None })
        };
        assert_eq!(run(begin, statement, |_, _| ()), Ok(7));
        assert_eq!(begun, 3);
    }

    #[test]
    fn after_five_runs_the_conflict_is_returned() {
        let (result, log) = with(&[(true, None); 5], statement);
        assert!(result.unwrap_err().is_conflict());
        assert_eq!(log.iter().filter(|entry| **entry == "pause").count(), 4);
        let (result, _) = with(&[(false, Some(ErrorKind::Conflict)); 5], statement);
        assert!(result.unwrap_err().is_conflict());
    }

    #[test]
    fn a_commit_that_may_have_taken_effect_is_not_run_again() {
        let (result, log) = with(&[(false, Some(ErrorKind::Connection))], statement);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Connection);
        assert_eq!(log, ["commit", "end"]);
        // Nor one that a conflict came before, from which the closure recovered.
        let recovered = |_: &Fake<'_>| Ok::<_, Error>(());
        let (result, _) = with(&[(true, Some(ErrorKind::Connection))], recovered);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Connection);
    }

    #[test]
    fn pauses_grow_and_differ() {
        assert_eq!(pause_after(1, 0), Duration::from_millis(10));
        assert_eq!(pause_after(1, 500), Duration::from_millis(15));
        assert_eq!(pause_after(4, 0), Duration::from_millis(80));
        assert!(pause_after(u32::MAX, u64::MAX) < Duration::from_secs(60));
    }
}
