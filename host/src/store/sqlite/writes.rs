//! What changes the store.

use crate::store::row::statements;

/// Several statements at once, which a database does not prepare: not in the list.
pub(in crate::store) const SCHEMA_INIT: &str = "
    create table if not exists schema_migration (
        number     integer primary key,
        name       text not null,
        checksum   text not null,
        version    text not null,
        applied_at integer not null
    ) strict;
    create table if not exists schema_info (
        oldest_compatible integer not null
    ) strict;
    insert into schema_info (oldest_compatible)
    select 1 where not exists (select 1 from schema_info)";

statements! { WRITES:

    // The schema

    SCHEMA_EXISTS = "select exists (select 1 from sqlite_master where name = 'schema_migration')";
    /// The transaction has the lock.
    SCHEMA_LOCK = "select 1";
    /// The transaction has the lock.
    SCHEMA_SHARED_LOCK = "select 1";
    /// Nobody else has one.
    SCHEMA_LOCK_WAIT = "select $1";
    MIGRATIONS = "
        select number, name, checksum, version from schema_migration order by number";
    OLDEST_COMPATIBLE = "select oldest_compatible from schema_info";
    RAISE_OLDEST_COMPATIBLE = "
        update schema_info set oldest_compatible = max(oldest_compatible, $1)";
    /// A host that did not say is of the version of migration 1.
    LOCK_OLDER_SESSIONS = "
        select id, host, version, coalesce(knows_migration, 1) as knows_migration, lease_floor,
               expires_at > $1 as is_live
        from host_session
        where dead_at is null and coalesce(knows_migration, 1) < $2
        order by host, id";
    INSERT_MIGRATION = "
        insert into schema_migration (number, name, checksum, version, applied_at)
        values ($2, $3, $4, $5, $1)";

    // Host sessions

    /// A session after one that was lost is of the same process: what that was asked is asked of it.
    INSERT_SESSION = "
        insert into host_session
            (host, boot_id, version, started_at, expires_at, lease_floor, slots, heartbeat_at, knows_migration,
             drain_requested_at)
        values ($2, $3, $4, $1, $1 + $5, 0, $6, $1, $7,
                (select min(b.drain_requested_at) from host_session b where b.boot_id = $3))
        returning id";
    INSERT_HOST_PLUGIN = "
        insert into host_plugin (session_id, plugin, component_id)
        select $1, $2, id from component where digest = $3";
    HEARTBEAT = "
        update host_session
        set expires_at = $1 + $3,
            lease_floor = max(lease_floor, coalesce($4, lease_floor)),
            heartbeat_at = $1,
            draining_at = case when $5 then coalesce(draining_at, $1) else draining_at end
        where id = $2 and dead_at is null
        returning drain_requested_at is not null,
                  exists (select 1 from reload_request r
                          where r.boot_id = host_session.boot_id and r.done_at is null)";
    REQUEST_DRAIN = "
        update host_session
        set drain_requested_at = coalesce(drain_requested_at, $1)
        where host = $2 and dead_at is null and expires_at > $1 and slots is not null";
    LOCK_LIVE_SESSION = "
        select 1 from host_session where id = $1 and dead_at is null";
    LOCK_SESSION_TO_END = "
        select host, lease_floor from host_session where id = $1 and dead_at is null";
    EXPIRED_SESSIONS = "
        select id from host_session
        where dead_at is null and expires_at <= $1
        order by expires_at limit $2";
    LOCK_EXPIRED_SESSION = "
        select host, lease_floor from host_session
        where id = $2 and dead_at is null and expires_at <= $1";
    MARK_SESSION_DEAD = "
        update host_session set dead_at = $1 where id = $2";
    OPEN_STARTS = "
        select s.lease, s.execution_id, s.attempt, e.job_id, e.max_attempts,
               e.unique_key is not null as has_unique_key, e.triggered_by,
               exists (select 1 from permit p where p.execution_id = e.id) as holds_permits
        from start s
        join execution e on e.id = s.execution_id
        where s.session_id = $1 and s.lease >= $2
          and not exists (select 1 from completion c
                          where c.execution_id = s.execution_id and c.lease = s.lease)
        order by s.lease";

    // Definitions

    NOW = "select $1";
    SAVE_COMPONENT = "
        insert into component (digest, descriptions, created_at)
        values ($2, $3, $1)
        on conflict (digest) do update set descriptions = excluded.descriptions";
    SAVE_PLUGIN = "
        insert into plugin (name, component_id, updated_at)
        select $2, id, $1 from component where digest = $3
        on conflict (name) do update
        set component_id = excluded.component_id, updated_at = excluded.updated_at";
    JOB_SPECS = "
        select j.id, j.name, j.spec, j.queue_id, j.priority, j.gated, j.paused_at is not null as paused,
               exists (select 1 from dependency d where d.upstream_id = j.id) as followed,
               (select c.digest
                from host_plugin p
                join component c on c.id = p.component_id
                where p.session_id = $2 and p.plugin = j.plugin) as component
        from job j where j.id = $1";

    // The planner

    NEXT_DUE = "
        select $1 as now,
               (select min(next_fire_at) from job
                where next_fire_at is not null and paused_at is null and retired_at is null) as job_due,
               (select min(due_at) from waiting where due_at >= $2) as waiting_due,
               (select min(due_at) from gate) as gate_due";
    /// What is due of jobs that are paused or need permits: execution in hexadecimal, job, key,
    /// rank, whether it is paused. Not above its limit is what PROMOTE takes.
    DUE_AND_HELD = "
        select json_group_array(json_array(hex(w.execution_id), w.job_id, coalesce(e.limit_key, ''),
                                           w.due_at - e.priority * 60000000, j.paused_at is not null,
                                           e.limit_key is not null))
        from (select * from waiting where due_at <= $1 order by due_at, execution_id limit $2) w
        join execution e on e.id = w.execution_id
        join job j on j.id = w.job_id
        where j.gated or j.paused_at is not null";
    HOLD = "
        update waiting
        set due_at = null, key = h.value ->> 2, rank = h.value ->> 3,
            blocker = case when h.value ->> 4 then 'paused' when h.value ->> 5 then 'key' else 'limit' end
        from json_each($1) h
        where waiting.execution_id = unhex(h.value ->> 0)";
    PROMOTE = "
        insert into ready (queue_id, rank, execution_id, job_id, attempt)
        select e.queue_id, w.due_at - e.priority * 60000000, w.execution_id, w.job_id, w.attempt
        from (select * from waiting where due_at <= $1 order by due_at, execution_id limit $2) w
        join execution e on e.id = w.execution_id";
    /// The rows that PROMOTE took, by the same order and limit.
    FORGET_PROMOTED = "
        delete from waiting where execution_id in
            (select execution_id from waiting where due_at <= $1 order by due_at, execution_id limit $2)";

    // Enqueuing

    JOB_TO_ENQUEUE = "
        select id, name, spec, queue_id, priority, gated, paused_at is not null as paused, $1 as now
        from job where name = $2 and retired_at is null";
    JOB_NAMES = "select name from job where retired_at is null order by name";
    TAKE_UNIQUE_KEY = "
        insert into unique_key (job_id, key, execution_id) values ($1, $2, $3)
        on conflict (job_id, key) do nothing";
    UNIQUE_KEY_HOLDER = "
        select execution_id from unique_key where job_id = $1 and key = $2";
    // New executions

    LAST_EXECUTION = "select coalesce(max(rowid), 0) from execution";
    /// A row is the columns in their order, ids in hexadecimal.
    INSERT_EXECUTIONS = "
        insert into execution
            (id, job_id, queue_id, args, triggered_by, scheduled_at, fire_time, priority, max_attempts,
             unique_key, limit_key, retry_of, created_at)
        select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
               value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, unhex(value ->> 11), $1
        from json_each($2) where true
        on conflict (job_id, fire_time) where fire_time is not null do nothing";
    EXECUTIONS_AFTER = "select json_group_array(hex(id)) from execution where rowid > $1";
    INSERT_READY = "
        insert into ready (queue_id, rank, execution_id, job_id, attempt)
        select value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4 from json_each($1)";
    INSERT_WAITING = "
        insert into waiting (execution_id, job_id, attempt, due_at, blocker, key, rank)
        select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
               value ->> 6
        from json_each($1)";
    OPEN_GATES = "
        insert into gate (stage, job_id, key, due_at)
        select value ->> 0, value ->> 1, value ->> 2, coalesce($3, $1) from json_each($2) where true
        on conflict (stage, job_id, key) do update set due_at = excluded.due_at
        where gate.due_at > excluded.due_at";

    // START

    /// What START may take. `cross join` keeps SQLite from reading any table before `ready`.
    CLAIM = "
        select json_group_array(json_array(
                   rank, hex(execution_id), attempt, component_id, job_id, args, triggered_by,
                   scheduled_at, max_attempts, keyed, checkpoint,
                   (select c.digest from component c where c.id = component_id)) order by rank, execution_id)
        from (
        select r.rank, r.execution_id, r.attempt, r.job_id, e.args, e.triggered_by, e.scheduled_at,
               e.max_attempts, e.unique_key is not null as keyed, k.state as checkpoint,
               (select p.component_id from job j join host_plugin p on p.plugin = j.plugin
                where j.id = r.job_id and p.session_id = $1) as component_id
        from ready r
        cross join execution e on e.id = r.execution_id
        left join checkpoint k on k.execution_id = r.execution_id
        where r.queue_id = $4 and r.rank >= $3
          and (select q.paused_at is null from queue q where q.id = $4)
          and (select j.paused_at is null
               from job j join host_plugin p on p.session_id = $1 and p.plugin = j.plugin
               where j.id = r.job_id)
        order by r.queue_id, r.rank, r.execution_id
        limit $2)";
    /// As CLAIM, where plugins have limits on this host: nothing of those in `$5`, which have reached
    /// theirs, and of each in `$6`, a list of `[plugin, number]`, no more than its number. Up to `$2` rows
    /// are candidates, of which those that are one too many of their plugin stay.
    CLAIM_WITHIN = "
        select json_group_array(json_array(
                   rank, hex(execution_id), attempt, component_id, job_id, args, triggered_by,
                   scheduled_at, max_attempts, keyed, checkpoint,
                   (select c.digest from component c where c.id = component_id), found, highest_rank)
                   order by rank, execution_id)
        from (
        select c.*, l.value ->> 1 as free,
               row_number() over (partition by c.plugin order by c.rank, c.execution_id) as number,
               count(*) over () as found, max(c.rank) over () as highest_rank
        from (
        select r.rank, r.execution_id, r.attempt, r.job_id, e.args, e.triggered_by, e.scheduled_at,
               e.max_attempts, e.unique_key is not null as keyed, k.state as checkpoint,
               (select j.plugin from job j where j.id = r.job_id) as plugin,
               (select p.component_id from job j join host_plugin p on p.plugin = j.plugin
                where j.id = r.job_id and p.session_id = $1) as component_id
        from ready r
        cross join execution e on e.id = r.execution_id
        left join checkpoint k on k.execution_id = r.execution_id
        where r.queue_id = $4 and r.rank >= $3
          and (select q.paused_at is null from queue q where q.id = $4)
          and r.job_id not in (select f.id from job f where f.plugin in (select value from json_each($5)))
          and (select j.paused_at is null
               from job j join host_plugin p on p.session_id = $1 and p.plugin = j.plugin
               where j.id = r.job_id)
        order by r.queue_id, r.rank, r.execution_id
        limit $2) c
        left join json_each($6) l on l.value ->> 0 = c.plugin)
        where free is null or number <= free";
    /// A row is `[execution in hexadecimal, attempt, component]`.
    TAKE_READY = "
        delete from ready
        where execution_id in (select unhex(value ->> 0) from json_each($1))";
    INSERT_STARTS = "
        insert into start (execution_id, attempt, session_id, component_id, started_at)
        select unhex(value ->> 0), value ->> 1, $3, value ->> 2, $1
        from json_each($2) order by key";
    LAST_LEASE = "select coalesce(max(lease), 0) from start";
    LEASES_AFTER = "
        select json_group_array(json_array(hex(execution_id), lease)) from start where lease > $1";

    // COMPLETION

    LAST_COMPLETION = "select coalesce(max(rowid), 0) from completion";
    /// A row is `[execution in hexadecimal, lease, outcome, final, result, error, usage]`.
    INSERT_COMPLETION = "
        insert into completion
            (execution_id, lease, attempt, outcome, final, finished_at, result, error, usage)
        select s.execution_id, s.lease, s.attempt, c.value ->> 2, c.value ->> 3, $1,
               c.value ->> 4, c.value ->> 5, c.value ->> 6
        from json_each($3) c
        cross join start s on s.lease = c.value ->> 1
        where s.session_id = $2 and s.execution_id = unhex(c.value ->> 0)
        on conflict do nothing";
    COMPLETIONS_AFTER = "select json_group_array(lease) from completion where rowid > $1";
    INSERT_RETRY = "
        insert into waiting (execution_id, job_id, attempt, due_at, blocker)
        select e.id, e.job_id, $3, $1 + $4, 'retry'
        from execution e where e.id = $2";
    REQUEUE = "
        insert into ready (queue_id, rank, execution_id, job_id, attempt)
        select e.queue_id, e.scheduled_at - e.priority * 60000000, e.id, e.job_id, $2
        from execution e where e.id = $1";
    RELEASE_UNIQUE_KEY = "
        delete from unique_key
        where execution_id = $1
          and (job_id, key) = (select e.job_id, e.unique_key from execution e where e.id = $1)";
    EXISTING_COMPLETION = "
        select lease, outcome, final, result, error
        from completion where execution_id = $1 and lease = $2";
    INSERT_STALE = "
        insert into stale (execution_id, lease, session_id, kind, at, detail)
        values ($2, $3, $4, $5, $1, $6)";

    // Handlers

    LOCK_OPEN_START = "
        select 1
        from host_session h
        join start s on s.session_id = h.id
        where h.id = $1 and h.dead_at is null and s.lease = $2 and s.execution_id = $3
          and not exists (select 1 from completion c
                          where c.execution_id = s.execution_id and c.lease = s.lease)";
    LAST_LOG_SEQ = "
        select coalesce(max(seq), 0) from log where execution_id = $1 and lease = $2";
    INSERT_LOG = "
        insert into log (execution_id, lease, seq, at, level, message, fields)
        values ($1, $2, $3, $4, $5, $6, $7)";
    /// Not over what a later attempt has written: an answer that was lost may be a commit that is
    /// only on its way.
    SAVE_PROGRESS = "
        insert into progress (execution_id, lease, done, total, message, at)
        values ($2, $3, $4, $5, $6, $1)
        on conflict (execution_id) do update
        set lease = excluded.lease, done = excluded.done, total = excluded.total,
            message = excluded.message, at = excluded.at
        where progress.lease <= excluded.lease";
    SAVE_CHECKPOINT = "
        insert into checkpoint (execution_id, lease, state, at)
        values ($2, $3, $4, $1)
        on conflict (execution_id) do update
        set lease = excluded.lease, state = excluded.state, at = excluded.at
        where checkpoint.lease <= excluded.lease";
}
