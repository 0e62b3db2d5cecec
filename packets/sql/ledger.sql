-- The ledger's guards: what Postgres itself refuses, whatever the code above it believes.
--
--   a transfer and the balances it moves are one thing    trigger ledger_apply
--   transfers, claims and lane epochs are insert-only      triggers *_insert_only
--   an account starts at nothing and moves only by transfers
--   a transfer's accounts exist and share its currency     the same trigger
--   what became of a claim names a claim and a transfer    triggers claimstate_refers_*
--
-- The last two stand in place of foreign keys: Postgres looks a key up row by row, these look at a
-- statement's rows at once, for a third of a settlement's price. They are as strong, because no row
-- that is referred to ever goes away or changes its key: deleting accounts, transfers and claims is
-- refused below, and so is changing their ids and currencies.
--
-- The file may be run again at any time. `-- guard:<name> begin/end` marks what a test strips, to
-- show that the guard is needed (tests/guards.py).

-- ---------------------------------------------------------------------------------------------
-- A transfer moves its accounts in the statement that writes it.
--
-- SECURITY DEFINER: it runs with the owner's rights, so that the application's role needs no UPDATE
-- right on accounts. The search path is pinned, with pg_temp last, so that nobody can slip another
-- table of the same name in front.
--
-- It always looks its accounts up by key, from the ids that the transfers name. A session keeps the
-- plan of a function's statements, and Postgres the statistics of a table until it is analysed again;
-- a plan made while the accounts are few, or believed to be, would read all of them for every row,
-- later, when they are many (seen: 270 settled claims a second instead of 8,000; and, as one join
-- over the keys' index from end to end, 4,900 instead of 50,000). Hash joins, of the rows at hand
-- only: compared each with each they would cost as much.
CREATE OR REPLACE FUNCTION laisee_ledger_apply() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
-- guard:by_key begin
SET enable_seqscan = off SET enable_mergejoin = off SET enable_nestloop = off
SET enable_hashjoin = on
-- guard:by_key end
AS $$
DECLARE
    v_told bigint;
    v_found bigint;
    v_stray record;
BEGIN
    -- guard:account_order begin
    -- Everybody locks accounts in the order of their ids. An UPDATE alone takes them in the order
    -- of its plan, and two settlements over the same wallets would wait for each other. A row that
    -- this transaction itself has written is nobody else's to lock.
    PERFORM 1
       FROM (SELECT named.id
               FROM (SELECT debit_account_id AS id FROM moved
                      UNION SELECT credit_account_id FROM moved) AS named
              ORDER BY named.id
             OFFSET 0) AS wanted
      CROSS JOIN LATERAL (
            SELECT FROM packets_account AS account
             WHERE account.id = wanted.id AND account.xmin <> pg_current_xact_id()::xid
               FOR NO KEY UPDATE) AS locked;
    -- guard:account_order end
    WITH sums AS MATERIALIZED (
        SELECT side.account_id, side.currency,
               sum(side.debit_fen)::bigint AS debits_fen,
               sum(side.credit_fen)::bigint AS credits_fen
          FROM (
                SELECT debit_account_id AS account_id, currency,
                       amount_fen AS debit_fen, 0::bigint AS credit_fen
                  FROM moved
                UNION ALL
                SELECT credit_account_id, currency, 0, amount_fen FROM moved
               ) AS side
         GROUP BY side.account_id, side.currency
    ), changed AS (
        UPDATE packets_account AS account
           SET debits_fen = account.debits_fen + sums.debits_fen,
               credits_fen = account.credits_fen + sums.credits_fen
          FROM sums
         WHERE account.id = sums.account_id AND account.currency = sums.currency
           -- guard:named_only begin
           AND account.id = ANY (ARRAY(SELECT account_id FROM sums))
           -- guard:named_only end
        RETURNING account.id
    )
    SELECT (SELECT count(*) FROM sums), (SELECT count(*) FROM changed) INTO v_told, v_found;
    -- guard:one_currency begin
    -- Each account that the transfers name was there, in their currency, and has moved.
    IF v_told <> v_found THEN
        SELECT moved.reference, side.account_id, moved.currency INTO v_stray
          FROM moved
         CROSS JOIN LATERAL (VALUES (debit_account_id), (credit_account_id)) AS side (account_id)
         WHERE NOT EXISTS (
               SELECT FROM packets_account AS account
                WHERE account.id = side.account_id AND account.currency = moved.currency)
         LIMIT 1;
        RAISE EXCEPTION 'transfer %: there is no account % in %',
            v_stray.reference, v_stray.account_id, v_stray.currency
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    -- guard:one_currency end
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER ledger_apply
    AFTER INSERT ON packets_transfer
    REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION laisee_ledger_apply();

-- ---------------------------------------------------------------------------------------------
-- Insert-only. The application's role has no right to UPDATE or DELETE these either (see
-- `manage.py grant_app_rights`); the triggers stop the owner's slips too. TRUNCATE is left to the
-- owner alone: test runs empty their tables with it, and no other role has the right.
CREATE OR REPLACE FUNCTION laisee_insert_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    -- Columns that a trigger names hold a person's words, and may be erased (engine/sql/erasing.sql).
    IF TG_OP = 'UPDATE' AND TG_NARGS > 0 THEN
        IF public.laisee_erases(to_jsonb(OLD), to_jsonb(NEW), TG_ARGV) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% is insert-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'A correction is a new row.';
END;
$$;

-- guard:insert_only begin
CREATE OR REPLACE TRIGGER transfer_insert_only BEFORE UPDATE OR DELETE ON packets_transfer
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
CREATE OR REPLACE TRIGGER claim_insert_only BEFORE UPDATE OR DELETE ON packets_claim
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
CREATE OR REPLACE TRIGGER laneepoch_insert_only BEFORE UPDATE OR DELETE ON packets_laneepoch
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
-- guard:insert_only end

-- What became of a claim is said once (the trigger for that is in holds.sql).
ALTER TABLE packets_claimstate DROP CONSTRAINT IF EXISTS claimstate_has_transfer;
ALTER TABLE packets_claimstate ADD CONSTRAINT claimstate_has_transfer
    CHECK ((state = 'parked') = (transfer_id IS NULL));

-- What a state names exists. By key, for the reason that the ledger's trigger gives.
CREATE OR REPLACE FUNCTION laisee_claimstate_refers() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off SET enable_mergejoin = off SET enable_nestloop = off
SET enable_hashjoin = on
AS $$
DECLARE
    v_claim uuid;
BEGIN
    SELECT stated.claim_id INTO v_claim
      FROM stated
     WHERE (SELECT claim.id FROM packets_claim AS claim
             WHERE claim.id = stated.claim_id) IS NULL
        OR (stated.transfer_id IS NOT NULL
            AND (SELECT paid.id FROM packets_transfer AS paid
                  WHERE paid.id = stated.transfer_id) IS NULL)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the state of claim %: there is no such claim, or no such transfer', v_claim
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END;
$$;

-- guard:claimstate_refers begin
CREATE OR REPLACE TRIGGER claimstate_refers_new
    AFTER INSERT ON packets_claimstate
    REFERENCING NEW TABLE AS stated
    FOR EACH STATEMENT EXECUTE FUNCTION laisee_claimstate_refers();
CREATE OR REPLACE TRIGGER claimstate_refers_changed
    AFTER UPDATE ON packets_claimstate
    REFERENCING NEW TABLE AS stated
    FOR EACH STATEMENT EXECUTE FUNCTION laisee_claimstate_refers();
-- guard:claimstate_refers end

-- ---------------------------------------------------------------------------------------------
-- Accounts: they start at nothing, and only the ledger's trigger moves them.
--
-- Two locks on one door. Rights: the application's role may not UPDATE accounts at all, while the
-- ledger's trigger acts with the owner's rights. Depth: for whoever is the owner (a migration, a
-- shell) a plain UPDATE stands at trigger depth 0 and is refused, the ledger's stands at 1. Rights
-- alone would leave the owner free to slip, depth alone would let any other trigger pass; only
-- the owner can create triggers, and such a one would be seen by `manage.py audit_money`.
CREATE OR REPLACE FUNCTION laisee_account_starts_empty() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'account %:% starts with money that no transfer brought', NEW.kind, NEW.owner
        USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

CREATE OR REPLACE FUNCTION laisee_account_moves_by_transfer() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'account % changes only by transfers: % refused', OLD.id, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

-- guard:account_starts_empty begin
CREATE OR REPLACE TRIGGER account_starts_empty BEFORE INSERT ON packets_account
    FOR EACH ROW WHEN (NEW.debits_fen <> 0 OR NEW.credits_fen <> 0)
    EXECUTE FUNCTION laisee_account_starts_empty();
-- guard:account_starts_empty end
-- guard:account_moves_by_transfer begin
CREATE OR REPLACE TRIGGER account_moves_by_transfer BEFORE UPDATE ON packets_account
    FOR EACH ROW WHEN (
        pg_trigger_depth() = 0
        OR OLD.id <> NEW.id OR OLD.kind <> NEW.kind
        OR OLD.owner <> NEW.owner OR OLD.currency <> NEW.currency)
    EXECUTE FUNCTION laisee_account_moves_by_transfer();
CREATE OR REPLACE TRIGGER account_stays BEFORE DELETE ON packets_account
    FOR EACH ROW EXECUTE FUNCTION laisee_account_moves_by_transfer();
-- guard:account_moves_by_transfer end

-- ---------------------------------------------------------------------------------------------
-- The foreign keys that the triggers above stand for go: each would be checked row by row beside
-- them. (The names in the models remain: Django still refuses to delete what is referred to.)
DO $$
DECLARE
    spare record;
BEGIN
    FOR spare IN
        SELECT conrelid::regclass AS relation, conname FROM pg_constraint
         WHERE contype = 'f'
           AND (conrelid, confrelid) IN (
               ('packets_transfer'::regclass, 'packets_account'::regclass),
               ('packets_claimstate'::regclass, 'packets_claim'::regclass),
               ('packets_claimstate'::regclass, 'packets_transfer'::regclass))
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', spare.relation, spare.conname);
    END LOOP;
END;
$$;

-- ---------------------------------------------------------------------------------------------
-- Storage. A lane's row gets a new version with every commit: its page is left nearly empty so that
-- the versions stay on it (HOT, no index touched), and vacuum comes by count, not by share, because
-- the table is tiny and its dead versions are many. Escrows and cursors are as hot, at a batch each.
ALTER TABLE packets_lane SET (
    fillfactor = 10,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);
ALTER TABLE packets_lanecursor SET (
    fillfactor = 25,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE packets_account SET (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
