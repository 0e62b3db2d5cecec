"""The first thing a fresh clone runs: it has the standard library and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.run import bootstrap
from engine.run.paths import CHECKOUT


def test_it_runs_without_anything_installed() -> None:
    code = "import sys; sys.argv = ['x']; import runpy; runpy.run_path(sys.orig_argv[-1])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(CHECKOUT / "engine/run/bootstrap.py")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_line_in_an_included_file_means_installing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "CHECKOUT", tmp_path)
    (tmp_path / "base.txt").write_text("six==1.16.0\n")
    (tmp_path / "more.txt").write_text("-r base.txt\nidna\n")
    before = bootstrap.digest("more.txt")
    assert bootstrap.digest("more.txt") == before

    (tmp_path / "base.txt").write_text("six==1.17.0\n")

    assert bootstrap.digest("more.txt") != before


def test_a_stamp_spares_the_second_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bootstrap, "CHECKOUT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    (tmp_path / "base.txt").write_text("six\n")

    bootstrap.install("base.txt")
    bootstrap.install("base.txt")

    installed = [command[-2:] for command in calls if "pip" in command]
    compiled = [command for command in calls if "compileall" in command]
    assert installed == [["-r", "base.txt"]]
    assert len(compiled) == 1


def test_a_failed_installation_leaves_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "CHECKOUT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap, "PYTHON", Path("/bin/false"))
    (tmp_path / "base.txt").write_text("six\n")

    with pytest.raises(SystemExit, match=r"pip could not install base\.txt"):
        bootstrap.install("base.txt")

    assert list(tmp_path.glob(".*.stamp")) == []


def test_make_help_lists_every_command_a_person_needs() -> None:
    done = subprocess.run(["make"], cwd=CHECKOUT, capture_output=True, text=True, check=True)

    for command in ("run", "demo", "crowd", "test", "lint", "types", "nightly", "clean"):
        assert f"  make {command} " in done.stdout
    assert "DEMO_EXIT=1 make demo" in done.stdout
