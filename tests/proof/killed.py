"""SIGKILL, again and again, of the real service under a real job and a real checkpointer.

What was acknowledged stands in the parent's memory and is held against what is found afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON
from tests.system.installation import Installation, RunningJob, eventually, write_control
from tests.system.test_storage_faults import RANDOM_MEMORY
from tests.system.watch import UnitWatch, catch

from .places import DISK, workplace

GOES_ON_S = 2.0  # the promise
JOB_MIB = 24
JOB_BYTES = JOB_MIB << 20
LEAST_BYTES = 1 << 20  # of an image: the service reads less than that besides
UNIT = "JobUnit_1"


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
        begun = cls(installation, job)
        first = job.checkpoint()
        begun.sums[first] = begun.take_sums(first)
        return begun

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

    def moment(self, name: str, rng: random.Random, watch: UnitWatch) -> bool:
        """Ask for something and return in the middle of it: True; or too late: False."""
        if name in ("collection", "scrub"):
            return self.upkeep(name)
        before = self.installation.taken_bytes()
        version = self.job.write("checkpoint", "1")
        if name == "replication":
            return self.is_copying(version)
        share = max(LEAST_BYTES, rng.random() * JOB_BYTES)
        taken = lambda: self.installation.taken_bytes() - before  # noqa: E731
        looks = {
            "asked": lambda: True,
            "frozen": watch.is_frozen,
            "ingest": lambda: taken() > share,
            "commit": lambda: taken() > JOB_BYTES and not watch.is_frozen() and self.is_saving(),
        }
        is_hit = catch(looks.get(name, lambda: False), lambda: not self.is_saving())
        return is_hit or name == "complete"

    def is_saving(self) -> bool:
        """Return whether a checkpoint is under way."""
        return "saving" in self.job.read("checkpoint")

    def is_copying(self, version: str) -> bool:
        """Wait for a version to be copied; return in the middle of that, or when it is: False."""
        copies = self.installation.top / "copies"
        before = set(copies.glob("*/??/*"))  # temporary files too
        return catch(
            lambda: set(copies.glob("*/??/*")) - before,
            lambda: (copies / "heads" / self.job.name / version).exists(),
        )

    def upkeep(self, name: str) -> bool:
        """Begin a collection or a scrub; return once it is under way, or over: False."""
        store, mount = self.installation.store, self.installation.mount
        control = mount / "ctl" / {"collection": "gc", "scrub": "scrub"}[name]
        before = {path: path.stat().st_mtime_ns for path in store.glob("heads/*/*.verified")}
        try:
            write_control(control, "1", uid=0)
        except OSError as error:
            if error.errno != errno.EBUSY:  # one that was cut off by the last kill goes on
                raise
        looks = {  # set aside and not yet unlinked; the first of several versions is verified
            "collection": lambda: any(store.glob("packs/condemned/*/*")),
            "scrub": lambda: any(
                before.get(path) != path.stat().st_mtime_ns
                for path in store.glob("heads/*/*.verified")
            ),
        }
        return catch(looks[name], lambda: "running" not in control.read_text())

    def kill(self) -> None:
        """Kill the service and nothing else: it was alive, and it died of that."""
        daemon = self.installation.daemon
        assert daemon is not None
        assert daemon.poll() is None, f"it was dead before: {self.installation.log()[-2000:]}"
        self.installation.kill_daemon()
        assert daemon.returncode == -signal.SIGKILL, f"ended with {daemon.returncode}"

    def kill_and_look(self, number: int, name: str) -> bool:
        """Kill the service; the job goes on, what can be seen is whole; whether it was in time."""
        assert self.sums, "nothing is known that could have been lost"
        newest = max(self.sums)
        if name in RESTARTS:
            is_hit = self.kill_in_restart(RESTARTS[name])
        elif name in WAITS:
            is_hit = self.kill_in_wait(WAITS[name])
        else:
            is_hit = self.kill_in(partial(self.moment, name, random.Random(f"{name}{number}")))
        self.look(newest)
        return is_hit

    def kill_in(self, moment: Callable[[UnitWatch], bool]) -> bool:
        """Kill it in what does not end the job: that goes on as if nothing were."""
        root, watch = self.job.root_pid(), UnitWatch.of(self.job.root_pid())
        is_hit = moment(watch)
        self.kill()
        before = last_step(self.job.output())
        eventually(lambda: last_step(self.job.output()) > before, "the job goes on", GOES_ON_S)
        eventually(lambda: not watch.is_frozen(), "thawed", GOES_ON_S)
        self.installation.start()
        assert self.job.root_pid() == root, "another process"
        return is_hit

    def kill_in_restart(self, seen: Callable[[UnitWatch], object]) -> bool:
        """Kill it in a restart: the job runs, or nothing is left and it can be restarted."""
        watch = UnitWatch.of(self.job.root_pid())
        self.job.kill()
        eventually(lambda: not watch.members(), "all processes are gone")
        wanted = self.job.write("restart", "latest")
        is_hit = catch(lambda: seen(watch), lambda: "rebuilding" not in self.job.read("restart"))
        self.kill()
        self.installation.start()
        if self.job.read("state") != "running":
            said = self.job.read("restart")
            assert said.startswith(f"{wanted} failed ("), said
            eventually(lambda: not watch.members(), "nothing is left of it", GOES_ON_S)
            self.job.restart(wanted)
        before = last_step(self.job.output())
        eventually(lambda: last_step(self.job.output()) > before, "the job goes on", GOES_ON_S)
        assert not UnitWatch.of(self.job.root_pid()).is_frozen()
        return is_hit

    def kill_in_wait(self, order: str) -> bool:
        """Kill it while a version waits for a copy on a volume that is away."""
        copies = self.installation.top / "copies"
        aside = copies.with_name("away")
        known = self.versions()

        def waits(_watch: UnitWatch) -> bool:
            version = self.job.write(order, "1")
            return catch(
                lambda: self.job.read("checkpoint").startswith(f"{version} copying"),
                lambda: False,
            )

        self.job.write("replication", "2 min=2")
        copies.rename(aside)
        try:
            is_hit = self.kill_in(waits)
        finally:
            aside.rename(copies)
        assert self.versions() - known, f"the version of the {order} is gone"
        write_control(self.installation.mount / "ctl/volumes", "copies up", uid=0)
        self.job.write("replication", "2 min=1")
        return is_hit

    def look(self, newest: int) -> None:
        """What can be seen is whole, nothing is half-made, and another version can be taken."""
        assert os.path.ismount(self.installation.mount), "nothing is mounted"
        assert newest in self.versions(), f"version {newest} was complete, and is gone"
        assert os.listdir(self.installation.mount / ".staging") == [], "half-made"
        lines = self.job.output().decode().splitlines()
        assert lines == [f"step {n}" for n in range(1, len(lines) + 1)], "a step was lost"
        for version in sorted(self.versions()):
            sums = self.take_sums(version)
            assert self.sums.setdefault(version, sums) == sums, f"version {version} has changed"
        newest = self.job.checkpoint()
        self.sums[newest] = self.take_sums(newest)
        assert newest in self.versions()
        health = self.installation.mount / "ctl/health"
        eventually(lambda: health.read_text() == "ok\n", health.read_text())


RESTARTS: dict[str, Callable[[UnitWatch], object]] = {
    "restart: criu at work": lambda watch: watch.members(),
    "restart: rebuilt": lambda watch: watch.is_frozen(),
    "restart: asked": lambda _: True,
}
WAITS = {"checkpoint waits for copies": "checkpoint", "suspension waits for copies": "suspend"}
MOMENTS = (
    *("ingest", "suspension waits for copies", "restart: rebuilt", "replication", "collection"),
    *("commit", "scrub", "restart: criu at work", "checkpoint waits for copies", "frozen"),
    *("complete", "restart: asked", "asked"),
)


def kill_services(*, seed: int = 0, rounds: int = len(MOMENTS)) -> Counter[str]:
    """Kill the real service under a real job; return how often in or after each moment."""
    died: Counter[str] = Counter()
    rng = random.Random(f"service{seed}")
    top = workplace(DISK)
    installation = Installation(top)
    try:
        service = Service.begun(installation)
        for number in range(rounds):
            name = MOMENTS[number % len(MOMENTS)]
            try:
                is_hit = service.kill_and_look(rng.randrange(10**6), name)
                died[name if is_hit else f"{name}, too late"] += 1
            except (AssertionError, OSError) as error:
                raise AssertionError(f"service killed ({name}, round {number}): {error}") from error
        return died
    finally:
        installation.end()
        shutil.rmtree(top, ignore_errors=True)
