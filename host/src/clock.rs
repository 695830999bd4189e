//! The only place that asks the time.

use std::time::Duration;

use jiff::Timestamp;

/// The wall clock, cut to microseconds, as the store keeps times.
#[must_use]
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let now = Timestamp::now();
    truncate(now)
}

/// Cuts a time to microseconds.
#[must_use]
pub fn truncate(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Time that has passed since some fixed moment, suspension of the machine included
/// (`CLOCK_BOOTTIME`; `std::time::Instant` stands still while a machine sleeps).
///
/// What a host believes of its own session's expiry is measured with this.
#[must_use]
pub fn since_boot() -> Duration {
    read(libc::CLOCK_BOOTTIME)
}

/// Processor time of the calling thread. A system call each time, which takes longer than many a
/// call of a guest.
#[must_use]
pub fn of_this_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "std has neither of the two clocks; the pointer is to a live local")]
    // SAFETY: clock_gettime writes one timespec to the pointer, which is valid for it.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(status, 0, "Linux has both clocks since 2.6.39");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}
