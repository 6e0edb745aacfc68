"""Sealed files: byte ranges of images from the store, verified before they are given out."""

from __future__ import annotations

import contextlib

import trio

from ..coordinator.api import Service
from ..errors import CkptfsError, Corrupt, Forbidden, TimedOut
from ..store.api import Damage, Reader
from .nodes import Kind, Node

IN_VERSION = frozenset({Kind.VERSION, Kind.UNIT, Kind.SAVED})  # what is in them, its head says
# Of a version that is read in one go for a restart, files of this size and more go past the page
# cache: a second copy of the job's memory there would be for nobody, and filling it costs a third
# of the time (1 GiB, packs cached: 2.3-2.5 GB/s instead of 1.75-2.1).  What is smaller is read in
# pieces of a few KiB.
STRAIGHT_BYTES = 16 << 20
READ_DEADLINE_S = 60.0  # for one request; a caller inside read(2) cannot be killed


class OpenImage:
    """One open image file."""

    def __init__(
        self, service: Service, node: Node, reader: Reader, *, straight: bool = False
    ) -> None:
        self.straight = straight  # past the kernel's page cache
        self._service = service
        self._node = node
        self._reader = reader

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return verified bytes.  Raises Corrupt (EIO) and has the damage recorded, TimedOut."""
        try:
            with trio.fail_after(READ_DEADLINE_S):
                return await self._reader.read(offset, size)
        except trio.TooSlowError:
            raise TimedOut(f"the store did not answer within {READ_DEADLINE_S:.0f} s") from None
        except Corrupt as error:
            report_damage(self._service, self._node, error)
            raise

    async def write(self, offset: int, data: bytes) -> int:
        """Refuse: a version is immutable."""
        raise Forbidden("a version cannot be changed")

    def close(self) -> None:
        """Let the version go."""
        self._reader.close()


async def open_image(service: Service, node: Node) -> OpenImage:
    """Open a sealed file.  Raises NotFound, Corrupt (and has the damage recorded)."""
    try:
        await service.store.ready(node.job, node.version)
        reader = service.store.open(node.job, node.version, node.unit, node.name)
    except Corrupt as error:
        report_damage(service, node, error)
        raise
    read_through = (node.version, node.unit) in service.job(node.job).read_through
    straight = read_through and reader.size_bytes >= STRAIGHT_BYTES
    return OpenImage(service, node, reader, straight=straight)


async def have_head(service: Service, node: Node) -> None:
    """Have the head of the version that *node* lies in at hand, if need be from a volume.

    For those who are about to look into the version; a listing of its job waits for no head.
    Raises nothing: what is wrong is seen by who reads it then.
    """
    if node.kind not in IN_VERSION:
        return
    try:
        service.head(node.job, node.version)
    except Corrupt:
        with contextlib.suppress(CkptfsError):
            await service.store.ready(node.job, node.version)
    except CkptfsError:
        return


def report_damage(service: Service, node: Node, error: Corrupt) -> None:
    """Tell the service what the store found wrong with the file behind *node*."""
    known = [
        damage
        for damage in service.store.damage(node.job, node.version)
        if damage.unit == node.unit and damage.name == node.name
    ]
    found = known or [Damage(node.job, node.version, node.unit, node.name, -1, str(error))]
    for damage in found:
        service.note_damage(damage)
