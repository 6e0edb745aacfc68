"""The power is lost after every prefix of the recorded calls of every path, in every way.

Equal states of the disk are judged once.  *throws*: how often each die is thrown per prefix.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .calls import ProofCalls
from .disk import Disk, Image, put_down, states
from .judge import Allowed, between, judge
from .places import workplace
from .scenario import Scenario, act, prepared
from .scenarios import SCENARIOS
from .world import Key, States, World, key_of


@dataclass
class Recording:
    """One path, recorded: the disk before it, the calls, what was acknowledged when."""

    scenario: Scenario
    before: Disk
    log: list[tuple[str, tuple[object, ...]]]
    history: list[tuple[int, States]]
    now_s: float
    changing: list[str] = field(default_factory=list)  # names of the calls that began
    reading: list[str] = field(default_factory=list)

    @property
    def hurt(self) -> set[Key]:
        """Versions that were damaged before."""
        return {key_of(word) for word in self.scenario.hurt}

    @property
    def lost(self) -> set[Key]:
        """Versions that may be unreadable in the end."""
        return set() if self.scenario.again else self.hurt


async def record(scenario: Scenario, top: Path) -> Recording:
    """Do it once for real in *top*, which is gone again then; prove that the model saw it all."""
    put_down({}, top)
    world = await prepared(scenario, top)
    before = Disk.load(top)
    calls = ProofCalls(top, plan=scenario.plan)
    after = await act(scenario, world, top, calls)
    after.close()
    assert_all_seen(scenario.name, before, calls, top)
    shutil.rmtree(top)  # volumes are known by their paths, so every case is put down here again
    return Recording(
        scenario, before, calls.log, after.history, world.now_s, calls.changing, calls.reading
    )


def assert_all_seen(name: str, before: Disk, calls: ProofCalls, top: Path) -> None:
    """Raise AssertionError when something has changed that was not recorded."""
    model = before.clone()
    for op in calls.log:
        model.apply(op)
    found, real = model.image(), Disk.load(top).image()
    assert found == real, f"{name}: {differences(found, real)} changed unseen"


async def do_again(scenario: Scenario, top: Path) -> None:
    """Do what has to follow a crash or fault."""
    world = World(top, shape=scenario.shape)
    try:
        if scenario.opens:
            world.open()
        assert scenario.again is not None
        await scenario.again(world)
    finally:
        world.close()


def differences(left: Image, right: Image) -> list[str]:
    """Return the paths that are not the same in both."""
    return sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))


def crash_states(
    recording: Recording, rng: random.Random, throws: int
) -> Iterator[tuple[int, str, Image]]:
    """Yield (calls done, how, image), each image once."""
    disk = recording.before.clone()
    seen: set[bytes] = set()
    for number in range(len(recording.log) + 1):
        allowed = repr(sorted(between(recording.history, number).items()))
        for how, image in states(disk, rng, throws):
            digest = digest_of(image, allowed)
            if digest not in seen:
                seen.add(digest)
                yield number, how, image
        if number < len(recording.log):
            disk.apply(recording.log[number])


def digest_of(image: Image, allowed: str) -> bytes:
    """Return a name for a state of the disk and what is allowed of it."""
    found = hashlib.blake2b(allowed.encode())
    for path, (data, mode) in image.items():
        found.update(f"\0{path}\0{mode}\0".encode())
        found.update(b"-" if data is None else data)
    return found.digest()


async def explore(
    name: str, *, seed: int = 0, throws: int = 1, works: float = 1.0, share: float = 1.0
) -> int:
    """Judge the states that a crash of one path can leave; return how many were judged.

    *share*: how many of them; *works*: the share of these in which the store is used on.
    """
    scenario, rng = SCENARIOS[name], random.Random(f"{name}{seed}")
    place = workplace()
    count = 0
    try:
        recording = await record(scenario, place / "disk")
        for number, how, image in crash_states(recording, rng, throws):
            if rng.random() >= share:
                continue
            used = rng.random() < works
            allowed = between(recording.history, number)
            case = f"power lost after {number} calls ({how})"
            try:
                await judge_image(recording, allowed, image, place / "disk", works=used)
            except Exception as error:
                raise AssertionError(
                    f"{name}: {case}: {error!r}\n{told(recording, number)}"
                ) from error
            count += 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return count


async def judge_image(
    recording: Recording, allowed: Allowed, image: Image, top: Path, *, works: bool
) -> States:
    """Put one state down and judge it; return what it was."""
    scenario = recording.scenario
    try:
        put_down(image, top)
        if scenario.again is not None:
            await do_again(scenario, top)
        return await judge(top, allowed, hurt=recording.lost, shape=scenario.shape, works=works)
    finally:
        shutil.rmtree(top)


def told(recording: Recording, number: int) -> str:
    """Return the last calls before number *number*."""
    log = [f"{n} {op} {words}"[:110] for n, (op, words) in enumerate(recording.log)]
    return "\n".join(log[max(0, number - 12) : number])
