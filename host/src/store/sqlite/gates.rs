//! What decides which executions may go on: permits, rates, and what follows the end of a job.

use crate::store::row::statements;

statements! { GATES:

    // Gates

    TAKE_GATES = "
        delete from gate
        where rowid in (select rowid from gate where stage = $3 and due_at <= $1 order by due_at limit $2)
        returning job_id, key";
    /// A job that is triggered by others has nothing that waits, but signals.
    REOPEN_GATES = "
        insert into gate (stage, job_id, key, due_at)
        select distinct case w.blocker when 'after' then 0 when 'key' then 1 else 2 end as stage, w.job_id,
               case w.blocker when 'key' then w.key else '' end as key, $1
        from waiting w
        where w.job_id in (select value from json_each($2)) and w.due_at is null
          and w.blocker in ('after', 'key', 'limit')
        union select 0, s.job_id, '', $1 from signal s
        where s.job_id in (select value from json_each($2))
        on conflict (stage, job_id, key) do update set due_at = excluded.due_at
        where gate.due_at > excluded.due_at";
    REOPEN_ALL_GATES = "
        insert into gate (stage, job_id, key, due_at)
        select distinct case w.blocker when 'after' then 0 when 'key' then 1 else 2 end as stage, w.job_id,
               case w.blocker when 'key' then w.key else '' end as key, $1
        from waiting w
        where w.due_at is null
          and w.blocker in ('after', 'key', 'limit')
        union select 0, s.job_id, '', $1 from signal s where true
        on conflict (stage, job_id, key) do update set due_at = excluded.due_at
        where gate.due_at > excluded.due_at";
    /// The first in line.
    BLOCKED = "
        select w.execution_id, w.attempt, w.rank, e.queue_id, e.limit_key
        from waiting w
        cross join execution e on e.id = w.execution_id
        where w.job_id = $1 and w.blocker = $2 and w.key = $3 and w.due_at is null
        order by w.rank, w.execution_id limit $4";
    /// The last in line, of those that have not been tried.
    BLOCKED_LAST = "
        select w.execution_id, w.attempt, w.rank, e.queue_id, e.limit_key
        from waiting w
        cross join execution e on e.id = w.execution_id
        where w.job_id = $1 and w.blocker = $2 and w.key = $3 and w.due_at is null and w.attempt = 0
        order by w.rank desc, w.execution_id desc limit $4";
    UNBLOCK = "
        delete from waiting where execution_id in (select unhex(value) from json_each($1)) and blocker = $2 and due_at is null
        returning execution_id";
    /// From its key to its job as a whole.
    PASS_KEY = "
        update waiting set blocker = 'limit', key = ''
        where execution_id in (select unhex(value) from json_each($1)) and blocker = $2 and due_at is null
        returning execution_id";
    /// From other jobs to its own limits.
    PASS_AFTER = "
        update waiting
        set (blocker, key) =
            (select case when e.limit_key is null then 'limit' else 'key' end, coalesce(e.limit_key, '')
             from execution e where e.id = waiting.execution_id)
        where execution_id in (select unhex(value) from json_each($1)) and blocker = $2 and due_at is null
        returning execution_id";

    // Permits

    HOLDERS = "
        select execution_id from permit
        where scope = $1 and owner_id = $2 and key = $3
        order by granted_at, execution_id";
    HOLDER_COUNT = "
        select count(*) from permit where scope = $1 and owner_id = $2 and key = $3";
    GRANT_PERMITS = "
        insert into permit (execution_id, scope, owner_id, key, granted_at)
        select unhex(value), $3, $4, $5, $1 from json_each($2) where true
        on conflict (execution_id, scope) do nothing";
    RELEASE_PERMITS = "
        delete from permit where execution_id in (select unhex(value) from json_each($1)) returning scope, owner_id, key";
    RELEASE_QUEUE_PERMITS = "
        delete from permit where execution_id in (select unhex(value) from json_each($1)) and scope = 'queue'";
    LOCK_QUEUE = "select total_limit from queue where id = $1";

    // Rates

    RATE_USES = "
        select count(*) as uses, count(*) filter (where at is null) as pending, min(at) as first
        from rate_use where job_id = $2 and (at is null or at > $1 - $3)";
    FORGET_RATE_USES = "
        delete from rate_use where job_id = $2 and at <= $1 - $3";
    RESERVE_RATE = "
        insert into rate_use (job_id, execution_id, attempt)
        select $1, unhex(value ->> 0), value ->> 1 from json_each($2) where true
        on conflict do nothing";
    /// An execution that was given back and starts again counts once more.
    USE_RATE = "
        insert into rate_use (job_id, execution_id, attempt, at)
        select value ->> 0, unhex(value ->> 1), value ->> 2, $1 from json_each($2) where true
        on conflict (job_id, execution_id, attempt) do update set at = excluded.at";
    DROP_RATE_USES = "
        delete from rate_use
        where at is null and (job_id, execution_id) in
            (select e.job_id, e.id from json_each($1) u cross join execution e on e.id = unhex(u.value))
        returning job_id";

    // What follows the end of a job

    INSERT_SIGNALS = "
        insert into signal (job_id, kind, upstream_id, execution_id, at)
        select d.job_id, d.kind, d.upstream_id, e.id, $1
        from json_each($2) t
        cross join execution e on e.id = unhex(t.value ->> 0)
        cross join dependency d on d.upstream_id = e.job_id and d.kind = t.value ->> 1
        where true
        returning job_id";
    UPSTREAMS = "
        select upstream_id from dependency where job_id = $1 and kind = $2 order by upstream_id";
    /// The newest of each job that it follows. A column beside `max` is of the row that has it
    /// (sqlite.org/lang_select.html, "bare columns").
    LATEST_SIGNALS = "
        select max(s.id) as id, s.upstream_id, s.execution_id
        from signal s where s.job_id = $1 and s.kind = $2
        group by s.upstream_id order by s.upstream_id";
    OLDEST_SIGNALS = "
        select s.id, s.upstream_id, s.execution_id
        from signal s where s.job_id = $1 and s.kind = $2
        order by s.id limit $3";
    FORGET_SIGNALS = "
        delete from signal where job_id = $1 and kind = $2 and id <= $3";
    /// All but the newest of each, up to `$3`.
    FORGET_OLD_SIGNALS = "
        delete from signal
        where job_id = $1 and kind = $2 and id <= $3
          and exists (select 1 from signal n
                      where n.job_id = signal.job_id and n.kind = signal.kind
                        and n.upstream_id = signal.upstream_id and n.id > signal.id)";
    ENDS = "
        select e.id, j.name as job, e.scheduled_at, c.attempt, c.result, c.error
        from json_each($1) t
        cross join execution e on e.id = unhex(t.value)
        join job j on j.id = e.job_id
        join completion c on c.execution_id = e.id and c.final";
    JOBS_OF = "
        select distinct e.job_id from execution e
        where e.id in (select unhex(value) from json_each($1))";
    /// Not over an end of the job, or what an edit has planned. While it is paused, the time is kept
    /// for whoever resumes it, who waits for this or is waited for.
    SET_PACE = "
        update job
        set next_fire_at = case when paused_at is null then $2 end,
            paused_fire_at = case when paused_at is not null then $2 end
        where id = $1 and retired_at is null and next_fire_at is null and paused_fire_at is null";

    // Queues

    QUEUES = "
        select id, name, owner, weight, total_limit, host_limit, paused_at is not null as paused
        from queue order by id";
}
