"""The Chinese catalogue is whole, and every text that reaches a screen can be translated at all."""

from __future__ import annotations

import ast
import gettext
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from django.conf import settings
from django.test import Client, RequestFactory
from django.utils import translation

from engine.lib import catalogue
from engine.lib.middleware import RequestContextMiddleware

BASE = Path(settings.BASE_DIR)


@pytest.fixture(scope="module")
def texts() -> dict[catalogue.Key, catalogue.Text]:
    return catalogue.wanted()


@pytest.fixture
def catalog() -> Catalog:
    return catalogue.load()


def test_every_text_has_its_chinese(
    catalog: Catalog, texts: dict[catalogue.Key, catalogue.Text]
) -> None:
    assert catalogue.problems(catalog, texts) == [], "run `make messages`"


def test_the_compiled_catalogue_says_the_same(catalog: Catalog) -> None:
    def said(data: gettext.GNUTranslations) -> dict[object, str]:
        return {key: text for key, text in vars(data)["_catalog"].items() if key}

    with catalogue.po_path().with_suffix(".mo").open("rb") as file:
        committed = said(gettext.GNUTranslations(file))
    path = BASE / "locale"
    assert catalogue.po_path().is_relative_to(path)
    import io

    assert committed == said(gettext.GNUTranslations(io.BytesIO(catalogue.compiled(catalog))))


def test_the_file_is_as_the_command_writes_it(
    tmp_path: Path, catalog: Catalog, texts: dict[catalogue.Key, catalogue.Text]
) -> None:
    """So that translating one text is a change of one line."""
    again = tmp_path / "django.po"
    catalogue.write(catalogue.updated(catalog, texts), again)
    assert again.read_text() == catalogue.po_path().read_text(), "run `make messages`"


# --- the checks see what they are there for -------------------------------------------------------


def small() -> tuple[Catalog, dict[catalogue.Key, catalogue.Text]]:
    catalog = Catalog(locale=catalogue.LOCALE)
    catalog.add("Budget: %(amount)s", "预算：%(amount)s")
    catalog.add(("%(n)s day", "%(n)s days"), ("%(n)s 天",))
    found = [
        catalogue.Text("", "Budget: %(amount)s", "", "a.py"),
        catalogue.Text("", "%(n)s day", "%(n)s days", "a.py"),
    ]
    return catalog, {text.key: text for text in found}


def test_a_good_catalogue_has_no_problems() -> None:
    assert catalogue.problems(*small()) == []


def test_a_missing_text_is_found() -> None:
    catalog, texts = small()
    fresh = catalogue.Text("", "Launch", "", "b.py")
    catalog.add("Empty", "")
    assert catalogue.problems(
        catalog, {**texts, fresh.key: fresh, ("", "Empty"): catalogue.Text("", "Empty", "", "c")}
    ) == ["missing: 'Launch' (b.py)", "missing: 'Empty' (c)"]


def test_a_fuzzy_text_is_found() -> None:
    catalog, texts = small()
    catalog["Budget: %(amount)s"].flags.add("fuzzy")  # type: ignore[union-attr]
    assert catalogue.problems(catalog, texts) == ["fuzzy: 'Budget: %(amount)s' (a.py)"]


def test_a_stale_text_is_found() -> None:
    catalog, texts = small()
    catalog.add("Gone", "没了")
    assert catalogue.problems(catalog, texts) == ["stale: 'Gone'"]


def test_a_lost_placeholder_is_found() -> None:
    catalog, texts = small()
    catalog["Budget: %(amount)s"].string = "预算：%(sum)s"  # type: ignore[union-attr]
    assert catalogue.problems(catalog, texts) == ["other placeholders: 'Budget: %(amount)s'"]


def test_texts_are_found_in_code_and_templates(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "a.py").write_text(
        'gettext_lazy("one " "two"); ngettext("%d cat", "%d cats", n); pgettext("verb", "open")\n'
        "_(variable); other('not a text')\n"
    )
    (tmp_path / "templates" / "a.html").write_text(
        "{% load i18n %}{% translate \"Say 'hi'\" %}"
        "{% blocktranslate trimmed with a=b %}\n  All of\n  {{ a }}\n{% endblocktranslate %}"
        "{% blocktranslate count n=n %}{{ n }} row{% plural %}{{ n }} rows{% endblocktranslate %}"
        '{% include "x.html" with title=_("Title") %}'
    )
    found = [
        (text.context, text.singular, text.plural)
        for text in catalogue._texts_in(tmp_path, tmp_path)
    ]
    assert sorted(found) == sorted(
        [
            ("", "one two", ""),
            ("", "%d cat", "%d cats"),
            ("verb", "open", ""),
            ("", "Say 'hi'", ""),
            ("", "All of %(a)s", ""),
            ("", "%(n)s row", "%(n)s rows"),
            ("", "Title", ""),
        ]
    )


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    """Through the real command, on a catalogue that lacks everything."""
    code = (
        "import sys, pathlib; from engine.lib import catalogue as c;"
        f"c.po_path = lambda: pathlib.Path({str(tmp_path / 'x' / 'django.po')!r});"
        "from django.core.management import execute_from_command_line as run;"
        "run(['manage.py', 'messages'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()\n" + code],
        capture_output=True,
        text=True,
        cwd=BASE,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "missing: 'budget' (campaign/" in done.stderr


# --- every text can be translated -----------------------------------------------------------------


def _files(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        for path in sorted((BASE / room).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def _plain(node: ast.expr) -> bool:
    """A text written as it is, which no catalogue can change."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(node.value)
    if isinstance(node, ast.BinOp):
        return _plain(node.left)
    return isinstance(node, ast.JoinedStr)


# What refuses an input: the class, and which argument is the text for a person.
REFUSALS = {"ServiceError": 2, "SplittingError": 2, "ValidationError": 0}


def test_every_refusal_is_said_in_the_reader_s_language() -> None:
    found = [
        f"{path.relative_to(BASE)}:{node.lineno}"
        for path in _files("campaign", "packets", "engine", "referrals")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (name := getattr(node.func, "id", getattr(node.func, "attr", ""))) in REFUSALS
        and len(node.args) > REFUSALS[name]
        and _plain(node.args[REFUSALS[name]])
    ]
    assert found == []


# --- which language is spoken ---------------------------------------------------------------------


def test_staff_read_chinese_unless_they_choose_english(client: Client) -> None:
    page = client.get("/admin/login/").content.decode()
    assert 'lang="zh-hans"' in page and "登录" in page
    chosen = client.post("/admin/language", {"language": "en", "next": "/admin/login/"})
    assert (chosen.status_code, chosen["Location"]) == (302, "/admin/login/")
    cookie = chosen.cookies[settings.LANGUAGE_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    page = client.get("/admin/login/").content.decode()
    assert 'lang="en"' in page and "Log in" in page


def test_a_language_we_do_not_speak_changes_nothing(client: Client) -> None:
    client.post("/admin/language", {"language": "tlh", "next": "/admin/login/"})
    assert settings.LANGUAGE_COOKIE_NAME not in client.cookies


def test_the_switch_leads_nobody_to_another_site(client: Client) -> None:
    sent = client.post("/admin/language", {"language": "en", "next": "https://evil.example/"})
    assert sent["Location"] == "/"


@pytest.mark.parametrize("header", ["zh-CN,zh;q=0.9", "zh-TW", "fr", "de-DE,fr;q=0.5"])
def test_other_browsers_get_chinese(client: Client, header: str) -> None:
    page = client.get("/admin/login/", headers={"Accept-Language": header}).content.decode()
    assert 'lang="zh-hans"' in page


def test_the_api_speaks_english_even_after_a_chinese_page() -> None:
    translation.activate("zh-hans")
    seen = []

    def view(request: object) -> object:
        from django.http import HttpResponse

        seen.append(translation.get_language())
        return HttpResponse("ok")

    RequestContextMiddleware(view)(RequestFactory().get("/api/v1/campaigns"))  # type: ignore[arg-type]
    assert seen == ["en"]
