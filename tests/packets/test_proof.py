"""The revealed record of an honest packet holds, and whatever is altered in it shows."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from packets import proof, splitting
from packets.proof import Fault
from packets.splitting import MAX_AMOUNT_FEN, Rules, Strategy, Tier

PACKET = "0123456789abcdef0123456789abcdef"
SEED = bytes(range(16))
BEACON = bytes(range(100, 116))

LUCKY = Rules(Strategy.LUCKY, 100_000, 120, min_fen=50, max_fen=3_000)
PRIZES = Rules(Strategy.TIERS, 90_000, 60, tiers=(Tier(20_000, 1), Tier(1_000, 10)))


def revealed(rules: Rules, lane_count: int = 3, *, seed: int = 1) -> dict[str, Any]:
    """A packet's life: lanes lose Redis, reservations are never committed, the rest is claimed."""
    rng = random.Random(seed)
    rules = splitting.effective(rules)
    shares = splitting.lanes(rules, lane_count, SEED)
    stream = proof.stream_seed(SEED, BEACON)
    canonical = proof.canonical_rules(PACKET, rules, shares, "CNY")
    lanes, claims = [], []
    for number, share in enumerate(shares):
        left_fen, left_count, tiers_left = share.total_fen, share.count, list(share.tiers)
        epochs = []
        for epoch in (1, 2, 5):  # An epoch's number may be skipped: an attempt that failed.
            epochs.append(
                {
                    "epoch": epoch,
                    "left_fen": left_fen,
                    "left_count": left_count,
                    "tiers_left": list(tiers_left),
                    "cause": "open" if epoch == 1 else "rebuild",
                    "opened_at": "2026-02-16T20:00:00Z",
                }
            )
            key = proof.lane_key(stream, PACKET, number, epoch)
            walk = splitting.portions(rules, key, left_fen, left_count, tiers_left)
            served = rng.randint(min(4, left_count), (left_count + 1) // 2 + 2)
            for index, portion in zip(range(served), walk, strict=False):
                if rng.random() < 0.2:
                    continue  # Reserved, never committed: a gap.
                claims.append(
                    {
                        "lane": number,
                        "epoch": epoch,
                        "index": index,
                        "amount_fen": portion.amount_fen,
                        "tier": portion.tier,
                    }
                )
                left_fen -= portion.amount_fen
                left_count -= 1
                if portion.tier:
                    tiers_left[portion.tier - 1] -= 1
        lanes.append(
            {
                "lane": number,
                "total_fen": share.total_fen,
                "count": share.count,
                "tiers": list(share.tiers),
                "epochs": epochs,
            }
        )
    rng.shuffle(claims)
    return {
        "packet": PACKET,
        "rules": proof.rules_json(rules, "CNY"),
        "canonical": canonical,
        "commitment": proof.commitment(SEED, canonical),
        "seed": SEED.hex(),
        "beacon": BEACON.hex(),
        "beacon_commitment": hashlib.sha256(BEACON).hexdigest(),
        "lanes": lanes,
        "claims": claims,
    }


def faults(record: dict[str, Any]) -> list[Fault]:
    return [mismatch.fault for mismatch in proof.recompute(record)]


@pytest.mark.parametrize("strategy", [Strategy.FIXED, Strategy.LUCKY, Strategy.DOUBLE_MEAN])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_honest_packet_holds_with_gaps_and_new_epochs(strategy: Strategy, seed: int) -> None:
    for rules in (
        Rules(strategy, 100_000, 120, min_fen=50, max_fen=3_000),
        Rules(strategy, 100_000, 120, max_fen=900),
        Rules(Strategy.TIERS, 90_000, 60, tiers=PRIZES.tiers, remainder=strategy),
        Rules(strategy, MAX_AMOUNT_FEN, 100),
    ):
        record = revealed(rules, seed=seed)
        assert len(record["claims"]) > 20
        assert proof.recompute(record) == []
        assert proof.recompute(json.loads(json.dumps(record))) == []


def test_the_canonical_text_the_commitment_and_the_keys_are_pinned() -> None:
    """Whoever writes another verifier starts from these."""
    rules = Rules(Strategy.LUCKY, 1_000, 10)
    canonical = proof.canonical_rules(PACKET, rules, splitting.lanes(rules, 2), "CNY")
    assert canonical == (
        '{"count":10,"currency":"CNY","evenness":2,"lanes":[[500,5,[]],[500,5,[]]],'
        '"max_fen":null,"min_fen":1,"packet":"0123456789abcdef0123456789abcdef",'
        '"remainder":"lucky","strategy":"lucky","tiers":[],"total_fen":1000}'
    )
    assert (
        proof.commitment(SEED, canonical) == hashlib.sha256(SEED + canonical.encode()).hexdigest()
    )
    stream = proof.stream_seed(SEED, BEACON)
    assert stream == hmac.digest(SEED, BEACON, "sha256")
    assert proof.lane_key(stream, PACKET, 3, 7) == (
        hmac.digest(stream, f"{PACKET}:3:7".encode(), "sha256").hex()
    )


def test_every_lane_and_every_epoch_has_its_own_key_and_its_own_portions() -> None:
    """Control: the packet's stream alone as a key would give all lanes the same portions."""
    stream = proof.stream_seed(SEED, BEACON)
    keys = {proof.lane_key(stream, PACKET, lane, e) for lane in range(50) for e in range(1, 20)}
    assert len(keys) == 950
    other = proof.stream_seed(SEED, BEACON[::-1])
    assert proof.lane_key(other, PACKET, 0, 1) != proof.lane_key(stream, PACKET, 0, 1)

    def walk(key: str) -> list[int]:
        cut = splitting.portions(Rules(Strategy.LUCKY, 10_000, 100), key, 10_000, 100, ())
        return [portion.amount_fen for portion in cut]

    places = [(0, 1), (1, 1), (0, 2)]
    walks = [walk(proof.lane_key(stream, PACKET, *place)) for place in places]
    assert walks[0] != walks[1]
    assert walks[0] != walks[2]
    assert walk(stream.hex()) == walk(stream.hex())


Alteration = Callable[[dict[str, Any]], None]


def _raise_a_win(record: dict[str, Any]) -> None:
    record["claims"][0]["amount_fen"] += 1


def _swap_two_amounts(record: dict[str, Any]) -> None:
    """The epoch's sum stays right: only the recomputation can see it."""
    first = record["claims"][0]
    other = next(
        claim
        for claim in record["claims"]
        if (claim["lane"], claim["epoch"]) == (first["lane"], first["epoch"])
        and claim["amount_fen"] != first["amount_fen"]
    )
    first["amount_fen"], other["amount_fen"] = other["amount_fen"], first["amount_fen"]


def _last_epoch_claim(record: dict[str, Any]) -> dict[str, Any]:
    """A claim of a lane's last epoch: nothing later depends on it."""
    return next(claim for claim in record["claims"] if claim["epoch"] == 5)


def _raise_a_last_win(record: dict[str, Any]) -> None:
    _last_epoch_claim(record)["amount_fen"] += 1


def _drop_a_claim(record: dict[str, Any]) -> None:
    record["claims"].remove(next(c for c in record["claims"] if c["epoch"] == 1))


def _give_a_portion_twice(record: dict[str, Any]) -> None:
    record["claims"].append(dict(_last_epoch_claim(record)))


def _invent_a_claim(record: dict[str, Any]) -> None:
    record["claims"].append({"lane": 0, "epoch": 5, "index": 10_000, "amount_fen": 1, "tier": 0})


def _invent_a_lane(record: dict[str, Any]) -> None:
    record["claims"].append({"lane": 9, "epoch": 1, "index": 0, "amount_fen": 1, "tier": 0})


def _other_seed(record: dict[str, Any]) -> None:
    record["seed"] = SEED[::-1].hex()


def _other_beacon(record: dict[str, Any]) -> None:
    record["beacon"] = BEACON[::-1].hex()


def _other_beacon_with_its_hash(record: dict[str, Any]) -> None:
    record["beacon"] = BEACON[::-1].hex()
    record["beacon_commitment"] = hashlib.sha256(BEACON[::-1]).hexdigest()


def _other_evenness(record: dict[str, Any]) -> None:
    record["rules"]["evenness"] = 16


def _other_evenness_in_both(record: dict[str, Any]) -> None:
    """Rules and canonical text agree with each other: the commitment still knows."""
    record["rules"]["evenness"] = 16
    canonical = json.loads(record["canonical"]) | {"evenness": 16}
    record["canonical"] = json.dumps(canonical, sort_keys=True, separators=(",", ":"))


def _richer_lane(record: dict[str, Any]) -> None:
    record["lanes"][0]["total_fen"] += 10
    record["lanes"][1]["total_fen"] -= 10


def _epoch_begins_poorer(record: dict[str, Any]) -> None:
    record["lanes"][2]["epochs"][2]["left_fen"] -= 500


def _hide_an_epoch(record: dict[str, Any]) -> None:
    del record["lanes"][0]["epochs"][1]


def _epoch_twice(record: dict[str, Any]) -> None:
    record["lanes"][0]["epochs"][2]["epoch"] = 2


@pytest.mark.parametrize(
    ("alter", "fault", "only"),
    [
        (_raise_a_win, Fault.AMOUNT_DIFFERS, False),
        (_raise_a_last_win, Fault.AMOUNT_DIFFERS, True),
        (_swap_two_amounts, Fault.AMOUNT_DIFFERS, False),
        (_drop_a_claim, Fault.EPOCH_START_DIFFERS, False),
        (_give_a_portion_twice, Fault.CLAIM_REPEATED, True),
        (_invent_a_claim, Fault.CLAIM_UNPLACED, True),
        (_invent_a_lane, Fault.CLAIM_UNPLACED, True),
        (_other_seed, Fault.COMMITMENT_DIFFERS, False),
        (_other_beacon, Fault.BEACON_DIFFERS, False),
        (_other_beacon_with_its_hash, Fault.AMOUNT_DIFFERS, False),
        (_other_evenness, Fault.RULES_DIFFER, False),
        (_other_evenness_in_both, Fault.COMMITMENT_DIFFERS, False),
        (_richer_lane, Fault.RULES_DIFFER, False),
        (_epoch_begins_poorer, Fault.EPOCH_START_DIFFERS, False),
        (_hide_an_epoch, Fault.CLAIM_UNPLACED, False),
        (_epoch_twice, Fault.EPOCH_START_DIFFERS, False),
    ],
)
def test_every_alteration_shows(alter: Alteration, fault: Fault, only: bool) -> None:
    honest = revealed(LUCKY)
    assert proof.recompute(honest) == []
    altered = copy.deepcopy(honest)
    alter(altered)
    assert fault in faults(altered)
    if only:
        assert faults(altered) == [fault]


def test_a_mismatch_says_where_it_is_and_what_was_expected() -> None:
    record = revealed(LUCKY)
    claim = _last_epoch_claim(record)
    right_fen = claim["amount_fen"]
    claim["amount_fen"] += 7
    assert proof.recompute(record) == [
        proof.Mismatch(
            Fault.AMOUNT_DIFFERS,
            f"The portion is {right_fen} fen, not {right_fen + 7}.",
            claim["lane"],
            5,
            claim["index"],
        )
    ]


def test_a_prize_moved_to_a_friend_shows() -> None:
    record = revealed(PRIZES, 2)
    assert proof.recompute(record) == []
    winner = next(claim for claim in record["claims"] if claim["tier"] == 2)
    friend = next(
        claim
        for claim in record["claims"]
        if claim["tier"] == 0
        and (claim["lane"], claim["epoch"]) == (winner["lane"], winner["epoch"])
    )
    for field in ("amount_fen", "tier"):
        winner[field], friend[field] = friend[field], winner[field]
    found = proof.recompute(record)
    assert {mismatch.fault for mismatch in found} == {Fault.TIER_DIFFERS, Fault.AMOUNT_DIFFERS}
    assert {mismatch.index for mismatch in found} == {winner["index"], friend["index"]}


def test_lanes_that_do_not_make_up_the_packet_show() -> None:
    record = revealed(LUCKY)
    record["lanes"] = record["lanes"][:2]
    record["claims"] = [claim for claim in record["claims"] if claim["lane"] < 2]
    assert faults(record) == [Fault.RULES_DIFFER, Fault.LANES_DIFFER]
    record = revealed(LUCKY)
    record["lanes"][2]["lane"] = 7
    assert Fault.LANES_DIFFER in faults(record)


def test_an_epoch_that_could_not_be_cut_shows() -> None:
    record = revealed(LUCKY)
    record["lanes"][0]["epochs"][2]["left_fen"] = 3
    assert Fault.EPOCH_INFEASIBLE in faults(record)


def test_a_record_of_another_mathematics_library_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every power one unit up, at the edge of what doubles hold; then one fen beyond the slack."""
    honest = splitting.draws

    class Foreign(float):
        def __pow__(self, exponent: float) -> float:  # type: ignore[override]
            return math.nextafter(float(self) ** exponent, 2.0)

    rules = Rules(Strategy.LUCKY, MAX_AMOUNT_FEN, 30)
    with monkeypatch.context() as patch:
        patch.setattr(splitting, "draws", lambda k, i, n: list(map(Foreign, honest(k, i, n))))
        foreign = _uninterrupted(rules)
    here = _uninterrupted(rules)
    assert foreign["claims"] != here["claims"]
    assert proof.recompute(foreign) == []
    slack_fen = math.ceil(2 * MAX_AMOUNT_FEN * splitting.POWER_TOLERANCE) + 1
    foreign["claims"][0]["amount_fen"] += 2 * slack_fen
    assert Fault.AMOUNT_DIFFERS in faults(foreign)


def _uninterrupted(rules: Rules) -> dict[str, Any]:
    """One lane, one epoch, every portion claimed."""
    share = splitting.lanes(rules, 1)
    canonical = proof.canonical_rules(PACKET, rules, share, "CNY")
    key = proof.lane_key(proof.stream_seed(SEED, BEACON), PACKET, 0, 1)
    cut = splitting.portions(rules, key, rules.total_fen, rules.count, ())
    start = {"epoch": 1, "left_fen": rules.total_fen, "left_count": rules.count, "tiers_left": []}
    return {
        "packet": PACKET,
        "rules": proof.rules_json(rules, "CNY"),
        "canonical": canonical,
        "commitment": proof.commitment(SEED, canonical),
        "seed": SEED.hex(),
        "beacon": BEACON.hex(),
        "beacon_commitment": hashlib.sha256(BEACON).hexdigest(),
        "lanes": [
            {
                "lane": 0,
                "total_fen": rules.total_fen,
                "count": rules.count,
                "tiers": [],
                "epochs": [start],
            }
        ],
        "claims": [
            {"lane": 0, "epoch": 1, "index": i, "amount_fen": p.amount_fen, "tier": 0}
            for i, p in enumerate(cut)
        ],
    }


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("seed", None, Fault.NOT_REVEALED),
        ("beacon", None, Fault.NOT_REVEALED),
        ("seed", "not hex", Fault.MALFORMED),
        ("claims", [{"lane": 0}], Fault.MALFORMED),
        ("claims", "none", Fault.MALFORMED),
        ("lanes", [{"lane": -1}], Fault.MALFORMED),
        ("rules", {}, Fault.MALFORMED),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_in_words(
    field: str, value: object, fault: Fault
) -> None:
    record = revealed(LUCKY)
    record[field] = value
    assert faults(record) == [fault]
    del record[field]
    assert faults(record) == [Fault.MALFORMED]


def test_rules_that_cannot_be_honoured_and_missing_quantities_are_refused() -> None:
    record = revealed(LUCKY)
    record["rules"]["total_fen"] = 5
    assert faults(record) == [Fault.RULES_INVALID]
    record = revealed(PRIZES)
    record["lanes"][0]["tiers"] = []
    assert faults(record) == [Fault.MALFORMED]
