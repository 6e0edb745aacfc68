"""``echo dry > ctl/gc``: what a collection would do, and why; nothing is changed.

A write has 10 s.  A plan of 10 000 versions and 1 M packs may take longer, while other work goes on
above all: then it goes on in the background, ``ctl/gc`` says ``planning``, and whoever asks again
gets it.
"""

from __future__ import annotations

import time

import trio

from ..errors import CkptfsError, TimedOut, TryAgain
from ..gc.api import Sweeper
from .parts import Parts
from .retention import verdicts_in_turns

PATIENCE_S = 5.0  # of a write, which has 10
KEPT_S = 60.0  # a plan that nobody has come for is of the past


class Planning:
    """One plan at a time.  Trio thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._plan: _Plan | None = None

    @property
    def is_running(self) -> bool:
        """Whether a plan is being made."""
        return self._plan is not None and not self._plan.done.is_set()

    async def ask(self, sweeper: Sweeper, *, empty_trash: bool) -> str:
        """Return the plan.

        Raises TryAgain in doubt, TimedOut when it is still being made.
        """
        plan = self._plan
        if plan is None or plan.is_old(empty_trash):
            plan = self._plan = _Plan(empty_trash)
            self._parts.background.spawn("a plan", lambda: self._make(plan, sweeper))
            self._parts.registry.changed(None)
        with trio.move_on_after(PATIENCE_S):
            await plan.done.wait()
        if not plan.done.is_set():
            raise TimedOut("the plan is still being made: ask again when ctl/gc has ended planning")
        self._plan = None
        if plan.doubt:
            raise TryAgain(f"nothing would be deleted: {plan.doubt}") from plan.doubt
        return plan.text

    async def _make(self, plan: _Plan, sweeper: Sweeper) -> None:
        try:
            plan.text = await self._text(sweeper, empty_trash=plan.empty_trash)
        except (CkptfsError, OSError) as error:
            plan.doubt = error
        finally:
            plan.end()
            self._parts.registry.changed(None)

    async def _text(self, sweeper: Sweeper, *, empty_trash: bool) -> str:
        lines: list[str] = []
        await self._parts.store.wait_counted()  # or 10 000 heads would be read on this thread
        for job in list(self._parts.registry.jobs.values()):
            for verdict in await verdicts_in_turns(self._parts, job):
                word = "stays" if verdict.stays else "goes"
                lines.append(f"{job.id}/{verdict.version} {word}: {verdict.reason}")
        trash, free_bytes = await sweeper.plan(empty_trash=empty_trash)
        packs = await sweeper.plan_packs(empty_trash=empty_trash)
        for entry, reason in trash:
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.expires_s))
            what = f"goes: {reason}" if reason else f"stays: in the trash until {until}"
            lines.append(f"{entry.job}/{entry.version} {what}")
        lines += await sweeper.plan_volumes()
        lines += packs
        lines.append(f"{free_bytes} bytes are needed by no version that stays in store or trash")
        return "\n".join(lines)


class _Plan:
    """One that is being made, or was."""

    def __init__(self, empty_trash: bool) -> None:
        self.empty_trash = empty_trash
        self.done = trio.Event()
        self.text = ""
        self.doubt: CkptfsError | OSError | None = None
        self._ended_s = 0.0

    def end(self) -> None:
        """Let everybody have it."""
        self._ended_s = trio.current_time()
        self.done.set()

    def is_old(self, empty_trash: bool) -> bool:
        """Whether another one is to be made for somebody who asks now."""
        if not self.done.is_set():
            return False
        return self.empty_trash != empty_trash or trio.current_time() - self._ended_s > KEPT_S
