-- Where a provider's statement and our payouts disagree. Reading only: nothing here moves money.
--
--   laisee_statement_findings   what is wrong with lines of one statement
--   laisee_payouts_unlisted     payouts that must stand in a statement by now, and don't
--
-- A line's partner is found by its number, whatever day either side wrote down: a payout around
-- midnight, or one that we learnt of days later, is no difference. The file may be run again at any
-- time. `-- guard:<name> begin/end` marks what a test strips, to show that it is needed.

-- guard:reconciling_insert_only begin
CREATE OR REPLACE TRIGGER statementline_insert_only BEFORE UPDATE OR DELETE ON packets_statementline
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
CREATE OR REPLACE TRIGGER stockcheck_insert_only BEFORE UPDATE OR DELETE ON packets_stockcheck
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
-- guard:reconciling_insert_only end

-- The findings of lines first_line..last_line of one statement, read as if it were the one that
-- counts for its day; of other days those count that were read to their end. Which of two lines is
-- the repeated one goes by the statements' numbers, which are given in the order in which they
-- become visible: of two statements compared at the same time the later one sees the earlier. One
-- line may have two findings (another amount and another outcome).
CREATE OR REPLACE FUNCTION laisee_statement_findings(
    wanted bigint, first_line integer, last_line integer
) RETURNS TABLE (
    kind text, key text, line_id bigint, out_number text, payout_id uuid,
    ours_fen bigint, theirs_fen bigint, ours_state text, theirs_state text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp
-- Always by key: nothing has counted the lines of a statement that has just come, and a plan made
-- for a few of them would read all lines for each (seen: no end within the statement's time). For the
-- same reason OFFSET 0 keeps a look-up by number from becoming a walk through other statements.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT finding.kind, line.out_number || finding.tail, line.id, line.out_number, payout.id,
           payout.amount_fen, line.amount_fen, COALESCE(payout.state, ''), line.state
      FROM packets_statement AS this
      JOIN packets_statementline AS line
        ON line.statement_id = this.id AND line.line_no BETWEEN first_line AND last_line
      LEFT JOIN (packets_payoutnumber AS number
                 JOIN packets_payout AS payout ON payout.id = number.payout_id)
        ON number.number = line.out_number AND payout.account_id = this.account_id
     CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE twin.state = line.state
                                  AND (day.number, twin.line_no) < (this.number, line.line_no)
               ) AS before,
               count(*) FILTER (WHERE twin.state = 'refunded') AS refunded
          FROM (SELECT statement_id, line_no, state FROM packets_statementline
                 WHERE out_number = line.out_number OFFSET 0) AS twin
          JOIN packets_statement AS day ON day.id = twin.statement_id
         WHERE (day.id = this.id
                OR (day.state IN ('received', 'matched') AND day.account_id = this.account_id
                    AND day.day <> this.day))
     ) AS others
     CROSS JOIN LATERAL (VALUES
        ('missing_here', payout.id IS NULL, ':' || line.state || ':' || line.amount_fen),
        ('duplicate', others.before > 0, ':' || line.state || ':' || others.before + 1),
        ('amount', payout.amount_fen <> line.amount_fen, ':' || line.state || ':' || line.amount_fen),
        -- Paid and then returned is, in the end, returned.
        ('state', CASE WHEN line.state <> 'paid' THEN number.state <> 'failed'
                       WHEN others.refunded > 0 THEN false
                       ELSE number.state <> 'paid' END, ':' || line.state)
     ) AS finding (kind, holds, tail)
     WHERE this.id = wanted AND finding.holds
       -- A line that repeats an earlier one is that and nothing else.
       AND (finding.kind = 'duplicate' OR others.before = 0)
$$;

-- Payouts that we hold to be paid and that no statement of their account names, although those of
-- all days on which the provider can have paid them were compared: from the first time it was sent
-- to the moment when we learnt the outcome, with some minutes for clocks that differ. A statement
-- that was taken before its day was over says nothing about what it doesn't name. `candidate` counts
-- as if it were compared, for its day; looked at are payouts around `wanted_day` that ended in
-- [from_at, to_at).
DROP FUNCTION IF EXISTS laisee_payouts_unlisted(bigint, date);
CREATE OR REPLACE FUNCTION laisee_payouts_unlisted(
    candidate bigint, wanted_day date, from_at timestamptz, to_at timestamptz
) RETURNS TABLE (payout_id uuid, out_number text, amount_fen bigint, day date)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT payout.id, number.number, payout.amount_fen, span.last_day
      FROM packets_statement AS this
      JOIN packets_provideraccount AS account ON account.id = this.account_id
      JOIN packets_payout AS payout ON payout.account_id = account.id AND payout.state = 'paid'
       AND payout.ended_at >= from_at AND payout.ended_at < to_at
      JOIN packets_payoutnumber AS number
        ON number.payout_id = payout.id AND number.state = 'paid'
     CROSS JOIN LATERAL (SELECT
        (COALESCE(payout.first_submitted_at, payout.created_at)
            AT TIME ZONE account.timezone)::date AS first_day,
        (payout.ended_at AT TIME ZONE account.timezone)::date AS last_day,
        ((payout.ended_at + interval '10 minutes') AT TIME ZONE account.timezone)::date AS until_day
     ) AS span
     WHERE this.id = candidate
       AND wanted_day BETWEEN span.first_day AND span.until_day
       AND NOT EXISTS (
           SELECT FROM (SELECT statement_id FROM packets_statementline
                         WHERE out_number = number.number OFFSET 0) AS line
             JOIN packets_statement AS known ON known.id = line.statement_id
            WHERE known.account_id = account.id
              AND (known.id = this.id OR (known.state = 'matched' AND known.day <> this.day)))
       AND NOT EXISTS (
           SELECT FROM generate_series(span.first_day, span.until_day, interval '1 day') AS due
            WHERE NOT EXISTS (
                  SELECT FROM packets_statement AS known
                   WHERE known.account_id = account.id AND known.day = due::date
                     AND (known.id = this.id
                          OR (known.state = 'matched' AND known.day <> this.day))
                     AND known.created_at >= (known.day + 1)::timestamp
                                             AT TIME ZONE account.timezone))
$$;
