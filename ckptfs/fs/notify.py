"""What a change in the service sets off: wake who polls, have the kernel forget what went.

Called by the service on the trio thread after every change, without an await
in between, so no reader misses one.  Never blocks, never raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..coordinator.api import Service
from ..errors import CkptfsError
from ..ids import JobId, Version
from .attributes import Attributes
from .handles import OpenControl
from .inodes import ROOT_INODE, Inodes
from .nodes import NO_JOB, Kind, Node
from .views import Recollection

log = logging.getLogger(__name__)
Invalidate = Callable[[int, bytes, int], None]  # parent inode, name, inode that was removed


class Notifier:
    """Open control files by the job they speak of, and the versions the kernel may know."""

    def __init__(
        self,
        service: Service,
        inodes: Inodes,
        attributes: Attributes,
        recollection: Recollection,
        invalidate: Invalidate,
    ) -> None:
        self._service = service
        self._inodes = inodes
        self._attributes = attributes
        self._recollection = recollection
        self._invalidate = invalidate
        self._watched: dict[JobId, set[OpenControl]] = {}
        self._versions: dict[JobId, set[Version]] = {
            job: set(service.job(job).versions) for job in service.jobs()
        }
        self._is_closed = False

    def watch(self, control: OpenControl) -> None:
        """Tell *control* of changes from now on, if its row is pollable."""
        if control.pollable:
            self._watched.setdefault(control.node.job, set()).add(control)

    def unwatch(self, control: OpenControl) -> None:
        """Stop telling."""
        group = self._watched.get(control.node.job)
        if group is not None:
            group.discard(control)
            if not group:
                del self._watched[control.node.job]

    def close(self) -> None:
        """The mount has ended: nothing may be sent to the kernel any more."""
        self._is_closed = True
        self._watched.clear()

    def changed(self, job: JobId | None, version: Version | None) -> None:
        """Take note of a change of *job* (and *version*), or of the service (None)."""
        if self._is_closed:
            return
        try:
            if job is not None:
                self._forget_removed(job)
                if version is not None:
                    self._attributes.forget_space(job)
                self._wake(self._watched.get(job, set()))
            self._wake(self._watched.get(NO_JOB, set()))
        except Exception:
            log.exception("bug while announcing a change of %s version %s", job, version)

    def _wake(self, controls: set[OpenControl]) -> None:
        rendered: dict[Node, str | None] = {}
        for control in controls:
            # a service file's text may depend on the reader, but no pollable one does
            key = control.node
            if key not in rendered:
                rendered[key] = _content(control)
            control.note_change(rendered[key])

    def _forget_removed(self, job: JobId) -> None:
        before = self._versions.get(job, set())
        try:
            record = self._service.job(job)
            is_removed, now = record.removed, set(record.versions)
        except CkptfsError:
            is_removed, now = True, set[Version]()
        self._versions[job] = now
        parent = Node(Kind.JOB, job)
        if before != now:
            self._attributes.forget_space(job)
        for version in before - now:
            self._drop(parent, str(version), Node(Kind.VERSION, job, version))
        if is_removed:
            del self._versions[job]
            self._recollection.forget(job)
            if self._inodes.known(parent):
                self._invalidate(ROOT_INODE, job.encode(), self._inodes.number(parent))

    def _drop(self, parent: Node, name: str, node: Node) -> None:
        if self._inodes.known(parent) and self._inodes.known(node):
            self._invalidate(self._inodes.number(parent), name.encode(), self._inodes.number(node))


def _content(control: OpenControl) -> str | None:
    try:
        return control.content()
    except CkptfsError:
        return None
