"""Changes of names and attributes: allowed in the spool and the staging area, removal elsewhere."""

from __future__ import annotations

from pyfuse3 import EntryAttributes, SetattrFields

from ..errors import Forbidden, InvalidInput, IsADirectory, NotADirectory, Unsupported
from ..model import Caller
from .namespace import staged_name
from .nodes import CONTROL_FILES, DIRECTORIES, Kind, Node
from .parts import Parts
from .staging import SAVED

STAGED_PLACES = frozenset({Kind.STAGED_UNIT, Kind.STAGED_SAVED})
SEALED_SENTENCE = "nothing can be made or changed by hand here"


class Changes:
    """What the mount lets a user change."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def create(self, parent: Node, name: str, mode: int, caller: Caller) -> Node:
        """Make an empty file.  Raises Forbidden (EPERM) but in the spool and the staging area."""
        if parent.kind is Kind.SPOOL:
            file = self._parts.spool.create(name, caller, mode, self._parts.around.clock_ns())
            return Node(Kind.SPOOL_FILE, serial=file.serial)
        if parent.kind in STAGED_PLACES:
            relative = staged_name(parent, name)
            staged = self._parts.staging.create(parent.job, parent.version, parent.unit, relative)
            return _staged(parent, staged.serial)
        raise Forbidden(SEALED_SENTENCE)

    def mkdir(self, parent: Node, name: str) -> Node:
        """Make ``files/`` of a staged unit.  Raises Exists, Forbidden."""
        if parent.kind is not Kind.STAGED_UNIT or name != SAVED:
            raise Forbidden(SEALED_SENTENCE)
        self._parts.staging.make_saved(parent.job, parent.version, parent.unit)
        return Node(Kind.STAGED_SAVED, parent.job, parent.version, parent.unit)

    def unlink(self, node: Node, name: str, caller: Caller) -> None:
        """Remove a file.  Raises IsADirectory, Forbidden, Busy, NotAuthorised."""
        if node.kind in DIRECTORIES:
            raise IsADirectory(f"{name} is a directory")
        if node.kind is Kind.SPOOL_FILE:
            self._parts.spool.unlink(name, self._parts.around.clock_ns())
        elif node.kind is Kind.STAGED_FILE:
            staged = self._parts.staging.by_serial(node.serial)
            self._parts.staging.unlink(node.job, node.version, node.unit, staged.name)
        else:
            self._parts.removals.unlink(node, caller)

    def rmdir(self, node: Node, caller: Caller) -> None:
        """Remove a version or an ended job, or take note of a step towards it."""
        if node.kind not in DIRECTORIES:
            raise NotADirectory("not a directory")
        if node.kind is Kind.VERSION:
            self._parts.service.remove_version(node.job, node.version, caller)
            self._parts.removals.finish(node)
        elif node.kind is Kind.JOB:
            self._parts.service.remove_job(node.job, caller)
            self._parts.removals.finish(node)
        elif node.kind is Kind.STAGED_SAVED:
            self._parts.staging.remove_saved(node.job, node.version, node.unit)
        else:
            children = self._parts.namespace.children(node, caller)
            self._parts.removals.rmdir(node, children, caller)

    def rename(
        self, old_parent: Node, old: str, new_parent: Node, new: str, *, replace: bool
    ) -> None:
        """Rename within the spool or a staged unit.  Raises Forbidden elsewhere."""
        if old_parent.kind is Kind.SPOOL and new_parent == old_parent:
            now_ns = self._parts.around.clock_ns()
            self._parts.spool.rename(old, new, now_ns, replace=replace)
            return
        if old_parent.kind not in STAGED_PLACES or new_parent.kind not in STAGED_PLACES:
            raise Forbidden(SEALED_SENTENCE)
        place = (old_parent.job, old_parent.version, old_parent.unit)
        if place != (new_parent.job, new_parent.version, new_parent.unit):
            raise Forbidden("an image stays in its unit")
        if not replace:
            raise InvalidInput("a staged file is renamed over what is there")
        source, target = staged_name(old_parent, old), staged_name(new_parent, new)
        self._parts.staging.rename(*place, source, target)

    def setattr(self, node: Node, attr: EntryAttributes, fields: SetattrFields) -> None:
        """Change attributes.  Raises Forbidden for all that is sealed."""
        if node.kind is Kind.SPOOL_FILE:
            self._set_spool(node, attr, fields)
        elif node.kind is Kind.STAGED_FILE:
            if fields.update_size:
                self._parts.staging.by_serial(node.serial).file.truncate(attr.st_size)
        elif node.kind in CONTROL_FILES:
            # size and times are not kept: a shell truncates before every echo
            if fields.update_mode or fields.update_uid or fields.update_gid:
                raise Forbidden("rights of a control file are fixed")
        else:
            raise Forbidden(SEALED_SENTENCE)

    def _set_spool(self, node: Node, attr: EntryAttributes, fields: SetattrFields) -> None:
        file = self._parts.spool.by_serial(node.serial)
        changes_owner = (fields.update_uid and attr.st_uid != file.uid) or (
            fields.update_gid and attr.st_gid != file.gid
        )
        if changes_owner:
            raise Unsupported("a spool file stays its creator's")
        now_ns = self._parts.around.clock_ns()
        if fields.update_size:
            self._parts.spool.resize(file, attr.st_size, now_ns)
        if fields.update_mode:
            file.mode = attr.st_mode & 0o777


def _staged(parent: Node, serial: int) -> Node:
    return Node(Kind.STAGED_FILE, parent.job, parent.version, parent.unit, serial=serial)
