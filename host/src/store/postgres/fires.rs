//! What decides which fires become executions: jobs that are due, paused, changed or run again.

use crate::store::row::statements;

statements! { FIRES:

    // The planner

    /// Not `for update`, which would also hold up whoever only refers to the job. Jobs that are due
    /// at the same time fire in their own order, not in that of their rows on disk.
    LOCK_DUE_JOBS = "
        select id, name, spec::text as spec, queue_id, priority, gated, next_fire_at,
               coalesce($1, now()) as now
        from innkeeper.job
        where next_fire_at <= coalesce($1, now()) and paused_at is null and retired_at is null
        order by next_fire_at, id limit $2
        for no key update skip locked";
    MOVE_FIRE_TIMES = "
        update innkeeper.job j
        set next_fire_at = case when j.paused_at is null then m.fire_at end,
            paused_fire_at = case when j.paused_at is not null then m.fire_at end
        from unnest($1::int[], $2::timestamptz[]) as m (id, fire_at)
        where j.id = m.id";
    INSERT_SKIPS = "
        insert into innkeeper.completion
            (execution_id, lease, attempt, outcome, final, finished_at, result, error)
        select s.execution_id, 0, 0, 'skipped', true, coalesce($1, now()), s.result::json, s.error::json
        from unnest($2::uuid[], $3::text[], $4::text[]) as s (execution_id, result, error)";
    /// Jobs whose next fire is later than now, in the order of their ids from `$2` on.
    JOBS_TO_TURN_BACK = "
        select id, name, spec::text as spec, coalesce(next_fire_at, paused_fire_at) as fire_at,
               coalesce($1, now()) as now
        from innkeeper.job
        where id > $2 and coalesce(next_fire_at, paused_fire_at) > coalesce($1, now())
          and retired_at is null
        order by id limit $3
        for no key update";
    /// Rows of the other tables that were written while the clock was ahead, by more than a second.
    /// In one order each, so that two hosts do not wait for each other.
    TURN_BACK_SESSIONS = "
        update innkeeper.host_session h
        set expires_at = coalesce($1, now()) + (h.expires_at - h.heartbeat_at),
            heartbeat_at = coalesce($1, now())
        from (select id from innkeeper.host_session
              where dead_at is null and heartbeat_at > coalesce($1, now()) + interval '1 second'
              order by id for no key update) ahead
        where h.id = ahead.id";
    /// As long after now as after the end of the attempt before.
    TURN_BACK_RETRIES = "
        update innkeeper.waiting w
        set due_at = coalesce($1, now()) + (w.due_at - ahead.finished_at)
        from (select v.execution_id, c.finished_at
              from innkeeper.waiting v
              join innkeeper.completion c on c.execution_id = v.execution_id
              where v.blocker = 'retry' and v.due_at > coalesce($1, now()) + interval '1 second'
                and c.lease = (select max(l.lease) from innkeeper.completion l
                               where l.execution_id = v.execution_id)
                and c.finished_at > coalesce($1, now()) + interval '1 second'
                and v.due_at >= c.finished_at
              order by v.execution_id for update of v) ahead
        where w.execution_id = ahead.execution_id";
    TURN_BACK_RATE_USES = "
        update innkeeper.rate_use u
        set at = coalesce($1, now())
        from (select job_id, execution_id, attempt from innkeeper.rate_use
              where at > coalesce($1, now()) + interval '1 second'
              order by job_id, execution_id, attempt for update) ahead
        where (u.job_id, u.execution_id, u.attempt)
            = (ahead.job_id, ahead.execution_id, ahead.attempt)";
    TURN_BACK_GATES = "
        update innkeeper.gate g
        set due_at = coalesce($1, now())
        from (select stage, job_id, key from innkeeper.gate
              where due_at > coalesce($1, now())
              order by stage, job_id, key for update) later
        where (g.stage, g.job_id, g.key) = (later.stage, later.job_id, later.key)";
    /// Of these jobs, those with a fire whose execution has not ended. Only the newest fires are
    /// looked at: there is at most one for each schedule that such a job had.
    UNFINISHED_FIRES = "
        select j.id
        from unnest($1::int[]) as j (id)
        where exists (
            select 1
            from (select e.id from innkeeper.execution e
                  where e.job_id = j.id and e.fire_time is not null
                  order by e.fire_time desc limit 100) newest
            where not exists (select 1 from innkeeper.completion c
                              where c.execution_id = newest.id and c.final))";

    // Pausing

    JOB_TO_CHANGE = "
        select id, name, spec::text as spec, queue_id, priority, gated,
               coalesce(next_fire_at, paused_fire_at) as fire_at, paused_at, paused_reason, retired_at,
               coalesce($1, now()) as now
        from innkeeper.job where name = $2
        for no key update";
    PAUSE_JOB = "
        update innkeeper.job
        set paused_at = coalesce(paused_at, $1, now()), paused_reason = coalesce($3, paused_reason),
            paused_fire_at = coalesce(next_fire_at, paused_fire_at), next_fire_at = null
        where id = $2";
    /// What somebody else has in hands is left to them: a START takes nothing of a paused job.
    PAUSE_READY = "
        with taken as (
            delete from innkeeper.ready
            where ctid = any (array(
                select r.ctid from innkeeper.ready r where r.job_id = $1 limit $2
                for update skip locked))
            returning rank, execution_id, job_id, attempt
        ), freed as (
            delete from innkeeper.permit p using taken t where p.execution_id = t.execution_id
        ), unused as (
            delete from innkeeper.rate_use u using taken t
            where u.job_id = t.job_id and u.execution_id = t.execution_id and u.at is null
        )
        insert into innkeeper.waiting (execution_id, job_id, attempt, blocker, key, rank)
        select t.execution_id, t.job_id, t.attempt, 'paused', coalesce(e.limit_key, ''), t.rank
        from taken t
        cross join lateral (select * from innkeeper.execution where id = t.execution_id offset 0) e";
    PAUSE_BLOCKED = "
        update innkeeper.waiting set blocker = 'paused'
        where ctid = any (array(
            select w.ctid from innkeeper.waiting w
            where w.job_id = $1 and w.due_at is null and w.blocker in ('key', 'limit') limit $2
            for update skip locked))";
    RESUME_READY = "
        with taken as (
            delete from innkeeper.waiting
            where ctid = any (array(
                select w.ctid from innkeeper.waiting w
                where w.job_id = $1 and w.due_at is null and w.blocker = 'paused'
                order by w.key, w.rank, w.execution_id limit $2
                for update))
            returning rank, execution_id, job_id, attempt
        )
        insert into innkeeper.ready (queue_id, rank, execution_id, job_id, attempt)
        select e.queue_id, t.rank, t.execution_id, t.job_id, t.attempt
        from taken t
        cross join lateral (select * from innkeeper.execution where id = t.execution_id offset 0) e";
    RESUME_BLOCKED = "
        update innkeeper.waiting set blocker = case when key = '' then 'limit' else 'key' end
        where ctid = any (array(
            select w.ctid from innkeeper.waiting w
            where w.job_id = $1 and w.due_at is null and w.blocker = 'paused'
            order by w.key, w.rank, w.execution_id limit $2
            for update))";
    RESUME_JOB = "
        update innkeeper.job
        set paused_at = null, paused_reason = null, paused_fire_at = null, next_fire_at = $2
        where id = $1";
    /// Waits for whoever resumes one of them; who resumes it later finds what was put to wait.
    PAUSED_JOBS = "
        select id from innkeeper.job
        where id = any ($1) and paused_at is not null order by id
        for share";

    // The jobs and queues of a file

    /// Two hosts that start at once write the same jobs: one after the other. Planners and all who
    /// lock single jobs wait as well, before they have locked any.
    LOCK_JOBS = "lock table innkeeper.job in exclusive mode";
    KNOWN_JOBS = "
        select id, name, owner, spec::text as spec, queue_id, priority, gated,
               coalesce(next_fire_at, paused_fire_at) as fire_at, paused_at is not null as paused,
               retired_at is not null as retired
        from innkeeper.job";
    /// Its executions go on needing permits as long as some hold or await one.
    SAVE_JOBS = "
        insert into innkeeper.job
            (name, owner, plugin, handler, spec, updated_at, next_fire_at, queue_id, priority, gated)
        select s.name, $2, s.plugin, s.handler, s.spec::json, coalesce($1, now()), s.fire_at, q.id,
               s.priority, s.gated
        from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
                    $9::int[], $10::bool[]) with ordinality
             as s (name, plugin, handler, spec, fire_at, queue, priority, gated, number)
        join innkeeper.queue q on q.name = s.queue
        order by s.number
        on conflict (name) do update
        set owner = excluded.owner, plugin = excluded.plugin, handler = excluded.handler,
            spec = excluded.spec, updated_at = excluded.updated_at, retired_at = null,
            next_fire_at = case when job.paused_at is null then excluded.next_fire_at end,
            paused_fire_at = case when job.paused_at is not null then excluded.next_fire_at end,
            queue_id = excluded.queue_id, priority = excluded.priority,
            gated = excluded.gated
                    or exists (select 1 from innkeeper.permit p
                               where p.scope in ('key', 'job') and p.owner_id = job.id)
                    or exists (select 1 from innkeeper.waiting w
                               where w.job_id = job.id and w.due_at is null
                                 and w.blocker in ('key', 'limit'))
        returning id, name";
    TAKE_OVER_JOBS = "
        update innkeeper.job set owner = $2, updated_at = coalesce($1, now()) where id = any ($3)";
    RETIRE_JOBS = "
        update innkeeper.job
        set retired_at = coalesce($1, now()), next_fire_at = null, paused_fire_at = null
        where id = any ($2)";
    DEPENDENCIES = "select job_id, upstream_id, kind from innkeeper.dependency";
    INSERT_DEPENDENCIES = "
        insert into innkeeper.dependency (job_id, upstream_id, kind)
        select * from unnest($1::int[], $2::int[], $3::text[])
        on conflict do nothing";
    DELETE_DEPENDENCIES = "
        delete from innkeeper.dependency d
        using unnest($1::int[], $2::int[], $3::text[]) as g (job_id, upstream_id, kind)
        where d.job_id = g.job_id and d.upstream_id = g.upstream_id and d.kind = g.kind";
    ENSURE_QUEUES = "
        insert into innkeeper.queue (name, owner, weight, updated_at)
        select q.name, '', 1, coalesce($1, now()) from unnest($2::text[]) as q (name) order by q.name
        on conflict (name) do nothing";
    FILE_QUEUES = "
        select name, owner, weight, total_limit, host_limit from innkeeper.queue order by name";
    SAVE_QUEUE = "
        insert into innkeeper.queue (name, owner, weight, total_limit, host_limit, updated_at)
        values ($2, $3, $4, $5, $6, coalesce($1, now()))
        on conflict (name) do update
        set owner = excluded.owner, weight = excluded.weight, total_limit = excluded.total_limit,
            host_limit = excluded.host_limit, updated_at = excluded.updated_at";

    // Backfill

    /// The executions of a job for the times from `$2` to before `$3`.
    EXECUTIONS_OF_TIMES = "
        select e.id, e.scheduled_at, e.succeeded, e.unfinished
        from (select x.id, x.scheduled_at,
                     exists (select 1 from innkeeper.completion c
                             where c.execution_id = x.id and c.final and c.outcome = 'succeeded')
                         as succeeded,
                     not exists (select 1 from innkeeper.completion c
                                 where c.execution_id = x.id and c.final) as unfinished
              from (select f.id, f.fire_time as scheduled_at from innkeeper.execution f
                    where f.job_id = $1 and f.fire_time >= $2 and f.fire_time < $3
                    union all
                    select b.id, b.scheduled_at from innkeeper.execution b
                    where b.job_id = $1 and b.triggered_by = 'backfill'
                      and b.scheduled_at >= $2 and b.scheduled_at < $3) x) e
        where e.succeeded or e.unfinished
        order by e.id";
}
