"""The doors hear of the bans that stand already."""

from __future__ import annotations

from django.db import migrations

_TELL = """
WITH told AS (
    INSERT INTO packets_block (gate_id, participant)
    SELECT DISTINCT COALESCE(campaign.gate_id, gate.id), ban.participant
      FROM referrals_ban AS ban
      LEFT JOIN campaign_campaign AS campaign ON campaign.id = ban.campaign_id
      JOIN packets_gate AS gate ON gate.key = 'all'
     WHERE ban.lifted_at IS NULL
        ON CONFLICT DO NOTHING
    RETURNING gate_id
)
UPDATE packets_gate SET blocks = blocks + 1 WHERE id IN (SELECT gate_id FROM told)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("packets", "0025_blocks"),
        ("referrals", "0011_growth_figures"),
    ]

    operations = [migrations.RunSQL(_TELL, migrations.RunSQL.noop)]
