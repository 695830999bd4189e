//! What removes history.

use crate::store::row::statements;

statements! { PRUNING:

    PRUNE_LOCK = "select pg_try_advisory_xact_lock(7598807797348065638)";
    /// Those that have something to remove.
    JOBS_WITH_HISTORY = "
        select j.id, j.name, j.spec::text as spec from innkeeper.job j
        where exists (select 1 from innkeeper.execution e where e.job_id = j.id)
        order by j.id";
    /// The newest execution that is one too many.
    SURPLUS = "
        select e.id from innkeeper.execution e
        where e.job_id = $1
          and exists (select 1 from innkeeper.completion c where c.execution_id = e.id and c.final)
        order by e.id desc offset $2 limit 1";
    /// The newest of the job is none of them.
    PRUNE_CANDIDATES = "
        select e.id, e.fire_time,
               (select c.finished_at from innkeeper.completion c
                where c.execution_id = e.id and c.final) as finished_at
        from innkeeper.execution e
        where e.job_id = $1 and e.id >= $2 and e.id < $3
          and e.id < (select x.id from innkeeper.execution x
                      where x.job_id = $1 order by x.id desc limit 1)
        order by e.id limit $4";
    PRUNE_LOGS = "delete from innkeeper.log where execution_id = any ($1)";
    PRUNE_PROGRESS = "delete from innkeeper.progress where execution_id = any ($1)";
    PRUNE_CHECKPOINTS = "delete from innkeeper.checkpoint where execution_id = any ($1)";
    PRUNE_STALE = "delete from innkeeper.stale where execution_id = any ($1)";
    PRUNE_STARTS = "delete from innkeeper.start where execution_id = any ($1)";
    PRUNE_COMPLETIONS = "delete from innkeeper.completion where execution_id = any ($1)";
    PRUNE_EXECUTIONS = "delete from innkeeper.execution where id = any ($1)";
    PRUNE_SESSIONS = "
        delete from innkeeper.host_session where id in
            (select h.id from innkeeper.host_session h
             where h.dead_at <= $1
               and not exists (select 1 from innkeeper.start s where s.session_id = h.id)
             limit $2)";
    PRUNE_ORPHANED_STALE = "
        delete from innkeeper.stale where id in
            (select t.id from innkeeper.stale t
             where t.at <= $1
               and not exists (select 1 from innkeeper.execution e where e.id = t.execution_id)
             limit $2)";
}

/// Everything that belongs to an execution, and the execution.
pub(in crate::store) const PRUNE: &[&str] = &[
    PRUNE_LOGS,
    PRUNE_PROGRESS,
    PRUNE_CHECKPOINTS,
    PRUNE_STALE,
    PRUNE_STARTS,
    PRUNE_COMPLETIONS,
    PRUNE_EXECUTIONS,
];
