"""What ``ctl/versions`` prints of a job, brought up to date as far as that is quick.

Heads are read in the background when the service starts, and what each version holds alone is
counted when somebody first asks; whoever asks gets what is known by then, soon.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from ..ids import JobId, Version
from .parts import Parts

BATCH = 100  # versions that are rendered in one go: 2 ms
REFRESH_S = 0.7  # what is not counted by then is in the background, for the next time


class Listing:
    """Trio thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._counting: set[JobId] = set()  # in the background
        self._released = trio.Event()  # set whenever a job's lock is given back
        parts.registry.on_release(lambda _job, _operation: self._released.set())

    async def versions(self, job: JobId) -> AsyncIterator[Sequence[Version]]:
        """See Service.listed_versions."""
        await self.refresh(job)
        numbers = list(self._parts.registry.get(job).versions)
        for at in range(0, len(numbers), BATCH):
            await trio.lowlevel.checkpoint()
            yield numbers[at : at + BATCH]

    async def refresh(self, job: JobId) -> None:
        """Have a job's versions counted, for `REFRESH_S` at most; the rest goes on behind."""
        store = self._parts.store
        if job in self._counting:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(REFRESH_S) as scope:
            await store.wait_counted()
            await store.summaries.count_alone(job)
        if scope.cancelled_caught:
            self._counting.add(job)
            self._parts.background.spawn(f"versions of {job}", lambda: self._go_on(job))

    async def _go_on(self, job: JobId) -> None:
        try:
            await self._parts.store.wait_counted()
            await self._parts.store.summaries.count_alone(job, pace=self._calm)
        finally:
            self._counting.discard(job)

    async def _calm(self) -> None:
        """Return when no job is being checkpointed or restarted: it would stand still longer."""
        while self._parts.registry.operations:
            self._released = trio.Event()
            await self._released.wait()
