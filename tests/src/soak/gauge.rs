//! What is read of a host and of its databases.

use std::fmt;
use std::path::Path;

use innkeeper::database_url::DatabaseUrl;

use super::flatness::{most, percent};
use crate::database::Engine;
use crate::host::{Scene, TestHost, until};
use crate::raw::Raw;

/// A quantity that must not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// The host's memory, bytes (`VmRSS`).
    Resident,
    /// Of it, what is backed by no file, bytes (`RssAnon`).
    Anonymous,
    /// The host's open files and sockets.
    Files,
    /// The host's threads.
    Threads,
    /// Connections to both databases; on SQLite, how often the host has them open.
    Connections,
    /// Rows in the store's tables.
    Rows,
    /// The store's write-ahead log, bytes; SQLite only.
    Wal,
    /// The store, bytes.
    Store,
}

impl Gauge {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Resident,
        Self::Anonymous,
        Self::Files,
        Self::Threads,
        Self::Connections,
        Self::Rows,
        Self::Wal,
        Self::Store,
    ];

    /// Its name in the table.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Resident => "memory, MiB",
            Self::Anonymous => "memory of no file, MiB",
            Self::Files => "open files",
            Self::Threads => "threads",
            Self::Connections => "connections",
            Self::Rows => "rows in the store",
            Self::Wal => "write-ahead log, MiB",
            Self::Store => "store, MiB",
        }
    }

    /// A value as it is printed.
    #[must_use]
    pub fn show(self, value: u64) -> String {
        match self {
            Self::Files | Self::Threads | Self::Connections | Self::Rows => value.to_string(),
            #[expect(clippy::cast_precision_loss, reason = "one decimal is printed")]
            Self::Resident | Self::Anonymous | Self::Wal | Self::Store => {
                format!("{:.1}", value as f64 / f64::from(1 << 20))
            }
        }
    }

    /// What the median of the last third may be at most, by the values of the second third.
    ///
    /// Memory is compared with the median, since it never goes back by itself. What rises and falls
    /// as the history is removed, or with the load, is compared with the most that it had been. The
    /// engine decides how much of a store's file or a server's pages it uses again: nothing is asked
    /// of the store's size.
    #[must_use]
    pub fn allowed(self, second: &[u64]) -> Option<u64> {
        match self {
            Self::Resident | Self::Anonymous => Some(percent(super::flatness::median(second), 105)),
            Self::Files | Self::Threads | Self::Connections => Some(most(second)),
            Self::Rows => Some(percent(most(second), 105)),
            // A few commits more or less before a checkpoint is possible.
            Self::Wal => Some(percent(most(second), 125)),
            Self::Store => None,
        }
    }
}

/// What was read at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Executions that were enqueued until then.
    pub(super) executions: u64,
    values: Vec<(Gauge, u64)>,
}

impl Sample {
    pub(super) fn of(&self, gauge: Gauge) -> Option<u64> {
        self.values.iter().find(|(of, _)| *of == gauge).map(|(_, value)| *value)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} executions", self.executions)?;
        for (gauge, value) in &self.values {
            write!(f, "; {}: {}", gauge.title(), gauge.show(*value))?;
        }
        Ok(())
    }
}

/// Connections past the host, to look at both databases.
pub(super) struct Gauges {
    url: DatabaseUrl,
    store: Raw,
    app: Raw,
    rows: String,
    queued: String,
    open: String,
}

/// What grows with executions.
const TABLES: [&str; 10] = [
    "execution",
    "ready",
    "waiting",
    "start",
    "completion",
    "unique_key",
    "log",
    "progress",
    "checkpoint",
    "stale",
];

impl Gauges {
    pub(super) async fn new(scene: &Scene) -> Self {
        let schema = match scene.engine {
            Engine::Sqlite => "",
            Engine::Postgres => "innkeeper.",
        };
        let count = |table: &str| format!("(select count(*) from {schema}{table})");
        let queued = format!("{} + {}", count("ready"), count("waiting"));
        let url = scene.store.url().clone();
        let (mut store, app) = (Raw::connect(&url).await, Raw::connect(scene.app.url()).await);
        if scene.engine == Engine::Sqlite {
            store.execute("pragma busy_timeout = 30000").await;
        }
        Self {
            url,
            store,
            app,
            rows: format!("select {}", TABLES.map(count).join(" + ")),
            open: format!("select {queued} + {} - {}", count("start"), count("completion")),
            queued: format!("select {queued}"),
        }
    }

    /// Executions that wait for a slot, or for another attempt.
    pub(super) async fn queued(&mut self) -> i64 {
        self.store.count(&self.queued).await
    }

    /// Waits until every execution has ended.
    pub(super) async fn until_all_have_ended(&mut self, executions: u64) {
        let what = format!("the {executions} executions so far have ended");
        until(&what, async || (self.store.count(&self.open).await == 0).then_some(())).await;
    }

    pub(super) async fn read(&mut self, host: &TestHost, executions: u64) -> Sample {
        let (resident, anonymous) = host.memory();
        let files = host.open_files();
        let mut values = vec![
            (Gauge::Resident, resident),
            (Gauge::Anonymous, anonymous),
            (Gauge::Files, files.len() as u64),
            (Gauge::Threads, host.threads()),
            (Gauge::Rows, number(self.store.count(&self.rows).await)),
        ];
        match &self.url {
            DatabaseUrl::Sqlite(path) => {
                let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
                let open = files.iter().filter(|file| file.ends_with(".db")).count();
                let mut wal = path.clone().into_os_string();
                wal.push("-wal");
                values.push((Gauge::Connections, open as u64));
                values.push((Gauge::Wal, size(wal.as_ref())));
                values.push((Gauge::Store, size(path)));
            }
            DatabaseUrl::Postgres(_) => {
                let connected = "select count(*) from pg_stat_activity where datname = current_database()";
                let connections = self.store.count(connected).await + self.app.count(connected).await;
                values.push((Gauge::Connections, number(connections)));
                let size = "select pg_database_size(current_database())";
                values.push((Gauge::Store, number(self.store.count(size).await)));
            }
        }
        Sample { executions, values }
    }
}

fn number(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
