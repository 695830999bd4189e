//! What explains to an operator where executions are and what keeps them.

use crate::store::row::statements;

statements! { LOOKS:

    // A job

    JOB_PLACE = "select id, queue_id from innkeeper.job where name = $1";
    /// By what it waits for.
    WAITING_OF_JOB = "
        select blocker, count(*) as executions, min(due_at) as first_due_at
        from innkeeper.waiting where job_id = $1
        group by blocker order by blocker";
    READY_OF_JOB = "
        select count(*) as executions, min(rank) as first_rank from innkeeper.ready where job_id = $1";
    AHEAD_IN_QUEUE = "
        select count(*) from innkeeper.ready where queue_id = $1 and rank < $2 and job_id <> $3";
    WAITING_KEYS = "
        select key, count(*) as executions
        from innkeeper.waiting where job_id = $1 and due_at is null and blocker = 'key'
        group by key order by executions desc, key limit $2";
    /// Of a key, only those that others wait for. A holder without a start waits for a slot.
    HOLDERS_AND_HOSTS = "
        select p.execution_id, p.key, p.granted_at, s.started_at, h.host, count(*) over () as holders
        from innkeeper.permit p
        left join innkeeper.start s on s.execution_id = p.execution_id
            and s.lease = (select max(x.lease) from innkeeper.start x where x.execution_id = p.execution_id)
            and not exists (select 1 from innkeeper.completion c
                            where c.execution_id = s.execution_id and c.lease = s.lease)
        left join innkeeper.host_session h on h.id = s.session_id
        where p.scope = $1 and p.owner_id = $2
          and (p.scope <> 'key'
               or p.key in (select w.key from innkeeper.waiting w
                            where w.job_id = $2 and w.due_at is null and w.blocker = 'key'))
        order by p.granted_at, p.execution_id limit $3";
    /// With the newest success or failure that the job has not followed yet.
    UPSTREAM_JOBS = "
        select u.name, u.retired_at is not null as retired, max(s.at) as told_at
        from innkeeper.dependency d
        join innkeeper.job u on u.id = d.upstream_id
        left join innkeeper.signal s
            on s.job_id = d.job_id and s.kind = d.kind and s.upstream_id = d.upstream_id
        where d.job_id = $1 and d.kind = $2
        group by u.name, u.retired_at order by u.name";
    FOLLOWING_JOBS = "
        select j.name from innkeeper.dependency d join innkeeper.job j on j.id = d.job_id
        where d.upstream_id = $1 and d.kind = $2 and j.retired_at is null
        order by j.name";

    // Plugins

    RUNNING_OF_PLUGIN = "
        select h.host, count(*) as executions
        from innkeeper.host_session h
        join innkeeper.start s on s.session_id = h.id and s.lease >= h.lease_floor
        join innkeeper.execution e on e.id = s.execution_id
        join innkeeper.job j on j.id = e.job_id
        where h.dead_at is null and j.plugin = $1
          and not exists (select 1 from innkeeper.completion c
                          where c.execution_id = s.execution_id and c.lease = s.lease)
        group by h.host order by h.host";

    // Queues

    QUEUE_LOOKS = "
        select q.id, q.name, q.owner, q.weight, q.total_limit, q.host_limit, q.paused_at, q.paused_reason,
               (select count(*) from innkeeper.ready r where r.queue_id = q.id) as ready,
               coalesce(w.executions, 0)::bigint as waiting,
               coalesce(o.executions, 0)::bigint as running
        from innkeeper.queue q
        left join (select j.queue_id, sum(n.executions) as executions
                   from (select job_id, count(*) as executions from innkeeper.waiting group by job_id) n
                   join innkeeper.job j on j.id = n.job_id
                   group by j.queue_id) w on w.queue_id = q.id
        left join (select e.queue_id, count(*) as executions
                   from innkeeper.host_session h
                   join innkeeper.start s on s.session_id = h.id and s.lease >= h.lease_floor
                   join innkeeper.execution e on e.id = s.execution_id
                   where h.dead_at is null
                     and not exists (select 1 from innkeeper.completion c
                                     where c.execution_id = s.execution_id and c.lease = s.lease)
                   group by e.queue_id) o on o.queue_id = q.id
        order by q.name";
    QUEUE_TO_CHANGE = "
        select paused_at from innkeeper.queue where name = $1 for no key update";
    PAUSE_QUEUE = "
        update innkeeper.queue
        set paused_at = coalesce(paused_at, $1, now()), paused_reason = coalesce($3, paused_reason)
        where name = $2";
    RESUME_QUEUE = "
        update innkeeper.queue set paused_at = null, paused_reason = null where name = $1";
}
