//! The protocol as a state machine: what each host, the database and chance may do next.

use stateright::{Model, Property};

use super::hosts::{Host, Life};
use super::properties;
use super::store::{End, ExecutionId, Lease, Lock, Outcome, Phase, Queued, Session, SessionId, Stage, Store};

/// The place of a host in [`State::hosts`].
pub type HostId = usize;

/// What is checked: a variant of the protocol, in a world of so many executions and faults.
#[derive(Clone, Debug)]
pub struct Rules {
    pub variant: Variant,
    pub executions: u8,
    pub max_attempts: u8,
    /// How often, in all, a handler leaves something behind.
    pub records: u8,
    pub faults: Faults,
}

/// The protocol, and what is left of it when something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As the host has it.
    AsBuilt,
    /// COMPLETION asks neither whether the session lives nor whether the start is open.
    NoFencing,
    /// COMPLETION ends whatever open start of the execution has the same attempt number.
    FencingByAttemptOnly,
    /// The rescuer marks the session dead without having locked its row for it.
    RescueWithoutLock,
    /// START asks whether the session lives, and does not hold its row.
    StartWithoutLock,
    /// COMPLETION does not ask about the session: an end has a unique key of its own.
    CompletionWithoutLock,
    /// COMPLETION holds the session's row, and two ends of one start have no key in common.
    CompletionWithoutKey,
    /// COMPLETION asks whether the session lives and the start is open, and nothing holds
    /// either until it has written.
    CompletionWithoutLockAndKey,
    /// What a handler leaves behind is recorded by whether the start was open a moment ago.
    RecordWithoutLock,
    /// A heartbeat makes a dead session live again.
    HeartbeatRevives,
    /// A host whose START was not answered does not ask what became of it.
    UnansweredStartsForgotten,
}

/// How often each may happen, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// SIGSTOP, a suspended machine.
    pub pauses: u8,
    /// SIGKILL, a power cut.
    pub kills: u8,
    /// SIGTERM.
    pub drains: u8,
    /// A transaction whose host does not learn what became of it.
    pub lost_answers: u8,
    /// A heartbeat that is late by one of two clocks: the session expires while its host runs, or
    /// the host gives up a session that has not expired.
    pub late_heartbeats: u8,
}

/// Everything that the next step may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub store: Store,
    pub hosts: [Host; 2],
    /// What handlers may still leave behind.
    pub records: u8,
    /// Faults that may still happen.
    pub faults: Faults,
}

/// One step. Those of a host are taken while it runs; each is one round trip to the store, or
/// a thing that it learns or decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    LockForStart(HostId),
    Claim(HostId, Queued),
    ClaimNothing(HostId),
    HearOfStart(HostId),
    AskAboutStart(HostId),
    EndHandler(HostId, Lease, Outcome),
    LockForCompletion(HostId, Lease),
    WriteCompletion(HostId),
    HearOfCompletion(HostId),
    LockForRecord(HostId, Lease),
    WriteRecord(HostId),
    LockForRescue(HostId, SessionId),
    WriteRescue(HostId),
    Heartbeat(HostId),
    RegisterAgain(HostId),
    EndSession(HostId),

    /// The database commits a transaction whose statements have run.
    Commit(usize),
    /// The database rolls back what no host waits for.
    RollBack(usize),
    /// The database ends a transaction of a host that is stopped.
    EndIdle(usize),

    Expire(SessionId),
    Resume(HostId),
    Restart(HostId),

    Pause(HostId),
    Kill(HostId),
    Drain(HostId),
    LoseAnswer(usize),
    ExpireWhileRunning(SessionId),
    GiveUpSession(HostId),
}

impl Faults {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self {
            pauses: self.pauses + other.pauses,
            kills: self.kills + other.kills,
            drains: self.drains + other.drains,
            lost_answers: self.lost_answers + other.lost_answers,
            late_heartbeats: self.late_heartbeats + other.late_heartbeats,
        }
    }
}

impl Rules {
    /// What becomes of an execution after this end, as `execution::next` has it for a job that
    /// is tried again after a crash.
    pub fn is_final(&self, end: &End) -> bool {
        match end.outcome {
            Outcome::Succeeded => true,
            Outcome::Failed | Outcome::Crashed => end.attempt >= self.max_attempts,
            Outcome::Released => false,
        }
    }

    /// Whether COMPLETION locks the row of a live session.
    pub fn completion_locks(&self) -> bool {
        !matches!(
            self.variant,
            Variant::NoFencing
                | Variant::FencingByAttemptOnly
                | Variant::CompletionWithoutLock
                | Variant::CompletionWithoutLockAndKey
        )
    }

    /// Whether two ends of one start have a unique key in common, so that the second waits for
    /// the first.
    pub fn ends_have_a_key(&self) -> bool {
        !matches!(
            self.variant,
            Variant::NoFencing | Variant::CompletionWithoutKey | Variant::CompletionWithoutLockAndKey
        )
    }

    /// The lock that START takes on the row of its session.
    pub fn start_lock(&self) -> Lock {
        if self.variant == Variant::StartWithoutLock { Lock::None } else { Lock::Shared }
    }

    /// The lock that a rescuer takes.
    pub fn rescue_lock(&self) -> Lock {
        if self.variant == Variant::RescueWithoutLock { Lock::Update } else { Lock::Exclusive }
    }

    /// True when nothing happens any more unless something else breaks.
    pub fn is_at_rest(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.steps(state, &mut actions);
        actions.is_empty()
    }

    /// What happens by itself, sooner or later.
    pub fn steps(&self, state: &State, actions: &mut Vec<Action>) {
        for host in 0..state.hosts.len() {
            match state.hosts[host].life {
                Life::Running => state.steps_of_host(host, self, actions),
                Life::Paused => actions.push(Action::Resume(host)),
                Life::Killed => actions.push(Action::Restart(host)),
                Life::Drained => {}
            }
        }
        for (index, tx) in state.store.transactions.iter().enumerate() {
            if matches!(tx.stage, Stage::Written(_)) {
                actions.push(Action::Commit(index));
                if !tx.awaited {
                    actions.push(Action::RollBack(index));
                }
            }
            let open = !matches!(tx.stage, Stage::Committed(_));
            if open && tx.awaited && state.hosts[tx.host].life == Life::Paused {
                actions.push(Action::EndIdle(index));
            }
        }
        for (session, row) in state.store.sessions.iter().enumerate() {
            if !row.expired && !row.dead && !state.is_renewed(session) {
                actions.push(Action::Expire(session));
            }
        }
    }

    /// What may break. The two hosts are alike, so that the first fault is host 0's.
    pub fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let left = &state.faults;
        let hosts = if *left == self.faults { 1 } else { state.hosts.len() };
        for (id, host) in state.hosts.iter().enumerate().take(hosts) {
            if left.pauses > 0 && host.life == Life::Running {
                actions.push(Action::Pause(id));
            }
            if left.kills > 0 && matches!(host.life, Life::Running | Life::Paused) {
                actions.push(Action::Kill(id));
            }
            if left.drains > 0 && host.life == Life::Running && !host.draining {
                actions.push(Action::Drain(id));
            }
            let session = &state.store.sessions[host.session];
            if left.late_heartbeats > 0 && host.life == Life::Running && !session.expired && !session.dead {
                actions.push(Action::ExpireWhileRunning(host.session));
                if !host.draining {
                    actions.push(Action::GiveUpSession(id));
                }
            }
        }
        if left.lost_answers == 0 {
            return;
        }
        for (index, tx) in state.store.transactions.iter().enumerate() {
            let sent = tx.stage != Stage::Locked && tx.phase != Phase::Rescue;
            if tx.host < hosts && tx.awaited && sent && state.hosts[tx.host].life == Life::Running {
                actions.push(Action::LoseAnswer(index));
            }
        }
    }
}

impl State {
    /// Whether a host that runs sends heartbeats for the session.
    fn is_renewed(&self, session: SessionId) -> bool {
        self.hosts.iter().any(|host| host.life == Life::Running && host.session == session)
    }

    /// Whether anything may still depend on whether this session lives.
    fn matters(&self, session: SessionId) -> bool {
        let used = |host: &Host| {
            let alive = matches!(host.life, Life::Running | Life::Paused);
            alive && (host.session == session || host.calls.iter().any(|call| call.session == session))
        };
        self.hosts.iter().any(used)
            || self.store.transactions.iter().any(|tx| tx.session == session)
            || self.store.open_starts().any(|start| start.session == session)
    }

    /// Calls a session dead that nobody will ask about: fewer states that differ in nothing else.
    fn bury_what_is_over(&mut self) {
        for session in 0..self.store.sessions.len() {
            if !self.matters(session) {
                self.store.sessions[session] = Session { expired: true, dead: true };
            }
        }
    }

    fn apply(&mut self, action: Action, rules: &Rules) {
        match action {
            Action::Commit(index) => self.store.commit(index, rules),
            Action::RollBack(index) => {
                self.store.transactions.remove(index);
            }
            Action::EndIdle(index) => self.end_idle(index),
            Action::Expire(session) => self.store.sessions[session].expired = true,
            Action::Resume(host) => self.hosts[host].life = Life::Running,
            Action::Restart(host) => self.hosts[host] = Host::new(self.store.register()),
            Action::Pause(host) => {
                self.faults.pauses -= 1;
                self.hosts[host].life = Life::Paused;
            }
            Action::Kill(host) => {
                self.faults.kills -= 1;
                self.kill(host);
            }
            Action::Drain(host) => {
                self.faults.drains -= 1;
                self.hosts[host].draining = true;
            }
            Action::LoseAnswer(index) => {
                self.faults.lost_answers -= 1;
                self.lose_answer(index);
            }
            Action::ExpireWhileRunning(session) => {
                self.faults.late_heartbeats -= 1;
                self.store.sessions[session].expired = true;
            }
            Action::GiveUpSession(host) => {
                self.faults.late_heartbeats -= 1;
                self.register_again(host);
            }
            of_host => self.step_of_host(of_host, rules),
        }
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut store = Store::default();
        let hosts = [Host::new(store.register()), Host::new(store.register())];
        store.queue = (0..self.executions).map(|execution| Queued { execution, attempts: 0 }).collect();
        vec![State { store, hosts, records: self.records, faults: self.faults }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.steps(state, actions);
        self.faults(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.apply(action, self);
        next.bury_what_is_over();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

/// The executions of a world.
pub fn executions(rules: &Rules) -> impl Iterator<Item = ExecutionId> {
    0..rules.executions
}
