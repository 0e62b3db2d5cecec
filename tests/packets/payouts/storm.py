"""A storm of withdrawals: real workers, real beats, the real web door for callbacks, and a provider
that does everything wrong at once; processes die, the broker forgets, clocks move.

What is decided by chance is decided by the seed: amounts, and which order meets which fault.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import redis
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from engine.lib.crypto import encrypt
from engine.run import services, spawn
from engine.run.paths import CHECKOUT, free_port
from packets import ledger
from packets.ledger import Entry
from packets.models import (
    Account,
    Payout,
    PayoutCall,
    PayoutNumber,
    ProviderAccount,
    Transfer,
)
from packets.payouts import sending, withdrawals
from packets.payouts.numbers import payee_encrypt
from packets.providers.sandbox.books import FIRST_BALANCE_FEN
from packets.providers.sandbox.faults import Fault
from tests.conftest import wait_until
from tests.packets.payouts.stage import provider_account
from tests.packets.providers.sandbox_server import SandboxServer
from tests.world import APP, person

# The ten of them, each for one in twenty; and payouts that fail, so that money comes back too.
RATES = {
    **{
        str(fault): 0.05
        for fault in (
            Fault.TIMEOUT_AFTER_PAYING,
            Fault.ERROR_AFTER_PAYING,
            Fault.PAID_LATE,
            Fault.CALLBACK_FIRST,
            Fault.DUPLICATE_CALLBACKS,
            Fault.FORGED_CALLBACK,
            Fault.NOT_FOUND_FIRST,
            Fault.RATE_LIMITED,
            Fault.UNKNOWN_CODE,
            Fault.OUT_OF_FUNDS,
        )
    },
    str(Fault.FAILED): 0.02,
    str(Fault.CLOSED): 0.02,
}
# How long each lasts. "Not found" outlasts GRACE_S: it is believed, and the order sent again.
SECONDS = {
    str(Fault.TIMEOUT_AFTER_PAYING): 1.2,
    str(Fault.PAID_LATE): 2.0,
    str(Fault.NOT_FOUND_FIRST): 3.0,
    str(Fault.RATE_LIMITED): 0.5,
    str(Fault.OUT_OF_FUNDS): 2.0,
}
GRACE_S = 1
PATIENCE_S = 0.8
LEASE_S = 6.0  # longer than PATIENCE_S by what a busy machine may hold a process back
SCHEDULE_S = "0.5,1,2"
THEN_S = 2.0
PEOPLE = 100
CAMPAIGNS = 5
MAX_FEN = 5_000
CHUNK = 1_000  # rows a statement
ASKED = 20  # one in so many goes through the service that the API calls
# Minutes by which clocks are wrong, in the order of a storm; each process has the next one's.
CLOCKS_S = (300.0, -300.0, 0.0)
THREADS = 6


@dataclass(frozen=True)
class Plan:
    payouts: int
    seed: int = 1
    rates: dict[str, float] = field(default_factory=lambda: dict(RATES))
    seconds: dict[str, float] = field(default_factory=lambda: dict(SECONDS))
    check_numbers: bool = True
    kill_every_s: float = 6.0
    flushes: int = 2
    clocks: bool = True
    beats: int = 2
    web: bool = True  # without it, callbacks find nobody
    lease_s: float = LEASE_S
    patience_s: float = PATIENCE_S
    limit_s: float = 400.0


@dataclass
class Report:
    """What both sides' books say afterwards."""

    seconds: float
    outcomes: Counter[str]
    manual: Counter[str]
    faults: Counter[str]
    ours_paid_fen: int
    theirs_paid_fen: int
    paid_twice: list[str]  # payouts with more than one paid order
    differing: list[str]  # payouts that the provider tells otherwise
    overlapping: list[str]  # numbers with two calls in flight
    calls: int
    kills: int
    flushes: int
    resent: int
    numbers: int
    called_back: int  # times that we wrote down a genuine callback
    redelivered: int  # sweeps that ran more than once
    forged_answers: Counter[int]  # what our door said to forged ones

    def text(self) -> str:
        def line(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {n}" for name, n in sorted(counter.items())) or "none"

        return (
            f"{sum(self.outcomes.values())} withdrawals in {self.seconds:.0f} s;"
            f" {self.kills} kills, {self.flushes} flushes of the broker,"
            f" {self.redelivered} sweeps delivered again\n"
            f"  outcomes: {line(self.outcomes)}; with a person: {line(self.manual)}\n"
            f"  faults met: {line(self.faults)}\n"
            f"  {self.calls} calls, {self.resent} orders sent again, {self.numbers} numbers\n"
            f"  {self.called_back} callbacks taken; forged ones were answered"
            f" {line(Counter({str(k): n for k, n in self.forged_answers.items()}))}\n"
            f"  paid: ours {self.ours_paid_fen} fen, the provider's {self.theirs_paid_fen} fen\n"
            f"  paid twice: {len(self.paid_twice)}; told otherwise: {len(self.differing)};"
            f" two calls at once: {len(self.overlapping)}"
        )


class Storm:
    """`Storm(plan, folder).run()`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.random = random.Random(plan.seed)
        self.sandbox = SandboxServer(folder / "sandbox")
        self.web_port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = self.flushed = 0
        (folder / "run").mkdir(parents=True)
        (folder / "clocks").mkdir()

    def run(self) -> Report:
        with ExitStack() as stack:
            stack.enter_context(self.sandbox)
            stack.callback(self._end)
            control = self.sandbox.provider()
            control.control(
                {
                    "seed": str(self.plan.seed),
                    "rates": self.plan.rates,
                    "seconds": self.plan.seconds,
                    "check_numbers": self.plan.check_numbers,
                }
            )
            account = self._account()
            names = [*(f"payouts{n}" for n in (1, 2)), *self._beats()]
            names += ["web"] if self.plan.web else []
            for name in names:
                self._set_clock(name, 0.0)
                self._start(name)
            wait_until(self._ready, 120, "the processes of the storm")
            began = time.monotonic()
            withdraw(account, self.plan.payouts, self.random)
            self._blow(names)
            seconds = time.monotonic() - began
            self._end()
            wait_until(lambda: not control.control()["orders_open"], 30, "the provider's own end")
            return report(self, control.control_all(), seconds)

    # --- processes ----------------------------------------------------------------------------

    def _beats(self) -> list[str]:
        return [f"beat{n}" for n in range(1, self.plan.beats + 1)]

    def _account(self) -> ProviderAccount:
        credentials = {"secret": self.sandbox.secret, "patience_s": str(self.plan.patience_s)}
        return provider_account(
            "sandbox",
            client_apps=[APP],
            base_url=self.sandbox.url,
            credentials_encrypted=encrypt(json.dumps(credentials).encode()),
            not_found_grace_s=GRACE_S,
        )

    def _start(self, name: str) -> None:
        celery = [sys.executable, "-m", "celery", "-A", "tests.packets.payouts.storm_app"]
        quiet = ["-l", "ERROR"]
        if name == "web":
            command = [sys.executable, "-m", "granian", "--host", "127.0.0.1"]
            command += ["--port", str(self.web_port), "--interface", "wsgi", "--workers", "1"]
            command += ["--blocking-threads", "4", "--log-level", "warning"]
            command += ["tests.packets.payouts.storm_web:application"]
        elif name.startswith("beat"):
            command = [*celery, "beat", "--scheduler", "celery.beat:Scheduler", "--pidfile="]
            command += quiet
        else:
            command = [*celery, "worker", "-n", f"{name}@storm", "-Q", "payout", "-P", "threads"]
            command += ["-c", str(THREADS), "--prefetch-multiplier", "1", "--without-gossip"]
            command += ["--without-mingle", "--without-heartbeat", *quiet]
        self.processes[name] = spawn.start(
            command,
            name=name,
            data_dir=self.folder,
            log=self.folder / f"{name}.log",
            death_signal=signal.SIGKILL,
            environ={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).with_name("moved_clock")),
                "LAISEE_CLOCK_FILE": str(self._clock_file(name)),
                "BASE_URL": f"http://127.0.0.1:{self.web_port}",
                "PAYOUT_QUERY_SCHEDULE_S": SCHEDULE_S,
                "PAYOUT_QUERY_THEN_S": str(THEN_S),
                "PAYOUT_LEASE_S": str(self.plan.lease_s),
                "LOG_LEVEL": "ERROR",
            },
            cwd=CHECKOUT,
        )

    def _ready(self) -> bool:
        celery = [name for name in self.processes if name != "web"]
        ready = all((self.folder / "run" / f"{name}.ready").exists() for name in celery)
        return ready and (not self.plan.web or services.answers(self.web_port, "/healthz"))

    def _kill(self, name: str) -> None:
        process = self.processes.pop(name)
        spawn.group_signal(process.pid, signal.SIGKILL)
        process.wait()

    def _end(self) -> None:
        for name in list(self.processes):
            self._kill(name)
        spawn.kill_strays(self.folder)

    def _clock_file(self, name: str) -> Path:
        return self.folder / "clocks" / name

    def _set_clock(self, name: str, seconds: float) -> None:
        self._clock_file(name).write_text(str(seconds))

    # --- the storm ----------------------------------------------------------------------------

    def _blow(self, names: list[str]) -> None:
        """Until nothing moves by itself any more: kill, flush, move clocks."""
        victims = [name for name in names if name != "web"]
        deadline = time.monotonic() + self.plan.limit_s
        next_kill = time.monotonic() + self.plan.kill_every_s
        steps = self.plan.flushes + 1
        while open_ones := under_way():
            assert time.monotonic() < deadline, f"{open_ones} payouts are still under way"
            done = 1 - open_ones / self.plan.payouts
            if self.flushed < self.plan.flushes and done >= (self.flushed + 1) / steps:
                self._flush()
                self._move_clocks(names)
            if self.plan.kill_every_s and time.monotonic() >= next_kill:
                next_kill = time.monotonic() + self.plan.kill_every_s
                victim = victims[self.kills % len(victims)]
                self._kill(victim)
                self._start(victim)
                self.kills += 1
            time.sleep(0.1)

    def _flush(self) -> None:
        with redis.Redis.from_url(settings.BROKER_URL) as link:
            link.flushdb()
        self.flushed += 1

    def _move_clocks(self, names: list[str]) -> None:
        if self.plan.clocks:
            for number, name in enumerate(names):
                self._set_clock(name, CLOCKS_S[(number + self.flushed) % len(CLOCKS_S)])


def under_way() -> int:
    """Payouts that are neither at their end nor with a person."""
    return Payout.objects.filter(ended_at=None, manual_reason="").count()


def withdraw(account: ProviderAccount, count: int, chance: random.Random) -> None:
    """So many withdrawals: one in ASKED as people make them, the others as that leaves them (their
    money in clearing, due at once), which is quicker.
    """
    amounts = [chance.randint(10, MAX_FEN) for _ in range(count)]
    wallets = [
        ledger.account_get_or_create(
            kind=Account.Kind.WALLET, owner=person(f"storm{n}").participant.hex()
        )
        for n in range(PEOPLE)
    ]
    fill(wallets, count * MAX_FEN)
    clearing = sending.clearing_account(account).pk

    def new_id() -> uuid.UUID:
        return uuid.UUID(int=chance.getrandbits(128), version=4)

    asked = count // ASKED
    with mock.patch.object(Payout._meta.get_field("id"), "_get_default", new_id):
        for n in range(asked):
            withdrawals.payout_create(
                participant=bytes.fromhex(wallets[n % PEOPLE].owner),
                client_app_id=APP,
                amount_fen=amounts[n],
                provider=account.name,
                payee_account=f"payee{n}",
                key=f"storm{n}",
            )
    for start in range(asked, count, CHUNK):
        payouts = [
            Payout(
                id=new_id(),
                account=account,
                wallet=wallets[n % PEOPLE],
                participant=bytes.fromhex(wallets[n % PEOPLE].owner),
                client_app_id=APP,
                share=n % CAMPAIGNS,
                amount_fen=amounts[n],
                payee_encrypted=payee_encrypt(f"payee{n}", "somebody"),
                payee_masked="p***",
                payee_hash=str(n),
                key=f"storm{n}",
                next_attempt_at=Now(),
            )
            for n in range(start, min(start + CHUNK, count))
        ]
        ledger.post(
            [
                Entry(
                    f"payout:{payout.id.hex}",
                    Transfer.Kind.PAYOUT,
                    payout.wallet_id,
                    clearing,
                    payout.amount_fen,
                )
                for payout in payouts
            ]
        )
        Payout.objects.bulk_create(payouts)


def fill(wallets: Iterable[Account], each_fen: int) -> None:
    """Each wallet gets so much, as what comes back of people's packets does."""
    wallets = list(wallets)
    kinds = Transfer.Kind
    campaign = ledger.account_get_or_create(kind=Account.Kind.CAMPAIGN, owner="storm").pk
    escrow = ledger.account_get_or_create(kind=Account.Kind.ESCROW, owner="storm").pk
    total = each_fen * len(wallets)
    outside = ledger.external_account().pk
    ledger.post([Entry("fund:storm", kinds.FUND, outside, campaign, total)])
    ledger.post([Entry("open:storm", kinds.OPEN, campaign, escrow, total)])
    ledger.post(
        [
            Entry(f"close:storm{wallet.pk}", kinds.CLOSE, escrow, wallet.pk, each_fen)
            for wallet in wallets
        ]
    )


# --- both sides' books ----------------------------------------------------------------------------


def report(storm: Storm, theirs: dict[str, Any], seconds: float) -> Report:
    connection.close()
    payout_of = dict(PayoutNumber.objects.values_list("number", "payout_id"))
    paid: dict[uuid.UUID, list[int]] = defaultdict(list)
    for order in theirs["orders"]:
        if order["state"] == "paid":
            paid[payout_of[order["out_number"]]].append(order["amount_fen"])
    differing = []
    outcomes: Counter[str] = Counter()
    manual: Counter[str] = Counter()
    ours_fen = 0
    for payout in Payout.objects.all():
        waits = payout.manual_reason
        outcomes["with a person" if waits else payout.state] += 1
        manual.update([waits] if waits else [])
        ours = [payout.amount_fen] if payout.state == Payout.State.PAID else []
        ours_fen += sum(ours)
        if not waits and ours != paid.get(payout.id, []):
            differing.append(payout.id.hex)
    balance_fen = theirs["balance_fen"]
    theirs_fen = sum(sum(amounts) for amounts in paid.values())
    assert balance_fen == FIRST_BALANCE_FEN - theirs_fen, "the provider's own books"
    calls = theirs["calls"]
    runs = (storm.folder / "runs").read_text().split()
    submits = Counter(call["out_number"] for call in calls if call["operation"] == "submit")
    return Report(
        seconds=seconds,
        outcomes=outcomes,
        manual=manual,
        faults=Counter(call["fault"] for call in calls if call["fault"]),
        ours_paid_fen=ours_fen,
        theirs_paid_fen=theirs_fen,
        paid_twice=[payout.hex for payout, amounts in paid.items() if len(amounts) > 1],
        differing=differing,
        overlapping=overlapping(calls),
        calls=len(calls),
        kills=storm.kills,
        flushes=storm.flushed,
        resent=sum(1 for n in submits.values() if n > 1),
        numbers=len(payout_of),
        redelivered=sum(1 for n in Counter(runs).values() if n > 1),
        called_back=PayoutCall.objects.filter(kind=PayoutCall.Kind.CALLBACK).count(),
        forged_answers=Counter(
            one["status"] for one in theirs["callbacks"] if one["forged"] and one["done"]
        ),
    )


def overlapping(calls: list[dict[str, Any]]) -> list[str]:
    """Numbers that had two calls in flight at one moment."""
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for call in calls:
        spans[call["out_number"]].append((call["started_ns"], call["ended_ns"]))
    found = []
    for number, each in spans.items():
        each.sort()
        if any(later[0] < earlier[1] for earlier, later in itertools.pairwise(each)):
            found.append(number)
    return found
