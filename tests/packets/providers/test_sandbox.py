"""The sandbox as providers are: its adapter keeps the contract, its server keeps its books."""

from __future__ import annotations

import datetime as dt
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.lib.outgoing import Limits
from engine.run.paths import CHECKOUT
from packets.providers.base import (
    BadCallback,
    CredentialsMissing,
    Kind,
    Order,
    ProviderUnavailable,
)
from packets.providers.sandbox import faults, statements
from packets.providers.sandbox.adapter import SandboxProvider
from packets.providers.sandbox.faults import Fault, Settings, StatementFault
from tests.conftest import wait_until
from tests.packets.providers.contract import Behaviour, ProviderContract, Stand, order
from tests.packets.providers.sandbox_server import Receiver, SandboxServer

PAYEES = {
    Behaviour.PAID: "ok",
    Behaviour.ACCEPTED: "fault:paid_late:3600",
    Behaviour.FAILED: "fault:failed",
    Behaviour.USER_ACTION: "fault:user_action",
    Behaviour.TIMEOUT: "fault:timeout_after_paying",
    Behaviour.SERVER_ERROR: "fault:error_after_paying",
    Behaviour.UNKNOWN_CODE: "fault:unknown_code",
    Behaviour.MALFORMED: "fault:malformed_body",
    Behaviour.HUGE: "fault:huge_body",
    Behaviour.REDIRECT: "fault:redirect",
    Behaviour.OUT_OF_FUNDS: "fault:out_of_funds",
    Behaviour.RATE_LIMITED: "fault:rate_limited",
    Behaviour.WRONG_AMOUNT: "fault:wrong_amount",
}


class SandboxStand:
    def __init__(self, server: SandboxServer, receiver: Receiver) -> None:
        self.server = server
        self.receiver = receiver
        self.notify_url = receiver.url
        self.provider: SandboxProvider = server.provider()

    def payee(self, behaviour: Behaviour) -> str:
        return PAYEES[behaviour]

    def bodies(self, out_number: str) -> list[bytes]:
        """The log keeps hashes of what came: equal ones are equal bodies."""
        calls = reversed(self.provider.control_all()["calls"])
        return [
            call["body_hash"].encode()
            for call in calls
            if call["out_number"] == out_number and call["operation"] == "submit"
        ]

    def finish(self, out_number: str) -> None:
        self.provider.confirm(out_number)

    def callback(self, out_number: str) -> tuple[dict[str, str], bytes]:
        wait_until(lambda: self.receiver.about(out_number), what="the callback")
        one = self.receiver.about(out_number)[0]
        return one.headers, one.raw

    def day(self) -> dt.date:
        return dt.datetime.now(statements.ZONE).date()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    with SandboxServer(tmp_path_factory.mktemp("sandbox")) as made:
        yield made


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def sandbox(server: SandboxServer, receiver: Receiver) -> Iterator[SandboxStand]:
    yield SandboxStand(server, receiver)
    receiver.status = 200
    SandboxStand(server, receiver).provider.control(
        {"rates": {}, "seconds": {}, "settle_s": 0, "check_numbers": True, "seed": "sandbox"}
    )


class TestSandbox(ProviderContract):
    @pytest.fixture
    def stand(self, sandbox: SandboxStand) -> Stand:
        return sandbox


def send(stand: SandboxStand, payee: str, **changes: object) -> tuple[Order, bytes]:
    made = order(stand, Behaviour.PAID, payee_account=payee, **changes)
    return made, stand.provider.request(made)


# --- faults that only the sandbox has to know -------------------------------------------------


def test_an_order_may_be_unknown_for_a_while_and_then_paid(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:not_found_first:3600")
    assert sandbox.provider.submit(made.out_number, request).kind is Kind.UNKNOWN
    assert sandbox.provider.query(made.out_number).not_found
    assert sandbox.provider.submit(made.out_number, request).kind is Kind.ACCEPTED, "the first one"
    (known,) = [
        one
        for one in sandbox.provider.control_all()["orders"]
        if one["out_number"] == made.out_number
    ]
    assert known["state"] == "accepted"


def test_without_the_check_of_numbers_a_repeat_is_paid_again(sandbox: SandboxStand) -> None:
    sandbox.provider.control({"check_numbers": False})
    made, request = send(sandbox, "ok")
    refs = {sandbox.provider.submit(made.out_number, request).provider_ref for _ in range(2)}
    assert len(refs) == 2
    lines = list(sandbox.provider.statement(sandbox.day()))
    assert len([line for line in lines if line.out_number == made.out_number]) == 2


def test_a_callback_can_arrive_before_the_answer(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:callback_first")
    sandbox.provider.submit(made.out_number, request)
    # No waiting here: it was there before the answer.
    assert len(sandbox.receiver.about(made.out_number)) == 1


def test_duplicates_of_a_callback_are_one_event(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:duplicate_callbacks")
    sandbox.provider.submit(made.out_number, request)
    wait_until(lambda: len(sandbox.receiver.about(made.out_number)) == 3)
    events = {
        sandbox.provider.parse_callback(one.headers, one.raw).event_id
        for one in sandbox.receiver.about(made.out_number)
    }
    assert len(events) == 1


def test_a_forged_callback_is_refused(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:forged_callback")
    sandbox.provider.submit(made.out_number, request)
    wait_until(lambda: len(sandbox.receiver.about(made.out_number)) == 2)
    verdicts = []
    for one in sandbox.receiver.about(made.out_number):
        try:
            sandbox.provider.parse_callback(one.headers, one.raw)
            verdicts.append(True)
        except BadCallback:
            verdicts.append(False)
    assert sorted(verdicts) == [False, True]


def test_a_late_callback_is_followed_by_older_news(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:callback_late:0.2")
    sandbox.provider.submit(made.out_number, request)
    assert not sandbox.receiver.about(made.out_number)
    wait_until(lambda: len(sandbox.receiver.about(made.out_number)) == 2)
    states = {json.loads(one.raw)["state"] for one in sandbox.receiver.about(made.out_number)}
    assert states == {"accepted", "paid"}


def test_a_callback_that_was_not_taken_comes_again(sandbox: SandboxStand) -> None:
    sandbox.receiver.status = 503
    made, request = send(sandbox, "ok")
    sandbox.provider.submit(made.out_number, request)
    wait_until(lambda: sandbox.receiver.about(made.out_number))
    sandbox.receiver.status = 200
    wait_until(lambda: len(sandbox.receiver.about(made.out_number)) == 2)


def test_a_number_that_is_closed_may_be_followed_by_another(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:closed")
    said = sandbox.provider.submit(made.out_number, request)
    assert (said.kind, said.retry_new) == (Kind.FAILED_FINAL, True)


def test_a_refused_question_says_nothing_of_the_order(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "ok")
    sandbox.provider.submit(made.out_number, request)
    for fault in faults.CALL_FAULTS:
        sandbox.provider.control({"rates": {str(fault): 1.0}})
        told = sandbox.provider.query(made.out_number)
        assert (told.kind, told.not_found) == (Kind.UNKNOWN, False)
        assert told.rate_limited == (fault is Fault.RATE_LIMITED)


def test_an_empty_account_pays_nobody(sandbox: SandboxStand) -> None:
    before = sandbox.provider.balance()
    sandbox.provider.control({"balance_fen": 100})
    made, request = send(sandbox, "ok", amount_fen=101)
    assert sandbox.provider.submit(made.out_number, request).out_of_funds
    assert sandbox.provider.balance() == 100
    sandbox.provider.control({"balance_fen": before})
    assert sandbox.provider.submit(made.out_number, request).kind is Kind.PAID


def test_by_its_rate_the_whole_account_is_out_of_funds_for_a_while(sandbox: SandboxStand) -> None:
    first, request = send(sandbox, "ok")
    sandbox.provider.submit(first.out_number, request)
    sandbox.provider.control({"rates": {"out_of_funds": 1.0}, "seconds": {"out_of_funds": 0.5}})
    made, its_request = send(sandbox, "ok")
    said = sandbox.provider.submit(made.out_number, its_request)
    assert (said.out_of_funds, said.retry_after_s) == (True, 1.0)
    sandbox.provider.control({"rates": {}})
    other, others_request = send(sandbox, "ok")
    assert sandbox.provider.submit(other.out_number, others_request).out_of_funds
    assert sandbox.provider.submit(first.out_number, request).kind is Kind.PAID, "paid before"
    wait_until(
        lambda: sandbox.provider.submit(made.out_number, its_request).kind is Kind.PAID,
        what="money again",
    )


@pytest.mark.parametrize("amount_fen", [20_000_001, 0, -1])
def test_an_amount_outside_its_limits_is_refused_for_good(
    sandbox: SandboxStand, amount_fen: int
) -> None:
    made, request = send(sandbox, "ok", amount_fen=amount_fen)
    said = sandbox.provider.submit(made.out_number, request)
    assert (said.kind, said.code) == (Kind.FAILED_FINAL, "AMOUNT_OUT_OF_RANGE")
    assert sandbox.provider.query(made.out_number).not_found


@pytest.mark.parametrize("fault", StatementFault)
def test_each_lie_of_a_statement_can_be_told(sandbox: SandboxStand, fault: StatementFault) -> None:
    made, request = send(sandbox, "ok")
    sandbox.provider.submit(made.out_number, request)
    sandbox.provider.control({"rates": {str(fault): 1.0}})
    everything = list(sandbox.provider.statement(sandbox.day()))
    mine = [line for line in everything if line.out_number == made.out_number]
    found = [(line.amount_fen, str(line.state)) for line in mine]
    match fault:
        case StatementFault.LOST:
            assert found == []
        case StatementFault.INVENTED:
            assert found == [(1_234, "paid")]
            assert any(line.out_number.startswith(statements.INVENTED) for line in everything)
        case StatementFault.AMOUNT:
            assert found == [(1_235, "paid")]
        case StatementFault.STATE:
            assert found == [(1_234, "failed")]
        case StatementFault.DUPLICATE:
            assert found == [(1_234, "paid")] * 2


# --- the server ----------------------------------------------------------------------------------


def test_whoever_lacks_the_secret_is_refused_and_changes_nothing(sandbox: SandboxStand) -> None:
    stranger = sandbox.server.provider(secret="somebody else's secret")
    made, request = send(sandbox, "ok")
    assert stranger.submit(made.out_number, request).code == "SIGN_ERROR"
    with pytest.raises(ProviderUnavailable):
        stranger.control({"balance_fen": 0})
    with pytest.raises(ProviderUnavailable):
        stranger.balance()
    assert sandbox.provider.query(made.out_number).not_found
    assert sandbox.provider.balance() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": {"no_such_fault": 0.1}},
        {"rates": {"failed": 1.1}},
        {"rates": {"failed": 0.6, "closed": 0.6}},
        {"seconds": {"failed": 1}},
        {"settle_s": -1},
        {"balance_fen": True},
        {"nonsense": 1},
        [],
    ],
)
def test_the_control_refuses_what_cannot_be_meant(sandbox: SandboxStand, changes: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError):
        sandbox.provider.control(changes)


def test_the_server_knows_nothing_of_django_or_of_our_models() -> None:
    said = "import sys, packets.providers.sandbox.server as _; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", said], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    rooms = {name.split(".")[0] for name in done.stdout.split()}
    assert "packets" in rooms
    assert not rooms & {"django", "celery", "psycopg", "campaign"}
    assert "packets.models" not in done.stdout


def test_each_call_is_in_the_log_from_its_start_to_its_end(sandbox: SandboxStand) -> None:
    made, request = send(sandbox, "fault:slow_answer:0.3")
    sandbox.provider.submit(made.out_number, request)
    sandbox.provider.query(made.out_number)
    asked, sent = sandbox.provider.control()["calls"][:2]
    assert (sent["operation"], sent["status"], sent["fault"]) == ("submit", 200, "slow_answer")
    assert sent["ended_ns"] - sent["started_ns"] >= 250_000_000
    assert asked["started_ns"] >= sent["ended_ns"]


def test_a_call_whose_caller_left_ends_when_it_left(sandbox: SandboxStand) -> None:
    hasty = sandbox.server.provider(patience_s="0.2")
    made, request = send(sandbox, "fault:timeout_after_paying")
    assert hasty.submit(made.out_number, request).code == "timeout"
    wait_until(lambda: sandbox.provider.control()["calls"][0]["ended_ns"] is not None)
    assert sandbox.provider.control()["calls"][0]["status"] == 0


def test_a_killed_server_forgets_nothing(tmp_path: Path, receiver: Receiver) -> None:
    with SandboxServer(tmp_path) as server:
        stand = SandboxStand(server, receiver)
        receiver.status = 503
        made, request = send(stand, "ok")
        first = stand.provider.submit(made.out_number, request)
        wait_until(lambda: receiver.about(made.out_number))
        server.kill()
        assert stand.provider.query(made.out_number).code == "connect"
        receiver.status = 200
        server.start()
        assert stand.provider.submit(made.out_number, request) == first
        heard = len(receiver.about(made.out_number))
        wait_until(lambda: len(receiver.about(made.out_number)) > heard, what="the callback again")
        calls = stand.provider.control()["calls"]
        assert len([call for call in calls if call["operation"] == "submit"]) == 2


def test_a_server_that_drips_bytes_holds_no_call_for_longer_than_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(65_536)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    while True:
                        line.sendall(b"x")
                        time.sleep(0.05)
                except OSError:
                    return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        provider = SandboxProvider(url, {"secret": "0123456789abcdef"})
        monkeypatch.setattr(provider, "_limits", Limits(call_s=0.5))
        started = time.monotonic()
        assert provider.query(uuid.uuid4().hex).code == "timeout"
        assert 0.5 <= time.monotonic() - started < 10
        dripping.join(10)


def test_credentials_that_cannot_work_are_named() -> None:
    for url, credentials, field in (
        ("http://a", {}, "secret"),
        ("http://a", {"secret": "short"}, "secret"),
        ("http://a", {"secret": "x" * 16, "nonsense": "1"}, "nonsense"),
        ("ftp://a", {"secret": "x" * 16}, "base_url"),
        ("http://u:p@a", {"secret": "x" * 16}, "base_url"),
        ("http://a", {"secret": "x" * 16, "patience_s": "0"}, "patience_s"),
        ("http://a", {"secret": "x" * 16, "patience_s": "11"}, "patience_s"),
    ):
        with pytest.raises(CredentialsMissing) as refused:
            SandboxProvider(url, credentials)
        assert refused.value.field == field


# --- decisions ----------------------------------------------------------------------------------


def test_a_seed_decides_alone_and_rates_are_kept() -> None:
    rates = {"failed": 0.05, "rate_limited": 0.05}
    numbers = [f"{n:032x}" for n in range(10_000)]
    settings = Settings(seed="a", rates=rates)
    met = [faults.of_order(settings, number, "ok").fault for number in numbers]
    assert met == [faults.of_order(settings, number, "ok").fault for number in numbers]
    counts = Counter(met)
    assert set(counts) == {None, Fault.FAILED, Fault.RATE_LIMITED}
    assert all(400 < counts[fault] < 600 for fault in (Fault.FAILED, Fault.RATE_LIMITED))
    other = Settings(seed="b", rates=rates)
    assert met != [faults.of_order(other, number, "ok").fault for number in numbers]


@pytest.mark.parametrize(
    "payee, fault, seconds",
    [
        ("fault:paid_late", Fault.PAID_LATE, 20.0),
        ("fault:paid_late:3", Fault.PAID_LATE, 3.0),
        ("fault:paid_late:nan", Fault.PAID_LATE, 20.0),
        ("fault:paid_late:-1", Fault.PAID_LATE, 20.0),
        ("fault:nothing", None, 0.0),
        ("alice", None, 0.0),
    ],
)
def test_a_payee_account_asks_for_its_fault(
    payee: str, fault: Fault | None, seconds: float
) -> None:
    decision = faults.of_order(Settings(), "1", payee)
    assert (decision.fault, decision.seconds) == (fault, seconds)
