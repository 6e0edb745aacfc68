"""The pyfuse3 handlers: translate, delegate, translate back.  No decisions here."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Sequence
from typing import cast

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    PollHandle,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from ..errors import CkptfsError, Forbidden, InvalidInput, IsADirectory, NotADirectory, NotFound
from ..model import Caller
from .attributes import entry_attributes
from .boundary import fuse_handler
from .changes import Changes
from .handles import OpenControl, Opened
from .images import OpenImage, have_head
from .nodes import DIRECTORIES, Kind, Node
from .opening import Opening
from .parts import Parts

log = logging.getLogger(__name__)
NAME_MAX = 255
BLOCK = 4096  # unit of statfs
CTL = b"ctl"


def _name(name: bytes) -> str:
    """Return a name from the kernel as text.  Raises NotFound: nothing here is called otherwise."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise NotFound(f"{name!r} is not UTF-8") from None


def _groups(pid: int) -> frozenset[int]:
    """Return the supplementary groups of *pid*; none when it cannot be seen from here."""
    try:
        return frozenset(pyfuse3.get_sup_groups(pid))
    except (OSError, RuntimeError):
        return frozenset()


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid)


class CkptfsOperations(pyfuse3.Operations):
    """The mount as the kernel sees it."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False  # rights of others come with ctl/acl; until then mode bits say it all

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        self._inodes = parts.inodes
        self._handles = parts.handles
        self._opening = Opening(parts)
        self._changes = Changes(parts)

    # names and attributes

    def _entry(self, node: Node) -> EntryAttributes:
        """Return a node's attributes without counting a lookup."""
        return entry_attributes(self._inodes.number(node), self._parts.attributes.facts(node))

    def _looked_up(self, node: Node) -> EntryAttributes:
        """Return a node's attributes and count the lookup that the reply stands for."""
        entry = self._entry(node)
        self._inodes.remember(node)
        return entry

    def _child(self, parent_inode: int, name: bytes, caller: Caller) -> Node:
        parent = self._inodes.node(parent_inode)
        return self._parts.namespace.lookup(parent, _name(name), caller)

    @fuse_handler
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Find a name in a directory."""
        if name != CTL:
            await have_head(self._parts.service, self._inodes.node(parent_inode))
        return self._looked_up(self._child(parent_inode, name, _caller(ctx)))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Take lookups back.  No errors can be reported here."""
        for inode, count in inode_list:
            try:
                node = self._inodes.node(inode)
            except CkptfsError:
                continue
            self._inodes.forget(inode, count)
            if node.kind is Kind.SPOOL_FILE and not self._inodes.known(node):
                self._parts.spool.drop(node.serial)

    @fuse_handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """stat(2)."""
        return self._entry(self._inodes.node(inode))

    @fuse_handler
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """chmod, chown, truncate, utimens."""
        node = self._inodes.node(inode)
        self._changes.setattr(node, attr, fields)
        return self._entry(node)

    @fuse_handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Where ``latest`` points."""
        return str(self._parts.namespace.latest(self._inodes.node(inode))).encode()

    @fuse_handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """The truth about the pool: what is promised to running checkpoints is not available."""
        usage = self._parts.service.usage()
        data = StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK
        # the pool is what it holds and what it may still take: the disk's other files are not ours
        data.f_blocks = (usage.stored_bytes + usage.free_bytes) // BLOCK
        data.f_bfree = usage.free_bytes // BLOCK
        data.f_bavail = max(0, usage.free_bytes - usage.reserved_bytes) // BLOCK
        data.f_files = data.f_ffree = data.f_favail = 0  # not limited
        data.f_namemax = NAME_MAX
        return data

    # directories

    @fuse_handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Take the listing; offsets count in it until the directory is closed."""
        node = self._inodes.node(inode)
        if node.kind not in DIRECTORIES:
            raise NotADirectory("not a directory")
        await have_head(self._parts.service, node)
        children = self._parts.namespace.children(node, _caller(ctx))
        return FileHandleT(self._handles.add_listing([(n.encode(), c) for n, c in children]))

    @fuse_handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Give out entries with their attributes, as many as fit."""
        entries = self._handles.listing(fh)
        for position in range(start_id, len(entries)):
            name, node = entries[position]
            try:
                facts = self._parts.attributes.listed(node)
            except NotFound:
                continue  # removed since the directory was opened
            attributes = entry_attributes(self._inodes.number(node), facts)
            if not pyfuse3.readdir_reply(token, name, attributes, position + 1):
                break
            self._inodes.remember(node)

    @fuse_handler
    async def releasedir(self, fh: FileHandleT) -> None:
        """Close a directory."""
        self._handles.remove_listing(fh)

    @fuse_handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Nothing to do: names become durable by the commit of a version."""

    # files

    @fuse_handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """open(2) without O_CREAT."""
        node = self._inodes.node(inode)
        if node.kind in DIRECTORIES:
            raise IsADirectory("a directory")
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        groups = _groups(ctx.pid) if writable else frozenset[int]()
        caller = Caller(ctx.uid, ctx.gid, ctx.pid, groups)
        opened = await self._opening.open(
            node, caller, writable=writable, truncate=bool(flags & os.O_TRUNC)
        )
        return file_info(self._handles.add(opened), node, opened)

    @fuse_handler
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        """open(2) with O_CREAT: in the spool and in the staging area alone."""
        parent = self._inodes.node(parent_inode)
        node = self._changes.create(parent, _name(name), mode, _caller(ctx))
        opened = await self._opening.open(node, _caller(ctx), writable=True, truncate=False)
        return file_info(self._handles.add(opened), node, opened), self._looked_up(node)

    @fuse_handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """read(2)."""
        data = await self._handles.file(fh).read(off, size)
        return cast("bytes", data)  # the library takes anything that has a buffer

    @fuse_handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """write(2); of a checkpointer in pieces of 1 MiB, nothing looked up on the way."""
        return await self._handles.file(fh).write(off, buf)

    @fuse_handler
    async def poll(
        self, inode: InodeT, fh: FileHandleT, poll_handle: PollHandle | None, ctx: RequestContext
    ) -> int:
        """poll(2): always ready, and exceptional once the content changed (the kernfs rule)."""
        opened = self._handles.file(fh)
        ready = select.POLLIN | select.POLLOUT
        if isinstance(opened, OpenControl) and opened.poll(poll_handle):
            ready |= select.POLLPRI | select.POLLERR
        return ready

    @fuse_handler
    async def flush(self, fh: FileHandleT) -> None:
        """Nothing: shells flush before they write; commands act on write alone."""

    @fuse_handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Nothing: bytes become durable by the commit of their version."""

    @fuse_handler
    async def release(self, fh: FileHandleT) -> None:
        """Close a file."""
        opened = self._handles.remove(fh)
        if opened is None:
            return
        if isinstance(opened, OpenControl):
            self._parts.notifier.unwatch(opened)
        opened.close()

    # changes of names

    @fuse_handler
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Remove a file."""
        caller = _caller(ctx)
        node = self._child(parent_inode, name, caller)
        self._changes.unlink(node, _name(name), caller)

    @fuse_handler
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Remove a version, an ended job, or a directory on the way to that."""
        caller = _caller(ctx)
        self._changes.rmdir(self._child(parent_inode, name, caller), caller)

    @fuse_handler
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        """Make ``files/`` in the staging area; nothing else is made by hand."""
        return self._looked_up(self._changes.mkdir(self._inodes.node(parent_inode), _name(name)))

    @fuse_handler
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        """Rename within the spool or within a staged unit."""
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise InvalidInput("names cannot be exchanged")
        old, new = self._inodes.node(parent_inode_old), self._inodes.node(parent_inode_new)
        replace = not flags & pyfuse3.RENAME_NOREPLACE
        self._changes.rename(old, _name(name_old), new, _name(name_new), replace=replace)

    @fuse_handler
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Refuse."""
        raise Forbidden("no symbolic link can be made here")

    @fuse_handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Refuse."""
        raise Forbidden("no link can be made here")

    @fuse_handler
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Refuse."""
        raise Forbidden("no special file can be made here")

    # extended attributes

    @fuse_handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """listxattr(2)."""
        return self._parts.xattrs.names(self._inodes.node(inode))

    @fuse_handler
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """getxattr(2)."""
        return await self._parts.xattrs.value(self._inodes.node(inode), name)

    @fuse_handler
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        """Refuse: they are facts."""
        raise Forbidden("extended attributes are read-only")

    @fuse_handler
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """Refuse: they are facts."""
        raise Forbidden("extended attributes are read-only")


def file_info(handle: int, node: Node, opened: Opened) -> FileInfo:
    """Sealed bytes may stay in the page cache; all else is asked for anew."""
    is_sealed = node.kind in {Kind.IMAGE, Kind.SUMS}
    direct = not is_sealed or (isinstance(opened, OpenImage) and opened.straight)
    return FileInfo(fh=FileHandleT(handle), direct_io=direct, keep_cache=is_sealed)
