"""Lists of people: a file taken in, read in parts, with a word on each row that names nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest

from campaign import services
from campaign.models import Campaign, TargetUpload, TargetUploadError, TargetUploadPart
from campaign.services import targets
from engine.lib.ids import participant_digest
from packets.claiming.effects import Reason, Result
from packets.models import Packet, PacketTarget
from tests import world
from tests.campaign import stage
from tests.campaign.test_services import refused

pytestmark = pytest.mark.django_db(transaction=True)


def targeted(**rules: Any) -> tuple[Campaign, Packet]:
    campaign = stage.draft()
    return campaign, stage.add_packet(campaign, targeted=True, **rules)


def upload(
    campaign: Campaign, packet: Packet, *parts: bytes, chunks: Iterable[bytes] = (), **other: Any
) -> TargetUpload:
    arguments: dict[str, Any] = {
        "campaign_id": campaign.pk,
        "packet_id": packet.pk,
        "client_app_id": campaign.client_apps.get().pk,
        "filename": "people.csv",
        "chunks": [*parts, *chunks],
        "actor": "staff:ann",
        "by": stage.member("operations", "ann"),
        **other,
    }
    return services.target_upload_create(**arguments)


def read_all(upload: TargetUpload) -> TargetUpload:
    services.target_uploads_run_due(for_s=30)
    upload.refresh_from_db()
    return upload


def listed(packet: Packet, app: int, names: Iterable[str]) -> bool:
    found = {bytes(row) for row in packet.targets.values_list("participant", flat=True)}
    return found == {participant_digest(app, name) for name in names}


def test_a_list_lets_its_people_claim_and_nobody_else() -> None:
    campaign, packet = targeted()
    app = campaign.client_apps.get().pk

    done = read_all(upload(campaign, packet, b"user_id,name\r\nalice,A\r\n\r\n bob \r\n"))

    assert (done.state, done.added, done.refused, done.percent) == ("done", 2, 0, 100)
    assert listed(packet, app, ["alice", "bob"])
    stage.launch(campaign)
    assert world.claim(packet, world.person("alice", app=app)).result is Result.WON
    assert world.claim(packet, world.person("eve", app=app)).reason is Reason.NOT_TARGETED


def test_every_row_that_names_nobody_is_said_and_the_others_count() -> None:
    campaign, packet = targeted()
    body = b"alice\n" + b"x" * 129 + b"\n\xff\xfe\x00bad\nbob\na\tb\n\x07bell\nalice\n"

    done = read_all(upload(campaign, packet, body))

    assert (done.state, done.added, done.repeated, done.refused) == ("done", 3, 1, 3)
    errors = TargetUploadError.objects.values_list("row", "code")
    assert list(errors) == [(2, "too_long"), (3, "encoding"), (6, "format")]
    assert listed(packet, campaign.client_apps.get().pk, ["alice", "bob", "a"])


def test_rows_are_the_same_however_the_file_is_cut() -> None:
    campaign, packet = targeted()
    body = '\ufeffuser\r\n张三\r\n李四\r\n"王,五",x\r\nbob'.encode()
    for size in (1, 2, 3, 7, 1000):
        packet.targets.all().delete()
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        if size == 1:  # the mark before the text may be cut too, but no upload handler cuts so
            chunks = [body[:3], *[body[at : at + 1] for at in range(3, len(body))]]
        if size == 2:
            chunks = [body[:4], *[body[at : at + 2] for at in range(4, len(body), 2)]]
        read_all(upload(campaign, packet, *chunks))
        assert listed(packet, campaign.client_apps.get().pk, ["张三", "李四", "王,五", "bob"]), size


@pytest.mark.parametrize(
    ("chunks", "field", "code"),
    [
        ([b""], "file", "empty"),
        (["用户".encode("utf-16")], "file", "encoding"),
        ([b"x" * 5_000], "file", "format"),
    ],
)
def test_a_file_that_is_no_list_is_refused(chunks: list[bytes], field: str, code: str) -> None:
    campaign, packet = targeted()

    refusal = refused(upload, campaign=campaign, packet=packet, chunks=chunks)

    assert (refusal.field, refusal.code) == (field, code)
    assert not TargetUploadPart.objects.exists()


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    campaign, packet = targeted()
    monkeypatch.setattr(targets, "MAX_BYTES", 10)

    assert refused(upload, campaign=campaign, packet=packet, chunks=[b"alice\nbobby\n"]).code == (
        "too_large"
    )


def test_only_a_targeted_packet_of_a_campaign_that_has_not_started_takes_a_list() -> None:
    campaign = stage.draft()
    for_all = stage.add_packet(campaign)
    assert refused(upload, campaign=campaign, packet=for_all).code == "not_targeted"
    running = stage.live()
    packet = stage.first_packet(running)
    assert refused(upload, campaign=running, packet=packet).code == "transition_refused"
    strange = stage.make_app().pk
    other, mine = targeted()
    assert refused(upload, campaign=other, packet=mine, client_app_id=strange).code == "unknown"


def test_a_list_that_is_being_read_keeps_the_campaign_from_being_handed_in() -> None:
    campaign, packet = targeted()
    stage.ready(campaign)
    ann = stage.member("operations", "ann")
    waiting = upload(campaign, packet, b"alice\n")

    assert refused(services.campaign_submit, campaign_id=campaign.pk, by=ann).code == (
        "still_reading"
    )
    read_all(waiting)
    assert services.campaign_submit(campaign_id=campaign.pk, by=ann).state == "review"
    # Another list is another version: what was handed in is a draft again.
    upload(campaign, packet, b"bob\n")
    assert Campaign.objects.get(pk=campaign.pk).state == "draft"


def test_a_worker_that_dies_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "PART_ROWS", 10)
    campaign, packet = targeted()
    names = [f"user{number}" for number in range(35)]
    waiting = upload(campaign, packet, "\n".join(names).encode())
    assert waiting.total_rows == 35 and waiting.parts.count() == 4
    read = targets._read
    turns = iter([False, False, True])

    def dies(*arguments: Any) -> None:
        read(*arguments)
        if next(turns):
            raise KeyboardInterrupt

    monkeypatch.setattr(targets, "_read", dies)
    with pytest.raises(KeyboardInterrupt):
        services.target_uploads_run_due(for_s=30)
    waiting.refresh_from_db()
    assert (waiting.state, waiting.done_rows, waiting.percent) == ("running", 20, 57)
    assert PacketTarget.objects.count() == 20

    monkeypatch.setattr(targets, "_read", read)
    done = read_all(waiting)

    assert (done.state, done.added, done.repeated, done.done_rows) == ("done", 35, 0, 35)
    assert listed(packet, campaign.client_apps.get().pk, names)


def test_workers_share_an_upload_and_list_everybody_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "PART_ROWS", 50)
    campaign, packet = targeted()
    names = [f"user{number}" for number in range(1_000)]
    waiting = [
        upload(campaign, packet, "\n".join(names[:600]).encode()),
        upload(campaign, packet, "\n".join(names[400:]).encode()),
    ]

    results = world.together([lambda: services.target_uploads_run_due(for_s=30)] * 4, threads=4)

    assert not [one for one in results if isinstance(one, BaseException)]
    read_all(waiting[0])
    read_all(waiting[1])
    assert sum(one.added for one in waiting) == 1_000
    assert sum(one.repeated for one in waiting) == 200
    assert listed(packet, campaign.client_apps.get().pk, names)


def test_only_so_many_faults_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ERRORS_KEPT", 5)
    monkeypatch.setattr(targets, "PART_ROWS", 4)
    campaign, packet = targeted()

    done = read_all(upload(campaign, packet, b"\x01\n" * 20 + b"alice\n"))

    assert (done.refused, done.added, done.errors.count()) == (20, 1, 5)


def test_a_list_is_cleared_with_what_is_still_waiting() -> None:
    campaign, packet = targeted()
    first = read_all(upload(campaign, packet, b"alice\nbob\n"))
    upload(campaign, packet, b"carol\n")

    count = services.target_list_clear(
        campaign_id=campaign.pk, packet_id=packet.pk, actor="staff:ann"
    )

    assert count == 2
    assert services.target_uploads_run_due(for_s=5) == 0
    assert not PacketTarget.objects.exists() and not TargetUploadPart.objects.exists()
    first.refresh_from_db()
    assert (first.state, first.sha256) == ("cleared", hashlib.sha256(b"alice\nbob\n").hexdigest())
    assert stage.audited(campaign)[-1] == "campaign.targets_clear"
