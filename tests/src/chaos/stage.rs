//! The hosts with their PostgreSQL, and the work that they are given.

use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::Trigger;
use innkeeper::job::Name;
use innkeeper::store::{NewExecution, Store, StoreError, StoreOptions};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use super::fleet::{CONCURRENCY, Host};
use super::patience::wait_until;
use super::server::OwnServer;

/// By which the connections of this program are told from those of the hosts.
pub(super) const OWN_NAME: &str = "chaos";

/// How often there is new work while something is waited for.
const FEEDING: Duration = Duration::from_millis(250);

/// Everything.
pub(super) struct Stage {
    pub(super) server: OwnServer,
    pub(super) hosts: Vec<Host>,
    /// To look at the host's records, past every fault but PostgreSQL's own.
    pub(super) records: PgPool,
    /// To look at the plugin's database.
    pub(super) app: PgPool,
    /// What the store has acknowledged.
    pub(super) enqueued: Vec<Uuid>,
    /// The sessions of hosts that were asked to drain.
    pub(super) drained: Vec<i64>,
    store: Store,
    fed: Option<Instant>,
}

impl Stage {
    /// Makes the databases, starts the hosts, and waits until each of them works.
    pub(super) async fn build(folder: &Path, hosts: usize) -> Result<Self> {
        let server = OwnServer::start().await?;
        let postgres = pool(&server, "postgres")?;
        for database in ["create database store", "create database app"] {
            sqlx::raw_sql(database).execute(&postgres).await?;
        }
        postgres.close().await;
        let store_url = DatabaseUrl::Postgres(server.url("store"));
        let store = Store::connect(&store_url, &StoreOptions { create: true, ..Default::default() }).await?;
        store.migrate().await?;
        let (records, app) = (pool(&server, "store")?, pool(&server, "app")?);
        let ledger =
            "create table ledger (execution text not null, attempt bigint not null, step bigint not null)";
        sqlx::raw_sql(ledger).execute(&app).await?;
        let mut stage = Self {
            server,
            hosts: Vec::new(),
            records,
            app,
            enqueued: Vec::new(),
            drained: Vec::new(),
            store,
            fed: None,
        };
        for number in 1..=hosts {
            let mut host = Host::new(format!("inn-{number}"), &stage.server, folder).await?;
            host.start()?;
            stage.hosts.push(host);
        }
        wait_until("every host has registered", async || {
            let alive = "select count(distinct host) from innkeeper.host_session where dead_at is null";
            Ok((stage.count(alive).await? == hosts as i64).then_some(()))
        })
        .await?;
        stage.goes_on().await?;
        Ok(stage)
    }

    /// Waits until every host has started and finished an execution that it was given after now.
    ///
    /// And until nothing is left open that a living host had started before.
    pub(super) async fn goes_on(&mut self) -> Result<()> {
        let since: String =
            sqlx::query_scalar("select clock_timestamp()::text").fetch_one(&self.records).await?;
        let working = "select distinct h.host
                       from innkeeper.host_session h
                       join innkeeper.start s on s.session_id = h.id
                       join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease
                       where h.dead_at is null and h.expires_at > now() and s.started_at > $1::timestamptz
                         and c.outcome = 'succeeded'";
        let orphans = "select format('execution %s of %s', s.execution_id, h.host)
                       from innkeeper.host_session h
                       join innkeeper.start s on s.session_id = h.id and s.lease >= h.lease_floor
                       where h.dead_at is null and h.expires_at > now() and s.started_at < $1::timestamptz
                         and not exists (select 1 from innkeeper.completion c
                                         where c.execution_id = s.execution_id and c.lease = s.lease)";
        let (mut found, mut open): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let what = "every host runs executions again, and has ended what it ran";
        let waited = wait_until(what, async || {
            for host in &mut self.hosts {
                host.check_it_runs()?;
            }
            self.feed().await?;
            found = sqlx::query_scalar(working).bind(&since).fetch_all(&self.records).await?;
            if found.len() < self.hosts.len() {
                return Ok(None);
            }
            open = sqlx::query_scalar(orphans).bind(&since).fetch_all(&self.records).await?;
            Ok(open.is_empty().then_some(()))
        })
        .await;
        let Err(error) = waited else { return Ok(()) };
        let mut said = String::new();
        for host in &self.hosts {
            let readiness =
                host.readiness().await.map_or_else(|| "nothing".to_owned(), |body| body.to_string());
            said += &format!("; {} says on /readyz: {readiness}", host.name);
        }
        bail!("{error:#}: {found:?} did, and still open are {open:?}{said}")
    }

    /// Enqueues more than one host can take at once, unless it just did.
    pub(super) async fn feed(&mut self) -> Result<()> {
        if self.fed.is_some_and(|fed| fed.elapsed() < FEEDING) {
            return Ok(());
        }
        self.fed = Some(Instant::now());
        for number in 0..3 * CONCURRENCY {
            // One in six must not be tried again after a crash.
            let job = Name::new(if number % 6 == 5 { "fragile" } else { "ledger" })?;
            let execution = NewExecution {
                job: &job,
                args: None,
                triggered_by: Trigger::Manual,
                run_at: None,
                unique_key: None,
                by: None,
            };
            let id = wait_until("the store takes an execution", async || {
                match self.store.enqueue(&execution).await {
                    Ok(enqueued) => Ok(Some(enqueued.id)),
                    // Its own connection was among those that were ended. What was perhaps
                    // enqueued is checked with everything else that is in the store.
                    Err(StoreError::Unavailable(_)) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })
            .await?;
            self.enqueued.push(id);
        }
        Ok(())
    }

    /// Waits until the queue is empty, and drains the hosts.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let open = "select format('execution %s (queued: %s, waiting: %s, starts without an end: %s)', e.id,
                        exists (select 1 from innkeeper.ready r where r.execution_id = e.id),
                        exists (select 1 from innkeeper.waiting w where w.execution_id = e.id),
                        (select count(*) from innkeeper.start s where s.execution_id = e.id and not exists
                            (select 1 from innkeeper.completion c
                             where c.execution_id = s.execution_id and c.lease = s.lease)))
                    from innkeeper.execution e where not exists
                        (select 1 from innkeeper.completion c where c.execution_id = e.id and c.final)
                    order by e.id limit 5";
        let mut left: Vec<String> = Vec::new();
        let waited = wait_until("every execution has ended", async || {
            left = sqlx::query_scalar(open).fetch_all(&self.records).await?;
            Ok(left.is_empty().then_some(()))
        });
        let waited = waited.await;
        waited.with_context(|| format!("not ended are {}", left.join("; ")))?;
        // Nobody is left to end what lives after the last host.
        let alive = "select count(*) from innkeeper.host_session where dead_at is null";
        wait_until("every session that was left behind has been ended", async || {
            Ok((self.count(alive).await? == self.hosts.len() as i64).then_some(()))
        })
        .await?;
        for number in 0..self.hosts.len() {
            self.drained.extend(self.session(number).await?);
            let host = &mut self.hosts[number];
            host.signal(libc::SIGTERM)?;
            let status = host.wait().await?;
            ensure!(status.success(), "{} ended with {status}", host.name);
        }
        Ok(())
    }

    /// The session of a host's latest life, if it is not dead.
    pub(super) async fn session(&self, host: usize) -> Result<Option<i64>> {
        let latest = "select id from innkeeper.host_session where host = $1 and dead_at is null
                      order by id desc limit 1";
        Ok(sqlx::query_scalar(latest).bind(&self.hosts[host].name).fetch_optional(&self.records).await?)
    }

    pub(super) async fn count(&self, sql: &'static str) -> Result<i64> {
        sqlx::query_scalar(sql).fetch_one(&self.records).await.with_context(|| sql.to_owned())
    }
}

/// A few connections that write also where the server says that it only reads.
fn pool(server: &OwnServer, database: &str) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(&server.url(database))?
        .application_name(OWN_NAME)
        .options([("default_transaction_read_only", "off")]);
    Ok(PgPoolOptions::new().max_connections(2).connect_lazy_with(options))
}
