"""Somebody who takes what a translib streams, and keeps it in memory: a stand-in for a version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ckptfs.store.pipeline import WorkThread
from ckptfs.store.pipes import Pipes, Receiver


class Keeps:
    """A `pipes.Host` without limits; the first failure is kept."""

    def __init__(self) -> None:
        self.failure: Exception | None = None

    def guard(self, step) -> None:
        try:
            if self.failure is None:
                step()
        except Exception as error:  # raised again by `arriving`
            self.failure = error

    def has_failed(self) -> bool:
        return self.failure is not None

    def make_stream(self, name):
        raise AssertionError("all is gathered")

    def check_file(self, name, files) -> None:
        assert "/" not in name

    def may_gather(self, size_bytes, gathered_bytes) -> bool:
        return True

    def check_room(self, size_bytes, gathered_bytes, answered) -> bool:
        return True


@asynccontextmanager
async def arriving(directory: Path, *, needed: bool = True) -> AsyncIterator[dict[str, bytes]]:
    """Listen in *directory*; the files are there when the block has been left."""
    files: dict[str, bytes] = {}
    if not needed:
        yield files
        return
    listener = Pipes().listen(directory)
    assert not isinstance(listener, str), listener
    thread, host, ended = WorkThread("arriving"), Keeps(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    receiver = Receiver(thread, host, listener, lambda: token.run_sync_soon(ended.set))
    thread.submit(receiver.begin)
    try:
        yield files
        thread.submit(receiver.finish)
        await ended.wait()
        if host.failure is not None:
            raise host.failure
        files.update({name: bytes(found.gathered) for name, found in receiver.files.items()})
    finally:
        thread.submit(receiver.close)
        thread.close()


async def put(directory: Path, files: dict[str, bytes]) -> None:
    """Write what arrived into the image directory."""
    for name, data in files.items():
        await trio.Path(directory / name).write_bytes(data)
