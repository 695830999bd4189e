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

use std::collections::{BTreeSet, HashMap, VecDeque};

use model::{Faults, Rules, Variant};
use properties::POSSIBLE;
use stateright::{Checker, Model};

/// No fault, and one of each kind.
const NONE: Faults = Faults { pauses: 0, kills: 0, drains: 0, lost_answers: 0, late_heartbeats: 0 };
const PAUSE: Faults = Faults { pauses: 1, ..NONE };
const KILL: Faults = Faults { kills: 1, ..NONE };
const DRAIN: Faults = Faults { drains: 1, ..NONE };
const LOST_ANSWER: Faults = Faults { lost_answers: 1, ..NONE };
const LATE_HEARTBEAT: Faults = Faults { late_heartbeats: 1, ..NONE };
const KINDS: [Faults; 5] = [PAUSE, KILL, DRAIN, LOST_ANSWER, LATE_HEARTBEAT];

/// One execution that may be tried twice, on two hosts.
fn world(faults: Faults) -> Rules {
    Rules { variant: Variant::AsBuilt, executions: 1, max_attempts: 2, records: 0, faults }
}

#[test]
fn the_protocol_holds_whatever_two_faults_meet() {
    let mut seen = BTreeSet::new();
    for (number, one) in KINDS.iter().enumerate() {
        for other in &KINDS[number + 1..] {
            seen.extend(holds(world(one.and(*other))));
        }
    }
    // Otherwise it holds because nothing ever happens.
    assert_eq!(seen, POSSIBLE.into(), "what the worlds have seen, and all that is possible");
}

#[test]
fn the_protocol_holds_with_two_executions() {
    for faults in KINDS {
        holds(Rules { executions: 2, max_attempts: 1, ..world(faults) });
    }
}

#[test]
fn what_handlers_leave_behind_is_fenced_too() {
    for faults in KINDS {
        holds(Rules { records: 1, ..world(faults) });
    }
}

#[test]
#[ignore = "takes minutes: three faults in every combination"]
fn the_protocol_holds_whatever_three_faults_meet() {
    for (number, one) in KINDS.iter().enumerate() {
        for (next, other) in KINDS.iter().enumerate().skip(number + 1) {
            for third in &KINDS[next + 1..] {
                holds(world(one.and(*other).and(*third)));
            }
        }
        // Two drains leave no host.
        if *one != DRAIN {
            holds(world(one.and(*one)));
        }
    }
}

#[test]
fn from_every_state_an_execution_can_still_end() {
    for faults in KINDS {
        assert_eq!(states_without_a_way_out(&world(faults)), 0, "{faults:?}");
    }
    let forgetful = Rules { variant: Variant::UnansweredStartsForgotten, ..world(LOST_ANSWER) };
    assert_ne!(states_without_a_way_out(&forgetful), 0, "otherwise this finds nothing");
}

#[test]
fn without_fencing_a_late_completion_ends_an_attempt_again() {
    breaks(
        Variant::NoFencing,
        world(PAUSE),
        &[properties::ONE_END, properties::ONE_FINAL_OUTCOME, properties::LATE_IS_NOTHING],
    );
}

#[test]
fn fenced_by_attempt_only_a_repeated_release_ends_the_start_of_another_host() {
    breaks(Variant::FencingByAttemptOnly, world(DRAIN.and(LOST_ANSWER)), &[properties::OF_ITS_OWN_START]);
}

#[test]
fn a_rescue_without_the_lock_on_the_host_session_misses_a_start() {
    breaks(Variant::RescueWithoutLock, world(PAUSE), &[properties::NO_ORPHAN]);
}

#[test]
fn a_start_without_the_lock_on_the_host_session_is_missed_by_the_rescue() {
    breaks(Variant::StartWithoutLock, world(PAUSE), &[properties::NO_ORPHAN, properties::NOTHING_IS_LOST]);
}

#[test]
fn a_completion_with_neither_the_lock_nor_a_key_is_recorded_beside_the_rescue() {
    breaks(Variant::CompletionWithoutLockAndKey, world(PAUSE), &[properties::ONE_END]);
}

#[test]
fn a_completion_with_the_lock_and_no_key_is_recorded_twice_when_its_answer_is_lost() {
    breaks(Variant::CompletionWithoutKey, world(LOST_ANSWER), &[properties::ONE_END]);
}

/// Not a fault but a second guard: the key alone would do for COMPLETION, in any of these worlds.
#[test]
fn a_completion_without_the_lock_is_kept_out_by_the_key_of_its_start() {
    for faults in [PAUSE, LOST_ANSWER, PAUSE.and(LOST_ANSWER)] {
        holds(Rules { variant: Variant::CompletionWithoutLock, ..world(faults) });
    }
}

#[test]
fn a_record_without_the_lock_on_the_host_session_is_made_after_the_rescue() {
    breaks(
        Variant::RecordWithoutLock,
        Rules { records: 1, ..world(PAUSE) },
        &[properties::LATE_RECORDS_ARE_NOTHING],
    );
}

#[test]
fn a_heartbeat_that_revives_a_dead_session_keeps_its_host_from_knowing() {
    breaks(Variant::HeartbeatRevives, world(PAUSE), &[properties::HEARTBEATS_ARE_TRUE]);
}

#[test]
fn a_host_that_forgets_an_unanswered_start_loses_the_execution() {
    breaks(Variant::UnansweredStartsForgotten, world(LOST_ANSWER), &[properties::NOTHING_IS_LOST]);
}

/// Explores a world, which must break no property. Returns what was seen of [`POSSIBLE`].
fn holds(rules: Rules) -> BTreeSet<&'static str> {
    let checker = rules.clone().checker().threads(2).spawn_bfs().join();
    println!("{rules:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let (seen, broken): (BTreeSet<_>, BTreeSet<_>) =
        checker.discoveries().into_keys().partition(|property| POSSIBLE.contains(property));
    if let Some(property) = broken.first() {
        panic!("{}\nand in all {broken:#?}", counterexample(&rules, property));
    }
    seen
}

/// Explores a world without one of the guards, which must break these properties.
fn breaks(variant: Variant, rules: Rules, properties: &[&'static str]) {
    let rules = Rules { variant, ..rules };
    let checker = rules.clone().checker().threads(2).spawn_bfs().join();
    println!("{rules:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    for property in properties {
        assert!(checker.discovery(property).is_some(), "{rules:?} does not break \"{property}\"");
        println!("{}", counterexample(&rules, property));
    }
}

/// The shortest way to where a property is broken: the checker itself returns some way.
fn counterexample(rules: &Rules, property: &'static str) -> String {
    let within = |depth: usize| {
        let checker = rules.clone().checker().target_max_depth(depth).spawn_bfs().join();
        checker.discovery(property)
    };
    let (mut short, mut enough, mut found) = (0_usize, 1_usize, None);
    while enough - short > 1 || found.is_none() {
        let depth = if found.is_none() { enough * 2 } else { short.midpoint(enough) };
        match within(depth) {
            Some(path) => (enough, found) = (depth, Some(path)),
            None if found.is_none() => (short, enough) = (depth, depth),
            None => short = depth,
        }
    }
    let steps = found.map(|path| path.into_actions()).unwrap_or_default();
    let steps: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
    format!("broken: {property}\n  {}", steps.join("\n  "))
}

/// How many reachable states there are from which, if nothing else breaks, no way leads to the
/// end of every execution. An execution that is at rest is not enough: hosts might go round in
/// circles.
fn states_without_a_way_out(rules: &Rules) -> usize {
    let mut numbers = HashMap::new();
    let mut before: Vec<Vec<usize>> = Vec::new();
    let mut to_visit = VecDeque::from(rules.init_states());
    let mut ended = Vec::new();
    let mut number_of = |state: &model::State, before: &mut Vec<Vec<usize>>| {
        let next = before.len();
        let number = *numbers.entry(state.clone()).or_insert(next);
        if number == next {
            before.push(Vec::new());
        }
        (number, number == next)
    };
    for state in &to_visit {
        number_of(state, &mut before);
    }
    while let Some(state) = to_visit.pop_front() {
        let (number, _) = number_of(&state, &mut before);
        if properties::all_have_ended(rules, &state) {
            ended.push(number);
        }
        let (mut steps, mut faults) = (Vec::new(), Vec::new());
        rules.steps(&state, &mut steps);
        rules.faults(&state, &mut faults);
        let is_step = std::iter::repeat_n(true, steps.len()).chain(std::iter::repeat(false));
        for (action, is_step) in steps.into_iter().chain(faults).zip(is_step) {
            let next = rules.next_state(&state, action).expect("every action has a next state");
            let (successor, is_new) = number_of(&next, &mut before);
            if is_step {
                before[successor].push(number);
            }
            if is_new {
                to_visit.push_back(next);
            }
        }
    }
    let mut reached = vec![false; before.len()];
    while let Some(number) = ended.pop() {
        if !std::mem::replace(&mut reached[number], true) {
            ended.append(&mut before[number]);
        }
    }
    reached.into_iter().filter(|reached| !reached).count()
}
