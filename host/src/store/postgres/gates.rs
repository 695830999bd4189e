//! What decides which executions may go on: permits, rates, and what follows the end of a job.

use crate::store::row::statements;

statements! { GATES:

    // Gates. Whoever takes one holds its row to the end of the transaction: nobody else looks at
    // the same meanwhile.

    TAKE_GATES = "
        delete from innkeeper.gate g
        using (select x.stage, x.job_id, x.key from innkeeper.gate x
               where x.stage = $3 and x.due_at <= coalesce($1, now())
               order by x.due_at limit $2 for update skip locked) t
        where g.stage = t.stage and g.job_id = t.job_id and g.key = t.key
        returning g.job_id, g.key";
    /// A job that is triggered by others has nothing that waits, but signals.
    REOPEN_GATES = "
        insert into innkeeper.gate (stage, job_id, key, due_at)
        select distinct case w.blocker when 'after' then 0 when 'key' then 1 else 2 end as stage, w.job_id,
               case w.blocker when 'key' then w.key else '' end as key, coalesce($1, now())
        from innkeeper.waiting w
        where w.job_id = any ($2) and w.due_at is null and w.blocker in ('after', 'key', 'limit')
        union select 0, s.job_id, '', coalesce($1, now()) from innkeeper.signal s where s.job_id = any ($2)
        order by stage, job_id, key
        on conflict (stage, job_id, key) do update set due_at = excluded.due_at
        where gate.due_at > excluded.due_at";
    REOPEN_ALL_GATES = "
        insert into innkeeper.gate (stage, job_id, key, due_at)
        select distinct case w.blocker when 'after' then 0 when 'key' then 1 else 2 end as stage, w.job_id,
               case w.blocker when 'key' then w.key else '' end as key, coalesce($1, now())
        from innkeeper.waiting w
        where w.due_at is null and w.blocker in ('after', 'key', 'limit')
        union select 0, s.job_id, '', coalesce($1, now()) from innkeeper.signal s
        order by stage, job_id, key
        on conflict (stage, job_id, key) do update set due_at = excluded.due_at
        where gate.due_at > excluded.due_at";
    /// The first in line.
    BLOCKED = "
        select w.execution_id, w.attempt, w.rank, e.queue_id, e.limit_key
        from innkeeper.waiting w
        cross join lateral (select * from innkeeper.execution where id = w.execution_id offset 0) e
        where w.job_id = $1 and w.blocker = $2 and w.key = $3 and w.due_at is null
        order by w.rank, w.execution_id limit $4";
    /// The last in line, of those that have not been tried.
    BLOCKED_LAST = "
        select w.execution_id, w.attempt, w.rank, e.queue_id, e.limit_key
        from innkeeper.waiting w
        cross join lateral (select * from innkeeper.execution where id = w.execution_id offset 0) e
        where w.job_id = $1 and w.blocker = $2 and w.key = $3 and w.due_at is null and w.attempt = 0
        order by w.rank desc, w.execution_id desc limit $4";
    /// None that was cancelled, or paused, in the meantime.
    UNBLOCK = "
        delete from innkeeper.waiting
        where execution_id = any ($1) and blocker = $2 and due_at is null
        returning execution_id";
    /// From its key to its job as a whole.
    PASS_KEY = "
        update innkeeper.waiting set blocker = 'limit', key = ''
        where execution_id = any ($1) and blocker = $2 and due_at is null
        returning execution_id";
    /// From other jobs to its own limits.
    PASS_AFTER = "
        update innkeeper.waiting w
        set blocker = case when e.limit_key is null then 'limit' else 'key' end,
            key = coalesce(e.limit_key, '')
        from innkeeper.execution e
        where w.execution_id = any ($1) and w.blocker = $2 and w.due_at is null and e.id = w.execution_id
        returning w.execution_id";

    // Permits

    HOLDERS = "
        select execution_id from innkeeper.permit
        where scope = $1 and owner_id = $2 and key = $3
        order by granted_at, execution_id";
    HOLDER_COUNT = "
        select count(*) from innkeeper.permit where scope = $1 and owner_id = $2 and key = $3";
    GRANT_PERMITS = "
        insert into innkeeper.permit (execution_id, scope, owner_id, key, granted_at)
        select g.execution_id, $3, $4, $5, coalesce($1, now())
        from unnest($2::uuid[]) as g (execution_id)
        on conflict (execution_id, scope) do nothing";
    RELEASE_PERMITS = "
        delete from innkeeper.permit where execution_id = any ($1) returning scope, owner_id, key";
    RELEASE_QUEUE_PERMITS = "
        delete from innkeeper.permit where execution_id = any ($1) and scope = 'queue'";
    /// Waits for another host's START in the queue. What is counted is counted after that.
    LOCK_QUEUE = "
        select total_limit from innkeeper.queue where id = $1 for no key update";

    // Rates

    RATE_USES = "
        select count(*) as uses, count(*) filter (where at is null) as pending, min(at) as first
        from innkeeper.rate_use
        where job_id = $2 and (at is null or at > coalesce($1, now()) - $3::bigint * interval '1 microsecond')";
    FORGET_RATE_USES = "
        delete from innkeeper.rate_use
        where job_id = $2 and at <= coalesce($1, now()) - $3::bigint * interval '1 microsecond'";
    RESERVE_RATE = "
        insert into innkeeper.rate_use (job_id, execution_id, attempt)
        select $1, r.execution_id, r.attempt from unnest($2::uuid[], $3::int[]) as r (execution_id, attempt)
        on conflict do nothing";
    /// An execution that was given back and starts again counts once more.
    USE_RATE = "
        insert into innkeeper.rate_use (job_id, execution_id, attempt, at)
        select r.job_id, r.execution_id, r.attempt, coalesce($1, now())
        from unnest($2::int[], $3::uuid[], $4::int[]) as r (job_id, execution_id, attempt)
        on conflict (job_id, execution_id, attempt) do update set at = excluded.at";
    DROP_RATE_USES = "
        delete from innkeeper.rate_use r using innkeeper.execution e
        where e.id = any ($1) and r.job_id = e.job_id and r.execution_id = e.id and r.at is null
        returning r.job_id";

    // What follows the end of a job

    INSERT_SIGNALS = "
        insert into innkeeper.signal (job_id, kind, upstream_id, execution_id, at)
        select d.job_id, d.kind, d.upstream_id, e.id, coalesce($1, now())
        from unnest($2::uuid[], $3::text[]) as t (execution_id, kind)
        cross join lateral (select * from innkeeper.execution where id = t.execution_id offset 0) e
        join innkeeper.dependency d on d.upstream_id = e.job_id and d.kind = t.kind
        order by d.job_id
        returning job_id";
    UPSTREAMS = "
        select upstream_id from innkeeper.dependency where job_id = $1 and kind = $2 order by upstream_id";
    /// The newest of each job that it follows.
    LATEST_SIGNALS = "
        select distinct on (s.upstream_id) s.id, s.upstream_id, s.execution_id
        from innkeeper.signal s where s.job_id = $1 and s.kind = $2
        order by s.upstream_id, s.id desc";
    OLDEST_SIGNALS = "
        select s.id, s.upstream_id, s.execution_id
        from innkeeper.signal s where s.job_id = $1 and s.kind = $2
        order by s.id limit $3";
    FORGET_SIGNALS = "
        delete from innkeeper.signal where job_id = $1 and kind = $2 and id <= $3";
    /// All but the newest of each, up to `$3`.
    FORGET_OLD_SIGNALS = "
        delete from innkeeper.signal s
        where s.job_id = $1 and s.kind = $2 and s.id <= $3
          and exists (select 1 from innkeeper.signal n
                      where n.job_id = s.job_id and n.kind = s.kind and n.upstream_id = s.upstream_id
                        and n.id > s.id)";
    ENDS = "
        select e.id, j.name as job, e.scheduled_at, c.attempt, c.result::text as result,
               c.error::text as error
        from unnest($1::uuid[]) as t (id)
        cross join lateral (select * from innkeeper.execution where id = t.id offset 0) e
        join innkeeper.job j on j.id = e.job_id
        join innkeeper.completion c on c.execution_id = e.id and c.final";
    JOBS_OF = "
        select distinct e.job_id from innkeeper.execution e where e.id = any ($1)";
    /// Not over an end of the job, or what an edit has planned. While it is paused, the time is kept
    /// for whoever resumes it, who waits for this or is waited for.
    SET_PACE = "
        update innkeeper.job
        set next_fire_at = case when paused_at is null then $2::timestamptz end,
            paused_fire_at = case when paused_at is not null then $2::timestamptz end
        where id = $1 and retired_at is null and next_fire_at is null and paused_fire_at is null";

    // Queues

    QUEUES = "
        select id, name, owner, weight, total_limit, host_limit, paused_at is not null as paused
        from innkeeper.queue order by id";
}
