-- What was published stays as it was published (`laisee_insert_only` is packets/sql/ledger.sql's).

-- guard:disclosure begin
CREATE OR REPLACE TRIGGER disclosure_insert_only BEFORE UPDATE OR DELETE ON campaign_disclosure
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
-- guard:disclosure end
