"""Watches how full the disk is, and has the collector start by itself below the low mark.

Between the low mark and the high one nothing happens: so the collector does not run at each
version that brings a disk near its mark.
"""

from __future__ import annotations

import logging

import trio

from ..gc.decide import is_ample, is_scarce
from ..store.api import Usage
from .parts import Parts

log = logging.getLogger(__name__)
EVERY_S = 30.0
FIRST_S = 1.0  # the store is being counted by then, and says how full it is at once
AGAIN_S = 600.0  # while it stays below the mark, although the collector ran


class Watermarks:
    """One disk, that of the store.  Trio thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rung_s: float | None = None  # trio's clock; None: not below the low mark
        self._sentence = ""

    def alarm(self) -> str:
        """Return one sentence while little is free, else nothing."""
        return self._sentence

    async def keep_going(self) -> None:
        """Look at the disk now and then, until cancelled."""
        await trio.sleep(FIRST_S)
        while True:
            try:
                self.look(self._parts.store.usage())
            except OSError as error:
                log.error("the disk does not say how full it is: %s", error)
            await trio.sleep(EVERY_S)

    def look(self, usage: Usage) -> None:
        """Ring for the collector when the disk has come below the low mark, or stays there."""
        before, now_s = self._sentence, trio.current_time()
        if is_scarce(usage.free_bytes, usage.total_bytes):
            share = 100 * usage.free_bytes // max(1, usage.total_bytes)
            self._sentence = (
                f"the disk is nearly full, {share} % are free: remove versions, or enlarge it;"
                " what was removed is freed early"
            )
            if self._rung_s is None or now_s - self._rung_s >= AGAIN_S:
                self._rung_s = now_s
                self._parts.garbage.ring()
        elif is_ample(usage.free_bytes, usage.total_bytes):
            self._rung_s, self._sentence = None, ""
        if self._sentence != before:
            self._parts.registry.changed(None)
