-- What Postgres itself refuses about growth: an edge, a reward and an event are said once. (The app's
-- own names of events may be erased with the person.)
--
-- The file may be run again at any time. `-- guard:<name> begin/end` marks what a test strips.

-- guard:insert_only begin
CREATE OR REPLACE TRIGGER referral_insert_only BEFORE UPDATE OR DELETE ON referrals_referral
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
CREATE OR REPLACE TRIGGER reward_insert_only BEFORE UPDATE OR DELETE ON referrals_reward
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only('qualified_by');
CREATE OR REPLACE TRIGGER serverevent_insert_only BEFORE UPDATE OR DELETE ON referrals_serverevent
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only('key');
-- guard:insert_only end

-- Each new edge is looked at: whether it qualifies already, and for tickets that come with it.
CREATE OR REPLACE FUNCTION laisee_referral_bound() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO referrals_qualification (referral_id) SELECT id FROM bound ORDER BY id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER referral_bound AFTER INSERT ON referrals_referral
    REFERENCING NEW TABLE AS bound FOR EACH STATEMENT EXECUTE FUNCTION laisee_referral_bound();
