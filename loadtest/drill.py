"""The locustfile of a drill: an open crowd, whose arrivals don't wait for each other's answers.

Started by `loadtest.drill_run`. Locust's master and workers carry the run; within a worker every
arrival of its people is a greenlet of its own that begins at its scheduled time, whatever became
of the others, and its latency counts from that time. So a server that stands still for two seconds
is seen by everybody who came in those two seconds.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust import User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.answers import Answer, AnswerLog, Kind, read_claim_answer
from loadtest.arrivals import Arrival, Errand, arrivals
from loadtest.patience import REQUEST_TIMEOUT_S, wait_before_retry
from loadtest.profiles import PROFILES
from loadtest.target import mint_token

ORDERS = "LAISEE_DRILL"
CONNECT_TIMEOUT_S = 5.0
# Under way at once in one worker: what a PEAK brings while nothing is answered for some seconds.
# Who comes beyond that isn't sent, and the verdict counts them as arrivals that weren't achieved.
UNDER_WAY = 6_000
BEGIN_IN_S = 2.0  # every worker has made its list of arrivals by then


@dataclass(frozen=True, slots=True)
class Orders:
    """What `drill_run` wants; travels as JSON in one environment variable, it holds a key."""

    profile: str
    length_s: float
    peak_per_s: float
    seed: int
    run: str
    packets: list[str]  # by round
    kid: str
    secret: str
    folder: str
    workers: int
    patience_s: float  # a person asks again for so long where no answer is settled

    @classmethod
    def from_environment(cls) -> Orders:
        return cls(**json.loads(os.environ[ORDERS]))

    def log_file(self, packet: int, worker: int) -> Path:
        return Path(self.folder) / f"answers.{packet}.{worker}.jsonl"


class Stage:
    """One worker's part of the drill."""

    def __init__(self, environment: Environment, worker: int) -> None:
        self.environment = environment
        self.orders = Orders.from_environment()
        self.dice = random.Random(f"{self.orders.seed}:{worker}")
        self.logs = [
            AnswerLog(self.orders.log_file(number, worker))
            for number in range(len(self.orders.packets))
        ]
        self.http = HTTPClient.from_url(
            str(environment.host),
            concurrency=UNDER_WAY,
            connection_timeout=CONNECT_TIMEOUT_S,
            network_timeout=REQUEST_TIMEOUT_S,
        )
        profile = replace(PROFILES[self.orders.profile], length_s=self.orders.length_s)
        self.mine = [
            arrival
            for arrival in arrivals(profile, self.orders.peak_per_s, self.orders.seed)
            if arrival.user % self.orders.workers == worker
        ]
        self.pool = Pool(UNDER_WAY)

    def play(self, begins_at: float) -> None:
        """Send everybody at their time; returns when the last answer is in."""
        for arrival in self.mine:
            due = begins_at + arrival.at_s
            wait_s = due - time.time()
            if wait_s > 0:
                gevent.sleep(wait_s)
            if self.pool.free_count() > 0:
                self.pool.spawn(self._carry_out, arrival, due).link_exception(self._broke)
        self.pool.join(timeout=self.orders.patience_s + REQUEST_TIMEOUT_S)
        for log in self.logs:
            log.close()

    def _broke(self, greenlet: gevent.Greenlet) -> None:
        """A mistake of ours, not of the server: it ends the drill without a verdict."""
        (Path(self.orders.folder) / "broken").write_text(repr(greenlet.exception))

    def _carry_out(self, arrival: Arrival, due: float) -> None:
        user = f"d-{self.orders.run}-{arrival.user:07d}"
        token = mint_token(user=user, kid=self.orders.kid, secret=self.orders.secret)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"/api/v1/packets/{self.orders.packets[arrival.round]}"
        log = self.logs[arrival.round]
        if arrival.errand is Errand.VIEW:
            log.write(self._view(url, user, headers, due))
            return
        attempt, asked_at = 1, due
        while True:
            answer, heard = self._claim(f"{url}/claims", user, headers, asked_at, attempt)
            log.write(answer)
            if not answer.must_ask_again or time.time() > due + self.orders.patience_s:
                return
            gevent.sleep(wait_before_retry(heard, attempt, self.dice))
            attempt, asked_at = attempt + 1, time.time()

    def _view(self, url: str, user: str, headers: Mapping[str, str], due: float) -> Answer:
        sent_at = time.time()
        status, _, _ = self._request("GET", url, headers, "GET packet", due)
        at = time.time()
        result = "viewed" if status == 200 else "not_viewed"
        return Answer(
            user, Kind.VIEW, round(at, 4), status, result, round((at - due) * 1000, 2),
            scheduled_at=round(due, 4), late_ms=round((sent_at - due) * 1000, 2),
        )  # fmt: skip

    def _claim(
        self, url: str, user: str, headers: Mapping[str, str], due: float, attempt: int
    ) -> tuple[Answer, Mapping[str, str]]:
        sent_at = time.time()
        status, body, heard = self._request("POST", url, headers, "POST claims", due)
        at = time.time()
        answer = read_claim_answer(
            user=user,
            kind=Kind.FIRST if attempt == 1 else Kind.REPEAT,
            at=at,
            status=status,
            body=body,
            latency_ms=(at - due) * 1000,
            attempt=attempt,
            scheduled_at=round(due, 4),
            late_ms=(sent_at - due) * 1000,
        )
        return answer, heard

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], name: str, due: float
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """(status, body, headers); status 0: no answer."""
        status, body, heard, failure = 0, b"", {}, None
        try:
            response = self.http.request(
                method, url, body=b"{}" if method == "POST" else b"", headers=dict(headers)
            )
            status, body = response.status_code, bytes(response.read())
            heard = {str(key).title(): str(value) for key, value in response.headers}
            response.release()
        except (OSError, ValueError, RuntimeError, HTTPParseError) as error:
            failure = error
        self.environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type=method,
            name=name,
            response_time=(time.time() - due) * 1000,
            response_length=len(body),
            exception=failure,
            context={},
        )
        return status, body, heard


class Night(User):
    """Locust wants a user for each worker; the arrivals are played beside it."""

    @task
    def look_on(self) -> None:
        gevent.sleep(1.0)


@events.init.add_listener
def _connect(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    if isinstance(runner, WorkerRunner):

        def begin(msg: Any, **_: Any) -> None:
            gevent.spawn(_play, environment, runner, float(msg.data["at"]))

        runner.register_message("begin", begin)
    elif isinstance(runner, MasterRunner):
        done: list[int] = []

        def over(msg: Any, **_: Any) -> None:
            done.append(1)
            if len(done) == Orders.from_environment().workers:
                gevent.spawn(runner.quit)

        runner.register_message("over", over)

        def start(**_: Any) -> None:
            runner.send_message("begin", {"at": time.time() + BEGIN_IN_S})

        environment.events.test_start.add_listener(start)  # type: ignore[no-untyped-call]
    gevent.spawn(_go_home_with, os.getppid(), environment)


def _play(environment: Environment, runner: WorkerRunner, begins_at: float) -> None:
    stage = Stage(environment, runner.worker_index)
    if runner.worker_index == 0:
        (Path(stage.orders.folder) / "begins_at").write_text(f"{begins_at:.4f}\n")
    stage.play(begins_at)
    runner.send_message("over")


def _go_home_with(parent: int, environment: Environment) -> None:
    """When whoever started this is gone, in whatever way, nobody needs the answers any more."""
    while os.getppid() == parent:
        gevent.sleep(1.0)
    if environment.runner is not None:
        environment.runner.quit()


@events.quitting.add_listener
def _no_verdict_here(environment: Environment, **_: Any) -> None:
    # Refusals to connect are part of a drill; the verdict is passed on the logs.
    environment.process_exit_code = 0
