"""The preview that follows the typing: numbers, a sample and refusals, as JSON. Writes nothing."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from campaign import people
from campaign import preview as previews
from campaign.admin.builder import Draft, forms_of
from campaign.admin.checking import check, cuttable, sums_of
from campaign.admin.forms import CampaignForm, PacketForm, zone_names
from campaign.models import Campaign
from engine.lib.adminkit import zone_label
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.pages import user_of

Act = people.Act


@require_POST
def preview(request: HttpRequest) -> HttpResponse:
    """What the form as it stands would do: numbers, samples, refusals. Writes nothing."""
    user = user_of(request)
    if not (people.may(user, Act.CREATE) or people.may(user, Act.EDIT)):
        raise PermissionDenied
    form, packets = forms_of(request, Draft(None, {}, []), bound=True)
    own = Campaign.objects.filter(slug=request.POST.get("slug", "")).first()
    editing = own if own is not None and request.POST.get("version") else None
    check(form, packets, editing, submitting=True)
    errors = {name: list(map(str, said)) for name, said in form.errors.items()}
    shown = []
    for packet in packets.kept:
        for name, said in packet.errors.items():
            errors[packet.add_prefix(name)] = list(map(str, said))
        shown.append(_seen(packet, request.POST.get("draw", "0")[:6]))
    zone = request.POST.get("timezone", "")
    return JsonResponse(
        {
            "errors": errors,
            "packets": shown,
            "budget": _budget(form, packets.kept, editing),
            "zone": zone_label(zone) if zone in zone_names() else "",
        },
        headers={"Cache-Control": "no-store"},
    )


def _budget(
    form: CampaignForm, kept: list[PacketForm], campaign: Campaign | None
) -> dict[str, Any]:
    sums = sums_of(form, kept, campaign)
    if sums is None:
        return {"text": "", "words": "", "percent": 0}
    bound, budget = sums
    left = budget - bound
    return {
        "text": f"{yuan(bound)} / {yuan(budget)}",
        "words": _("%(left)s not bound in packets") % {"left": yuan(left)}
        if left >= 0
        else _("%(over)s too much") % {"over": yuan(-left)},
        "percent": bound * 100 // budget if budget else 0,
    }


def _seen(packet: PacketForm, draw: str) -> dict[str, Any]:
    if not cuttable(packet):
        return {"ok": False}
    try:
        found = previews.preview(**packet.cut, key=f"preview:{draw}")
    except ServiceError:
        return {"ok": False}  # `check` has put the words at the field
    numbers = [
        (_("Average"), yuan(found.mean_fen)),
        (_("Half of the people get at least"), yuan(found.median_fen)),
        (
            _("Eight of ten get"),
            f"{yuan(found.low_tenth_fen)} – {yuan(found.high_tenth_fen)}",
        ),
        (_("Smallest and largest drawn"), f"{yuan(found.least_fen)} – {yuan(found.most_fen)}"),
    ]
    if found.luckiest_fen is not None and found.count > 1:
        numbers.append((_("The luckiest gets, on average"), yuan(found.luckiest_fen)))
    numbers.append((_("Never outside"), f"{yuan(found.floor_fen)} – {yuan(found.ceiling_fen)}"))
    return {
        "ok": True,
        "count": found.count,
        "total": yuan(found.total_fen),
        "bins": [
            {
                "label": yuan(b.low_fen)
                if b.low_fen == b.high_fen
                else f"{yuan(b.low_fen)}–{yuan(b.high_fen)}",
                "per_mille": b.per_mille,
            }
            for b in found.bins
        ],
        "numbers": numbers,
        "raised": _(
            "The largest portion would bind too often, so the evenness is raised from %(asked)s "
            "to %(used)s: otherwise early and late people wouldn't have equal chances."
        )
        % {"asked": found.evenness_asked, "used": found.evenness}
        if found.evenness != found.evenness_asked
        else "",
        "prizes": [
            (yuan(p.amount_fen), f"× {p.quantity:,}", f"{p.per_million / 10_000:.4g} %")
            for p in found.prizes
        ],
        "sample": [(yuan(fen), tier) for fen, tier in found.sample],
        "basis": _("Cut %(runs)s times in full, by the rules that will really cut it.")
        % {"runs": found.runs}
        if found.whole
        else _("The first %(sample)s of %(count)s portions, by the rules that will really cut it.")
        % {"sample": f"{previews.SAMPLE_PORTIONS:,}", "count": f"{found.count:,}"},
    }
