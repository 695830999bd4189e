//! The store of the model: tables, row locks, and transactions that are under way.
//!
//! A transaction takes its lock on the row of a host session in one step, runs its statements in
//! the next, and is committed in a third, so that everything else may happen in between. What it
//! has written is seen by nobody before its commit, as at PostgreSQL's READ COMMITTED.

use super::model::{HostId, Rules};

/// The place of a host session in [`Store::sessions`].
pub type SessionId = usize;
/// The number of one START, never used again.
pub type Lease = u8;
/// An execution, counted from 0.
pub type ExecutionId = u8;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The handler returned a result.
    Succeeded,
    /// It failed, and may be tried again.
    Failed,
    /// Its host died, as a rescuer says.
    Crashed,
    /// Its host gave it back: the attempt does not count.
    Released,
}

/// One life of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// `expires_at` has passed.
    pub expired: bool,
    /// `dead_at` is set.
    pub dead: bool,
}

/// A row of `ready`. The model has no `waiting`: whatever waits for a time is due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queued {
    pub execution: ExecutionId,
    /// The attempts that were made and count.
    pub attempts: u8,
}

/// A row of `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Start {
    pub lease: Lease,
    pub execution: ExecutionId,
    pub attempt: u8,
    pub session: SessionId,
}

/// A row of `completion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    pub lease: Lease,
    pub execution: ExecutionId,
    pub attempt: u8,
    pub outcome: Outcome,
    pub by: Author,
}

/// Who recorded an end. The store does not keep it: the properties ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Author {
    /// A host, in this session, of the attempt that it ran under this lease.
    Host { session: SessionId, lease: Lease },
    /// Whoever ended the session.
    Rescuer,
}

/// The phases that lock a host session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Start,
    /// Of the attempt that the host ran under this lease.
    Completion(Lease),
    /// What the handler of this attempt leaves behind: log, progress, checkpoint, an execution.
    Record(Lease),
    Rescue,
}

/// What a transaction holds of its session's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lock {
    /// Nothing: the session is dead, or the variant does without.
    None,
    /// `for key share`: START and COMPLETION.
    Shared,
    /// What an UPDATE of other columns takes: it passes [`Lock::Shared`]. Only in a variant.
    Update,
    /// `for update`: the rescuer.
    Exclusive,
}

/// How far a transaction is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// It has its lock, and has read nothing else.
    Locked,
    /// Its statements have run, and COMMIT may be on its way.
    Written(Write),
    /// It is committed, and the answer is on its way to the host.
    Committed(Write),
}

/// What a transaction has written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Write {
    /// Nothing, since it is there already.
    Nothing,
    Start(Start),
    Ends(Vec<End>),
    /// On behalf of the attempt under this lease.
    Record(Lease),
    Stale(Lease),
}

/// A transaction that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction {
    pub host: HostId,
    pub session: SessionId,
    pub phase: Phase,
    pub lock: Lock,
    pub stage: Stage,
    /// False: the host is gone or its connection broke, so that the database ends it by itself.
    pub awaited: bool,
}

/// What must never happen and cannot be seen in the tables afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrongs {
    /// A host recorded an end although its session was dead.
    pub end_of_dead_session: bool,
    /// A host recorded an end of what had ended.
    pub late_change: bool,
    /// Something was recorded on behalf of an attempt that a rescuer had ended.
    pub late_record: bool,
    /// A host was told that its session lives, after its attempts had been ended.
    pub false_heartbeat: bool,
}

/// Everything that is durable or in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub sessions: Vec<Session>,
    pub queue: Vec<Queued>,
    pub starts: Vec<Start>,
    pub ends: Vec<End>,
    pub stale: Vec<Lease>,
    pub transactions: Vec<Transaction>,
    pub leases_given: Lease,
    pub wrongs: Wrongs,
}

impl Store {
    /// Registers a host.
    pub fn register(&mut self) -> SessionId {
        self.sessions.push(Session::default());
        self.sessions.len() - 1
    }

    /// Whether a transaction may take `wanted` on the row of `session`, or would have to wait.
    pub fn grants(&self, session: SessionId, wanted: Lock) -> bool {
        let held = self.transactions.iter().filter(|tx| tx.session == session && tx.holds_its_lock());
        !held.map(|tx| tx.lock).any(|held| match (held, wanted) {
            (Lock::None, _) | (_, Lock::None) => false,
            (Lock::Shared, Lock::Shared | Lock::Update) | (Lock::Update, Lock::Shared) => false,
            (Lock::Exclusive, _) | (_, Lock::Exclusive) | (Lock::Update, Lock::Update) => true,
        })
    }

    /// The starts without an end that is committed.
    pub fn open_starts(&self) -> impl Iterator<Item = &Start> {
        self.starts.iter().filter(|start| !self.has_ended(start.lease))
    }

    pub fn has_ended(&self, lease: Lease) -> bool {
        self.ends.iter().any(|end| end.lease == lease)
    }

    /// Whether a rescuer has ended the attempt under this lease.
    pub fn was_rescued(&self, lease: Lease) -> bool {
        self.ends.iter().any(|end| end.lease == lease && end.by == Author::Rescuer)
    }

    /// What START may take: a row that another START holds is skipped.
    pub fn claimable(&self) -> impl Iterator<Item = Queued> {
        self.queue.iter().copied().filter(|queued| {
            !self.transactions.iter().any(|tx| match &tx.stage {
                Stage::Written(Write::Start(start)) => {
                    (start.execution, start.attempt) == (queued.execution, queued.attempts + 1)
                }
                _ => false,
            })
        })
    }

    /// Whether an insert of an end of `lease` would wait for another transaction that has
    /// inserted one.
    pub fn end_is_being_written(&self, lease: Lease) -> bool {
        self.transactions.iter().any(|tx| match &tx.stage {
            Stage::Written(Write::Ends(ends)) => ends.iter().any(|end| end.lease == lease),
            _ => false,
        })
    }

    /// What a rescuer writes of a session: an end of each start that it finds open.
    pub fn crashed(&self, session: SessionId) -> Vec<End> {
        let open = self.open_starts().filter(|start| start.session == session);
        open.map(|start| start.end(Outcome::Crashed, Author::Rescuer)).collect()
    }

    pub fn begin(&mut self, transaction: Transaction) {
        self.transactions.push(transaction);
        self.transactions.sort();
    }

    pub fn set_stage(&mut self, index: usize, stage: Stage) {
        self.transactions[index].stage = stage;
        self.transactions.sort();
    }

    /// Commits a transaction whose statements have run.
    pub fn commit(&mut self, index: usize, rules: &Rules) {
        let mut tx = self.transactions.remove(index);
        let Stage::Written(write) = tx.stage else { unreachable!("only what has written is committed") };
        if tx.phase == Phase::Rescue {
            self.sessions[tx.session].dead = true;
        }
        self.apply(&write, rules);
        // How the host takes the answers of the other two makes no difference.
        if tx.awaited && matches!(tx.phase, Phase::Start | Phase::Completion(_)) {
            tx.stage = Stage::Committed(write);
            self.begin(tx);
        }
    }

    fn apply(&mut self, write: &Write, rules: &Rules) {
        match write {
            Write::Nothing => {}
            Write::Start(start) => {
                let row = Queued { execution: start.execution, attempts: start.attempt - 1 };
                let place = self.queue.iter().position(|queued| *queued == row);
                self.queue.remove(place.expect("START holds a lock on the row that it takes"));
                self.starts.push(*start);
                self.starts.sort();
            }
            Write::Ends(ends) => ends.iter().for_each(|end| self.record(*end, rules)),
            Write::Record(lease) => self.wrongs.late_record |= self.was_rescued(*lease),
            Write::Stale(lease) => {
                self.stale.push(*lease);
                self.stale.sort_unstable();
                self.stale.dedup();
            }
        }
    }

    /// Inserts an end, and what follows from it.
    pub fn record(&mut self, end: End, rules: &Rules) {
        if let Author::Host { session, lease } = end.by {
            self.wrongs.end_of_dead_session |= self.sessions[session].dead;
            self.wrongs.late_change |= self.sessions[session].dead || self.has_ended(lease);
        }
        self.ends.push(end);
        self.ends.sort();
        if !rules.is_final(&end) {
            let attempts = end.attempt - u8::from(end.outcome == Outcome::Released);
            self.queue.push(Queued { execution: end.execution, attempts });
            self.queue.sort();
        }
    }
}

impl Start {
    pub fn end(&self, outcome: Outcome, by: Author) -> End {
        End { lease: self.lease, execution: self.execution, attempt: self.attempt, outcome, by }
    }
}

impl Transaction {
    /// Locks are given up with the commit.
    fn holds_its_lock(&self) -> bool {
        !matches!(self.stage, Stage::Committed(_))
    }
}
