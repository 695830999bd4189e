//! What changes while hosts run: versions of plugins, and what hosts are asked to load anew.

use crate::store::row::statements;

statements! { RELOADING:

    // The plugins of a host session

    DELETE_HOST_PLUGINS = "delete from host_plugin where session_id = $1";
    /// Nothing where it was the last one that was found.
    INSERT_PLUGIN_VERSION = "
        insert into plugin_version (plugin, component_id, host, loaded_at)
        select $2, c.id, $4, $1
        from component c
        where c.digest = $3
          and c.id is not (select v.component_id from plugin_version v
                                     where v.plugin = $2 order by v.id desc limit 1)";
    /// The newest first.
    PLUGIN_VERSIONS = "
        select c.digest, v.host, v.loaded_at
        from plugin_version v join component c on c.id = v.component_id
        where v.plugin = $1
        order by v.id desc limit $2";
    /// Components that were a plugin's, and are of the last `$1` of none.
    SUPERSEDED_COMPONENTS = "
        select c.digest
        from component c
        where exists (select 1 from plugin_version v where v.component_id = c.id)
          and not exists (select 1 from plugin_rollback r
                          where c.id in (r.component_id, r.replaces_id))
          and c.id not in (
              select component_id
              from (select component_id, row_number() over (partition by plugin order by max(id) desc) as number
                    from plugin_version group by plugin, component_id) latest
              where number <= $1)";

    // Rollbacks

    ROLLBACKS = "
        select r.plugin, c.digest as component, b.digest as replaces, r.since, r.reason
        from plugin_rollback r
        join component c on c.id = r.component_id
        join component b on b.id = r.replaces_id
        order by r.plugin";
    SAVE_ROLLBACK = "
        insert into plugin_rollback (plugin, component_id, replaces_id, since, reason)
        select $2, c.id, b.id, $1, $5
        from component c, component b
        where c.digest = $3 and b.digest = $4
        on conflict (plugin) do update
        set component_id = excluded.component_id, replaces_id = excluded.replaces_id, since = excluded.since,
            reason = excluded.reason";
    DELETE_ROLLBACK = "delete from plugin_rollback where plugin = $1";

    // Requests to reload

    /// Of live hosts that know of this (`$5` is the migration that brought it) and do not end.
    REQUEST_RELOADS = "
        insert into reload_request (host, boot_id, plugin, requested_at)
        select distinct h.host, h.boot_id, $2, $1
        from host_session h
        where h.dead_at is null and h.expires_at > $1 and h.knows_migration >= $5
          and h.drain_requested_at is null and h.draining_at is null
          and ($3 is null or h.host = $3)
          and ($4 is null or exists (select 1 from host_plugin p
                                           where p.session_id = h.id and p.plugin = $4))
        order by h.host, h.boot_id
        returning id";
    /// Nobody waits for an answer for as long as a day.
    FORGET_RELOADS = "
        delete from reload_request where requested_at < $1 - 86400000000";
    OPEN_RELOADS = "
        select id, plugin from reload_request
        where boot_id = $1 and done_at is null
        order by id";
    ANSWER_RELOAD = "
        update reload_request set done_at = $1, error = $3
        where id = $2 and done_at is null";
    RELOADS = "
        select r.id, r.host, r.done_at, r.error,
               exists (select 1 from host_session h
                       where h.boot_id = r.boot_id and h.dead_at is null
                         and h.expires_at > $1) as is_alive
        from reload_request r
        where r.id in (select value from json_each($2))
        order by r.host, r.id";
}
