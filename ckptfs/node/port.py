"""One unit as the coordinator sees it: `UnitPort` over the socket of its supervisor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from ..errors import CkptfsError
from ..ids import JobId, UnitName
from ..model import OpenFile, UnitFacts
from .api import Prepared, Process
from .client import SupervisorClient
from .records import open_file_from, prepared_from, process_from, to_json

ANSWER_TIMEOUT_S = 60.0  # for requests that involve no checkpointer
_CLEARED_UP_S = 5.0  # a supervisor that was let down has ended 10 ms later


class SupervisedUnitPort:
    """`UnitPort` over the socket of one supervisor."""

    def __init__(self, job: JobId, unit: UnitName, client: SupervisorClient, pid: int) -> None:
        self.job = job
        self.unit = unit
        self.pid = pid
        self.is_loading = False
        self._client = client
        self.is_abandoned = False  # its rebuild failed: its end is nobody's news
        self._supervisor = -1  # descriptor of its process while a rebuild may yet fail

    async def prepare(self) -> Prepared:
        """Return blockers and facts; stop nothing."""
        return prepared_from(await self._client.request("prepare", timeout_s=ANSWER_TIMEOUT_S))

    async def stop(self, *, lease_s: float) -> Sequence[OpenFile]:
        """Freeze under a lease."""
        answer = await self._client.request("stop", timeout_s=ANSWER_TIMEOUT_S, lease_s=lease_s)
        return tuple(open_file_from(item) for item in answer)

    async def checkpoint(self, directory: Path, *, streams: bool = False) -> Sequence[OpenFile]:
        """Have the image written; no deadline but the caller's."""
        # A supervisor of before an upgrade never hears of streams: its prepare offers none.
        more = {"streams": True} if streams else {}
        answer = await self._client.request("checkpoint", directory=str(directory), **more)
        return tuple(open_file_from(item) for item in answer)

    async def confirm(self, directory: Path) -> None:
        """Have the streamed image looked at."""
        await self._client.request("confirm", timeout_s=ANSWER_TIMEOUT_S, directory=str(directory))

    async def resume_cp(self) -> None:
        """Thaw."""
        await self._client.request("resume_cp", timeout_s=ANSWER_TIMEOUT_S)

    async def resume_rst(self, *, stopped: bool = False) -> None:
        """Let the rebuilt unit go."""
        answer = await self._client.request(
            "resume_rst", timeout_s=ANSWER_TIMEOUT_S, stopped=stopped
        )
        self.is_loading = answer["loading"]

    async def kill(self) -> None:
        """Kill every process; a unit that has ended is no error."""
        await self._client.kill(timeout_s=ANSWER_TIMEOUT_S)

    async def signal(
        self,
        number: int,
        *,
        only: Sequence[int] = (),
        others: Sequence[int] = (),
        master: bool = False,
    ) -> None:
        """Send a signal."""
        await self._client.request(
            "signal",
            timeout_s=ANSWER_TIMEOUT_S,
            number=number,
            only=list(only),
            others=list(others),
            master=master,
        )

    async def processes(self) -> Sequence[Process]:
        """Return the processes, for monitoring."""
        answer = await self._client.request("processes", timeout_s=ANSWER_TIMEOUT_S)
        return tuple(process_from(item) for item in answer)

    async def rebuild(
        self,
        facts: UnitFacts,
        directory: Path,
        *,
        suffix: str,
        copied_logs: str,
        lazy: bool,
        proved: trio.Event | None,
    ) -> None:
        """Have files put back and processes rebuilt, frozen; no deadline but the caller's."""
        request = partial(
            self._rebuild, facts, directory, suffix=suffix, copied_logs=copied_logs, lazy=lazy
        )
        if proved is None:
            await request(unproven=False)
            return
        failure: CkptfsError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, proved)
            try:
                await request(unproven=True)
            except BaseException as error:
                self.is_abandoned = True  # before anybody hears that the supervisor ends
                if not isinstance(error, CkptfsError):
                    raise
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _pass_on(self, proved: trio.Event) -> None:
        await proved.wait()
        with suppress(CkptfsError):  # the rebuild fails by the same
            await self._client.request("proved", timeout_s=ANSWER_TIMEOUT_S)

    async def _rebuild(
        self,
        facts: UnitFacts,
        directory: Path,
        *,
        suffix: str,
        copied_logs: str,
        lazy: bool,
        unproven: bool,
    ) -> None:
        answer = await self._client.request(
            "rebuild",
            facts=to_json(facts),
            directory=str(directory),
            suffix=suffix,
            copied_logs=copied_logs,
            lazy=lazy,
            unproven=unproven,
        )
        self.pid = answer["pid"]

    async def hold_for_rebuild(self) -> None:
        """Tie the supervisor to this connection: should it close, the supervisor clears up."""
        answer = await self._client.request("hold", timeout_s=ANSWER_TIMEOUT_S)
        self._supervisor = os.pidfd_open(answer["pid"])

    async def abandon(self) -> None:
        """Close the connection of a unit that was not rebuilt; its supervisor clears up.

        Waits for the end of the supervisor, which would take the next one's cgroup away.
        """
        self.is_abandoned = True
        await self._client.aclose()
        if self._supervisor >= 0:
            with trio.move_on_after(_CLEARED_UP_S):
                await trio.lowlevel.wait_readable(self._supervisor)
            self.let_supervisor_be()

    def let_supervisor_be(self) -> None:
        """The unit has been rebuilt: nobody waits for the supervisor's end."""
        supervisor, self._supervisor = self._supervisor, -1
        if supervisor >= 0:
            os.close(supervisor)

    async def aclose(self) -> None:
        """Close the connection; a stopped unit goes on then."""
        await self._client.aclose()
