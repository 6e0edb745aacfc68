"""What is shown while an operation runs: a bar on a terminal, lines in a pipe, JSON for machines.

All but JSON goes to stderr, so that stdout holds the result alone:
``version=$(ckptfs checkpoint heat)``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from .outcomes import Outcome
from .tables import printable, size_text

BAR_WIDTH = 24  # characters
CLEAR_LINE = "\r\x1b[K"

# Poll wakes us at every change of the word; these bound how old the bytes
# shown get, and how long a missed wake-up could last.
TERMINAL_REFRESH_S = 0.2
QUIET_REFRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Bytes:
    """How far a save is; *total* is an estimate, 0 unknown."""

    done: int = 0
    total: int = 0


class Progress(Protocol):
    """Who is told how an operation goes."""

    refresh_s: float

    def update(self, job: str, verb: str, outcome: Outcome, moved: Bytes) -> None:
        """Show the present state; called at least every *refresh_s*."""
        ...

    def close(self) -> None:
        """Leave the terminal clean."""
        ...


def bar_text(job: str, outcome: Outcome, moved: Bytes, elapsed_s: float) -> str:
    """Return one line: a bar where the total is known, else bytes and time.  Pure."""
    parts = [f"{job}: {outcome.version} {outcome.word}"]
    if moved.total > 0:
        # the total is an estimate made before the dump; never show more than all of it
        share = min(1.0, moved.done / moved.total)
        filled = round(share * BAR_WIDTH)
        parts.append(f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%}")
        parts.append(f"{size_text(moved.done)} of {size_text(moved.total)}")
    elif moved.done > 0:
        parts.append(size_text(moved.done))
    parts.append(f"{elapsed_s:.0f} s")
    return printable("  ".join(parts))


class TerminalProgress:
    """One line that is drawn over and over."""

    refresh_s = TERMINAL_REFRESH_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began_s = time.monotonic()

    def update(self, job: str, verb: str, outcome: Outcome, moved: Bytes) -> None:
        """Show the present state."""
        line = bar_text(job, outcome, moved, time.monotonic() - self._began_s)
        self._stream.write(CLEAR_LINE + line)
        self._stream.flush()

    def close(self) -> None:
        """Take the line away."""
        self._stream.write(CLEAR_LINE)
        self._stream.flush()


class LineProgress:
    """A line whenever the word changes."""

    refresh_s = QUIET_REFRESH_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: Outcome | None = None

    def update(self, job: str, verb: str, outcome: Outcome, moved: Bytes) -> None:
        """Show the present state."""
        if outcome == self._last:
            return
        self._last = outcome
        print(f"{job}: {outcome.version} {outcome.word}", file=self._stream, flush=True)

    def close(self) -> None:
        """Lines stay as they are."""


class JsonProgress:
    """A JSON object per line on stdout whenever the word changes."""

    refresh_s = QUIET_REFRESH_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: Outcome | None = None

    def update(self, job: str, verb: str, outcome: Outcome, moved: Bytes) -> None:
        """Show the present state."""
        if outcome == self._last:
            return
        self._last = outcome
        record: dict[str, object] = {
            "job": job,
            "operation": verb,
            "version": outcome.version,
            "state": outcome.word,
        }
        if outcome.reason:
            record["reason"] = outcome.reason
        print(json.dumps(record), file=self._stream, flush=True)

    def close(self) -> None:
        """Lines stay as they are."""


def make_progress(*, as_json: bool) -> Progress:
    """Return what suits the terminal, the pipe, or the machine at the other end."""
    if as_json:
        return JsonProgress(sys.stdout)
    if sys.stderr.isatty():
        return TerminalProgress(sys.stderr)
    return LineProgress(sys.stderr)


@contextmanager
def shown_share(what: str) -> Generator[Callable[[float], None]]:
    """Yield a function that shows how much of *what* is done (0 to 1); on a terminal alone."""
    is_terminal = sys.stderr.isatty()

    def show(share: float) -> None:
        if is_terminal:
            sys.stderr.write(f"{CLEAR_LINE}{what}: {share:4.0%}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if is_terminal:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()
