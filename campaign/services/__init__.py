"""What can be done to a campaign: one module a subject, one name for all of them.

    drafts    make and change                           review    submit, approve, send back
    copies    from a template, as a copy, as a template
    life      launch, pause, resume, kill, end, settle  topups    more money, a later end
    targets   lists of people                           notices   what staff have to know
    rains     rounds with a timetable, and moving them
    events    what client apps are told                 growth    how it spreads

Every function is keyword-only, raises `ServiceError` (field, code, words) and then has changed
nothing. `actor` names who acts in the audit log; `by` is the person where it matters who they are:
nobody approves or decides what is their own.
"""

from __future__ import annotations

from campaign.services.channels import channels_acknowledge
from campaign.services.copies import (
    campaign_copy,
    campaign_create_from_template,
    template_from_campaign,
)
from campaign.services.drafts import (
    MAX_PACKETS_PER_CAMPAIGN,
    campaign_budget_set,
    campaign_create,
    campaign_packet_add,
    campaign_packet_change,
    campaign_packet_remove,
    campaign_update,
)
from campaign.services.events import campaigns_exhausted_tell
from campaign.services.growth import (
    growth_edit,
    growth_reward_packets_make,
    growth_unfold,
)
from campaign.services.life import (
    campaign_end,
    campaign_kill,
    campaign_launch,
    campaign_pause,
    campaign_resume,
    campaign_return_late,
    campaign_settle,
    kill_switch_all,
)
from campaign.services.notices import (
    notice_text,
    notices_mail_due,
    notices_read,
    notices_unread,
)
from campaign.services.rains import (
    Round,
    rain_create,
    rain_remove,
    rain_timetable,
    rains_unfold,
    round_move,
)
from campaign.services.review import (
    campaign_approve,
    campaign_launch_failed,
    campaign_send_back,
    campaign_submit,
)
from campaign.services.targets import (
    target_list_clear,
    target_upload_create,
    target_uploads_run_due,
)
from campaign.services.topups import (
    campaign_extend,
    top_up_approve,
    top_up_reject,
    top_up_request,
    top_up_withdraw,
)

__all__ = [
    "MAX_PACKETS_PER_CAMPAIGN",
    "Round",
    "campaign_approve",
    "campaign_budget_set",
    "campaign_copy",
    "campaign_create",
    "campaign_create_from_template",
    "campaign_end",
    "campaign_extend",
    "campaign_kill",
    "campaign_launch",
    "campaign_launch_failed",
    "campaign_packet_add",
    "campaign_packet_change",
    "campaign_packet_remove",
    "campaign_pause",
    "campaign_resume",
    "campaign_return_late",
    "campaign_send_back",
    "campaign_settle",
    "campaign_submit",
    "campaign_update",
    "campaigns_exhausted_tell",
    "channels_acknowledge",
    "growth_edit",
    "growth_reward_packets_make",
    "growth_unfold",
    "kill_switch_all",
    "notice_text",
    "notices_mail_due",
    "notices_read",
    "notices_unread",
    "rain_create",
    "rain_remove",
    "rain_timetable",
    "rains_unfold",
    "round_move",
    "target_list_clear",
    "target_upload_create",
    "target_uploads_run_due",
    "template_from_campaign",
    "top_up_approve",
    "top_up_reject",
    "top_up_request",
    "top_up_withdraw",
]
