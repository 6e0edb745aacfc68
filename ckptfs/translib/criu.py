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
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ..errors import CannotRun, CheckpointerFailed, CkptfsError, NoSuchProcess, NotAuthorised
from ..ids import UnitName
from . import criu_images, criu_kernel, criu_log, freezer
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
GHOST_LIMIT_BYTES = 1 << 30  # unlinked files up to this size go into the image
DUMP_TIMEOUT_S = (
    120  # CRIU's own limit for collecting the tasks; its default of 10 s is short for many threads
)
CRIU_PLACES = ("/opt/ckptfs/criu/bin/criu",)
_HERE = Path(__file__).parent
_VERSION = re.compile(r"Version: (\d+)\.(\d+)(?:\.(\d+))?")

# (kernel, oldest CRIU that can dump on it): before 4.1 the vdso of 6.13 is not understood, before
# 4.2 any inet socket fails on 6.16 although `criu check` is content.
_NEEDS = (((6, 16), (4, 2)), ((6, 13), (4, 1)), ((0, 0), (3, 17)))


def find_criu() -> str | None:
    """Return the criu to use: $CKPTFS_CRIU, the one ``tools/setup`` installed, or PATH's."""
    given = os.environ.get("CKPTFS_CRIU")
    places = (given,) if given else CRIU_PLACES
    for place in places:
        if os.access(place, os.X_OK):
            return place
    return None if given else shutil.which("criu")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return (major, minor, patch) out of what ``criu --version`` prints, or None."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def needed_version(kernel_release: str) -> tuple[int, int]:
    """Return the oldest CRIU (major, minor) that works on a kernel such as ``6.18.4-amd64``."""
    match = re.match(r"(\d+)\.(\d+)", kernel_release)
    kernel = (int(match[1]), int(match[2])) if match else (0, 0)
    return next(criu for above, criu in _NEEDS if kernel >= above)


def _has_sys_resource() -> bool:
    effective = re.search(
        r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return bool(effective and int(effective[1], 16) >> 24 & 1)


def _own_cgroup(unit: UnitHandle) -> Path:
    """Return the directory of our own cgroup v2, where criu goes at pre-resume."""
    path = next(
        line.strip()[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    for above in unit.cgroup.parents:
        if not (above / "cgroup.procs").exists():
            break
        candidate = above / path.lstrip("/")
        if (candidate / "cgroup.procs").exists() and not (above.parent / "cgroup.procs").exists():
            return candidate
    return unit.cgroup.parent


@dataclass(slots=True)
class _Attempt:
    """The files of one CRIU run in the work directory."""

    log: Path
    output: Path

    def failure(self, status: int) -> str:
        """Return the reason of the failure, one sentence."""
        texts = [
            path.read_text(errors="replace") if path.exists() else ""
            for path in (self.log, self.output)
        ]
        return criu_log.reason(texts[0], texts[1], status)


class CriuTranslib:
    """`Translib` over the criu command."""

    name = "criu"

    def __init__(self, binary: str | None = None) -> None:
        self._binary = binary or find_criu()
        self._orders: dict[UnitName, Order] = {}
        self._runs = 0
        self._pages = PageServers()

    # -- what this machine can do ----------------------------------------------------------------

    async def probe(self) -> Availability:
        """Say whether a new enough criu is here and the kernel has what it needs.  Never raises."""
        if self._binary is None:
            return _missing(
                "criu is not installed: run tools/setup, or set CKPTFS_CRIU to its path"
            )
        try:
            _, text = await read_output((self._binary, "--version"), timeout_s=10)
            found = parse_version(text)
            if found is None:
                return _missing(
                    f"{self._binary} does not say which version it is: {text.strip()[:200]}"
                )
            version = ".".join(map(str, found))
            needs = needed_version(os.uname().release)
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
            version = ".".join(map(str, parse_version(text) or ()))
            return Preparation(facts={"criu_version": version})

    async def stop(self, unit: UnitHandle) -> None:
        """Freeze the unit's cgroup.  Raises TimedOut when a process waits in the kernel."""
        async with self._primitive(unit, Primitive.STOP) as step:
            if step.act:
                await freezer.freeze(unit.cgroup)

    async def checkpoint(self, unit: UnitHandle, directory_fd: int) -> None:
        """Dump into the directory; the unit is frozen before and after it, whatever happens."""
        async with self._primitive(unit, Primitive.CHECKPOINT):
            pids = _inner_pids(unit)
            try:
                attempt, status = await self._run(unit, directory_fd, "dump", _dump_options(unit))
            finally:
                # CRIU thaws while its parasite works and freezes again at its end.  When it was
                # killed in between, the unit must be standing again for our caller.
                with trio.CancelScope(shield=True):
                    await _freeze_again(unit.cgroup)
            if status != 0:
                _require_alive(unit)
                raise CheckpointerFailed(f"criu dump: {attempt.failure(status)}")
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
                    executable = _executable(self._require_binary())
                    await self._pages.begin(unit, directory_fd, executable)
                options = _restore_options(lazy=lazy)
                attempt, status = await self._run(unit, directory_fd, "restore", options)
                if status != 0:
                    raise CheckpointerFailed(f"criu restore: {attempt.failure(status)}")
                await freezer.freeze(unit.cgroup)
            except BaseException as error:
                _kill_members(unit.cgroup)
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
    ) -> tuple[_Attempt, int]:
        """Run criu in the holder's namespaces; the image directory is an inherited descriptor."""
        self._runs += 1
        attempt = _Attempt(
            log=unit.work_dir / f"{command}-{self._runs}.log",
            output=unit.work_dir / f"{command}-{self._runs}.out",
        )
        executable = _executable(self._require_binary())
        as_owner = _as_owner(unit) if command == "dump" else ()
        if as_owner:
            await criu_kernel.make_cache(executable, unit.work_dir)
        work_fd = os.open(unit.work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            argv = (
                *("nsenter", "-t", str(unit.holder_pid), "-p", "-m", "-i", "-u", "--"),
                *(as_owner if command == "dump" else _inside_cgroup(unit)),
                *executable,
                command,
                *("-D", f"/proc/self/fd/{directory_fd}", "-W", f"/proc/self/fd/{work_fd}"),
                *("-o", attempt.log.name, "-v2", "--no-default-config"),
                # No network lock: every end of every connection in the image is in the frozen unit
                # (others are blockers), so nothing can arrive.
                *("--manage-cgroups=ignore", "--network-lock", "skip"),
                *("--file-locks", "--tcp-established", "--ghost-limit", str(GHOST_LIMIT_BYTES)),
                *options,
            )
            env = {"CKPTFS_CGROUP": str(unit.cgroup), "CKPTFS_OUTSIDE": str(_own_cgroup(unit))}
            status = await run_command(
                argv, output=attempt.output, pass_fds=(directory_fd, work_fd), env=env
            )
        finally:
            os.close(work_fd)
        return attempt, status


def _missing(reason: str, version: str = "") -> Availability:
    return Availability(available=False, version=version, capabilities=frozenset(), reason=reason)


def _dump_options(unit: UnitHandle) -> tuple[str, ...]:
    return (
        *("-t", str(unit.root_pid), "--leave-running"),
        *("--freeze-cgroup", str(unit.cgroup), "--timeout", str(DUMP_TIMEOUT_S)),
    )


def _restore_options(*, lazy: bool) -> tuple[str, ...]:
    return ("-d", "--action-script", str(_HERE / "hold.sh"), *(("--lazy-pages",) if lazy else ()))


def _as_owner(unit: UnitHandle) -> tuple[str, ...]:
    """Return the words in front of ``criu dump`` on a machine without CAP_SYS_RESOURCE.

    prlimit(2) on another uid's task needs that capability, unless the caller's
    *real* uid and gid are the task's.
    """
    if unit.uid == 0 or _has_sys_resource():
        return ()
    return ("setpriv", "--ruid", str(unit.uid), "--rgid", str(unit.gid), "--keep-groups")


def _executable(binary: str) -> tuple[str, ...]:
    """Return how to execute criu, which may be a wrapper script around its own loader.

    Between ``setpriv`` and criu, dash would put the effective uid back to the
    real one, unless told ``-p``.
    """
    with open(binary, "rb") as file:
        return ("/bin/sh", "-p", binary) if file.read(9) == b"#!/bin/sh" else (binary,)


def _inside_cgroup(unit: UnitHandle) -> tuple[str, ...]:
    return ("/bin/sh", str(_HERE / "enter_cgroup.sh"), str(unit.cgroup))


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


def _kill_members(cgroup: Path) -> None:
    try:
        (cgroup / "cgroup.kill").write_text("1")
    except OSError:
        return  # gone already
