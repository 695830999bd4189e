//! What goes over a connection to PostgreSQL: enough of its protocol to tell where an execution
//! stands. <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::HashMap;

use super::plan::Point;

/// A message of the protocol, whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// What it is; 0 for the one that a client begins with, which has no such byte.
    tag: u8,
    /// All of it, as it is passed on.
    pub(super) bytes: Vec<u8>,
}

/// Cuts one direction of a connection into messages.
#[derive(Debug)]
pub(super) struct Messages {
    buffer: Vec<u8>,
    /// What comes next has a tag.
    tagged: bool,
}

impl Messages {
    pub(super) fn of_client() -> Self {
        Self { buffer: Vec::new(), tagged: false }
    }

    pub(super) fn of_server() -> Self {
        Self { buffer: Vec::new(), tagged: true }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, once all of it has come.
    pub(super) fn next(&mut self) -> Option<Message> {
        let start = usize::from(self.tagged);
        let length = self.buffer.get(start..start + 4)?;
        // The length counts itself, and not the tag.
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize + start;
        if self.buffer.len() < length {
            return None;
        }
        let rest = self.buffer.split_off(length);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let tag = if self.tagged { bytes[0] } else { 0 };
        self.tagged = true;
        Some(Message { tag, bytes })
    }
}

impl Message {
    fn body(&self) -> &[u8] {
        &self.bytes[if self.tag == 0 { 4 } else { 5 }..]
    }

    /// The first texts of the body, each of which ends with a zero byte.
    fn texts<const N: usize>(&self) -> [String; N] {
        let mut texts = self.body().split(|byte| *byte == 0);
        std::array::from_fn(|_| String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned())
    }
}

/// What a statement is for. It is told by the tables that it writes, so that the statements may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    /// Takes executions from the queue and inserts their starts.
    Claim,
    /// Inserts completions.
    Complete,
    /// Ends the starts of a host session: no completion of a host's own.
    Rescue,
    /// A handler's progress.
    Progress,
    /// A row of the handler's own.
    Step,
    Commit,
    Other,
}

impl Statement {
    fn of(sql: &str) -> Self {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        if sql.split(';').any(|part| part.trim() == "commit") {
            Self::Commit
        } else if sql.contains("set dead_at") || sql.contains("lease_floor from innkeeper.host_session") {
            Self::Rescue
        } else if sql.contains("insert into innkeeper.start") {
            Self::Claim
        } else if sql.contains("insert into innkeeper.completion") {
            Self::Complete
        } else if sql.contains("insert into innkeeper.progress") {
            Self::Progress
        } else if sql.contains("insert into ledger") {
            Self::Step
        } else {
            Self::Other
        }
    }
}

/// What the open transaction of a connection is, as far as it has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    Unknown,
    /// A START that has claimed something.
    Start,
    Completion,
    Step,
    Else,
}

/// One connection, followed in both directions.
#[derive(Debug)]
pub(super) struct Dialogue {
    /// The statements that the client has prepared, by name.
    prepared: HashMap<String, Statement>,
    running: Statement,
    transaction: Transaction,
}

/// Where a message of the client stands in an execution's life: what is about to happen when it
/// arrives, and what has happened when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) before: Option<Point>,
    pub(super) after: Option<Point>,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        Self { prepared: HashMap::new(), running: Statement::Other, transaction: Transaction::Unknown }
    }

    /// Follows a message of the client that is about to be passed on.
    pub(super) fn by_client(&mut self, message: &Message) -> Standing {
        match message.tag {
            // Parse: the name, and the statement.
            b'P' => {
                let [name, sql] = message.texts();
                self.prepared.insert(name, Statement::of(&sql));
                Standing::default()
            }
            // Bind: the portal, and the name of the statement.
            b'B' => {
                let [_, name] = message.texts();
                let statement = self.prepared.get(&name).copied().unwrap_or(Statement::Other);
                self.runs(statement)
            }
            // Query: the text.
            b'Q' => {
                let [sql] = message.texts();
                self.runs(Statement::of(&sql))
            }
            _ => Standing::default(),
        }
    }

    fn runs(&mut self, statement: Statement) -> Standing {
        self.running = statement;
        let known = self.transaction != Transaction::Unknown;
        match statement {
            Statement::Commit => self.commits(),
            Statement::Complete if !known => {
                self.transaction = Transaction::Completion;
                Standing { before: Some(Point::Returned), after: None }
            }
            Statement::Progress => {
                self.transaction = Transaction::Else;
                Standing { before: Some(Point::BetweenTransactions), after: None }
            }
            Statement::Step => {
                self.transaction = Transaction::Step;
                Standing::default()
            }
            Statement::Rescue => {
                self.transaction = Transaction::Else;
                Standing::default()
            }
            Statement::Claim | Statement::Complete | Statement::Other => Standing::default(),
        }
    }

    fn commits(&self) -> Standing {
        let at = |before, after| Standing { before: Some(before), after };
        match self.transaction {
            Transaction::Start => at(Point::StartCommit, Some(Point::StartAnswer)),
            Transaction::Completion => at(Point::CompletionCommit, Some(Point::CompletionAnswer)),
            Transaction::Step => at(Point::HandlerCommit, None),
            Transaction::Unknown | Transaction::Else => Standing::default(),
        }
    }

    /// Follows a message of the server.
    pub(super) fn by_server(&mut self, message: &Message) {
        match message.tag {
            // DataRow: most claims find nothing, and their commits are of no interest.
            b'D' if self.running == Statement::Claim => self.transaction = Transaction::Start,
            // ReadyForQuery, outside a transaction.
            b'Z' if message.body().first() == Some(&b'I') => self.transaction = Transaction::Unknown,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Message {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        Message { tag, bytes: [&[tag][..], &length, body].concat() }
    }

    fn prepare(dialogue: &mut Dialogue, name: &str, sql: &str) {
        let standing = dialogue.by_client(&message(b'P', format!("{name}\0{sql}\0").as_bytes()));
        assert_eq!(standing, Standing::default());
    }

    fn run(dialogue: &mut Dialogue, name: &str) -> Standing {
        dialogue.by_client(&message(b'B', format!("\0{name}\0").as_bytes()))
    }

    fn query(dialogue: &mut Dialogue, sql: &str) -> Standing {
        dialogue.by_client(&message(b'Q', format!("{sql}\0").as_bytes()))
    }

    #[test]
    fn messages_are_told_apart_wherever_the_network_cuts_them() {
        let startup = [&12_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"abcd"].concat();
        let (begin, sync) = (message(b'Q', b"BEGIN\0"), message(b'S', b""));
        let mut messages = Messages::of_client();
        let mut found = Vec::new();
        for byte in [&startup[..], &begin.bytes, &sync.bytes].concat() {
            messages.push(&[byte]);
            found.extend(messages.next());
        }
        assert_eq!(found, [Message { tag: 0, bytes: startup }, begin, sync]);
    }

    #[test]
    fn the_commit_of_a_start_is_one_only_where_something_was_claimed() {
        let mut dialogue = Dialogue::new();
        prepare(&mut dialogue, "s1", "with x as (…) insert into  innkeeper.start\n (lease) …");
        for claimed in [false, true] {
            query(&mut dialogue, "BEGIN");
            assert_eq!(run(&mut dialogue, "s1"), Standing::default());
            if claimed {
                dialogue.by_server(&message(b'D', b"\0\0"));
            }
            dialogue.by_server(&message(b'Z', b"T"));
            let expected = Standing { before: Some(Point::StartCommit), after: Some(Point::StartAnswer) };
            assert_eq!(query(&mut dialogue, "COMMIT"), if claimed { expected } else { Standing::default() });
            dialogue.by_server(&message(b'Z', b"I"));
        }
    }

    #[test]
    fn what_a_rescue_records_is_no_completion_of_a_host() {
        let mut dialogue = Dialogue::new();
        prepare(&mut dialogue, "s1", "insert into innkeeper.completion (…)");
        prepare(&mut dialogue, "s2", "update innkeeper.host_session set dead_at = now()");
        run(&mut dialogue, "s2");
        assert_eq!(run(&mut dialogue, "s1"), Standing::default());
        assert_eq!(query(&mut dialogue, "COMMIT"), Standing::default());
        dialogue.by_server(&message(b'Z', b"I"));
        assert_eq!(run(&mut dialogue, "s1").before, Some(Point::Returned));
        assert_eq!(query(&mut dialogue, "COMMIT").after, Some(Point::CompletionAnswer));
    }
}
