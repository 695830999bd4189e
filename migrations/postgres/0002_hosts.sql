-- What is known of a host while it works, and how it is asked to drain. A host of the version
-- before goes on as it did: it leaves these columns null, and `slots` tells it apart.

alter table innkeeper.host_session
    -- How many executions it runs at once.
    add column slots integer,
    add column heartbeat_at timestamptz,
    -- Somebody asked it to drain; the answer to its next heartbeat says so.
    add column drain_requested_at timestamptz,
    -- It started nothing new from then on, for whatever reason it drains.
    add column draining_at timestamptz,
    -- The newest migration that its binary knows; null: 1. A migration that would leave a live
    -- host behind is refused by this.
    add column knows_migration integer;
-- No index on these: a heartbeat stays a heap-only update.
