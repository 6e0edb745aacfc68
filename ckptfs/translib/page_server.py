"""``criu lazy-pages`` beside a restored unit: it brings the pages that are still missing.

When the last process that holds a userfaultfd closes it, the kernel gives every page that
was missing as zeros: a job whose server is killed would go on, silently wrong (seen).  So
the server is traced.  At its exit, whatever the reason, it stands still with its descriptors
open while the unit is killed, and goes only then.  Nothing kills the server when the
supervisor dies: the unit dies with its holder, and a server without processes ends by itself.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from ..errors import CheckpointerFailed
from ..ids import UnitName
from . import criu_log, freezer, tracing
from .api import UnitHandle
from .command import ENVIRONMENT

SOCKET = "lazy-pages.socket"  # CRIU's own name for it, in the work directory
START_TIMEOUT_S = 30.0  # measured 0.02 s
_DEATH_TIMEOUT_S = 10.0  # of a killed unit; measured 2 to 20 ms
_LOOK_EVERY_S = 0.001


class PageServer:
    """One server, from its start to its end."""

    def __init__(
        self, argv: Sequence[str], *, cgroup: Path, output: Path, env: Mapping[str, str]
    ) -> None:
        """*argv* lacks the option that names the descriptor on which it says that it is ready."""
        self._argv, self._cgroup, self._output, self._env = list(argv), cgroup, output, dict(env)
        self._token = trio.lowlevel.current_trio_token()
        self._pid = 0
        self._spawned = trio.Event()
        self._error: OSError | None = None  # it could not be started
        self.over = trio.Event()
        self.status = 0  # as of wait(2)
        self.is_lost = False  # it ended before the last page was there; the unit was killed for it

    async def start(self, pass_fds: Sequence[int]) -> None:
        """Start it; return when it waits for ``criu restore``.  Raises CheckpointerFailed."""
        ready, said = os.pipe2(os.O_CLOEXEC)
        try:
            fds = (*pass_fds, said)
            threading.Thread(target=self._watch, args=(fds,), name="pages", daemon=True).start()
            await self._spawned.wait()
            os.close(said)
            said = -1
            if self._error is not None:
                raise CheckpointerFailed(f"criu lazy-pages: {self._error.strerror}")
            with trio.move_on_after(START_TIMEOUT_S):
                await trio.lowlevel.wait_readable(ready)
                if os.read(ready, 1):
                    return
            raise CheckpointerFailed("criu lazy-pages did not start")
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.stop()
            raise
        finally:
            os.close(ready)
            if said >= 0:
                os.close(said)

    async def stop(self) -> None:
        """Kill it and wait for its end.  Harmless when it has ended."""
        if self._pid and not self.over.is_set():
            with suppress(ProcessLookupError):
                os.kill(self._pid, 9)
            await self.over.wait()

    # -- in the thread ---------------------------------------------------------------------------

    def _watch(self, pass_fds: Sequence[int]) -> None:
        try:
            self._pid = self._spawn(pass_fds)
        except OSError as error:
            self._error = error
        self._tell(self._spawned)
        if self._pid:
            status = tracing.wait_exit(self._pid)
            if status != 0:
                self.is_lost, self.status = True, -1 if status is None else status
                self._end_unit()
            if status is not None:
                tracing.let_exit(self._pid)
        self._tell(self.over)

    def _spawn(self, pass_fds: Sequence[int]) -> int:
        with self._output.open("ab") as output:
            process = subprocess.Popen(
                [*self._argv, "--status-fd", str(pass_fds[-1])],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(pass_fds),
                env=self._env,
                start_new_session=True,
            )
        process.returncode = 0  # reaped here, by number
        tracing.seize(process.pid)
        return process.pid

    def _end_unit(self) -> None:
        """Kill the unit and return when nothing of it runs any more."""
        deadline_s = time.monotonic() + _DEATH_TIMEOUT_S
        freezer.kill_members(self._cgroup)
        while self._may_run() and time.monotonic() < deadline_s:
            time.sleep(_LOOK_EVERY_S)

    def _may_run(self) -> bool:
        try:
            return bool(freezer.member_pids(self._cgroup))
        except OSError:
            return True

    def _tell(self, event: trio.Event) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(event.set)


class PageServers:
    """The servers of a translib's units; most units have none."""

    def __init__(self) -> None:
        self._servers: dict[UnitName, tuple[PageServer, Path]] = {}

    async def begin(self, unit: UnitHandle, directory_fd: int, criu: Sequence[str]) -> None:
        """Start the server of *unit* for the image in the directory.  Raises CheckpointerFailed."""
        (unit.work_dir / SOCKET).unlink(missing_ok=True)
        log, output = unit.work_dir / "lazy-pages.log", unit.work_dir / "lazy-pages.out"
        work_fd = os.open(unit.work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        argv = [*criu, "lazy-pages", "-D", f"/proc/self/fd/{directory_fd}"]
        argv += ["-W", f"/proc/self/fd/{work_fd}", "-o", log.name, "-v2", "--no-default-config"]
        try:
            server = PageServer(argv, cgroup=unit.cgroup, output=output, env=ENVIRONMENT)
            await server.start((directory_fd, work_fd))
        finally:
            os.close(work_fd)
        self._servers[unit.unit] = (server, log)

    def is_loading(self, unit: UnitName) -> bool:
        """Whether pages of *unit* may still be missing."""
        return unit in self._servers and not self._servers[unit][0].over.is_set()

    async def wait_loaded(self, unit: UnitName) -> None:
        """Return when every page is there.  Raises CheckpointerFailed: the unit was killed."""
        if unit in self._servers:
            server, log = self._servers[unit]
            await server.over.wait()
            if server.is_lost:
                raise CheckpointerFailed(_sentence(server.status, log))

    async def end(self, unit: UnitName) -> str:
        """The unit has ended: so does its server.  Return why it killed the unit, "" if it did not.

        May be repeated.
        """
        if unit not in self._servers:
            return ""
        server, log = self._servers[unit]
        was_lost = server.is_lost  # before we kill it ourselves
        await server.stop()
        return _sentence(server.status, log) if was_lost else ""


def _sentence(status: int, log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    ended = os.waitstatus_to_exitcode(status) if status >= 0 else status
    why = criu_log.reason(text if ended > 0 else "", "", ended)
    return f"pages of the image could not be loaded, so the unit was killed: criu lazy-pages: {why}"
