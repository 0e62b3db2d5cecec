-- The mark of a drill's client app. Owner: engine. Installed by engine's migrations; safe to run again.
--
-- It is given when the app is made, while nobody has claimed anything with it, and never changes: so
-- nothing real can come to bear it, and what bears it can't lose it (`manage.py drill_remove`).
CREATE OR REPLACE FUNCTION laisee_drill_mark_stays() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'client app %: whether it is a drill''s is said when it is made', OLD.slug
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

-- guard:drill_mark begin
CREATE OR REPLACE TRIGGER clientapp_drill_mark BEFORE UPDATE ON engine_clientapp
    FOR EACH ROW WHEN (OLD.is_drill <> NEW.is_drill OR OLD.is_drill AND OLD.id <> NEW.id)
    EXECUTE FUNCTION laisee_drill_mark_stays();
-- guard:drill_mark end
