//! What must hold in every state of the protocol, and what must be possible in it.

use stateright::Property;

use super::model::{Rules, State, executions};
use super::store::{Author, ExecutionId, Outcome};

/// Every state: a broken one of these is a counterexample.
pub const ONE_FINAL_OUTCOME: &str = "an execution has one final outcome at most";
pub const ONE_END: &str = "a start has one end at most";
pub const IN_ONE_PLACE: &str = "an execution is queued, or running once, or final";
pub const OF_A_LIVE_SESSION: &str = "an end that a host records is of a live session";
pub const OF_ITS_OWN_START: &str = "an end that a host records is of the start that it ran";
pub const LATE_IS_NOTHING: &str = "what comes too late changes nothing";
pub const LATE_RECORDS_ARE_NOTHING: &str = "nothing is recorded for an attempt after its rescue";
pub const HEARTBEATS_ARE_TRUE: &str = "a host whose heartbeat is answered has lost no attempt to a rescue";
pub const ATTEMPTS_COUNT: &str = "a crashed attempt counts, a released one does not";
pub const NO_ORPHAN: &str = "a dead session leaves no start open";
pub const NOTHING_IS_LOST: &str = "once nothing else breaks, every execution gets its final outcome";

/// Some state: without them the others could hold because nothing ever happens.
pub const POSSIBLE: [&str; 6] = [
    "every execution may succeed",
    "an execution may fail because its hosts died",
    "a completion may come too late",
    "an attempt may be released and begun again",
    "a host may go on in a session that expired and was not ended",
    "a host may have handlers of a session that was ended",
];

pub fn all() -> Vec<Property<Rules>> {
    let [succeeds, crashes, is_late, is_released, is_renewed, is_dead] = POSSIBLE;
    vec![
        Property::always(ONE_FINAL_OUTCOME, |rules: &Rules, state: &State| {
            executions(rules).all(|execution| final_outcomes(rules, state, execution) <= 1)
        }),
        Property::always(ONE_END, |_, state: &State| {
            let starts = &mut state.store.starts.iter();
            starts.all(|start| state.store.ends.iter().filter(|end| end.lease == start.lease).count() <= 1)
        }),
        Property::always(IN_ONE_PLACE, |rules: &Rules, state: &State| {
            executions(rules).all(|execution| places(rules, state, execution) == 1)
        }),
        Property::always(OF_A_LIVE_SESSION, |_, state: &State| !state.store.wrongs.end_of_dead_session),
        Property::always(OF_ITS_OWN_START, |_, state: &State| {
            state.store.ends.iter().all(|end| match end.by {
                Author::Host { lease, .. } => lease == end.lease,
                Author::Rescuer => true,
            })
        }),
        Property::always(LATE_IS_NOTHING, |_, state: &State| !state.store.wrongs.late_change),
        Property::always(LATE_RECORDS_ARE_NOTHING, |_, state: &State| !state.store.wrongs.late_record),
        Property::always(HEARTBEATS_ARE_TRUE, |_, state: &State| !state.store.wrongs.false_heartbeat),
        Property::always(ATTEMPTS_COUNT, attempts_count),
        Property::always(NO_ORPHAN, |_, state: &State| {
            state.store.open_starts().all(|start| !state.store.sessions[start.session].dead)
        }),
        Property::always(NOTHING_IS_LOST, |rules: &Rules, state: &State| {
            all_have_ended(rules, state) || !rules.is_at_rest(state)
        }),
        Property::sometimes(succeeds, |rules: &Rules, state: &State| {
            let ends = &state.store.ends;
            let succeeded = ends.iter().filter(|end| end.outcome == Outcome::Succeeded).count();
            succeeded == usize::from(rules.executions)
        }),
        Property::sometimes(crashes, |rules: &Rules, state: &State| {
            let mut ends = state.store.ends.iter();
            ends.any(|end| end.outcome == Outcome::Crashed && rules.is_final(end))
        }),
        Property::sometimes(is_late, |_, state: &State| !state.store.stale.is_empty()),
        Property::sometimes(is_released, |_, state: &State| {
            let released = state.store.ends.iter().filter(|end| end.outcome == Outcome::Released);
            released.into_iter().any(|end| {
                let mut starts = state.store.starts.iter();
                starts.any(|start| start.lease > end.lease && start.execution == end.execution)
            })
        }),
        Property::sometimes(is_renewed, |_, state: &State| {
            let mut hosts = state.hosts.iter();
            hosts.any(|host| {
                let session = &state.store.sessions[host.session];
                session.expired && !session.dead && !host.calls.is_empty()
            })
        }),
        Property::sometimes(is_dead, |_, state: &State| {
            let mut calls = state.hosts.iter().flat_map(|host| &host.calls);
            calls.any(|call| state.store.sessions[call.session].dead)
        }),
    ]
}

/// Whether every execution has a final outcome.
pub fn all_have_ended(rules: &Rules, state: &State) -> bool {
    executions(rules).all(|execution| final_outcomes(rules, state, execution) > 0)
}

fn final_outcomes(rules: &Rules, state: &State, execution: ExecutionId) -> usize {
    let ends = state.store.ends.iter().filter(|end| end.execution == execution);
    ends.filter(|end| rules.is_final(end)).count()
}

/// In how many ways the store's rows say where an execution stands.
fn places(rules: &Rules, state: &State, execution: ExecutionId) -> usize {
    let queued = state.store.queue.iter().filter(|queued| queued.execution == execution).count();
    let running = state.store.open_starts().filter(|start| start.execution == execution).count();
    queued + running + final_outcomes(rules, state, execution)
}

fn attempts_count(rules: &Rules, state: &State) -> bool {
    state.store.starts.iter().all(|start| {
        let before = state.store.ends.iter().filter(|end| {
            end.execution == start.execution && end.lease < start.lease && end.outcome != Outcome::Released
        });
        usize::from(start.attempt) == before.count() + 1 && start.attempt <= rules.max_attempts
    })
}
