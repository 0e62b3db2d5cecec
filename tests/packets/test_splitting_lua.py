"""The Lua twin inside a real server gives the portions of the Python reference, to the fen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from packets import splitting
from packets.splitting import (
    EVENNESS_CHOICES,
    MAX_AMOUNT_FEN,
    MAX_LANE_COUNT,
    Portion,
    Rules,
    State,
    Strategy,
    Tier,
)
from tests.packets.shapes import FRAGMENT, generated, lua_m, lua_walk, whole

# Cases per EVAL: enough to be quick, few enough that a script stays short.
BATCH = 100


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    yield client
    client.close()


def python_walk(rules: Rules, state: State, key: str, steps: int) -> list[Portion]:
    found = []
    for _ in range(steps):
        portion, state = splitting.portion(rules, state, key)
        found.append(portion)
    return found


def assert_twins_agree(server: redis.Redis, cases: list[tuple[Rules, State, str, int]]) -> None:
    for at in range(0, len(cases), BATCH):
        batch = cases[at : at + BATCH]
        for case, found in zip(batch, lua_walk(server, batch), strict=True):
            assert found == python_walk(*case), case[:3]


def test_both_twins_cut_thousands_of_packets_alike(server: redis.Redis) -> None:
    """6,480 packets: every strategy and family, evenness 1 to 32, tiers with every remainder."""
    cases = [
        (rules, whole(rules), name, rules.count) for name, rules in generated(each=180, seed=6)
    ]
    assert len(cases) == 6_480
    assert {rules.evenness for rules, *_ in cases} == set(EVENNESS_CHOICES)
    assert {rules.remainder for rules, *_ in cases if rules.tiers} == {
        Strategy.FIXED,
        Strategy.LUCKY,
        Strategy.DOUBLE_MEAN,
    }
    complement = [
        r for r, s, *_ in cases if splitting.cuts_complement(r, s.start_fen, s.start_count)
    ]
    assert len(complement) > 500
    assert_twins_agree(server, cases)


@pytest.mark.parametrize("digit", ["0", "f"])
def test_both_twins_agree_on_the_smallest_and_the_largest_draw(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch, digit: str
) -> None:
    """U = 2^-53 and U = 1 - 2^-53, where rounding is worst."""
    draw = int(digit * 13, 16)
    monkeypatch.setattr(splitting, "draw_integers", lambda key, index, n: [draw] * n)
    forced = f"local redis = {{ sha1hex = function() return string.rep('{digit}', 40) end }}\n"
    for name, rules in generated(each=10, seed=7):
        case = rules, whole(rules), name, rules.count
        assert lua_walk(server, [case], forced) == [python_walk(*case)], name


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("total_fen", [MAX_AMOUNT_FEN, 10**12 + 7, MAX_LANE_COUNT * 3 + 1])
def test_both_twins_agree_in_the_largest_lanes_wherever_they_stand(
    server: redis.Redis, strategy: Strategy, total_fen: int
) -> None:
    """94,906,265 portions: the first ones, and windows deep inside the lane and at its end."""
    tiers = (Tier(2, 1_000_000), Tier(1, 5_000)) if strategy is Strategy.TIERS else ()
    cases: list[tuple[Rules, State, str, int]] = []
    for max_fen in (None, min(MAX_AMOUNT_FEN, total_fen // MAX_LANE_COUNT * 11 // 10 + 2)):
        rules = splitting.effective(
            Rules(strategy, total_fen, MAX_LANE_COUNT, max_fen=max_fen, tiers=tiers)
        )
        first = whole(rules)
        for index in (0, 47_000_000, MAX_LANE_COUNT - 60):
            # A state as it would be if the portions up to here had been average ones.
            rest_count = first.start_count * (MAX_LANE_COUNT - index) // MAX_LANE_COUNT
            tiers_left = tuple(
                q * (MAX_LANE_COUNT - index) // MAX_LANE_COUNT for q in first.tiers_left
            )
            rest_fen = (
                first.start_fen
                - (first.start_count - rest_count) * (first.start_fen) // first.start_count
            )
            _, prizes_fen = splitting.tiers_sum(rules.tiers, tiers_left)
            state = replace(
                first,
                index=index,
                tiers_left=tiers_left,
                left_fen=rest_fen + prizes_fen,
                left_count=rest_count + sum(tiers_left),
            )
            cases.append((rules, state, "deep", min(50, state.left_count)))
    assert_twins_agree(server, cases)


def test_fixed_in_lua_stays_exact_where_the_plain_product_would_not(server: redis.Redis) -> None:
    """4,121,339,238,892 fen in 10^8 portions; the control is the rule without divmod."""
    plain = server.execute_command(
        "EVAL", "return string.format('%.0f', math.floor(1e8 * 4121339238892 / 1e8))", 0
    )
    assert int(plain) != 4_121_339_238_892

    rules = Rules(Strategy.FIXED, 4_121_339_238_892, 10**8)
    cases: list[tuple[Rules, State, str, int]] = []
    for share in splitting.lanes(rules, 2):
        first = splitting.start(rules, share.total_fen, share.count, ())
        for i in (0, 1, 9_999_999, 33_333_333, share.count - 40):
            paid_fen = i * share.total_fen // share.count
            state = replace(
                first, left_fen=share.total_fen - paid_fen, left_count=share.count - i, index=i
            )
            cases.append((rules, state, "key", 40))
    for (_, state, _, _), found in zip(cases, lua_walk(server, cases), strict=True):
        for i, portion in enumerate(found, start=state.index):
            upto_fen = (i + 1) * state.start_fen // state.start_count
            assert portion.amount_fen == upto_fen - i * state.start_fen // state.start_count


def test_numbers_leave_lua_with_all_their_digits(server: redis.Redis) -> None:
    """Control: `..` prints 14 digits, and a win of 784,416,337,168,525 fen would be lost."""
    assert server.execute_command("EVAL", "return '' .. 784416337168525", 0) != b"784416337168525"
    for amount in (784_416_337_168_525, MAX_AMOUNT_FEN):
        rules = Rules(Strategy.LUCKY, amount, 1)
        assert lua_walk(server, [(rules, whole(rules), "key", 1)]) == [[Portion(amount, 0)]]


@pytest.mark.parametrize(
    ("rules", "blocks"),
    [
        (Rules(Strategy.FIXED, 1_000, 10), 0),
        (Rules(Strategy.DOUBLE_MEAN, 1_000, 10), 1),
        (Rules(Strategy.LUCKY, 1_000, 10, evenness=1), 1),
        (Rules(Strategy.LUCKY, 1_000, 10, evenness=2), 1),
        (Rules(Strategy.LUCKY, 1_000, 10, evenness=16), 6),
        (Rules(Strategy.LUCKY, 1_000, 10, evenness=32), 11),
    ],
)
def test_three_draws_share_one_sha1_in_lua_too(
    server: redis.Redis, rules: Rules, blocks: int
) -> None:
    counted = """
    local asked, of_server = 0, redis
    local redis = { sha1hex = function(x) asked = asked + 1; return of_server.sha1hex(x) end }
    """
    script = counted + FRAGMENT.read_text() + "split(cjson.decode(ARGV[1])) return asked"
    m = json.dumps(lua_m(rules, whole(rules), "key"))
    assert server.execute_command("EVAL", script, 0, m) == blocks


def test_powers_agree_between_python_and_the_server(server: redis.Redis) -> None:
    """30,000 powers in the range that lucky uses, bit for bit."""
    script = """
    local answers = {}
    for i = 0, 29999 do
      local u = (tonumber(string.sub(redis.sha1hex('pow:' .. i), 1, 13), 16) + 0.5) / 2 ^ 52
      answers[i + 1] = string.format('%.17g', u ^ (1 / (1 + i % 997)))
    end
    return answers
    """
    found = server.execute_command("EVAL", script, 0)
    for i, answer in enumerate(found):
        h = int(hashlib.sha1(f"pow:{i}".encode()).hexdigest()[:13], 16)
        assert float(answer) == ((h + 0.5) / 2**52) ** (1 / (1 + i % 997)), i
