"""SIGKILL, again and again: a process that uses the store, and the real service under a real job.

What was acknowledged stands in the parent's memory and is held against what is found afterwards.
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON
from tests.system.installation import Installation, RunningJob, eventually, write_control
from tests.system.test_storage_faults import RANDOM_MEMORY
from tests.system.watch import UnitWatch, catch

from .judge import judge
from .places import DISK, workplace
from .world import GONE, Key, States, key_of

ROOT = Path(__file__).parents[2]
ANSWER_S = 60.0
GOES_ON_S = 2.0  # the promise
JOB_MIB = 24
VERSIONS = 50  # numbers a process may use: more than it can write before it is killed
UNIT = "JobUnit_1"

# Says what it is about to do ("? a3 live") and what is done ("= a3 live"), one line each.
USER = """
import random, sys, trio
from pathlib import Path
from tests.proof.world import A, B, GONE, LIVE, TRASH, World, word_of

def say(sign, word, state):
    print(sign, word, state, flush=True)

async def main(top, seed, first):
    rng, world = random.Random(seed), World(Path(top), scale=8)
    store = world.open()
    for job in (A, B):
        for version in store.versions(job):
            world.spec.states[job, int(version)] = LIVE
        for version, _ in store.trashed(job):
            world.spec.states[job, int(version)] = TRASH
    if not store.copies.rows():
        await world.add_volume("b")
    number = int(first)
    while True:
        live = world.spec.of(LIVE)
        await world.replicate(2)
        if len(live) > 4:
            word = word_of(rng.choice(live))
            say("?", word, TRASH)
            world.remove(word, trash_s=rng.choice([0, 10**6]))
            say("=", word, TRASH)
        for key in world.spec.of(TRASH):
            say("?", word_of(key), GONE)
        world.now_s += 1
        await world.collect()
        for key in world.spec.of(GONE):
            say("=", word_of(key), GONE)
        number += 1
        word = rng.choice("ab") + str(number)
        say("?", word, LIVE)
        await world.save(word)
        say("=", word, LIVE)

trio.run(main, *sys.argv[1:])
"""


@dataclass
class Told:
    """What the killed process has said: what is so, and what may be so as well."""

    states: States = field(default_factory=dict)
    maybe: dict[Key, set[str]] = field(default_factory=dict)

    def hear(self, line: str) -> None:
        """Take one line."""
        sign, word, state = line.split()
        key = key_of(word)
        if sign == "?":
            self.maybe.setdefault(key, set()).add(state)  # by this process or one before
        else:
            self.states[key] = state
            self.maybe.pop(key, None)

    def allowed(self) -> dict:
        """Return what each version may be."""
        return {
            key: frozenset({self.states.get(key, GONE), *self.maybe.get(key, ())})
            for key in self.states.keys() | self.maybe.keys()
        }


async def kill_users(*, seed: int = 0, rounds: int = 5) -> int:
    """Kill a process that writes, removes, collects and copies; return how often."""
    rng = random.Random(f"kill{seed}")
    place = workplace()
    try:
        (place / "disk").mkdir()
        told = Told()
        for number in range(rounds):
            run_and_kill(place / "disk", seed, number, rng.randrange(1, 40), told)
            shutil.copytree(place / "disk", place / "look", symlinks=True)
            os.rename(place / "disk", place / "aside")
            os.rename(place / "look", place / "disk")  # volumes are known by their paths
            try:
                await judge(place / "disk", told.allowed(), scale=8)
            except Exception as error:
                raise AssertionError(f"killed, round {number}: {error!r}") from error
            shutil.rmtree(place / "disk")
            os.rename(place / "aside", place / "disk")
        return rounds
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run_and_kill(top: Path, seed: int, number: int, lines: int, told: Told) -> None:
    """Run the process until it has said so many lines, and kill it some moments later."""
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(top), f"{seed}.{number}", str(number * VERSIONS)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert user.stderr is not None
    try:
        for _ in range(lines):
            line = user.stdout.readline()
            assert line, f"it has ended: {user.stderr.read()[-2000:]}"
            told.hear(line)
        # somewhere in what follows: how far it gets meanwhile is chance
        select.select([user.stdout], [], [], (number * 7 % 23) / 1000)
    finally:
        user.kill()
        rest, _ = user.communicate(timeout=ANSWER_S)
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            told.hear(line)


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
