"""Lists of people: a CSV or text file of user ids, one a row, for a targeted packet.

A file is received whole (`target_upload_create` cuts it into parts as it comes) and read part by
part by the clock: each part is one transaction that lists its people, notes the rows that name
nobody, and deletes itself. So a worker that dies leaves nothing half done, none is read twice, and
two workers share the work. A list belongs to the version that is approved: it can only change while
its campaign can.
"""

from __future__ import annotations

import csv
import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from campaign.convergence import campaign_locked
from campaign.models import (
    Campaign,
    TargetUpload,
    TargetUploadError,
    TargetUploadPart,
)
from campaign.services import review
from campaign.services.common import EDITABLE, audit, require_state, touched
from engine.lib.clock import now
from engine.lib.errors import ServiceError
from engine.lib.ids import participant_digest, subject_is_valid
from packets.models import Packet, PacketTarget
from packets.services import packet_targets_add

MAX_BYTES = 256 * 2**20  # ten million ids of some twenty characters
PART_ROWS = 5_000  # listed in well under a second
ERRORS_KEPT = 1_000  # rows shown with their fault; the rest is only counted
ROW_MAX_CHARS = 1_000  # longer rows are no ids, and must not fill the memory
HEADERS = frozenset(
    {"user", "user_id", "userid", "sub", "subject", "id", "用户", "用户id", "用户编号"}
)

State = TargetUpload.State
FAULTS = {
    "encoding": gettext_noop("not UTF-8"),
    "format": gettext_noop("a user id is 1 to 128 printable characters"),
    "too_long": gettext_noop("too long"),
}


# --- Receiving -----------------------------------------------------------------------------------


def target_upload_create(
    *,
    campaign_id: uuid.UUID,
    packet_id: uuid.UUID,
    client_app_id: int,
    filename: str,
    chunks: Iterable[bytes],
    actor: str,
    by: User | None = None,
) -> TargetUpload:
    """Take a file in, as the chunks come; its people are listed by the clock, in parts."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        packet = _targeted_packet(campaign, packet_id)
        if not campaign.client_apps.filter(pk=client_app_id).exists():
            raise ServiceError(
                "client_app", "unknown", _("The campaign isn't carried by this client app.")
            )
        upload = TargetUpload.objects.create(
            packet=packet,
            client_app_id=client_app_id,
            filename=filename[-200:],
            sha256="",
            created_by=by,
        )
        digest = hashlib.sha256()
        rows = _receive(upload, chunks, digest)
        if not rows:
            raise ServiceError("file", "empty", _("The file names nobody."))
        upload.sha256, upload.total_rows = digest.hexdigest(), rows
        upload.save(update_fields=["sha256", "total_rows"])
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(
            campaign,
            actor,
            "targets_upload",
            after={"packet": packet.public_id, "rows": rows, "sha256": upload.sha256},
        )
    return upload


def _targeted_packet(campaign: Campaign, packet_id: uuid.UUID) -> Packet:
    packet = Packet.objects.filter(pk=packet_id, campaign_link__campaign=campaign).first()
    if packet is None:
        raise ServiceError("packet", "not_found", _("The campaign has no such packet."))
    if not packet.targeted:
        raise ServiceError(
            "packet", "not_targeted", _("This packet is for everybody: it takes no list.")
        )
    return packet


def _receive(upload: TargetUpload, chunks: Iterable[bytes], digest: hashlib._Hash) -> int:
    rows, number, part = 0, 0, list[str]()
    for line in _lines(chunks, digest):
        part.append(line)
        rows += 1
        if len(part) == PART_ROWS:
            _keep(upload, number, rows, part)
            number, part = number + 1, []
    if part:
        _keep(upload, number, rows, part)
    return rows


def _keep(upload: TargetUpload, number: int, rows: int, part: list[str]) -> None:
    TargetUploadPart.objects.create(
        upload=upload,
        number=number,
        first_row=rows - len(part) + 1,
        rows=len(part),
        text="\n".join(part),
    )


def _lines(chunks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[str]:
    """The file's rows, however its chunks are cut. What can't be read as UTF-8 is marked."""
    rest, size = b"", 0
    for chunk in chunks:
        if not size and chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ServiceError("file", "encoding", _("Save the file as UTF-8 (CSV or text)."))
        if not size:
            chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        size += len(chunk)
        if size > MAX_BYTES:
            raise ServiceError(
                "file", "too_large", _("At most %(most)s MB."), most=MAX_BYTES // 2**20
            )
        digest.update(chunk)
        *whole, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        if len(rest) > ROW_MAX_CHARS * 4:
            raise ServiceError("file", "format", _("This is no list with one user id a row."))
        for line in whole:
            yield _text(line)
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    # A zero byte is what Postgres can't keep; the replacement character marks what isn't UTF-8.
    return line.decode(errors="replace").replace("\0", "\ufffd").rstrip("\r")[:ROW_MAX_CHARS]


# --- Reading -------------------------------------------------------------------------------------


def target_uploads_run_due(*, for_s: float) -> int:
    """Read parts of whatever is waiting, for so many seconds at most; how many parts were read."""
    until, count = time.monotonic() + for_s, 0
    while time.monotonic() < until and _read_next():
        count += 1
    return count


def _read_next() -> bool:
    """One part of one upload that nobody else is reading. False: there is nothing to do."""
    with transaction.atomic():
        upload = (
            TargetUpload.objects.select_for_update(skip_locked=True, no_key=True)
            .filter(state__in=(State.RECEIVED, State.RUNNING))
            .order_by("id")
            .first()
        )
        if upload is None:
            return False
        part = upload.parts.order_by("number").first()
        if part is not None:
            _read(upload, part)
            part.delete()
            upload.state = State.RUNNING
        if not upload.parts.exists():
            upload.state, upload.finished_at = State.DONE, now()
        upload.save()
    return True


def _read(upload: TargetUpload, part: TargetUploadPart) -> None:
    people: list[bytes] = []
    faults: list[TargetUploadError] = []
    blank = 0
    for row, line in enumerate(part.text.split("\n"), start=part.first_row):
        subject = _subject(line)
        if not subject or (row == 1 and subject.casefold() in HEADERS):
            blank += 1
            continue
        fault = _fault(subject)
        if fault is None:
            people.append(participant_digest(upload.client_app_id, subject))
        else:
            faults.append(TargetUploadError(upload=upload, row=row, text=line[:200], code=fault))
    added = packet_targets_add(packet_id=upload.packet_id, participants=people)
    room = max(0, ERRORS_KEPT - upload.refused)
    TargetUploadError.objects.bulk_create(faults[:room])
    upload.added += added
    upload.repeated += len(people) - added
    upload.refused += len(faults)
    upload.done_rows += part.rows


def _subject(line: str) -> str:
    """The first column of the row, without the spaces around it."""
    if '"' not in line and "," not in line and "\t" not in line:
        return line.strip()
    try:
        cells = next(csv.reader([line.replace("\t", ",")], strict=True), [""])
    except csv.Error:
        return line.strip()
    return cells[0].strip()


def _fault(subject: str) -> str | None:
    if "\ufffd" in subject:
        return "encoding"
    if len(subject) > 128:
        return "too_long"
    return None if subject_is_valid(subject) else "format"


# --- Taking back ---------------------------------------------------------------------------------


def target_list_clear(
    *, campaign_id: uuid.UUID, packet_id: uuid.UUID, actor: str, by: User | None = None
) -> int:
    """Forget a packet's list; how many people were on it."""
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, EDITABLE)
        packet = _targeted_packet(campaign, packet_id)
        uploads = TargetUpload.objects.select_for_update().filter(packet=packet)
        known = list(uploads.exclude(state=State.CLEARED).values_list("pk", flat=True))
        TargetUploadPart.objects.filter(upload__in=known).delete()
        TargetUpload.objects.filter(pk__in=known).update(state=State.CLEARED, finished_at=now())
        count, _deleted = PacketTarget.objects.filter(packet=packet).delete()
        review.void(campaign, actor=actor, by=by)
        touched(campaign, by)
        audit(campaign, actor, "targets_clear", before={"packet": packet.public_id, "n": count})
    return count
