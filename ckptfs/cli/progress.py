"""What is shown while an operation runs: a bar on a terminal, lines in a pipe, JSON for machines.

All but JSON goes to stderr, so that stdout holds the result alone:
``version=$(ckptfs checkpoint heat)``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from .outcomes import Outcome
from .tables import clipped, printable, size_text

BAR_WIDTH = 24  # characters
WIDTH_UNKNOWN = 79  # characters
CLEAR_LINE = "\r\x1b[K"

# Poll wakes us at every change of the word; these bound how old the bytes
# shown get, and how long a missed wake-up could last.
TERMINAL_REFRESH_S = 0.2
QUIET_REFRESH_S = 5.0
FIRST_LINE_S = 1.0  # what takes less is not worth a line


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


def bar_text(
    job: str, outcome: Outcome, moved: Bytes, elapsed_s: float, width: int = WIDTH_UNKNOWN
) -> str:
    """Return one line of at most *width* characters.  Pure.

    A bar where the total is known, else bytes and time.  Where that is too long the bar goes
    first, then the sizes, then the end of the line.
    """
    name, elapsed = f"{job}: {outcome.version} {outcome.word}", f"{elapsed_s:.0f} s"
    if moved.total > 0:
        # the total is an estimate made before the dump; never show more than all of it
        share = min(1.0, moved.done / moved.total)
        filled = round(share * BAR_WIDTH)
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]"
        sizes = f"{size_text(moved.done)} of {size_text(moved.total)}"
        percent = f"{share:4.0%}"
        forms = [(name, f"{bar} {percent}", sizes, elapsed), (name, percent, sizes, elapsed)]
        forms += [(name, percent, elapsed), (name, percent.strip())]
    elif moved.done > 0:
        forms = [(name, size_text(moved.done), elapsed), (name, elapsed)]
    else:
        forms = [(name, elapsed)]
    lines = [printable("  ".join(parts)) for parts in forms]
    return next((line for line in lines if len(line) <= width), clipped(lines[-1], width))


def width_of(stream: TextIO) -> int:
    """Return how many characters a line of the terminal holds without being wrapped.

    One column stays free: some terminals wrap as soon as the last is written.
    """
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:  # io.UnsupportedOperation, too: no terminal
        columns = 0
    return columns - 1 if columns > 1 else WIDTH_UNKNOWN


class TerminalProgress:
    """One line that is drawn over and over."""

    refresh_s = TERMINAL_REFRESH_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began_s = time.monotonic()

    def update(self, job: str, verb: str, outcome: Outcome, moved: Bytes) -> None:
        """Show the present state, in the width that the terminal has now."""
        elapsed_s = time.monotonic() - self._began_s
        line = bar_text(job, outcome, moved, elapsed_s, width_of(self._stream))
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
    if _is_drawable():
        return TerminalProgress(sys.stderr)
    return LineProgress(sys.stderr)


def _is_drawable() -> bool:
    """Return whether stderr is a terminal on which a line can be taken back (terminfo(5): dumb)."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def shown_share(
    what: str, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[float], None]]:
    """Yield a function that shows how much of *what* is done (0 to 1).

    Where no line can be drawn over, a line after a second and then every few; *clock* in seconds.
    """
    is_terminal = _is_drawable()
    due_s = clock() + FIRST_LINE_S

    def show(share: float) -> None:
        nonlocal due_s
        if is_terminal:
            sys.stderr.write(f"{CLEAR_LINE}{what}: {share:4.0%}")
            sys.stderr.flush()
        elif clock() >= due_s:
            due_s = clock() + QUIET_REFRESH_S
            print(f"{what}: {share:.0%}", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if is_terminal:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()
