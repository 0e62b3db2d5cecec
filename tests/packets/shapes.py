"""Generated packets for the splitting tests, and the harness that runs the Lua twin on a server.

Shapes come from seeded generators, so a failure names a case that can be run again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from packets.splitting import (
    EVENNESS_CHOICES,
    MAX_AMOUNT_FEN,
    Portion,
    Rules,
    State,
    Strategy,
    Tier,
    effective,
    start,
)

FRAGMENT = Path(__file__).parents[2] / "packets" / "lua" / "splitting.lua"
NUMBER_OF = {"fixed": 1, "lucky": 2, "double_mean": 3, "tiers": 4}
FAMILIES = (
    "ordinary",
    "one_portion",
    "one_fen_each",
    "min_is_max",
    "tight_max",
    "loose_max",
    "complement",
    "huge",
    "huge_with_max",
)

# ARGV: a JSON list of [m, steps]. Walks each lane and returns "amount:tier,…" for each of them.
WALK = """
local answers = {}
for number, case in ipairs(cjson.decode(ARGV[1])) do
  local m, walked = case[1], {}
  for step = 1, case[2] do
    local before = cjson.encode(m)
    local amount, tier = split(m)
    assert(before == cjson.encode(m), 'split must leave m alone')
    walked[step] = string.format('%.0f', amount) .. ':' .. string.format('%.0f', tier)
    m.left_fen, m.left_count, m.index = m.left_fen - amount, m.left_count - 1, m.index + 1
    if tier > 0 then
      m.tiers[tier][2] = m.tiers[tier][2] - 1
    end
  end
  answers[number] = table.concat(walked, ',')
end
return answers
"""


def lua_m(rules: Rules, state: State, key: str) -> dict[str, object]:
    """The table that `split` reads."""
    return {
        "strategy": NUMBER_OF[rules.strategy],
        "remainder": NUMBER_OF[rules.remainder],
        "key": key,
        "index": state.index,
        "left_fen": state.left_fen,
        "left_count": state.left_count,
        "start_fen": state.start_fen,
        "start_count": state.start_count,
        "min_fen": rules.min_fen,
        "max_fen": rules.max_fen or 0,
        "evenness": rules.evenness,
        "tiers": [[t.amount_fen, q] for t, q in zip(rules.tiers, state.tiers_left, strict=True)],
    }


def lua_walk(
    server: redis.Redis, cases: Sequence[tuple[Rules, State, str, int]], before: str = ""
) -> list[list[Portion]]:
    """The portions that the Lua twin gives from each state on, for a number of steps.

    `before` is Lua that runs first: a test may put its own `redis` in front of the server's.
    """
    script = before + FRAGMENT.read_text() + WALK
    argument = json.dumps([[lua_m(rules, state, key), n] for rules, state, key, n in cases])
    answers = server.execute_command("EVAL", script, 0, argument)
    return [
        [Portion(*map(int, one.split(":"))) for one in answer.decode().split(",")]
        for answer in answers
    ]


def shape(rng: random.Random, strategy: Strategy, family: str) -> Rules:
    """One packet of a family, in its effective rules."""
    if strategy is Strategy.TIERS:
        return _with_prizes(rng, family)
    return effective(Rules(strategy, evenness=rng.choice(EVENNESS_CHOICES), **_bounds(rng, family)))


def _bounds(rng: random.Random, family: str) -> dict[str, Any]:
    count = rng.choice([1, 2, 3, rng.randint(2, 12), rng.randint(2, 60)])
    least = rng.choice([1, 1, rng.randint(1, 30)])
    match family:
        case "ordinary":
            return {
                "total_fen": least * count
                + rng.choice([0, rng.randint(0, 10 ** rng.randint(1, 9))]),
                "count": count,
                "min_fen": least,
            }
        case "one_portion":
            return {"total_fen": rng.choice([1, rng.randint(1, MAX_AMOUNT_FEN)]), "count": 1}
        case "one_fen_each":
            return {"total_fen": count, "count": count}
        case "min_is_max":
            return {
                "total_fen": least * count,
                "count": count,
                "min_fen": least,
                "max_fen": least,
            }
        case "tight_max":
            total = least * count + rng.randint(0, 500 * count)
            return {
                "total_fen": total,
                "count": count,
                "min_fen": least,
                "max_fen": -(-total // count) + rng.choice([0, 0, 1, 2]),
            }
        case "loose_max" | "complement":
            room = rng.randint(1, 10 ** rng.randint(1, 7))
            part = rng.uniform(0.0, 0.5) if family == "loose_max" else rng.uniform(0.5, 1.0)
            return {
                "total_fen": least * count + int(room * count * part),
                "count": count,
                "min_fen": least,
                "max_fen": least + room,
            }
        case "huge":
            return {
                "total_fen": MAX_AMOUNT_FEN - rng.choice([0, 1, rng.randint(0, 10**6)]),
                "count": count,
                "min_fen": least,
            }
        case "huge_with_max":
            total = MAX_AMOUNT_FEN - rng.choice([0, 1, rng.randint(0, 10**6)])
            mean = -(-total // count)
            return {
                "total_fen": total,
                "count": count,
                "min_fen": rng.choice([least, total // count]),
                "max_fen": rng.choice(
                    [mean, min(mean + rng.randint(0, mean), MAX_AMOUNT_FEN), MAX_AMOUNT_FEN]
                ),
            }
        case _:
            raise ValueError(family)


def _with_prizes(rng: random.Random, family: str) -> Rules:
    """A prize table laid on top of a packet of the family; the rest keeps the family's shape."""
    remainder = rng.choice([Strategy.FIXED, Strategy.LUCKY, Strategy.DOUBLE_MEAN])
    rest = _bounds(rng, family)
    least, most = rest.get("min_fen", 1), rest.get("max_fen")
    if rest["total_fen"] > MAX_AMOUNT_FEN // 2:
        least = 1  # A high minimum would leave no room for the prizes.
    highest = min(most or MAX_AMOUNT_FEN, least + 10**6)
    tiers = [Tier(rng.randint(least, highest), rng.randint(1, 6)) for _ in range(rng.randint(1, 4))]
    prizes = sum(tier.quantity for tier in tiers)
    prizes_fen = sum(tier.amount_fen * tier.quantity for tier in tiers)
    if rng.random() < 0.15:  # Nothing but prizes.
        rest["total_fen"], rest["count"] = 0, 0
    total = min(rest["total_fen"] + prizes_fen, MAX_AMOUNT_FEN)
    return effective(
        Rules(
            Strategy.TIERS,
            total_fen=total,
            count=rest["count"] + prizes,
            min_fen=least,
            max_fen=most,
            evenness=rng.choice(EVENNESS_CHOICES),
            tiers=tuple(tiers),
            remainder=remainder,
        )
    )


def generated(each: int, seed: int) -> Iterable[tuple[str, Rules]]:
    """`each` packets of every family for every strategy, with a name to find a failure by."""
    for strategy in Strategy:
        for family in FAMILIES:
            rng = random.Random(f"{seed}:{strategy}:{family}")
            for number in range(each):
                yield f"{strategy}/{family}/{number}", shape(rng, strategy, family)


def whole(rules: Rules) -> State:
    """The whole packet as one lane."""
    return start(rules, rules.total_fen, rules.count, [tier.quantity for tier in rules.tiers])
