"""Two ways into a version: writes, as the mount makes them, and the pipes of a checkpointer.

`Streamer` says on the socket what ``criu dump --stream`` says, in threads of the test.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

import trio

from ckptfs.errors import CheckpointerFailed
from ckptfs.store.pipes import SOCKET
from tests.store_kit import UNIT, write_file


class Streamer:
    """The checkpointer's end.  Everything waits as criu does: call it in a thread."""

    def __init__(self, directory: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(directory / SOCKET))

    def say(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def request(self, name: str) -> None:
        message = bytes([0x0A, len(name)]) + name.encode("latin-1")
        self.say(struct.pack("<I", len(message)), message)

    def give(self, *descriptors: int) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        self.socket.sendmsg([b"\0"], [rights])

    def open(self, name: str) -> int:
        """Return the writing end of a new image."""
        reading, writing = os.pipe()
        self.request(name)
        self.give(reading)
        os.close(reading)
        return writing

    def send(self, name: str, data: bytes) -> None:
        writing = self.open(name)
        try:
            write_all(writing, data)
        finally:
            os.close(writing)

    def close(self) -> None:
        self.socket.close()


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def stream(directory: Path, files: Mapping[str, bytes]) -> None:
    """Send all files, one after the other."""
    streamer = Streamer(directory)
    try:
        for name, data in files.items():
            streamer.send(name, data)
    finally:
        streamer.close()


class Writes:
    """The way through the mount: what its handlers call."""

    async def fill(self, ingest, files: Mapping[str, bytes], directory: Path) -> None:
        for name, data in files.items():
            await write_file(ingest, UNIT, name, data)


class Streams:
    """The way through pipes."""

    async def fill(self, ingest, files: Mapping[str, bytes], directory: Path) -> None:
        receiving = ingest.receive(UNIT, directory)
        assert not isinstance(receiving, str), receiving
        async with receiving:
            await dump(directory, files)


async def dump(directory: Path, files: Mapping[str, bytes]) -> None:
    """Do as a supervisor with criu: send, and tell a failure as its own."""
    try:
        await trio.to_thread.run_sync(stream, directory, files)
    except OSError as error:
        raise CheckpointerFailed(f"criu dump: {error.strerror}") from None
