"""What goes on after a request was answered: one nursery, fed through a channel.

A task that ends in a bug is logged; it does not end the service, because the
jobs of everybody else hang on it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)
Task = Callable[[], Awaitable[None]]


class Bell:
    """Tells one waiting task that there is something to do; rings before it waits count."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake who waits, now or next."""
        self._rung.set()

    def hush(self) -> None:
        """Forget the rings so far: what they were about is being done."""
        if self._rung.is_set():
            self._rung = trio.Event()

    async def wait(self) -> None:
        """Return when it has rung since `hush`."""
        await self._rung.wait()


class Background:
    """Takes tasks at any time on the trio thread; `run` carries them out."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[str, Task]](math.inf)

    def spawn(self, name: str, task: Task) -> None:
        """Have *task* run soon.  Plain: nothing else runs before the caller awaits."""
        self._send.send_nowait((name, task))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; every task is cancelled with it and may clean up under a shield."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for name, task in self._receive:
                nursery.start_soon(self._guarded, name, task, name=name)

    async def _guarded(self, name: str, task: Task) -> None:
        try:
            await task()
        except Exception:
            log.exception("the background task %s ended in a bug", name)
