-- laisee_commit_claims: the only way a claim comes into being.
--
-- Commits a batch of claims of ONE lane and answers, row by row, what is now true. Under READ
-- COMMITTED every statement inside sees its own snapshot; one single SQL statement could not return
-- a row that another session committed while this one waited for the lane.
--
-- Verdicts: won, exists (the claim was there before, or twice in this batch: the row as it stands),
-- fenced (another epoch, or the lane is loading), closed, paused, not_started, ended, misplaced (not
-- this participant's home lane, or no serial where a ticket is needed), conflict (the index is taken
-- or the portion doesn't fit what is left: the only one that asks for a rebuild). A refused row
-- changes nothing and fails no other.
--
-- Guards that tests switch off one at a time stand between "guard:<name> begin" and "… end".

CREATE OR REPLACE FUNCTION laisee_claim_id(packet uuid, participant bytea, serial integer)
RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(
        substring(sha256(uuid_send(packet) || participant || int4send(serial)) FROM 1 FOR 16), 'hex'
    )::uuid
$$;

CREATE OR REPLACE FUNCTION laisee_home_lane(home_key bytea, participant bytea, lanes bigint)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(substring(sha256(home_key || participant) FROM 1 FOR 4), 'hex'))
           ::bit(32)::bigint % lanes
$$;

CREATE OR REPLACE FUNCTION laisee_commit_claims(
    p_lane         bigint,
    p_participants bytea[],
    p_serials      integer[],
    p_epochs       bigint[],
    p_indexes      bigint[],
    p_amounts      bigint[],
    p_tiers        smallint[]
)
RETURNS TABLE (
    ord bigint, verdict text, claim_id uuid, epoch bigint, index bigint, amount_fen bigint,
    tier smallint, committed_at timestamptz, lane_epoch bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
-- guard:by_key begin
-- A plan made while there are few claims is kept while they become millions: every look-up in here
-- is by key, whatever the statistics of that moment make of it, and none is planned twice.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
-- guard:by_key end
AS $$
#variable_conflict use_column
DECLARE
    v_packet packets_packet%ROWTYPE;
    v_lane packets_lane%ROWTYPE;
    v_gates_open boolean;
    v_ids uuid[];
    v_old uuid[];
    v_new integer[];
    v_refusal text;
    v_grace interval := '2 seconds';  -- reserved inside the window, committed just after it
    v_left_fen bigint;
    v_left_count bigint;
    v_min_fen bigint;
    v_max_fen bigint;
    v_verdicts text[];
    v_taken bigint[];
    v_position bigint;
    v_won_fen bigint := 0;
    v_won_count bigint := 0;
    i integer;
    n integer := cardinality(p_participants);
BEGIN
    SELECT p.* INTO STRICT v_packet
      FROM packets_packet p JOIN packets_lane l ON l.packet_id = p.id WHERE l.id = p_lane;
    SELECT array_agg(laisee_claim_id(v_packet.id, r.participant, r.serial) ORDER BY r.o) INTO v_ids
      FROM unnest(p_participants, p_serials) WITH ORDINALITY AS r(participant, serial, o);

    -- Repeats of committed claims take no lock: they are answered even while the lane is held.
    SELECT array_agg(c.id) INTO v_old FROM packets_claim c WHERE c.id = ANY (v_ids);

    IF v_old IS NULL OR NOT v_ids <@ v_old THEN
        SELECT l.* INTO STRICT v_lane FROM packets_lane l WHERE l.id = p_lane FOR NO KEY UPDATE;
        -- guard:reread begin
        -- A new snapshot: whoever held the lane before us may have committed some of these claims.
        SELECT array_agg(c.id) INTO v_old FROM packets_claim c WHERE c.id = ANY (v_ids);
        -- guard:reread end
        SELECT p.* INTO STRICT v_packet FROM packets_packet p WHERE p.id = v_lane.packet_id;
        -- guard:gate begin
        SELECT bool_and(g.state = 'open') INTO v_gates_open
          FROM packets_gate g WHERE g.id = v_packet.gate_id OR g.key = 'all';
        v_refusal := CASE
            WHEN v_lane.state = 'closed' OR v_packet.state = 'closed' THEN 'closed'
            WHEN NOT v_gates_open OR v_packet.state <> 'open' THEN 'paused'
            WHEN v_packet.opens_at > clock_timestamp() THEN 'not_started'
            WHEN v_packet.closes_at + v_grace < clock_timestamp() THEN 'ended'
        END;
        -- guard:gate end

        v_left_fen := v_lane.total_fen - v_lane.claimed_fen;
        v_left_count := v_lane.count - v_lane.claimed_count;
        v_min_fen := v_packet.min_fen;
        v_max_fen := COALESCE(v_packet.max_fen, v_lane.total_fen);
        v_verdicts := array_fill(NULL::text, ARRAY[n]);
        SELECT array_agg(c.index) INTO v_taken
          FROM packets_claim c
         WHERE c.lane_id = p_lane AND c.epoch = v_lane.epoch AND c.index = ANY (p_indexes);
        v_taken := COALESCE(v_taken, '{}');
        v_old := COALESCE(v_old, '{}');

        -- In the order of the indexes, against what is left after the rows before it.
        FOR i IN SELECT r.o FROM unnest(p_indexes) WITH ORDINALITY AS r(idx, o) ORDER BY r.idx, r.o
        LOOP
            IF v_ids[i] = ANY (v_old) THEN
                v_verdicts[i] := 'exists';
            ELSIF v_refusal IS NOT NULL THEN
                v_verdicts[i] := v_refusal;
            -- guard:home begin
            ELSIF laisee_home_lane(v_packet.home_key, p_participants[i], v_packet.lane_count)
                  <> v_lane.number THEN
                v_verdicts[i] := 'misplaced';
            -- guard:home end
            -- guard:ticket begin
            -- A process of a version that knew no tickets asks without a serial.
            ELSIF v_packet.needs_ticket AND p_serials[i] = 0 THEN
                v_verdicts[i] := 'misplaced';
            -- guard:ticket end
            -- guard:fence begin
            ELSIF p_epochs[i] <> v_lane.epoch OR v_lane.state <> 'open' THEN
                v_verdicts[i] := 'fenced';
            -- guard:fence end
            -- guard:index begin
            ELSIF p_indexes[i] = ANY (v_taken) THEN
                v_verdicts[i] := 'conflict';
            -- guard:index end
            -- guard:total begin
            ELSIF v_left_count = 0
                  OR p_amounts[i] NOT BETWEEN v_min_fen AND v_max_fen
                  OR v_left_fen - p_amounts[i] < (v_left_count - 1) * v_min_fen
                  OR v_left_fen - p_amounts[i] > (v_left_count - 1)::numeric * v_max_fen THEN
                v_verdicts[i] := 'conflict';
            -- guard:total end
            ELSE
                v_verdicts[i] := 'won';
                v_old := v_old || v_ids[i];
                v_taken := v_taken || p_indexes[i];
                v_left_fen := v_left_fen - p_amounts[i];
                v_left_count := v_left_count - 1;
                v_won_fen := v_won_fen + p_amounts[i];
                v_won_count := v_won_count + 1;
            END IF;
        END LOOP;

        IF v_won_count > 0 THEN
            v_position := v_lane.claimed_count;
            INSERT INTO packets_claim (id, packet_id, lane_id, participant, serial, epoch, index,
                                       amount_fen, tier, position, committed_at)
            SELECT v_ids[r.o], v_packet.id, p_lane, r.participant, r.serial, r.epoch, r.index,
                   r.amount_fen, r.tier, v_position + row_number() OVER (ORDER BY r.index, r.o),
                   date_trunc('milliseconds', clock_timestamp())
              FROM unnest(p_participants, p_serials, p_epochs, p_indexes, p_amounts, p_tiers,
                          v_verdicts)
                   WITH ORDINALITY AS r(participant, serial, epoch, index, amount_fen, tier,
                                        verdict, o)
             WHERE r.verdict = 'won'
             ORDER BY r.index, r.o;
            UPDATE packets_lane SET claimed_fen = claimed_fen + v_won_fen,
                                    claimed_count = claimed_count + v_won_count
             WHERE id = p_lane;
        END IF;
    ELSE
        v_verdicts := array_fill('exists'::text, ARRAY[n]);
    END IF;

    RETURN QUERY
    SELECT r.o, r.verdict, v_ids[r.o], c.epoch, c.index, c.amount_fen, c.tier, c.committed_at,
           COALESCE(v_lane.epoch, c.epoch)
      FROM unnest(v_verdicts) WITH ORDINALITY AS r(verdict, o)
      LEFT JOIN packets_claim c ON c.id = v_ids[r.o] AND r.verdict IN ('won', 'exists')
     ORDER BY r.o;
END
$$;

-- People are written down before their claims, in a transaction of their own that waits for no disk:
-- the log is sequential, so the flush of the claim's commit carries this one along.
CREATE OR REPLACE FUNCTION laisee_remember_people(
    p_digests bytea[], p_client_apps bigint[], p_subjects text[]
)
RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO packets_participant (digest, client_app_id, subject)
    SELECT DISTINCT ON (r.digest) r.digest, r.client_app_id, r.subject
      FROM unnest(p_digests, p_client_apps, p_subjects) AS r(digest, client_app_id, subject)
     WHERE r.subject <> ''  -- a sweep that commits for an absent owner knows only the digest
     ORDER BY r.digest
        ON CONFLICT (digest) DO NOTHING;
END
$$;
