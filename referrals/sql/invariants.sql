-- Growth's invariants, as questions for those who break them (packets/sql/invariants.sql says how
-- such a file is written; referrals/invariants.py says what each check means).

-- query: referrals
-- Parents first: along them ids fall, so no circle consists of parents alone.
SELECT broken.name, 'referral ' || seen.id || ': ' || broken.what
  FROM (
    SELECT edge.id,
           CASE WHEN
           CASE WHEN edge.parent_id IS NULL
                THEN above.id < edge.id OR edge.root <> edge.inviter OR edge.depth <> 1
                ELSE above.id IS DISTINCT FROM edge.parent_id OR above.id >= edge.id
                     OR above.root <> edge.root OR above.depth + 1 <> edge.depth
           END
           THEN format('parent %s, depth %s; the inviter''s own is %s, depth %s',
                       COALESCE(edge.parent_id::text, 'none'), edge.depth,
                       COALESCE(above.id::text, 'none'), COALESCE(above.depth::text, 'none'))
           END AS referral_parents,
           CASE WHEN
           link.participant <> edge.inviter OR link.campaign_id <> edge.campaign_id
           OR link.client_app_id <> edge.client_app_id
           THEN format('link %s is another person''s or campaign''s', link.id)
           END AS referral_links,
           CASE WHEN watch.referral_id IS NULL
           THEN 'nobody looks whether it qualifies'
           END AS referral_watched
      FROM referrals_referral AS edge
      JOIN referrals_sharelink AS link ON link.id = edge.link_id
      LEFT JOIN referrals_referral AS above
             ON above.campaign_id = edge.campaign_id AND above.invitee = edge.inviter
      LEFT JOIN referrals_qualification AS watch ON watch.referral_id = edge.id
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('referral_parents', seen.referral_parents),
    ('referral_links', seen.referral_links),
    ('referral_watched', seen.referral_watched)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.referral_parents, seen.referral_links, seen.referral_watched) > 0

-- query: one_inviter
SELECT 'one_inviter', format('%s people invited one in campaign %s', count(*), campaign_id)
  FROM referrals_referral GROUP BY campaign_id, invitee HAVING count(*) > 1

-- query: forest
-- A circle passes through somebody who stood at the top of a tree and was bound later: everywhere
-- else the way up follows parents. So these few are walked, from those above whom nobody was bound;
-- who isn't reached stands in a circle, or below one.
WITH RECURSIVE late AS MATERIALIZED (
    SELECT own.campaign_id, own.invitee AS person, own.root AS above
      FROM referrals_referral AS own
     WHERE EXISTS (SELECT FROM referrals_referral AS below
                    WHERE below.campaign_id = own.campaign_id AND below.root = own.invitee)
), reached (campaign_id, person) AS (
    SELECT late.campaign_id, late.person FROM late
     WHERE NOT EXISTS (SELECT FROM late AS higher
                        WHERE higher.campaign_id = late.campaign_id
                          AND higher.person = late.above)
     UNION
    SELECT late.campaign_id, late.person
      FROM reached JOIN late
        ON late.campaign_id = reached.campaign_id AND late.above = reached.person
)
SELECT 'forest_acyclic', format('person %s of campaign %s stands in a circle, or below one',
                                encode(late.person, 'hex'), late.campaign_id)
  FROM late
 WHERE NOT EXISTS (SELECT FROM reached WHERE reached.campaign_id = late.campaign_id
                                         AND reached.person = late.person)

-- query: rewards
SELECT broken.name, 'reward ' || seen.id || ': ' || broken.what
  FROM (
    SELECT reward.id,
           CASE WHEN
           reward.participant IS DISTINCT FROM CASE reward.side
               WHEN 'invitee' THEN edge.invitee
               WHEN 'inviter' THEN edge.inviter
               WHEN 'ancestor' THEN above.inviter END
           THEN format('not the %s of referral %s', reward.side, edge.id)
           END AS reward_sides,
           CASE WHEN
           (reward.state = 'granted') <> (reward.claim_id IS NOT NULL)
           OR reward.state = 'granted' AND (
               claim.participant IS DISTINCT FROM reward.participant OR link.packet_id IS NULL
               OR ticket.key IS DISTINCT FROM format('laisee:reward:%s:%s', edge.id, reward.side))
           THEN format('%s; claim %s, its ticket %s', reward.state,
                       COALESCE(claim.id::text, 'none'), COALESCE(ticket.key, 'none'))
           END AS reward_claims
      FROM referrals_reward AS reward
      JOIN referrals_referral AS edge ON edge.id = reward.referral_id
      LEFT JOIN referrals_referral AS above
             ON reward.side = 'ancestor'
            AND above.campaign_id = edge.campaign_id AND above.invitee = edge.inviter
      LEFT JOIN packets_claim AS claim ON claim.id = reward.claim_id
      LEFT JOIN packets_ticket AS ticket
             ON ticket.packet_id = claim.packet_id AND ticket.participant = claim.participant
            AND ticket.serial = claim.serial
      LEFT JOIN campaign_campaignpacket AS link
             ON link.packet_id = claim.packet_id AND link.campaign_id = edge.campaign_id
    OFFSET 0
 ) AS seen
 CROSS JOIN LATERAL (VALUES
    ('reward_sides', seen.reward_sides),
    ('reward_claims', seen.reward_claims)
 ) AS broken (name, what)
 WHERE broken.what IS NOT NULL
   AND num_nonnulls(seen.reward_sides, seen.reward_claims) > 0

-- query: reward_once
SELECT 'reward_once', format('%s rewards of the %s of referral %s', count(*), side, referral_id)
  FROM referrals_reward GROUP BY referral_id, side HAVING count(*) > 1

-- query: inviter_cap
SELECT 'inviter_cap', format('%s was granted %s rewards in campaign %s, at most %s',
                             encode(seen.participant, 'hex'), seen.granted, seen.campaign_id,
                             growth.inviter_cap)
  FROM (SELECT edge.campaign_id, reward.participant, count(*) AS granted
          FROM referrals_reward AS reward
          JOIN referrals_referral AS edge ON edge.id = reward.referral_id
         WHERE reward.state = 'granted' AND reward.side <> 'invitee'
         GROUP BY edge.campaign_id, reward.participant) AS seen
  JOIN campaign_campaigngrowth AS growth ON growth.campaign_id = seen.campaign_id
 WHERE seen.granted > growth.inviter_cap

-- query: reward_depth
SELECT 'reward_depth', format('campaign %s pays %s steps up', campaign_id, depth)
  FROM campaign_campaigngrowth WHERE depth NOT BETWEEN 1 AND 2
UNION ALL
SELECT 'reward_depth', format('referral %s was paid for %s steps up', referral_id, count(*))
  FROM referrals_reward WHERE side <> 'invitee'
 GROUP BY referral_id HAVING count(*) > 2

-- query: bans
SELECT 'bans_at_doors', format('%s: %s', encode(COALESCE(ban.participant, block.participant), 'hex'),
                               CASE WHEN block.id IS NULL THEN 'no door knows of the ban'
                                    ELSE 'blocked without a ban' END)
  FROM (SELECT COALESCE(campaign.gate_id, gate.id) AS gate_id, active.participant
          FROM referrals_ban AS active
          LEFT JOIN campaign_campaign AS campaign ON campaign.id = active.campaign_id
          JOIN packets_gate AS gate ON gate.key = 'all'
         WHERE active.lifted_at IS NULL) AS ban
  FULL JOIN packets_block AS block
    ON block.gate_id = ban.gate_id AND block.participant = ban.participant
 WHERE ban.participant IS NULL OR block.id IS NULL
