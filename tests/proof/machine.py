"""Random histories of a whole store, by Hypothesis, with everything held against a simple model.

Steps: write, refuse, remove, bring back, pin, retain, collect, verify, damage, copy, scrub copies,
drain, restore, repair, lose power in the middle of the step before, be opened again.  After every
step every version is read and the store is checked.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    rule,
    run_state_machine_as_test,
)

from ckptfs.errors import Busy, CkptfsError, StoreFull
from ckptfs.gc.decide import Candidate, JobFacts, Retention, decide
from ckptfs.ids import Version
from ckptfs.store.copies_record import COMPRESS, ENCRYPT, PLAIN
from tests.store_kit import UNIT, draft, load, write_file

from .ageing import Ageing
from .calls import no_fault, nth
from .damage import SPOILS, damage
from .disk import DICE, POLICIES, put_down
from .history import History, when
from .judge import between, settled
from .scenario import mend_store
from .world import GONE, LIVE, TRASH, A, B, Key, content, word_of

VOLUMES = ("b", "c")
MUST = frozenset(  # steps that no run of many histories may be without
    {
        *("checkpoint", "remove", "retain", "collect", "crash", "corrupt", "replicate"),
        *("scrub a version", "scrub a volume", "restore", "drain", "repair", "undelete"),
    }
)
WAYS = (*POLICIES, *DICE)
picks = st.integers(0, 10**6)  # an index into whatever there is


class StoreMachine(Ageing):
    """See the top of this file."""

    # -- writing ------------------------------------------------------------------

    @rule(job=st.sampled_from([A, B]))
    @when(History._room)
    def checkpoint(self, job) -> None:
        """Write a version."""
        key = self._new(job)
        self._do(lambda: self.world.save(word_of(key)), "checkpoint")
        self._learn(key)

    @rule(job=st.sampled_from([A, B]), at=st.integers(0, 40))
    def refuse(self, job, at) -> None:
        """Write a version on a disk that is full at one of the calls."""
        if not self._room():
            return
        key = self._new(job)
        first = self.calls.changes
        self.calls.plan = nth(first + at, errno.ENOSPC)
        try:
            self._do(lambda: self.world.save(word_of(key)), "checkpoint on a full disk")
            self._learn(key)
        except StoreFull:
            self.world.note(**{word_of(key): GONE})
        finally:
            self.calls.plan = no_fault

    @rule(job=st.sampled_from([A, B]))
    @when(lambda self: self.writing is None)
    def begin(self, job) -> None:
        """Begin a version, and leave it half written."""
        key = self._new(job)

        async def step() -> None:
            self.ingest = self.world.store.begin(key[0], Version(key[1]), expect_bytes=100_000)
            await write_file(self.ingest, UNIT, "pages-1.img", content(key)["pages-1.img"])

        self.writing = key
        self._do(step, "begin a checkpoint")

    @rule()
    @when(lambda self: self.writing is not None and self._room())
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

    @rule()
    @when(lambda self: self.writing is not None)
    def give_up(self) -> None:
        """Give it up."""
        ingest, self.writing, self.ingest = self.ingest, None, None
        self._do(ingest.abort, "give a checkpoint up")

    # -- removing, keeping ----------------------------------------------------------

    @rule(pick=picks, trash_s=st.sampled_from([0, 100]))
    @when(lambda self: self._live())
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

    @rule(pick=picks)
    @when(lambda self: self.world.spec.of(TRASH) and self._room())
    def undelete(self, pick) -> None:
        """Bring a version back."""
        key = self._pick(self.world.spec.of(TRASH), pick)

        async def step() -> None:
            try:
                self.world.undelete(word_of(key))
            except CkptfsError:
                assert key in self.world.spec.hurt, f"{word_of(key)} is whole and stays away"

        self._do(step, "undelete")

    @rule(pick=picks, on=st.booleans())
    @when(lambda self: self._live())
    def pin(self, pick, on) -> None:
        """Pin a version, or let it go."""
        key = self._pick(self._live(), pick)

        async def step() -> None:
            self.world.store.pin(key[0], Version(key[1]), on)
            (self.world.spec.pinned.add if on else self.world.spec.pinned.discard)(key)

        self._do(step, "pin")

    @rule(pick=picks)
    @when(lambda self: self._live())
    def open_reader(self, pick) -> None:
        """Open a version for reading, and leave it open."""
        key = self._pick(self._live(), pick)
        if key in self.world.spec.hurt or self.reader is not None:
            return
        self.did["open a file"] += 1
        self.reading = key
        self.reader = self.world.store.open(key[0], Version(key[1]), UNIT, "pages-1.img")

    @rule()
    @when(lambda self: self.reader is not None)
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

    @rule(job=st.sampled_from([A, B]), last=st.integers(1, 3))
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

    @rule(empty=st.booleans())
    def collect(self, empty) -> None:
        """Collect garbage."""
        report = self._do(lambda: self.world.collect(empty_trash=empty), "collect")
        assert report.restored == 0, "something was condemned that was needed"
        assert self.is_spoiled or not report.doubt, report.doubt

    @rule(seconds=st.sampled_from([1, 60, 200]))
    def pass_time(self, seconds) -> None:
        """Let time pass, so that the trash expires."""
        self.did["let time pass"] += 1
        self.world.now_s += seconds

    # -- damage and what is done about it ---------------------------------------------

    @rule(
        place=st.sampled_from(["store/packs/??", "store/manifests/??", "b/packs/??", "c/*/??"]),
        pick=picks,
        spoil=st.sampled_from(sorted(SPOILS)),
    )
    @when(lambda self: self.uses)
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

    @rule(pick=picks)
    @when(lambda self: self._live())
    def verify(self, pick) -> None:
        """Verify a version; one that turns out whole must be readable from now on."""
        key = self._pick(self._live(), pick)
        found = self._do(lambda: self.world.verify(word_of(key)), "scrub a version")
        assert not found or key in self.world.spec.hurt, f"{word_of(key)} is whole: {found}"

    @rule(pick=picks)
    @when(lambda self: self.volumes)
    def scrub(self, pick) -> None:
        """Read and prove the copies on a volume."""
        name = self.volumes[pick % len(self.volumes)]
        _, damaged = self._do(lambda: self.world.scrub(name), "scrub a volume")
        assert self.is_spoiled or not damaged, f"{damaged} copies on {name} are damaged"

    @rule(pick=picks)
    @when(lambda self: self._live())
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

    @rule(level=st.integers(1, 3))
    def replicate(self, level) -> None:
        """Have a round of copying and mending."""
        self._do(lambda: self.world.replicate(level), "replicate")

    async def _make_key(self) -> None:
        self.world.make_key()

    @rule(seal=st.sampled_from([PLAIN, PLAIN, COMPRESS, ENCRYPT]))
    @when(lambda self: len(self.volumes) < len(VOLUMES))
    def add_volume(self, seal) -> None:
        """Take another volume."""
        name = min(set(VOLUMES) - set(self.volumes))
        if not (self.top / name).exists():
            (self.top / name).mkdir(mode=0o755)
            self.calls.log += [("mkdir", (name,)), ("sync_directory", ("",))]
        if seal == ENCRYPT and not (self.world.directory / "keys/owners").exists():
            self._do(self._make_key)
        self._do(lambda: self.world.add_volume(name, seal), "add a volume")
        self.volumes = [*self.volumes, name]

    @rule(pick=picks, on=st.booleans())
    @when(lambda self: self.volumes)
    def drain(self, pick, on) -> None:
        """Begin to drain a volume, or use it again."""
        name = self.volumes[pick % len(self.volumes)]

        async def step() -> None:
            self.world.store.copies.set_draining(name, on)

        self._do(step, "drain")

    @rule()
    def reopen(self) -> None:
        """End the service and begin another."""
        self._do(self._stop)
        self._do(self._open, "open anew")

    @rule()
    def repair(self) -> None:
        """End the service and repair the store: nothing that can be seen goes."""
        self._do(self._stop)

        async def step() -> None:
            outcome = mend_store(self.world)
            assert self.is_spoiled or not outcome.lost, outcome.lost

        self._do(step, "repair")
        self._do(self._open)

    # -- lost power -------------------------------------------------------------------

    @rule(part=st.floats(0, 1), way=st.integers(0, len(WAYS) - 1), seed=picks)
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


def play(*, seed: int | None = None, examples: int, steps: int) -> Counter[str]:
    """Play *examples* histories of at most *steps*; return how often each step was taken.

    *seed* None: the same ones every time.
    """
    wanted = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=seed is None,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    before = Counter(StoreMachine.did)
    machine = StoreMachine if seed is None else hypothesis.seed(seed)(StoreMachine)
    run_state_machine_as_test(machine, settings=wanted)
    return StoreMachine.did - before
