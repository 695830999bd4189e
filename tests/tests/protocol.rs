//! The protocol of host sessions, leases, rescue and completion, as a model that stateright
//! explores to its last state: every interleaving of two hosts, their tasks and the database's
//! transactions, with hosts that are stopped, killed and drained and answers that are lost.
//!
//! The variants leave out one guard each, and must fail: they show that the properties are
//! worth something, and what each guard is for.

#[path = "protocol/hosts.rs"]
mod hosts;
#[path = "protocol/model.rs"]
mod model;
#[path = "protocol/properties.rs"]
mod properties;
#[path = "protocol/store.rs"]
mod store;

use std::collections::BTreeSet;

use model::{Faults, Rules, Variant};
use stateright::{Checker, Model};

fn world(variant: Variant, faults: Faults) -> Rules {
    Rules { variant, executions: 1, max_attempts: 2, faults }
}

fn broken(rules: Rules) -> BTreeSet<&'static str> {
    let checker = rules.checker().threads(2).spawn_bfs().join();
    eprintln!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let mut broken = BTreeSet::new();
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        let failed = property.expectation.discovery_is_failure() == found.is_some();
        if failed {
            if let Some(path) = found { eprintln!("{}: {:#?}", property.name, path.into_actions()); }
            broken.insert(property.name);
        }
    }
    broken
}

#[test]
fn measure() {
    let n = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u8>().ok()).unwrap_or(0);
    let faults = Faults { pauses: n("P"), kills: n("K"), drains: n("D"), lost_answers: n("L"), late_heartbeats: n("H") };
    let variant = match n("V") { 0 => Variant::AsBuilt, 1 => Variant::NoFencing, 2 => Variant::FencingByAttemptOnly, 3 => Variant::RescueWithoutLock, _ => Variant::UnansweredStartsForgotten };
    let rules = Rules { executions: n("E").max(1), max_attempts: n("A").max(1), ..world(variant, faults) };
    let t = std::time::Instant::now();
    let broken = broken(rules.clone());
    eprintln!("{rules:?}\n{:?}\n{broken:#?}", t.elapsed());
}
