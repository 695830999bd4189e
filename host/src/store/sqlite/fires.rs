//! What decides which fires become executions: jobs that are due, paused, changed or run again.

use crate::store::row::statements;

statements! { FIRES:

    // The planner

    LOCK_DUE_JOBS = "
        select id, name, spec, queue_id, priority, gated, next_fire_at, $1 as now
        from job
        where next_fire_at <= $1 and paused_at is null and retired_at is null
        order by next_fire_at, id limit $2";
    /// A row is `[job, time]`.
    MOVE_FIRE_TIMES = "
        update job
        set next_fire_at = case when job.paused_at is null then m.value ->> 1 end,
            paused_fire_at = case when job.paused_at is not null then m.value ->> 1 end
        from json_each($1) m
        where job.id = m.value ->> 0";
    /// A row is `[execution in hexadecimal, result, error]`.
    INSERT_SKIPS = "
        insert into completion
            (execution_id, lease, attempt, outcome, final, finished_at, result, error)
        select unhex(value ->> 0), 0, 0, 'skipped', 1, $1, value ->> 1, value ->> 2
        from json_each($2)";
    /// Jobs whose next fire is later than now, in the order of their ids from `$2` on.
    JOBS_TO_TURN_BACK = "
        select id, name, spec, coalesce(next_fire_at, paused_fire_at) as fire_at, $1 as now
        from job
        where id > $2 and coalesce(next_fire_at, paused_fire_at) > $1 and retired_at is null
        order by id limit $3";
    /// Rows of the other tables that were written while the clock was ahead, by more than a second.
    TURN_BACK_SESSIONS = "
        update host_session set expires_at = $1 + (expires_at - heartbeat_at), heartbeat_at = $1
        where dead_at is null and heartbeat_at > $1 + 1000000";
    /// As long after now as after the end of the attempt before.
    TURN_BACK_RETRIES = "
        update waiting set due_at = $1 + (waiting.due_at - c.finished_at)
        from completion c
        where waiting.blocker = 'retry' and waiting.due_at > $1 + 1000000
          and c.execution_id = waiting.execution_id
          and c.lease = (select max(l.lease) from completion l where l.execution_id = waiting.execution_id)
          and c.finished_at > $1 + 1000000 and waiting.due_at >= c.finished_at";
    TURN_BACK_RATE_USES = "
        update rate_use set at = $1 where at > $1 + 1000000";
    TURN_BACK_GATES = "
        update gate set due_at = $1 where due_at > $1";
    /// Of these jobs, those with a fire whose execution has not ended. Only the newest fires are
    /// looked at: there is at most one for each schedule that such a job had.
    UNFINISHED_FIRES = "
        select j.value as id
        from json_each($1) j
        where exists (
            select 1
            from (select e.id from execution e
                  where e.job_id = j.value and e.fire_time is not null
                  order by e.fire_time desc limit 100) newest
            where not exists (select 1 from completion c
                              where c.execution_id = newest.id and c.final))";

    // Pausing

    JOB_TO_CHANGE = "
        select id, name, spec, queue_id, priority, gated,
               coalesce(next_fire_at, paused_fire_at) as fire_at, paused_at, paused_reason, retired_at,
               $1 as now
        from job where name = $2";
    PAUSE_JOB = "
        update job
        set paused_at = coalesce(paused_at, $1), paused_reason = coalesce($3, paused_reason),
            paused_fire_at = coalesce(next_fire_at, paused_fire_at), next_fire_at = null
        where id = $2";
    /// The rows are deleted by `FORGET_PAUSED_READY`, by the same order and limit.
    PAUSE_READY = "
        insert into waiting (execution_id, job_id, attempt, blocker, key, rank)
        select r.execution_id, r.job_id, r.attempt, 'paused', coalesce(e.limit_key, ''), r.rank
        from (select * from ready where job_id = $1 order by queue_id, rank, execution_id limit $2) r
        join execution e on e.id = r.execution_id";
    FREE_READY_PERMITS = "
        delete from permit
        where execution_id in
            (select execution_id from ready where job_id = $1 order by queue_id, rank, execution_id limit $2)";
    FREE_READY_RATE_USES = "
        delete from rate_use
        where job_id = $1 and at is null and execution_id in
            (select execution_id from ready where job_id = $1 order by queue_id, rank, execution_id limit $2)";
    FORGET_PAUSED_READY = "
        delete from ready
        where execution_id in
            (select execution_id from ready where job_id = $1 order by queue_id, rank, execution_id limit $2)";
    PAUSE_BLOCKED = "
        update waiting set blocker = 'paused'
        where execution_id in
            (select execution_id from waiting
             where job_id = $1 and due_at is null and blocker in ('key', 'limit') limit $2)";
    /// The rows are deleted by `FORGET_PAUSED`, by the same order and limit.
    RESUME_READY = "
        insert into ready (queue_id, rank, execution_id, job_id, attempt)
        select e.queue_id, w.rank, w.execution_id, w.job_id, w.attempt
        from (select * from waiting where job_id = $1 and due_at is null and blocker = 'paused'
              order by key, rank, execution_id limit $2) w
        join execution e on e.id = w.execution_id";
    FORGET_PAUSED = "
        delete from waiting
        where execution_id in
            (select execution_id from waiting where job_id = $1 and due_at is null and blocker = 'paused'
             order by key, rank, execution_id limit $2)";
    RESUME_BLOCKED = "
        update waiting set blocker = case when key = '' then 'limit' else 'key' end
        where execution_id in
            (select execution_id from waiting where job_id = $1 and due_at is null and blocker = 'paused'
             order by key, rank, execution_id limit $2)";
    RESUME_JOB = "
        update job
        set paused_at = null, paused_reason = null, paused_fire_at = null, next_fire_at = $2
        where id = $1";
    PAUSED_JOBS = "
        select id from job
        where id in (select value from json_each($1)) and paused_at is not null order by id";

    // The jobs and queues of a file

    LOCK_JOBS = "select 1";
    KNOWN_JOBS = "
        select id, name, owner, spec, queue_id, priority, gated,
               coalesce(next_fire_at, paused_fire_at) as fire_at, paused_at is not null as paused,
               retired_at is not null as retired
        from job";
    /// A row is the columns in their order, with the queue's name. Its executions go on needing
    /// permits as long as some hold or await one.
    SAVE_JOBS = "
        insert into job
            (name, owner, plugin, handler, spec, updated_at, next_fire_at, queue_id, priority, gated)
        select s.value ->> 0, $2, s.value ->> 1, s.value ->> 2, s.value ->> 3, $1, s.value ->> 4, q.id,
               s.value ->> 6, s.value ->> 7
        from json_each($3) s
        join queue q on q.name = s.value ->> 5
        where true order by s.key
        on conflict (name) do update
        set owner = excluded.owner, plugin = excluded.plugin, handler = excluded.handler,
            spec = excluded.spec, updated_at = excluded.updated_at, retired_at = null,
            next_fire_at = case when job.paused_at is null then excluded.next_fire_at end,
            paused_fire_at = case when job.paused_at is not null then excluded.next_fire_at end,
            queue_id = excluded.queue_id, priority = excluded.priority,
            gated = excluded.gated
                    or exists (select 1 from permit p
                               where p.scope in ('key', 'job') and p.owner_id = job.id)
                    or exists (select 1 from waiting w
                               where w.job_id = job.id and w.due_at is null
                                 and w.blocker in ('key', 'limit'))
        returning id, name";
    TAKE_OVER_JOBS = "
        update job set owner = $2, updated_at = $1 where id in (select value from json_each($3))";
    RETIRE_JOBS = "
        update job set retired_at = $1, next_fire_at = null, paused_fire_at = null
        where id in (select value from json_each($2))";
    DEPENDENCIES = "select job_id, upstream_id, kind from dependency";
    INSERT_DEPENDENCIES = "
        insert into dependency (job_id, upstream_id, kind)
        select value ->> 0, value ->> 1, value ->> 2 from json_each($1) where true
        on conflict do nothing";
    DELETE_DEPENDENCIES = "
        delete from dependency
        where (job_id, upstream_id, kind) in
            (select value ->> 0, value ->> 1, value ->> 2 from json_each($1))";
    ENSURE_QUEUES = "
        insert into queue (name, owner, weight, updated_at)
        select value, '', 1, $1 from json_each($2) where true order by value
        on conflict (name) do nothing";
    FILE_QUEUES = "
        select name, owner, weight, total_limit, host_limit from queue order by name";
    SAVE_QUEUE = "
        insert into queue (name, owner, weight, total_limit, host_limit, updated_at)
        values ($2, $3, $4, $5, $6, $1)
        on conflict (name) do update
        set owner = excluded.owner, weight = excluded.weight, total_limit = excluded.total_limit,
            host_limit = excluded.host_limit, updated_at = excluded.updated_at";

    // Backfill

    /// The executions of a job for the times from `$2` to before `$3`.
    EXECUTIONS_OF_TIMES = "
        select e.id, e.scheduled_at, e.succeeded, e.unfinished
        from (select x.id, x.scheduled_at,
                     exists (select 1 from completion c
                             where c.execution_id = x.id and c.final and c.outcome = 'succeeded')
                         as succeeded,
                     not exists (select 1 from completion c
                                 where c.execution_id = x.id and c.final) as unfinished
              from (select f.id, f.fire_time as scheduled_at from execution f
                    where f.job_id = $1 and f.fire_time >= $2 and f.fire_time < $3
                    union all
                    select b.id, b.scheduled_at from execution b
                    where b.job_id = $1 and b.triggered_by = 'backfill'
                      and b.scheduled_at >= $2 and b.scheduled_at < $3) x) e
        where e.succeeded or e.unfinished
        order by e.id";
}
