"""One version being written, as the trio thread sees it.

Nothing here waits for a disk or hashes: bytes are queued for the hashing
thread, `commit` and `abort` wait for the threads.  A small file stays in a
buffer until the commit, so it may be written in any order; one that grows
past `SMALL_MAX` streams and can only be appended to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import trio

from ..errors import CkptfsError, Forbidden, Gone, InvalidInput, NotFound
from ..ids import JobId, UnitName, Version
from ..model import Head
from . import layout
from .commit import Committer
from .dedup import Deduplicator, Known
from .hashing import Hashing
from .packs import PackSet, failed_inside, failure_of
from .pages import PAGE
from .pipeline import Flow, WorkThread
from .pipes import Arrived, Pipes
from .receive import Receiving
from .space import Promise
from .staged_file import BUFFERED_MAX, FILES_MAX, SIZE_MAX, SMALL_MAX, StagedFile
from .stream import FileStream, StoredFile

FEED_AT_ONCE = 4 << 20  # bytes handed to the hashing thread together: to wake it costs 50 us


class VersionIngest:
    """See Ingest.  Made by the store, which gives it its threads."""

    def __init__(
        self,
        job: JobId,
        version: Version,
        *,
        packs: PackSet,
        dedup: Deduplicator,
        promise: Promise,
        committer: Committer,
        hasher: Hashing,
        hashing: WorkThread,
        writing: WorkThread,
        pipes: Pipes,
        load_known: Callable[[], Known],
        refuse: Callable[[], None],
        ended: Callable[[Head | None], None],
    ) -> None:
        self.job = job
        self.version = version
        self.flow = Flow()
        self.buffered_bytes = 0
        self.committed: Head | None = None
        self._packs, self._dedup, self._promise = packs, dedup, promise
        self._committer = committer
        self._hasher = hasher
        self._hashing, self._writing, self._pipes = hashing, writing, pipes
        self._refuse, self._ended = refuse, ended
        self._files: dict[UnitName, dict[str, StagedFile]] = {}
        self._names = 0  # files, in all units
        self._held: list[tuple[StagedFile, bytes | bytearray]] = []  # not yet handed on
        self._held_bytes = 0
        self._taken = 0
        self._admitted_bytes, self._may_take = SIZE_MAX, int
        self.refused: CkptfsError | None = None
        self._receiving: set[Receiving] = set()
        self._state: Literal["open", "sealed", "gone"] = "open"
        self._finishing = trio.Lock()
        self._queue(lambda: self._learn(load_known))

    # -- files ----------------------------------------------------------------

    def create(self, unit: UnitName, name: str) -> StagedFile:
        """See Ingest."""
        self.check_writable()
        layout.check_place(unit, name)
        files = self._files.setdefault(unit, {})
        if name in files:
            self.unlink(unit, name)
        if self._names >= FILES_MAX:
            raise InvalidInput(f"a version holds at most {FILES_MAX} files")
        self._names += 1
        files[name] = StagedFile(self, unit, name)
        return files[name]

    def files(self, unit: UnitName) -> Mapping[str, StagedFile]:
        """See Ingest."""
        return self._files.get(unit, {})

    def unlink(self, unit: UnitName, name: str) -> None:
        """See Ingest.  Raises NotFound."""
        self.check_writable()
        self.unbuffer(self._take(unit, name))
        self._names -= 1

    def rename(self, unit: UnitName, old: str, new: str) -> None:
        """See Ingest.  Replaces *new*.  Raises NotFound, InvalidInput."""
        self.check_writable()
        layout.check_place(unit, new)
        if old == new and old in self.files(unit):
            return
        file = self._take(unit, old)
        if new in self._files[unit]:
            self.unlink(unit, new)
        file.name = new
        self._files[unit][new] = file

    def _take(self, unit: UnitName, name: str) -> StagedFile:
        try:
            return self._files[unit].pop(name)
        except KeyError:
            raise NotFound(f"there is no {layout.file_path(unit, name)}") from None

    def progress_bytes(self) -> int:
        """See Ingest."""
        return self._taken + sum(receiving.taken_bytes for receiving in tuple(self._receiving))

    # -- out of pipes ---------------------------------------------------------

    def receive(self, unit: UnitName, directory: Path) -> Receiving | str:
        """See Ingest."""
        self.check_writable()
        listener = self._pipes.listen(directory)
        if isinstance(listener, str):
            return listener
        receiving = Receiving(self, self._hashing, self._pipes, unit, directory, listener)
        self._receiving.add(receiving)
        return receiving

    def adopt(self, receiving: Receiving, files: Mapping[str, Arrived]) -> None:
        """Take the files that a Receiving got, whole, as if they had been written."""
        for name, arrived in files.items():
            file = self.create(receiving.unit, name)
            file.size_bytes, file.stream = arrived.size_bytes, arrived.stream
            file.buffer = arrived.gathered
            self.buffered_bytes += len(arrived.gathered or b"")
        self._receiving.discard(receiving)
        self.count(receiving.taken_bytes)

    def give_up(self, receiving: Receiving) -> None:
        """What came out of pipes is not whole, so the version will not be.  Waits for nothing."""
        self._receiving.discard(receiving)
        self._fail_as_gone()

    @property
    def names(self) -> int:
        """Files so far, in all units."""
        return self._names

    @property
    def has_failed(self) -> bool:
        """Whether there is a failure already.  Any thread."""
        return self._packs.failure is not None

    @property
    def needed_bytes(self) -> int:
        """What the promise must cover: in the pack, or on the way there.  Any thread."""
        queued = self.flow.in_flight + self._hasher.pending_bytes + self.buffered_bytes
        return self._packs.taken_bytes + queued

    def has_room(self, needed_bytes: int) -> bool:
        """Whether `make_room` has nothing to do.  Any thread."""
        promised = self._promise.reserved_bytes
        return needed_bytes <= promised and self.progress_bytes() <= self._admitted_bytes

    def make_room(self, needed_bytes: int) -> None:
        """Have the promise cover so many, and ask whether so much may be taken.

        Raises StoreFull, and what refuses a version that grows beyond its `limit`.
        """
        if self.progress_bytes() > self._admitted_bytes:
            self._admit()
        self._promise.ensure(needed_bytes)

    # -- what the files ask for -----------------------------------------------

    def check_writable(self) -> None:
        """Raise what refuses a write: the first failure, or that the version is over."""
        if self._state == "sealed":
            raise Forbidden(f"version {self.version} of {self.job} is complete")
        if self._state == "gone":
            raise Gone(f"version {self.version} of {self.job} was given up")
        if self._packs.failure is not None:
            raise type(self._packs.failure)(*self._packs.failure.args)
        if self.refused is not None:
            raise type(self.refused)(*self.refused.args)
        self._refuse()

    def may_buffer(self, file: StagedFile, end: int) -> bool:
        """Whether *file* may grow to *end* bytes in memory."""
        grows = max(0, end - file.size_bytes)
        return end <= SMALL_MAX and self.buffered_bytes + grows <= BUFFERED_MAX

    def unbuffer(self, file: StagedFile) -> bytearray:
        """Take a file's buffer out of the count and return what was in it."""
        buffer = file.buffer or bytearray()
        self.buffered_bytes -= len(buffer)
        return buffer

    def limit(self, admitted_bytes: int, may_take: Callable[[int], int]) -> None:
        """See Ingest."""
        self._admitted_bytes, self._may_take = admitted_bytes, may_take

    def _admit(self) -> None:
        """Ask for more than was admitted, when the files really are larger by now."""
        sizes = (file.size_bytes for files in self._files.values() for file in files.values())
        coming = sum(receiving.taken_bytes for receiving in tuple(self._receiving))
        if (total := sum(sizes) + coming) <= self._admitted_bytes:
            return
        try:
            self._admitted_bytes = self._may_take(total)
        except CkptfsError as error:
            self.refused = error
            raise

    def count(self, size: int) -> None:
        """Count bytes taken, and see that the promise covers them.

        Raises StoreFull, and what refuses a version that grows beyond its `limit`.
        """
        self._taken += size
        self.make_room(self.needed_bytes)

    def feed(self, file: StagedFile, data: bytes | bytearray) -> None:
        """Queue bytes of a streamed file."""
        self.flow.take(len(data))
        self._held.append((file, data))
        self._held_bytes += len(data)
        if self._held_bytes >= FEED_AT_ONCE:
            self._hand_on()

    def restart(self, file: StagedFile) -> None:
        """Have what was queued of *file* so far forgotten, in its turn."""
        if file.buffer is None:
            self._queue(lambda: self._forget(file))

    def _hand_on(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._hashing.submit(lambda: self._hash(held))

    def _queue(self, step: Callable[[], None]) -> None:
        """Have the hashing thread do *step* after all that was fed so far."""
        self._hand_on()
        self._hashing.submit(lambda: self.guard(step))

    # -- the hashing thread ---------------------------------------------------

    def guard(self, step: Callable[[], None]) -> None:
        """Do a step unless one failed before; what it raises is the version's failure."""
        try:
            if self._packs.failure is None:
                step()
        except CkptfsError as error:
            self._packs.failure = error
        except OSError as error:
            self._packs.failure = failure_of(error)
        except BaseException as error:  # a bug: this version fails, the thread serves the others
            self._packs.failure = failed_inside(error)

    def _learn(self, load_known: Callable[[], Known]) -> None:
        # The room for what comes is touched now, when the job is still running.
        self._packs.make_pieces(self._promise.reserved_bytes)
        self._hasher.warm(self._promise.reserved_bytes)
        known = load_known()
        self._committer.known_packs, self._committer.parent = known.packs, known.version
        self._packs.number_from(len(known.packs))
        self._dedup.learn(known, self._promise.reserved_bytes // PAGE)
        del known
        self._dedup.begin()

    def make_stream(self, unit: UnitName, name: str) -> FileStream:
        """Begin a file that is hashed as it comes."""
        return FileStream(self._dedup, self._hasher, unit, name, self.guard)

    def _hash(self, held: list[tuple[StagedFile, bytes | bytearray]]) -> None:
        held.reverse()
        while held:  # each is let go of once it is done
            file, data = held.pop()
            self.guard(partial(self._feed, file, data))
            self.flow.done(len(data))

    def _feed(self, file: StagedFile, data: bytes | bytearray) -> None:
        if file.stream is None:
            file.stream = self.make_stream(file.unit, file.name)
        file.stream.feed(data)

    def _forget(self, file: StagedFile) -> None:
        file.stream = None

    def _finish(self, stored: list[StoredFile]) -> None:
        """Take the ends of all files, seal the packs, then fill *stored*, in order of the names."""
        streams: list[tuple[StagedFile, FileStream]] = []
        for unit in sorted(self._files):
            for name in sorted(self._files[unit]):
                file = self._files[unit][name]
                streams.append((file, self._close_file(file)))
        self._hasher.drain()
        if self._packs.failure is not None:
            return
        self._packs.finish()
        self._dedup.close()
        stored += [stream.record(file.unit, file.name) for file, stream in streams]

    def _close_file(self, file: StagedFile) -> FileStream:
        stream = file.stream
        if stream is None or file.buffer is not None:
            stream = self.make_stream(file.unit, file.name)
        if file.buffer is not None:
            stream.feed(file.buffer)
        stream.close()
        return stream

    # -- the end --------------------------------------------------------------

    async def commit(self, head: Head) -> Head:
        """See Ingest."""
        async with self._finishing:
            self.check_writable()
            if (head.job, head.version) != (self.job, self.version):
                raise InvalidInput(f"this is version {self.version} of {self.job}")
            self._state = "sealed"
            stored: list[StoredFile] = []
            self._queue(lambda: self._finish(stored))
            drained = self._drained()
            try:
                # Not cancelled half way: the thread runs to its end and its answer counts.
                with trio.CancelScope(shield=True):
                    self.committed = await trio.to_thread.run_sync(
                        lambda: self._committer.commit(head, stored, drained)
                    )
            finally:
                stored.clear()
                self._end()
            if self.committed is None:
                raise Gone(f"version {self.version} of {self.job} was given up")
            return self.committed

    async def abort(self) -> None:
        """See Ingest."""
        with trio.CancelScope(shield=True):
            async with self._finishing:
                if self._state != "open":
                    return
                self._state = "gone"
                self.cut_off()
                drained = self._drained()
                await trio.to_thread.run_sync(lambda: self._committer.forget(drained))
                self._end()

    def cut_off(self) -> None:
        """Give up at once whatever still writes: the store closes.  Waits for nothing."""
        self._fail_as_gone()
        for receiving in tuple(self._receiving):
            receiving.close()

    def _fail_as_gone(self) -> None:
        if self._packs.failure is None:
            self._packs.failure = Gone(f"version {self.version} of {self.job} was given up")

    def _end(self) -> None:
        self._state = "sealed" if self.committed else "gone"
        self._promise.release()
        # a version is held by cycles, and by whom it fed: what is large goes now, not with it
        self._packs.release()
        self._dedup.forget()
        self._files.clear()
        self._receiving.clear()
        self.buffered_bytes = 0
        self._ended(self.committed)

    def _drained(self) -> threading.Event:
        """Return an event that is set when everything queued so far is through both threads."""
        event = threading.Event()
        self._hand_on()
        self._hashing.submit(self._hasher.forget)
        self._hashing.submit(lambda: self._writing.submit(event.set))
        return event
