"""A store, its collector and its volumes, and beside them what must be true of it.

The content of a version is made from its name, so nothing else has to be remembered to know
whether what is read is right.
"""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ckptfs.errors import CkptfsError
from ckptfs.gc.sweep import Sweep
from ckptfs.ids import JobId, Version
from ckptfs.store.copies_record import PLAIN
from ckptfs.store.index import PACK_PAGES
from ckptfs.store.key_wrapping import wrap_for_passphrase
from ckptfs.store.keyring import KeyRing
from ckptfs.store.packs import failure_of
from ckptfs.store.store import LocalStore, open_store
from ckptfs.store.syscalls import Syscalls
from tests.ingest_kit import Streams
from tests.store_kit import PAGE, draft, load, save

A, B = JobId("a.1"), JobId("b.2")
OWNER = draft().owner.user
NOW_S = 2_000_000_000
LIVE, TRASH, GONE = "live", "trash", "gone"
PAGES = 14  # of the larger file: enough for holes, hits and new pages in every version
DIRTY = 3  # pages that differ from the version before

PASSPHRASE = "correct horse battery"

Key = tuple[JobId, int]
States = dict[Key, str]


@functools.cache
def content(key: Key, scale: int = 1) -> dict[str, bytes]:
    """Return the files of a version; a fifth of the pages differ from the version before."""
    job, version = key
    pages = [random.Random(f"{job}{n}").randbytes(PAGE) for n in range(PAGES * scale)]
    pages[1] = bytes(PAGE)
    for step in range(version):
        for n in range(DIRTY * scale):
            at = (step * DIRTY * scale + n) % len(pages)
            if at != 1:
                pages[at] = random.Random(f"{job} {step} {n}").randbytes(PAGE)
    return {"pages-1.img": b"".join(pages) + b"tail", "core-1.img": b"%d" % version, "empty": b""}


@dataclass
class Spec:
    """What must be true: the state of each version, and which may have lost bytes."""

    states: States = field(default_factory=dict[Key, str])
    pinned: set[Key] = field(default_factory=set[Key])
    hurt: set[Key] = field(default_factory=set[Key])  # reading may fail, never lie

    def of(self, state: str) -> list[Key]:
        """Return the versions in one state."""
        return sorted(key for key, found in self.states.items() if found == state)


@dataclass(frozen=True)
class Shape:
    """How large versions and packs are.  *scale*: times 14 pages; *pack_pages*: header included."""

    scale: int = 1
    pack_pages: int = PACK_PAGES


SMALL = Shape()  # one pack per version


async def no_pace(_bytes: int = 0) -> None:
    """Let the next object be copied at once."""
    await trio.lowlevel.checkpoint()


class World:
    """One store below *top*, with its volumes beside it, on a clock that is set by hand."""

    def __init__(self, top: Path, calls: Syscalls | None = None, shape: Shape = SMALL) -> None:
        self.top, self.calls, self.shape = top, calls or Syscalls(), shape
        self.now_s = float(NOW_S)
        self.spec = Spec()
        self.history: list[tuple[int, States]] = []  # calls recorded when a state was acknowledged
        self.length: Callable[[], int] = lambda: 0  # of the record
        self._store: LocalStore | None = None

    @property
    def directory(self) -> Path:
        """Return the store's directory."""
        return self.top / "store"

    @property
    def store(self) -> LocalStore:
        """Return the open store."""
        assert self._store is not None, "the store is not open"
        return self._store

    def open(self) -> LocalStore:
        """Open the store, or make it."""
        self._store = open_store(
            self.directory,
            create=True,
            clock=lambda: int(self.now_s * 1e9),
            calls=self.calls,
            pack_pages=self.shape.pack_pages,
        )
        self._store.copies._looked.set()  # nobody begins rounds here, so none is waited for
        self.sweep = Sweep(
            self._store.garbage,
            wall_s=lambda: self.now_s,
            uptime_s=lambda: self.now_s,
            is_scarce=lambda: False,
            copies=self._store.copies,
            grace_s=0,
        )
        return self._store

    @property
    def is_open(self) -> bool:
        """Whether the store is open."""
        return self._store is not None

    def close(self) -> None:
        """Close the store if it is open."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def note(self, **changed: str) -> None:
        """Acknowledge: from here on this must be true.  *changed*: ``a1=LIVE`` for a.1/1."""
        for word, state in changed.items():
            self.spec.states[key_of(word)] = state
        self.history.append((self.length(), dict(self.spec.states)))

    # -- what can be done ---------------------------------------------------------

    async def save(self, word: str) -> None:
        """Write the version *word* (``a1``) and commit it."""
        job, version = key_of(word)
        files = content((job, version), self.shape.scale)
        await save(self.store, files, version=version, job=job)
        self.note(**{word: LIVE})

    async def save_from_pipes(self, word: str) -> None:
        """Take the version *word* out of the pipes of a checkpointer and commit it."""
        job, version = key_of(word)
        files = content((job, version), self.shape.scale)
        directory = Path(tempfile.mkdtemp(dir=self.top.parent))  # on no disk that is recorded
        size = sum(map(len, files.values()))
        ingest = self.store.begin(job, Version(version), expect_bytes=size)
        try:
            await Streams().fill(ingest, files, directory)
            await ingest.commit(draft(job, version))
        finally:
            await ingest.abort()
            shutil.rmtree(directory)
        self.note(**{word: LIVE})

    def remove(self, word: str, *, trash_s: int = 3600) -> None:
        """Move a version to the trash."""
        job, version = key_of(word)
        self.store.remove(job, Version(version), trash_s=trash_s)
        self.note(**{word: TRASH})

    def undelete(self, word: str) -> None:
        """Bring a version back."""
        job, version = key_of(word)
        self.store.undelete(job, Version(version))
        self.note(**{word: LIVE})

    async def collect(self, *, empty_trash: bool = False):
        """Run the collector once; return its report.  Trash whose time is over goes."""
        report = await self.sweep.run(asked=True, empty_trash=empty_trash, tell=lambda *_: None)
        trashed = {(job, version) for job in (A, B) for version, _ in self.store.trashed(job)}
        gone = {word_of(key): GONE for key in self.spec.of(TRASH) if key not in trashed}
        self.note(**gone)
        return report

    async def verify(self, word: str):
        """Read a version whole, past every cache; return the damage."""
        job, version = key_of(word)
        return await self.store.verify(job, Version(version))

    async def scrub(self, name: str) -> tuple[int, int]:
        """Read and prove all copies on a volume; return (read, damaged)."""
        now_ns = int(self.now_s * 1e9)
        return await self.store.copies.scrub(
            name, no_pace, since_ns=now_ns, clock_ns=lambda: now_ns
        )

    async def add_volume(self, name: str, seal: str = PLAIN) -> None:
        """Make a directory and take it as a volume."""
        (self.top / name).mkdir(exist_ok=True, mode=0o755)
        await self.store.copies.add(str(self.top / name), "", seal)

    def make_key(self, *, replacing: bool = False) -> None:
        """Make the owner of all versions a key, at no effort: thousands are made."""
        ring = KeyRing(self.directory, self.calls)
        wrappers = [lambda key: wrap_for_passphrase(key, PASSPHRASE, log2n=1)]
        try:
            ring.create(OWNER, wrappers, replacing=replacing)
        except OSError as error:  # as `ckptfs key create` says it
            raise failure_of(error) from error

    async def replicate(self, level: int = 2) -> None:
        """Have one round of copying and mending, every job wanting *level* copies."""
        await self.store.copies.round({A: level, B: level}, no_pace)

    async def read_all(self, hurt: Collection[Key] = ()) -> set[Key]:
        """Read every visible version; return those that failed, all of them in *hurt*.

        Wrong bytes fail at once, an unreadable version that should be whole as well.
        """
        failed: set[Key] = set()
        for job in self.store.jobs():
            for version in self.store.versions(job):
                for name, right in content((job, int(version)), self.shape.scale).items():
                    try:
                        found = await load(self.store, name, version=version, job=job)
                    except CkptfsError as error:
                        if (job, version) not in hurt:
                            raise AssertionError(f"{job}/{version}/{name}: {error}") from error
                        failed.add((job, version))
                    else:
                        assert found == right, f"wrong bytes in {job}/{version}/{name}"
        return failed


def key_of(word: str) -> Key:
    """Return the version that ``a1`` means."""
    return {"a": A, "b": B}[word[0]], int(word[1:])


def word_of(key: Key) -> str:
    """Return the word for a version."""
    return f"{'a' if key[0] == A else 'b'}{key[1]}"
