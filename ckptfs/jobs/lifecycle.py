"""Which verb is legal in which state of a job, as a table.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import Busy, CkptfsError, Unsupported
from ..ids import JobId
from ..model import JobState

ENDED: Final = frozenset({JobState.DONE, JobState.FAILED})
MOVING: Final = frozenset(
    {JobState.PENDING, JobState.CHECKPOINTING, JobState.RESTARTING, JobState.MIGRATING}
)
ALIVE: Final = frozenset(JobState) - ENDED

ALLOWED: Final[Mapping[str, frozenset[JobState]]] = {
    "checkpoint": frozenset({JobState.RUNNING}),
    "suspend": frozenset({JobState.RUNNING}),
    "resume": frozenset({JobState.SUSPENDED}),
    "restart": ENDED | {JobState.SUSPENDED},
    "clone": ENDED | {JobState.SUSPENDED, JobState.RUNNING},
    "kill": ALIVE,
    "signal": frozenset({JobState.RUNNING}),
    "remove": ENDED,
}

# What stands in the way and can go away → EBUSY; everything not named here → EOPNOTSUPP.
LATER: Final[Mapping[tuple[str, JobState], str]] = {
    ("restart", JobState.RUNNING): "{job} is running: kill it first, or restart it with as=clone",
    ("resume", JobState.RUNNING): "{job} is not suspended, it is running",
    ("remove", JobState.RUNNING): "{job} is running: kill it first",
    ("remove", JobState.SUSPENDED): "{job} is suspended: kill it first",
    ("checkpoint", JobState.SUSPENDED): "{job} is suspended: resume it first",
    ("signal", JobState.SUSPENDED): "{job} is suspended: resume it first",
    ("suspend", JobState.SUSPENDED): "{job} is suspended already",
}
NEVER: Final[Mapping[str, str]] = {
    "resume": "{job} is not suspended but {state}: restart it instead",
}


# Asked for what is so already: succeeds and changes nothing.
ALREADY: Final = frozenset({("suspend", JobState.SUSPENDED), ("resume", JobState.RUNNING)})


def refusal(verb: str, job: JobId, state: JobState) -> CkptfsError | None:
    """Return why *verb* is refused in *state*: Busy (EBUSY), Unsupported (EOPNOTSUPP), or None."""
    if state in ALLOWED[verb]:
        return None
    if state in MOVING:
        return Busy(f"{job} is {state}: wait until that is over")
    later = LATER.get((verb, state))
    if later:
        return Busy(later.format(job=job))
    never = NEVER.get(verb, "{job} has ended ({state}): it has no processes any more")
    return Unsupported(never.format(job=job, state=state))
