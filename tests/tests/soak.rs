//! The soak test, as far as it fits into every run. `docs/reliability.md` says what is tested.

use innkeeper_tests::database::Engine;
use innkeeper_tests::on_both_engines;
use innkeeper_tests::soak;

/// Bytes for each execution, which is far above what is read of a host that keeps nothing (about 100:
/// the allocator's last steps), and below an attempt with its job and its arguments.
const BOUND: f64 = 512.0;

/// Each of the 16 slots may have come to a connection that it did not need before. Every kind of
/// execution is there 300 times, so that one file left by each is far more.
const CONNECTIONS: usize = 20;

on_both_engines! {
    async fn the_host_keeps_nothing_of_an_execution_that_has_ended(engine: Engine) {
        let kept = soak::kept_in(engine, 6, 10, 30, BOUND).await;
        let of_each = kept.of_each;
        assert!(of_each < BOUND, "the host has grown by {of_each:.0} bytes with each execution: {kept:?}");
        let (before, after) = kept.files;
        assert!(after <= before + CONNECTIONS, "{before} files were open, and {after} after more of the same");
    }
}
