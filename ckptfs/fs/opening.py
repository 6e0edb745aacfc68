"""Nodes → open files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ..errors import CkptfsError, Forbidden, Gone, NotAuthenticated, TimedOut
from ..model import Caller
from .control import ControlFile
from .handles import OpenBytes, Opened, OpenSpool, OpenStaged, open_control, refresh
from .images import open_image
from .interface import JOB_FILES, SERVICE_FILES, VERSION_FILES
from .nodes import Kind, Node
from .parts import Parts
from .shows import time_text
from .views import JobView, ServiceView, VersionView

SUMS_DEADLINE_S = 60.0
T = TypeVar("T")


class Opening:
    """Makes the handle that fits a node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._open: dict[Kind, Callable[[Node, Caller, bool, bool], Awaitable[Opened]]] = {
            Kind.SERVICE_FILE: self._service_file,
            Kind.JOB_FILE: self._job_file,
            Kind.VERSION_FILE: self._version_file,
            Kind.IMAGE: self._image,
            Kind.SUMS: self._sums,
            Kind.SPOOL_FILE: self._spool_file,
            Kind.STAGED_FILE: self._staged_file,
        }

    async def open(self, node: Node, caller: Caller, *, writable: bool, truncate: bool) -> Opened:
        """Return an open file.  Raises what the object behind it raises."""
        return await self._open[node.kind](node, caller, writable, truncate)

    # O_TRUNC of a control file means nothing: shells pass it with every echo

    async def _service_file(
        self, node: Node, caller: Caller, writable: bool, truncate: bool
    ) -> Opened:
        view = ServiceView(self._parts.around, caller.uid)
        return await self._control(SERVICE_FILES[node.name], view, node, caller, writable)

    async def _job_file(self, node: Node, caller: Caller, writable: bool, truncate: bool) -> Opened:
        view = JobView(self._parts.around, node.job)
        return await self._control(JOB_FILES[node.name], view, node, caller, writable)

    async def _version_file(
        self, node: Node, caller: Caller, writable: bool, truncate: bool
    ) -> Opened:
        view = VersionView(self._parts.around, node.job, version=node.version)
        return await self._control(VERSION_FILES[node.name], view, node, caller, writable)

    async def _control(
        self, row: ControlFile[T], view: T, node: Node, caller: Caller, writable: bool
    ) -> Opened:
        if writable and row.store is None:
            # root passes the kernel's check of mode bits, as kernfs knows too
            raise NotAuthenticated(f"{row.name} is read-only")
        await refresh(row, view)
        control = open_control(row, view, node, caller, self._note_failure)
        self._parts.notifier.watch(control)
        return control

    def _note_failure(self, node: Node, error: CkptfsError) -> None:
        """Keep a refused request for ``ctl/error``."""
        if node.job and not isinstance(error, Gone):
            now = time_text(self._parts.around.clock_ns())
            place = f"{node.version}/{node.name}" if node.version else node.name
            text = " ".join(str(error).split())
            self._parts.recollection.failures[node.job] = f"{now} {place}: {text}"

    async def _image(self, node: Node, caller: Caller, writable: bool, truncate: bool) -> Opened:
        self._refuse_writing(writable)
        return await open_image(self._parts.service, node)

    async def _sums(self, node: Node, caller: Caller, writable: bool, truncate: bool) -> Opened:
        self._refuse_writing(writable)
        try:
            with trio.fail_after(SUMS_DEADLINE_S):
                return OpenBytes(await self._parts.service.store.sums(node.job, node.version))
        except trio.TooSlowError:
            raise TimedOut("SHA256SUMS is still being computed; try again") from None

    def _refuse_writing(self, writable: bool) -> None:
        if writable:
            raise Forbidden("a version cannot be changed")

    async def _spool_file(
        self, node: Node, caller: Caller, writable: bool, truncate: bool
    ) -> Opened:
        spool, clock_ns = self._parts.spool, self._parts.around.clock_ns
        file = spool.by_serial(node.serial)
        if truncate and writable:
            spool.resize(file, 0, clock_ns())
        return OpenSpool(spool, file, clock_ns)

    async def _staged_file(
        self, node: Node, caller: Caller, writable: bool, truncate: bool
    ) -> Opened:
        staged = self._parts.staging.by_serial(node.serial)
        if truncate and writable:
            staged.file.truncate(0)
        return OpenStaged(staged)
