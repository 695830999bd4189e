//! What ends executions that somebody wants to end, and those that never start.

use crate::store::row::statements;

statements! { CANCELLING:

    /// `$3` is how many attempts each has made.
    INSERT_UNSTARTED = "
        insert into innkeeper.completion
            (execution_id, lease, attempt, outcome, final, finished_at, error)
        select u.execution_id, 0, u.attempt, $4, true, coalesce($1, now()), $5::json
        from unnest($2::uuid[], $3::int[]) as u (execution_id, attempt)";
    /// What waits for something, and for what.
    SEEN_WAITING = "
        select execution_id, job_id, blocker, key from innkeeper.waiting where execution_id = any ($1)";
    /// Where others wait for permits, or places in a rate, that these hold.
    HELD_GATES = "
        select p.owner_id as job_id, case p.scope when 'key' then p.key end as key
        from innkeeper.permit p
        where p.execution_id = any ($1) and p.scope in ('job', 'key')
        union
        select r.job_id, null
        from unnest($1::uuid[]) as u (execution_id)
        cross join lateral (select * from innkeeper.execution where id = u.execution_id offset 0) e
        join innkeeper.rate_use r on r.job_id = e.job_id and r.execution_id = e.id and r.at is null";
    /// Those that a schedule made.
    FIRES_AMONG = "
        select id from innkeeper.execution where id = any ($1) and fire_time is not null";
    /// Not what a START or a planner is moving: this transaction may hold what those wait for. Nor
    /// what has moved on since it was seen, perhaps to a gate that is not locked.
    TAKE_UNSTARTED = "
        with unwaiting as (
            delete from innkeeper.waiting
            where ctid = any (array(
                select w.ctid
                from unnest($2::uuid[], $3::text[], $4::text[]) as seen (execution_id, blocker, key)
                join innkeeper.waiting w
                  on w.execution_id = seen.execution_id and w.blocker = seen.blocker and w.key = seen.key
                order by w.execution_id for update of w skip locked))
            returning execution_id, attempt
        ), unready as (
            delete from innkeeper.ready
            where ctid = any (array(
                select r.ctid from innkeeper.ready r where r.execution_id = any ($1)
                order by r.execution_id for update skip locked))
            returning execution_id, attempt
        )
        select execution_id, attempt from unwaiting
        union all select execution_id, attempt from unready";
    STANDING = "
        select u.execution_id,
               exists (select 1 from innkeeper.execution e where e.id = u.execution_id) as is_known,
               (select c.outcome from innkeeper.completion c
                where c.execution_id = u.execution_id and c.final) as outcome,
               exists (select 1 from innkeeper.start s
                       where s.execution_id = u.execution_id
                         and not exists (select 1 from innkeeper.completion c
                                         where c.execution_id = s.execution_id and c.lease = s.lease))
                   as is_running
        from unnest($1::uuid[]) as u (execution_id)";
    INSERT_CANCEL_REQUESTS = "
        insert into innkeeper.cancel_request (execution_id, requested_at, reason)
        select u.execution_id, coalesce($1, now()), $3
        from unnest($2::uuid[]) as u (execution_id)
        order by u.execution_id
        on conflict (execution_id) do nothing";
    FORGET_CANCEL_REQUESTS = "delete from innkeeper.cancel_request where execution_id = any ($1)";
    REQUESTED = "
        select execution_id, reason from innkeeper.cancel_request where execution_id = any ($1)";
    /// Begins with the requests, of which there are hardly ever any: then nothing else is read.
    CANCEL_REQUESTS = "
        select q.execution_id, q.reason, s.lease
        from innkeeper.cancel_request q
        left join lateral (
            select x.lease, x.session_id from innkeeper.start x
            where x.execution_id = q.execution_id
              and not exists (select 1 from innkeeper.completion c
                              where c.execution_id = x.execution_id and c.lease = x.lease)
            order by x.lease desc limit 1) s on true
        where s.session_id is null or s.session_id = $1
        order by q.requested_at limit $2";
    UNIQUE_KEY_OF = "select unique_key from innkeeper.execution where id = $1";
}
