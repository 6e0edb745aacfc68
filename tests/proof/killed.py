"""SIGKILL, again and again, of the real service under a real job and a real checkpointer.

What was acknowledged stands in the parent's memory and is held against what is found afterwards.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON
from tests.system.installation import Installation, RunningJob, eventually, write_control
from tests.system.test_storage_faults import RANDOM_MEMORY
from tests.system.watch import UnitWatch, catch

from .places import DISK, workplace

ROOT = Path(__file__).parents[2]
ANSWER_S = 60.0
GOES_ON_S = 2.0  # the promise
JOB_MIB = 24
VERSIONS = 50  # numbers a process may use: more than it can write before it is killed
UNIT = "JobUnit_1"

# -- the real service -------------------------------------------------------------


@dataclass
class Service:
    """A service with one job and a volume, killed at chosen moments."""

    installation: Installation
    job: RunningJob
    sums: dict[int, dict[str, str]] = field(default_factory=dict)  # kept elsewhere: here

    @classmethod
    def begun(cls, installation: Installation) -> Service:
        """Start everything."""
        installation.start()
        top = installation.top
        copies = top / "copies"
        copies.mkdir(mode=0o755)
        write_control(installation.mount / "ctl/volumes", f"add domain=other {copies}", uid=0)
        job = installation.run(PYTHON, "-c", RANDOM_MEMORY, str(JOB_MIB), name="victim")
        eventually(lambda: last_step(job.output()) >= 1, "the first step")
        job.write("replication", "2")
        job.write("retention", "keep_last 3")
        return cls(installation, job)

    def versions(self) -> set[int]:
        """Return the versions that can be seen."""
        return {int(name) for name in os.listdir(self.job.path) if name.isdecimal()}

    def take_sums(self, version: int) -> dict[str, str]:
        """Read every file of a version through the mount."""
        unit = self.job.path / str(version) / UNIT
        return {
            name: hashlib.blake2b((unit / name).read_bytes()).hexdigest()
            for name in sorted(os.listdir(unit))
            if (unit / name).is_file()
        }

    def staged_bytes(self) -> int:
        """Return how much of the version in work was written."""
        directories = (self.installation.mount / ".staging").glob(f"*/{UNIT}")
        return sum(file.stat().st_size for place in directories for file in place.iterdir())

    def moment(self, name: str, rng: random.Random, watch: UnitWatch) -> None:
        """Ask for something and return in the middle of it."""
        job, copies = self.job, self.installation.top / "copies"
        if name == "collection":
            write_control(self.installation.mount / "ctl/gc", "1", uid=0)
            return
        job.write("checkpoint", "1")

        def over() -> bool:
            return "saving" not in job.read("checkpoint")

        share = rng.random() * (JOB_MIB << 20)
        looks = {
            "asked": lambda: True,
            "frozen": watch.is_frozen,
            "ingest": lambda: self.staged_bytes() > share,
            "commit": lambda: (
                list((self.installation.store / "packs/open").iterdir()) == []
                and self.staged_bytes() >= JOB_MIB << 20
            ),
            "complete": lambda: False,
            "replication": lambda: False,
        }
        catch(looks[name], over)
        if name == "replication":
            before = len(list(copies.glob("packs/??/*")))
            catch(lambda: len(list(copies.glob("packs/??/.*"))) > before, lambda: True)

    def kill_and_look(self, number: int, name: str) -> None:
        """Kill the service; the job goes on, and what can be seen is whole."""
        root, watch = self.job.root_pid(), UnitWatch.of(self.job.root_pid())
        self.moment(name, random.Random(f"{name}{number}"), watch)
        self.installation.kill_daemon()
        before = last_step(self.job.output())
        eventually(lambda: last_step(self.job.output()) > before, "the job goes on", GOES_ON_S)
        eventually(lambda: not watch.is_frozen(), "thawed", GOES_ON_S)
        self.installation.start()
        assert self.job.root_pid() == root, "another process"
        assert os.listdir(self.installation.mount / ".staging") == [], "half-made"
        lines = self.job.output().decode().splitlines()
        assert lines == [f"step {n}" for n in range(1, len(lines) + 1)], "a step was lost"
        for version in sorted(self.versions()):
            sums = self.take_sums(version)
            assert self.sums.setdefault(version, sums) == sums, f"version {version} has changed"
        newest = self.job.checkpoint()
        self.sums[newest] = self.take_sums(newest)
        assert newest in self.versions()
        health = (self.installation.mount / "ctl/health").read_text()
        assert health == "ok\n", health


MOMENTS = ("ingest", "commit", "replication", "collection", "frozen", "complete", "asked")


def kill_services(*, seed: int = 0, rounds: int = len(MOMENTS)) -> int:
    """Kill the real service under a real job, in another moment each time; return how often."""
    rng = random.Random(f"service{seed}")
    top = workplace(DISK)
    installation = Installation(top)
    try:
        service = Service.begun(installation)
        for number in range(rounds):
            name = MOMENTS[number % len(MOMENTS)]
            try:
                service.kill_and_look(rng.randrange(10**6), name)
            except (AssertionError, OSError) as error:
                raise AssertionError(f"service killed ({name}, round {number}): {error}") from error
        return rounds
    finally:
        installation.end()
        shutil.rmtree(top, ignore_errors=True)
