"""SIGKILL, again and again, of a process that uses the store, in every phase of what it does.

What it has acknowledged stands in this process's memory and is held against what is found.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .disk import put_down
from .index_damage import build, one_case
from .judge import judge
from .places import workplace
from .user import PHASES, SHAPE
from .world import GONE, LIVE, Key, States, World, key_of

ROOT = Path(__file__).parents[2]
ANSWER_S = 60.0
ROUNDS_MAX = 3  # through all phases before it is killed
VERSIONS = 50  # numbers a process may use: more than it can write before it is killed
FIRST_S = 0.01  # how long a phase takes, until one was seen


@dataclass
class Told:
    """What the killed processes have said: what is so, and what may be so as well."""

    states: States = field(default_factory=dict)
    maybe: dict[Key, set[str]] = field(default_factory=dict)
    acknowledged: int = 0  # versions
    counts: Counter[str] = field(default_factory=Counter)
    phase: str = ""  # that is to begin, or under way

    def hear_all(self, heard: bytes) -> None:
        """Take what a process has said before it was killed: the last line may be cut."""
        for line in heard.decode().split("\n")[:-1]:
            self.hear(line)

    def hear(self, line: str) -> None:
        """Take one line."""
        sign, *words = line.split()
        if sign == "!":
            self.counts[" ".join(words[:-1])] += int(words[-1])
            return
        if sign == "#":
            self.phase = words[0]
            return
        key, state = key_of(words[0]), words[1]
        if sign == "?":
            self.maybe.setdefault(key, set()).add(state)
        else:
            self.states[key] = state
            self.maybe.pop(key, None)
            self.acknowledged += state == LIVE

    def allowed(self) -> dict:
        """Return what each version may be."""
        return {
            key: frozenset({self.states.get(key, GONE), *self.maybe.get(key, ())})
            for key in self.states.keys() | self.maybe.keys()
        }

    def settle(self, found: States) -> None:
        """Take what was found after a kill for what must be from now on."""
        self.states, self.maybe = dict(found), {}


async def kill_users(*, seed: int = 0, rounds: int = 5) -> Counter[str]:
    """Kill a process that uses the store; return how often in each phase."""
    rng = random.Random(f"kill{seed}")
    place, died = workplace(), Counter[str]()
    lengths = dict.fromkeys(PHASES, FIRST_S)
    names = rng.sample(sorted(PHASES), len(PHASES))
    told = Told()
    try:
        (place / "disk").mkdir()
        for number in range(rounds):
            wanted = names[number % len(names)]
            words = (f"{seed}.{number}", str(number * VERSIONS))
            heard = run_and_kill(place / "disk", words, wanted, lengths, rng)
            told.hear_all(heard)
            died[wanted if told.phase == wanted else "between"] += 1
            try:
                told.settle(await judge_copy(place, told))
            except Exception as error:
                raise AssertionError(f"killed in {wanted}, round {number}: {error!r}") from error
        assert told.acknowledged, "no version was acknowledged before a kill"
        return died + told.counts
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def kill_rebuilds(*, seed: int = 0, rounds: int = 5) -> int:
    """Kill a process that repairs a store and makes its catalog again; return how often."""
    rng, place = random.Random(f"rebuild{seed}"), workplace()
    lengths = {"rebuild": FIRST_S}
    try:
        (place / "disk").mkdir()
        image = await build(World(place / "disk"))
        for number in range(rounds):
            shutil.rmtree(place / "disk")
            put_down(image, place / "disk")
            run_and_kill(place / "disk", (str(seed), "0", "rebuild"), "rebuild", lengths, rng)
            try:
                await one_case(place / "disk", serve=number % 2 == 0)
            except Exception as error:
                raise AssertionError(f"killed in a rebuild, round {number}: {error!r}") from error
        return rounds
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def judge_copy(place: Path, told: Told) -> States:
    """Judge a copy of the disk, and repair it; the killed process's own is what goes on."""
    shutil.copytree(place / "disk", place / "look", symlinks=True)
    os.rename(place / "disk", place / "aside")
    os.rename(place / "look", place / "disk")  # volumes are known by their paths
    found = await judge(place / "disk", told.allowed(), shape=SHAPE)
    shutil.rmtree(place / "disk")
    os.rename(place / "aside", place / "disk")
    return found


def run_and_kill(
    top: Path,
    words: tuple[str, ...],
    wanted: str,
    lengths: dict[str, float],
    rng: random.Random,
) -> bytes:
    """Run the process and kill it somewhere in the phase *wanted*; return what it said."""
    with (top.parent / "errors").open("wb") as errors:
        user = subprocess.Popen(
            [sys.executable, "-m", "tests.proof.user", str(top), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.PIPE,
            bufsize=0,  # a buffer would keep lines from whoever reads on after the kill
        )
    heard = b""
    try:
        for turn in range(rng.randrange(1, ROUNDS_MAX + 1)):
            heard += until(user, wanted, lengths, is_waiting=turn > 0)
        os.write(user.stdin.fileno(), b".")
        ends_s = time.monotonic() + lengths[wanted] * rng.random()
        while select.select([user.stdout], [], [], max(0, ends_s - time.monotonic()))[0]:
            heard += user.stdout.read(4096)
        assert user.poll() is None, "it has ended before it was killed"
    except AssertionError as error:
        raise AssertionError(f"{error}: {(top.parent / 'errors').read_text()[-2000:]}") from error
    finally:
        user.kill()
        heard += user.communicate(timeout=ANSWER_S)[0]
    assert user.returncode == -signal.SIGKILL, f"it has ended with {user.returncode}"
    return heard


def until(
    user: subprocess.Popen[bytes], wanted: str, lengths: dict[str, float], *, is_waiting: bool
) -> bytes:
    """Let the process go on until it is about to begin the phase *wanted*; return what it said."""
    heard, phase, began_s = b"", "", time.monotonic()
    while phase != wanted or is_waiting:
        if phase or is_waiting:
            os.write(user.stdin.fileno(), b".")
            is_waiting, began_s = False, time.monotonic()
        line = b""
        while not line.startswith(b"# "):
            line = line_of(user)
            heard += line
        if phase:
            lengths[phase] = time.monotonic() - began_s
        phase = line[2:-1].decode()
    return heard


def line_of(user: subprocess.Popen[bytes]) -> bytes:
    """Return the next line: byte by byte, as what was read must not lie in a buffer here."""
    line = b""
    while not line.endswith(b"\n"):
        more = user.stdout.read(1)
        assert more, "it has ended by itself"
        line += more
    return line
