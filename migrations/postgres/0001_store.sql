-- The host's own records. docs: ARCHITECTURE.md, "The store".
--
-- History (execution, start, completion) is only ever inserted; `ready` is the one table
-- that churns. States such as `running` are derived from these rows and never stored.
-- The SQLite file of the same name has the same tables and columns.

-- The definitions

create table innkeeper.job (
    id           integer generated always as identity primary key,
    name         text not null unique,
    -- Whose definition it is: a job that its owner no longer names is retired.
    owner        text not null,
    -- `plugin` and `handler` repeat what `spec` says, since START selects by plugin.
    plugin       text not null,
    handler      text not null,
    spec         json not null,
    updated_at   timestamptz not null,
    paused_at    timestamptz,
    retired_at   timestamptz,
    next_fire_at timestamptz
);
create index job_next_fire_at on innkeeper.job (next_fire_at) where next_fire_at is not null;
create index job_plugin on innkeeper.job (plugin);

create table innkeeper.component (
    id           integer generated always as identity primary key,
    digest       text not null unique,
    descriptions json not null,
    created_at   timestamptz not null
);

create table innkeeper.plugin (
    name         text primary key,
    component_id integer not null references innkeeper.component (id),
    updated_at   timestamptz not null
);

-- The hosts

-- One life of a host process. `dead_at` is set once and never taken back.
create table innkeeper.host_session (
    id          bigint generated always as identity primary key,
    host        text not null,
    boot_id     uuid not null,
    version     text not null,
    started_at  timestamptz not null,
    expires_at  timestamptz not null,
    dead_at     timestamptz,
    -- No start of this session with a lower lease is open.
    lease_floor bigint not null
);
-- Only columns that a heartbeat leaves alone, so that it stays a heap-only update.
create index host_session_alive on innkeeper.host_session (id) where dead_at is null;

create table innkeeper.host_plugin (
    session_id   bigint not null references innkeeper.host_session (id) on delete cascade,
    plugin       text not null,
    component_id integer not null references innkeeper.component (id),
    primary key (session_id, plugin)
);

-- The executions. No foreign keys from here on: they would lock a job's row for each
-- execution, and rows are only written by statements that have read what they refer to.

create table innkeeper.execution (
    id           uuid primary key,
    job_id       integer not null,
    queue_id     integer not null,
    args         json not null,
    triggered_by text not null,
    scheduled_at timestamptz not null,
    -- Null except for fires of a schedule.
    fire_time    timestamptz,
    priority     integer not null,
    max_attempts integer not null,
    unique_key   text,
    created_at   timestamptz not null
);
create unique index execution_fire_time on innkeeper.execution (job_id, fire_time) where fire_time is not null;
create index execution_job on innkeeper.execution (job_id, id);

-- What may start now. `attempt` counts the attempts that were made.
create table innkeeper.ready (
    queue_id     integer not null,
    rank         bigint not null,
    execution_id uuid not null,
    job_id       integer not null,
    attempt      integer not null,
    primary key (queue_id, rank, execution_id)
);
create unique index ready_execution on innkeeper.ready (execution_id);

-- What may not start yet, and why: `due` and `retry` wait for `due_at`.
create table innkeeper.waiting (
    execution_id uuid primary key,
    job_id       integer not null,
    attempt      integer not null,
    due_at       timestamptz,
    blocker      text not null
);
create index waiting_due_at on innkeeper.waiting (due_at) where due_at is not null;

create table innkeeper.start (
    lease        bigint generated always as identity,
    execution_id uuid not null,
    attempt      integer not null,
    session_id   bigint not null,
    component_id integer not null,
    started_at   timestamptz not null,
    -- A session's open starts are found from its lease_floor on.
    primary key (session_id, lease)
);
create index start_execution on innkeeper.start (execution_id, lease);

-- Lease 0 ends an execution that never started.
create table innkeeper.completion (
    execution_id uuid not null,
    lease        bigint not null,
    attempt      integer not null,
    outcome      text not null,
    final        boolean not null,
    finished_at  timestamptz not null,
    result       json,
    error        json,
    primary key (execution_id, lease)
);
create unique index completion_final on innkeeper.completion (execution_id) where final;
create index completion_unsuccessful on innkeeper.completion (execution_id) where final and outcome <> 'succeeded';

create table innkeeper.unique_key (
    job_id       integer not null,
    key          text not null,
    execution_id uuid not null,
    primary key (job_id, key)
);

-- What handlers leave behind

create table innkeeper.log (
    execution_id uuid not null,
    lease        bigint not null,
    seq          integer not null,
    at           timestamptz not null,
    level        text not null,
    message      text not null,
    fields       json not null,
    primary key (execution_id, lease, seq)
);

create table innkeeper.progress (
    execution_id uuid primary key,
    lease        bigint not null,
    done         bigint not null,
    total        bigint,
    message      text,
    at           timestamptz not null
);

create table innkeeper.checkpoint (
    execution_id uuid primary key,
    lease        bigint not null,
    state        json not null,
    at           timestamptz not null
);

-- What came too late to count: its lease had ended, or its host session was dead.
create table innkeeper.stale (
    id           bigint generated always as identity primary key,
    execution_id uuid not null,
    lease        bigint not null,
    session_id   bigint not null,
    kind         text not null,
    at           timestamptz not null,
    detail       json not null
);
create index stale_execution on innkeeper.stale (execution_id);
