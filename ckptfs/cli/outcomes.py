"""The words of control files as records.  Pure.

``ctl/checkpoint`` and ``ctl/restart`` print ``none`` or ``7 saving``, ``7
failed (reason)``; ``ctl/state`` prints ``running``, ``failed (reason)``;
``ctl/exit_status`` prints ``none``, ``0``, ``signal 9``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# words after which nothing more happens by itself
OPERATION_ENDS = frozenset({"complete", "failed", "running", "stopped"})
JOB_ENDS = frozenset({"done", "failed"})

_OUTCOME = re.compile(r"(\d+) ([a-z_]+)(?: \((.*)\))?\Z", re.DOTALL)
_STATE = re.compile(r"([a-z_]+)(?: \((.*)\))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The latest request of a kind."""

    version: int
    word: str
    reason: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the operation is over."""
        return self.word in OPERATION_ENDS


@dataclass(frozen=True, slots=True)
class State:
    """Where a job stands."""

    word: str
    reason: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job is over (a suspended one is not)."""
        return self.word in JOB_ENDS

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


def parse_outcome(text: str) -> Outcome | None:
    """Return the first line of ``ctl/checkpoint`` or ``ctl/restart``; None for ``none``."""
    match = _OUTCOME.match(_first_line(text))
    return Outcome(int(match[1]), match[2], match[3] or "") if match else None


def parse_state(text: str) -> State:
    """Return ``ctl/state``; a text of another shape becomes the word as it is."""
    line = _first_line(text)
    match = _STATE.match(line)
    return State(match[1], match[2] or "") if match else State(line)


def parse_exit(text: str) -> int | None:
    """Return ``ctl/exit_status`` as a shell's ``$?`` (128 + n for signal n); None for ``none``."""
    words = _first_line(text).split()
    if len(words) == 2 and words[0] == "signal" and words[1].isdigit():
        return 128 + int(words[1])
    if len(words) == 1 and words[0].isdigit():
        return int(words[0])
    return None


def _first_line(text: str) -> str:
    """Return the text before the usage line that a verb's file ends with."""
    return text.partition("\n")[0].strip()
