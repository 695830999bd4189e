//! A clock that a test turns itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use innkeeper::store::StoreClock;
use jiff::Timestamp;

/// The time in a test: it stands still until the test moves it. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// A clock at this time, RFC 3339.
    #[must_use]
    pub fn at(time: &str) -> Self {
        Self(Arc::new(AtomicI64::new(instant(time).as_microsecond())))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).expect("a test's time is in range")
    }

    /// Turns it forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).expect("a short time"), Ordering::SeqCst);
    }

    /// Turns it to this time, RFC 3339.
    pub fn set(&self, time: &str) {
        self.0.store(instant(time).as_microsecond(), Ordering::SeqCst);
    }

    /// The clock for a store.
    #[must_use]
    pub fn for_store(&self) -> StoreClock {
        StoreClock::Fixed(self.0.clone())
    }
}

/// An instant, from RFC 3339.
#[must_use]
pub fn instant(time: &str) -> Timestamp {
    time.parse().expect("RFC 3339")
}
