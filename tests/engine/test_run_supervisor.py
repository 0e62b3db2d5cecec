"""One supervisor: what dies is started again at once, and nothing outlives it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psycopg
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from engine.run import spawn
from engine.run.paths import CHECKOUT, Places, free_port
from engine.run.postgres import APP, OWNER, PostgresServer
from engine.run.services import answers
from engine.run.valkey import ValkeyServer
from tests.conftest import wait_until
from tests.private_copy import Copy

# Whole copies start here, on cores that the other tests of a busy machine may be using.
pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
EVERYONE = {"postgres", "valkey", "web", "edge", "sandbox", "beat"}
EVERYONE |= {"worker", "payouts", "webhooks"}
# Seconds. A process is back within one; that it answers again takes loading Django.
BACK_S, ANSWERS_S = 1.0, 20.0


@pytest.mark.parametrize("name", sorted(EVERYONE))
def test_a_killed_process_is_back_within_a_second(laisee: Copy, name: str) -> None:
    wait_until(lambda: _all_answer(laisee), ANSWERS_S, "the copy's health")

    old = laisee.kill(name)
    killed_at = time.monotonic()

    # Between its end and its successor it has no pid.
    wait_until(lambda: laisee.pids().get(name, old) != old, BACK_S, f"a new {name}")
    assert time.monotonic() - killed_at <= BACK_S
    wait_until(lambda: _all_answer(laisee), ANSWERS_S, f"health after {name} was killed")
    assert set(laisee.pids()) == EVERYONE | {"supervisor"}


@pytest.mark.parametrize("door", ["web", "edge"])
def test_a_killed_worker_is_replaced_while_the_other_serves(laisee: Copy, door: str) -> None:
    port = laisee.port if door == "web" else laisee.edge_port
    master = laisee.pids()[door]
    wait_until(lambda: len(_children(master)) >= 2, ANSWERS_S, "both workers")
    victim = _children(master)[0]

    os.kill(victim, signal.SIGKILL)

    wait_until(lambda: victim not in _children(master), 5, "the end of the worker")
    # Its socket is gone with it, so every new connection reaches the other one.
    assert all(answers(port, "/healthz") for _ in range(20))
    wait_until(lambda: len(_children(master)) >= 2, ANSWERS_S, "a new worker")
    wait_until(lambda: answers(port, "/readyz"), ANSWERS_S, door)
    assert laisee.pids()[door] == master


@pytest.mark.parametrize("door", ["web", "edge"])
def test_a_killed_master_leaves_no_worker_on_the_port(laisee: Copy, door: str) -> None:
    workers = _children(laisee.pids()[door])
    assert workers

    laisee.kill(door)

    wait_until(lambda: not any(_alive(pid) for pid in workers), 3, "the end of its workers")
    wait_until(lambda: _all_answer(laisee), ANSWERS_S, "health")


def test_the_worker_takes_tasks_again_after_the_broker_lost_everything(laisee: Copy) -> None:
    wait_until(lambda: _all_answer(laisee), ANSWERS_S, "the copy's health")
    wait_until(lambda: _sweeps(laisee) > 0, ANSWERS_S, "the first sweep")
    before = _sweeps(laisee)

    old = laisee.kill("valkey")
    shutil.rmtree(laisee.places.valkey)

    wait_until(lambda: laisee.pids()["valkey"] != old, BACK_S, "a new Valkey")
    wait_until(lambda: _sweeps(laisee) > before + 1, ANSWERS_S, "two more sweeps")


def test_a_second_start_on_the_same_data_is_refused(laisee: Copy) -> None:
    before = laisee.pids()

    done = _run_up(laisee)

    assert done.returncode == 1
    assert "a copy already runs on" in done.stdout
    assert str(before["supervisor"]) in done.stdout
    assert laisee.pids() == before


def test_clean_refuses_while_the_copy_runs(laisee: Copy) -> None:
    done = _run_up(laisee, "clean")

    assert done.returncode == 1
    assert "stop it first" in done.stdout
    assert answers(laisee.port, "/readyz")


def test_what_the_copy_says_about_itself_is_for_its_owner_alone(laisee: Copy) -> None:
    for path in [laisee.places.env_file, *laisee.places.secrets.iterdir()]:
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert laisee.env["BASE_URL"] == laisee.base_url
    assert laisee.env["DATABASE_URL"].startswith("postgres://laisee_app:")
    assert laisee.env["MIGRATION_DATABASE_URL"].startswith("postgres://laisee_owner:")
    assert laisee.env["REDIS_URL"].rpartition("/")[2] == "0"
    assert laisee.env["BROKER_URL"].rpartition("/")[2] == "1"


def test_nothing_outlives_a_killed_supervisor_and_the_data_stay(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    try:
        copy.start()
        secret = copy.env["SECRET_KEY"]
        assert copy.supervisor is not None
        copy.supervisor.kill()
        copy.supervisor.wait()
        wait_until(lambda: not copy.alive(), 10, "the end of every process")

        copy.start()

        assert copy.env["SECRET_KEY"] == secret
        assert "making the database" not in copy.text()
        _stop_although_a_client_stalls(copy)
        assert copy.alive() == []
        assert list(copy.places.run.glob("*.pid")) == []
        assert not copy.places.env_file.exists()
    finally:
        copy.close()


def _stop_although_a_client_stalls(copy: Copy) -> None:
    with socket.create_connection(("127.0.0.1", copy.port)) as stalled:
        stalled.sendall(
            b"POST /api/v1/packets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
        )
        begun = time.monotonic()
        assert copy.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 25


@pytest.mark.nightly  # its database is made from nothing; restoring into such servers is tested
def test_servers_of_yours_take_the_place_of_the_embedded_ones(
    tmp_path: Path, postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    copy = Copy(
        tmp_path,
        DATABASE_URL=postgres_server.url(APP),
        MIGRATION_DATABASE_URL=postgres_server.url(OWNER),
        REDIS_URL=valkey_server.url,
    )
    try:
        copy.start()
        assert set(copy.pids()) == EVERYONE - {"postgres", "valkey"} | {"supervisor"}
        assert copy.env["DATABASE_URL"] == postgres_server.url(APP)
        before = copy.pids()

        postgres_server.kill()
        assert not answers(copy.port, "/readyz")
        postgres_server.start()

        wait_until(lambda: answers(copy.port, "/readyz"), ANSWERS_S, "web")
        assert copy.pids() == before
        assert copy.stop() == 0
    finally:
        copy.close()
    assert postgres_server.answers()
    assert valkey_server.answers()


def test_a_server_of_yours_that_is_not_there_is_named(tmp_path: Path) -> None:
    copy = Copy(tmp_path, DATABASE_URL=f"postgres://me:secret@127.0.0.1:{free_port()}/mine")

    done = _run_up(copy)

    assert done.returncode == 1
    assert "! DATABASE_URL can't be reached" in done.stdout
    assert "secret" not in done.stdout
    assert copy.alive() == []


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    with socket.create_server(("127.0.0.1", copy.edge_port)):
        done = _run_up(copy)

    assert done.returncode == 1
    assert f"EDGE_PORT {copy.edge_port} is in use" in done.stdout
    assert not copy.places.postgres.exists()


def test_a_setting_that_cannot_be_meant_is_named(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    done = _run_up(copy, PORT="80O0")

    assert (done.returncode, done.stdout) == (1, "! PORT must be a whole number, not '80O0'\n")


def test_a_killed_test_session_leaves_no_server(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from tests import servers
        servers.start(Path(sys.argv[1]))
        print("started", flush=True)
        time.sleep(60)
        """
    )
    session = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT, stdout=subprocess.PIPE
    )
    assert session.stdout is not None
    assert session.stdout.readline() == b"started\n"
    assert len(spawn.strays(tmp_path)) >= 2

    session.kill()
    session.communicate()

    wait_until(lambda: not spawn.strays(tmp_path), 5, "the end of both servers")


def test_strays_are_found_by_their_mark_and_by_nothing_else(tmp_path: Path) -> None:
    places = Places(tmp_path / "mine")
    places.make()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine = spawn.start(
        command,
        name="web",
        data_dir=places.root,
        log=places.log_file("web"),
        death_signal=signal.SIGKILL,
        environ={},
    )
    other = subprocess.Popen(command, cwd=places.root)
    try:
        assert spawn.strays(places.root) == [mine.pid]
        assert spawn.strays(places.root, "edge") == []
        assert spawn.strays(tmp_path) == []

        assert spawn.kill_strays(places.root, "web") == 1

        assert mine.wait() == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def _run_up(copy: Copy, action: str = "up", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine.run", action],
        cwd=CHECKOUT,
        env={**copy.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _all_answer(copy: Copy) -> bool:
    env = copy.env
    try:
        psycopg.connect(env["DATABASE_URL"], connect_timeout=2).close()
        with redis.Redis.from_url(env["REDIS_URL"]) as link:
            link.ping()
    except (psycopg.Error, redis.RedisError):
        return False
    of_celery = ("worker", "payouts", "webhooks", "beat")
    ready = all((copy.places.run / f"{name}.ready").exists() for name in of_celery)
    return ready and answers(copy.port, "/readyz") and answers(copy.edge_port, "/readyz")


def _sweeps(copy: Copy) -> int:
    """How many settlement sweeps the worker has run since it started."""
    app = Celery(broker=copy.env["BROKER_URL"])
    try:
        stats = app.control.inspect(timeout=1.0).stats() or {}
    except (OperationalError, redis.ConnectionError):
        return 0  # the broker is away
    finally:
        app.close()
    return sum(one["total"].get("packets.tasks.settle_sweep", 0) for one in stats.values())


def _children(pid: int) -> list[int]:
    """Processes that `pid` started and that serve (not multiprocessing's resource tracker)."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [
        int(child)
        for child in found
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def _alive(pid: int) -> bool:
    link = Path(f"/proc/{pid}/stat")
    try:
        return link.read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
