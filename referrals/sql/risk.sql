-- What Postgres itself refuses about risk: a version of the policy stays as it was published.
--
-- The file may be run again at any time. `-- guard:<name> begin/end` marks what a test strips.

-- guard:insert_only begin
CREATE OR REPLACE TRIGGER riskpolicy_insert_only BEFORE UPDATE OR DELETE ON referrals_riskpolicy
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
-- guard:insert_only end
