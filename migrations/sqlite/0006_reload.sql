-- Plugins change while hosts run: which versions there were, which one is to run in place of
-- which, and how hosts are asked to load anew. A host of the version before leaves it all alone.

-- Which component a plugin was found to be, a row each time that it was another one than before.
-- Only what a configuration names is here, never what runs in its place.
create table plugin_version (
    id           integer primary key autoincrement,
    plugin       text not null,
    component_id integer not null references component (id),
    host         text not null,
    loaded_at    integer not null
) strict;
create index plugin_version_plugin on plugin_version (plugin, id);

-- Where a configuration names `replaces_id` as this plugin, hosts run `component_id`. Any other
-- component is run as it is, so a mended one ends it by itself.
create table plugin_rollback (
    plugin       text primary key,
    component_id integer not null references component (id),
    replaces_id  integer not null references component (id),
    since        integer not null,
    reason       text
) strict;

-- What a process was asked to load anew, and how that went. A row is one process, whatever
-- sessions it has.
create table reload_request (
    id           integer primary key autoincrement,
    host         text not null,
    boot_id      blob not null,
    -- Null: the configuration. Empty: every plugin. Else this one.
    plugin       text,
    requested_at integer not null,
    done_at      integer,
    -- Why it is as it was; null: it was done.
    error        text
) strict;
create index reload_request_open on reload_request (boot_id, id) where done_at is null;
