"""How fast the service may work on the disk by itself: never while an operation is under way."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from .registry import Registry


def is_loaded() -> bool:
    """Whether more wants to run on this machine than it has processors."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


class Pacing:
    """One background work's share of the disk.  Trio thread only.

    *rate*, *rate_under_load*: bytes per second.
    """

    def __init__(
        self,
        registry: Registry,
        rate: int,
        rate_under_load: int,
        loaded: Callable[[], bool] = is_loaded,
    ) -> None:
        self._registry, self._loaded = registry, loaded
        self._rates = (rate, rate_under_load)
        self._next_s = 0.0  # when the next bytes may be moved
        self._released = trio.Event()  # set whenever a job's lock is given back
        registry.on_release(lambda _job, _operation: self._released.set())

    async def wait(self, size: int) -> None:
        """Return when *size* bytes may be moved: not during a checkpoint, not above the rate."""
        while self._registry.operations:
            self._released = trio.Event()
            await self._released.wait()
        await trio.sleep_until(self._next_s)
        rate = self._rates[self._loaded()]
        self._next_s = max(self._next_s, trio.current_time()) + size / rate
