"""Two threads for the whole store, and the back-pressure between them and the trio thread.

Writes come in on the trio thread and are queued for the hashing thread, which
has a process hash them (`hash_ring`); what is new goes on to the writing
thread.  No thread hop per request (125 us each): the trio thread only waits
when more than `IN_FLIGHT_MAX` bytes are queued.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable

import trio

IN_FLIGHT_MAX = 32 << 20  # bytes queued per version before its writers wait; 16, 64: no gain
IN_FLIGHT_LOW = 16 << 20  # bytes left when they are woken

Step = Callable[[], None]


class WorkThread:
    """One thread that takes steps in order, and looks after descriptors between two of them.

    A step must not raise.
    """

    def __init__(self, name: str) -> None:
        self._steps: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._watched: dict[int, Step] = {}
        self._poll = select.epoll()
        self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._woken, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, step: Step) -> None:
        """Queue a step; never waits."""
        self._put(step)

    def watch(self, descriptor: int, step: Step) -> None:
        """Take *step* whenever *descriptor* can be read; from a step of this thread alone.

        It may be taken once too often: what it reads must not wait.
        """
        self._watched[descriptor] = step
        self._poll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Take no more of it, before it is closed; from a step of this thread.  Repeatable."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def close(self) -> None:
        """Let the queued steps finish and end the thread; a step queued later is not taken.

        A step may not wait for whoever calls this, the trio thread: it does not answer meanwhile.
        """
        self._put(None)
        self._thread.join()
        self._watched.clear()
        self._poll.close()
        os.close(self._woken)

    def _put(self, step: Step | None) -> None:
        self._steps.put(step)
        # The thread looks into the queue after it has begun to watch, so one of us sees the other.
        if self._watched:
            os.eventfd_write(self._woken, 1)

    def _run(self) -> None:
        while (step := self._next()) is not None:
            step()
            del step  # holds up to 1 MiB of a file

    def _next(self) -> Step | None:
        """Return the next step; before it each descriptor that can be read has its turn."""
        while self._watched:
            for descriptor, _ in self._poll.poll(0 if self._steps.qsize() else -1):
                if descriptor == self._woken:
                    os.eventfd_read(self._woken)
                elif descriptor in self._watched:  # not one that another's step has closed
                    self._watched[descriptor]()
            with contextlib.suppress(queue.Empty):
                return self._steps.get_nowait()
        return self._steps.get()


class Flow:
    """Counts the bytes of one version between the trio thread and the last thread that holds them.

    Each counter has one writer, so neither needs a lock.
    """

    def __init__(self) -> None:
        self._taken = 0  # trio thread
        self._done = 0  # hashing thread
        self._room: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def in_flight(self) -> int:
        """Bytes queued and not yet let go."""
        return self._taken - self._done

    def take(self, size: int) -> None:
        """Count bytes in.  No await: atomic."""
        self._taken += size

    def done(self, size: int) -> None:
        """Count bytes out, wake whoever waits for room.  Hashing thread."""
        self._done += size
        if self._room is not None and self.in_flight <= IN_FLIGHT_LOW and self._token is not None:
            self._token.run_sync_soon(self._wake, idempotent=True)

    async def wait_room(self) -> None:
        """Return when there is room."""
        while self.in_flight > IN_FLIGHT_MAX:
            if self._room is None:
                self._token = trio.lowlevel.current_trio_token()
                self._room = trio.Event()
                if self.in_flight <= IN_FLIGHT_LOW:  # it emptied before the event was there to see
                    self._wake()
                    return
            await self._room.wait()

    def _wake(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
