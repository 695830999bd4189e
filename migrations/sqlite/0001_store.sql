-- The host's own records. docs: ARCHITECTURE.md, "The store".
--
-- History (execution, start, completion) is only ever inserted; `ready` is the one table
-- that churns. States such as `running` are derived from these rows and never stored.
-- The PostgreSQL file of the same name has the same tables and columns. Times are
-- microseconds since 1970-01-01T00:00:00Z, booleans 0 and 1, ids 16 bytes.

-- The definitions

create table job (
    id           integer primary key autoincrement,
    name         text not null unique,
    -- Whose definition it is: a job that its owner no longer names is retired.
    owner        text not null,
    -- `plugin` and `handler` repeat what `spec` says, since START selects by plugin.
    plugin       text not null,
    handler      text not null,
    spec         text not null,
    updated_at   integer not null,
    paused_at    integer,
    retired_at   integer,
    next_fire_at integer
) strict;
create index job_next_fire_at on job (next_fire_at) where next_fire_at is not null;
create index job_plugin on job (plugin);

create table component (
    id           integer primary key autoincrement,
    digest       text not null unique,
    descriptions text not null,
    created_at   integer not null
) strict;

create table plugin (
    name         text not null primary key,
    component_id integer not null references component (id),
    updated_at   integer not null
) strict;

-- The hosts

-- One life of a host process. `dead_at` is set once and never taken back.
create table host_session (
    id          integer primary key autoincrement,
    host        text not null,
    boot_id     blob not null,
    version     text not null,
    started_at  integer not null,
    expires_at  integer not null,
    dead_at     integer,
    -- No start of this session with a lower lease is open.
    lease_floor integer not null
) strict;
create index host_session_alive on host_session (id) where dead_at is null;

create table host_plugin (
    session_id   integer not null references host_session (id) on delete cascade,
    plugin       text not null,
    component_id integer not null references component (id),
    primary key (session_id, plugin)
) strict;

-- The executions. No foreign keys from here on, as on PostgreSQL.

create table execution (
    id           blob not null primary key,
    job_id       integer not null,
    queue_id     integer not null,
    args         text not null,
    triggered_by text not null,
    scheduled_at integer not null,
    -- Null except for fires of a schedule.
    fire_time    integer,
    priority     integer not null,
    max_attempts integer not null,
    unique_key   text,
    created_at   integer not null
) strict;
create unique index execution_fire_time on execution (job_id, fire_time) where fire_time is not null;
create index execution_job on execution (job_id, id);

-- What may start now. `attempt` counts the attempts that were made.
create table ready (
    queue_id     integer not null,
    rank         integer not null,
    execution_id blob not null,
    job_id       integer not null,
    attempt      integer not null,
    primary key (queue_id, rank, execution_id)
) strict, without rowid;
create unique index ready_execution on ready (execution_id);

-- What may not start yet, and why: `due` and `retry` wait for `due_at`.
create table waiting (
    execution_id blob not null primary key,
    job_id       integer not null,
    attempt      integer not null,
    due_at       integer,
    blocker      text not null
) strict;
create index waiting_due_at on waiting (due_at) where due_at is not null;

-- AUTOINCREMENT, since a plain rowid is used again once the highest is deleted.
create table start (
    lease        integer primary key autoincrement,
    execution_id blob not null,
    attempt      integer not null,
    session_id   integer not null,
    component_id integer not null,
    started_at   integer not null
) strict;
-- A session's open starts are found from its lease_floor on.
create index start_session on start (session_id, lease);
create index start_execution on start (execution_id, lease);

-- Lease 0 ends an execution that never started.
create table completion (
    execution_id blob not null,
    lease        integer not null,
    attempt      integer not null,
    outcome      text not null,
    final        integer not null,
    finished_at  integer not null,
    result       text,
    error        text,
    primary key (execution_id, lease)
) strict;
create unique index completion_final on completion (execution_id) where final;
create index completion_unsuccessful on completion (execution_id) where final and outcome <> 'succeeded';

create table unique_key (
    job_id       integer not null,
    key          text not null,
    execution_id blob not null,
    primary key (job_id, key)
) strict, without rowid;

-- What handlers leave behind

create table log (
    execution_id blob not null,
    lease        integer not null,
    seq          integer not null,
    at           integer not null,
    level        text not null,
    message      text not null,
    fields       text not null,
    primary key (execution_id, lease, seq)
) strict;

create table progress (
    execution_id blob not null primary key,
    lease        integer not null,
    done         integer not null,
    total        integer,
    message      text,
    at           integer not null
) strict;

create table checkpoint (
    execution_id blob not null primary key,
    lease        integer not null,
    state        text not null,
    at           integer not null
) strict;

-- What came too late to count: its lease had ended, or its host session was dead.
create table stale (
    id           integer primary key autoincrement,
    execution_id blob not null,
    lease        integer not null,
    session_id   integer not null,
    kind         text not null,
    at           integer not null,
    detail       text not null
) strict;
create index stale_execution on stale (execution_id);
