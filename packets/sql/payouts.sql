-- What Postgres itself refuses about payouts, whatever the code above it believes.
--
--   what was asked for never changes: person, wallet, amount, payee, provider account, key
--   states change only along the machine's ways, and a terminal state has none
--   a number and its request never change; it ends once
--   a call is written before it is made and gets its end once
--   of what is at its end the payee may be erased, and what was sent and said about them
--
-- The file may be run again at any time.

CREATE OR REPLACE FUNCTION laisee_payout_moves() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'payout % stays: DELETE refused', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.id, NEW.account_id, NEW.wallet_id, NEW.participant, NEW.client_app_id, NEW.amount_fen,
        NEW.currency, NEW.payee_hash, NEW.key, NEW.created_at)
       IS DISTINCT FROM
       (OLD.id, OLD.account_id, OLD.wallet_id, OLD.participant, OLD.client_app_id, OLD.amount_fen,
        OLD.currency, OLD.payee_hash, OLD.key, OLD.created_at)
       OR NEW.fence < OLD.fence
       -- Of a payout at its end the payee may be erased.
       OR NEW.payee_masked IS DISTINCT FROM OLD.payee_masked
          AND NOT (NEW.payee_masked = '' AND OLD.state IN ('paid', 'failed', 'cancelled'))
    THEN
        RAISE EXCEPTION 'payout %: what was asked for does not change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- guard:payout_ways begin
    IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('created', 'submitting'), ('created', 'failed'), ('created', 'cancelled'),
        ('submitting', 'accepted'), ('submitting', 'user_action'), ('submitting', 'unknown'),
        ('submitting', 'paid'), ('submitting', 'failed'), ('submitting', 'cancelled'),
        ('accepted', 'submitting'), ('accepted', 'user_action'), ('accepted', 'unknown'),
        ('accepted', 'paid'), ('accepted', 'failed'), ('accepted', 'cancelled'),
        ('user_action', 'submitting'), ('user_action', 'accepted'), ('user_action', 'unknown'),
        ('user_action', 'paid'), ('user_action', 'failed'), ('user_action', 'cancelled'),
        ('unknown', 'submitting'), ('unknown', 'accepted'), ('unknown', 'user_action'),
        ('unknown', 'paid'), ('unknown', 'failed'), ('unknown', 'cancelled'))
    THEN
        RAISE EXCEPTION 'payout % is %: there is no way to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- guard:payout_ways end
    RETURN NEW;
END;
$$;

CREATE OR REPLACE TRIGGER payout_moves BEFORE UPDATE OR DELETE ON packets_payout
    FOR EACH ROW EXECUTE FUNCTION laisee_payout_moves();

CREATE OR REPLACE FUNCTION laisee_payoutnumber_ends_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.state = 'live' AND NEW.state <> 'live'
           AND (NEW.id, NEW.payout_id, NEW.number, NEW.request_encrypted, NEW.request_sha256,
                NEW.created_at)
               IS NOT DISTINCT FROM
               (OLD.id, OLD.payout_id, OLD.number, OLD.request_encrypted, OLD.request_sha256,
                OLD.created_at)
        THEN
            RETURN NEW;
        END IF;
        IF OLD.state <> 'live' AND public.laisee_erases(
            to_jsonb(OLD), to_jsonb(NEW), ARRAY['request_encrypted', 'request_sha256'])
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'payout number % is % and stays as it is: % refused', OLD.number, OLD.state, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

CREATE OR REPLACE TRIGGER payoutnumber_ends_once BEFORE UPDATE OR DELETE ON packets_payoutnumber
    FOR EACH ROW EXECUTE FUNCTION laisee_payoutnumber_ends_once();

CREATE OR REPLACE FUNCTION laisee_payoutcall_ends_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
           AND (NEW.id, NEW.payout_id, NEW.number_id, NEW.kind, NEW.fence, NEW.started_at)
               IS NOT DISTINCT FROM
               (OLD.id, OLD.payout_id, OLD.number_id, OLD.kind, OLD.fence, OLD.started_at)
        THEN
            RETURN NEW;
        END IF;
        IF OLD.ended_at IS NOT NULL
           AND public.laisee_erases(to_jsonb(OLD), to_jsonb(NEW), ARRAY['detail'])
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'call % of payout % is on record: % refused', OLD.id, OLD.payout_id, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

CREATE OR REPLACE TRIGGER payoutcall_ends_once BEFORE UPDATE OR DELETE ON packets_payoutcall
    FOR EACH ROW EXECUTE FUNCTION laisee_payoutcall_ends_once();

-- Its row changes with every step of a payout: room on the page keeps the new versions there.
ALTER TABLE packets_payout SET (fillfactor = 70);
