"""One unit inside its supervisor: the generic part around the translib.

Blockers, the check that the checkpointer will take exactly the unit's
processes, the files of the job, signals and processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..errors import Busy, CheckpointerFailed, CkptfsError, NoSuchProcess, NotAuthorised, OutOfRange
from ..model import OpenFile, UnitFacts
from ..translib import freezer
from ..translib.api import UnitHandle
from ..translib.registry import make_translib
from . import blockers, facts, files, logs, procfs, putting_back
from .api import Prepared, Process
from .credentials import Rights
from .holder import ROOT_PID
from .isolation import Holder
from .orders import Launch
from .records import Json, facts_from, to_json
from .rundir import keep_log

_SIGNAL_MAX = 64
LOADING = "memory of the lazy restart is still being loaded: try again when ctl/units says running"


class SupervisedUnit:
    """The unit of one supervisor."""

    def __init__(self, launch: Launch, holder: Holder) -> None:
        self.launch = launch
        self.holder = holder
        self.failed = False  # a rebuild failed: there is no unit, and its end is nobody's news
        self._rebuilding = not launch.fresh
        self._proved = trio.Event()  # all of the image has been read and is whole
        self._files: tuple[OpenFile, ...] = ()
        self._rights = Rights(launch.spec.owner, launch.paths.stdout.parent)
        self._translib = make_translib(launch.translib)
        self._handle = UnitHandle(
            unit=launch.unit,
            holder_pid=holder.pid,
            root_pid=ROOT_PID,
            cgroup=launch.cgroup,
            uid=launch.spec.owner.uid,
            gid=launch.spec.owner.gid,
            work_dir=launch.paths.work,
        )

    # -- what is there ---------------------------------------------------------------------------

    def is_rebuilding(self) -> bool:
        """Whether the unit is not yet, or not yet all, back from its image."""
        return self._rebuilding

    def is_loading(self) -> bool:
        """Whether memory of a lazy rebuild is still being read."""
        return self._translib.is_loading(self._handle)

    async def wait_loaded(self) -> None:
        """Return when it is all there.  Raises CheckpointerFailed: the unit has been killed."""
        await self._translib.wait_loaded(self._handle)

    async def end_loading(self) -> str:
        """The unit has ended; return why it was killed for want of its memory, or ""."""
        return await self._translib.end_loading(self._handle)

    def _statuses(self) -> tuple[procfs.Status, ...]:
        return procfs.read_statuses(freezer.member_pids(self.launch.cgroup))

    def root_pid(self) -> int:
        """Return the root process's pid in the host's namespace, 0 when there is none."""
        roots = (status.pid for status in self._statuses() if status.inner_pid == ROOT_PID)
        return next(roots, 0)

    def processes(self) -> tuple[Process, ...]:
        """Return the unit's processes for monitoring, sorted by pid."""
        found = (procfs.read_process(pid) for pid in freezer.member_pids(self.launch.cgroup))
        return tuple(process for process in found if process is not None)

    # -- checkpoint ------------------------------------------------------------------------------

    async def prepare(self) -> Json:
        """Return `Prepared` as JSON; nothing is stopped.  Raises Busy while memory is loaded."""
        if self.is_loading():
            raise Busy(LOADING)
        preparation = await self._translib.prepare(self._handle)
        look = partial(blockers.find_blockers, self.launch.cgroup, self.launch.spec.owner.uid)
        found = await trio.to_thread.run_sync(look)
        statuses = self._statuses()
        if not statuses:
            raise NoSuchProcess("the unit has ended")
        prepared = Prepared(
            blockers=(*preparation.blockers, *found),
            facts=facts.unit_facts(self.launch, preparation.facts, statuses),
            image_bytes=facts.estimate_image(statuses),
            streams=str(self.launch.paths.work) if preparation.streams else "",
        )
        return to_json(prepared)

    async def stop(self) -> Json:
        """Freeze and return the files open for writing, as JSON."""
        await self._translib.stop(self._handle)
        try:
            uids = {uid for status in self._statuses() for uid in status.uids}
            owner = self.launch.spec.owner.uid
            if owner and uids - {owner}:
                other = min(uids - {owner})
                raise NotAuthorised(f"a process of the unit runs as uid {other}, not as its owner")
            pids = freezer.member_pids(self.launch.cgroup)
            self._files = await trio.to_thread.run_sync(files.record_open_files, pids)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.abort()
            raise
        return [to_json(item) for item in self._files]

    async def checkpoint(self, directory: str, *, streams: bool = False) -> Json:
        """Write the image of the stopped unit into *directory*; return its open files as JSON.

        *streams*: but for saved output files it goes to the socket in the work directory.
        """
        fd = await _open_directory(directory)
        try:
            if self.launch.spec.policy.rollback == "copy":
                outside = [self.launch.logs.outside(item) for item in self._files]
                save = partial(files.save_copies, outside, fd, self._rights)
                copied = await trio.to_thread.run_sync(save)
                saved = tuple(
                    replace(item, copy=copy.copy)
                    for item, copy in zip(self._files, copied, strict=True)
                )
            else:
                saved = self._files
            dump = self._translib.checkpoint(self._handle, fd, streams=streams)
            await self._keeping_logs(dump)
        finally:
            os.close(fd)
        return [to_json(item) for item in saved]

    async def confirm(self, directory: str) -> Json:
        """See that what was streamed has arrived in *directory*.  Raises CheckpointerFailed."""
        fd = await _open_directory(directory)
        try:
            await self._keeping_logs(self._translib.confirm(self._handle, fd))
        finally:
            os.close(fd)
        return None

    async def _keeping_logs(self, work: Any) -> None:  # noqa: ANN401 - an awaitable of a translib
        """Run a checkpointer; keep its logs beside the unit's state when it fails."""
        try:
            await work
        except CheckpointerFailed:
            for log in sorted(self.launch.paths.work.glob("*-*.log")):
                keep_log(log, self.launch.paths)
            raise

    async def resume_cp(self) -> None:
        """Let the unit go on after a checkpoint or an abort."""
        await self._translib.resume_cp(self._handle)

    async def abort(self) -> None:
        """Let the unit go on whatever state it is in; a unit that has ended is no error."""
        try:
            await self._translib.resume_cp(self._handle)
        except (CkptfsError, OSError):
            # Out of order (nothing was stopped) or ended.  A frozen cgroup must not remain.
            try:
                await freezer.thaw(self.launch.cgroup)
            except CkptfsError:
                return

    # -- restart ---------------------------------------------------------------------------------

    def note_proved(self) -> None:
        """Take note that the image is whole: files of the job may be changed."""
        self._proved.set()

    async def rebuild(self, request: Mapping[str, Json]) -> Json:
        """Put the output files back, then rebuild, frozen.  A failure leaves no process.

        An image that is ``unproven`` yet is begun with only while no file has to be changed.
        """
        recorded = facts_from(request["facts"])
        fd = await _open_directory(request["directory"])
        try:
            bring_back = partial(self._bring_files_back, recorded, fd, request)
            await trio.to_thread.run_sync(bring_back)
            work = self._translib.rebuild(self._handle, fd, lazy=request["lazy"])
            await self._keeping_logs(work)
        except BaseException:
            freezer.kill_members(self.launch.cgroup)
            raise
        finally:
            os.close(fd)
        return {"pid": self.root_pid()}

    def _bring_files_back(self, recorded: UnitFacts, fd: int, request: Mapping[str, Json]) -> None:
        def settle() -> None:
            trio.from_thread.run(self._proved.wait)

        if not request["unproven"]:
            self.note_proved()
        same_boot = recorded.facts.get("boot_id") == facts.boot_id()
        view, items = self.launch.logs, recorded.files
        is_elsewhere = recorded.facts.get(facts.STORE, self.launch.store_id) != self.launch.store_id
        if is_elsewhere or request["copied_logs"]:
            settle()
            # First what harms nobody when the other files are refused.
            items = tuple(item for item in recorded.files if not view.is_log(item))
            filled = [item for item in recorded.files if view.is_log(item)]
            if is_elsewhere:
                logs.begin_logs(filled, view, fd, request["suffix"])
            else:
                source = Path(request["copied_logs"])
                logs.fill_logs(filled, view, source, fd, same_boot=same_boot)
        outside = [view.outside(item) for item in items]
        suffix = request["suffix"]
        putting_back.put_back(outside, fd, suffix, self._rights, same_boot=same_boot, settle=settle)

    async def resume_rst(self, *, stopped: bool) -> None:
        """Let the rebuilt unit go; with *stopped* into state T."""
        if stopped and self._rebuilding:
            self.signal(signal.SIGSTOP, only=(), others=(), master=False)
        await self._translib.resume_rst(self._handle)
        self._rebuilding = False

    # -- signals ---------------------------------------------------------------------------------

    def signal(
        self, number: int, *, only: Sequence[int], others: Sequence[int], master: bool
    ) -> None:
        """Send a signal as `UnitPort.signal` says.  Raises OutOfRange, NoSuchProcess."""
        if not 1 <= number <= _SIGNAL_MAX:
            raise OutOfRange(f"there is no signal {number}; signals are 1 to {_SIGNAL_MAX}")
        members = set(freezer.member_pids(self.launch.cgroup))
        chosen = {self.root_pid()} if master else set(only) or members
        strangers = chosen - members
        if strangers or not members:
            raise NoSuchProcess(f"process {min(strangers, default=0)} is not one of the unit's")
        for pid in sorted(chosen - set(others)):
            self._signal_one(pid, number)

    def _signal_one(self, pid: int, number: int) -> None:
        # The descriptor pins the process; membership comes after, so a reused number is noticed.
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if pid in freezer.member_pids(self.launch.cgroup):
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)


async def _open_directory(directory: str) -> int:
    """Open an image directory in a thread: it is in a mount whose daemon may be gone or busy."""
    opener = partial(os.open, Path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await trio.to_thread.run_sync(opener, abandon_on_cancel=True)
    except OSError as bad:
        raise CheckpointerFailed(f"the image directory cannot be opened: {bad.strerror}") from None
