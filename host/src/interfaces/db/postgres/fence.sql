-- The fence of Innkeeper in a database that is granted with `fence = true`. The host makes it by
-- itself, where the login of [databases.NAME] may; whoever runs this is the owner.
-- Plugins have no rights on the table. What they may do by the two functions is to commit less.
CREATE SCHEMA IF NOT EXISTS innkeeper_fence;

-- Without a log: after a crash of the server no transaction is left that a fence would stop.
-- `raised_at` is null for a commit that is under way.
CREATE UNLOGGED TABLE IF NOT EXISTS innkeeper_fence.fence (
    execution uuid PRIMARY KEY,
    lease     bigint NOT NULL,
    raised_at timestamptz
);
CREATE INDEX IF NOT EXISTS fence_raised_at ON innkeeper_fence.fence (raised_at) WHERE raised_at IS NOT NULL;

-- Part of each commit: fails where the fence is above the lease, and holds up whoever raises it
-- until the transaction has ended.
CREATE OR REPLACE FUNCTION innkeeper_fence.pass(this_execution uuid, this_lease bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place tid;
BEGIN
    INSERT INTO innkeeper_fence.fence (execution, lease) VALUES (this_execution, this_lease)
    ON CONFLICT DO NOTHING RETURNING ctid INTO place;
    IF FOUND THEN
        DELETE FROM innkeeper_fence.fence WHERE ctid = place;
        RETURN true;
    END IF;
    PERFORM FROM innkeeper_fence.fence WHERE execution = this_execution AND lease <= this_lease FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a later attempt of this execution has begun' USING ERRCODE = 'IK001';
    END IF;
    RETURN true;
END $$;

-- Before a later attempt begins: waits for a commit that has passed, and stops those to come.
-- False where it is higher already.
CREATE OR REPLACE FUNCTION innkeeper_fence.raise(this_execution uuid, this_lease bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM innkeeper_fence.fence WHERE execution IN (
        SELECT execution FROM innkeeper_fence.fence WHERE raised_at < now() - interval '31 days'
        LIMIT 100 FOR UPDATE SKIP LOCKED);
    INSERT INTO innkeeper_fence.fence AS old (execution, lease, raised_at)
    VALUES (this_execution, this_lease, now())
    ON CONFLICT (execution) DO UPDATE SET lease = excluded.lease, raised_at = excluded.raised_at
    WHERE old.lease <= excluded.lease;
    RETURN FOUND;
END $$;

GRANT USAGE ON SCHEMA innkeeper_fence TO PUBLIC;
GRANT EXECUTE ON FUNCTION innkeeper_fence.pass(uuid, bigint), innkeeper_fence.raise(uuid, bigint) TO PUBLIC;
