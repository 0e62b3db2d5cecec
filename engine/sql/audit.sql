-- The audit log's chain. Owner: engine. Installed by engine's migrations; safe to run again.
--
-- What it keeps: every row of engine_auditevent has the next id (1, 2, 3, …), the database's own
-- time, the hash of the row before it and a hash over that and its own fields. Nobody who can only
-- INSERT can choose any of these, and no row is ever changed or deleted. The last hash stands in
-- engine_audithead, so that cutting off the newest rows shows as well.
--
-- The text that is hashed: prev_hash (64 hex digits), then each field in the order below as a
-- netstring `<bytes>:<text>,` or `-,` where it is NULL:
--     id, at (microseconds since 1970 UTC), actor, action, object_type, object_id,
--     before (jsonb as Postgres prints it), after (likewise), reason, request_id, ip
-- engine/lib/audit.py computes the same.

CREATE OR REPLACE FUNCTION laisee_netstring(field text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(octet_length(convert_to(field, 'UTF8')) || ':' || field || ',', '-,')
$$;

-- SECURITY DEFINER: the application's role may insert events but not touch the head.
CREATE OR REPLACE FUNCTION laisee_audit_chain() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    head public.engine_audithead%ROWTYPE;
BEGIN
    INSERT INTO public.engine_audithead (id, last_id, hash)
        VALUES (1, 0, repeat('0', 64)) ON CONFLICT (id) DO NOTHING;
    -- The one lock that makes the chain a line. It is the last in the order of locks.
    SELECT * INTO head FROM public.engine_audithead WHERE id = 1 FOR UPDATE;
    NEW.id := head.last_id + 1;
    NEW.at := clock_timestamp();
    NEW.prev_hash := head.hash;
    NEW.hash := encode(sha256(convert_to(
        NEW.prev_hash
        || public.laisee_netstring(NEW.id::text)
        || public.laisee_netstring((extract(epoch FROM NEW.at) * 1000000)::bigint::text)
        || public.laisee_netstring(NEW.actor)
        || public.laisee_netstring(NEW.action)
        || public.laisee_netstring(NEW.object_type)
        || public.laisee_netstring(NEW.object_id)
        || public.laisee_netstring(NEW.before::text)
        || public.laisee_netstring(NEW.after::text)
        || public.laisee_netstring(NEW.reason)
        || public.laisee_netstring(NEW.request_id)
        || public.laisee_netstring(NEW.ip), 'UTF8')), 'hex');
    UPDATE public.engine_audithead SET last_id = NEW.id, hash = NEW.hash WHERE id = 1;
    RETURN NEW;
END
$$;

DROP TRIGGER IF EXISTS audit_chain ON engine_auditevent;
CREATE TRIGGER audit_chain BEFORE INSERT ON engine_auditevent
    FOR EACH ROW EXECUTE FUNCTION laisee_audit_chain();

-- guard:audit_append_only begin
CREATE OR REPLACE FUNCTION laisee_audit_refuse() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

DROP TRIGGER IF EXISTS audit_append_only ON engine_auditevent;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON engine_auditevent
    FOR EACH ROW EXECUTE FUNCTION laisee_audit_refuse();

DROP TRIGGER IF EXISTS audit_no_truncate ON engine_auditevent;
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON engine_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION laisee_audit_refuse();
-- guard:audit_append_only end
