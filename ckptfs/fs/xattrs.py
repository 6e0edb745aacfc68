"""``user.ckptfs.*``: what is known of a sealed object beside its bytes.  Read-only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from ..coordinator.api import Service
from ..errors import CkptfsError, NoData, NotFound, TimedOut
from ..model import Head
from .attributes import SECTOR, Attributes
from .namespace import Namespace
from .nodes import Kind, Node
from .shows import time_text

PREFIX = "user.ckptfs."
DEADLINE_S = 10.0  # for a sha256 that must still be computed
Value = Callable[[Node, Head], Awaitable[str]]


class Xattrs:
    """The attributes of versions, units and sealed files."""

    def __init__(self, service: Service, namespace: Namespace, attributes: Attributes) -> None:
        self._service = service
        self._namespace = namespace
        self._attributes = attributes
        shared: dict[str, Value] = {
            "owner": self._owner,
            "replicas": self._replicas,
            "level": self._level,
            "unique_bytes": self._unique_bytes,
            "charged_bytes": self._charged_bytes,
            "class": self._class,
            "purpose": self._purpose,
            "initiator": self._initiator,
            "verified_at": self._verified_at,
        }
        of_files = {"blake3": self._blake3, "sha256": self._sha256, **shared}
        self._tables: Mapping[Kind, Mapping[str, Value]] = {
            Kind.VERSION: shared,
            Kind.UNIT: shared,
            Kind.IMAGE: of_files,
        }

    def names(self, node: Node) -> list[bytes]:
        """Return the full names, as listxattr(2) gives them."""
        if node.kind not in self._tables or not self._is_readable(node):
            return []
        return [f"{PREFIX}{name}".encode() for name in self._tables[node.kind]]

    def _is_readable(self, node: Node) -> bool:
        """Whether the version's head is known to be good; ``ls -l`` asks this of every version."""
        self._namespace.check_version(node)
        try:
            self._service.store.account(node.job, node.version)
        except NotFound:
            raise
        except CkptfsError:
            return False
        return True

    async def value(self, node: Node, name: bytes) -> bytes:
        """Return one value.  Raises NoData (ENODATA), TimedOut."""
        table = self._tables.get(node.kind)
        short = name.decode("utf-8", "replace").removeprefix(PREFIX)
        if table is None or not name.startswith(PREFIX.encode()) or short not in table:
            raise NoData(f"no attribute {name!r}")
        head = self._namespace_head(node)
        if head is None:
            raise NoData(f"version {node.version} of {node.job} is damaged")
        return (await table[short](node, head)).encode()

    def _namespace_head(self, node: Node) -> Head | None:
        return self._namespace.head(node) if node.kind in self._tables else None

    async def _owner(self, node: Node, head: Head) -> str:
        return head.owner.user

    async def _replicas(self, node: Node, head: Head) -> str:
        return str(self._service.replicas(node.job, node.version))

    async def _level(self, node: Node, head: Head) -> str:
        return str(self._service.job(node.job).replication)

    async def _purpose(self, node: Node, head: Head) -> str:
        return head.purpose

    async def _initiator(self, node: Node, head: Head) -> str:
        return head.initiator

    async def _verified_at(self, node: Node, head: Head) -> str:
        verified_ns = self._service.store.verified_ns(node.job, node.version)
        return time_text(verified_ns) if verified_ns else "never"

    async def _unique_bytes(self, node: Node, head: Head) -> str:
        if node.kind is Kind.VERSION:
            return str(self._service.store.unique_bytes(node.job, node.version))
        blocks = self._attributes.blocks(node)
        if node.kind is Kind.IMAGE:
            return str(SECTOR * blocks.get((node.unit, node.name), 0))
        return str(SECTOR * sum(count for (unit, _), count in blocks.items() if unit == node.unit))

    async def _class(self, node: Node, head: Head) -> str:
        return self._service.charges.of_version(node.job, node.version)[0]

    async def _charged_bytes(self, node: Node, head: Head) -> str:
        """A version's charge, shared out over its files by size."""
        charged = self._service.charges.of_version(node.job, node.version)[1]
        if node.kind is Kind.VERSION or not head.logical_bytes:
            return str(charged)
        files = [f for f in head.files if f.unit == node.unit]
        names = {node.name} if node.kind is Kind.IMAGE else {f.name for f in files}
        size = sum(file.size_bytes for file in files if file.name in names)
        return str(charged * size // head.logical_bytes)

    async def _blake3(self, node: Node, head: Head) -> str:
        return self._namespace.file(node).blake3

    async def _sha256(self, node: Node, head: Head) -> str:
        try:
            with trio.fail_after(DEADLINE_S):
                sums = await self._service.store.sums(node.job, node.version)
        except trio.TooSlowError:
            raise TimedOut("SHA256SUMS is still being computed") from None
        path = f"./{node.unit}/{node.name}" if node.unit else f"./{node.name}"
        for line in sums.decode().splitlines():
            digest, _, name = line.partition("  ")
            if name == path:
                return digest
        raise NoData(f"{path} is not in SHA256SUMS")
