//! What looks at the store.

use crate::store::row::statements;

/// Executions with all that their states are derived from: `$page` says which, in a column `id`.
macro_rules! executions {
    ($page:literal) => {
        concat!(
            "with page as (",
            $page,
            ")
            select e.id, j.name as job, j.plugin, j.handler, e.args, e.triggered_by,
                   e.scheduled_at, e.max_attempts,
                   s.lease as start_lease, s.attempt as start_attempt, s.started_at, h.host, k.digest,
                   c.lease as completion_lease, c.attempt as completion_attempt, c.outcome, c.final, c.finished_at,
                   c.result, c.error, c.usage,
                   w.attempt as waiting_attempt, w.due_at, w.blocker, r.attempt as ready_attempt,
                   p.done, p.total, p.message, e.retry_of, q.reason as cancel_reason
            from page
            join execution e on e.id = page.id
            join job j on j.id = e.job_id
            left join start s on s.execution_id = e.id and s.lease =
                (select max(x.lease) from start x where x.execution_id = e.id)
            left join host_session h on h.id = s.session_id
            left join component k on k.id = s.component_id
            left join completion c on c.execution_id = e.id and c.lease =
                (select x.lease from completion x where x.execution_id = e.id
                 order by x.final desc, x.lease desc limit 1)
            left join waiting w on w.execution_id = e.id
            left join ready r on r.execution_id = e.id
            left join progress p on p.execution_id = e.id
            left join cancel_request q on q.execution_id = e.id
            order by e.id desc"
        )
    };
}

statements! { READS:

    // Definitions

    COMPONENT_DESCRIPTIONS = "
        select descriptions from component where digest = $1";
    PLUGIN_DESCRIPTIONS = "
        select k.descriptions
        from plugin p join component k on k.id = p.component_id
        where p.name = $1";
    PLUGINS = "
        select p.name, k.digest, k.descriptions, p.updated_at
        from plugin p join component k on k.id = p.component_id
        order by p.name";
    LIVE_HOST_PLUGINS = "
        select distinct p.plugin, h.host
        from host_session h join host_plugin p on p.session_id = h.id
        where h.dead_at is null and h.expires_at > $1
        order by p.plugin, h.host";
    JOBS = "
        select name, owner, spec, next_fire_at, paused_at, paused_reason, retired_at
        from job order by name";
    JOB = "
        select name, owner, spec, next_fire_at, paused_at, paused_reason, retired_at
        from job where name = $1";
    JOB_ID = "select id from job where name = $1";

    // Hosts

    LIVE_SESSIONS = "
        select id, host, boot_id, version, started_at, heartbeat_at, expires_at, dead_at, slots,
               drain_requested_at, draining_at, $1 as looked_at, expires_at <= $1 as has_expired
        from host_session
        where dead_at is null and ($2 is null or host = $2)
        order by host, id";
    ENDED_SESSIONS = "
        select id, host, boot_id, version, started_at, heartbeat_at, expires_at, dead_at, slots,
               drain_requested_at, draining_at, null as looked_at, expires_at <= dead_at as has_expired
        from host_session
        where dead_at is not null and ($2 is null or host = $2)
        order by id desc limit $1";
    /// The first `$1` of each session, and how many there are of it.
    RUNNING_ON_HOSTS = "
        select session_id, execution_id, job, attempt, started_at, running
        from (select s.session_id, s.execution_id, j.name as job, s.attempt, s.started_at,
                     count(*) over (partition by s.session_id) as running,
                     row_number() over (partition by s.session_id order by s.lease) as number
              from host_session h
              join start s on s.session_id = h.id and s.lease >= h.lease_floor
              join execution e on e.id = s.execution_id
              join job j on j.id = e.job_id
              where h.dead_at is null
                and not exists (select 1 from completion c
                                where c.execution_id = s.execution_id and c.lease = s.lease)) open_start
        where number <= $1
        order by session_id, number";

    // Executions: `$1` is the id before which a page begins, `$2` its length, `$3` the job.

    EXECUTION = executions!("select $1 as id");
    LATEST_OF_EACH_JOB = executions!("
        select (select e.id from execution e where e.job_id = j.id order by e.id desc limit 1) as id
        from job j");
    LATEST_OF_JOB = executions!("
        select e.id from execution e
        where e.job_id = (select j.id from job j where j.name = $1) order by e.id desc limit 1");
    EXECUTIONS = executions!("
        select e.id from execution e where e.id < $1 order by e.id desc limit $2");
    EXECUTIONS_OF_JOB = executions!("
        select e.id from execution e where e.id < $1 and e.job_id = $3
        order by e.id desc limit $2");
    /// Also what waits for something other than a time.
    QUEUED = executions!("
        select id
        from (select * from (select r.execution_id as id from ready r
                             where r.execution_id < $1 and ($3 is null or r.job_id = $3)
                             order by r.execution_id desc limit $2) may_start
              union all
              select * from (select w.execution_id as id from waiting w
                             where w.execution_id < $1 and ($3 is null or w.job_id = $3) and w.due_at is null
                             order by w.execution_id desc limit $2) is_blocked) queued
        order by id desc limit $2");
    SCHEDULED = executions!("
        select w.execution_id as id from waiting w
        where w.execution_id < $1 and ($3 is null or w.job_id = $3) and w.attempt = 0
          and w.due_at is not null
        order by w.execution_id desc limit $2");
    RETRYING = executions!("
        select w.execution_id as id from waiting w
        where w.execution_id < $1 and ($3 is null or w.job_id = $3) and w.attempt > 0
          and w.due_at is not null
        order by w.execution_id desc limit $2");
    /// Open starts belong to sessions that are not dead, and are above their floors.
    RUNNING = executions!("
        select s.execution_id as id
        from host_session h
        join start s on s.session_id = h.id and s.lease >= h.lease_floor
        where h.dead_at is null and s.execution_id < $1
          and not exists (select 1 from completion c
                          where c.execution_id = s.execution_id and c.lease = s.lease)
          and ($3 is null
               or exists (select 1 from execution e where e.id = s.execution_id and e.job_id = $3))
        order by s.execution_id desc limit $2");
    SUCCEEDED = executions!("
        select c.execution_id as id from completion c
        where c.final and c.outcome = 'succeeded' and c.execution_id < $1
        order by c.execution_id desc limit $2");
    SUCCEEDED_OF_JOB = executions!("
        select e.id from execution e
        join completion c on c.execution_id = e.id and c.final and c.outcome = 'succeeded'
        where e.job_id = $3 and e.id < $1
        order by e.id desc limit $2");
    /// `<> 'succeeded'` says the same again, in the words of the index.
    UNSUCCESSFUL = executions!("
        select c.execution_id as id from completion c
        where c.final and c.outcome <> 'succeeded' and c.outcome = $4 and c.execution_id < $1
          and ($3 is null
               or exists (select 1 from execution e where e.id = c.execution_id and e.job_id = $3))
        order by c.execution_id desc limit $2");

    /// The newest `$2` of them. Their hosts' records may be gone.
    ATTEMPTS = "
        select lease, attempt, started_at, host, digest, outcome, finished_at, error, usage
        from (select s.lease, s.attempt, s.started_at, h.host, k.digest, c.outcome, c.finished_at,
                     c.error, c.usage
              from start s
              left join host_session h on h.id = s.session_id
              left join component k on k.id = s.component_id
              left join completion c on c.execution_id = s.execution_id and c.lease = s.lease
              where s.execution_id = $1
              order by s.lease desc limit $2) newest
        order by lease";
    /// A page: what comes after line `$3` of lease `$2`.
    LOGS = "
        select l.lease, l.seq, s.attempt, l.at, l.level, l.message, l.fields
        from log l
        join start s on s.execution_id = l.execution_id and s.lease = l.lease
        where l.execution_id = $1 and (l.lease, l.seq) > ($2, $3)
        order by l.lease, l.seq limit $4";
}
