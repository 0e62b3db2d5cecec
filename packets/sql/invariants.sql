-- The invariants, as questions for those who break them: every row is an offender.
--
-- Each query begins with a line `-- query: <name>` and returns (name, what): the check that is
-- broken, and by whom. The words are only formed for offenders (CASE WHEN … THEN … END): forming
-- them for every row would cost more than the checks. Which checks there are, with their numbers and
-- meanings, stands in packets/invariants.py; a query answers several at once where one pass over a
-- table is enough. OFFSET 0 keeps Postgres from unfolding the columns into the list below them,
-- where it would evaluate them for every row and name. All of them run in one read-only snapshot.

-- query: lanes
WITH fact AS MATERIALIZED (
    SELECT lane_id, count(*) AS claims, sum(amount_fen) AS fen FROM packets_claim GROUP BY lane_id
)
SELECT broken.name, 'lane ' || seen.id || ': ' || broken.what
  FROM (
    SELECT lane.id AS id,
           CASE WHEN
           lane.claimed_fen NOT BETWEEN 0 AND lane.total_fen
           OR lane.claimed_count NOT BETWEEN 0 AND lane.count
           OR (lane.claimed_count = lane.count AND lane.claimed_fen <> lane.total_fen)
           THEN format('%s of %s fen, %s of %s portions',
                       lane.claimed_fen, lane.total_fen, lane.claimed_count, lane.count)
           END AS lane_caps,
           CASE WHEN
           lane.claimed_count <> COALESCE(fact.claims, 0)
           OR lane.claimed_fen <> COALESCE(fact.fen, 0)
           THEN format('counts %s claims of %s fen, has %s of %s',
                       lane.claimed_count, lane.claimed_fen, COALESCE(fact.claims, 0), COALESCE(fact.fen, 0))
           END AS lane_counters,
           CASE WHEN
           mark.settled_count IS NULL OR mark.settled_count NOT BETWEEN 0 AND lane.claimed_count
           OR (mark.is_done AND (lane.state <> 'closed' OR mark.settled_count < lane.claimed_count))
           THEN format('cursor %s, claims %s, %s', COALESCE(mark.settled_count::text, 'missing'),
                       lane.claimed_count, CASE WHEN mark.is_done THEN 'done' ELSE 'going on' END)
           END AS cursors
      FROM packets_lane AS lane
      LEFT JOIN fact ON fact.lane_id = lane.id
      LEFT JOIN packets_lanecursor AS mark ON mark.lane_id = lane.id
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('lane_caps', seen.lane_caps),
    ('lane_counters', seen.lane_counters),
    ('cursors', seen.cursors)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.lane_caps, seen.lane_counters, seen.cursors) > 0

-- query: tape
SELECT broken.name, 'claim ' || seen.id || ': ' || broken.what
  FROM (
    SELECT tape.id AS id,
           CASE WHEN tape.position <> tape.place
           THEN format('position %s at place %s of lane %s',
                       tape.position, tape.place, tape.lane_id)
           END AS positions,
           CASE WHEN tape.epoch < tape.epoch_before
           THEN format('epoch %s committed after epoch %s', tape.epoch, tape.epoch_before)
           END AS epoch_order
      FROM (SELECT id, lane_id, position, epoch,
                   row_number() OVER lane AS place, lag(epoch) OVER lane AS epoch_before
              FROM packets_claim
            WINDOW lane AS (PARTITION BY lane_id ORDER BY position)) AS tape
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('positions', seen.positions),
    ('epoch_order', seen.epoch_order)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.positions, seen.epoch_order) > 0

-- query: claims
SELECT broken.name, 'claim ' || seen.id || ': ' || broken.what
  FROM (
    SELECT claim.id AS id,
           CASE WHEN
           claim.id <> laisee_claim_id(claim.packet_id, claim.participant, claim.serial)
           THEN 'its id is not that of its packet, participant and serial'
           END AS claim_ids,
           CASE WHEN packet.needs_ticket AND given.id IS NULL
           THEN format('nobody issued ticket %s to its participant', claim.serial)
           END AS tickets_issued,
           CASE WHEN
           claim.packet_id IS DISTINCT FROM lane.packet_id
           OR laisee_home_lane(packet.home_key, claim.participant, packet.lane_count)
              IS DISTINCT FROM lane.number
           THEN format('it lies in lane %s, which is not its home', claim.lane_id)
           END AS home_lanes,
           CASE WHEN
           began.id IS NULL OR claim.epoch > lane.epoch
           OR claim.index NOT BETWEEN 0 AND began.left_count - 1
           THEN format('index %s of epoch %s does not exist', claim.index, claim.epoch)
           END AS epochs_known,
           CASE WHEN
           (claim.position <= mark.settled_count) IS DISTINCT FROM (known.claim_id IS NOT NULL)
           THEN format('position %s, cursor %s, state %s', claim.position, mark.settled_count,
                       COALESCE(known.state, 'none'))
           END AS claims_dealt,
           CASE WHEN
           known.state = 'settled' AND held.id IS NULL AND (
              paid.id IS NULL OR paid.kind <> 'settle'
              OR paid.reference <> 'settle:' || encode(uuid_send(claim.id), 'hex')
              OR paid.amount_fen <> claim.amount_fen OR paid.currency <> packet.currency
              OR paid.debit_account_id IS DISTINCT FROM packet.escrow_id
              OR taker.kind <> 'wallet' OR taker.owner <> encode(claim.participant, 'hex'))
           THEN 'its transfer is missing, or is not escrow to its own wallet over its amount'
           END AS settled_paid,
           CASE WHEN
           (held.id IS NOT NULL OR known.state IN ('held', 'forfeited')) AND (
              held.id IS NULL OR paid.id IS NULL
              OR (known.state, held.state) NOT IN (
                 ('held', 'open'), ('settled', 'released'), ('forfeited', 'forfeited'))
              OR paid.reference <> CASE known.state
                 WHEN 'held' THEN 'settle:' || encode(uuid_send(claim.id), 'hex')
                 ELSE 'resolve:' || encode(uuid_send(held.id), 'hex') END
              OR paid.amount_fen <> claim.amount_fen OR held.amount_fen <> claim.amount_fen
              OR held.participant <> claim.participant OR held.funder_id <> packet.funder_id)
           THEN format('state %s, its hold %s, and its transfer do not fit', known.state,
                       COALESCE(held.state, 'missing'))
           END AS held_claims,
           CASE WHEN
           known.claim_id IS NOT NULL
           AND (known.state NOT IN ('settled', 'parked', 'held', 'forfeited')
                OR (known.state = 'parked') <> (known.transfer_id IS NULL))
           THEN format('state %s does not fit its transfer', known.state)
           END AS claim_states
      FROM packets_claim AS claim
      LEFT JOIN packets_lane AS lane ON lane.id = claim.lane_id
      LEFT JOIN packets_packet AS packet ON packet.id = lane.packet_id
      LEFT JOIN packets_laneepoch AS began
             ON began.lane_id = claim.lane_id AND began.epoch = claim.epoch
      LEFT JOIN packets_ticket AS given
             ON given.packet_id = claim.packet_id AND given.participant = claim.participant
            AND given.serial = claim.serial
      LEFT JOIN packets_lanecursor AS mark ON mark.lane_id = claim.lane_id
      LEFT JOIN packets_claimstate AS known ON known.claim_id = claim.id
      LEFT JOIN packets_transfer AS paid ON paid.id = known.transfer_id
      LEFT JOIN packets_account AS taker ON taker.id = paid.credit_account_id
      LEFT JOIN packets_hold AS held ON held.claim_id = claim.id
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('claim_ids', seen.claim_ids),
    ('tickets_issued', seen.tickets_issued),
    ('home_lanes', seen.home_lanes),
    ('epochs_known', seen.epochs_known),
    ('claims_dealt', seen.claims_dealt),
    ('settled_paid', seen.settled_paid),
    ('held_claims', seen.held_claims),
    ('claim_states', seen.claim_states)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.claim_ids, seen.tickets_issued, seen.home_lanes, seen.epochs_known,
           seen.claims_dealt, seen.settled_paid, seen.held_claims, seen.claim_states) > 0

-- query: payments
SELECT 'paid_settled', 'transfer ' || paid.reference || ': no claim was settled by it'
  FROM packets_transfer AS paid
 WHERE paid.kind = 'settle'
   AND NOT EXISTS (
       SELECT FROM packets_claimstate AS known
        WHERE known.transfer_id = paid.id AND known.state = 'settled')
UNION ALL
SELECT 'states_claimed', 'state of claim ' || known.claim_id || ': there is no such claim'
  FROM packets_claimstate AS known
 WHERE NOT EXISTS (SELECT FROM packets_claim AS claim WHERE claim.id = known.claim_id)

-- query: holds
SELECT broken.name, 'hold ' || seen.id || ': ' || broken.what
  FROM (
    SELECT held.id AS id,
           CASE WHEN
           began.id IS NULL OR began.kind <> 'hold' OR began.amount_fen <> held.amount_fen
           OR began.currency <> held.currency OR began.credit_account_id IS DISTINCT FROM place.id
           OR began.debit_account_id IS DISTINCT FROM COALESCE(packet.escrow_id, held.wallet_id)
           THEN 'the money that it holds did not come in by it'
           END AS holds_begun,
           CASE WHEN
           (held.state = 'open') <> (ended.id IS NULL)
           OR (held.state <> 'open' AND (
              ended.kind <> CASE held.state WHEN 'released' THEN 'release' ELSE 'forfeit' END
              OR ended.amount_fen <> held.amount_fen
              OR ended.debit_account_id IS DISTINCT FROM place.id
              OR ended.credit_account_id <> CASE held.state
                 WHEN 'released' THEN held.wallet_id ELSE held.funder_id END))
           THEN format('%s, ended by %s', held.state, COALESCE(ended.kind, 'nothing'))
           END AS holds_ended,
           CASE WHEN
           owner.kind <> 'wallet' OR owner.owner <> encode(held.participant, 'hex')
           OR (held.claim_id IS NOT NULL AND claim.id IS NULL)
           THEN 'its wallet is another person''s'
           END AS holds_own
      FROM packets_hold AS held
      LEFT JOIN packets_claim AS claim ON claim.id = held.claim_id
      LEFT JOIN packets_packet AS packet ON packet.id = claim.packet_id
      LEFT JOIN packets_account AS owner ON owner.id = held.wallet_id
      LEFT JOIN packets_account AS place
             ON place.kind = 'held' AND place.owner = encode(held.participant, 'hex')
            AND place.currency = held.currency
      LEFT JOIN packets_transfer AS began
             ON began.reference = CASE WHEN held.claim_id IS NULL
                THEN 'hold:' || encode(uuid_send(held.id), 'hex')
                ELSE 'settle:' || encode(uuid_send(held.claim_id), 'hex') END
      LEFT JOIN packets_transfer AS ended
             ON ended.reference = 'resolve:' || encode(uuid_send(held.id), 'hex')
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('holds_begun', seen.holds_begun),
    ('holds_ended', seen.holds_ended),
    ('holds_own', seen.holds_own)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.holds_begun, seen.holds_ended, seen.holds_own) > 0

-- query: held
WITH wanted AS (
    SELECT encode(participant, 'hex') AS owner, currency, sum(amount_fen) AS fen
      FROM packets_hold WHERE state = 'open' GROUP BY participant, currency
), there AS (
    SELECT owner, currency, credits_fen - debits_fen AS fen
      FROM packets_account WHERE kind = 'held'
)
SELECT 'held_balance',
       format('%s holds %s fen, its open holds %s', owner, COALESCE(there.fen, 0),
              COALESCE(wanted.fen, 0))
  FROM wanted FULL JOIN there USING (owner, currency)
 WHERE COALESCE(there.fen, 0) <> COALESCE(wanted.fen, 0)

-- query: once
SELECT 'one_claim_each',
       format('packet %s, participant %s, serial %s: %s claims',
              packet_id, encode(participant, 'hex'), serial, count(*))
  FROM packets_claim
 GROUP BY packet_id, participant, serial HAVING count(*) > 1
UNION ALL
SELECT 'portion_once',
       format('lane %s, epoch %s, index %s: %s claims', lane_id, epoch, index, count(*))
  FROM packets_claim
 GROUP BY lane_id, epoch, index HAVING count(*) > 1

-- query: accounts
WITH side AS (
    SELECT debit_account_id AS account_id, currency, amount_fen AS debit_fen, 0 AS credit_fen
      FROM packets_transfer
    UNION ALL
    SELECT credit_account_id, currency, 0, amount_fen FROM packets_transfer
), fact AS MATERIALIZED (
    SELECT account_id, sum(debit_fen) AS debits_fen, sum(credit_fen) AS credits_fen,
           min(currency) AS low, max(currency) AS high
      FROM side GROUP BY account_id
)
SELECT broken.name, 'account ' || seen.id || ': ' || broken.what
  FROM (
    SELECT COALESCE(account.id, fact.account_id) AS id,
           CASE WHEN
           account.debits_fen IS DISTINCT FROM COALESCE(fact.debits_fen, 0)
           OR account.credits_fen IS DISTINCT FROM COALESCE(fact.credits_fen, 0)
           THEN format('holds %s − %s fen, its transfers say %s − %s', account.credits_fen,
                       account.debits_fen, COALESCE(fact.credits_fen, 0),
                       COALESCE(fact.debits_fen, 0))
           END AS account_sums,
           CASE WHEN
           account.currency <> fact.low OR account.currency <> fact.high
           THEN format('is in %s, its transfers are in %s, %s',
                       account.currency, fact.low, fact.high)
           END AS one_currency,
           CASE WHEN
           account.kind <> 'external' AND account.credits_fen < account.debits_fen
           THEN format('%s is %s fen below zero', account.kind,
                       account.debits_fen - account.credits_fen)
           END AS not_overdrawn
      FROM packets_account AS account
      FULL JOIN fact ON fact.account_id = account.id
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('account_sums', seen.account_sums),
    ('one_currency', seen.one_currency),
    ('not_overdrawn', seen.not_overdrawn)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.account_sums, seen.one_currency, seen.not_overdrawn) > 0

-- query: transfers
SELECT 'transfers_sound', 'transfer ' || moved.reference || ': no amount, or only one account'
  FROM packets_transfer AS moved
 WHERE moved.amount_fen <= 0 OR moved.debit_account_id = moved.credit_account_id
 UNION ALL
SELECT 'kinds_fit',
       format('transfer %s: %s from %s to %s', moved.reference, moved.kind, giver.kind, taker.kind)
  FROM packets_transfer AS moved
  JOIN packets_account AS giver ON giver.id = moved.debit_account_id
  JOIN packets_account AS taker ON taker.id = moved.credit_account_id
 WHERE (moved.kind, giver.kind, taker.kind) NOT IN (
       ('fund', 'external', 'campaign'), ('refund', 'campaign', 'external'),
       ('open', 'campaign', 'escrow'), ('open', 'wallet', 'escrow'),
       ('settle', 'escrow', 'wallet'),
       ('close', 'escrow', 'campaign'), ('close', 'escrow', 'wallet'),
       ('hold', 'escrow', 'held'), ('hold', 'wallet', 'held'), ('release', 'held', 'wallet'),
       ('forfeit', 'held', 'campaign'), ('forfeit', 'held', 'wallet'),
       ('payout', 'wallet', 'clearing'), ('paid', 'clearing', 'external'),
       ('payback', 'clearing', 'wallet'))

-- query: payouts
WITH known AS MATERIALIZED (
    SELECT payout_id,
           count(*) FILTER (WHERE state = 'live') AS live,
           count(*) FILTER (WHERE state = 'paid') AS paid
      FROM packets_payoutnumber GROUP BY payout_id
)
SELECT broken.name, 'payout ' || seen.id || ': ' || broken.what
  FROM (
    SELECT payout.id AS id,
           CASE WHEN
           begun.id IS NULL OR begun.kind <> 'payout' OR begun.amount_fen <> payout.amount_fen
           OR begun.currency <> payout.currency OR begun.debit_account_id <> payout.wallet_id
           OR begun.credit_account_id IS DISTINCT FROM clearing.id
           THEN 'its money did not go from its wallet to clearing'
           END AS payout_begun,
           CASE WHEN
           CASE WHEN payout.state IN ('paid', 'failed', 'cancelled') THEN
                ended.id IS NULL OR ended.amount_fen <> payout.amount_fen
                OR ended.debit_account_id IS DISTINCT FROM clearing.id
                OR (payout.state = 'paid') <> (ended.kind = 'paid')
                OR (payout.state <> 'paid') <> (ended.credit_account_id = payout.wallet_id)
           ELSE ended.id IS NOT NULL END
           THEN format('it is %s, its money: %s', payout.state,
                       COALESCE(ended.kind, 'in clearing'))
           END AS payout_ended,
           CASE WHEN
           COALESCE(known.live, 0) > CASE WHEN payout.ended_at IS NULL THEN 1 ELSE 0 END
           OR COALESCE(known.paid, 0) <> CASE WHEN payout.state = 'paid' THEN 1 ELSE 0 END
           THEN format('%s, with %s live and %s paid numbers', payout.state,
                       COALESCE(known.live, 0), COALESCE(known.paid, 0))
           END AS payout_numbers,
           CASE WHEN
           payout.ended_at IS NULL AND payout.manual_reason = ''
           AND (payout.next_attempt_at IS NULL
                OR payout.first_submitted_at < now() - interval '50 hours')
           THEN format('%s since %s, and nobody looks', payout.state,
                       payout.first_submitted_at)
           END AS payout_watched
      FROM packets_payout AS payout
      JOIN packets_provideraccount AS rail ON rail.id = payout.account_id
      LEFT JOIN packets_account AS clearing
             ON clearing.kind = 'clearing' AND clearing.owner = rail.name
            AND clearing.currency = payout.currency
      LEFT JOIN packets_transfer AS begun
             ON begun.reference = 'payout:' || encode(uuid_send(payout.id), 'hex')
      LEFT JOIN packets_transfer AS ended
             ON ended.reference = 'payout-end:' || encode(uuid_send(payout.id), 'hex')
      LEFT JOIN known ON known.payout_id = payout.id
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('payout_begun', seen.payout_begun),
    ('payout_ended', seen.payout_ended),
    ('payout_numbers', seen.payout_numbers),
    ('payout_watched', seen.payout_watched)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.payout_begun, seen.payout_ended, seen.payout_numbers,
           seen.payout_watched) > 0

-- query: clearing
WITH under_way AS (
    SELECT rail.name, payout.currency, sum(payout.amount_fen) AS fen
      FROM packets_payout AS payout
      JOIN packets_provideraccount AS rail ON rail.id = payout.account_id
     WHERE payout.ended_at IS NULL
     GROUP BY rail.name, payout.currency
)
SELECT 'clearing_balance',
       format('clearing of %s holds %s fen, payouts under way are worth %s',
              COALESCE(account.owner, under_way.name),
              COALESCE(account.credits_fen - account.debits_fen, 0), COALESCE(under_way.fen, 0))
  FROM (SELECT * FROM packets_account WHERE kind = 'clearing') AS account
  FULL JOIN under_way
         ON under_way.name = account.owner AND under_way.currency = account.currency
 WHERE COALESCE(account.credits_fen - account.debits_fen, 0) <> COALESCE(under_way.fen, 0)

-- query: conservation
WITH outside AS (
    SELECT moved.currency,
           sum(CASE WHEN giver.kind = 'external' THEN moved.amount_fen ELSE 0 END)
           - sum(CASE WHEN taker.kind = 'external' THEN moved.amount_fen ELSE 0 END) AS fen
      FROM packets_transfer AS moved
      JOIN packets_account AS giver ON giver.id = moved.debit_account_id
      JOIN packets_account AS taker ON taker.id = moved.credit_account_id
     WHERE giver.kind = 'external' OR taker.kind = 'external'
     GROUP BY moved.currency
), inside AS (
    SELECT currency, sum(credits_fen - debits_fen) AS fen
      FROM packets_account WHERE kind <> 'external' GROUP BY currency
)
SELECT 'conservation',
       format('%s: funded less returned and paid out %s fen, accounts hold %s',
              currency, COALESCE(outside.fen, 0), COALESCE(inside.fen, 0))
  FROM outside FULL JOIN inside USING (currency)
 WHERE COALESCE(outside.fen, 0) <> COALESCE(inside.fen, 0)

-- query: packets
WITH shares AS (
    SELECT packet_id, sum(total_fen) AS total_fen, sum(count) AS count, count(*) AS lanes,
           sum(total_fen - claimed_fen) AS left_fen, bool_and(state = 'closed') AS all_closed
      FROM packets_lane GROUP BY packet_id
), flows AS (
    SELECT packet.id AS packet_id,
           COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind IN ('open', 'grow')
                 AND moved.credit_account_id = packet.escrow_id
                 AND moved.debit_account_id = packet.funder_id), 0) AS funded_fen,
           COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind = 'settle'
                 AND moved.debit_account_id = packet.escrow_id), 0) AS settled_fen,
           COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind = 'hold'
                 AND moved.debit_account_id = packet.escrow_id), 0) AS held_fen,
           COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind = 'close' AND moved.debit_account_id = packet.escrow_id
                 AND moved.credit_account_id = packet.funder_id), 0) AS returned_fen,
           count(*) FILTER (
               WHERE moved.kind = 'close'
                 AND moved.debit_account_id = packet.escrow_id) AS returns
      FROM packets_packet AS packet
      LEFT JOIN packets_transfer AS moved
             ON packet.escrow_id IN (moved.debit_account_id, moved.credit_account_id)
     GROUP BY packet.id
)
SELECT broken.name, 'packet ' || seen.id || ': ' || broken.what
  FROM (
    SELECT packet.id AS id,
           CASE WHEN
           was_opened AND escrow_fen <> lanes_fen - settled_fen - held_fen - returned_fen
           THEN format('escrow holds %s fen; lanes %s − settled %s − held %s − returned %s',
                       escrow_fen, lanes_fen, settled_fen, held_fen, returned_fen)
           END AS escrow_balance,
           CASE WHEN
           lanes_fen > packet.total_fen OR COALESCE(shares.count, 0) > packet.count
           OR (was_opened AND (lanes_fen <> packet.total_fen OR shares.count <> packet.count
                               OR shares.lanes <> packet.lane_count))
           THEN format('%s fen in %s portions, its lanes hold %s in %s',
                       packet.total_fen, packet.count, lanes_fen, shares.count)
           END AS lanes_in_packet,
           CASE WHEN
           funded_fen <> CASE WHEN was_opened THEN packet.total_fen ELSE 0 END
           THEN format('worth %s fen, funded with %s', packet.total_fen, funded_fen)
           END AS packet_funded,
           CASE WHEN
           (packet.state = 'closed') <> (packet.closed_at IS NOT NULL)
           OR (packet.state = 'closed' AND NOT COALESCE(shares.all_closed, true))
           THEN format('%s, closed at %s, lanes closed: %s', packet.state,
                       COALESCE(packet.closed_at::text, 'never'), shares.all_closed)
           END AS closed_for_good,
           CASE WHEN
           CASE WHEN packet.state = 'closed' AND was_opened
                THEN returned_fen <> shares.left_fen OR returns > 1
                     OR (returns > 0 AND NOT shares.all_closed)
                ELSE returns > 0 END
           THEN format('%s, nobody claimed %s fen, returned %s in %s transfers', packet.state,
                       shares.left_fen, returned_fen, returns)
           END AS returned_once
      FROM packets_packet AS packet
      JOIN flows ON flows.packet_id = packet.id
      LEFT JOIN shares ON shares.packet_id = packet.id
      LEFT JOIN packets_account AS escrow ON escrow.id = packet.escrow_id
     CROSS JOIN LATERAL (SELECT
        COALESCE(shares.total_fen, 0) AS lanes_fen,
        COALESCE(escrow.credits_fen - escrow.debits_fen, 0) AS escrow_fen,
        packet.opened_at IS NOT NULL AS was_opened
     ) AS fact
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('escrow_balance', seen.escrow_balance),
    ('lanes_in_packet', seen.lanes_in_packet),
    ('packet_funded', seen.packet_funded),
    ('closed_for_good', seen.closed_for_good),
    ('returned_once', seen.returned_once)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.escrow_balance, seen.lanes_in_packet, seen.packet_funded,
           seen.closed_for_good, seen.returned_once) > 0

-- query: campaigns
WITH budget AS (
    SELECT account.id,
           COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind = 'fund' AND moved.credit_account_id = account.id), 0)
           - COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind = 'refund' AND moved.debit_account_id = account.id), 0)
           + COALESCE(sum(moved.amount_fen) FILTER (
               WHERE moved.kind IN ('close', 'forfeit')
                 AND moved.credit_account_id = account.id), 0) AS fen
      FROM packets_account AS account
      LEFT JOIN packets_transfer AS moved
             ON account.id IN (moved.debit_account_id, moved.credit_account_id)
     WHERE account.kind = 'campaign'
     GROUP BY account.id
)
SELECT 'campaign_covers',
       format('account %s: %s fen of funding, packets worth %s', budget.id, budget.fen,
              sum(packet.total_fen))
  FROM budget
  JOIN packets_packet AS packet ON packet.funder_id = budget.id AND packet.opened_at IS NOT NULL
 GROUP BY budget.id, budget.fen
HAVING sum(packet.total_fen) > budget.fen

-- query: epochs
WITH given AS (
    SELECT lane_id, epoch, count(*) AS claims, sum(amount_fen) AS fen
      FROM packets_claim GROUP BY lane_id, epoch
), story AS (
    SELECT began.lane_id, began.epoch,
           began.left_fen - COALESCE(given.fen, 0) AS end_fen,
           began.left_count - COALESCE(given.claims, 0) AS end_count,
           lead(began.left_fen) OVER later AS next_fen,
           lead(began.left_count) OVER later AS next_count,
           lead(began.cause) OVER later AS next_cause,
           lead(began.move) OVER later AS next_move,
           lead(began.epoch) OVER later AS next_epoch
      FROM packets_laneepoch AS began
      LEFT JOIN given ON given.lane_id = began.lane_id AND given.epoch = began.epoch
    WINDOW later AS (PARTITION BY began.lane_id ORDER BY began.epoch)
)
SELECT 'epoch_starts',
       format('lane %s, after epoch %s: %s fen in %s portions left, the next start says %s in %s',
              lane.id, COALESCE(story.epoch, 0), story.end_fen, story.end_count,
              COALESCE(story.next_fen, lane.total_fen - lane.claimed_fen),
              COALESCE(story.next_count, lane.count - lane.claimed_count))
  FROM packets_lane AS lane
  LEFT JOIN story ON story.lane_id = lane.id
 WHERE CASE
       WHEN story.epoch IS NULL THEN lane.epoch <> 0
       WHEN story.next_epoch IS NULL THEN
            story.epoch <> lane.epoch
            OR story.end_fen <> lane.total_fen - lane.claimed_fen
            OR story.end_count <> lane.count - lane.claimed_count
       WHEN story.next_move IS NOT NULL THEN story.next_cause <> 'rebalanced'
       WHEN story.next_cause = 'grown' THEN
            story.next_fen < story.end_fen OR story.next_count < story.end_count
       ELSE story.next_fen <> story.end_fen OR story.next_count <> story.end_count
       END
UNION ALL
-- A move of portions between lanes: together they begin with what together they had left.
SELECT 'epoch_starts',
       format('packet %s, move %s: %s fen in %s portions left, the next starts say %s in %s',
              lane.packet_id, story.next_move, sum(story.end_fen), sum(story.end_count),
              sum(story.next_fen), sum(story.next_count))
  FROM story JOIN packets_lane AS lane ON lane.id = story.lane_id
 WHERE story.next_move IS NOT NULL
 GROUP BY lane.packet_id, story.next_move
HAVING sum(story.end_fen) <> sum(story.next_fen) OR sum(story.end_count) <> sum(story.next_count)

-- query: statements
-- Said without the functions that the comparison itself uses. A line is settled where its payout
-- agrees with it and no earlier line says the same; everything else needs a difference of its
-- number that hasn't closed itself.
WITH line AS MATERIALIZED (
    SELECT row.id, row.line_no, row.out_number, row.amount_fen, row.state, day.account_id, day.day,
           row_number() OVER (PARTITION BY day.account_id, row.out_number, row.state
                              ORDER BY day.number, row.line_no) AS turn,
           bool_or(row.state = 'refunded') OVER (PARTITION BY day.account_id, row.out_number) AS back
      FROM packets_statement AS day
      JOIN packets_statementline AS row ON row.statement_id = day.id
     WHERE day.state = 'matched'
)
SELECT 'lines_known', format('account %s, day %s, line %s: number %s', line.account_id, line.day,
                             line.line_no, line.out_number)
  FROM line
  LEFT JOIN packets_payoutnumber AS number ON number.number = line.out_number
  LEFT JOIN packets_payout AS payout
    ON payout.id = number.payout_id AND payout.account_id = line.account_id
 WHERE (payout.id IS NULL OR line.turn > 1 OR payout.amount_fen <> line.amount_fen
        OR CASE WHEN line.state = 'paid' THEN NOT line.back AND number.state <> 'paid'
                ELSE number.state <> 'failed' END)
   AND NOT EXISTS (
       SELECT FROM packets_difference AS known
        WHERE known.account_id = line.account_id AND known.out_number = line.out_number
          AND known.kind <> 'missing_there' AND known.resolution <> 'agrees')
UNION ALL
SELECT 'paid_listed', format('payout %s, number %s', payout.id, number.number)
  FROM packets_payout AS payout
  JOIN packets_payoutnumber AS number ON number.payout_id = payout.id AND number.state = 'paid'
  JOIN packets_provideraccount AS account ON account.id = payout.account_id
 WHERE payout.state = 'paid'
   AND NOT EXISTS (SELECT FROM line WHERE line.account_id = account.id
                                      AND line.out_number = number.number)
   AND NOT EXISTS (
       SELECT FROM packets_difference AS known
        WHERE known.payout_id = payout.id AND known.kind = 'missing_there'
          AND known.resolution <> 'agrees')
   AND NOT EXISTS (
       SELECT FROM generate_series(
                  (COALESCE(payout.first_submitted_at, payout.created_at)
                       AT TIME ZONE account.timezone)::date,
                  ((payout.ended_at + interval '10 minutes') AT TIME ZONE account.timezone)::date,
                  interval '1 day') AS due
        WHERE NOT EXISTS (SELECT FROM packets_statement AS day
                           WHERE day.account_id = account.id AND day.day = due::date
                             AND day.state = 'matched'
                             AND day.created_at >= (day.day + 1)::timestamp
                                                   AT TIME ZONE account.timezone))

-- query: audit
WITH chain AS (
    SELECT event.*, lag(event.hash) OVER (ORDER BY event.id) AS hash_before,
           row_number() OVER (ORDER BY event.id) AS place
      FROM engine_auditevent AS event
)
SELECT 'audit_chain', 'event ' || id || ' does not follow from the one before it'
  FROM chain
 WHERE id <> place
    OR prev_hash <> COALESCE(hash_before, repeat('0', 64))
    OR hash <> encode(sha256(convert_to(
           prev_hash
           || laisee_netstring(id::text)
           || laisee_netstring((extract(epoch FROM at) * 1000000)::bigint::text)
           || laisee_netstring(actor) || laisee_netstring(action)
           || laisee_netstring(object_type) || laisee_netstring(object_id)
           || laisee_netstring(before::text) || laisee_netstring(after::text)
           || laisee_netstring(reason) || laisee_netstring(request_id)
           || laisee_netstring(ip), 'UTF8')), 'hex')
UNION ALL
SELECT 'audit_chain',
       format('the head stands at event %s, the log ends at %s', head.last_id, final.id)
  FROM (SELECT COALESCE(max(last_id), 0) AS last_id, COALESCE(max(hash), repeat('0', 64)) AS hash
          FROM engine_audithead) AS head
 CROSS JOIN (
       SELECT COALESCE(max(id), 0) AS id,
              COALESCE((array_agg(hash ORDER BY id DESC))[1], repeat('0', 64)) AS hash
         FROM engine_auditevent) AS final
 WHERE head.last_id <> final.id OR head.hash <> final.hash

-- query: guards
SELECT 'guards_in_place',
       format('%s has no trigger %s that is switched on', guard.relation, guard.name)
  FROM (VALUES
    ('packets_transfer', 'ledger_apply'), ('packets_transfer', 'transfer_insert_only'),
    ('packets_claim', 'claim_insert_only'), ('packets_laneepoch', 'laneepoch_insert_only'),
    ('packets_ticket', 'ticket_insert_only'),
    ('packets_payout', 'payout_moves'), ('packets_payoutnumber', 'payoutnumber_ends_once'),
    ('packets_payoutcall', 'payoutcall_ends_once'),
    ('packets_hold', 'hold_once'), ('packets_riskrule', 'riskrule_insert_only'),
    ('packets_holdappeal', 'holdappeal_insert_only'),
    ('packets_claimstate', 'claimstate_once'), ('packets_claimstate', 'claimstate_refers_new'),
    ('packets_claimstate', 'claimstate_refers_changed'), ('packets_account', 'account_starts_empty'),
    ('packets_statementline', 'statementline_insert_only'),
    ('packets_stockcheck', 'stockcheck_insert_only'),
    ('packets_account', 'account_moves_by_transfer'), ('packets_account', 'account_stays'),
    ('engine_auditevent', 'audit_chain'), ('engine_auditevent', 'audit_append_only'),
    ('engine_clientapp', 'clientapp_drill_mark'),
    ('referrals_referral', 'referral_insert_only'), ('referrals_reward', 'reward_insert_only'),
    ('referrals_serverevent', 'serverevent_insert_only'),
    ('campaign_disclosure', 'disclosure_insert_only'),
    ('referrals_riskpolicy', 'riskpolicy_insert_only'),
    ('engine_outboxevent', 'outboxevent_written_once'),
    ('engine_webhookattempt', 'webhookattempt_written_once')
 ) AS guard (relation, name)
 WHERE NOT EXISTS (
       SELECT FROM pg_trigger AS present
        WHERE present.tgrelid = to_regclass(guard.relation) AND present.tgname = guard.name
          AND present.tgenabled IN ('O', 'A'))

-- query: published
SELECT 'published_whole', format('campaign %s, version %s', campaign_id, number)
  FROM campaign_disclosure
 WHERE encode(sha256(convert_to(body, 'UTF8')), 'hex') <> sha256

-- query: numbers
SELECT 'whole_fen', format('%s.%s is %s', relation.relname, attribute.attname,
                           format_type(attribute.atttypid, attribute.atttypmod))
  FROM pg_attribute AS attribute
  JOIN pg_class AS relation ON relation.oid = attribute.attrelid
 WHERE relation.relnamespace = current_schema()::regnamespace AND relation.relkind IN ('r', 'p')
   AND attribute.attnum > 0 AND NOT attribute.attisdropped
   AND attribute.attname LIKE '%\_fen'
   AND attribute.atttypid NOT IN ('bigint'::regtype, 'integer'::regtype)
UNION ALL
SELECT 'fits_lua', format('packet %s: an amount above 2^53 − 1', id)
  FROM packets_packet
 WHERE GREATEST(total_fen, count, min_fen, max_fen) > 9007199254740991
UNION ALL
SELECT 'fits_lua', format('lane %s: an amount above 2^53 − 1', id)
  FROM packets_lane WHERE GREATEST(total_fen, count, epoch) > 9007199254740991
