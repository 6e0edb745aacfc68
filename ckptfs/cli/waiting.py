"""Waiting for what was asked for.  Ctrl-C ends the waiting, never the operation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

from ..errors import CheckpointerFailed, CkptfsError, Gone, NotFound
from .client import Mount
from .entry import warn
from .outcomes import Outcome, State, parse_exit, parse_outcome, parse_state
from .progress import QUIET_REFRESH_S, Bytes, Progress

EXIT_UNKNOWN = 125  # the job is over, but nobody knows how: as timeout(1) and env(1) use it


@contextmanager
def said_when_interrupted(sentence: str) -> Generator[None]:
    """Print *sentence* when Ctrl-C ends the block, and let the interrupt go on."""
    try:
        yield
    except KeyboardInterrupt:
        warn(f"stopped waiting; {sentence}")
        raise


def follow(mount: Mount, job: str, verb: str, version: int, progress: Progress) -> Outcome:
    """Wait for the end of *version*'s checkpoint or restart (*verb*) and return it.

    Raises CheckpointerFailed with the reason when it failed.
    """
    hint = f"version {version} of {job} goes on; see {mount.root}/{job}/ctl/{verb}"
    # closed first: the sentence must not be written behind the bar
    with said_when_interrupted(hint), closing(progress), mount.watch(f"{job}/ctl/{verb}") as watch:
        while True:
            outcome = parse_outcome(watch.read())
            if outcome is None or outcome.version != version:
                outcome = _superseded(mount, job, verb, version)
            progress.update(job, verb, outcome, bytes_moved(mount, job))
            if outcome.has_ended:
                break
            watch.wait(progress.refresh_s)
    if outcome.word == "failed":
        reason = outcome.reason or f"see {mount.root}/{job}/ctl/error"
        raise CheckpointerFailed(f"{verb} of {job}, version {version}, failed: {reason}")
    return outcome


def _superseded(mount: Mount, job: str, verb: str, version: int) -> Outcome:
    """Return what became of *version* when the file already speaks of a later request.

    A committed version is a directory, whatever came after it.
    """
    try:
        mount.status(f"{job}/{version}")
    except NotFound:
        return Outcome(version, "failed", "another request came after it")
    return Outcome(version, "complete" if verb == "checkpoint" else "running")


def bytes_moved(mount: Mount, job: str) -> Bytes:
    """Return how far the save in work is, as ``ctl/stat`` says; nothing where it does not."""
    try:
        stat = mount.keyed(f"{job}/ctl/stat")
    except CkptfsError:
        return Bytes()  # progress is a courtesy: its absence must not end the waiting
    done, total = (stat.get(f"saving_{which}_bytes", "0") for which in ("done", "total"))
    return Bytes(int(done) if done.isdigit() else 0, int(total) if total.isdigit() else 0)


def wait_for_state(mount: Mount, job: str, words: frozenset[str]) -> State:
    """Wait until the job's state is one of *words* or the job has ended, and return it."""
    with mount.watch(f"{job}/ctl/state") as watch:
        while True:
            state = parse_state(watch.read())
            if state.word in words or state.has_ended:
                return state
            watch.wait(QUIET_REFRESH_S)


def wait_for_end(mount: Mount, job: str) -> tuple[State, int]:
    """Wait until the job is over; return its last state and its exit code as a shell would.

    A suspended job is not over: somebody may resume it.  125 when the exit
    status is not known (its node was lost).
    """
    told = False
    with mount.watch(f"{job}/ctl/state") as watch:
        while True:
            try:
                state = parse_state(watch.read())
            except Gone as error:
                raise Gone(f"{job} was removed while it was waited for") from error
            if state.has_ended:
                break
            if state.word == "suspended" and not told:
                warn(f"{job} is suspended; waiting until it is resumed and ends")
                told = True
            watch.wait(QUIET_REFRESH_S)
    code = parse_exit(mount.read(f"{job}/ctl/exit_status"))
    return state, EXIT_UNKNOWN if code is None else code
