//! Store conformance: one suite, every rule on both engines.
//!
//! Each [`rule!`] is one sentence and becomes two tests, `…::sqlite` and `…::postgres`. The
//! clock stands still until a test turns it.

#[path = "store/backfilling.rs"]
mod backfilling;
#[path = "store/backup.rs"]
mod backup;
#[path = "store/cancelling.rs"]
mod cancelling;
#[path = "store/catching_up.rs"]
mod catching_up;
#[path = "store/claims.rs"]
mod claims;
#[path = "store/clock_steps.rs"]
mod clock_steps;
#[path = "store/completions.rs"]
mod completions;
#[path = "store/definitions.rs"]
mod definitions;
#[path = "store/editing.rs"]
mod editing;
#[path = "store/fencing.rs"]
mod fencing;
#[path = "store/following.rs"]
mod following;
#[path = "store/handlers.rs"]
mod handlers;
#[path = "store/hosts.rs"]
mod hosts;
#[path = "store/limits.rs"]
mod limits;
#[path = "store/pausing.rs"]
mod pausing;
#[path = "store/planning.rs"]
mod planning;
#[path = "store/pruning.rs"]
mod pruning;
#[path = "store/reading.rs"]
mod reading;
#[path = "store/reloading.rs"]
mod reloading;
#[path = "store/repeating.rs"]
mod repeating;
#[path = "store/rescue.rs"]
mod rescue;
#[path = "store/rooms.rs"]
mod rooms;
#[path = "store/schema.rs"]
mod schema;
#[path = "store/silence.rs"]
mod silence;
#[path = "store/upgrades.rs"]
mod upgrades;
#[path = "store/usage.rs"]
mod usage;
#[path = "store/world.rs"]
mod world;

/// One rule of the store: its sentence, and what holds in a world of its own.
#[macro_export]
macro_rules! rule {
    ($name:ident, $check:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every rule needs all that its file imports")]
            use super::*;

            async fn check(engine: innkeeper_tests::database::Engine) {
                let check = $check;
                check(&$crate::world::World::new(engine).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                check(innkeeper_tests::database::Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                check(innkeeper_tests::database::Engine::Postgres).await;
            }
        }
    };
}
