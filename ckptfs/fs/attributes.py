"""Nodes → what stat(2) shows, and how long the kernel may keep it.

The cache rule.  Names that never come to mean something else are kept for an
hour; the removal of a version or job is announced (see `notify`).  Attributes
of directories and sealed files are kept for one second: ``st_blocks`` shrinks
when a neighbour that shared pages goes.  ``latest``, the spool, the staging
area and the attributes of control files are asked for every time.  Without
the rule for directories ``ls -l`` of 3000 versions took 47 000 requests.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyfuse3 import EntryAttributes, InodeT, ModeT

from ..coordinator.api import Service
from ..errors import CkptfsError, NotFound
from ..ids import JobId, UnitName, Version
from ..model import FileEntry
from .interface import JOB_FILES, SERVICE_FILES, VERSION_FILES
from .namespace import Namespace
from .nodes import OF_A_VERSION, STAGED, Kind, Node
from .spool import Spool
from .staging import Staging

NAME_S = 3600.0
ATTRIBUTES_S = 1.0
SECTOR = 512  # bytes, unit of st_blocks
LINK_MODE = stat.S_IFLNK | 0o777
FileKey = tuple[UnitName, str]

MODES: Mapping[Kind, int] = {
    Kind.ROOT: stat.S_IFDIR
    | 0o1777,  # sticky: an owner may remove his ended job, nobody may create
    Kind.SERVICE_CTL: stat.S_IFDIR | 0o555,
    Kind.SPOOL: stat.S_IFDIR | 0o1777,
    Kind.JOB: stat.S_IFDIR | 0o700,
    Kind.JOB_CTL: stat.S_IFDIR
    | 0o700,  # 0700 from here down so that rm -r passes the kernel's check
    Kind.LATEST: LINK_MODE,
    Kind.VERSION: stat.S_IFDIR | 0o700,
    Kind.VERSION_CTL: stat.S_IFDIR | 0o700,
    Kind.UNIT: stat.S_IFDIR | 0o700,
    Kind.SAVED: stat.S_IFDIR | 0o700,
    Kind.IMAGE: stat.S_IFREG | 0o400,
    Kind.SUMS: stat.S_IFREG | 0o400,
    Kind.STAGING: stat.S_IFDIR | 0o700,
    Kind.STAGED_VERSION: stat.S_IFDIR | 0o700,
    Kind.STAGED_UNIT: stat.S_IFDIR | 0o700,
    Kind.STAGED_SAVED: stat.S_IFDIR | 0o700,
    Kind.STAGED_FILE: stat.S_IFREG | 0o600,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one object.  *blocks* of 512 bytes; times in ns."""

    mode: int
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    blocks: int = 0
    mtime_ns: int = 0
    name_s: float = 0  # how long the kernel may keep the name
    attributes_s: float = 0  # and the rest


def share_blocks(unique_bytes: int, files: Sequence[FileEntry]) -> dict[FileKey, int]:
    """Spread a version's own bytes over its files by size, in whole blocks.

    The store knows how much only this version holds, not which file holds it;
    the sum over the files is exact, so ``du`` is.
    """
    total = sum(file.size_bytes for file in files)
    blocks = unique_bytes // SECTOR
    ends = [
        size * blocks // total if total else 0
        for size in itertools.accumulate(file.size_bytes for file in files)
    ]
    shares = (end - start for start, end in itertools.pairwise([0, *ends]))
    return {(file.unit, file.name): share for file, share in zip(files, shares, strict=True)}


def entry_attributes(number: int, facts: Facts) -> EntryAttributes:
    """Return *facts* in the kernel's form."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(number)
    entry.st_mode = ModeT(facts.mode)
    entry.st_nlink = 1  # also of directories: "not counted", as btrfs does; find(1) knows
    entry.st_uid, entry.st_gid = facts.uid, facts.gid
    entry.st_size, entry.st_blocks = facts.size_bytes, facts.blocks
    entry.st_blksize = 1 << 20  # what cp and cat should read at once: one verified block
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = facts.mtime_ns
    entry.entry_timeout, entry.attr_timeout = facts.name_s, facts.attributes_s
    return entry


class Attributes:
    """Facts of any node.  Raises NotFound for what is gone."""

    def __init__(
        self,
        namespace: Namespace,
        service: Service,
        spool: Spool,
        staging: Staging,
        *,
        mounted_ns: int,
    ) -> None:
        self._namespace = namespace
        self._service = service
        self._spool = spool
        self._staging = staging
        self._mounted_ns = mounted_ns
        self._blocks: dict[JobId, dict[Version, dict[FileKey, int]]] = {}
        self._special: dict[Kind, Callable[[Node], Facts]] = {
            Kind.SPOOL: self._of_spool,
            Kind.SPOOL_FILE: self._of_spool_file,
            Kind.STAGED_FILE: self._of_staged_file,
            Kind.SERVICE_FILE: lambda node: self._control(SERVICE_FILES[node.name].mode, node),
            Kind.JOB_FILE: lambda node: self._control(JOB_FILES[node.name].mode, node),
            Kind.VERSION_FILE: lambda node: self._control(VERSION_FILES[node.name].mode, node),
        }

    def facts(self, node: Node) -> Facts:
        """Return what stat(2) shows of *node*.  Raises NotFound (ENOENT)."""
        special = self._special.get(node.kind)
        if special is not None:
            return special(node)
        mode = MODES[node.kind]
        if node.kind in OF_A_VERSION:
            return self._of_version(node, mode)
        if node.kind in STAGED:
            return Facts(mode, mtime_ns=self._mounted_ns)
        if node.kind is Kind.LATEST:
            target = str(self._namespace.latest(node))
            return self._of_job(node, mode, size_bytes=len(target))
        if not node.job:
            return Facts(mode, mtime_ns=self._mounted_ns, name_s=NAME_S, attributes_s=ATTRIBUTES_S)
        return self._of_job(node, mode, name_s=NAME_S, attributes_s=ATTRIBUTES_S)

    def listed(self, node: Node) -> Facts:
        """Return what goes beside a name in a listing; waits for no head.

        Of a version whose head has not been read since the start the kernel gets no more than
        what it is, and asks for the rest where somebody wants to know: reading 10 000 heads for
        the first ``ls`` took 4 s.  Raises NotFound.
        """
        store = self._service.store
        if node.kind is not Kind.VERSION or store.summaries.account(node.job, node.version):
            return self.facts(node)
        self._namespace.check_version(node)
        return self._of_job(node, MODES[node.kind], name_s=NAME_S)

    def forget_space(self, job: JobId) -> None:
        """Drop what was computed of a job's space: one of its versions came or went."""
        self._blocks.pop(job, None)

    def blocks(self, node: Node) -> dict[FileKey, int]:
        """Return the blocks of each file of the version that *node* belongs to."""
        known = self._blocks.setdefault(node.job, {})
        if node.version not in known:
            files = self._namespace.files(node)
            try:
                unique_bytes = self._service.store.unique_bytes(node.job, node.version)
            except CkptfsError:
                unique_bytes = 0
            known[node.version] = share_blocks(unique_bytes, files)
        return known[node.version]

    def _control(self, mode: int, node: Node) -> Facts:
        if not node.job:
            return Facts(stat.S_IFREG | mode, mtime_ns=self._mounted_ns, name_s=NAME_S)
        if node.kind is Kind.VERSION_FILE:
            self._namespace.check_version(node)
        return self._of_job(node, stat.S_IFREG | mode, name_s=NAME_S)

    def _of_job(
        self,
        node: Node,
        mode: int,
        *,
        size_bytes: int = 0,
        name_s: float = 0,
        attributes_s: float = 0,
    ) -> Facts:
        job = self._namespace.job(node)
        owner, changed_ns = job.spec.owner, job.changed_ns or job.created_ns
        return Facts(
            mode,
            owner.uid,
            owner.gid,
            size_bytes,
            mtime_ns=changed_ns,
            name_s=name_s,
            attributes_s=attributes_s,
        )

    def _of_version(self, node: Node, mode: int) -> Facts:
        self._namespace.check_version(node)
        owner = self._namespace.job(node).spec.owner
        size_bytes = blocks = 0
        if node.kind is Kind.IMAGE:
            size_bytes = self._namespace.file(node).size_bytes
            blocks = self.blocks(node).get((node.unit, node.name), 0)
        elif node.kind is Kind.SUMS:
            size_bytes = self._service.store.sums_size(node.job, node.version)
        return Facts(
            mode,
            owner.uid,
            owner.gid,
            size_bytes,
            blocks,
            self._committed_ns(node),
            name_s=NAME_S,
            attributes_s=ATTRIBUTES_S,
        )

    def _committed_ns(self, node: Node) -> int:
        """Return 0 where the head cannot be read: such a version stays visible all the same."""
        try:
            return self._service.store.account(node.job, node.version).committed_ns
        except NotFound:
            raise
        except CkptfsError:
            return 0

    def _of_spool(self, node: Node) -> Facts:
        return Facts(MODES[Kind.SPOOL], mtime_ns=self._spool.changed_ns or self._mounted_ns)

    def _of_spool_file(self, node: Node) -> Facts:
        file = self._spool.by_serial(node.serial)
        size = len(file.data)
        blocks = -(-size // SECTOR)
        mode = stat.S_IFREG | file.mode
        return Facts(mode, file.uid, file.gid, size, blocks, file.changed_ns)

    def _of_staged_file(self, node: Node) -> Facts:
        size = self._staging.by_serial(node.serial).file.size_bytes
        return Facts(MODES[Kind.STAGED_FILE], size_bytes=size, mtime_ns=self._mounted_ns)
