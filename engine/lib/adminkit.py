"""The admin's building blocks, the one place that knows the theme (django-unfold).

All admins inherit from here. What is kept here: money is typed and shown in yuan and held in fen,
exactly; a time never stands without its zone; a big table is paged without being counted; what is
read-only offers no way to write.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.contrib.admin import ShowFacets
from django.core.exceptions import PermissionDenied
from django.core.paginator import InvalidPage
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin as UnfoldModelAdmin
from unfold.contrib.filters.admin import RangeDateTimeFilter, TextFilter
from unfold.paginator import InfinitePaginator
from unfold.views import ChangeList
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from engine.lib.ids import participant_digest, subject_is_valid
from engine.lib.money import MAX_FEN, yuan
from engine.models import ClientApp

__all__ = [
    "CheckboxSelectMultiple",
    "ExactFilter",
    "LocalMomentField",
    "MomentFilter",
    "NoCountPaginator",
    "PasswordAgainField",
    "PlainModelAdmin",
    "ReadOnlyModelAdmin",
    "TextFilter",
    "YuanField",
    "actor_of",
    "digests_of",
    "dress",
    "exact_filter",
    "moment",
    "money",
    "number_of",
    "require",
    "tag",
    "uuid_of",
    "yuan_text",
    "zone_label",
]

CheckboxSelectMultiple = UnfoldAdminCheckboxSelectMultipleWidget
# Deeper pages would make Postgres skip ever more rows; a date or a person narrows the list instead.
MAX_PAGES = 200
ROWS_A_PAGE = 50
ROW_NUMBER_DIGITS = 18  # what Postgres counts rows with has a few more
# Shown on every page: text and the theme's colour of it.
ENVIRONMENTS = {
    "local": (_("Local"), "info"),
    "staging": (_("Staging"), "warning"),
    "production": (_("Production"), "danger"),
}


# --- the theme's hooks ----------------------------------------------------------------------------


def environment_label(request: HttpRequest) -> list[Any]:
    text, colour = ENVIRONMENTS[settings.ENVIRONMENT]
    return [text, colour]


def stylesheet(request: HttpRequest) -> str:
    return static("laisee/admin.css")


def script(request: HttpRequest) -> str:
    return static("laisee/admin.js")


def actor_of(request: HttpRequest) -> str:
    """Staff as the audit log names them."""
    return f"staff:{request.user.get_username()}"


def require(request: HttpRequest, permission: str) -> None:
    """Refuse (403) whoever lacks the permission: hidden buttons are no protection."""
    if not request.user.has_perm(permission):
        raise PermissionDenied


# --- money ----------------------------------------------------------------------------------------

_YUAN = re.compile(r"(\d{1,14})(?:\.(\d{1,2}))?\Z")
_YUAN_TOO_FINE = re.compile(r"\d{1,14}\.\d{3,}\Z")


def yuan_text(amount_fen: int) -> str:
    """`1234.56`, as it can be typed again."""
    whole, rest = divmod(amount_fen, 100)
    return f"{whole}.{rest:02d}"


def parse_yuan(text: str) -> int:
    """Fen of what a person typed in yuan: `1,234.5`, `¥100`, `１００元`. Raises ValidationError."""
    plain = unicodedata.normalize("NFKC", text).replace("，", "").replace(",", "")
    plain = plain.replace(" ", "").strip("¥￥元")
    if _YUAN_TOO_FINE.match(plain):
        raise forms.ValidationError(
            _("At most two digits after the point: a fen is the smallest amount."), "too_fine"
        )
    found = _YUAN.match(plain)
    if found is None:
        raise forms.ValidationError(_("Type an amount in yuan, such as 1234.56."), "invalid")
    amount_fen = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))
    if amount_fen > MAX_FEN:
        raise forms.ValidationError(_("This is more than the system can hold."), "too_large")
    return amount_fen


class YuanField(forms.CharField):
    """People type yuan; `cleaned_data` holds whole fen. Nothing in between is a float."""

    widget = UnfoldAdminTextInputWidget

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs.update({"inputmode": "decimal", "data-yuan": "", "autocomplete": "off"})

    def prepare_value(self, value: Any) -> Any:
        is_fen = isinstance(value, int) and not isinstance(value, bool)
        return yuan_text(value) if is_fen else value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return parse_yuan(text) if text else None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(initial != self.to_python(data))
        except forms.ValidationError:
            return True


def money(amount_fen: int | None) -> SafeString:
    """An amount as lists show it: digits under digits."""
    if amount_fen is None:
        return format_html("<span>{}</span>", "–")
    return format_html('<span class="ls-money">{}</span>', yuan(int(amount_fen)))


def tag(state: str, label: Any) -> SafeString:
    """A state as a word in its colour."""
    return format_html('<span class="ls-tag is-{}">{}</span>', state, label)


# --- time -----------------------------------------------------------------------------------------


def zone_label(zone: str, at: dt.datetime | None = None) -> str:
    """`Asia/Shanghai (UTC+8)`, with the offset of that moment."""
    offset = (at or timezone.now()).astimezone(ZoneInfo(zone)).utcoffset() or dt.timedelta()
    minutes = int(offset.total_seconds()) // 60
    hours, rest = divmod(abs(minutes), 60)
    text = f"{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02d}" if rest else "")
    return f"{zone} (UTC{text})"


def moment(at: dt.datetime | None, zone: str | None = None, *, seconds: bool = False) -> str:
    """`2027-02-06 20:00 Asia/Shanghai (UTC+8)`."""
    if at is None:
        return "–"
    zone = zone or settings.STAFF_TIME_ZONE
    local = at.astimezone(ZoneInfo(zone))
    return f"{local:{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}} {zone_label(zone, at)}"


def stamp(at: dt.datetime | None) -> SafeString:
    """A moment of a list: `2027-02-06 20:00:05 UTC+8`, in the staff's zone, on one line."""
    if at is None:
        return format_html("<span>{}</span>", "–")
    local = at.astimezone(ZoneInfo(settings.STAFF_TIME_ZONE))
    offset = zone_label(settings.STAFF_TIME_ZONE, at).split("(")[1].rstrip(")")
    return format_html('<span class="ls-num">{} {}</span>', f"{local:%Y-%m-%d %H:%M:%S}", offset)


class LocalMomentField(forms.Field):
    """A time without a zone, as typed; `place` puts it into the zone chosen beside it."""

    widget = UnfoldAdminTextInputWidget
    FORMATS = ("%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")

    def __init__(self, *, seconds: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds
        self.widget.input_type = "datetime-local"
        if seconds:
            self.widget.attrs["step"] = "1"

    def to_python(self, value: Any) -> dt.datetime | None:
        text = unicodedata.normalize("NFKC", str(value or "")).strip()
        if not text:
            return None
        for known in self.FORMATS:
            try:
                return dt.datetime.strptime(text, known)  # noqa: DTZ007 (the zone comes later)
            except ValueError:
                continue
        raise forms.ValidationError(_("Type a date and a time."), "invalid")

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, dt.datetime):
            return value
        return f"{value:%Y-%m-%dT%H:%M:%S}" if self.seconds else f"{value:%Y-%m-%dT%H:%M}"

    @staticmethod
    def place(naive: dt.datetime, zone: str) -> dt.datetime:
        """The moment of this wall clock time; one that the clocks skip there is refused."""
        local = naive.replace(tzinfo=ZoneInfo(zone))
        if local.astimezone(dt.UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) != naive:
            raise forms.ValidationError(
                _("This time doesn't exist there: the clocks are put forward."), "skipped"
            )
        return local.astimezone(dt.UTC)


class PasswordAgainField(forms.CharField):
    """The password once more, where money moves (`engine.staff.reauth` looks at it)."""

    widget = UnfoldAdminPasswordWidget

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("label", _("Your password"))
        kwargs.setdefault("help_text", _("Once more, because money moves."))
        super().__init__(strip=False, **kwargs)
        self.widget.attrs["autocomplete"] = "current-password"


# --- forms ----------------------------------------------------------------------------------------


def dress(field: forms.Field) -> None:
    """Give a plain form field the theme's widget, unless it has one already."""
    widget = field.widget
    dressed: forms.Widget
    if isinstance(widget, forms.CheckboxInput):
        dressed = UnfoldBooleanWidget()
    elif isinstance(widget, forms.Textarea):
        dressed = UnfoldAdminTextareaWidget()
    elif isinstance(widget, forms.SelectMultiple):
        return
    elif isinstance(widget, forms.Select):
        dressed = UnfoldAdminSelectWidget()
    elif isinstance(widget, forms.PasswordInput):
        dressed = UnfoldAdminPasswordWidget()
    elif type(widget) is forms.ClearableFileInput:
        # The theme's script writes the chosen file's name beside every file input of a page.
        dressed = UnfoldAdminFileFieldWidget()
    elif type(widget) in (forms.TextInput, forms.NumberInput):
        dressed = UnfoldAdminTextInputWidget()
        dressed.input_type = widget.input_type  # type: ignore[attr-defined]
    else:
        return
    dressed.attrs = {**dressed.attrs, **widget.attrs}
    if isinstance(field, forms.ChoiceField):
        dressed.choices = field.choices  # type: ignore[attr-defined]
    dressed.is_required = widget.is_required
    field.widget = dressed


# --- lists ----------------------------------------------------------------------------------------


class NoCountPaginator(InfinitePaginator):
    """Previous and next, without asking Postgres how many rows there are."""

    def validate_number(self, number: Any) -> int:
        page: int = super().validate_number(number)
        if page > MAX_PAGES:
            raise InvalidPage(_("Narrow the list by a date or a search instead."))
        return page


class UncountedList(ChangeList):
    """Says nothing of how many rows there are: the paginator's number is none."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count


class MomentFilter(RangeDateTimeFilter):
    """From … to, read in the staff's time zone."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        for end, lookup in (("from", "gte"), ("to", "lte")):
            at = self._moment(end)
            if at is not None:
                queryset = queryset.filter(**{f"{self.parameter_name}__{lookup}": at})
        return queryset

    def _moment(self, end: str) -> dt.datetime | None:
        date = str(self.used_parameters.get(f"{self.parameter_name}_{end}_0") or "")
        time = str(self.used_parameters.get(f"{self.parameter_name}_{end}_1") or "")
        try:
            naive = dt.datetime.fromisoformat(
                f"{date}T{time or ('00:00' if end == 'from' else '23:59:59.999999')}"
            )
        except ValueError:
            return None
        return timezone.make_aware(naive) if timezone.is_naive(naive) else naive


class ExactFilter(TextFilter):
    """One exact value of a column, typed; unlike a list of choices it reads no whole table."""

    field = ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = (self.value() or "").replace("\0", "").strip()
        return queryset.filter(**{self.field: value}) if value else queryset


def exact_filter(name: str, heading: Any) -> type[ExactFilter]:
    return type(f"Exact{name}", (ExactFilter,), {
        "title": heading, "parameter_name": name, "field": name
    })  # fmt: skip


def digests_of(text: str) -> list[bytes]:
    """The participants that a staff member may mean by this text: a digest, or an app's user id.

    A digest follows from (client app, user id), so the search is by key, however many people.
    """
    found = []
    if re.fullmatch(r"[0-9a-f]{32}", text):
        found.append(bytes.fromhex(text))
    if subject_is_valid(text):
        found += [
            participant_digest(app, text) for app in ClientApp.objects.values_list("pk", flat=True)
        ]
    return found


def uuid_of(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


def number_of(text: Any) -> int:
    """The number of a row as it stands in an address; 0, which no row has, for anything else."""
    digits = str(text)
    plain = digits.isascii() and digits.isdigit() and len(digits) <= ROW_NUMBER_DIGITS
    return int(digits) if plain else 0


class PlainModelAdmin(UnfoldModelAdmin):
    """What every admin of ours is: never counted in full, filters behind one button."""

    show_full_result_count = False
    list_per_page = ROWS_A_PAGE
    list_filter_submit = True
    warn_unsaved_form = True
    show_facets = ShowFacets.NEVER  # every facet is a COUNT

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        uncounted = issubclass(self.paginator, NoCountPaginator)
        return UncountedList if uncounted else super().get_changelist(request, **kwargs)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # A NUL can't be in any column; Postgres refuses it with an error.
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term.replace("\0", "")
        )
        return found


class ReadOnlyModelAdmin(PlainModelAdmin):
    """Rows can be seen and nothing else; big tables are neither counted nor joined row by row."""

    paginator = NoCountPaginator
    actions = None
    warn_unsaved_form = False
    # What no screen shows, not even to staff: secrets that would let one foresee portions.
    hidden: tuple[str, ...] = ()
    shown_instead: dict[str, str] = {}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        names: Iterable[str] = self.fields or [
            field.name for field in self.opts.fields if field.name not in self.hidden
        ]
        return [self.shown_instead.get(name, name) for name in names]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Sequence[Any]:
        return self.get_fields(request, obj)
