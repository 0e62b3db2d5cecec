"""The catalogue of Chinese texts: what must be in it, what is, and how the two come together.

English texts stand in the code and are the keys. `locale/zh_Hans` holds the Chinese of all of
ours, and of what the libraries whose pages we show leave untranslated, so that no screen is mixed.
Both the readable `.po` and the compiled `.mo` are committed: running needs no gettext tools.

Babel is a requirement of development only, so nothing but `manage.py messages` and the tests
import this.
"""

from __future__ import annotations

import ast
import datetime as dt
import importlib.util
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po
from django.apps import apps
from django.conf import settings
from django.utils.translation.template import templatize

LOCALE = "zh_Hans"
OURS = ("engine", "packets", "campaign", "referrals")
# Installed for the API, which speaks English only; none of their texts reaches a screen.
API_ONLY = {"rest_framework", "drf_spectacular", "drf_spectacular_sidecar", "corsheaders"}
# Parts of Django without an app of their own whose texts appear in forms and lists.
DJANGO_PARTS = ("forms", "core", "utils", "views", "db/models", "conf")
SKIPPED_FOLDERS = {"migrations", "management", "locale", "static", "__pycache__"}
HEADER = """\
# Laisee in Simplified Chinese. Translate here, then run `make messages`.
# The texts of libraries at the end are those that they leave untranslated themselves."""
# A catalogue must not change because a day has passed.
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

# Functions whose constant arguments are texts, without the `_lazy` and `_noop` of their variants.
FUNCTIONS = ("_", "gettext", "ngettext", "pgettext", "npgettext")
_STRING = r"[uU]?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
_CALL = re.compile(rf"\b(_|n?p?gettext)\(\s*({_STRING}(?:\s*,\s*{_STRING})*)")
_PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[sdifr]|\{\w*\}")
_CHINESE = re.compile(r"[\u3400-\u9fff]")

Key = tuple[str, str | tuple[str, str]]  # context ("" = none), and the text or (one, many)


@dataclass(frozen=True)
class Text:
    """One translatable text and the first file that holds it."""

    context: str
    singular: str
    plural: str
    place: str

    @property
    def key(self) -> Key:
        return self.context, (self.singular, self.plural) if self.plural else self.singular


def po_path() -> Path:
    return Path(settings.BASE_DIR) / "locale" / LOCALE / "LC_MESSAGES" / "django.po"


# --- what must be in it ---------------------------------------------------------------------------


def _texts_of_python(source: str, place: str) -> Iterator[Text]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            name = node.func.attr if isinstance(node.func, ast.Attribute) else name
            function = name.removesuffix("_lazy").removesuffix("_noop")
            if function in FUNCTIONS:
                yield from _text(function, list(_constants(node.args)), place)


def _constants(arguments: list[ast.expr]) -> Iterator[str]:
    """The arguments up to the first that isn't a constant text."""
    for argument in arguments:
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            return
        yield argument.value


def _texts_of_template(source: str, place: str) -> Iterator[Text]:
    for match in _CALL.finditer(templatize(source, origin=place)):
        strings = [str(ast.literal_eval(part)) for part in re.findall(_STRING, match.group(2))]
        yield from _text(match.group(1), strings, place)


def _text(function: str, strings: list[str], place: str) -> Iterator[Text]:
    """One call's text; a call whose text isn't a constant has none."""
    context = strings.pop(0) if function.lstrip("n") == "pgettext" and strings else ""
    plural = strings[1] if function.startswith("n") and len(strings) > 1 else ""
    if strings and strings[0]:
        yield Text(context, strings[0], plural, place)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            # An app inside an app is a folder of its own, if it is installed at all.
            if path.name not in SKIPPED_FOLDERS and not (path / "apps.py").exists():
                yield from _files(path)
        elif path.suffix in (".py", ".html", ".txt"):
            yield path


def _texts_in(folder: Path, base: Path) -> Iterator[Text]:
    for path in _files(folder):
        place = path.relative_to(base).as_posix()
        if path.suffix == ".py":
            yield from _texts_of_python(path.read_text(encoding="utf-8"), place)
        elif "templates" in path.parts:
            yield from _texts_of_template(path.read_text(encoding="utf-8"), place)


def _folder_of(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin).parent


def _foreign_folders() -> Iterator[Path]:
    for config in apps.get_app_configs():
        if config.name.split(".")[0] not in {*OURS, *API_ONLY}:
            yield Path(config.path)
    django = _folder_of("django")
    for part in DJANGO_PARTS:
        yield django / part


def _translated_by_libraries() -> set[Key]:
    folders = [_folder_of("django") / "conf" / "locale"]
    folders += [Path(config.path) / "locale" for config in apps.get_app_configs()]
    known: set[Key] = set()
    for folder in folders:
        path = folder / LOCALE / "LC_MESSAGES" / "django.mo"
        if path.exists():
            with path.open("rb") as file:
                known |= {
                    _key(message) for message in read_mo(file) if message.id and message.string
                }
    return known


def _key(message: Message) -> Key:
    text = message.id if isinstance(message.id, str) else (message.id[0], message.id[1])
    context: str | bytes = message.context or ""  # bytes where it comes from a compiled catalogue
    return context.decode() if isinstance(context, bytes) else context, text


def _once(texts: Iterable[Text]) -> dict[Key, Text]:
    found: dict[Key, Text] = {}
    for text in texts:
        found.setdefault(text.key, text)
        # gettext finds both by the singular, so a text must not be in there in two forms.
        if text.plural:
            found.pop((text.context, text.singular), None)
    plural = {(key[0], key[1][0]) for key in found if isinstance(key[1], tuple)}
    return {key: text for key, text in found.items() if key not in plural}


def wanted() -> dict[Key, Text]:
    """Every text that needs Chinese from us: all of ours, then what libraries leave open."""
    base = Path(settings.BASE_DIR)
    ours = [text for room in OURS for text in _texts_in(base / room, base)]
    done = _translated_by_libraries()
    singles = {(context, text if isinstance(text, str) else text[0]) for context, text in done}
    foreign = [
        text
        for folder in dict.fromkeys(_foreign_folders())
        for text in _texts_in(folder, _packages_of(folder))
        if text.key not in done and (text.context, text.singular) not in singles
    ]
    return _once([*ours, *foreign])


def _packages_of(folder: Path) -> Path:
    """The folder that packages are installed in, so that a place reads `unfold/admin.py`."""
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


# --- what is in it --------------------------------------------------------------------------------


def load(path: Path | None = None) -> Catalog:
    with (path or po_path()).open("rb") as file:
        return read_po(file, locale=LOCALE)


def _strings(message: Message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string or ())


def problems(catalog: Catalog, texts: dict[Key, Text]) -> list[str]:
    """What is wrong with the catalogue, one line each; an empty list is a good catalogue."""
    found = []
    messages = {_key(message): message for message in catalog if message.id}
    for key, text in texts.items():
        message = messages.get(key)
        if message is None or not all(_strings(message)):
            found.append(f"missing: {text.singular!r} ({text.place})")
        elif message.fuzzy:
            found.append(f"fuzzy: {text.singular!r} ({text.place})")
        else:
            found += [f"{wrong}: {text.singular!r}" for wrong in _faults(message)]
    found += [f"stale: {key[1]!r}" for key in messages if key not in texts]
    found += [f"stale: {message.id!r}" for message in catalog.obsolete.values()]
    return found


def _faults(message: Message) -> Iterator[str]:
    ids = [message.id] if isinstance(message.id, str) else list(message.id)
    wanted_marks = sorted(set(_PLACEHOLDER.findall(ids[-1])))
    for string in _strings(message):
        if sorted(set(_PLACEHOLDER.findall(string))) != wanted_marks:
            yield "other placeholders"
        if ids[-1].startswith("\n") != string.startswith("\n") or (
            ids[-1].endswith("\n") != string.endswith("\n")
        ):
            yield "line ends differ"
    if any(_CHINESE.search(text) for text in ids):
        yield "the key must be English"


# --- bringing them together -----------------------------------------------------------------------


def updated(old: Catalog, texts: dict[Key, Text]) -> Catalog:
    """A catalogue of exactly these texts, with the Chinese that the old one has for them."""
    kept = {_key(message): message for message in old if message.id}
    fresh = Catalog(
        locale=LOCALE,
        project="Laisee",
        version="1",
        header_comment=HEADER,
        creation_date=EPOCH,
        revision_date=EPOCH,
        last_translator="Laisee",
        language_team="zh_Hans",
        fuzzy=False,
    )
    for key, text in texts.items():
        before = kept.get(key)
        identity = (text.singular, text.plural) if text.plural else text.singular
        fresh.add(
            identity,
            before.string if before is not None else None,
            locations=[(text.place, 0)],
            flags={"fuzzy"} if before is not None and before.fuzzy else set(),
            user_comments=before.user_comments if before is not None else (),
            context=text.context or None,
        )
    return fresh


def write(catalog: Catalog, path: Path | None = None) -> None:
    """The `.po` and, compiled beside it, the `.mo`."""
    path = path or po_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalog, width=100, include_lineno=False, sort_output=False)
    path.with_suffix(".mo").write_bytes(compiled(catalog))


def compiled(catalog: Catalog) -> bytes:
    """What `.mo` must hold for this catalogue."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()
