-- Which rows may go although nothing is ever deleted: those of a drill that its owner is removing.
--
-- The triggers that keep rows (`laisee_insert_only` and its like) ask `laisee_removes` before they
-- refuse a DELETE. It says yes only where all of this is true:
--
--   the session logged in as the owner of the tables (the application's role never does)
--   the session has named the client app whose drill it removes (`laisee.removing`)
--   that app bears the mark of a drill, which no app gets or loses later (engine/sql/drills.sql)
--   the row is that drill's: of a transfer both accounts, of a claim the packet and the person
--
-- So a slip of the owner's, in a session that removes a drill, still can't touch a real row.
--
-- The file may be run again at any time.

CREATE OR REPLACE FUNCTION laisee_removing() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT app.id
      FROM engine_clientapp AS app
     WHERE app.id = NULLIF(current_setting('laisee.removing', true), '')::bigint
       -- guard:removes_drills begin
       AND app.is_drill
       -- guard:removes_drills end
       AND pg_has_role(session_user, (SELECT relowner FROM pg_class
                                       WHERE oid = 'packets_transfer'::regclass), 'USAGE')
$$;

CREATE OR REPLACE FUNCTION laisee_of_drill(
    p_app bigint, p_campaign uuid DEFAULT NULL, p_packet uuid DEFAULT NULL,
    p_person bytea DEFAULT NULL)
RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT COALESCE(CASE
        WHEN p_campaign IS NOT NULL THEN (
             SELECT array_agg(carried.clientapp_id) = ARRAY[p_app]
               FROM campaign_campaign_client_apps AS carried
              WHERE carried.campaign_id = p_campaign)
        WHEN p_packet IS NOT NULL THEN (
             SELECT packet.client_apps = ARRAY[p_app]
               FROM packets_packet AS packet WHERE packet.id = p_packet)
        ELSE (SELECT person.client_app_id = p_app
                FROM packets_participant AS person WHERE person.digest = p_person)
    END, false)
$$;

CREATE OR REPLACE FUNCTION laisee_drill_account(p_app bigint, p_account bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT COALESCE((
        SELECT CASE account.kind
               WHEN 'external' THEN account.owner = 'drill:' || p_app
               WHEN 'campaign' THEN (
                    SELECT laisee_of_drill(p_app, p_campaign => campaign.id)
                      FROM campaign_campaign AS campaign WHERE campaign.account_id = account.id)
               WHEN 'escrow' THEN (
                    SELECT packet.client_apps = ARRAY[p_app]
                      FROM packets_packet AS packet WHERE packet.escrow_id = account.id)
               WHEN 'clearing' THEN (
                    SELECT rail.client_apps = ARRAY[p_app]
                      FROM packets_provideraccount AS rail WHERE rail.name = account.owner)
               ELSE account.owner ~ '^[0-9a-f]{32}$'
                    AND laisee_of_drill(p_app, p_person => decode(account.owner, 'hex'))
               END
          FROM packets_account AS account WHERE account.id = p_account), false)
$$;

CREATE OR REPLACE FUNCTION laisee_removes(p_table text, p_row jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_app bigint := laisee_removing();
BEGIN
    IF v_app IS NULL THEN
        RETURN false;
    END IF;
    -- guard:removes_its_own begin
    RETURN COALESCE(CASE
        WHEN p_table = 'packets_transfer' THEN
             laisee_drill_account(v_app, (p_row ->> 'debit_account_id')::bigint)
             AND laisee_drill_account(v_app, (p_row ->> 'credit_account_id')::bigint)
        WHEN p_table = 'packets_account' THEN laisee_drill_account(v_app, (p_row ->> 'id')::bigint)
        WHEN p_table = 'packets_claim' THEN
             laisee_of_drill(v_app, p_packet => (p_row ->> 'packet_id')::uuid)
             AND laisee_of_drill(v_app, p_person => (p_row ->> 'participant')::bytea)
        WHEN p_table = 'packets_claimstate' THEN (
             SELECT laisee_of_drill(v_app, p_packet => claim.packet_id)
               FROM packets_claim AS claim WHERE claim.id = (p_row ->> 'claim_id')::uuid)
        WHEN p_table = 'packets_ticket' THEN
             laisee_of_drill(v_app, p_packet => (p_row ->> 'packet_id')::uuid)
        WHEN p_table = 'packets_laneepoch' THEN (
             SELECT laisee_of_drill(v_app, p_packet => lane.packet_id)
               FROM packets_lane AS lane WHERE lane.id = (p_row ->> 'lane_id')::bigint)
        WHEN p_table = 'packets_hold' THEN laisee_drill_account(v_app, (p_row ->> 'wallet_id')::bigint)
        WHEN p_table = 'packets_holdappeal' THEN (
             SELECT laisee_drill_account(v_app, held.wallet_id)
               FROM packets_hold AS held WHERE held.id = (p_row ->> 'hold_id')::uuid)
        WHEN p_table = 'packets_payout' THEN (p_row ->> 'client_app_id')::bigint = v_app
        WHEN p_table IN ('packets_payoutnumber', 'packets_payoutcall') THEN (
             SELECT payout.client_app_id = v_app
               FROM packets_payout AS payout WHERE payout.id = (p_row ->> 'payout_id')::uuid)
        WHEN p_table = 'packets_statementline' THEN (
             SELECT rail.client_apps = ARRAY[v_app]
               FROM packets_statement AS day
               JOIN packets_provideraccount AS rail ON rail.id = day.account_id
              WHERE day.id = (p_row ->> 'statement_id')::bigint)
        WHEN p_table IN ('campaign_disclosure', 'referrals_referral') THEN
             laisee_of_drill(v_app, p_campaign => (p_row ->> 'campaign_id')::uuid)
        WHEN p_table = 'referrals_reward' THEN (
             SELECT laisee_of_drill(v_app, p_campaign => edge.campaign_id)
               FROM referrals_referral AS edge
              WHERE edge.id = (p_row ->> 'referral_id')::bigint)
        WHEN p_table = 'referrals_serverevent' THEN (p_row ->> 'client_app_id')::bigint = v_app
        ELSE false
    END, false);
    -- guard:removes_its_own end
    RETURN true;
END
$$;
