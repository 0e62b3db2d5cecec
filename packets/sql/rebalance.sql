-- laisee_rebalance: moves what is left between open lanes of one packet.
--
-- The application may not change what a lane holds; this function does, and only so that nothing is
-- won or lost by it: money, portions and prizes of the lanes named are the same in sum before and
-- after, and every lane can still be cut within the packet's bounds. Whatever else it is asked for it
-- refuses whole. Who gets how much is reckoned in packets/moves.py, under the same locks.
--
-- p_lanes      the lanes, in ascending order of id; p_seen their epochs as the caller saw them
-- p_epochs     their new epochs; p_left_fen, p_left_count, p_tiers_left (an array of arrays of
--              numbers) what these begin with
-- p_tiers_held what they have left of each tier now; p_loader and p_lease: who loads them into Redis,
--              and for how long nobody else may
--
-- Replies with the number of the move: 1, 2, 3, … of this packet. Raises laisee_rebalance_refused.

CREATE OR REPLACE FUNCTION laisee_rebalance(
    p_packet     uuid,
    p_lanes      bigint[],
    p_seen       bigint[],
    p_epochs     bigint[],
    p_left_fen   bigint[],
    p_left_count bigint[],
    p_tiers_held jsonb,
    p_tiers_left jsonb,
    p_loader     uuid,
    p_lease      interval
)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_packet packets_packet%ROWTYPE;
    v_lane packets_lane%ROWTYPE;
    v_move bigint;
    v_before bigint[] := '{0,0}';
    v_after bigint[] := '{0,0}';
    v_held bigint[];
    v_left bigint[];
    v_sum_held bigint[];
    v_sum_left bigint[];
    v_prizes bigint;
    v_prizes_fen bigint;
    v_rest_fen bigint;
    v_rest_count bigint;
    i integer;
    n integer := cardinality(p_lanes);
BEGIN
    -- Of two moves of a packet one is after the other: so are their numbers.
    PERFORM pg_advisory_xact_lock(hashtextextended('laisee_rebalance:' || p_packet, 0));
    PERFORM FROM packets_lane l WHERE l.id = ANY (p_lanes) ORDER BY l.id FOR NO KEY UPDATE;
    SELECT p.* INTO STRICT v_packet FROM packets_packet p WHERE p.id = p_packet;
    v_sum_held := array_fill(0::bigint, ARRAY[jsonb_array_length(v_packet.tiers)]);
    v_sum_left := v_sum_held;

    FOR i IN 1 .. n LOOP
        SELECT l.* INTO STRICT v_lane FROM packets_lane l WHERE l.id = p_lanes[i];
        v_held := ARRAY(SELECT jsonb_array_elements_text(p_tiers_held -> (i - 1))::bigint);
        v_left := ARRAY(SELECT jsonb_array_elements_text(p_tiers_left -> (i - 1))::bigint);
        -- guard:fence begin
        IF v_lane.epoch IS DISTINCT FROM p_seen[i] OR p_epochs[i] <= v_lane.epoch
           OR v_lane.state <> 'open' OR v_lane.direct_until IS NOT NULL THEN
            RAISE EXCEPTION 'laisee_rebalance_refused: lane % is %, in epoch %',
                p_lanes[i], v_lane.state, v_lane.epoch USING ERRCODE = 'P0L01';
        END IF;
        -- guard:fence end
        IF v_lane.packet_id <> p_packet OR p_lanes[i] <= p_lanes[i - 1]
           OR cardinality(v_held) <> cardinality(v_sum_held)
           OR cardinality(v_left) <> cardinality(v_sum_held) THEN
            RAISE EXCEPTION 'laisee_rebalance_refused: lane % does not belong here', p_lanes[i]
                USING ERRCODE = 'P0L01';
        END IF;
        SELECT COALESCE(sum(x.quantity), 0), COALESCE(sum(x.quantity * (t.tier ->> 0)::bigint), 0)
          INTO v_prizes, v_prizes_fen
          FROM unnest(v_left) WITH ORDINALITY AS x(quantity, o)
          JOIN jsonb_array_elements(v_packet.tiers) WITH ORDINALITY AS t(tier, o) ON t.o = x.o;
        v_rest_fen := p_left_fen[i] - v_prizes_fen;
        v_rest_count := p_left_count[i] - v_prizes;
        -- guard:bounds begin
        IF 0 > ANY (v_left) OR v_rest_count < 0 OR v_rest_fen < v_rest_count::numeric * v_packet.min_fen
           OR v_rest_fen > v_rest_count::numeric * COALESCE(v_packet.max_fen, v_rest_fen)
           OR (v_rest_count = 0 AND v_rest_fen <> 0) THEN
            RAISE EXCEPTION 'laisee_rebalance_refused: lane % could not be cut', p_lanes[i]
                USING ERRCODE = 'P0L01';
        END IF;
        -- guard:bounds end
        v_before[1] := v_before[1] + v_lane.total_fen - v_lane.claimed_fen;
        v_before[2] := v_before[2] + v_lane.count - v_lane.claimed_count;
        v_after[1] := v_after[1] + p_left_fen[i];
        v_after[2] := v_after[2] + p_left_count[i];
        v_sum_held := ARRAY(SELECT a.x + b.x FROM unnest(v_sum_held) WITH ORDINALITY AS a(x, o)
                              JOIN unnest(v_held) WITH ORDINALITY AS b(x, o) USING (o) ORDER BY o);
        v_sum_left := ARRAY(SELECT a.x + b.x FROM unnest(v_sum_left) WITH ORDINALITY AS a(x, o)
                              JOIN unnest(v_left) WITH ORDINALITY AS b(x, o) USING (o) ORDER BY o);
    END LOOP;
    -- guard:sums begin
    IF v_before <> v_after OR v_sum_held <> v_sum_left THEN
        RAISE EXCEPTION 'laisee_rebalance_refused: % and prizes % would become % and %',
            v_before, v_sum_held, v_after, v_sum_left USING ERRCODE = 'P0L01';
    END IF;
    -- guard:sums end

    SELECT COALESCE(max(e.move), 0) + 1 INTO v_move
      FROM packets_laneepoch e JOIN packets_lane l ON l.id = e.lane_id
     WHERE l.packet_id = p_packet;
    INSERT INTO packets_laneepoch (lane_id, epoch, left_fen, left_count, tiers_left, cause, move)
    SELECT r.lane, r.epoch, r.fen, r.portions, p_tiers_left -> (r.o - 1)::integer, 'rebalanced',
           v_move
      FROM unnest(p_lanes, p_epochs, p_left_fen, p_left_count)
           WITH ORDINALITY AS r(lane, epoch, fen, portions, o);
    UPDATE packets_lane l
       SET total_fen = l.claimed_fen + r.fen,
           count = l.claimed_count + r.portions,
           tiers = COALESCE((
               SELECT jsonb_agg(q.x::bigint - h.x::bigint + k.x::bigint ORDER BY q.o)
                 FROM jsonb_array_elements_text(l.tiers) WITH ORDINALITY AS q(x, o)
                 JOIN jsonb_array_elements_text(p_tiers_held -> (r.o - 1)::integer)
                      WITH ORDINALITY AS h(x, o) USING (o)
                 JOIN jsonb_array_elements_text(p_tiers_left -> (r.o - 1)::integer)
                      WITH ORDINALITY AS k(x, o) USING (o)), '[]'),
           epoch = r.epoch,
           state = 'loading',
           loader = p_loader,
           loader_until = clock_timestamp() + p_lease
      FROM unnest(p_lanes, p_epochs, p_left_fen, p_left_count)
           WITH ORDINALITY AS r(lane, epoch, fen, portions, o)
     WHERE l.id = r.lane;
    RETURN v_move;
END
$$;
