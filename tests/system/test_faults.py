"""The daemon and CRIU killed at every moment: the job goes on, and nothing half-made shows."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.programs.oracles import complaints, last_step
from tests.programs.table import PYTHON

from .installation import Installation, RunningJob, eventually
from .watch import UnitWatch, catch, catch_one, end_process, task_states

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

SOURCES = Path(__file__).parents[1] / "programs"
STEPS = 1_000_000
MEBIBYTES = 256  # a dump takes half a second: long enough to be hit at a chosen moment
GOES_ON_S = 2.0  # the promise


@dataclass
class Victim:
    """A job with much memory, and what must still be true of it after each fault."""

    installation: Installation
    job: RunningJob
    versions: set[int] = field(default_factory=set[int])
    taken_before: int = 0  # of the installation, when the last version was asked for

    def watch(self) -> UnitWatch:
        return UnitWatch.of(self.job.root_pid())

    def step(self) -> int:
        return last_step(self.job.output())

    def goes_on(self) -> None:
        """It does one more step within the promised time."""
        before = self.step()
        eventually(lambda: self.step() > before, "the job goes on", GOES_ON_S)

    def is_right(self) -> None:
        """Everything it has printed so far is what it must have printed."""
        reach = self.step() + 1
        expected = complaints("memory", reach, {"": self.job.output()}, finished=False)
        assert expected == []

    def staged_bytes(self) -> int:
        """Return how much of the version asked for has arrived, 0 for the first MiB."""
        taken = self.installation.taken_bytes() - self.taken_before
        return taken if taken > 1 << 20 else 0

    def visible_versions(self) -> set[int]:
        return {int(name) for name in os.listdir(self.job.path) if name.isdecimal()}

    def begin_checkpoint(self) -> int:
        """Ask for a version and return its number; one asked for before may have got through."""
        self.job.wait("state", lambda text: text == "running")
        self.versions |= self.visible_versions()
        self.taken_before = self.installation.taken_bytes()
        return int(self.job.write("checkpoint", "1"))

    def nothing_half_made(self) -> None:
        """What is listed is whole; what is not whole is not listed."""
        assert os.listdir(self.installation.mount / ".staging") == []
        for version in self.visible_versions() - self.versions:
            directory = self.job.path / str(version)
            check = subprocess.run(
                ["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=directory, capture_output=True
            )
            assert check.returncode == 0, check.stdout + check.stderr
            self.versions.add(version)
        assert self.visible_versions() == self.versions


@pytest.fixture(scope="module")
def victim(installation):
    """One job that goes through every fault in turn."""
    directory = installation.job_directory("memory")
    shutil.copy(SOURCES / "memory.py", directory)
    (directory / "memory.py").chmod(0o644)
    words = (PYTHON, "memory.py", str(STEPS), "0.02", str(MEBIBYTES))
    made = Victim(installation, installation.run(*words, name="memory", directory=directory))
    eventually(lambda: made.step() >= 1, "the first step")
    return made


# moment → how it is seen, given (victim, watch); None: the one before it is over
CheckpointMoment = Callable[[Victim, UnitWatch], object]
CHECKPOINT_MOMENTS: dict[str, CheckpointMoment] = {
    "asked": lambda victim, watch: True,
    "frozen": lambda victim, watch: watch.is_frozen(),
    "criu_starts": lambda victim, watch: watch.criu("dump"),
    "first_bytes": lambda victim, watch: victim.staged_bytes() > 0,
    "halfway": lambda victim, watch: victim.staged_bytes() > MEBIBYTES << 19,
    "criu_has_ended": lambda victim, watch: victim.staged_bytes() and not watch.criu("dump"),
}


def outcome_of(victim: Victim, name: str, unfinished: str) -> bool:
    return unfinished not in victim.job.read(name)


@pytest.mark.parametrize("moment", [*CHECKPOINT_MOMENTS, "thawed", "complete"])
def test_daemon_killed_during_a_checkpoint(victim, moment):
    job, watch, root = victim.job, victim.watch(), victim.job.root_pid()
    over = lambda: outcome_of(victim, "checkpoint", "saving")  # noqa: E731

    def caught() -> bool:
        if moment == "complete":
            return catch(over, lambda: False)
        if moment == "thawed":
            return catch(watch.is_frozen, over) and catch(
                lambda: not watch.is_frozen(), lambda: False
            )
        return catch(lambda: CHECKPOINT_MOMENTS[moment](victim, watch), over)

    version = catch_one(victim.begin_checkpoint, caught)
    victim.installation.kill_daemon()

    victim.goes_on()
    eventually(lambda: not watch.is_frozen(), "thawed", GOES_ON_S)
    assert watch.criu("dump") == []
    victim.installation.start()
    assert job.read("state") == "running"
    assert job.root_pid() == root
    victim.nothing_half_made()
    said = job.read("checkpoint")
    if version not in victim.versions:
        assert moment != "complete"
        assert said.startswith(f"{version} failed ("), said
    else:  # an operation that was over before is not shown again
        assert said.startswith((f"{version} complete", "none")), said
    victim.is_right()

    later = job.checkpoint()
    assert later > version
    victim.versions.add(later)


# Not while criu puts its code into the tasks, 1 to 2 ms each: a SIGKILL just then can end them,
# which only the kernel could prevent (see translib/criu.py).
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_criu_killed_during_a_dump(victim, share):
    job, watch, root = victim.job, victim.watch(), victim.job.root_pid()
    over = lambda: outcome_of(victim, "checkpoint", "saving")  # noqa: E731
    version = catch_one(
        victim.begin_checkpoint,
        lambda: (
            catch(lambda: watch.criu("dump"), over)
            and (
                not share or catch(lambda: victim.staged_bytes() > share * (MEBIBYTES << 20), over)
            )
        ),
    )
    killed = watch.criu("dump")
    for pid in killed:
        end_process(pid)
    said = job.wait("checkpoint", lambda text: "saving" not in text)

    victim.goes_on()
    assert not watch.is_frozen()
    assert not task_states(root) & {"T", "t"}
    if said != f"{version} complete":
        assert said.startswith(f"{version} failed ("), said
        assert killed
    else:
        victim.versions.add(version)
    assert job.read("state") == "running"
    victim.nothing_half_made()
    victim.is_right()
    victim.versions.add(job.checkpoint())


RestartMoment = Callable[[Victim, UnitWatch], object]
RESTART_MOMENTS: dict[str, RestartMoment] = {
    "asked": lambda victim, watch: True,
    "cgroup_made": lambda victim, watch: watch.cgroup.exists(),
    "criu_at_work": lambda victim, watch: watch.members(),
    "rebuilt": lambda victim, watch: watch.is_frozen(),
    "running": lambda victim, watch: outcome_of(victim, "restart", "rebuilding"),
}


@pytest.mark.parametrize("moment", list(RESTART_MOMENTS))
def test_daemon_killed_during_a_restart(victim, moment):
    job, watch = victim.job, victim.watch()
    victim.versions.add(job.checkpoint())
    over = lambda: outcome_of(victim, "restart", "rebuilding")  # noqa: E731

    def begin() -> str:
        job.kill()
        eventually(lambda: not watch.members(), "all processes are gone")
        return job.write("restart", "latest")

    caught = lambda: catch(lambda: RESTART_MOMENTS[moment](victim, watch), over)  # noqa: E731
    version = catch_one(begin, caught)
    victim.installation.kill_daemon()
    victim.installation.start()

    said = job.read("restart")
    assert int(version) in victim.versions
    victim.nothing_half_made()
    if job.read("state") != "running":
        assert moment != "running"
        assert said.startswith(f"{version} failed ("), said
        eventually(lambda: not watch.members(), "nothing is left of it", GOES_ON_S)
        job.restart(version)
    victim.goes_on()
    assert not victim.watch().is_frozen()
    victim.is_right()
    victim.versions.add(job.checkpoint())
