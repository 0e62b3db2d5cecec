-- Webhooks: what was told and what was answered stays as it was written. Owner: engine. Installed by
-- engine's migrations; safe to run again.
--
-- The application's role has no right to UPDATE or DELETE these rows (manage.py grant_app_rights);
-- the trigger stops the owner's slips too. The owner may DELETE old ones: they hold no money. Who is
-- erased is no longer named in what was told, nor in what was answered to it.
CREATE OR REPLACE FUNCTION laisee_written_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_TABLE_NAME = 'engine_outboxevent' THEN
        IF OLD.payload ? 'user' AND to_jsonb(NEW) = jsonb_set(to_jsonb(OLD), '{payload,user}', 'null')
        THEN
            RETURN NEW;
        END IF;
    ELSIF public.laisee_erases(to_jsonb(OLD), to_jsonb(NEW), ARRAY['answer']) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is written once: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE OR REPLACE TRIGGER outboxevent_written_once BEFORE UPDATE ON engine_outboxevent
    FOR EACH ROW EXECUTE FUNCTION laisee_written_once();
CREATE OR REPLACE TRIGGER webhookattempt_written_once BEFORE UPDATE ON engine_webhookattempt
    FOR EACH ROW EXECUTE FUNCTION laisee_written_once();
