"""The model that random histories are held against, and what it takes to lose power in them.

`machine.StoreMachine` adds the steps.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import ClassVar

import trio
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ckptfs.ids import Version
from ckptfs.store import layout
from ckptfs.store.check import check
from ckptfs.store.index import PACK_PAGES
from ckptfs.store.manifest import manifest_packs

from .calls import ProofCalls, no_fault
from .disk import Disk
from .places import workplace
from .steps import choose, omitted
from .world import GONE, LIVE, TRASH, A, B, Key, Shape, World, content, word_of

DIE_MAX = 2**24 - 1  # larger ones Hypothesis does not draw evenly
MOST = 7  # versions that are visible at once: all are read after every step


class Loop:
    """A trio loop in a thread of its own: a store lives through many steps on one clock."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="proof-loop")
        self._thread.start()
        self._started.wait()

    async def _main(self) -> None:
        self._token, self._over = trio.lowlevel.current_trio_token(), trio.Event()
        self._started.set()
        await self._over.wait()

    def run(self, call: Callable[[], Awaitable[object]]):
        """Return what *call* returns, run in the loop."""
        return trio.from_thread.run(call, trio_token=self._token)

    def close(self) -> None:
        """End the loop."""
        self._token.run_sync_soon(self._over.set)
        self._thread.join()


class History(RuleBasedStateMachine):
    """A store, and beside it what must be true of it after every step."""

    salt: ClassVar[str] = ""  # of the numbers that are drawn
    did: ClassVar[Counter[str]] = Counter()  # steps by name, of all machines of this process

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.place = workplace()
        self.top = self.place / "disk"
        self.top.mkdir()
        self.spoiled: set[str] = set()  # names of objects of the store that were damaged
        self.is_spoiled = False  # anything was, also on a volume
        self.uses: dict[Key, set[str]] = {}
        self.next = {A: 1, B: 1}
        self.writing: Key | None = None
        self.ingest = self.reader = self.reading = None
        self.volumes: list[str] = []
        self.away: set[str] = set()  # volumes that are not found
        self.plan = no_fault
        self.drawn: Counter[int] = Counter()
        self.without: Collection[str] = ()  # kinds of steps

    def teardown(self) -> None:
        """Leave nothing behind."""
        try:
            self.loop.run(self._stop)
        finally:
            self.loop.close()
            shutil.rmtree(self.place, ignore_errors=True)

    async def _stop(self) -> None:
        """Close the store, whatever is under way."""
        if self.reader is not None:
            self.reader.close()
        if self.ingest is not None:
            await self.ingest.abort()
        self.reader = self.reading = self.ingest = self.writing = None
        self.world.close()

    def _do(self, step: Callable[[], Awaitable[object]], name: str = ""):
        """Run a step; remember where it began, for a loss of power in the middle of it.

        *name*: as it is counted.
        """
        if name:
            self.did[name] += 1
        self.began = len(self.calls.log)
        self.world.history = [(self.began, dict(self.world.spec.states))]
        return self.loop.run(step)

    # -- which step comes next ------------------------------------------------------

    @rule(die=st.integers(0, DIE_MAX))
    def take(self, die) -> None:
        """Take a step.

        Which one is no rule's precondition: names of objects are random and threads take turns, so
        which rules apply would differ between two runs of the same history.
        """
        self.drawn[die] += 1  # the same number often comes again, and Hypothesis begins with zeros
        name, drawn = choose(self, f"{self.salt} {die} {self.drawn[die]}", self.without)
        note(f"{name}({', '.join(f'{key}={value!r}' for key, value in drawn.items())})")
        getattr(self, name)(**drawn)

    # -- the beginning ------------------------------------------------------------

    @initialize(
        pack_pages=st.sampled_from([PACK_PAGES, 6]),
        is_filled=st.booleans(),
        die=st.integers(0, DIE_MAX),
    )
    def make(self, pack_pages, is_filled, die) -> None:
        """Make the store; with small packs every version is in several.

        *is_filled*: with versions, one in the trash, and a volume: else many steps have no object.
        """
        self.without = omitted(f"{self.salt} {die}")
        self.world = World(self.top, shape=Shape(pack_pages=pack_pages))
        self.began = 0
        self._record()
        self.world.directory.mkdir()
        self.disk = Disk.load(self.top)
        self._do(self._open)
        if is_filled:
            self._do(self._fill)

    async def _fill(self) -> None:
        for word in ("a1", "a2", "a3", "b1"):
            await self.world.save(word)
        for key in self._live():  # also of the one that goes: it may come back
            self._learn(key)
        self.next = {A: 4, B: 2}
        self.volumes = ["b"]
        (self.top / "b").mkdir(mode=0o755)
        self.calls.log += [("mkdir", ("b",)), ("sync_directory", ("",))]
        await self.world.add_volume("b")
        self.world.remove("a2", trash_s=100)

    async def _open(self) -> None:
        self.world.open()
        self.world.note()

    def _record(self) -> None:
        """Begin a new record of calls, on the disk as it is."""
        self.calls, self.plan, self.away = ProofCalls(self.top), no_fault, set()
        self.disk = Disk.load(self.top)
        self.began = 0
        self.world.calls, self.world.length = self.calls, lambda: len(self.calls.log)
        self.world.history = [(0, dict(self.world.spec.states))]

    def _live(self) -> list[Key]:
        return self.world.spec.of(LIVE)

    @property
    def present(self) -> list[str]:
        """Volumes that are not away."""
        return [name for name in self.volumes if name not in self.away]

    def _room(self) -> bool:
        return len(self._live()) < MOST

    def _pick(self, keys: list[Key], pick: int) -> Key:
        return keys[pick % len(keys)]

    def _new(self, job) -> Key:
        number = self.next[job]
        self.next[job] += 1
        return job, number

    def _learn(self, key: Key) -> None:
        """Note what a version needs, and that it may rely on damage nobody has found yet."""
        head = self.world.store.head(key[0], Version(key[1]))
        names = {word_of(key)}
        for name in {file.manifest.partition(":")[0] for file in head.files}:
            body = (self.world.directory / layout.object_path("manifests", name)).read_bytes()
            names |= {name, *manifest_packs(name, body)}
        self.uses[key] = names
        if names & self.spoiled:
            self.world.spec.hurt.add(key)

    def _settle(self, allowed) -> None:
        """Hold what is there against what may be; from now on it is what must be."""
        store = self.world.store
        self.volumes = [row.name for row in store.copies.rows()]
        for key in self.world.spec.states.keys() | allowed.keys():
            job, number = key
            trash = {int(version) for version, _ in store.trashed(job)}
            state = GONE
            if Version(number) in store.versions(job):
                state = LIVE
            elif number in trash:
                state = TRASH
            assert state in allowed.get(key, {GONE}), f"{word_of(key)} is {state} after lost power"
            self.world.spec.states[key] = state
            if state == LIVE and key not in self.uses:
                self._learn(key)
            if state == LIVE and not store.pinned(job, Version(number)):
                self.world.spec.pinned.discard(key)
            elif state == LIVE:
                self.world.spec.pinned.add(key)
        self.world.history = [(0, dict(self.world.spec.states))]  # opening changed none of it

    # -- what must be true ----------------------------------------------------------------

    @invariant()
    def everything_is_right(self) -> None:
        """Hold the store against the model."""
        if not hasattr(self, "disk"):
            return
        store = self.world.store
        assert store.degraded() == ""
        visible = {(job, int(v)) for job in store.jobs() for v in store.versions(job)}
        assert visible == set(self._live())
        trash = {(job, int(v)) for job in (A, B) for v, _ in store.trashed(job)}
        assert trash == set(self.world.spec.of(TRASH))
        for key in self.world.spec.pinned:
            assert key in visible, f"{word_of(key)} was pinned and is gone"
        self.loop.run(lambda: self.world.read_all(self.world.spec.hurt))
        found = check(self.world.directory)
        assert self.is_spoiled or found == [], found
        usage = store.usage()
        assert self.writing is not None or usage.reserved_bytes == 0
        if not self.world.spec.hurt:
            assert usage.logical_bytes == sum(
                sum(map(len, content(key).values())) for key in visible
            )
        assert usage.versions == len(visible)
