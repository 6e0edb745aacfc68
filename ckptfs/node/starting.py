"""Starting supervisors, and keeping one started beforehand that waits for its unit.

Starting Python and importing trio and the rest takes 0.13 s of CPU time, which was a third of
what a restart of a small job took.  The spare is given the run directory of its unit on its
stdin, and ends when that is closed: with the service.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import trio

from ..errors import CannotRun
from .isolation import decode_failure
from .orders import SPARE

log = logging.getLogger(__name__)
START_TIMEOUT_S = 30.0  # measured 0.15 s; the rest is for a machine that swaps
_SUPERVISOR = (sys.executable, "-m", "ckptfs.node.supervisor")
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
REST_S = 3.0  # the next one is not started beside the start or restart that took the last one


class Spare:
    """At most one process that waits.  Without `keep` there is none."""

    def __init__(self) -> None:
        self._process: trio.Process | None = None
        self._taken = trio.Event()
        self.is_there = trio.Event()

    async def keep(self, rest_s: float = REST_S) -> None:
        """Have one there, and a new one so long after it was taken, until cancelled."""
        try:
            while True:
                await trio.sleep(rest_s)
                taken = self._taken = trio.Event()
                try:
                    self._process = await trio.lowlevel.open_process(
                        [*_SUPERVISOR, SPARE],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        cwd="/",
                        env=_environment(),
                    )
                except OSError as error:  # it saves time, it is not worth the service
                    log.warning("no supervisor can be started beforehand: %s", error)
                    continue
                self.is_there.set()
                await taken.wait()
        finally:
            process, self._process = self._process, None
            if process is not None:
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()

    async def start(self, word: str) -> bytes | None:
        """Give *word* to the one that waits; return what it prints.  None: none waits, or it fell.

        Cancelled, it is killed: nothing of it goes on.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        self.is_there = trio.Event()
        self._taken.set()
        assert process.stdio is not None
        try:
            await process.stdio.send_all(word.encode() + b"\n")
            await process.stdio.send_stream.aclose()
            parts = [part async for part in process.stdio.receive_stream]
            await process.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            process.kill()
            await process.wait()
            return None
        except BaseException:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            raise
        return b"".join(parts) or None


def _environment() -> dict[str, str]:
    """Return what a supervisor, and through it criu, needs of our environment, no more."""
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "CKPTFS_CRIU") if name in os.environ
    }
    return {**kept, "PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


async def start_supervisor(run: Path, spare: Spare) -> None:
    """Start the supervisor for the unit of a run directory and wait for its line.

    Raises what it reports, CannotRun, trio.TooSlowError.
    """
    log = run / "supervisor.log"
    with log.open("ab") as stderr, trio.fail_after(START_TIMEOUT_S):
        answer = await spare.start(str(run))
        if answer is None:
            done = await trio.run_process(
                [*_SUPERVISOR, str(run)],
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                stderr=stderr,
                check=False,
                cwd="/",
                env=_environment(),
            )
            answer = done.stdout
    answer = answer.strip()
    if answer == b"ready":
        return
    if not answer.startswith(b"["):
        raise CannotRun(f"the unit's supervisor failed: see {log}")
    raise decode_failure(answer)
