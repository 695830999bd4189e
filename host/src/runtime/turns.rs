//! Who computes next, where more want to than there are cores.
//!
//! A guest yields every 10 ms, and whoever stands behind sixteen that compute waits for all of them:
//! too long for one that needs a millisecond. So each plugin has an allowance of time on the
//! processor, a quarter of the machine. While some of it is left, its executions go on at once, on
//! threads that are kept for that, and one of those that have used theirs up yields if all cores
//! are busy. Those take turns: as many at once as there are cores left, those first whose plugin has had
//! least of late. A machine that nobody else wants is all theirs.
//!
//! Executions that take microseconds never wait here, however many there are: to stand in line would
//! cost more than they do.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long a guest computes at most before it yields: an epoch.
const SLICE: Duration = super::EPOCH;

/// What a plugin may have left of its allowance: ten guests may begin to compute at the same moment.
const MOST_LEFT: Duration = Duration::from_millis(100);

/// A guest that yields within this time is no burden.
const SHORT: Duration = Duration::from_millis(1);

/// What a plugin may owe: what it has had of a machine that nobody else wanted is soon forgotten.
const MOST_OWED: Duration = Duration::from_millis(100);

thread_local! {
    /// Until when the guest that this thread runs goes on, whoever else wants to compute.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether the guest on this thread goes on at the end of an epoch: within its plugin's allowance, for
/// a slice. All guests are interrupted where one has to yield, and whoever has just begun would stand
/// behind those that it has interrupted.
pub(super) fn goes_on() -> bool {
    UNTIL.get().is_some_and(|until| Instant::now() < until)
}

/// What a plugin has left of its allowance.
#[derive(Clone)]
pub(super) struct Allowance(Arc<Mutex<Left>>);

struct Left {
    /// Nanoseconds; less than none where it owes some.
    nanos: i64,
    at: Instant,
    /// A moving average of how long its guests compute at a time, in nanoseconds.
    typical: u64,
}

/// The cores, and who computes.
#[derive(Clone)]
pub(super) struct Turns(Arc<Inner>);

struct Inner {
    cores: usize,
    /// Makes all guests yield that compute.
    interrupt: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Computing within the allowance of their plugin.
    within: usize,
    /// Computing beyond it, each in its turn.
    beyond: usize,
    /// Whose turn it is, and who have not begun yet.
    called: HashSet<u64>,
    /// Who wait, those first that came first.
    line: Vec<Waiting>,
    last_ticket: u64,
}

struct Waiting {
    ticket: u64,
    allowance: Allowance,
    waker: Waker,
}

/// One execution's place.
struct Place<'a> {
    turns: &'a Inner,
    allowance: &'a Allowance,
    /// While it waits for a turn, or has been called.
    ticket: Option<u64>,
    /// How long it has computed in all.
    computed: Duration,
}

impl Allowance {
    pub(super) fn full() -> Self {
        let nanos = nanos(MOST_LEFT);
        Self(Arc::new(Mutex::new(Left { nanos, at: Instant::now(), typical: 0 })))
    }

    /// In nanoseconds.
    fn left(&self, cores: usize) -> i64 {
        let mut left = self.lock();
        left.refill(cores);
        left.nanos
    }

    /// Takes a slice ahead, if some is left; for how long it is likely to be. What was not needed is
    /// given back by `settle`.
    fn take(&self, cores: usize, computed: Duration) -> Option<Duration> {
        let mut left = self.lock();
        left.refill(cores);
        let likely = Duration::from_nanos(left.typical).max(computed);
        if left.nanos <= 0 && likely >= SHORT {
            return None;
        }
        left.nanos = left.nanos.saturating_sub(nanos(SLICE));
        Some(likely)
    }

    /// Counts what a guest has computed at a time, of which a slice was taken ahead or not.
    fn settle(&self, took: Duration, ahead: bool) {
        let mut left = self.lock();
        let ahead = if ahead { nanos(SLICE) } else { 0 };
        left.nanos = (left.nanos + ahead).saturating_sub(nanos(took)).max(-nanos(MOST_OWED));
        left.typical = left.typical.saturating_mul(15).saturating_add(nanos(took).unsigned_abs()) / 16;
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    /// A quarter of the time of all cores since the last time.
    fn refill(&mut self, cores: usize) {
        let now = Instant::now();
        let quarter = nanos(now - self.at).saturating_mul(i64::try_from(cores).unwrap_or(1)) / 4;
        self.nanos = self.nanos.saturating_add(quarter).min(nanos(MOST_LEFT));
        self.at = now;
    }
}

impl Turns {
    /// For so many cores. `interrupt` makes all guests yield that compute.
    pub(super) fn new(cores: usize, interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        let (cores, interrupt) = (cores.max(1), Box::new(interrupt));
        Self(Arc::new(Inner { cores, interrupt, state: Mutex::default() }))
    }

    /// Runs a guest, whose turn comes and goes. Dropped, it gives its turn to the next.
    pub(super) async fn run<F: Future>(&self, allowance: &Allowance, guest: F) -> F::Output {
        let mut guest = std::pin::pin!(guest);
        let mut place = Place { turns: &self.0, allowance, ticket: None, computed: Duration::ZERO };
        poll_fn(|context| place.poll(context, guest.as_mut())).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls those whose turn it is.
    fn call(&self, mut state: MutexGuard<'_, State>) {
        let mut called = Vec::new();
        while state.has_room(self.cores) {
            // Of equals, the first is the first that came.
            let lefts = state.line.iter().map(|waiting| waiting.allowance.left(self.cores));
            let Some((at, _)) = lefts.enumerate().rev().max_by_key(|(_, left)| *left) else { break };
            let Waiting { ticket, waker, .. } = state.line.remove(at);
            state.called.insert(ticket);
            called.push(waker);
        }
        // Not under the lock: whoever is woken may want it.
        drop(state);
        called.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// One more may compute beyond its plugin's allowance. One always may, so that those within theirs
    /// cannot keep all others out.
    fn has_room(&self, cores: usize) -> bool {
        let beyond = self.beyond + self.called.len();
        beyond == 0 || beyond + self.within < cores
    }
}

impl Place<'_> {
    fn poll<F: Future>(&mut self, context: &mut Context<'_>, guest: Pin<&mut F>) -> Poll<F::Output> {
        let likely =
            if self.ticket.is_some() { None } else { self.allowance.take(self.turns.cores, self.computed) };
        match likely {
            Some(likely) => self.begin_within(likely),
            None if self.begin_turn(context.waker()) => {}
            None => return Poll::Pending,
        }
        let within = likely.is_some();
        let computing =
            Computing { turns: self.turns, allowance: self.allowance, within, begun: Instant::now() };
        UNTIL.set(within.then_some(computing.begun + SLICE));
        let polled = guest.poll(context);
        self.computed += computing.took();
        polled
    }

    fn begin_within(&self, likely: Duration) {
        let mut state = self.turns.lock();
        state.within += 1;
        let is_crowded = state.beyond > 0 && state.beyond + state.within > self.turns.cores;
        drop(state);
        // A short one is through before that would have helped.
        if is_crowded && likely >= SHORT {
            (self.turns.interrupt)();
        }
    }

    /// False where it has to wait; `waker` is told when it is called.
    fn begin_turn(&mut self, waker: &Waker) -> bool {
        let mut state = self.turns.lock();
        let may_begin = match self.ticket {
            Some(ticket) => state.called.remove(&ticket),
            None => state.line.is_empty() && state.has_room(self.turns.cores),
        };
        if may_begin {
            state.beyond += 1;
            self.ticket = None;
            return true;
        }
        let allowance = self.allowance.clone();
        match self.ticket.and_then(|own| state.line.iter_mut().find(|waiting| waiting.ticket == own)) {
            Some(waiting) => waiting.waker.clone_from(waker),
            None => {
                state.last_ticket += 1;
                let ticket = state.last_ticket;
                self.ticket = Some(ticket);
                state.line.push(Waiting { ticket, allowance, waker: waker.clone() });
                drop(state);
                // Who owes little is not to wait for the whole slice of one that owes much.
                if self.allowance.left(self.turns.cores) > -nanos(MOST_OWED) / 2 {
                    (self.turns.interrupt)();
                }
            }
        }
        false
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.turns.lock();
        if state.called.remove(&ticket) {
            self.turns.call(state);
        } else {
            state.line.retain(|waiting| waiting.ticket != ticket);
        }
    }
}

/// From the moment that a guest is let go on until it yields, or its future panics.
struct Computing<'a> {
    turns: &'a Inner,
    allowance: &'a Allowance,
    within: bool,
    begun: Instant,
}

impl Computing<'_> {
    fn took(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        UNTIL.set(None);
        self.allowance.settle(self.begun.elapsed(), self.within);
        let mut state = self.turns.lock();
        if self.within {
            state.within -= 1;
        } else {
            state.beyond -= 1;
        }
        self.turns.call(state);
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Of a plugin whose guests compute for long, and have.
    fn used_up() -> Allowance {
        let typical = SLICE.as_nanos().try_into().unwrap();
        // It owes so much that it is not forgiven during a test.
        Allowance(Arc::new(Mutex::new(Left { nanos: i64::MIN / 2, at: Instant::now(), typical })))
    }

    fn turns(cores: usize) -> (Turns, Arc<AtomicUsize>) {
        let interrupts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&interrupts);
        (Turns::new(cores, move || _ = counted.fetch_add(1, Ordering::Relaxed)), interrupts)
    }

    fn lines(turns: &Turns) -> (usize, usize, usize, usize) {
        let state = turns.0.lock();
        (state.within, state.beyond, state.called.len(), state.line.len())
    }

    /// Yields so many times.
    async fn guest(name: char, times: usize, seen: &Mutex<String>) {
        for _ in 0..times {
            seen.lock().unwrap().push(name);
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_beyond_their_allowance_take_turns_and_nobody_waits_for_ever() {
        let (turns, interrupts) = turns(1);
        let (greedy, seen) = (used_up(), Mutex::default());
        tokio::join!(
            turns.run(&greedy, guest('a', 3, &seen)),
            turns.run(&greedy, guest('b', 3, &seen)),
            turns.run(&greedy, guest('c', 3, &seen)),
        );
        assert_eq!(seen.into_inner().unwrap().len(), 9);
        assert_eq!((lines(&turns), interrupts.load(Ordering::Relaxed)), ((0, 0, 0, 0), 0));
    }

    #[tokio::test]
    async fn one_within_its_allowance_goes_on_at_the_end_of_an_epoch_and_one_beyond_does_not() {
        let (turns, _) = turns(1);
        assert!(turns.run(&Allowance::full(), async { goes_on() }).await);
        assert!(!turns.run(&used_up(), async { goes_on() }).await);
        assert!(!goes_on(), "nothing runs here any more");
    }

    #[tokio::test]
    async fn one_within_its_allowance_does_not_stand_in_line_and_interrupts_one_beyond() {
        let (turns, interrupts) = turns(1);
        let (greedy, modest) = (used_up(), Allowance::full());
        modest.lock().typical = SLICE.as_nanos().try_into().unwrap();
        let seen = Mutex::default();
        // While the one beyond its allowance computes, another beyond waits, and one within goes on.
        turns
            .run(&greedy, async {
                let mut waits = Box::pin(turns.run(&greedy, guest('w', 1, &seen)));
                poll_fn(|context| {
                    assert!(waits.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
                assert_eq!(lines(&turns), (0, 1, 0, 1));
                turns.run(&modest, async { assert_eq!(lines(&turns), (1, 1, 0, 1)) }).await;
                assert_eq!(interrupts.load(Ordering::Relaxed), 1);
            })
            .await;
        assert_eq!(lines(&turns), (0, 0, 0, 0), "who is dropped leaves the line");
        assert_eq!(*seen.lock().unwrap(), "");
    }

    #[tokio::test]
    async fn a_turn_of_one_that_is_dropped_before_it_begins_goes_to_the_next() {
        let (turns, _) = turns(1);
        let greedy = used_up();
        let seen = Mutex::default();
        let mut first = Box::pin(turns.run(&greedy, guest('1', 1, &seen)));
        let mut second = Box::pin(turns.run(&greedy, guest('2', 1, &seen)));
        turns
            .run(
                &greedy,
                poll_fn(|context| {
                    assert!(
                        first.as_mut().poll(context).is_pending()
                            && second.as_mut().poll(context).is_pending()
                    );
                    Poll::Ready(())
                }),
            )
            .await;
        assert_eq!(lines(&turns), (0, 0, 1, 1));
        drop(first);
        assert_eq!(lines(&turns), (0, 0, 1, 0));
        second.await;
        assert_eq!((lines(&turns), seen.into_inner().unwrap().as_str()), ((0, 0, 0, 0), "2"));
    }

    #[test]
    fn an_allowance_is_for_those_that_compute_and_short_ones_need_none() {
        let allowance = used_up();
        assert!(allowance.take(4, Duration::ZERO).is_none());
        // A hundred short ones, and it is known as a plugin of short ones.
        (0..100).for_each(|_| allowance.settle(Duration::from_micros(20), false));
        assert!(allowance.take(4, Duration::ZERO).is_some());
        assert!(
            allowance.take(4, Duration::from_secs(1)).is_none(),
            "but for one that has computed for long"
        );
        let full = Allowance::full();
        let at_once = (0..100).filter(|_| full.take(1, SHORT).is_some()).count();
        assert!((10..=11).contains(&at_once), "{at_once} slices were taken at one moment");
    }
}
