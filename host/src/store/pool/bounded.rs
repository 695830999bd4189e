//! A connection on which nothing takes longer than it is lent for.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::store::pooler::Named;
use futures_util::{Stream, stream};
use sqlx::postgres::{PgDatabaseError, PgQueryResult, PgRow, PgSeverity, PgStatement, PgTypeInfo};
use sqlx::{Connection as _, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

/// A connection that is younger tells the truth about where its address leads.
const FRESH: Duration = Duration::from_secs(5);

/// What statements run on. It gives up at its deadline, and knows whether it can be used again.
pub(in crate::store) struct Connection {
    inner: PgConnection,
    opened: Instant,
    used: Instant,
    generation: u64,
    /// Statements may have names.
    named: bool,
    bound: Bound,
    pub(super) in_transaction: bool,
}

/// The limit on what is under way, and what became of it.
struct Bound {
    until: Instant,
    /// How long it was lent for, for messages.
    time: Duration,
    /// A statement was sent, and its answer not read to the end.
    busy: bool,
    /// It failed in a way that no other statement will get over.
    failed: bool,
    opened: Instant,
}

impl Connection {
    pub(super) fn new(inner: PgConnection, generation: u64, named: bool) -> Self {
        let now = Instant::now();
        let bound = Bound { until: now, time: Duration::ZERO, busy: false, failed: false, opened: now };
        Self { inner, opened: now, used: now, generation, named, bound, in_transaction: false }
    }

    /// From here on until then; `time` is how long that is.
    pub(super) fn lend_until(&mut self, until: Instant, time: Duration) {
        self.bound.until = until;
        self.bound.time = time;
    }

    pub(super) fn came_back(&mut self) {
        self.in_transaction = false;
        self.used = Instant::now();
    }

    pub(super) async fn answers_within(&mut self, time: Duration) -> bool {
        matches!(timeout(time, self.inner.ping()).await, Ok(Ok(())))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.bound.busy
    }

    pub(super) fn failed(&self) -> bool {
        self.bound.failed
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn idle_for(&self) -> Duration {
        self.used.elapsed()
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn into_inner(self) -> PgConnection {
        self.inner
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Bound {
    /// Waits for an answer that comes whole.
    async fn wait<T>(&mut self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.busy = true;
        let answered = timeout_at(self.until, answer).await.unwrap_or_else(|_| Err(self.elapsed()));
        self.busy = false;
        self.note(answered)
    }

    fn note<T>(&mut self, answered: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &answered {
            self.failed |= self.ends_with(error);
        }
        answered
    }

    /// Whether nothing good is to be expected of the connection, or of the server that it leads
    /// to, after this.
    fn ends_with(&self, error: &Error) -> bool {
        let Error::Database(error) = error else { return true };
        let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else { return true };
        match error.severity() {
            PgSeverity::Fatal | PgSeverity::Panic => true,
            // Read-only transaction: after a failover the old primary may be a standby, and the
            // address lead to the new one.
            _ => error.code() == "25006" && self.opened.elapsed() > FRESH,
        }
    }

    fn elapsed(&self) -> Error {
        let message = format!("no answer within {:?} (`timeout` in [store])", self.time);
        Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
    }

    /// The next part of an answer that comes in parts.
    fn poll<T>(
        &mut self,
        parts: Pin<&mut (dyn Stream<Item = Result<T, Error>> + Send + '_)>,
        deadline: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Error>>> {
        self.busy = true;
        let part = match parts.poll_next(cx) {
            Poll::Ready(part) => part,
            Poll::Pending => match deadline.poll(cx) {
                Poll::Ready(()) => Some(Err(self.elapsed())),
                Poll::Pending => return Poll::Pending,
            },
        };
        // The end, or an error, which is one.
        self.busy = matches!(part, Some(Ok(_)));
        Poll::Ready(part.map(|part| self.note(part)))
    }
}

type Parts<'e> = Pin<Box<dyn Stream<Item = Result<Either<PgQueryResult, PgRow>, Error>> + Send + 'e>>;
type Answer<'e, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'e>>;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Parts<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { inner, bound, named, .. } = self;
        let mut deadline = Box::pin(sleep_until(bound.until));
        let mut parts = inner.fetch_many(Named(query, *named));
        Box::pin(stream::poll_fn(move |cx| bound.poll(parts.as_mut(), deadline.as_mut(), cx)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> Answer<'e, Option<PgRow>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { inner, bound, named, .. } = self;
        Box::pin(bound.wait(inner.fetch_optional(Named(query, *named))))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> Answer<'e, PgStatement>
    where
        'c: 'e,
    {
        let Connection { inner, bound, .. } = self;
        Box::pin(bound.wait(inner.prepare_with(sql, parameters)))
    }
}
