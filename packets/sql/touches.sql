-- Codes of share links with which people claim, until somebody has looked at them.
--
-- Written before the claims' own commit, as people are (`laisee_remember_people`): the log is
-- sequential, so the flush of the claim's commit carries the code along. A claim that comes to
-- nothing leaves a row behind, which whoever reads them drops.
--
-- The file may be run again at any time.

CREATE OR REPLACE FUNCTION laisee_remember_touches(
    p_claims uuid[], p_client_apps bigint[], p_codes text[]
)
RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO packets_sharetouch (claim_id, client_app_id, code)
    SELECT r.claim_id, r.client_app_id, r.code
      FROM unnest(p_claims, p_client_apps, p_codes) AS r(claim_id, client_app_id, code)
     ORDER BY r.claim_id  -- two batches that repeat each other's rows don't wait in a circle
        ON CONFLICT (claim_id) DO NOTHING;
END
$$;
