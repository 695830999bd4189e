//! What changes while hosts run: versions of plugins, and what hosts are asked to load anew.

use crate::store::row::statements;

statements! { RELOADING:

    // The plugins of a host session

    DELETE_HOST_PLUGINS = "delete from innkeeper.host_plugin where session_id = $1";
    /// Nothing where it was the last one that was found.
    INSERT_PLUGIN_VERSION = "
        insert into innkeeper.plugin_version (plugin, component_id, host, loaded_at)
        select $2, c.id, $4, coalesce($1, now())
        from innkeeper.component c
        where c.digest = $3
          and c.id is distinct from (select v.component_id from innkeeper.plugin_version v
                                     where v.plugin = $2 order by v.id desc limit 1)";
    /// The newest first.
    PLUGIN_VERSIONS = "
        select c.digest, v.host, v.loaded_at
        from innkeeper.plugin_version v join innkeeper.component c on c.id = v.component_id
        where v.plugin = $1
        order by v.id desc limit $2";
    /// Components that were a plugin's, and are of the last `$1` of none.
    SUPERSEDED_COMPONENTS = "
        select c.digest
        from innkeeper.component c
        where exists (select 1 from innkeeper.plugin_version v where v.component_id = c.id)
          and not exists (select 1 from innkeeper.plugin_rollback r
                          where c.id in (r.component_id, r.replaces_id))
          and c.id not in (
              select component_id
              from (select component_id, row_number() over (partition by plugin order by max(id) desc) as number
                    from innkeeper.plugin_version group by plugin, component_id) latest
              where number <= $1)";

    // Rollbacks

    ROLLBACKS = "
        select r.plugin, c.digest as component, b.digest as replaces, r.since, r.reason
        from innkeeper.plugin_rollback r
        join innkeeper.component c on c.id = r.component_id
        join innkeeper.component b on b.id = r.replaces_id
        order by r.plugin";
    SAVE_ROLLBACK = "
        insert into innkeeper.plugin_rollback (plugin, component_id, replaces_id, since, reason)
        select $2, c.id, b.id, coalesce($1, now()), $5
        from innkeeper.component c, innkeeper.component b
        where c.digest = $3 and b.digest = $4
        on conflict (plugin) do update
        set component_id = excluded.component_id, replaces_id = excluded.replaces_id, since = excluded.since,
            reason = excluded.reason";
    DELETE_ROLLBACK = "delete from innkeeper.plugin_rollback where plugin = $1";

    // Requests to reload

    /// Of live hosts that know of this (`$5` is the migration that brought it) and do not end.
    REQUEST_RELOADS = "
        insert into innkeeper.reload_request (host, boot_id, plugin, requested_at)
        select distinct h.host, h.boot_id, $2::text, coalesce($1, now())
        from innkeeper.host_session h
        where h.dead_at is null and h.expires_at > coalesce($1, now()) and h.knows_migration >= $5
          and h.drain_requested_at is null and h.draining_at is null
          and ($3::text is null or h.host = $3)
          and ($4::text is null or exists (select 1 from innkeeper.host_plugin p
                                           where p.session_id = h.id and p.plugin = $4))
        order by h.host, h.boot_id
        returning id";
    /// Nobody waits for an answer for as long as a day.
    FORGET_RELOADS = "
        delete from innkeeper.reload_request where requested_at < coalesce($1, now()) - interval '1 day'";
    OPEN_RELOADS = "
        select id, plugin from innkeeper.reload_request
        where boot_id = $1 and done_at is null
        order by id";
    ANSWER_RELOAD = "
        update innkeeper.reload_request set done_at = coalesce($1, now()), error = $3
        where id = $2 and done_at is null";
    RELOADS = "
        select r.id, r.host, r.done_at, r.error,
               exists (select 1 from innkeeper.host_session h
                       where h.boot_id = r.boot_id and h.dead_at is null
                         and h.expires_at > coalesce($1, now())) as is_alive
        from innkeeper.reload_request r
        where r.id = any ($2)
        order by r.host, r.id";
}
