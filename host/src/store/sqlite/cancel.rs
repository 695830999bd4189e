//! What ends executions that somebody wants to end, and those that never start.
//!
//! Executions are listed in JSON, in hexadecimal.

use crate::store::row::statements;

statements! { CANCELLING:

    /// A row is `[execution in hexadecimal, attempts that it has made]`.
    INSERT_UNSTARTED = "
        insert into completion
            (execution_id, lease, attempt, outcome, final, finished_at, error)
        select unhex(value ->> 0), 0, value ->> 1, $3, 1, $1, $4
        from json_each($2)";
    /// What waits for something, and for what.
    SEEN_WAITING = "
        select execution_id, job_id, blocker, key from waiting
        where execution_id in (select unhex(value) from json_each($1))";
    /// Where others wait for permits, or places in a rate, that these hold.
    HELD_GATES = "
        select p.owner_id as job_id, case p.scope when 'key' then p.key end as key
        from permit p
        where p.execution_id in (select unhex(value) from json_each($1)) and p.scope in ('job', 'key')
        union
        select r.job_id, null
        from json_each($1) u
        cross join execution e on e.id = unhex(u.value)
        cross join rate_use r on r.job_id = e.job_id and r.execution_id = e.id and r.at is null";
    /// Those that a schedule made.
    FIRES_AMONG = "
        select id from execution
        where id in (select unhex(value) from json_each($1)) and fire_time is not null";
    RELEASE_UNIQUE_KEYS = "
        delete from unique_key
        where (job_id, key, execution_id) in
            (select e.job_id, e.unique_key, e.id from json_each($1) u
             cross join execution e on e.id = unhex(u.value))";
    TAKE_UNSTARTED = "
        select execution_id, attempt from waiting
        where execution_id in (select unhex(value) from json_each($1))
        union all
        select execution_id, attempt from ready
        where execution_id in (select unhex(value) from json_each($1))";
    FORGET_WAITING = "
        delete from waiting where execution_id in (select unhex(value) from json_each($1))";
    FORGET_READY = "
        delete from ready where execution_id in (select unhex(value) from json_each($1))";
    STANDING = "
        select unhex(u.value) as execution_id,
               exists (select 1 from execution e where e.id = unhex(u.value)) as is_known,
               (select c.outcome from completion c
                where c.execution_id = unhex(u.value) and c.final) as outcome,
               exists (select 1 from start s
                       where s.execution_id = unhex(u.value)
                         and not exists (select 1 from completion c
                                         where c.execution_id = s.execution_id and c.lease = s.lease))
                   as is_running
        from json_each($1) u";
    INSERT_CANCEL_REQUESTS = "
        insert into cancel_request (execution_id, requested_at, reason)
        select unhex(value), $1, $3 from json_each($2) where true
        on conflict (execution_id) do nothing";
    FORGET_CANCEL_REQUESTS = "
        delete from cancel_request where execution_id in (select unhex(value) from json_each($1))";
    REQUESTED = "
        select execution_id, reason from cancel_request
        where execution_id in (select unhex(value) from json_each($1))";
    /// Begins with the requests, of which there are hardly ever any: then nothing else is read.
    CANCEL_REQUESTS = "
        select q.execution_id, q.reason, s.lease
        from cancel_request q
        left join start s on s.execution_id = q.execution_id
            and not exists (select 1 from completion c
                            where c.execution_id = s.execution_id and c.lease = s.lease)
        where s.session_id is null or s.session_id = $1
        order by q.requested_at limit $2";
    UNIQUE_KEY_OF = "select unique_key from execution where id = $1";
}
