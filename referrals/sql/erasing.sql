-- laisee_erase_person: everything that says who a participant is goes; what money did stays.
--
-- The application's role may not change most of these rows; this changes in them what says who
-- somebody is, and nothing else (the triggers allow no more: engine/sql/erasing.sql). Whoever calls
-- it has looked whether money of the person is still on its way (referrals/privacy/erasing.py).
--
-- What stays, and why: the 16-byte digest in claims, the ledger's owners, edges and rewards, so that
-- once per person stays once; `payee_hash`, so that one purse of many accounts still shows; the
-- client's own idempotency keys, so that none pays twice. Tickets of open packets keep the issuer's
-- ids until the packet is closed.
--
-- Answers, for each kind of row, how many were changed. Repeating it changes nothing more.
--
-- The file may be run again at any time.

CREATE OR REPLACE FUNCTION laisee_erase_person(p_participant bytea, p_app bigint, p_subject text)
RETURNS TABLE (what text, changed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
DECLARE
    v_events uuid[];
BEGIN
    UPDATE packets_payout
       SET payee_encrypted = '', payee_masked = '', user_action = NULL, failure_detail = ''
     WHERE participant = p_participant AND state IN ('paid', 'failed', 'cancelled')
       AND (payee_encrypted <> '' OR payee_masked <> '' OR user_action IS NOT NULL
            OR failure_detail <> '');
    what := 'payees'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE packets_payoutnumber AS number SET request_encrypted = '', request_sha256 = ''
      FROM packets_payout AS payout
     WHERE payout.participant = p_participant AND number.payout_id = payout.id
       AND number.state <> 'live' AND number.request_encrypted <> '';
    what := 'requests to providers'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE packets_payoutcall AS call SET detail = ''
      FROM packets_payout AS payout
     WHERE payout.participant = p_participant AND call.payout_id = payout.id
       AND call.ended_at IS NOT NULL AND call.detail <> '';
    what := 'words of providers'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE packets_holdappeal AS appeal SET text_encrypted = ''
      FROM packets_hold AS hold
     WHERE hold.participant = p_participant AND appeal.hold_id = hold.id
       AND appeal.text_encrypted <> '';
    what := 'appeals'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE packets_peoplepacket SET message = ''
     WHERE participant = p_participant AND message <> '';
    what := 'messages'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE packets_ticket AS ticket SET key = 'erased:' || ticket.id, reason = ''
      FROM packets_packet AS packet
     WHERE ticket.participant = p_participant AND packet.id = ticket.packet_id
       AND packet.state = 'closed' AND ticket.key NOT LIKE 'laisee:%'
       AND ticket.key <> 'erased:' || ticket.id;
    what := 'ids of tickets'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    -- What the app sent, told and answered about them.
    UPDATE referrals_serverevent SET key = 'erased:' || id
     WHERE participant = p_participant AND key <> 'erased:' || id;
    what := 'ids of events'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE referrals_reward AS reward SET qualified_by = 'erased'
      FROM referrals_referral AS edge
     WHERE edge.invitee = p_participant AND reward.referral_id = edge.id
       AND reward.qualified_by LIKE 'event:%';
    what := 'reasons of rewards'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;
    UPDATE referrals_qualification AS waits SET qualified_by = 'erased'
      FROM referrals_referral AS edge
     WHERE edge.invitee = p_participant AND waits.referral_id = edge.id
       AND waits.qualified_by LIKE 'event:%';
    what := 'reasons of referrals'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    SELECT array_agg(event.id) INTO v_events
      FROM (SELECT 'claim.settled' AS kind, encode(uuid_send(claim.id), 'hex') AS key
              FROM packets_claim AS claim WHERE claim.participant = p_participant
             UNION ALL
            SELECT ended.kind, encode(uuid_send(payout.id), 'hex')
              FROM packets_payout AS payout,
                   (VALUES ('payout.paid'), ('payout.failed')) AS ended (kind)
             WHERE payout.participant = p_participant
             UNION ALL
            SELECT 'reward.granted', reward.referral_id || ':' || reward.side
              FROM referrals_reward AS reward WHERE reward.participant = p_participant
             UNION ALL
            SELECT 'challenge.asked', member.case_id || ':' || encode(p_participant, 'hex')
              FROM referrals_riskmember AS member WHERE member.participant = p_participant) AS told
      JOIN engine_outboxevent AS event
        ON event.client_app_id = p_app AND event.kind = told.kind AND event.key = told.key;
    UPDATE engine_outboxevent SET payload = jsonb_set(payload, '{user}', 'null')
     WHERE id = ANY (v_events) AND payload ->> 'user' IS NOT NULL;
    what := 'events told'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;
    UPDATE engine_webhookattempt AS attempt SET answer = ''
      FROM engine_webhookdelivery AS delivery
     WHERE delivery.event_id = ANY (v_events) AND attempt.delivery_id = delivery.id
       AND attempt.answer <> '';
    what := 'answers of the app'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    -- Where they were seen, and what they shared.
    DELETE FROM referrals_identity WHERE participant = p_participant;
    what := 'phones and networks'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE referrals_visit AS visit SET network_hash = '', visitor_hash = '', agent = ''
      FROM referrals_referral AS edge
     WHERE edge.invitee = p_participant AND visit.click_id = edge.click_id
       AND (visit.network_hash <> '' OR visit.visitor_hash <> '' OR visit.agent <> '');
    what := 'visits'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    UPDATE referrals_sharelink
       SET revoked_at = COALESCE(revoked_at, clock_timestamp()),
           revoke_reason = 'the person was erased' -- so no ban that is lifted gives them back
     WHERE participant = p_participant AND revoke_reason <> 'the person was erased';
    what := 'share links'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    DELETE FROM engine_forcedoutcome WHERE client_app_id = p_app AND subject = p_subject;
    what := 'test users'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    DELETE FROM engine_idempotencyrecord
     WHERE principal = 'client:' || encode(p_participant, 'hex');
    what := 'kept answers'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;

    DELETE FROM packets_participant WHERE digest = p_participant;
    what := 'names'; GET DIAGNOSTICS changed = ROW_COUNT; RETURN NEXT;
END
$$;
