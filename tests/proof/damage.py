"""Every kind of object, damaged in every way: what was promised, never a crash, never wrong bytes.

After each damage the store is opened, read, checked, collected, copied, repaired and used on.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptfs.errors import CkptfsError
from ckptfs.ids import Version
from ckptfs.store import layout
from ckptfs.store.check import check
from ckptfs.store.manifest import manifest_packs

from .disk import Disk, Image, put_down
from .museum import COPIED, FLAT_TRASH, HURT, KINDS, PLAIN_TRASH, Kind, build, pace
from .places import workplace
from .scenario import mend_store
from .world import LIVE, A, B, Key, States, World, key_of

Spoil = Callable[[bytes, bytes, random.Random], bytes | None]  # its bytes, another's → new bytes


def _flip(data: bytes, _: bytes, rng: random.Random) -> bytes:
    return _flip_at(data, rng.randrange(len(data)) if data else 0, rng)


def _flip_at(data: bytes, at: int, rng: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


SPOILS: dict[str, Spoil] = {
    "a bit at the start": lambda data, _, rng: _flip_at(data, 0, rng),
    "a bit in the middle": lambda data, _, rng: _flip_at(data, len(data) // 2, rng),
    "a bit anywhere": _flip,
    "a bit in the last page": lambda data, _, rng: _flip_at(
        data, max(0, len(data) - 1 - rng.randrange(4096)), rng
    ),
    "a bit at the end": lambda data, _, rng: _flip_at(data, max(0, len(data) - 1), rng),
    "emptied": lambda *_: b"",
    "cut in half": lambda data, *_: data[: len(data) // 2],
    "cut by one byte": lambda data, *_: data[:-1],
    "grown": lambda data, *_: data + b"x",
    "zeros": lambda data, *_: bytes(len(data)),
    "deleted": lambda *_: None,
    "another of its kind": lambda _, other, __: other,
}


@dataclass
class Museum:
    """The store with everything in it, to be put down again for each case."""

    image: Image
    states: States
    now_s: float
    known: frozenset[str]  # what check says of it as it is
    users: dict[str, set[Key]]  # name of a file → versions that need it

    def bytes_of(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return self.image[path][0] or b""

    def users_of(self, path: str) -> set[Key]:
        """Return the versions that need a file."""
        name = path.rpartition("/")[2].removesuffix(".pages")
        head = "/".join(path.split("/")[-2:])
        return self.users.get(name, set()) | self.users.get(head, set())


async def open_museum(top: Path) -> Museum:
    """Build it once in *top*, which is gone again then."""
    put_down({}, top)
    world = World(top)
    await build(world)
    image, states = Disk.load(top).image(), dict(world.spec.states)
    known = frozenset(check(world.directory))
    users = needs(world)
    shutil.rmtree(top)
    return Museum(image, states, world.now_s, known, users)


def needs(world: World) -> dict[str, set[Key]]:
    """Return which versions need an object, by the name of its file; all of the trash is back."""
    found: dict[str, set[Key]] = {}
    store = world.open()
    try:
        for word in (PLAIN_TRASH, FLAT_TRASH):
            world.undelete(word)
        for job, number in world.spec.of(LIVE):
            names = {f"{job}/{number}", f"{job}@{number}"}
            for file in store.head(job, Version(number)).files:
                name = file.manifest.partition(":")[0]
                body = (world.directory / layout.object_path("manifests", name)).read_bytes()
                names |= {name, *manifest_packs(name, body)}
            for name in names:
                found.setdefault(name, set()).add((job, number))
    finally:
        world.close()
    return found


@dataclass
class Case:
    """One object, damaged in one way."""

    kind: Kind
    path: str  # below the top
    spoil: str
    after: bytes | None
    hurts: set[Key]  # versions that may be unreadable

    @property
    def unseen(self) -> set[Key]:
        """Versions that are not there any more because nothing says so."""
        return self.hurts if self.kind.gone and self.after is None else set()


def cases(museum: Museum, top: Path, rng: random.Random, most: int) -> Iterator[Case]:
    """Yield the cases of every kind, at most *most* of one, drawn by chance."""
    put_down(museum.image, top)
    found = {kind: [str(path.relative_to(top)) for path in kind.find(top)] for kind in KINDS}
    shutil.rmtree(top)
    for kind, paths in found.items():
        assert paths, f"the museum has no {kind.name}"
        whole = [path for path in paths if museum.users_of(path) != {key_of(HURT)}] or paths
        every = [(path, spoil) for path in whole for spoil in SPOILS]
        for path, spoil in every if len(every) <= most else rng.sample(every, most):
            before = museum.bytes_of(path)
            others = [other for other in paths if museum.bytes_of(other) != before] or [path]
            after = SPOILS[spoil](before, museum.bytes_of(rng.choice(others)), rng)
            if after != before:
                hurts = museum.users_of(path) if kind.needed else set[Key]()
                yield Case(kind, path, spoil, after, hurts | {key_of(HURT)})


async def try_damage(*, seed: int = 0, most: int = 10**6) -> int:
    """Damage everything; return how many cases were tried."""
    rng = random.Random(f"damage{seed}")
    place = workplace()
    count = 0
    try:
        museum = await open_museum(place / "disk")
        for case in list(cases(museum, place / "disk", rng, most)):
            try:
                await one_case(museum, case, place / "disk")
            except Exception as error:
                raise AssertionError(
                    f"damage: {case.kind.name} {case.path}, {case.spoil}: {error!r}"
                ) from error
            count += 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return count


async def one_case(museum: Museum, case: Case, top: Path) -> None:
    """Try one damage and what follows."""
    put_down(museum.image, top)
    world = World(top)
    world.now_s = museum.now_s
    try:
        damage(top / case.path, case.after)
        try:
            world.open()
        except CkptfsError as error:
            if not case.kind.refused:
                raise
            if not str(error) or not check(world.directory):
                raise AssertionError("refused without a sentence, or check says nothing") from error
        else:
            await look_and_use(museum, world, case)
    finally:
        world.close()
        shutil.rmtree(top)


def damage(path: Path, after: bytes | None) -> None:
    """Replace the bytes of a file, or remove it."""
    if after is None:
        path.unlink()
    else:
        mode = path.stat().st_mode & 0o777
        path.chmod(0o600)
        path.write_bytes(after)
        path.chmod(mode)


async def look_and_use(museum: Museum, world: World, case: Case) -> None:
    """Read, check, collect, copy, repair, write; nothing that should be whole may suffer."""
    hurts = case.hurts
    if case.kind.refused:  # it opened all the same; a changed key makes every head another's
        hurts = set(museum.states)
    failed = await seen(museum, world, case, hurts)
    if case.kind.shown and failed - {key_of(HURT)}:
        assert news(museum, world), "check does not find it"
    await world.collect()
    await seen(museum, world, case, hurts)
    for _ in range(2):
        await world.store.copies.round({A: 2, B: 1}, pace)
    if case.kind.copied:
        hurts = {key_of(HURT)}
        if not case.unseen:
            await prove(world)
    await seen(museum, world, case, hurts)
    world.close()
    if case.kind.refused:
        return
    mend_store(world)
    world.open()
    for _ in range(2):  # what the repair found, and no reader before
        await world.store.copies.round({A: 2, B: 1}, pace)
    await seen(museum, world, case, hurts)
    if not case.kind.shown:
        found = news(museum, world)
        assert not found, f"after the repair check still says: {min(found)}"
    await world.save("a9")
    await world.read_all(hurts)


def news(museum: Museum, world: World) -> set[str]:
    """Return what check says beyond what it says of the museum as it is."""
    return set(check(world.directory)) - museum.known


async def prove(world: World) -> None:
    """Verify what was mended, as the service does after a round."""
    for word in COPIED:
        found = await world.verify(word)
        assert found == [], f"not mended: {found[0]}"


async def seen(museum: Museum, world: World, case: Case, hurts: set[Key]) -> set[Key]:
    """Hold what can be read against what there was; return what cannot be."""
    live = {key for key, state in museum.states.items() if state == LIVE}
    store = world.store
    visible = {(job, int(v)) for job in store.jobs() for v in store.versions(job)}
    missing = live - visible
    assert missing <= case.unseen, f"{sorted(missing)} cannot be seen"
    assert visible <= live, f"{sorted(visible - live)} appeared"
    return await world.read_all(hurts)
