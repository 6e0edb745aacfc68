"""Random histories of a whole store, by Hypothesis, with everything held against a simple model.

Steps: those in `steps.WEIGHTS`.  After every step every version is read and the store is checked.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter

import hypothesis
from hypothesis.stateful import run_state_machine_as_test

from ckptfs.errors import Busy, CkptfsError, StoreFull
from ckptfs.gc.decide import Candidate, JobFacts, Retention, decide
from ckptfs.ids import Version
from tests.store_kit import UNIT, draft, load, write_file

from .ageing import Ageing
from .calls import nth
from .damage import SPOILS, damage
from .disk import DICE, POLICIES, put_down
from .history import History
from .judge import between, settled
from .machine_volumes import Volumes
from .scenario import mend_store
from .steps import one_of, pick, step
from .world import GONE, LIVE, TRASH, A, B, Key, content, word_of

MUST = frozenset(  # steps that no run of many histories may be without
    {
        *("checkpoint", "checkpoint out of pipes", "checkpoint on a full disk", "remove", "retain"),
        *("undelete", "restore", "scrub a version", "pin", "collect", "crash", "corrupt", "repair"),
        *("replicate", "scrub a volume", "scrub the packs", "drain", "let a volume go"),
        *("a volume goes away", "a volume comes back", "change the key"),
        *("finish a checkpoint", "give a checkpoint up", "read an open file", "open anew"),
    }
)
WAYS = (*POLICIES, *DICE)
BATCH = 8  # histories; from the tenth on Hypothesis plays variations of those it has played


class StoreMachine(Ageing, Volumes):
    """See the top of this file."""

    # -- writing ------------------------------------------------------------------

    @step(job=one_of(A, B), when=History._room)
    def checkpoint(self, job) -> None:
        """Write a version."""
        key = self._new(job)
        self._do(lambda: self.world.save(word_of(key)), "checkpoint")
        self._learn(key)

    @step(job=one_of(A, B), when=History._room)
    def out_of_pipes(self, job) -> None:
        """Take a version out of the pipes of a checkpointer."""
        key = self._new(job)
        self._do(lambda: self.world.save_from_pipes(word_of(key)), "checkpoint out of pipes")
        self._learn(key)

    @step(job=one_of(A, B), at=one_of(*range(41)), when=History._room)
    def refuse(self, job, at) -> None:
        """Write a version on a disk that is full at one of the calls."""
        key = self._new(job)
        first = self.calls.changes
        self.calls.plan = nth(first + at, errno.ENOSPC)
        try:
            self._do(lambda: self.world.save(word_of(key)), "checkpoint on a full disk")
            self._learn(key)
        except StoreFull:
            self.world.note(**{word_of(key): GONE})
        finally:
            self.calls.plan = self.plan

    @step(job=one_of(A, B), when=lambda self: self.writing is None)
    def begin(self, job) -> None:
        """Begin a version, and leave it half written."""
        key = self._new(job)

        async def step() -> None:
            self.ingest = self.world.store.begin(key[0], Version(key[1]), expect_bytes=100_000)
            await write_file(self.ingest, UNIT, "pages-1.img", content(key)["pages-1.img"])

        self.writing = key
        self._do(step, "begin a checkpoint")

    @step(when=lambda self: self.writing is not None and self._room())
    def finish(self) -> None:
        """Write the rest of it and commit."""
        key, ingest = self.writing, self.ingest

        async def step() -> None:
            for name in ("core-1.img", "empty"):
                await write_file(ingest, UNIT, name, content(key)[name])
            await ingest.commit(draft(key[0], key[1]))
            self.world.note(**{word_of(key): LIVE})

        self.writing = self.ingest = None
        self._do(step, "finish a checkpoint")
        self._learn(key)

    @step(when=lambda self: self.writing is not None)
    def give_up(self) -> None:
        """Give it up."""
        ingest, self.writing, self.ingest = self.ingest, None, None
        self._do(ingest.abort, "give a checkpoint up")

    # -- removing, keeping ----------------------------------------------------------

    @step(pick=pick, trash_s=one_of(0, 100), when=lambda self: self._live())
    def remove(self, pick, trash_s) -> None:
        """Remove a version; one that is pinned or open stays."""
        key = self._pick(self._live(), pick)
        stays = key in self.world.spec.pinned or key == self.reading

        async def step() -> None:
            try:
                self.world.remove(word_of(key), trash_s=trash_s)
            except Busy:
                assert stays, f"{word_of(key)} is neither pinned nor open"
            else:
                assert not stays, f"{word_of(key)} is pinned or open, and was removed"

        self._do(step, "remove")

    @step(pick=pick, when=lambda self: self.world.spec.of(TRASH) and self._room())
    def undelete(self, pick) -> None:
        """Bring a version back."""
        key = self._pick(self.world.spec.of(TRASH), pick)

        async def step() -> None:
            try:
                self.world.undelete(word_of(key))
            except CkptfsError:
                assert key in self.world.spec.hurt, f"{word_of(key)} is whole and stays away"

        self._do(step, "undelete")

    @step(pick=pick, on=one_of(True, False), when=lambda self: self._live())
    def pin(self, pick, on) -> None:
        """Pin a version, or let it go."""
        key = self._pick(self._live(), pick)

        async def step() -> None:
            self.world.store.pin(key[0], Version(key[1]), on)
            (self.world.spec.pinned.add if on else self.world.spec.pinned.discard)(key)

        self._do(step, "pin")

    @step(pick=pick, when=lambda self: self._live())
    def open_reader(self, pick) -> None:
        """Open a version for reading, and leave it open."""
        key = self._pick(self._live(), pick)
        if key in self.world.spec.hurt or self.reader is not None:
            return
        self.did["open a file"] += 1
        self.reading = key
        self.reader = self.world.store.open(key[0], Version(key[1]), UNIT, "pages-1.img")

    @step(when=lambda self: self.reader is not None)
    def read_on(self) -> None:
        """Read what was left open."""
        reader, key = self.reader, self.reading

        async def step() -> bytes:
            return await reader.read(0, 1 << 20)

        try:
            found = self._do(step, "read an open file")
            assert found == content(key)["pages-1.img"], "an open file changed"
        except CkptfsError:
            assert key in self.world.spec.hurt, "an open file cannot be read"
        finally:
            reader.close()
            self.reader = self.reading = None

    @step(job=one_of(A, B), last=one_of(1, 2, 3))
    def retain(self, job, last) -> None:
        """Let go what the rules of retention let go."""
        store = self.world.store
        keys = [key for key in self._live() if key[0] == job]

        def candidate(key: Key) -> Candidate:
            version = Version(key[1])
            head = draft(*key)
            return Candidate(
                version,
                key[1],
                not store.damage(job, version),
                store.pinned(job, version),
                key == self.reading,
                head.purpose,
                head.initiator,
            )

        candidates = [candidate(key) for key in keys]
        verdicts = decide(JobFacts(job, False, Retention(last)), candidates, 10**12)
        going = {verdict.version for verdict in verdicts if not verdict.stays}
        newest = max((c.version for c in candidates if c.restartable), default=None)
        assert newest not in going, "the newest restartable version of a live job goes"

        async def step() -> None:
            for version in going:
                self.world.remove(word_of((job, int(version))), trash_s=0)

        self._do(step, "retain")

    @step(empty=one_of(True, False))
    def collect(self, empty) -> None:
        """Collect garbage."""
        report = self._do(lambda: self.world.collect(empty_trash=empty), "collect")
        assert report.restored == 0, "something was condemned that was needed"
        assert self.is_spoiled or not report.doubt, report.doubt

    @step(seconds=one_of(1, 60, 200))
    def pass_time(self, seconds) -> None:
        """Let time pass, so that the trash expires."""
        self.did["let time pass"] += 1
        self.world.now_s += seconds

    # -- damage and what is done about it ---------------------------------------------

    @step(
        place=one_of("store/packs/??", "store/manifests/??", "b/packs/??", "c/*/??"),
        pick=pick,
        spoil=one_of(*sorted(SPOILS)),
        when=lambda self: self.uses,
    )
    def damage(self, place, pick, spoil) -> None:
        """Damage an object of the store or of a volume."""
        found = sorted(path for path in self.top.glob(f"{place}/*") if path.is_file())
        if not found:
            return
        path = found[pick % len(found)]
        before, other = path.read_bytes(), found[(pick + 1) % len(found)].read_bytes()
        after = SPOILS[spoil](before, other, random.Random(pick))
        if after == before:
            return
        self.did["corrupt"] += 1
        damage(path, after)
        self.calls.log.append(("spoil", (str(path.relative_to(self.top)), after)))
        self.is_spoiled = True
        if place.startswith("store"):
            name = path.name.removesuffix(".pages")
            self.spoiled.add(name)
            self.world.spec.hurt |= {key for key, uses in self.uses.items() if name in uses}

    @step(pick=pick, when=lambda self: self._live())
    def verify(self, pick) -> None:
        """Verify a version; one that turns out whole must be readable from now on."""
        key = self._pick(self._live(), pick)
        found = self._do(lambda: self.world.verify(word_of(key)), "scrub a version")
        assert not found or key in self.world.spec.hurt, f"{word_of(key)} is whole: {found}"

    @step(pick=pick, when=lambda self: self._live())
    def restore(self, pick) -> None:
        """Prove a version and read it whole, as a restart does; what it proves must be right."""
        job, number = key = self._pick(self._live(), pick)
        version = Version(number)

        async def step() -> bool:
            store = self.world.store
            try:
                await store.ready(job, version)
                if await store.prove(job, version):
                    return False
                for name, right in content(key).items():
                    assert await load(store, name, version=version, job=job) == right
            except CkptfsError:
                return False
            return True

        is_whole = self._do(step, "restore")
        assert is_whole or key in self.world.spec.hurt, f"{word_of(key)} cannot be restarted"

    @step()
    def reopen(self) -> None:
        """End the service and begin another."""
        self._do(self._stop)
        self._do(self._open, "open anew")

    @step()
    def repair(self) -> None:
        """End the service and repair the store: nothing that can be seen goes."""
        self._do(self._stop)

        async def step() -> None:
            outcome = mend_store(self.world)
            assert self.is_spoiled or not outcome.lost, outcome.lost

        self._do(step, "repair")
        self._do(self._open)

    # -- lost power -------------------------------------------------------------------

    @step(part=random.Random.random, way=one_of(*range(len(WAYS))), seed=pick)
    def lose_power(self, part, way, seed) -> None:
        """Lose power somewhere in the step before this one."""
        end = len(self.calls.log)
        number = self.began + round(part * (end - self.began))
        history = list(self.world.history)
        self._do(self._stop)
        for op in self.calls.log[:number]:
            self.disk.apply(op)
        image = self.disk.lost(WAYS[way], random.Random(seed))
        shutil.rmtree(self.top)
        put_down(image, self.top)
        self._record()
        allowed = settled(history[0][1]) | between(history, number)
        self._do(self._open, "crash")
        self._settle(allowed)


def play(*, seed: int = 0, examples: int, steps: int) -> Counter[str]:
    """Play *examples* histories of at most *steps*; return how often each step was taken."""
    before = Counter(StoreMachine.did)
    for number, first in enumerate(range(0, examples, BATCH)):
        wanted = hypothesis.settings(
            max_examples=min(BATCH, examples - first),
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        salt = f"{seed} {number}"
        machine = type(StoreMachine.__name__, (StoreMachine,), {"salt": salt})
        hypothesis.seed(salt)(machine)
        run_state_machine_as_test(machine, settings=wanted)
    return StoreMachine.did - before
