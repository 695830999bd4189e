-- Policies of executions: queues, limits over all hosts, rates, what waits for what. A host of the
-- version before would start executions past these limits, so it cannot work beside this.

create table queue (
    id            integer primary key autoincrement,
    name          text not null unique,
    -- Whose definition it is: a queue that its owner no longer names goes back to the defaults.
    owner         text not null,
    weight        integer not null,
    -- Executions at once, over all hosts and on one.
    total_limit   integer,
    host_limit    integer,
    updated_at    integer not null,
    paused_at     integer,
    paused_reason text
) strict;
-- The queue of jobs that name none.
insert into queue (id, name, owner, weight, updated_at) values (0, 'default', '', 1, 0);

-- Repeats what `spec` says, for the statements that do not read it.
alter table job add column queue_id integer not null default 0;
alter table job add column priority integer not null default 0;
-- Its executions need a permit before they are ready.
alter table job add column gated integer not null default 0;
alter table job add column paused_reason text;
-- What `next_fire_at` was when it was paused, or would be: so that whoever looks for due jobs does
-- not walk over those that are paused.
alter table job add column paused_fire_at integer;

-- What its job limits executions by, where it does.
alter table execution add column limit_key text;
-- The one that it repeats, where an operator asked for that.
alter table execution add column retry_of blob;
-- Whether a time has been run already.
create index execution_backfill on execution (job_id, scheduled_at) where triggered_by = 'backfill';

-- `due` and `retry` wait for `due_at`. Without a time: `paused` waits for its job to be resumed,
-- `after` for other jobs, `key` for a permit of its key and then `limit` for one of its job.
alter table waiting add column key text not null default '';
-- As it will stand in `ready`.
alter table waiting add column rank integer not null default 0;
create index waiting_blocked on waiting (job_id, blocker, key, rank, execution_id)
    where due_at is null;

-- Whose executions may have become free to go on, and when to look: a mark that is set by whatever
-- frees them, and taken by whoever looks. Stage 0 stands for the jobs that it comes after, 1 for the
-- limit of a key, 2 for those of the job as a whole.
create table gate (
    stage  integer not null,
    job_id integer not null,
    key    text not null,
    due_at integer not null,
    primary key (stage, job_id, key)
) strict;
create index gate_due_at on gate (due_at);
create index gate_stage_due_at on gate (stage, due_at);

-- Who counts against a limit: one row for each holder, so that nothing has to be counted up and
-- down. `owner_id` is the job, or the queue for the scope `queue`.
create table permit (
    execution_id blob not null,
    scope        text not null,
    owner_id     integer not null,
    key          text not null,
    granted_at   integer not null,
    primary key (execution_id, scope)
) strict;
create index permit_owner on permit (scope, owner_id, key, granted_at);

-- Starts of jobs that have a rate; `at` is null until the start, and counts as now.
create table rate_use (
    job_id       integer not null,
    execution_id blob not null,
    attempt      integer not null,
    at           integer,
    primary key (job_id, execution_id, attempt)
) strict;
create index rate_use_at on rate_use (job_id, at);

-- Which job follows which: it waits for its success or is triggered by it, or by its failure.
create table dependency (
    job_id      integer not null,
    upstream_id integer not null,
    kind        text not null,
    primary key (job_id, kind, upstream_id)
) strict;
create index dependency_upstream on dependency (upstream_id, kind);

-- The ends that a job has not yet followed.
create table signal (
    id           integer primary key autoincrement,
    job_id       integer not null,
    kind         text not null,
    upstream_id  integer not null,
    execution_id blob not null,
    at           integer not null
) strict;
create index signal_job on signal (job_id, kind, upstream_id, id);

-- Running executions that somebody wants to end. Removed with the execution's end.
create table cancel_request (
    execution_id blob not null primary key,
    requested_at integer not null,
    reason       text not null
) strict;
