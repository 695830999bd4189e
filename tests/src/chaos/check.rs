//! What has to hold when all is over.

use anyhow::Result;

use super::stage::Stage;

/// What was found.
pub(super) struct Findings {
    /// Numbers for the report.
    pub(super) counts: Vec<(&'static str, i64)>,
    /// What does not hold.
    pub(super) violations: Vec<String>,
}

/// What must not be, and a query that finds it.
const RECORDS: &[(&str, &str)] = &[
    (
        "an execution has not exactly one final outcome",
        "select format('execution %s has %s', e.id, count(c)) from innkeeper.execution e
         left join innkeeper.completion c on c.execution_id = e.id and c.final
         group by e.id having count(c) <> 1",
    ),
    (
        "an execution has ended and is still queued",
        "select format('execution %s', execution_id) from innkeeper.ready
         union all select format('execution %s', execution_id) from innkeeper.waiting",
    ),
    (
        "an execution ended otherwise than by success, and not by a crash that its job takes for final",
        "select format('execution %s of %s: %s %s', c.execution_id, j.name, c.outcome, c.error)
         from innkeeper.completion c
         join innkeeper.execution e on e.id = c.execution_id join innkeeper.job j on j.id = e.job_id
         where c.final and c.outcome <> 'succeeded'
           and not (j.name = 'fragile' and c.error ->> 'kind' = 'crashed')",
    ),
    (
        "a start has not exactly one end",
        "select format('attempt %s of execution %s (lease %s) has %s', s.attempt, s.execution_id, s.lease, count(c))
         from innkeeper.start s
         left join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease
         group by s.lease, s.execution_id, s.attempt having count(c) <> 1",
    ),
    (
        "a completion is of no start",
        "select format('execution %s, lease %s', c.execution_id, c.lease) from innkeeper.completion c
         where not exists (select 1 from innkeeper.start s where s.execution_id = c.execution_id
                           and s.lease = c.lease and s.attempt = c.attempt)",
    ),
    (
        // Not by time: a start bears the time at which its transaction began.
        "an attempt began after the one that was final",
        "select format('execution %s, lease %s', s.execution_id, s.lease) from innkeeper.start s
         join innkeeper.completion c on c.execution_id = s.execution_id and c.final and c.lease < s.lease",
    ),
    (
        "attempts are miscounted: one that was released does not count, and any other does",
        "select format('execution %s, lease %s: attempt %s, not %s', execution_id, lease, attempt, expected) from (
             select s.execution_id, s.lease, s.attempt,
                    1 + coalesce(sum((c.outcome <> 'released')::int) over (partition by s.execution_id
                        order by s.lease rows between unbounded preceding and 1 preceding), 0) as expected
             from innkeeper.start s
             join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease) x
         where attempt <> expected",
    ),
    (
        "something came late from a host session that was not dead, for an attempt that had not ended",
        "select format('execution %s, lease %s: %s', t.execution_id, t.lease, t.kind) from innkeeper.stale t
         join innkeeper.host_session h on h.id = t.session_id
         where h.dead_at is null and not exists (
             select 1 from innkeeper.completion c where c.execution_id = t.execution_id and c.lease = t.lease)",
    ),
    (
        "a late completion is what the history says",
        "select format('execution %s, lease %s: %s', t.execution_id, t.lease, t.detail) from innkeeper.stale t
         join innkeeper.completion c on c.execution_id = t.execution_id and c.lease = t.lease
         where t.kind = 'completion' and c.outcome = 'succeeded'",
    ),
    (
        "a host session lives that no host has",
        "select format('session %s of %s', id, host) from innkeeper.host_session where dead_at is null",
    ),
];

/// Looks at the store, the plugin's database, and the hosts' logs.
pub(super) async fn look(stage: &Stage) -> Result<Findings> {
    let mut violations = Vec::new();
    let mut note = |what: &str, found: Vec<String>| {
        let shown = found.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        if !found.is_empty() {
            violations.push(format!("{what} ({} times): {shown}", found.len()));
        }
    };
    for (what, sql) in RECORDS {
        note(what, sqlx::query_scalar(*sql).fetch_all(&stage.records).await?);
    }
    let lost = "select format('execution %s', id) from unnest($1::uuid[]) as a (id)
                where not exists (select 1 from innkeeper.execution e where e.id = a.id)";
    note(
        "an execution was acknowledged, and is lost",
        sqlx::query_scalar(lost).bind(&stage.enqueued).fetch_all(&stage.records).await?,
    );
    // One that expired before the host's last word may have been ended by another host.
    let costly = "select format('lease %s of session %s', s.lease, h.id) from innkeeper.host_session h
                  join innkeeper.start s on s.session_id = h.id
                  join innkeeper.completion c on c.execution_id = s.execution_id and c.lease = s.lease
                  where h.id = any ($1) and h.dead_at < h.expires_at and c.error ->> 'kind' = 'crashed'";
    note(
        "a drain cost an attempt",
        sqlx::query_scalar(costly).bind(&stage.drained).fetch_all(&stage.records).await?,
    );
    copy_ledger(stage).await?;
    for (what, sql) in LEDGER {
        note(what, sqlx::query_scalar(*sql).fetch_all(&stage.records).await?);
    }
    for host in &stage.hosts {
        let log = host.log_since(0);
        let bugs = log.lines().filter(|line| line.contains("panicked") || line.contains("which is a bug"));
        note("a host has a bug", bugs.map(|line| format!("{}: {line}", host.name)).collect());
    }
    let told =
        stage.hosts.iter().map(|host| host.log_since(0).matches("the completion came too late").count());
    let told: usize = told.sum();
    let stale = stage.count("select count(*) from innkeeper.stale where kind = 'completion'").await?;
    if told as i64 > stale {
        note("a late completion was not noted", vec![format!("{told} in the logs, {stale} in the store")]);
    }
    let mut counts = Vec::with_capacity(COUNTS.len());
    for (what, sql) in COUNTS {
        counts.push((*what, stage.count(sql).await?));
    }
    Ok(Findings { counts, violations })
}

/// The plugin's rows are laid beside the records, to be compared with them.
async fn copy_ledger(stage: &Stage) -> Result<()> {
    let rows: Vec<(String, i64, i64, String)> =
        sqlx::query_as("select execution, attempt, step, pg_xact_commit_timestamp(xmin)::text from ledger")
            .fetch_all(&stage.app)
            .await?;
    sqlx::raw_sql(
        "create table public.ledger (execution uuid not null, attempt bigint not null, step bigint not null,
                                     at timestamptz not null)",
    )
    .execute(&stage.records)
    .await?;
    let executions: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    let attempts: Vec<i64> = rows.iter().map(|row| row.1).collect();
    let steps: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let times: Vec<&str> = rows.iter().map(|row| row.3.as_str()).collect();
    let copy = "insert into public.ledger select execution::uuid, attempt, step, at::timestamptz
                from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) as l (execution, attempt, step, at)";
    let copied = sqlx::query(copy).bind(executions).bind(attempts).bind(steps).bind(times);
    copied.execute(&stage.records).await?;
    sqlx::raw_sql("create index on public.ledger (execution, attempt); analyze public.ledger")
        .execute(&stage.records)
        .await?;
    Ok(())
}

const LEDGER: &[(&str, &str)] = &[
    (
        "an attempt is recorded as succeeded, and its rows are not there",
        "select format('attempt %s of execution %s', c.attempt, c.execution_id) from innkeeper.completion c
         where c.outcome = 'succeeded' and (c.result #>> '{}')::int <>
             (select count(distinct l.step) from public.ledger l
              where l.execution = c.execution_id and l.attempt = c.attempt)",
    ),
    (
        "there are rows of an attempt that was never started",
        "select format('attempt %s of execution %s', l.attempt, l.execution) from public.ledger l
         where not exists (select 1 from innkeeper.start s
                           where s.execution_id = l.execution and s.attempt = l.attempt)",
    ),
    (
        "a row is there more often than the attempt was started",
        "select format('attempt %s of execution %s, step %s', l.attempt, l.execution, l.step) from public.ledger l
         group by l.attempt, l.execution, l.step
         having count(*) > (select count(*) from innkeeper.start s
                            where s.execution_id = l.execution and s.attempt = l.attempt)",
    ),
];

const COUNTS: &[(&str, &str)] = &[
    ("executions", "select count(*) from innkeeper.execution"),
    ("host sessions", "select count(*) from innkeeper.host_session"),
    ("starts", "select count(*) from innkeeper.start"),
    ("ended: succeeded", "select count(*) from innkeeper.completion where outcome = 'succeeded'"),
    (
        "ended: failed, and tried again",
        "select count(*) from innkeeper.completion
         where outcome = 'failed' and not final and error ->> 'kind' <> 'crashed'",
    ),
    (
        "ended: crashed, and tried again",
        "select count(*) from innkeeper.completion where not final and error ->> 'kind' = 'crashed'",
    ),
    (
        "ended: crashed, and final by `on_crash = \"fail\"`",
        "select count(*) from innkeeper.completion where final and error ->> 'kind' = 'crashed'",
    ),
    ("ended: released", "select count(*) from innkeeper.completion where outcome = 'released'"),
    ("late completions, refused", "select count(*) from innkeeper.stale where kind = 'completion'"),
    ("other late words, refused", "select count(*) from innkeeper.stale where kind <> 'completion'"),
    ("rows of the plugin", "select count(*) from public.ledger"),
    (
        "of them committed after the next attempt had started",
        "select count(*) from public.ledger l where exists (
             select 1 from innkeeper.start s where s.execution_id = l.execution and s.attempt > l.attempt
             and s.started_at < l.at)",
    ),
];
