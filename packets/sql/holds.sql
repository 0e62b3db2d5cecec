-- What becomes of a claim, and of money that is held: each is said once.
--
--   a claim's state            trigger claimstate_once
--   a hold is resolved once    trigger hold_once
--   rules and appeals          insert-only
--
-- The file may be run again at any time.

-- Parked is settled or held after all; held is settled (released) or forfeited. The rest is final.
CREATE OR REPLACE FUNCTION laisee_claimstate_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.claim_id = NEW.claim_id AND (OLD.state, NEW.state) IN (
            ('parked', 'settled'), ('parked', 'held'), ('held', 'settled'), ('held', 'forfeited'))
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the state of claim % is %, and is said once: % refused',
        OLD.claim_id, OLD.state, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

-- guard:claimstate_once begin
CREATE OR REPLACE TRIGGER claimstate_once BEFORE UPDATE OR DELETE ON packets_claimstate
    FOR EACH ROW EXECUTE FUNCTION laisee_claimstate_once();
-- guard:claimstate_once end

-- Open is released or forfeited, and nothing else about a hold ever changes.
CREATE OR REPLACE FUNCTION laisee_hold_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A drill that its owner removes (referrals/sql/removing.sql).
    IF TG_OP = 'DELETE' AND public.laisee_removes(TG_TABLE_NAME, to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.state = 'open' AND NEW.state IN ('released', 'forfeited')
           AND to_jsonb(OLD) - ARRAY['state', 'resolved_by', 'resolved_at', 'reason']
             = to_jsonb(NEW) - ARRAY['state', 'resolved_by', 'resolved_at', 'reason']
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'hold % is %: % refused', OLD.id, OLD.state, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

-- guard:hold_once begin
CREATE OR REPLACE TRIGGER hold_once BEFORE UPDATE OR DELETE ON packets_hold
    FOR EACH ROW EXECUTE FUNCTION laisee_hold_once();
-- guard:hold_once end

CREATE OR REPLACE TRIGGER riskrule_insert_only BEFORE UPDATE OR DELETE ON packets_riskrule
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only();
CREATE OR REPLACE TRIGGER holdappeal_insert_only BEFORE UPDATE OR DELETE ON packets_holdappeal
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only('text_encrypted');

-- ---------------------------------------------------------------------------------------------
-- Locks accounts in the order of their ids, for whoever moves money in more than one statement or
-- must know a balance that stays. The application's role has no right to change accounts, and so
-- none to lock them; this gives it the lock alone.
CREATE OR REPLACE FUNCTION laisee_lock_accounts(p_ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM 1 FROM packets_account WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
END;
$$;
