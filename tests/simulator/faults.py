"""What may happen between two effects of anybody's claim: the steps that a seed draws from."""

from __future__ import annotations

from collections.abc import Callable

import redis

from engine.lib.errors import TransitionRefused
from packets import closing, rebalancing, recovery, services, settlement, stock
from packets.models import Gate, Lane, LaneEpoch
from tests.simulator.links import MASTER, OLD_MASTER, Killed
from tests.simulator.scheduler import MAX_FLOWS, Simulation

FATES = ("late", "dies", "answer lost", "twice", "overlapped")
FATE_SHARE = 0.3
HICCUPS = ("lost", "answer_lost", "dies", "dies_after")
Step = Callable[[Simulation], None]


def claim(sim: Simulation) -> None:
    if len(sim.requests) < MAX_FLOWS:
        sim.begin()


def advance(sim: Simulation) -> None:
    if sim.requests:
        fate = sim.rng.choice(FATES) if sim.rng.random() < FATE_SHARE else ""
        sim.advance(sim.rng.choice(sim.requests), fate)


def finish(sim: Simulation) -> None:
    """One request runs to its end undisturbed."""
    if sim.requests:
        request = sim.rng.choice(sim.requests)
        while request in sim.requests:
            sim.advance(request)


def arrive(sim: Simulation) -> None:
    if sim.late:
        sim.arrive()


def die(sim: Simulation) -> None:
    sim.kill(sim.rng.randrange(len(sim.world.base.processes)))


def view_ages(sim: Simulation) -> None:
    sim.rng.choice(sim.world.base.processes).view = None


def foreign(sim: Simulation) -> None:
    if sim.world.packet.lane_count > 1:
        sim.foreign()


# --- Redis ----------------------------------------------------------------------------------------


def redis_lost(sim: Simulation) -> None:
    sim.say("Redis is empty")
    sim.redis_changed = True
    sim.world.restore({})


def snapshot(sim: Simulation) -> None:
    sim.say("a snapshot of Redis")
    sim.world.snapshot = sim.world.dump()


def stale(sim: Simulation) -> None:
    sim.say("Redis goes back to the snapshot")
    sim.redis_changed = True
    sim.world.restore(sim.world.snapshot)


def zombie(sim: Simulation) -> None:
    """A replica is promoted, perhaps behind; some processes go on with the old master."""
    number = sim.rng.randrange(len(sim.world.base.processes))
    sim.say(f"process {number} stays with the old master")
    sim.world.restore(sim.world.dump(), OLD_MASTER)
    sim.world.base.processes[number].client.lead_to(OLD_MASTER)


def zombie_ends(sim: Simulation) -> None:
    for process in sim.world.base.processes:
        process.client.lead_to(MASTER)
    sim.say("everybody talks to the master")


def spoilt(sim: Simulation) -> None:
    """Redis's arithmetic is wrong: it offers more than there is."""
    server = sim.world.base.servers[MASTER]
    key = stock.meta_key(sim.world.packet.id, sim.rng.randrange(sim.world.packet.lane_count))
    if server.exists(key):
        sim.say("a lane's stock in Redis is spoilt")
        server.hincrby(key, "left_fen", 500)
        server.hincrby(key, "start_fen", 500)


def cut(sim: Simulation) -> None:
    number = sim.rng.randrange(len(sim.world.base.processes))
    sim.say(f"process {number} can't reach Redis")
    sim.world.base.processes[number].client.wire.away = True


def mended(sim: Simulation) -> None:
    sim.say("Redis can be reached")
    for process in sim.world.base.processes:
        process.client.wire.away = False
        process.circuit.back()


def hiccup(sim: Simulation) -> None:
    number = sim.rng.randrange(len(sim.world.base.processes))
    wire = sim.world.base.processes[number].client.wire
    wire.countdown, wire.fate = sim.rng.randint(0, 4), sim.rng.choice(HICCUPS)
    sim.say(f"process {number}: after {wire.countdown} commands {wire.fate}")


# --- those who look after things ------------------------------------------------------------------


def _staff(sim: Simulation, what: str, work: Callable[[], object]) -> None:
    """Work of a background process, which may die in the middle of it."""
    wire = sim.world.base.staff.wire
    if sim.rng.random() < 0.2:
        wire.countdown, wire.fate = sim.rng.randint(0, 5), sim.rng.choice(HICCUPS)
    sim.say(f"{what} {wire.fate}".rstrip())
    try:
        work()
    except (Killed, redis.RedisError, TransitionRefused) as error:
        sim.say(f"  {type(error).__name__}")
    wire.fate = ""


def _lane(sim: Simulation) -> Lane:
    lane_id = sim.rng.choice(sim.world.lane_ids)
    return Lane.objects.select_related("packet").get(id=lane_id)


def sweep(sim: Simulation) -> None:
    lane = _lane(sim)
    if lane.state != Lane.State.CLOSED:
        sim.world.watches_age()
        staff = sim.world.base.staff
        _staff(sim, f"sweep of lane {lane.number}", lambda: recovery._look_after(staff, lane))


def slow_loader(sim: Simulation) -> None:
    """The first half of a rebuild; the second may come much later, or never."""
    lane = _lane(sim)
    held = stock.read(sim.world.base.servers[MASTER], lane.packet_id, lane.number)
    cause = LaneEpoch.Cause.REBUILT
    opened = recovery.open_epoch(lane.id, above=held.epoch if held else 0, cause=cause, seen=lane)
    if opened is not None:
        sim.say(f"a slow loader opens epoch {opened[1].epoch} of lane {lane.number}")
        sim.world.slow.append(opened)


def slow_loader_loads(sim: Simulation) -> None:
    if sim.world.slow:
        lane, epoch = sim.world.slow.pop(sim.rng.randrange(len(sim.world.slow)))
        staff = sim.world.base.staff
        what = f"the slow loader of epoch {epoch.epoch} loads"
        _staff(sim, what, lambda: recovery.finish_epoch(staff, lane, epoch))


def leases_end(sim: Simulation) -> None:
    sim.say("leases run out")
    sim.world.leases_end()


def move(sim: Simulation) -> None:
    world = sim.world
    _staff(
        sim,
        "rebalance",
        lambda: rebalancing.rebalance(world.base.staff, packet_id=world.packet.id),
    )


def settle(sim: Simulation) -> None:
    lane_id = sim.rng.choice(sim.world.lane_ids)
    _staff(sim, "settle", lambda: settlement.settle_lane(lane_id, limit=2))


def pause(sim: Simulation) -> None:
    packet = sim.world.packet.id
    _staff(sim, "pause", lambda: services.packet_pause(packet_id=packet, actor="simulator"))


def resume(sim: Simulation) -> None:
    packet = sim.world.packet.id
    _staff(sim, "resume", lambda: services.packet_resume(packet_id=packet, actor="simulator"))


def gate(sim: Simulation) -> None:
    state = sim.rng.choice((Gate.State.PAUSED, Gate.State.OPEN, Gate.State.OPEN)).value
    sim.say(f"the gate is {state}")
    services.gate_set(gate_id=sim.world.base.gate.id, state=state, actor="simulator")


def close(sim: Simulation) -> None:
    packet = sim.world.packet.id
    _staff(sim, "close", lambda: closing.packet_close(packet_id=packet, actor="simulator"))


def window_ends(sim: Simulation) -> None:
    sim.say("the window ends")
    sim.world.window_ends(10.0)


STEPS: dict[Step, float] = {
    claim: 14,
    advance: 30,
    finish: 6,
    arrive: 6,
    die: 1,
    view_ages: 3,
    foreign: 1.5,
    redis_lost: 1,
    snapshot: 2,
    stale: 2,
    zombie: 1.5,
    zombie_ends: 1,
    spoilt: 0.7,
    cut: 1,
    mended: 2,
    hiccup: 1.5,
    sweep: 3,
    slow_loader: 1.5,
    slow_loader_loads: 2,
    leases_end: 2,
    move: 1.5,
    settle: 1,
    pause: 0.7,
    resume: 1.5,
    gate: 0.5,
    close: 0.3,
    window_ends: 0.3,
}
