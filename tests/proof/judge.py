"""What must hold of a store after anything: visible is whole, removed can come back, the rest goes.

`judge` opens what is left of a store as a service would, holds it against what is allowed, and
goes on working with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ckptfs.ids import Version
from ckptfs.store.check import check, leftovers

from .world import GONE, LIVE, NOW_S, SMALL, TRASH, Key, Shape, States, World, key_of, word_of

Allowed = Mapping[Key, frozenset[str]]


def between(history: list[tuple[int, States]], at: int) -> dict[Key, frozenset[str]]:
    """Return what each version may be after *at* recorded calls.

    What was acknowledged before must be there; what was acknowledged next may be.
    """
    before: States = {}
    after: States = {}
    for length, states in history:
        after = states
        if length > at:
            break
        before = states
    return {
        key: frozenset({before.get(key, GONE), after.get(key, GONE)})
        for key in before.keys() | after.keys()
    }


def settled(states: States) -> dict[Key, frozenset[str]]:
    """Return what is allowed when nothing was under way."""
    return {key: frozenset({state}) for key, state in states.items()}


async def judge(
    top: Path,
    allowed: Allowed,
    *,
    hurt: Collection[Key] = (),
    shape: Shape = SMALL,
    works: bool = True,
) -> States:
    """Raise AssertionError unless the store below *top* is what is allowed; return what it was.

    *hurt*: versions that may be unreadable, which then nothing else may be damaged by.
    *works*: collect and write as well, which takes as long again.
    """
    world = World(top, shape=shape)
    world.now_s = NOW_S + 10.0
    try:
        store = world.open()
        assert not store.degraded()
        seen = await look(world, allowed, hurt)
        if works:
            await go_on(world, hurt)
    finally:
        world.close()
    if works and not hurt:
        assert_whole(world)
    return seen


def assert_whole(world: World) -> None:
    """Raise AssertionError unless ``ckptfs check`` finds nothing."""
    found = check(world.directory)
    assert found == [], f"check: {'; '.join(found)}"


async def look(world: World, allowed: Allowed, hurt: Collection[Key]) -> States:
    """Hold what can be seen against what is allowed; return it.  The trash is brought back."""
    store = world.store
    live = {(job, int(v)) for job in store.jobs() for v in store.versions(job)}
    jobs = {job for job, _ in allowed}
    trash = {(job, int(v)) for job in jobs for v, _ in store.trashed(job)}
    for key in live | trash | allowed.keys():
        state = LIVE if key in live else TRASH if key in trash else GONE
        assert state in allowed.get(key, {GONE}), f"{word_of(key)} is {state}"
    assert not live & trash, "a version is both visible and removed"
    await world.read_all(hurt)
    for place in ("packs/open", "sessions"):
        left = list((world.directory / place).iterdir())
        assert left == [], f"{place} holds {left[0].name}"
    if not hurt:
        assert_whole(world)
    for key in sorted(trash.difference(hurt)):
        store.undelete(key[0], Version(key[1]))
    await world.read_all(hurt)
    for key in live | trash:
        world.spec.states[key] = LIVE
    return dict.fromkeys(live, LIVE) | dict.fromkeys(trash, TRASH)


async def go_on(world: World, hurt: Collection[Key]) -> None:
    """Remove one, collect, write another: what stays is untouched, nothing is left over."""
    store = world.store
    whole = [key for key in world.spec.of(LIVE) if key not in hurt]
    whole = [key for key in whole if not store.pinned(key[0], Version(key[1]))]
    if len(whole) > 1:
        world.remove(word_of(whole[0]), trash_s=0)
    report = await world.collect()
    assert report.restored == 0
    new = max([version for job, version in world.spec.states if job == key_of("a1")[0]], default=0)
    await world.save(f"a{new + 1}")
    await world.read_all(hurt)
    if not hurt:
        assert report.doubt == "", report.doubt
        assert leftovers(world.directory) == []
    assert store.usage().reserved_bytes == 0
