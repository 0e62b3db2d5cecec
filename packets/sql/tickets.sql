-- Tickets are insert-only: a right that was given stays as it was given. (`laisee_insert_only` is
-- in ledger.sql; the application's role has no right to UPDATE or DELETE either.)
--
-- The file may be run again at any time.

CREATE OR REPLACE TRIGGER ticket_insert_only BEFORE UPDATE OR DELETE ON packets_ticket
    FOR EACH ROW EXECUTE FUNCTION laisee_insert_only('key', 'reason');
