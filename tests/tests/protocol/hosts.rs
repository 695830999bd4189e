//! The hosts of the model: what each knows, and the steps that it takes.

use super::model::{Action, HostId, Rules, State, Variant};
use super::store::{
    Author, ExecutionId, Lease, Lock, Outcome, Phase, Session, SessionId, Stage, Start, Transaction, Write,
};

/// Whether a host takes steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Running,
    Paused,
    Killed,
    /// It has ended by itself and does not come back.
    Drained,
}

/// An attempt that a host has begun, until it knows that its end is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub lease: Lease,
    pub execution: ExecutionId,
    pub attempt: u8,
    /// The session in which it was started.
    pub session: SessionId,
    /// None while the handler runs.
    pub outcome: Option<Outcome>,
}

/// What a host knows: lost when it is killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub life: Life,
    pub session: SessionId,
    pub draining: bool,
    /// A START of this session was not answered.
    pub in_doubt: bool,
    pub calls: Vec<Call>,
}

impl Host {
    pub fn new(session: SessionId) -> Self {
        Self { life: Life::Running, session, draining: false, in_doubt: false, calls: Vec::new() }
    }

    fn call(&mut self, lease: Lease) -> &mut Call {
        self.calls.iter_mut().find(|call| call.lease == lease).expect("the host has begun this attempt")
    }
}

impl State {
    /// What a host that runs may do next. Its dispatcher, completer and rescuer are tasks that do
    /// not wait for each other; each has one transaction at a time.
    pub fn steps_of_host(&self, id: HostId, rules: &Rules, actions: &mut Vec<Action>) {
        self.steps_of_dispatcher(id, rules, actions);
        self.steps_of_handlers(id, rules, actions);
        self.steps_of_completer(id, rules, actions);
        self.steps_of_rescuer(id, rules, actions);
        self.steps_of_session(id, rules, actions);
    }

    fn steps_of_dispatcher(&self, id: HostId, rules: &Rules, actions: &mut Vec<Action>) {
        let host = &self.hosts[id];
        let session = &self.store.sessions[host.session];
        match self.awaited(id, |phase| phase == Phase::Start).map(|index| self.transaction(index)) {
            Some(Transaction { stage: Stage::Locked, .. }) => {
                let before = actions.len();
                actions.extend(self.store.claimable().map(|queued| Action::Claim(id, queued)));
                if actions.len() == before {
                    actions.push(Action::ClaimNothing(id));
                }
            }
            Some(Transaction { stage: Stage::Written(_), .. }) => {}
            Some(Transaction { stage: Stage::Committed(_), .. }) => actions.push(Action::HearOfStart(id)),
            None if host.in_doubt && rules.variant != Variant::UnansweredStartsForgotten => {
                if !session.dead && !host.draining && self.store.grants(host.session, Lock::Exclusive) {
                    actions.push(Action::AskAboutStart(id));
                }
            }
            None => {
                let lock = self.store.grants(host.session, rules.start_lock());
                if !host.draining && !session.dead && lock && self.store.claimable().next().is_some() {
                    actions.push(Action::LockForStart(id));
                }
            }
        }
    }

    /// A handler waits for what it leaves behind, and ends as it likes.
    fn steps_of_handlers(&self, id: HostId, rules: &Rules, actions: &mut Vec<Action>) {
        let host = &self.hosts[id];
        let recording = self.awaited(id, is_record).map(|index| self.transaction(index));
        if recording.is_some_and(|tx| tx.stage == Stage::Locked) {
            actions.push(Action::WriteRecord(id));
        }
        for call in host.calls.iter().filter(|call| call.outcome.is_none()) {
            if recording.is_some_and(|tx| tx.phase == Phase::Record(call.lease)) {
                continue;
            }
            let lock = self.record_lock(call.session, rules);
            if self.records > 0 && recording.is_none() && self.store.grants(call.session, lock) {
                actions.push(Action::LockForRecord(id, call.lease));
            }
            actions.push(Action::EndHandler(id, call.lease, Outcome::Succeeded));
            actions.push(Action::EndHandler(id, call.lease, Outcome::Failed));
            if host.draining {
                actions.push(Action::EndHandler(id, call.lease, Outcome::Released));
            }
        }
    }

    fn steps_of_completer(&self, id: HostId, rules: &Rules, actions: &mut Vec<Action>) {
        let host = &self.hosts[id];
        match self.awaited(id, is_completion).map(|index| self.transaction(index)) {
            Some(tx) => match tx.stage {
                Stage::Locked => {
                    let ended = self.ended_by(tx, rules).filter(|_| rules.ends_have_a_key());
                    if !ended.is_some_and(|start| self.store.end_is_being_written(start.lease)) {
                        actions.push(Action::WriteCompletion(id));
                    }
                }
                Stage::Written(_) => {}
                Stage::Committed(_) => actions.push(Action::HearOfCompletion(id)),
            },
            None => {
                for call in host.calls.iter().filter(|call| call.outcome.is_some()) {
                    if self.store.grants(call.session, self.completion_lock(call.session, rules)) {
                        actions.push(Action::LockForCompletion(id, call.lease));
                    }
                }
            }
        }
    }

    fn steps_of_rescuer(&self, id: HostId, rules: &Rules, actions: &mut Vec<Action>) {
        let host = &self.hosts[id];
        if let Some(index) = self.awaited(id, |phase| phase == Phase::Rescue) {
            let tx = self.transaction(index);
            // An end that another transaction is inserting is waited for.
            let ends = self.store.crashed(tx.session);
            let waits = ends.iter().any(|end| self.store.end_is_being_written(end.lease));
            let waits = waits && rules.ends_have_a_key();
            if tx.stage == Stage::Locked && !waits {
                actions.push(Action::WriteRescue(id));
            }
            return;
        }
        if host.draining {
            return;
        }
        for (session, row) in self.store.sessions.iter().enumerate() {
            let own = host.calls.iter().any(|call| call.session == session);
            if row.expired && !row.dead && !own && self.store.grants(session, rules.rescue_lock()) {
                actions.push(Action::LockForRescue(id, session));
            }
        }
    }

    fn steps_of_session(&self, id: HostId, rules: &Rules, actions: &mut Vec<Action>) {
        let host = &self.hosts[id];
        let session = &self.store.sessions[host.session];
        let answered = !session.dead || rules.variant == Variant::HeartbeatRevives;
        if session.expired && answered && self.store.grants(host.session, Lock::Update) {
            actions.push(Action::Heartbeat(id));
        }
        if session.expired && !host.draining {
            actions.push(Action::RegisterAgain(id));
        }
        let idle = host.calls.is_empty() && self.awaited(id, |_| true).is_none();
        if host.draining && idle && self.store.grants(host.session, Lock::Exclusive) {
            actions.push(Action::EndSession(id));
        }
    }

    /// Takes a step of a host.
    pub fn step_of_host(&mut self, action: Action, rules: &Rules) {
        match action {
            Action::LockForStart(id) => {
                self.begin(id, self.hosts[id].session, Phase::Start, rules.start_lock());
            }
            Action::Claim(id, queued) => {
                let index = self.awaited(id, |phase| phase == Phase::Start).expect("as offered");
                self.store.leases_given += 1;
                let start = Start {
                    lease: self.store.leases_given,
                    execution: queued.execution,
                    attempt: queued.attempts + 1,
                    session: self.transaction(index).session,
                };
                self.store.set_stage(index, Stage::Written(Write::Start(start)));
            }
            Action::ClaimNothing(id) => {
                self.take(id, |phase| phase == Phase::Start);
            }
            Action::HearOfStart(id) => self.hear_of_start(id),
            Action::AskAboutStart(id) => self.release_unknown(id, rules),
            Action::EndHandler(id, lease, outcome) => {
                self.hosts[id].call(lease).outcome = Some(outcome);
            }
            Action::LockForCompletion(id, lease) => {
                let session = self.hosts[id].call(lease).session;
                let lock = self.completion_lock(session, rules);
                self.begin(id, session, Phase::Completion(lease), lock);
            }
            Action::WriteCompletion(id) => {
                let index = self.awaited(id, is_completion).expect("as offered");
                let write = self.completion(self.transaction(index), rules);
                self.store.set_stage(index, Stage::Written(write));
            }
            Action::HearOfCompletion(id) => {
                let Transaction { phase: Phase::Completion(lease), .. } = self.take(id, is_completion) else {
                    unreachable!("it was asked for a completion")
                };
                self.hosts[id].calls.retain(|call| call.lease != lease);
            }
            Action::LockForRescue(id, session) => {
                self.begin(id, session, Phase::Rescue, rules.rescue_lock());
            }
            Action::WriteRescue(id) => {
                let index = self.awaited(id, |phase| phase == Phase::Rescue).expect("as offered");
                let ends = self.store.crashed(self.transaction(index).session);
                self.store.set_stage(index, Stage::Written(Write::Ends(ends)));
            }
            Action::LockForRecord(id, lease) => {
                self.records -= 1;
                let session = self.hosts[id].call(lease).session;
                self.begin(id, session, Phase::Record(lease), self.record_lock(session, rules));
            }
            Action::WriteRecord(id) => {
                let index = self.awaited(id, is_record).expect("as offered");
                let write = self.record(self.transaction(index), rules);
                self.store.set_stage(index, Stage::Written(write));
            }
            Action::Heartbeat(id) => self.heartbeat(id),
            Action::RegisterAgain(id) => self.register_again(id),
            Action::EndSession(id) => self.end_session(id, rules),
            other => unreachable!("{other:?} is no step of a host"),
        }
    }

    fn hear_of_start(&mut self, id: HostId) {
        let tx = self.take(id, |phase| phase == Phase::Start);
        let Stage::Committed(Write::Start(start)) = tx.stage else { unreachable!("START writes a start") };
        let host = &mut self.hosts[id];
        let outcome = host.draining.then_some(Outcome::Released);
        let Start { lease, execution, attempt, session } = start;
        host.calls.push(Call { lease, execution, attempt, session, outcome });
        host.calls.sort();
    }

    /// Gives back what a START recorded whose answer was lost. Its lock keeps out everything
    /// that could come between its statements, so that it is one step.
    fn release_unknown(&mut self, id: HostId, rules: &Rules) {
        let host = &mut self.hosts[id];
        host.in_doubt = false;
        let known = |start: &Start| host.calls.iter().any(|call| call.lease == start.lease);
        let open = self.store.open_starts().filter(|start| start.session == host.session && !known(start));
        let open: Vec<Start> = open.copied().collect();
        for start in open {
            let by = Author::Host { session: start.session, lease: start.lease };
            self.store.record(start.end(Outcome::Released, by), rules);
        }
    }

    /// After a drain. One step for the same reason.
    fn end_session(&mut self, id: HostId, rules: &Rules) {
        let session = self.hosts[id].session;
        if !self.store.sessions[session].dead {
            self.store.sessions[session].dead = true;
            for end in self.store.crashed(session) {
                self.store.record(end, rules);
            }
        }
        self.hosts[id].life = Life::Drained;
        self.hosts[id].in_doubt = false;
    }

    fn heartbeat(&mut self, id: HostId) {
        let host = &self.hosts[id];
        let mut own = host.calls.iter().filter(|call| call.session == host.session);
        self.store.wrongs.false_heartbeat |= own.any(|call| self.store.was_rescued(call.lease));
        self.store.sessions[host.session] = Session::default();
    }

    /// The old session's calls keep it. What it left in doubt is the rescuer's.
    pub fn register_again(&mut self, id: HostId) {
        self.hosts[id].session = self.store.register();
        self.hosts[id].in_doubt = false;
    }

    /// The start that a COMPLETION would end, if it is open.
    fn ended_by(&self, tx: &Transaction, rules: &Rules) -> Option<Start> {
        let call = self.call_of(tx);
        let mut open = self.store.open_starts().filter(|start| start.execution == call.execution);
        match rules.variant {
            Variant::NoFencing => None,
            Variant::FencingByAttemptOnly => open.find(|start| start.attempt == call.attempt).copied(),
            _ => open
                .find(|start| {
                    let lives = match rules.variant {
                        Variant::CompletionWithoutLock => true,
                        Variant::CompletionWithoutLockAndKey => !self.store.sessions[tx.session].dead,
                        _ => tx.lock == Lock::Shared,
                    };
                    lives && start.lease == call.lease && start.session == tx.session
                })
                .copied(),
        }
    }

    /// The statements of COMPLETION: an end; or nothing, where exactly this one is there from a
    /// commit whose answer was lost; or that it came too late.
    fn completion(&self, tx: &Transaction, rules: &Rules) -> Write {
        let call = self.call_of(tx);
        let outcome = call.outcome.expect("only what has ended is recorded");
        let by = Author::Host { session: call.session, lease: call.lease };
        let Call { lease, execution, attempt, session, .. } = *call;
        if rules.variant == Variant::NoFencing {
            let start = Start { lease, execution, attempt, session };
            return Write::Ends(vec![start.end(outcome, by)]);
        }
        if let Some(start) = self.ended_by(tx, rules) {
            return Write::Ends(vec![start.end(outcome, by)]);
        }
        let repeated = self.store.ends.iter().any(|end| {
            let same = match rules.variant {
                Variant::FencingByAttemptOnly => (end.execution, end.attempt) == (execution, attempt),
                _ => end.lease == lease,
            };
            same && end.outcome == outcome
        });
        if repeated { Write::Nothing } else { Write::Stale(lease) }
    }

    /// No lock on the row of a session that is dead: the statement does not find it.
    fn completion_lock(&self, session: SessionId, rules: &Rules) -> Lock {
        let locks = rules.completion_locks() && !self.store.sessions[session].dead;
        if locks { Lock::Shared } else { Lock::None }
    }

    /// The same for what handlers leave behind.
    fn record_lock(&self, session: SessionId, rules: &Rules) -> Lock {
        let locks = rules.variant != Variant::RecordWithoutLock && !self.store.sessions[session].dead;
        if locks { Lock::Shared } else { Lock::None }
    }

    fn record(&self, tx: &Transaction, rules: &Rules) -> Write {
        let Phase::Record(lease) = tx.phase else { unreachable!("it was asked for a record") };
        let lives = tx.lock == Lock::Shared || rules.variant == Variant::RecordWithoutLock;
        if lives && !self.store.has_ended(lease) { Write::Record(lease) } else { Write::Stale(lease) }
    }

    /// A host is killed: the database rolls back what it has not asked to be committed, and may
    /// or may not commit the rest.
    pub fn kill(&mut self, id: HostId) {
        self.hosts[id] = Host { life: Life::Killed, ..Host::new(self.hosts[id].session) };
        let transactions = &mut self.store.transactions;
        transactions.retain(|tx| tx.host != id || matches!(tx.stage, Stage::Written(_)));
        transactions.iter_mut().filter(|tx| tx.host == id).for_each(|tx| tx.awaited = false);
        transactions.sort();
    }

    /// A host does not learn what became of its transaction.
    pub fn lose_answer(&mut self, index: usize) {
        let mut tx = self.store.transactions.remove(index);
        let host = &mut self.hosts[tx.host];
        host.in_doubt |= tx.phase == Phase::Start && tx.session == host.session;
        if matches!(tx.stage, Stage::Written(_)) {
            tx.awaited = false;
            self.store.begin(tx);
        }
    }

    /// A host that is stopped in the middle of a transaction loses it. It may have sent COMMIT,
    /// for all it knows.
    pub fn end_idle(&mut self, index: usize) {
        let tx = self.store.transactions.remove(index);
        let host = &mut self.hosts[tx.host];
        host.in_doubt |= tx.phase == Phase::Start && tx.session == host.session;
    }

    fn begin(&mut self, host: HostId, session: SessionId, phase: Phase, lock: Lock) {
        self.store.begin(Transaction { host, session, phase, lock, stage: Stage::Locked, awaited: true });
    }

    fn take(&mut self, host: HostId, phase: impl Fn(Phase) -> bool) -> Transaction {
        let index = self.awaited(host, phase).expect("the step is offered in such a transaction");
        self.store.transactions.remove(index)
    }

    fn awaited(&self, host: HostId, phase: impl Fn(Phase) -> bool) -> Option<usize> {
        self.store.transactions.iter().position(|tx| tx.awaited && tx.host == host && phase(tx.phase))
    }

    fn transaction(&self, index: usize) -> &Transaction {
        &self.store.transactions[index]
    }

    fn call_of(&self, tx: &Transaction) -> &Call {
        let calls = &mut self.hosts[tx.host].calls.iter();
        calls.find(|call| tx.phase == Phase::Completion(call.lease)).expect("a completion is of a call")
    }
}

fn is_record(phase: Phase) -> bool {
    matches!(phase, Phase::Record(_))
}

fn is_completion(phase: Phase) -> bool {
    matches!(phase, Phase::Completion(_))
}
