"""A process that uses a store until it is killed, and says on its standard output what it does.

    python -m tests.proof.user TOP SEED FIRST [PHASE...]

One line each: ``# collect`` comes before a phase, which begins when a byte is read from standard
input; ``? a3 live`` is about to be, ``= a3 live`` is so; ``! WHAT NUMBER`` is to be counted.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from ckptfs.store.copies_record import ENCRYPT
from ckptfs.upkeep.repair import repair

from .scenario import mend_store
from .world import GONE, LIVE, TRASH, A, B, Shape, World, word_of

SHAPE = Shape(scale=8, pack_pages=20)  # every version is in several packs
KEPT = 4  # versions; one more and one is removed


def say(*words: str) -> None:
    """Say it at once: what was not said when the process is killed was not acknowledged."""
    print(*words, flush=True)


class User:
    """See the top of this file."""

    def __init__(self, top: Path, seed: str, first: int) -> None:
        self.rng, self.number = random.Random(seed), first
        self.world = World(top, shape=SHAPE)

    async def begin(self) -> None:
        """Open the store as the next service does; learn what is there."""
        world, store = self.world, self.world.open()
        for job in (A, B):
            world.spec.states |= {(job, int(v)): LIVE for v in store.versions(job)}
            world.spec.states |= {(job, int(v)): TRASH for v, _ in store.trashed(job)}
        volumes = {row.name for row in store.copies.rows()}
        if "b" not in volumes:
            await world.add_volume("b")
        if "c" not in volumes:
            if not (world.directory / "keys/owners").exists():
                world.make_key()
            await world.add_volume("c", ENCRYPT)

    async def write(self) -> None:
        """Write a version."""
        self.number += 1
        word = self.rng.choice("ab") + str(self.number)
        say("?", word, LIVE)
        await self.world.save(word)
        say("=", word, LIVE)

    async def remove(self) -> None:
        """Remove one when there are many, and bring one back now and then."""
        live, trash = self.world.spec.of(LIVE), self.world.spec.of(TRASH)
        if len(live) > KEPT:
            word = word_of(self.rng.choice(live))
            say("?", word, TRASH)
            self.world.remove(word, trash_s=self.rng.choice([0, 0, 10**6]))
            say("=", word, TRASH)
        elif trash:
            word = word_of(self.rng.choice(trash))
            say("?", word, LIVE)
            self.world.undelete(word)
            say("=", word, LIVE)

    async def collect(self) -> None:
        """Collect, on the volumes too."""
        for key in self.world.spec.of(TRASH):
            say("?", word_of(key), GONE)
        self.world.now_s += 1
        report = await self.world.collect()
        assert (report.doubt, report.doubts, report.restored) == ("", {}, 0), report
        if report.packs:
            say("!", "packs written anew", str(report.packs))
        for key in self.world.spec.of(GONE):
            say("=", word_of(key), GONE)

    async def copy(self) -> None:
        """Copy what is missing on the volumes."""
        await self.world.replicate(3)

    async def verify(self) -> None:
        """Prove every version, as the scrub does."""
        for key in self.world.spec.of(LIVE):
            assert await self.world.verify(word_of(key)) == []

    async def scrub(self) -> None:
        """Prove the copies."""
        for volume in ("b", "c"):
            _, damaged = await self.world.scrub(volume)
            assert damaged == 0, f"{damaged} copies on {volume} are damaged"

    async def repair(self) -> None:
        """End the service and repair the store."""
        self.world.close()
        assert (lost := mend_store(self.world).lost) == [], lost
        self.world.open()

    async def rebuild(self) -> None:
        """Make the catalog again."""
        self.world.close()
        outcome = repair(
            self.world.directory, rebuild_catalog=True, discard=False, progress=lambda _: None
        )
        assert outcome.lost == [], outcome.lost


PHASES: dict[str, Callable[[User], Awaitable[None]]] = {
    "write": User.write,
    "copy": User.copy,
    "remove": User.remove,
    "collect": User.collect,
    "verify": User.verify,
    "scrub": User.scrub,
    "repair": User.repair,
}
REBUILDING = {"rebuild": User.rebuild}


async def main(top: str, seed: str, first: str, *names: str) -> None:
    """Go through the phases, all or those of *names*, over and over."""
    user = User(Path(top), seed, int(first))
    if not names:
        await user.begin()
    every = PHASES | REBUILDING
    while True:
        for name, phase in ((name, every[name]) for name in names or PHASES):
            say("#", name)
            os.read(0, 1)  # whoever kills says when
            await phase(user)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
