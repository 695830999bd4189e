//! What each fault does: hold the host at the phase, strike, let go, and wait until all goes on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::patience::{in_time, wait_until};
use super::plan::{Fault, Kind, Phase, Point};
use super::relay::Release;
use super::server::Stop;
use super::stage::{OWN_NAME, Stage};

/// How long executions may take to come to a point on a certain host.
const REACHING: Duration = Duration::from_secs(60);

impl Stage {
    /// Carries a fault out, and waits until every host works again.
    pub(super) async fn strike(&mut self, fault: &Fault) -> Result<()> {
        self.reach(fault).await?;
        match fault.kind {
            Kind::Kill => self.kill(fault)?,
            Kind::Stop => self.stop(fault).await?,
            Kind::Drain | Kind::SecondSignal => self.drain(fault).await?,
            Kind::TerminateStore => self.terminate(fault, &["store"]).await?,
            Kind::TerminatePlugin => self.terminate(fault, &["app"]).await?,
            Kind::TerminateAll => self.terminate(fault, &["store", "app"]).await?,
            Kind::RestartImmediate => self.restart_postgres(fault, Stop::Immediate).await?,
            Kind::RestartFast => self.restart_postgres(fault, Stop::Fast).await?,
            Kind::Silence => self.silence(fault).await?,
            Kind::Reset => self.reset(fault).await?,
            Kind::ReadOnly => self.read_only(fault).await?,
        }
        let relay = &self.hosts[fault.host].relay;
        relay.release(Release::Cut);
        relay.restore();
        self.goes_on().await.context("after it was over")
    }

    /// Gives the hosts work until the one that is meant is held at the phase.
    async fn reach(&mut self, fault: &Fault) -> Result<()> {
        let Phase::At(point) = fault.phase else { return self.feed().await };
        self.hosts[fault.host].relay.arm(point);
        let deadline = Instant::now() + REACHING;
        loop {
            self.feed().await?;
            let held = self.hosts[fault.host].relay.wait_until_held();
            if tokio::time::timeout(Duration::from_millis(100), held).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} was not seen there within {REACHING:?}: does `wire` still recognise its statements?",
                    self.hosts[fault.host].name
                );
            }
        }
    }

    fn kill(&mut self, fault: &Fault) -> Result<()> {
        let host = &mut self.hosts[fault.host];
        host.kill()?;
        // What it had sent may arrive after its death.
        host.relay.release(fault.how_late(Release::Cut));
        host.start()
    }

    async fn stop(&mut self, fault: &Fault) -> Result<()> {
        let session = self.session(fault.host).await?;
        self.hosts[fault.host].signal(libc::SIGSTOP)?;
        self.let_go_of_the_session(fault);
        self.wait_until_rescued(session).await?;
        self.hosts[fault.host].signal(libc::SIGCONT)?;
        self.tell_the_host(fault);
        self.wait_until_refused(fault, session).await
    }

    async fn drain(&mut self, fault: &Fault) -> Result<()> {
        self.drained.extend(self.session(fault.host).await?);
        let host = &mut self.hosts[fault.host];
        let mark = host.mark();
        host.signal(libc::SIGTERM)?;
        if fault.kind == Kind::SecondSignal {
            // Two signals that wait to be delivered are one.
            wait_until("the host drains", async || {
                Ok(host.log_since(mark).contains("draining").then_some(()))
            })
            .await?;
            host.signal(libc::SIGTERM)?;
        }
        // A handler may hang until the end of the drain, and after it; the store may not, since
        // what is to be released has to be recorded.
        if fault.arrives_late || fault.phase != Phase::At(Point::HandlerCommit) {
            host.relay.release(Release::Forward);
        }
        let status = host.wait().await?;
        ensure!(status.success(), "{} ended with {status} after SIGTERM", host.name);
        host.relay.release(Release::Cut);
        host.start()
    }

    async fn terminate(&mut self, fault: &Fault, databases: &[&str]) -> Result<()> {
        let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                         where backend_type = 'client backend' and datname = any ($1) and application_name <> $2";
        let ended: i64 =
            sqlx::query_scalar(terminate).bind(databases).bind(OWN_NAME).fetch_one(&self.records).await?;
        ensure!(ended > 0, "there was nothing to terminate");
        self.hosts[fault.host].relay.release(fault.how_late(Release::Cut));
        Ok(())
    }

    async fn restart_postgres(&mut self, fault: &Fault, how: Stop) -> Result<()> {
        self.server.stop(how).await?;
        self.hosts[fault.host].relay.release(fault.how_late(Release::Cut));
        for host in &self.hosts {
            host.wait_for_problem(if fault.is_long { "session" } else { "store" }).await?;
        }
        self.server.resume().await
    }

    async fn silence(&mut self, fault: &Fault) -> Result<()> {
        let session = self.session(fault.host).await?;
        let relay = &self.hosts[fault.host].relay;
        relay.silence(fault.direction);
        if !fault.is_long {
            in_time("the network swallows something", relay.wait_until_withheld()).await?;
            relay.release(fault.how_late(Release::Cut));
            relay.restore();
            return Ok(());
        }
        self.let_go_of_the_session(fault);
        self.wait_until_rescued(session).await?;
        self.tell_the_host(fault);
        self.wait_until_refused(fault, session).await
    }

    async fn reset(&mut self, fault: &Fault) -> Result<()> {
        let host = &self.hosts[fault.host];
        if fault.is_long {
            host.relay.refuse();
        }
        host.relay.cut_all();
        if fault.is_long {
            host.wait_for_problem("session").await?;
        }
        host.relay.restore();
        Ok(())
    }

    async fn read_only(&mut self, fault: &Fault) -> Result<()> {
        self.set_read_only("alter system set default_transaction_read_only = on").await?;
        self.hosts[fault.host].relay.release(Release::Forward);
        for host in &self.hosts {
            host.wait_for_problem(if fault.is_long { "session" } else { "store" }).await?;
        }
        self.set_read_only("alter system reset default_transaction_read_only").await
    }

    async fn set_read_only(&self, how: &'static str) -> Result<()> {
        sqlx::raw_sql(how).execute(&self.records).await?;
        sqlx::raw_sql("select pg_reload_conf()").execute(&self.records).await?;
        Ok(())
    }

    /// Rescuers leave a host alone that is in the middle of a phase. What is held arrives; or every
    /// phase that is under way ends as PostgreSQL ends it, after ten seconds in which the host says
    /// nothing more.
    fn let_go_of_the_session(&self, fault: &Fault) {
        let relay = &self.hosts[fault.host].relay;
        if !fault.arrives_late {
            relay.cut_all_from_server();
        } else if fault.phase.point().is_some_and(Point::holds_the_session) {
            relay.release(Release::Forward);
        }
    }

    /// The host is told what it has missed, or that its connections are gone.
    fn tell_the_host(&self, fault: &Fault) {
        let relay = &self.hosts[fault.host].relay;
        if fault.arrives_late {
            relay.release(Release::Forward);
        } else {
            relay.cut_all();
        }
        relay.restore();
    }

    /// Waits until another host has ended the session, and what it ran has been started again.
    async fn wait_until_rescued(&self, session: Option<i64>) -> Result<()> {
        let open = "select (select count(*) from innkeeper.host_session where id = $1 and dead_at is null)
                         + (select count(*) from innkeeper.start s
                            join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease
                            where s.session_id = $1 and c.error ->> 'kind' = 'crashed' and not c.final
                              and not exists (select 1 from innkeeper.start n
                                              where n.execution_id = s.execution_id and n.lease > s.lease))";
        wait_until("another host ends the session, and its executions are started again", async || {
            let open: i64 = sqlx::query_scalar(open).bind(session).fetch_one(&self.records).await?;
            Ok((open == 0).then_some(()))
        })
        .await
    }

    /// Waits until everything that a host still had to say of a session was refused and noted. Where
    /// answers were lost, it may not know of each START.
    async fn wait_until_refused(&self, fault: &Fault, session: Option<i64>) -> Result<()> {
        if !fault.arrives_late {
            return Ok(());
        }
        let open = "select count(*) from innkeeper.start s
                    join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease
                    where s.session_id = $1 and c.error ->> 'kind' = 'crashed' and not exists
                        (select 1 from innkeeper.stale t where t.lease = s.lease and t.kind = 'completion')";
        wait_until("every late completion is on record as stale", async || {
            let open: i64 = sqlx::query_scalar(open).bind(session).fetch_one(&self.records).await?;
            Ok((open == 0).then_some(()))
        })
        .await
    }
}

impl Fault {
    /// Late where the fault says so, and otherwise so.
    fn how_late(&self, otherwise: Release) -> Release {
        if self.arrives_late { Release::Forward } else { otherwise }
    }
}
