//! What the contract says of a program, by a plain map with snapshots.

use std::collections::BTreeMap;

use innkeeper::interfaces::db::{ErrorKind, Value};
use innkeeper_tests::database::Engine;
use proptest::prelude::*;

use crate::Seen;

/// The rows of `kv`.
pub type Table = BTreeMap<i64, i64>;

/// The rows of `numbers`, which cursors read: 1 to this.
pub const NUMBERS: i64 = 12;

/// Transactions that may be open at once.
const SLOTS: usize = 3;

/// Whose keys a call in a transaction of its own uses.
pub const OWN: usize = SLOTS;

/// What a step expects: an answer, or one of these errors.
type Expected = Result<Seen, &'static [ErrorKind]>;

const CLOSED: &[ErrorKind] = &[ErrorKind::Closed];
const FAILED: &[ErrorKind] = &[ErrorKind::Statement];
const FAILED_OR_CLOSED: &[ErrorKind] = &[ErrorKind::Statement, ErrorKind::Closed];
const READ_ONLY: &[ErrorKind] = &[ErrorKind::Statement, ErrorKind::Denied];

/// A step of a program.
#[derive(Clone, Debug)]
pub enum Op {
    Begin { slot: usize, repeatable: bool, read_only: bool },
    Own(Act),
    In(usize, Act),
    Savepoint(usize),
    RollbackTo(usize, usize),
    Release(usize, usize),
    OpenCursor(usize),
    Fetch(usize, usize, u32),
    CloseCursor(usize, usize),
    Commit(usize),
    Rollback(usize),
}

/// What one statement does.
#[derive(Clone, Debug)]
pub enum Act {
    Read,
    Put(i64, i64),
    Insert(i64, i64),
    Delete(i64),
    Many(Vec<(i64, i64)>),
    /// Violates a constraint.
    Negative(i64),
    /// Reads a table that is not there.
    Missing,
    /// Tries to end the transaction.
    Refused,
}

/// Programs.
pub fn program() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..50)
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let pick = || 0..6_usize;
    prop_oneof![
        5 => (slot(), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(slot, repeatable, read_only)| Op::Begin { slot, repeatable, read_only }),
        4 => act().prop_map(Op::Own),
        14 => (slot(), act()).prop_map(|(slot, act)| Op::In(slot, act)),
        4 => slot().prop_map(Op::Savepoint),
        4 => (slot(), pick()).prop_map(|(slot, pick)| Op::RollbackTo(slot, pick)),
        2 => (slot(), pick()).prop_map(|(slot, pick)| Op::Release(slot, pick)),
        2 => slot().prop_map(Op::OpenCursor),
        4 => (slot(), pick(), 1..8_u32).prop_map(|(slot, pick, limit)| Op::Fetch(slot, pick, limit)),
        1 => (slot(), pick()).prop_map(|(slot, pick)| Op::CloseCursor(slot, pick)),
        3 => slot().prop_map(Op::Commit),
        1 => slot().prop_map(Op::Rollback),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let key = || 0..5_i64;
    let value = || 0..100_i64;
    prop_oneof![
        6 => Just(Act::Read),
        6 => (key(), value()).prop_map(|(key, value)| Act::Put(key, value)),
        4 => (key(), value()).prop_map(|(key, value)| Act::Insert(key, value)),
        3 => key().prop_map(Act::Delete),
        2 => proptest::collection::vec((key(), value()), 0..4).prop_map(Act::Many),
        1 => key().prop_map(Act::Negative),
        1 => Just(Act::Missing),
        1 => Just(Act::Refused),
    ]
}

/// The key of a slot. Keys of different slots never meet.
fn key_of(slot: usize, key: i64) -> i64 {
    i64::try_from(slot).expect("few slots") * 100 + key
}

impl Act {
    /// The statement, and its lists of parameters.
    pub fn statement(&self, slot: usize) -> (String, Vec<Vec<Value>>) {
        let pair = |key: &i64, value: &i64| vec![Value::Integer(key_of(slot, *key)), Value::Integer(*value)];
        let insert = "insert into kv (key, value) values ($1, $2)";
        match self {
            Self::Read => ("select key, value from kv order by key".to_owned(), vec![]),
            Self::Put(key, value) => (
                format!("{insert} on conflict (key) do update set value = excluded.value"),
                vec![pair(key, value)],
            ),
            Self::Insert(key, value) => (insert.to_owned(), vec![pair(key, value)]),
            Self::Delete(key) => {
                ("delete from kv where key = $1".to_owned(), vec![vec![Value::Integer(key_of(slot, *key))]])
            }
            Self::Many(pairs) => {
                (insert.to_owned(), pairs.iter().map(|(key, value)| pair(key, value)).collect())
            }
            Self::Negative(key) => (insert.to_owned(), vec![pair(key, &-1)]),
            Self::Missing => ("select key, value from missing".to_owned(), vec![]),
            Self::Refused => ("commit".to_owned(), vec![]),
        }
    }

    fn writes(&self) -> bool {
        !matches!(self, Self::Read | Self::Missing | Self::Refused)
    }

    /// What it answers to somebody who sees `rows`, and what it makes of them.
    fn apply(&self, slot: usize, rows: &mut Table) -> Expected {
        match self {
            Self::Read => Ok(Seen::Rows(rows.clone())),
            Self::Put(key, value) => {
                rows.insert(key_of(slot, *key), *value);
                Ok(Seen::Changed(1))
            }
            Self::Insert(key, value) => insert(rows, key_of(slot, *key), *value),
            Self::Delete(key) => Ok(Seen::Changed(rows.remove(&key_of(slot, *key)).map_or(0, |_| 1))),
            Self::Many(pairs) => {
                for (key, value) in pairs {
                    insert(rows, key_of(slot, *key), *value)?;
                }
                Ok(Seen::Changed(pairs.len() as u64))
            }
            // SQLite checks first, PostgreSQL too.
            Self::Negative(_) => Err(&[ErrorKind::CheckViolation]),
            Self::Missing => Err(&[ErrorKind::Statement]),
            Self::Refused => Err(&[ErrorKind::Denied]),
        }
    }
}

fn insert(rows: &mut Table, key: i64, value: i64) -> Expected {
    if rows.contains_key(&key) {
        return Err(&[ErrorKind::UniqueViolation]);
    }
    rows.insert(key, value);
    Ok(Seen::Changed(1))
}

/// The database, and the transactions of a session.
pub struct Model {
    engine: Engine,
    /// What everybody sees.
    pub committed: Table,
    slots: Vec<Slot>,
}

/// Where one transaction after another is opened.
#[derive(Default)]
struct Slot {
    /// The last one's number, also when it has ended.
    id: Option<u64>,
    transaction: Option<Transaction>,
    /// The last one's cursors and savepoints.
    cursors: Vec<Cursor>,
    savepoints: Vec<u32>,
}

struct Transaction {
    read_only: bool,
    /// What it sees of others; none for what is committed at the moment.
    snapshot: Option<Table>,
    /// Its own changes: a value, or none for a row that it has deleted.
    own: BTreeMap<i64, Option<i64>>,
    failed: bool,
    /// Those that can be rolled back to, with its changes then.
    savepoints: Vec<(u32, BTreeMap<i64, Option<i64>>)>,
}

struct Cursor {
    number: u64,
    /// Rows fetched; none when it has ended.
    at: Option<usize>,
    /// The newest savepoint when it was opened.
    opened_after: u32,
}

impl Model {
    pub fn new(engine: Engine) -> Self {
        Self { engine, committed: Table::new(), slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// How many transactions are open.
    pub fn open(&self) -> usize {
        self.slots.iter().filter(|slot| slot.transaction.is_some()).count()
    }

    /// The number of the slot's last transaction.
    pub fn id(&self, slot: usize) -> Option<u64> {
        self.slots[slot].id
    }

    fn somebody_holds_sqlites_lock(&self) -> bool {
        let mut open = self.slots.iter().filter_map(|slot| slot.transaction.as_ref());
        self.engine == Engine::Sqlite && open.any(|transaction| !transaction.read_only)
    }

    pub fn may_begin(&self, slot: usize, read_only: bool) -> bool {
        self.slots[slot].transaction.is_none() && (read_only || !self.somebody_holds_sqlites_lock())
    }

    pub fn begin(&mut self, slot: usize, id: u64, repeatable: bool, read_only: bool) {
        // SQLite has serializable transactions only.
        let snapshot = (repeatable || self.engine == Engine::Sqlite).then(|| self.committed.clone());
        let transaction =
            Transaction { read_only, snapshot, own: BTreeMap::new(), failed: false, savepoints: vec![] };
        self.slots[slot] =
            Slot { id: Some(id), transaction: Some(transaction), cursors: vec![], savepoints: vec![] };
    }

    /// A statement in a transaction of its own; none where it would wait.
    pub fn own(&mut self, act: &Act) -> Option<Expected> {
        if act.writes() && self.somebody_holds_sqlites_lock() {
            return None;
        }
        let mut rows = self.committed.clone();
        let expected = act.apply(OWN, &mut rows);
        if expected.is_ok() {
            self.committed = rows;
        }
        Some(expected)
    }

    /// A statement in the slot's transaction; none where there never was one.
    pub fn act(&mut self, slot: usize, act: &Act) -> Option<Expected> {
        self.slots[slot].id?;
        // Whether a change of no rows at all may be said in a read-only transaction, the engines
        // differ.
        let reads = self.slots[slot].transaction.as_ref().is_some_and(|transaction| transaction.read_only);
        if reads && matches!(act, Act::Many(pairs) if pairs.is_empty()) {
            return None;
        }
        if let Err(kinds) = self.may_go_on(slot) {
            return Some(Err(kinds));
        }
        let before = self.view(slot);
        let transaction = self.slots[slot].transaction.as_mut().expect("it may go on");
        let mut after = before.clone();
        let mut expected = act.apply(slot, &mut after);
        if transaction.read_only && act.writes() {
            expected = Err(READ_ONLY);
        }
        if expected.is_err() {
            transaction.failed = true;
        } else {
            for key in before.keys().chain(after.keys()).filter(|key| before.get(key) != after.get(key)) {
                transaction.own.insert(*key, after.get(key).copied());
            }
        }
        Some(expected)
    }

    /// What the slot's transaction sees.
    fn view(&self, slot: usize) -> Table {
        let transaction = self.slots[slot].transaction.as_ref().expect("it is open");
        let mut rows = transaction.snapshot.as_ref().unwrap_or(&self.committed).clone();
        overlay(&mut rows, &transaction.own);
        rows
    }

    /// Whether the transaction is open and has not failed.
    pub fn may_go_on(&self, slot: usize) -> Result<(), &'static [ErrorKind]> {
        match &self.slots[slot].transaction {
            None => Err(CLOSED),
            Some(transaction) if transaction.failed => Err(FAILED),
            Some(_) => Ok(()),
        }
    }

    pub fn savepoint(&mut self, slot: usize, number: u32) -> Result<(), String> {
        let slot = &mut self.slots[slot];
        if slot.savepoints.last().is_some_and(|last| *last >= number) {
            return Err(format!("savepoint {number} comes after {:?}", slot.savepoints));
        }
        slot.savepoints.push(number);
        let transaction = slot.transaction.as_mut().expect("it is open");
        transaction.savepoints.push((number, transaction.own.clone()));
        Ok(())
    }

    /// One that there is or was, or one that there never was.
    pub fn pick_savepoint(&self, slot: usize, pick: usize) -> u32 {
        self.slots[slot].savepoints.get(pick).copied().unwrap_or(77)
    }

    pub fn rollback_to(&mut self, slot: usize, number: u32) -> Expected {
        let slot = &mut self.slots[slot];
        let transaction = slot.transaction.as_mut().ok_or(CLOSED)?;
        let at =
            transaction.savepoints.iter().position(|(savepoint, _)| *savepoint == number).ok_or(CLOSED)?;
        transaction.savepoints.truncate(at + 1);
        transaction.own = transaction.savepoints[at].1.clone();
        transaction.failed = false;
        for cursor in slot.cursors.iter_mut().filter(|cursor| cursor.opened_after >= number) {
            cursor.at = None;
        }
        Ok(Seen::Done)
    }

    pub fn release(&mut self, slot: usize, number: u32) -> Expected {
        let transaction = self.slots[slot].transaction.as_mut().ok_or(CLOSED)?;
        let at = transaction.savepoints.iter().position(|(savepoint, _)| *savepoint == number);
        if transaction.failed {
            return Err(if at.is_some() { FAILED } else { FAILED_OR_CLOSED });
        }
        transaction.savepoints.truncate(at.ok_or(CLOSED)?);
        Ok(Seen::Done)
    }

    pub fn open_cursor(&mut self, slot: usize, number: u64) {
        let slot = &mut self.slots[slot];
        let opened_after = slot.savepoints.last().copied().unwrap_or(0);
        slot.cursors.push(Cursor { number, at: Some(0), opened_after });
    }

    /// The transaction and the number of a cursor that there is or was.
    pub fn pick_cursor(&self, slot: usize, pick: usize) -> Option<(u64, u64)> {
        let slot = &self.slots[slot];
        Some((slot.id?, slot.cursors.get(pick)?.number))
    }

    fn cursor(&mut self, slot: usize, number: u64) -> &mut Cursor {
        let mut cursors = self.slots[slot].cursors.iter_mut();
        cursors.find(|cursor| cursor.number == number).expect("it was picked")
    }

    /// The rows that a cursor has not fetched yet.
    pub fn next_rows(&mut self, slot: usize, number: u64) -> Result<Vec<i64>, &'static [ErrorKind]> {
        let may_go_on = self.may_go_on(slot);
        let at = self.cursor(slot, number).at;
        match (may_go_on, at) {
            (Ok(()), Some(at)) => Ok((1..=NUMBERS).skip(at).collect()),
            (Ok(()), None) => Err(CLOSED),
            (Err(kinds), Some(_)) => Err(kinds),
            (Err(_), None) => Err(FAILED_OR_CLOSED),
        }
    }

    pub fn fetched(&mut self, slot: usize, number: u64, rows: usize) {
        let cursor = self.cursor(slot, number);
        cursor.at = cursor.at.map(|at| at + rows);
    }

    pub fn close_cursor(&mut self, slot: usize, number: u64) {
        self.cursor(slot, number).at = None;
    }

    pub fn commit(&mut self, slot: usize) -> Expected {
        let transaction = self.slots[slot].transaction.take().ok_or(CLOSED)?;
        if transaction.failed {
            return Err(FAILED);
        }
        overlay(&mut self.committed, &transaction.own);
        Ok(Seen::Done)
    }

    pub fn rollback(&mut self, slot: usize) -> Expected {
        self.slots[slot].transaction.take().ok_or(CLOSED)?;
        Ok(Seen::Done)
    }
}

fn overlay(rows: &mut Table, own: &BTreeMap<i64, Option<i64>>) {
    for (key, value) in own {
        match value {
            Some(value) => rows.insert(*key, *value),
            None => rows.remove(key),
        };
    }
}
