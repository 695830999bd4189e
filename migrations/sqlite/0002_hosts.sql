-- What is known of a host while it works, and how it is asked to drain. A host of the version
-- before goes on as it did: it leaves these columns null, and `slots` tells it apart.

-- How many executions it runs at once.
alter table host_session add column slots integer;
alter table host_session add column heartbeat_at integer;
-- Somebody asked it to drain; the answer to its next heartbeat says so.
alter table host_session add column drain_requested_at integer;
-- It started nothing new from then on, for whatever reason it drains.
alter table host_session add column draining_at integer;
-- The newest migration that its binary knows; null: 1. A migration that would leave a live host
-- behind is refused by this.
alter table host_session add column knows_migration integer;
