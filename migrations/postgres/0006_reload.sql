-- Plugins change while hosts run: which versions there were, which one is to run in place of
-- which, and how hosts are asked to load anew. A host of the version before leaves it all alone.

-- Which component a plugin was found to be, a row each time that it was another one than before.
-- Only what a configuration names is here, never what runs in its place.
create table innkeeper.plugin_version (
    id           bigint generated always as identity primary key,
    plugin       text not null,
    component_id integer not null references innkeeper.component (id),
    host         text not null,
    loaded_at    timestamptz not null
);
create index plugin_version_plugin on innkeeper.plugin_version (plugin, id);

-- Where a configuration names `replaces_id` as this plugin, hosts run `component_id`. Any other
-- component is run as it is, so a mended one ends it by itself.
create table innkeeper.plugin_rollback (
    plugin       text primary key,
    component_id integer not null references innkeeper.component (id),
    replaces_id  integer not null references innkeeper.component (id),
    since        timestamptz not null,
    reason       text
);

-- What a process was asked to load anew, and how that went. A row is one process, whatever
-- sessions it has.
create table innkeeper.reload_request (
    id           bigint generated always as identity primary key,
    host         text not null,
    boot_id      uuid not null,
    -- Null: the configuration. Empty: every plugin. Else this one.
    plugin       text,
    requested_at timestamptz not null,
    done_at      timestamptz,
    -- Why it is as it was; null: it was done.
    error        text
);
create index reload_request_open on innkeeper.reload_request (boot_id, id) where done_at is null;
