//! What removes history.

use crate::store::row::statements;

statements! { PRUNING:

    /// The transaction has the lock.
    PRUNE_LOCK = "select true";
    /// Those that have something to remove.
    JOBS_WITH_HISTORY = "
        select j.id, j.name, j.spec from job j
        where exists (select 1 from execution e where e.job_id = j.id)
        order by j.id";
    /// The newest execution that is one too many.
    SURPLUS = "
        select e.id from execution e
        where e.job_id = $1
          and exists (select 1 from completion c where c.execution_id = e.id and c.final)
        order by e.id desc limit 1 offset $2";
    /// The newest of the job is none of them.
    PRUNE_CANDIDATES = "
        select e.id, e.fire_time,
               (select c.finished_at from completion c
                where c.execution_id = e.id and c.final) as finished_at
        from execution e
        where e.job_id = $1 and e.id >= $2 and e.id < $3
          and e.id < (select x.id from execution x
                      where x.job_id = $1 order by x.id desc limit 1)
        order by e.id limit $4";
    PRUNE_LOGS = "delete from log where execution_id in (select unhex(value) from json_each($1))";
    PRUNE_PROGRESS = "delete from progress where execution_id in (select unhex(value) from json_each($1))";
    PRUNE_CHECKPOINTS = "delete from checkpoint where execution_id in (select unhex(value) from json_each($1))";
    PRUNE_STALE = "delete from stale where execution_id in (select unhex(value) from json_each($1))";
    PRUNE_STARTS = "delete from start where execution_id in (select unhex(value) from json_each($1))";
    PRUNE_COMPLETIONS = "delete from completion where execution_id in (select unhex(value) from json_each($1))";
    PRUNE_EXECUTIONS = "delete from execution where id in (select unhex(value) from json_each($1))";
    PRUNE_SESSIONS = "
        delete from host_session where id in
            (select h.id from host_session h
             where h.dead_at <= $1
               and not exists (select 1 from start s where s.session_id = h.id)
             limit $2)";
    PRUNE_ORPHANED_STALE = "
        delete from stale where id in
            (select t.id from stale t
             where t.at <= $1
               and not exists (select 1 from execution e where e.id = t.execution_id)
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
