"""The power is lost, and lost again while the store recovers: in each way of recovering, anywhere.

A first crash as `crashes` makes it; then a service opens the store, reads, proves, collects and
copies, or a repair runs, or what has to follow this path; all that is recorded, and cut off after
every call.  What the first opening has shown must be there after the second.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

from .calls import ProofCalls
from .crashes import Recording, assert_all_seen, crash_states, judge_image, record, told
from .disk import Disk, Image, put_down
from .judge import Allowed, between
from .places import workplace
from .scenario import Step, mend_store
from .scenarios import SCENARIOS
from .world import World, word_of

NAMES = tuple(name for name, row in SCENARIOS.items() if row.shape.scale == 1)


async def serve(world: World) -> None:
    """Do what a service does when it is started anew."""
    world.open()
    hurt = set(world.spec.hurt)
    await world.read_all(hurt)
    for key in world.spec.of("live"):
        assert not await world.verify(word_of(key)) or key in hurt
    await world.collect()
    await world.replicate()


async def mend(world: World) -> None:
    """Do what ``ckptfs repair`` does."""
    if not (world.directory / "FORMAT").exists():  # not yet a store: there is nothing to repair
        world.open()
        return
    lost = mend_store(world).lost
    assert world.spec.hurt or not lost, lost


RECOVERIES: dict[str, Step] = {"a service": serve, "a repair": mend}


async def explore_recoveries(
    name: str, *, seed: int = 0, first: int = 10**6, second: int = 10**6
) -> int:
    """Judge what two crashes can leave of one path; return how many states were judged.

    *first*: first crashes, drawn by chance; *second*: of each recovery's own.
    """
    rng, place = random.Random(f"again{name}{seed}"), workplace()
    count = 0
    try:
        recording = await record(SCENARIOS[name], place / "disk")
        for number, how, image in some(list(crash_states(recording, rng, 1)), first, rng):
            case = f"{name}: power lost after {number} calls ({how})"
            allowed = between(recording.history, number)
            for way, again in ways(recording).items():
                try:
                    cut = await recover(recording, again, allowed, image, place / "disk")
                except Exception as error:
                    raise AssertionError(f"{case}, {way}: {error!r}") from error
                count += await cut_off(cut, allowed, f"{case}, {way}", place, rng, second)
        return count
    finally:
        shutil.rmtree(place, ignore_errors=True)


def ways(recording: Recording) -> dict[str, Step]:
    """Return how it can go on after a crash of this path."""
    again = recording.scenario.again
    return RECOVERIES if again is None else {"what has to follow": again}


def some(cases: list, most: int, rng: random.Random) -> list:
    """Return at most so many of them, in their order."""
    chosen = sorted(rng.sample(range(len(cases)), min(most, len(cases))))
    return [cases[at] for at in chosen]


async def recover(
    recording: Recording, step: Step, allowed: Allowed, image: Image, top: Path
) -> Recording:
    """Let the store recover from *image* with recorded calls; return the recording."""
    scenario = recording.scenario
    states = {}
    if scenario.again is None:
        states = await judge_image(recording, allowed, image, top, works=False)
    put_down(image, top)
    before, calls = Disk.load(top), ProofCalls(top)
    world = World(top, calls, scenario.shape)
    world.now_s = recording.now_s
    world.spec.states, world.spec.hurt = dict(states), recording.hurt
    world.length = lambda: len(calls.log)
    world.note()
    try:
        if scenario.again is not None and scenario.opens:
            world.open()
        await step(world)
    finally:
        world.close()
    assert_all_seen(scenario.name, before, calls, top)
    shutil.rmtree(top)
    return dataclasses.replace(recording, before=before, log=calls.log, history=world.history)


async def cut_off(
    cut: Recording, allowed: Allowed, case: str, place: Path, rng: random.Random, most: int
) -> int:
    """Lose power again, anywhere in a recovery; return how many states were judged."""
    cases = some(list(crash_states(cut, rng, 1)), most, rng)
    for number, how, image in cases:
        may_be = between(cut.history, number) if cut.scenario.again is None else allowed
        try:
            await judge_image(cut, may_be, image, place / "disk", works=rng.random() < 0.2)
        except Exception as error:
            raise AssertionError(
                f"{case}, cut off after {number} calls ({how}): {error!r}\n{told(cut, number)}"
            ) from error
    return len(cases)
