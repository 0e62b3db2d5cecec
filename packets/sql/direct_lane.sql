-- laisee_direct_lane: makes a lane ready for claims that no Redis has reserved.
--
-- Called first in the transaction that commits such claims (packets/claiming/direct.py). It locks the
-- lane, so that the caller cuts the next portions from what the rows say, with nobody in between:
-- in an epoch of cause `direct` every portion is committed in the moment it is cut, so the number of
-- claims is the next index and there are no gaps.
--
-- p_blind: the caller can't reach Redis. It takes the lane over under an epoch of its own (which
-- fences whatever Redis has reserved), once: later callers, of any process, go on in that epoch. The
-- lease `direct_until` keeps rebuilds away while blind callers come; where Redis is away for one
-- process only, the others follow it instead of opening epoch upon epoch.
--
-- Modes: direct (cut and commit), fast (the lane is Redis's: reserve there), closed, over (the window
-- has ended: nothing was reserved inside it, so nothing has to be committed after it).
-- p_given says how many portions of each tier were given up to position p_position; the reply's
-- tiers_given and position are of now.

-- How many portions of each of n tiers a lane has given at the positions after p_after up to p_upto.
-- Positions are given under the lane's lock and never change, so most of it can be counted apart
-- from the lock and kept: a lane may have given a million prizes.
CREATE OR REPLACE FUNCTION laisee_tiers_given(
    p_lane bigint, p_after bigint, p_upto bigint, p_tiers integer
)
RETURNS bigint[] LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT COALESCE(array_agg(COALESCE(g.given, 0) ORDER BY t.tier), '{}')
      FROM generate_series(1, p_tiers) AS t(tier)
      LEFT JOIN (SELECT c.tier, count(*) AS given
                   FROM packets_claim c
                  WHERE c.lane_id = p_lane AND c.position > p_after AND c.position <= p_upto
                    AND c.tier > 0 AND p_tiers > 0  -- no prizes: no claim is looked at
                  GROUP BY c.tier) g ON g.tier = t.tier
$$;

CREATE OR REPLACE FUNCTION laisee_direct_lane(
    p_lane bigint, p_blind boolean, p_lease interval, p_position bigint, p_given bigint[]
)
RETURNS TABLE (
    mode text, epoch bigint, left_fen bigint, left_count bigint, tiers_left bigint[],
    start_fen bigint, start_count bigint, start_tiers bigint[], "position" bigint,
    tiers_given bigint[]
)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_lane packets_lane%ROWTYPE;
    v_epoch packets_laneepoch%ROWTYPE;
    v_now timestamptz;
    v_given bigint[];
    v_left bigint[];
BEGIN
    SELECT l.* INTO STRICT v_lane FROM packets_lane l WHERE l.id = p_lane FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    IF v_lane.state = 'closed' THEN
        RETURN QUERY SELECT 'closed', v_lane.epoch, 0::bigint, 0::bigint, '{}'::bigint[],
                            0::bigint, 0::bigint, '{}'::bigint[], 0::bigint, p_given;
        RETURN;
    END IF;
    -- guard:end begin
    IF (SELECT p.closes_at <= v_now FROM packets_packet p WHERE p.id = v_lane.packet_id) THEN
        RETURN QUERY SELECT 'over', v_lane.epoch, 0::bigint, 0::bigint, '{}'::bigint[],
                            0::bigint, 0::bigint, '{}'::bigint[], 0::bigint, p_given;
        RETURN;
    END IF;
    -- guard:end end
    IF NOT p_blind AND (v_lane.state <> 'open' OR v_lane.direct_until IS NULL
                        OR v_lane.direct_until < v_now) THEN
        RETURN QUERY SELECT 'fast', v_lane.epoch, 0::bigint, 0::bigint, '{}'::bigint[],
                            0::bigint, 0::bigint, '{}'::bigint[], 0::bigint, p_given;
        RETURN;
    END IF;

    SELECT COALESCE(array_agg(k.given + n.given ORDER BY k.o), '{}') INTO v_given
      FROM unnest(p_given) WITH ORDINALITY AS k(given, o)
      JOIN unnest(laisee_tiers_given(p_lane, p_position, v_lane.claimed_count,
                                     cardinality(p_given)))
           WITH ORDINALITY AS n(given, o) ON n.o = k.o;
    SELECT COALESCE(array_agg(q.quantity::bigint - v_given[q.o] ORDER BY q.o), '{}') INTO v_left
      FROM jsonb_array_elements_text(v_lane.tiers) WITH ORDINALITY AS q(quantity, o);

    IF v_lane.state <> 'open' OR v_lane.direct_until IS NULL THEN
        v_lane.epoch := v_lane.epoch + 1;
        INSERT INTO packets_laneepoch (lane_id, epoch, left_fen, left_count, tiers_left, cause)
        VALUES (p_lane, v_lane.epoch, v_lane.total_fen - v_lane.claimed_fen,
                v_lane.count - v_lane.claimed_count, to_jsonb(v_left), 'direct');
        UPDATE packets_lane l
           SET epoch = v_lane.epoch, state = 'open', loader = NULL, loader_until = NULL,
               direct_until = v_now + p_lease
         WHERE l.id = p_lane;
    ELSIF p_blind AND v_lane.direct_until < v_now + p_lease / 2 THEN
        UPDATE packets_lane l SET direct_until = v_now + p_lease WHERE l.id = p_lane;
    END IF;

    SELECT e.* INTO STRICT v_epoch
      FROM packets_laneepoch e WHERE e.lane_id = p_lane AND e.epoch = v_lane.epoch;
    RETURN QUERY
    SELECT 'direct', v_lane.epoch, v_lane.total_fen - v_lane.claimed_fen,
           v_lane.count - v_lane.claimed_count, v_left, v_epoch.left_fen, v_epoch.left_count,
           ARRAY(SELECT jsonb_array_elements_text(v_epoch.tiers_left)::bigint),
           v_lane.claimed_count, v_given;
END
$$;
