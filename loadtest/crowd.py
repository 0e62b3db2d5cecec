"""The locustfile of the crowd: `IN_FLIGHT` hands that carry out the errands of one plan.

Started by `loadtest.crowd_run`, which passes what to do in the environment. A Locust user is not a
person here but a hand: it takes the next errand, asks as that person with that person's own token,
writes the answer to the crowd's log, and takes the next. The run ends when the plan is finished.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task
from locust.env import Environment

from loadtest.answers import Answer, AnswerLog, Kind, read_claim_answer, read_log
from loadtest.patience import REQUEST_TIMEOUT_S, wait_before_retry
from loadtest.plan import Errand, Plan, people_of
from loadtest.target import mint_token

ORDERS = "LAISEE_CROWD"  # the environment variable with the crowd's orders
# How long a person keeps asking: longer than any restart we promise. Tests shorten it.
PATIENCE_S = float(os.environ.get("LAISEE_CROWD_PATIENCE_S", "45"))
IDLE_S = 0.02  # a hand without an errand looks again after this


@dataclass(frozen=True, slots=True)
class Orders:
    """What `crowd_run` wants of this process; travels as JSON in one environment variable."""

    packet: str
    kid: str
    secret: str
    run: str
    people: int
    seed: int
    log: str
    again: bool
    only_again: bool

    @classmethod
    def from_environment(cls) -> Orders:
        return cls(**json.loads(os.environ[ORDERS]))


class Crowd:
    """One run's shared state: the plan, the log, and the name of the packet."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        people = people_of(orders.run, orders.people)
        if orders.only_again:
            people = list(dict.fromkeys(answer.user for answer in read_log(Path(orders.log))))
        self.plan = Plan(
            people,
            seed=orders.seed,
            first=not orders.only_again,
            again=orders.again or orders.only_again,
        )
        self.log = AnswerLog(Path(orders.log))
        self.packet_url = f"/api/v1/packets/{orders.packet}"
        self.claim_url = f"{self.packet_url}/claims"
        self.random = random.Random(orders.seed)
        self.sent_home = False

    def headers_for(self, user: str) -> dict[str, str]:
        token = mint_token(user=user, kid=self.orders.kid, secret=self.orders.secret)
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


crowd: Crowd | None = None


@events.init.add_listener
def _take_orders(environment: Environment, **_: Any) -> None:
    global crowd
    crowd = Crowd(Orders.from_environment())
    gevent.spawn(_go_home_with, os.getppid(), environment)


def _go_home_with(parent: int, environment: Environment) -> None:
    """When `crowd_run` is gone, in whatever way, nobody needs the answers any more."""
    while os.getppid() == parent:
        gevent.sleep(1.0)
    if environment.runner is not None:
        environment.runner.quit()


@events.quitting.add_listener
def _close_log(environment: Environment, **_: Any) -> None:
    # Refusals to connect are part of a drill; `crowd_run` judges the log, not Locust's counters.
    environment.process_exit_code = 0
    if crowd is not None:
        crowd.log.close()


class Hand(FastHttpUser):
    """Carries out errands one after the other, over one kept connection."""

    connection_timeout = 5.0
    network_timeout = REQUEST_TIMEOUT_S

    @task
    def carry_out_the_next(self) -> None:
        assert crowd is not None
        errand = crowd.plan.next_errand()
        if errand is None:
            if crowd.plan.finished and not crowd.sent_home:
                crowd.sent_home = True
                # Quitting waits for the hands, this one too, so it runs beside them.
                gevent.spawn(self.environment.runner.quit)
            gevent.sleep(IDLE_S)
            return
        try:
            if errand.view:
                self._view(crowd, errand)
            self._claim_until_answered(crowd, errand)
        finally:
            crowd.plan.done(errand)

    def _view(self, crowd: Crowd, errand: Errand) -> None:
        begun = time.perf_counter()
        with self.client.get(
            crowd.packet_url,
            name="GET packet",
            headers=crowd.headers_for(errand.user),
            catch_response=True,
        ) as response:
            latency_ms = round((time.perf_counter() - begun) * 1000, 2)
            result = "viewed" if response.status_code == 200 else "not_viewed"
            answer = Answer(
                errand.user,
                Kind.VIEW,
                round(time.time(), 4),
                response.status_code,
                result,
                latency_ms,
            )
            response.failure(result) if answer.is_error else response.success()
        crowd.log.write(answer)

    def _claim_until_answered(self, crowd: Crowd, errand: Errand) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        attempt = 1
        while True:
            answer, headers = self._claim(crowd, errand, attempt)
            crowd.log.write(answer)
            if not answer.must_ask_again or time.monotonic() > give_up_at:
                return
            gevent.sleep(wait_before_retry(headers, attempt, crowd.random))
            attempt += 1

    def _claim(
        self, crowd: Crowd, errand: Errand, attempt: int
    ) -> tuple[Answer, Mapping[str, str]]:
        begun = time.perf_counter()
        with self.client.post(
            crowd.claim_url,
            name="POST claims",
            data="{}",
            headers=crowd.headers_for(errand.user),
            catch_response=True,
        ) as response:
            answer = read_claim_answer(
                user=errand.user,
                kind=errand.kind,
                at=time.time(),
                status=response.status_code or 0,
                body=response.content or b"",
                latency_ms=(time.perf_counter() - begun) * 1000,
                attempt=attempt,
            )
            response.failure(answer.result) if answer.is_error else response.success()
        return answer, response.headers or {}
