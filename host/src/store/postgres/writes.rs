//! What changes the store.

use crate::store::row::statements;

/// Several statements at once, which a database does not prepare: not in the list.
pub(in crate::store) const SCHEMA_INIT: &str = "
    create schema if not exists innkeeper;
    create table if not exists innkeeper.schema_migration (
        number     integer primary key,
        name       text not null,
        checksum   text not null,
        version    text not null,
        applied_at timestamptz not null
    );
    create table if not exists innkeeper.schema_info (
        oldest_compatible integer not null
    );
    insert into innkeeper.schema_info (oldest_compatible)
    select 1 where not exists (select 1 from innkeeper.schema_info)";

/// `$taken` takes rows out of `ready`, as `taken`; `$also` is what else each row of the answer has.
macro_rules! claim {
    ($taken:literal, $also:literal) => {
        concat!(
            "with ",
            $taken,
            "), started as (
            insert into innkeeper.start (execution_id, attempt, session_id, component_id, started_at)
            select t.execution_id, t.attempt + 1, $2, p.component_id, coalesce($1, now())
            from taken t
            join innkeeper.job j on j.id = t.job_id
            join innkeeper.host_plugin p on p.session_id = $2 and p.plugin = j.plugin
            order by t.rank, t.execution_id
            returning lease, execution_id, attempt, component_id, started_at
        )
        select s.lease, s.execution_id, s.attempt, s.started_at,
               (select min(rank) from taken) as lowest_rank, e.job_id, e.args::text as args,
               e.triggered_by, e.scheduled_at, e.max_attempts, e.unique_key is not null as has_unique_key,
               k.state::text as checkpoint,
               (select c.digest from innkeeper.component c where c.id = s.component_id) as component",
            $also,
            "
        from started s
        cross join lateral (select * from innkeeper.execution where id = s.execution_id offset 0) e
        left join lateral (
            select state from innkeeper.checkpoint where execution_id = s.execution_id offset 0) k on true
        order by s.lease"
        )
    };
}

statements! { WRITES:

    // The schema

    SCHEMA_EXISTS = "select to_regclass('innkeeper.schema_migration') is not null";
    SCHEMA_LOCK = "select pg_advisory_xact_lock(7598807797348065637)";
    /// What a host that registers keeps a migration away with, and waits for one with.
    SCHEMA_SHARED_LOCK = "select pg_advisory_xact_lock_shared(7598807797348065637)";
    SCHEMA_LOCK_WAIT = "select set_config('lock_timeout', $1, true)";
    MIGRATIONS = "
        select number, name, checksum, version from innkeeper.schema_migration order by number";
    OLDEST_COMPATIBLE = "select oldest_compatible from innkeeper.schema_info";
    RAISE_OLDEST_COMPATIBLE = "
        update innkeeper.schema_info set oldest_compatible = greatest(oldest_compatible, $1)";
    /// A host that did not say is of the version of migration 1.
    LOCK_OLDER_SESSIONS = "
        select id, host, version, coalesce(knows_migration, 1) as knows_migration, lease_floor,
               expires_at > coalesce($1, now()) as is_live
        from innkeeper.host_session
        where dead_at is null and coalesce(knows_migration, 1) < $2
        order by host, id for update";
    INSERT_MIGRATION = "
        insert into innkeeper.schema_migration (number, name, checksum, version, applied_at)
        values ($2, $3, $4, $5, coalesce($1, now()))";

    // Host sessions

    /// A session after one that was lost is of the same process: what that was asked is asked of it.
    INSERT_SESSION = "
        insert into innkeeper.host_session
            (host, boot_id, version, started_at, expires_at, lease_floor, slots, heartbeat_at, knows_migration,
             drain_requested_at)
        values ($2, $3, $4, coalesce($1, now()), coalesce($1, now()) + $5::bigint * interval '1 microsecond', 0,
                $6, coalesce($1, now()), $7,
                (select min(b.drain_requested_at) from innkeeper.host_session b where b.boot_id = $3))
        returning id";
    INSERT_HOST_PLUGIN = "
        insert into innkeeper.host_plugin (session_id, plugin, component_id)
        select $1, $2, id from innkeeper.component where digest = $3";
    HEARTBEAT = "
        update innkeeper.host_session
        set expires_at = coalesce($1, now()) + $3::bigint * interval '1 microsecond',
            lease_floor = greatest(lease_floor, $4::bigint),
            heartbeat_at = coalesce($1, now()),
            draining_at = case when $5 then coalesce(draining_at, $1, now()) else draining_at end
        where id = $2 and dead_at is null
        returning drain_requested_at is not null,
                  exists (select 1 from innkeeper.reload_request r
                          where r.boot_id = host_session.boot_id and r.done_at is null)";
    /// In one order, so that two requests at once do not wait for each other.
    REQUEST_DRAIN = "
        update innkeeper.host_session
        set drain_requested_at = coalesce(drain_requested_at, $1, now())
        where id = any (array(
            select h.id from innkeeper.host_session h
            where h.host = $2 and h.dead_at is null and h.expires_at > coalesce($1, now())
              and h.slots is not null
            order by h.id for no key update))";
    /// A heartbeat passes this lock, the rescuer's does not.
    LOCK_LIVE_SESSION = "
        select 1 from innkeeper.host_session where id = $1 and dead_at is null for key share";
    LOCK_SESSION_TO_END = "
        select host, lease_floor from innkeeper.host_session where id = $1 and dead_at is null for update";
    EXPIRED_SESSIONS = "
        select id from innkeeper.host_session
        where dead_at is null and expires_at <= coalesce($1, now())
        order by expires_at limit $2";
    /// Skips a session whose host is in the middle of a phase: the next round finds it.
    LOCK_EXPIRED_SESSION = "
        select host, lease_floor from innkeeper.host_session
        where id = $2 and dead_at is null and expires_at <= coalesce($1, now())
        for update skip locked";
    MARK_SESSION_DEAD = "
        update innkeeper.host_session set dead_at = coalesce($1, now()) where id = $2";
    OPEN_STARTS = "
        select s.lease, s.execution_id, s.attempt, e.job_id, e.max_attempts,
               e.unique_key is not null as has_unique_key, e.triggered_by,
               exists (select 1 from innkeeper.permit p where p.execution_id = e.id) as holds_permits
        from innkeeper.start s
        join innkeeper.execution e on e.id = s.execution_id
        where s.session_id = $1 and s.lease >= $2
          and not exists (select 1 from innkeeper.completion c
                          where c.execution_id = s.execution_id and c.lease = s.lease)
        order by s.lease";

    // Definitions

    NOW = "select coalesce($1, now())";
    SAVE_COMPONENT = "
        insert into innkeeper.component (digest, descriptions, created_at)
        values ($2, $3::json, coalesce($1, now()))
        on conflict (digest) do update set descriptions = excluded.descriptions";
    SAVE_PLUGIN = "
        insert into innkeeper.plugin (name, component_id, updated_at)
        select $2, id, coalesce($1, now()) from innkeeper.component where digest = $3
        on conflict (name) do update
        set component_id = excluded.component_id, updated_at = excluded.updated_at";
    JOB_SPECS = "
        select j.id, j.name, j.spec::text as spec, j.queue_id, j.priority, j.gated,
               j.paused_at is not null as paused,
               exists (select 1 from innkeeper.dependency d where d.upstream_id = j.id) as followed,
               (select c.digest
                from innkeeper.host_plugin p
                join innkeeper.component c on c.id = p.component_id
                where p.session_id = $2 and p.plugin = j.plugin) as component
        from innkeeper.job j where j.id = any ($1)";

    // The planner

    NEXT_DUE = "
        select coalesce($1, now()) as now,
               (select min(next_fire_at) from innkeeper.job
                where next_fire_at is not null and paused_at is null and retired_at is null) as job_due,
               (select min(due_at) from innkeeper.waiting where due_at >= $2) as waiting_due,
               (select min(due_at) from innkeeper.gate) as gate_due";
    /// Those of a job that is paused, or that needs permits, go on waiting, for that. Returns the
    /// jobs and keys where somebody has to look whether they may go on. Whoever resumes a job waits
    /// for this, or is waited for: nothing is put to wait for what has been already.
    PROMOTE = "
        with found as materialized (
            select w.place, w.execution_id, w.job_id, w.attempt, e.queue_id, e.limit_key,
                   (extract(epoch from w.due_at) * 1000000)::bigint - e.priority * 60000000::bigint as rank,
                   j.gated, j.paused_at is not null as was_paused
            from (select w.ctid as place, w.execution_id, w.job_id, w.attempt, w.due_at
                  from innkeeper.waiting w
                  where w.due_at >= $3 and w.due_at <= coalesce($1, now())
                  order by w.due_at limit $2
                  for update skip locked) w
            cross join lateral (select * from innkeeper.execution where id = w.execution_id offset 0) e
            cross join lateral (select * from innkeeper.job where id = w.job_id offset 0) j
        ), still_paused as materialized (
            select id from innkeeper.job
            where id = any (array(select job_id from found where was_paused)) and paused_at is not null
            order by id for share
        ), due as materialized (
            select f.*, exists (select 1 from still_paused p where p.id = f.job_id) as paused from found f
        ), gone as (
            delete from innkeeper.waiting
            where ctid = any (array(select place from due where not gated and not paused))
        ), promoted as (
            insert into innkeeper.ready (queue_id, rank, execution_id, job_id, attempt)
            select queue_id, rank, execution_id, job_id, attempt from due where not gated and not paused
        ), held as (
            update innkeeper.waiting w
            set due_at = null, key = coalesce(d.limit_key, ''), rank = d.rank,
                blocker = case when d.paused then 'paused' when d.limit_key is null then 'limit' else 'key' end
            from due d
            where w.ctid = any (array(select place from due where gated or paused))
              and w.execution_id = d.execution_id
        )
        select count(*) as found,
               (json_agg(distinct jsonb_build_array(job_id, coalesce(limit_key, '')))
                filter (where gated and not paused))::text as gates
        from due";

    // Enqueuing

    JOB_TO_ENQUEUE = "
        select id, name, spec::text as spec, queue_id, priority, gated, paused_at is not null as paused,
               coalesce($1, now()) as now
        from innkeeper.job where name = $2 and retired_at is null";
    JOB_NAMES = "select name from innkeeper.job where retired_at is null order by name";
    /// Waits for whoever is inserting or deleting the same key.
    TAKE_UNIQUE_KEY = "
        insert into innkeeper.unique_key (job_id, key, execution_id) values ($1, $2, $3)
        on conflict (job_id, key) do nothing";
    UNIQUE_KEY_HOLDER = "
        select execution_id from innkeeper.unique_key where job_id = $1 and key = $2";
    // New executions

    INSERT_EXECUTIONS = "
        insert into innkeeper.execution
            (id, job_id, queue_id, args, triggered_by, scheduled_at, fire_time, priority, max_attempts,
             unique_key, limit_key, retry_of, created_at)
        select e.id, e.job_id, e.queue_id, e.args::json, e.triggered_by, e.scheduled_at, e.fire_time,
               e.priority, e.max_attempts, e.unique_key, e.limit_key, e.retry_of, coalesce($1, now())
        from unnest($2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[], $7::timestamptz[],
                    $8::timestamptz[], $9::int[], $10::int[], $11::text[], $12::text[], $13::uuid[])
             as e (id, job_id, queue_id, args, triggered_by, scheduled_at, fire_time, priority,
                   max_attempts, unique_key, limit_key, retry_of)
        on conflict (job_id, fire_time) where fire_time is not null do nothing
        returning id";
    INSERT_READY = "
        insert into innkeeper.ready (queue_id, rank, execution_id, job_id, attempt)
        select * from unnest($1::int[], $2::bigint[], $3::uuid[], $4::int[], $5::int[])";
    INSERT_WAITING = "
        insert into innkeeper.waiting (execution_id, job_id, attempt, due_at, blocker, key, rank)
        select * from unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[], $5::text[], $6::text[],
                             $7::bigint[])";
    OPEN_GATES = "
        insert into innkeeper.gate (stage, job_id, key, due_at)
        select g.stage, g.job_id, g.key, coalesce($5, $1, now())
        from unnest($2::smallint[], $3::int[], $4::text[]) with ordinality as g (stage, job_id, key, number)
        order by g.number
        on conflict (stage, job_id, key) do update set due_at = excluded.due_at
        where gate.due_at > excluded.due_at";

    // START

    /// Ranks below `$4` are not looked at. Where somebody holds an old snapshot, the entries of
    /// rows that were deleted stay in the index, and each scan from its start walks over them:
    /// 54 ms after 900,000.
    ///
    /// `offset 0` keeps the server from joining the other way round, from all rows of a table to
    /// those that are asked for, which looks as cheap as long as the table is empty.
    ///
    /// The array is worked out before anything else: what is read of `ready` is the first rows by
    /// its key, and what is deleted is found by its place, whatever the query planner believes of a
    /// table that grows and shrinks faster than its statistics. Whether a row is of a job that may
    /// run here is asked of each row, in a form that cannot become a join: there may be 100,000 jobs.
    CLAIM = claim!("taken as (
            delete from innkeeper.ready
            where ctid = any (array(
                select r.ctid from innkeeper.ready r
                where r.queue_id = $5 and r.rank >= $4
                  and (select q.paused_at is null from innkeeper.queue q where q.id = $5)
                  and (select j.paused_at is null
                       from innkeeper.job j
                       join innkeeper.host_plugin p on p.session_id = $2 and p.plugin = j.plugin
                       where j.id = r.job_id)
                order by r.queue_id, r.rank, r.execution_id
                limit $3
                for update skip locked))
            returning rank, execution_id, job_id, attempt
        ", "");
    /// As CLAIM, where plugins have limits on this host: nothing of those in `$6`, which have reached
    /// theirs, and of each in `$7` so many as `$8` says. What is passed by is many rows, perhaps, of few
    /// plugins; so whose jobs they are is found out once. Up to `$3` rows are candidates, of which those
    /// that are one too many of their plugin stay, and are locked until the commit.
    CLAIM_WITHIN = claim!("candidate as materialized (
            select r.ctid as place, r.rank, r.execution_id, r.job_id
            from innkeeper.ready r
            where r.queue_id = $5 and r.rank >= $4
              and (select q.paused_at is null from innkeeper.queue q where q.id = $5)
              and r.job_id not in (select f.id from innkeeper.job f where f.plugin = any ($6))
              and (select j.paused_at is null
                   from innkeeper.job j
                   join innkeeper.host_plugin p on p.session_id = $2 and p.plugin = j.plugin
                   where j.id = r.job_id)
            order by r.queue_id, r.rank, r.execution_id
            limit $3
            for update skip locked
        ), numbered as (
            select c.place, l.free,
                   row_number() over (partition by j.plugin order by c.rank, c.execution_id) as number
            from candidate c
            cross join lateral (select plugin from innkeeper.job where id = c.job_id offset 0) j
            left join unnest($7::text[], $8::int[]) as l (plugin, free) on l.plugin = j.plugin
        ), taken as (
            delete from innkeeper.ready
            where ctid = any (array(select place from numbered where free is null or number <= free))
            returning rank, execution_id, job_id, attempt
        ",
        ", (select count(*) from candidate) as found, (select max(rank) from candidate) as highest_rank");

    // COMPLETION

    INSERT_COMPLETION = "
        insert into innkeeper.completion
            (execution_id, lease, attempt, outcome, final, finished_at, result, error, usage)
        select s.execution_id, s.lease, s.attempt, c.outcome, c.final, coalesce($1, now()),
               c.result::json, c.error::json, c.usage::json
        from unnest($3::uuid[], $4::bigint[], $5::text[], $6::bool[], $7::text[], $8::text[], $9::text[])
             as c (execution_id, lease, outcome, final, result, error, usage)
        cross join lateral (
            select * from innkeeper.start where session_id = $2 and lease = c.lease offset 0) s
        where s.execution_id = c.execution_id
        on conflict do nothing
        returning lease";
    INSERT_RETRY = "
        insert into innkeeper.waiting (execution_id, job_id, attempt, due_at, blocker)
        select e.id, e.job_id, r.attempt, coalesce($1, now()) + r.wait * interval '1 microsecond', 'retry'
        from unnest($2::uuid[], $3::int[], $4::bigint[]) as r (execution_id, attempt, wait)
        cross join lateral (select * from innkeeper.execution where id = r.execution_id offset 0) e";
    /// Its old place in line: it has waited already.
    REQUEUE = "
        insert into innkeeper.ready (queue_id, rank, execution_id, job_id, attempt)
        select e.queue_id,
               (extract(epoch from e.scheduled_at) * 1000000)::bigint - e.priority * 60000000::bigint,
               e.id, e.job_id, r.attempt
        from unnest($1::uuid[], $2::int[]) as r (execution_id, attempt)
        cross join lateral (select * from innkeeper.execution where id = r.execution_id offset 0) e";
    RELEASE_UNIQUE_KEY = "
        delete from innkeeper.unique_key u using innkeeper.execution e
        where e.id = any ($1) and u.job_id = e.job_id and u.key = e.unique_key and u.execution_id = e.id";
    EXISTING_COMPLETION = "
        select c.lease, c.outcome, c.final, c.result::text as result, c.error::text as error
        from unnest($1::uuid[], $2::bigint[]) as q (execution_id, lease)
        cross join lateral (
            select * from innkeeper.completion
            where execution_id = q.execution_id and lease = q.lease offset 0) c";
    INSERT_STALE = "
        insert into innkeeper.stale (execution_id, lease, session_id, kind, at, detail)
        values ($2, $3, $4, $5, coalesce($1, now()), $6::json)";

    // Handlers

    /// The lock of the start keeps two calls of one attempt from numbering a line alike.
    LOCK_OPEN_START = "
        select 1
        from innkeeper.host_session h
        join innkeeper.start s on s.session_id = h.id
        where h.id = $1 and h.dead_at is null and s.lease = $2 and s.execution_id = $3
          and not exists (select 1 from innkeeper.completion c
                          where c.execution_id = s.execution_id and c.lease = s.lease)
        for key share of h for no key update of s";
    LAST_LOG_SEQ = "
        select coalesce(max(seq), 0) from innkeeper.log where execution_id = $1 and lease = $2";
    INSERT_LOG = "
        insert into innkeeper.log (execution_id, lease, seq, at, level, message, fields)
        select $1, $2, l.seq, l.at, l.level, l.message, l.fields::json
        from unnest($3::int[], $4::timestamptz[], $5::text[], $6::text[], $7::text[])
             as l (seq, at, level, message, fields)";
    /// Not over what a later attempt has written: an answer that was lost may be a commit that is
    /// only on its way.
    SAVE_PROGRESS = "
        insert into innkeeper.progress (execution_id, lease, done, total, message, at)
        values ($2, $3, $4, $5, $6, coalesce($1, now()))
        on conflict (execution_id) do update
        set lease = excluded.lease, done = excluded.done, total = excluded.total,
            message = excluded.message, at = excluded.at
        where progress.lease <= excluded.lease";
    SAVE_CHECKPOINT = "
        insert into innkeeper.checkpoint (execution_id, lease, state, at)
        values ($2, $3, $4::json, coalesce($1, now()))
        on conflict (execution_id) do update
        set lease = excluded.lease, state = excluded.state, at = excluded.at
        where checkpoint.lease <= excluded.lease";
}
