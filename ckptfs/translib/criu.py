"""The translib for CRIU: its command line, and the freezer around it.

Freezer first, thaw last: a cgroup that was frozen before ``criu dump
--freeze-cgroup`` is frozen after it, so our thaw is the single moment of
resumption.  CRIU runs inside the holder's namespaces, hence sees none and
dumps none (see `node.isolation`).  At a restart the tasks are frozen by
``hold.sh`` at CRIU's pre-resume and stay so until ``resume_rst``.

A criu that is killed leaves the tasks to cure themselves, and they do while it
writes pages (seen at every SIGKILL tried there).  In the 1 to 2 ms a process while
it puts its code in, they cannot, and the unit may end (seen, rarely).  So we let
criu end by itself where we can (`command.GRACE_S`).
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ..errors import CannotRun, CheckpointerFailed, CkptfsError, NoSuchProcess, NotAuthorised
from ..ids import UnitName
from . import criu_images, criu_kernel, criu_log, criu_words, freezer
from .api import Availability, Capability, Preparation, UnitHandle
from .command import read_output, run_command
from .order import Order, Phase, Primitive, Step
from .page_server import PageServers

CAPABILITIES = frozenset(
    {
        Capability.MULTITHREAD,
        Capability.MULTIPROCESS,
        Capability.SOCKETS,
        Capability.FILE_LOCKS,
        Capability.UNLINKED_FILES,
        Capability.LEAVE_RUNNING,
        Capability.PID_NAMESPACE,
    }
)
LAZY_FEATURE = "uffd-noncoop"  # userfaultfd that tells of fork, exec and unmapping, too


class CriuTranslib:
    """`Translib` over the criu command."""

    name = "criu"

    def __init__(self, binary: str | None = None) -> None:
        self._binary = binary or criu_words.find_criu()
        self._orders: dict[UnitName, Order] = {}
        self._runs = 0
        self._pages = PageServers()
        self._streams: bool | None = None  # whether criu has --stream; None: not asked yet
        self._sent: dict[UnitName, tuple[int, ...]] = {}  # pids that images were sent of

    # -- what this machine can do ----------------------------------------------------------------

    async def probe(self) -> Availability:
        """Say whether a new enough criu is here and the kernel has what it needs.  Never raises."""
        if self._binary is None:
            return _missing(
                "criu is not installed: run tools/setup, or set CKPTFS_CRIU to its path"
            )
        try:
            _, text = await read_output((self._binary, "--version"), timeout_s=10)
            found = criu_words.parse_version(text)
            if found is None:
                return _missing(
                    f"{self._binary} does not say which version it is: {text.strip()[:200]}"
                )
            version = ".".join(map(str, found))
            needs = criu_words.needed_version(os.uname().release)
            if found[:2] < needs:
                return _missing(
                    f"criu {version} cannot dump on Linux {os.uname().release}: "
                    f"{needs[0]}.{needs[1]} or newer is needed, run tools/setup",
                    version,
                )
            status, text = await read_output((self._binary, "check"), timeout_s=30)
            lazy, _ = await read_output(
                (self._binary, "check", "--feature", LAZY_FEATURE), timeout_s=30
            )
        except (OSError, trio.TooSlowError) as bad:
            return _missing(f"{self._binary} does not run: {bad}")
        if status != 0:
            return _missing(f"criu check: {criu_log.reason(text, text, status)}", version)
        found_here = CAPABILITIES | {Capability.LAZY_RESTART} if lazy == 0 else CAPABILITIES
        return Availability(available=True, version=version, capabilities=found_here)

    # -- checkpoint ------------------------------------------------------------------------------

    async def prepare(self, unit: UnitHandle) -> Preparation:
        """Check that criu is here; its version is the fact a restart compares."""
        async with self._primitive(unit, Primitive.PREPARE):
            binary = self._require_binary()
            _, text = await read_output((binary, "--version"), timeout_s=10)
            version = ".".join(map(str, criu_words.parse_version(text) or ()))
            if self._streams is None:
                _, text = await read_output((binary, "--help"), timeout_s=10)
                self._streams = criu_words.can_stream(text)
            return Preparation(facts={"criu_version": version}, streams=self._streams)

    async def stop(self, unit: UnitHandle) -> None:
        """Freeze the unit's cgroup.  Raises TimedOut when a process waits in the kernel."""
        async with self._primitive(unit, Primitive.STOP) as step:
            if step.act:
                await freezer.freeze(unit.cgroup)

    async def checkpoint(
        self, unit: UnitHandle, directory_fd: int, *, streams: bool = False
    ) -> None:
        """Dump into the directory; the unit is frozen before and after it, whatever happens."""
        async with self._primitive(unit, Primitive.CHECKPOINT):
            pids = _inner_pids(unit)
            options = criu_words.dump_options(unit, streams=streams)
            try:
                async with _place(unit, directory_fd, streams=streams) as place_fd:
                    attempt, status = await self._run(unit, place_fd, "dump", options)
            finally:
                # CRIU thaws while its parasite works and freezes again at its end.  When it was
                # killed in between, the unit must be standing again for our caller.
                with trio.CancelScope(shield=True):
                    await _freeze_again(unit.cgroup)
            if status != 0:
                _require_alive(unit)
                raise CheckpointerFailed(f"criu dump: {attempt.failure(status)}")
            if streams:
                self._sent[unit.unit] = pids  # they may still be in the pipes
            else:
                await trio.to_thread.run_sync(criu_images.require_images, directory_fd, pids)

    async def confirm(self, unit: UnitHandle, directory_fd: int) -> None:
        """Check that the images every restart needs have arrived.  Raises CheckpointerFailed."""
        pids = self._sent.pop(unit.unit, None)
        if pids is None:
            raise CheckpointerFailed("no image was sent through pipes")
        await trio.to_thread.run_sync(criu_images.require_images, directory_fd, pids)

    async def resume_cp(self, unit: UnitHandle) -> None:
        """Thaw."""
        async with self._primitive(unit, Primitive.RESUME_CP) as step:
            if step.act:
                await freezer.thaw(unit.cgroup)

    # -- restart ---------------------------------------------------------------------------------

    async def rebuild(self, unit: UnitHandle, directory_fd: int, *, lazy: bool = False) -> None:
        """Restore under the fresh holder, in the unit's cgroup, and leave everything frozen."""
        async with self._primitive(unit, Primitive.REBUILD) as step:
            if not step.act:
                return
            uids = await trio.to_thread.run_sync(criu_images.image_uids, directory_fd)
            if unit.uid and uids - {unit.uid}:
                other = min(uids - {unit.uid})
                raise NotAuthorised(
                    f"the image holds processes of uid {other}, not only {unit.uid}"
                )
            try:
                if lazy:
                    executable = criu_words.executable(self._require_binary())
                    await self._pages.begin(unit, directory_fd, executable)
                options = criu_words.restore_options(lazy=lazy)
                attempt, status = await self._run(unit, directory_fd, "restore", options)
                if status != 0:
                    raise CheckpointerFailed(f"criu restore: {attempt.failure(status)}")
                await freezer.freeze(unit.cgroup)
            except BaseException as error:
                freezer.kill_members(unit.cgroup)
                await self._end_pages(unit, error)
                raise

    async def resume_rst(self, unit: UnitHandle) -> None:
        """Thaw."""
        async with self._primitive(unit, Primitive.RESUME_RST) as step:
            if step.act:
                await freezer.thaw(unit.cgroup)

    def is_loading(self, unit: UnitHandle) -> bool:
        """Whether ``criu lazy-pages`` still runs for the unit."""
        return self._pages.is_loading(unit.unit)

    async def wait_loaded(self, unit: UnitHandle) -> None:
        """Wait for the end of ``criu lazy-pages``."""
        await self._pages.wait_loaded(unit.unit)

    async def end_loading(self, unit: UnitHandle) -> str:
        """End ``criu lazy-pages``; return why it killed the unit, if it did."""
        return await self._pages.end(unit.unit)

    async def _end_pages(self, unit: UnitHandle, error: BaseException) -> None:
        """After a failed restore; raise why there were no pages instead of what followed of it."""
        with trio.CancelScope(shield=True):
            why = await self._pages.end(unit.unit)
            if why and isinstance(error, CkptfsError):
                raise CheckpointerFailed(why) from error

    # -- inside ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _primitive(self, unit: UnitHandle, primitive: Primitive) -> AsyncGenerator[Step]:
        """Keep the order of one unit around a primitive.  Raises Busy, NoSuchProcess."""
        order = self._orders.get(unit.unit)
        populated = bool(freezer.member_pids(unit.cgroup))
        if order is None:
            order = self._orders[unit.unit] = Order(Phase.RUNNING if populated else Phase.EMPTY)
        step = order.begin(primitive)
        done = False
        try:
            if primitive is not Primitive.REBUILD and not populated:
                raise NoSuchProcess("the unit has ended")
            yield step
            done = True
        finally:
            order.end(step, done=done)

    def _require_binary(self) -> str:
        if self._binary is None:
            raise CannotRun(
                "criu is not installed: run tools/setup, or set CKPTFS_CRIU to its path"
            )
        return self._binary

    async def _run(
        self, unit: UnitHandle, directory_fd: int, command: str, options: Sequence[str]
    ) -> tuple[criu_words.Attempt, int]:
        """Run criu in the holder's namespaces; the image directory is an inherited descriptor."""
        self._runs += 1
        attempt = criu_words.Attempt(
            log=unit.work_dir / f"{command}-{self._runs}.log",
            output=unit.work_dir / f"{command}-{self._runs}.out",
        )
        executable = criu_words.executable(self._require_binary())
        as_owner = criu_words.as_owner(unit) if command == "dump" else ()
        if as_owner:
            await criu_kernel.make_cache(executable, unit.work_dir)
        work_fd = os.open(unit.work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            argv = (
                *("nsenter", "-t", str(unit.holder_pid), "-p", "-m", "-i", "-u", "--"),
                *(as_owner if command == "dump" else criu_words.inside_cgroup(unit)),
                *executable,
                command,
                *("-D", f"/proc/self/fd/{directory_fd}", "-W", f"/proc/self/fd/{work_fd}"),
                *("-o", attempt.log.name, "-v2", "--no-default-config"),
                # No network lock: every end of every connection in the image is in the frozen unit
                # (others are blockers), so nothing can arrive.
                *("--manage-cgroups=ignore", "--network-lock", "skip"),
                *("--file-locks", "--tcp-established"),
                *("--ghost-limit", str(criu_words.GHOST_LIMIT_BYTES)),
                *options,
            )
            env = {
                "CKPTFS_CGROUP": str(unit.cgroup),
                "CKPTFS_OUTSIDE": str(criu_words.own_cgroup(unit)),
            }
            status = await run_command(
                argv, output=attempt.output, pass_fds=(directory_fd, work_fd), env=env
            )
        finally:
            os.close(work_fd)
        return attempt, status


def _missing(reason: str, version: str = "") -> Availability:
    return Availability(available=False, version=version, capabilities=frozenset(), reason=reason)


@asynccontextmanager
async def _place(unit: UnitHandle, directory_fd: int, *, streams: bool) -> AsyncGenerator[int]:
    """Give the directory that ``-D`` names: with *streams* the one that holds the socket."""
    if not streams:
        yield directory_fd
        return
    fd = os.open(unit.work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _inner_pids(unit: UnitHandle) -> tuple[int, ...]:
    """Return the unit's pids in its own namespace, zombies left out."""
    found: list[int] = []
    for pid in freezer.member_pids(unit.cgroup):
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        state = re.search(r"^State:\s*(\S)", text, re.MULTILINE)
        inner = re.search(r"^NSpid:.*?(\d+)$", text, re.MULTILINE)
        if state and inner and state[1] not in "ZX":
            found.append(int(inner[1]))
    return tuple(found)


def _require_alive(unit: UnitHandle) -> None:
    if not freezer.member_pids(unit.cgroup):
        raise NoSuchProcess("the unit has ended")


async def _freeze_again(cgroup: Path) -> None:
    try:
        await freezer.freeze(cgroup)
    except CkptfsError:
        return  # it has ended, or will not freeze: the caller's resume and kill deal with both
