"""Reading committed files: a small cache of verified blocks, and prefetch.

Blocks are loaded and proved by a worker process (`read_ring`), and by two
threads what that cannot or has no time for; the trio thread hands out bytes.
A sequential reader finds the next blocks under way already.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import trio

from ..errors import Corrupt, Gone
from .blocks import BlockLoader
from .manifest import Manifest
from .pages import BLOCK, DIGEST_SIZE, block_count
from .read_ring import ReadRing

LOADERS = 2  # threads
CACHED_BLOCKS = 24  # MiB for the whole store; a restart reads every byte once
PREFETCH = 3  # blocks ahead of a sequential reader

Key = tuple[str, int, int]  # manifest, file, block


class BlockCache:
    """Verified blocks and those being loaded.  Trio thread only."""

    def __init__(self, loader: BlockLoader, ring: ReadRing | None = None) -> None:
        self._loader, self._ring = loader, ring
        self._pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="ckptfs-read")
        self._blocks: OrderedDict[Key, Future[memoryview]] = OrderedDict()
        self._noted: tuple[tuple[str, set[tuple[int, int]]], ...] = ()  # manifest, its blocks
        self._lock = threading.Lock()  # of _noted

    def request(self, manifest: Manifest, index: int, block: int) -> Future[memoryview]:
        """Return the block, loaded or on its way.  One that failed is loaded anew."""
        key = (manifest.manifest_id, index, block)
        future = self._blocks.get(key)
        if future is None or (
            future.done() and (future.cancelled() or future.exception() is not None)
        ):
            self._blocks[key] = future = self._begin(manifest, index, block)
            if self._noted:
                future.add_done_callback(partial(self._note, key))
            while len(self._blocks) > CACHED_BLOCKS:
                self._blocks.popitem(last=False)[1].cancel()
        self._blocks.move_to_end(key)
        return future

    def expect(self) -> None:
        """Have the process that reads started: it is wanted soon, and takes 60 ms."""
        if self._ring is not None:
            self._ring.begin()

    @contextlib.contextmanager
    def noting(self, manifest_id: str) -> Generator[AbstractSet[tuple[int, int]]]:
        """Note which (file, block) are loaded and proved for readers from now on.  Any thread."""
        noted: set[tuple[int, int]] = set()
        with self._lock:
            self._noted = (*self._noted, (manifest_id, noted))
        try:
            yield noted
        finally:
            with self._lock:
                self._noted = tuple(entry for entry in self._noted if entry[1] is not noted)

    def _note(self, key: Key, future: Future[memoryview]) -> None:
        if not future.cancelled() and future.exception() is None:
            for manifest, noted in self._noted:
                if manifest == key[0]:
                    noted.add(key[1:])

    def _begin(self, manifest: Manifest, index: int, block: int) -> Future[memoryview]:
        file = manifest.files[index]
        load = partial(self._loader.load, manifest, file, block)
        if self._ring is not None and len(file.digests) > DIGEST_SIZE:  # not of small files
            future = self._ring.load(manifest, file, block, partial(self._instead, load))
            if future is not None:
                return future
        return self._pool.submit(load)

    def _instead(self, load: Callable[[], memoryview], future: Future[memoryview]) -> None:
        """Have a thread do what the worker could not."""

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(load())
                except Exception as error:
                    future.set_exception(error)

        self._pool.submit(work)

    def close(self) -> None:
        """Stop the process and the threads; what was not begun is dropped."""
        if self._ring is not None:
            self._ring.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._blocks.clear()


async def wait_done(future: Future[memoryview]) -> None:
    """Return when *future* is done, whatever came of it."""
    event = trio.Event()
    token = trio.lowlevel.current_trio_token()
    here = threading.get_ident()

    def wake(_: Future[memoryview]) -> None:
        if threading.get_ident() == here:
            event.set()
            return
        try:
            token.run_sync_soon(event.set)
        except trio.RunFinishedError:
            return  # nobody is left to wake

    future.add_done_callback(wake)
    await event.wait()


class FileReader:
    """See Reader."""

    def __init__(
        self,
        cache: BlockCache,
        manifest: Manifest,
        index: int,
        *,
        damaged: Callable[[int, str], str],
        closed: Callable[[], None],
    ) -> None:
        self.size_bytes = manifest.files[index].size_bytes
        self._cache, self._manifest, self._index = cache, manifest, index
        self._damaged, self._closed = damaged, closed
        self._blocks = block_count(self.size_bytes)
        self._expected = 0  # block a sequential reader would want next
        self._open = True

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """See Reader."""
        if not self._open:
            raise Gone("this reader was closed")
        end = min(offset + size, self.size_bytes)
        if offset < 0 or offset >= end:
            return b""
        parts: list[memoryview] = []  # of the cache's blocks: a copy costs 0.1 s per GiB
        while offset < end:
            block, start = divmod(offset, BLOCK)
            view = await self._block(block)
            part = view[start : start + end - offset]
            parts.append(part.toreadonly())
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _block(self, block: int) -> memoryview:
        sequential = block in {self._expected, self._expected - 1}
        self._expected = block + 1
        future = self._cache.request(self._manifest, self._index, block)
        if sequential:
            for ahead in range(block + 1, min(block + 1 + PREFETCH, self._blocks)):
                self._cache.request(self._manifest, self._index, ahead)
        if not future.done():
            await wait_done(future)
        if future.cancelled():  # pushed out of the cache before its turn came
            return await self._block(block)
        try:
            return future.result()
        except Corrupt as error:
            raise Corrupt(self._damaged(block, str(error))) from error

    def close(self) -> None:
        """See Reader.  May be repeated."""
        if self._open:
            self._open = False
            self._closed()
