-- What is kept of the history is bounded from here on (docs/history.md), so that rows are removed
-- that were only inserted before. This says how PostgreSQL is to make their room usable again.

-- `ready` and `waiting` are empty most of the time and full of dead rows after a burst, which
-- every claim reads over until they are gone. A fifth of the table, PostgreSQL's default, is no
-- measure for that; and pauses make a vacuum that is awaited longer. Giving the end of the file
-- back takes a lock that keeps claims out, for room that the next burst needs again.
alter table innkeeper.ready set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
alter table innkeeper.waiting set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- Rows that are updated in place: with room on their page, an update touches no index, and what
-- it leaves behind goes without a vacuum.
alter table innkeeper.host_session set (fillfactor = 50);
alter table innkeeper.progress set (fillfactor = 70);

-- The history: at 90 days and a steady load, a tenth is dead after nine days. By default these
-- tables would grow by a fifth before the first room is used again. Not less than this, since a
-- vacuum reads all of a table's indexes.
alter table innkeeper.execution set (autovacuum_vacuum_scale_factor = 0.05);
alter table innkeeper.start set (autovacuum_vacuum_scale_factor = 0.05);
alter table innkeeper.completion set (autovacuum_vacuum_scale_factor = 0.05);
alter table innkeeper.log set (autovacuum_vacuum_scale_factor = 0.05);
