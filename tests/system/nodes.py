# ruff: noqa: ASYNC110 - what is waited for happens in other processes and raises no trio.Event
"""A real node agent on a store of its own, for the system tests of `ckptfs.node`."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ckptfs.ids import JobId, UnitName
from ckptfs.model import JobSpec, Owner, Policy, UnitFacts
from ckptfs.node.agent import Agent, SupervisedUnitPort
from ckptfs.node.api import Exit
from ckptfs.node.cgroup import cgroup_root
from ckptfs.node.rundir import NodePaths

UNIT = UnitName("JobUnit_1")
OWNER = Owner(65534, 65534, (), "nobody")
PYTHON = "/usr/bin/python3"
COUNTER = """
import time
i = 0
while True:
    print(i, flush=True)
    i += 1
    time.sleep(0.005)
"""
_numbers = itertools.count(1)


def python_job(program: str, **changes: object) -> JobSpec:
    """Return the spec of a Python program run by uid 65534."""
    spec = JobSpec("test", (PYTHON, "-c", program), "/", {}, OWNER)
    return dataclasses.replace(spec, **changes)


def with_rollback(spec: JobSpec) -> JobSpec:
    """Return *spec* with rollback=copy."""
    return dataclasses.replace(spec, policy=Policy(rollback="copy"))


@dataclass
class Saved:
    """One image and what its unit.cpx would hold."""

    directory: Path
    facts: UnitFacts


@dataclass
class Bench:
    """One agent; ``ends`` lists what it told about ended units."""

    agent: Agent
    top: Path
    paths: NodePaths
    ends: list[tuple[JobId, Exit | None]] = field(default_factory=list)

    def job(self) -> JobId:
        """Return a fresh job id."""
        return JobId(f"test.{next(_numbers)}")

    async def start(self, spec: JobSpec, job: JobId | None = None) -> SupervisedUnitPort:
        return await self.agent.start(job or self.job(), UNIT, spec)

    def output(self, unit: SupervisedUnitPort) -> Path:
        return self.agent.unit_paths(unit.job, UNIT).stdout

    async def lines(self, unit: SupervisedUnitPort, more_than: int) -> list[str]:
        """Wait until stdout has more than so many whole lines; return them."""
        with trio.move_on_after(20):
            while True:
                lines = whole_lines(self.output(unit))
                if len(lines) > more_than:
                    return lines
                if not unit.pid:
                    break
                await trio.sleep(0.01)
        errors = self.agent.unit_paths(unit.job, UNIT).stderr.read_text()
        raise AssertionError(f"only {len(lines)} lines, stderr: {errors}")

    async def save(self, unit: SupervisedUnitPort) -> Saved:
        """Checkpoint a unit into a plain directory and let it go on."""
        prepared = await unit.prepare()
        assert prepared.blockers == ()
        directory = self.top / f"image{next(_numbers)}"
        directory.mkdir()
        await unit.stop(lease_s=60)
        try:
            files = await unit.checkpoint(directory)
        finally:
            await unit.resume_cp()
        return Saved(directory, dataclasses.replace(prepared.facts, files=tuple(files)))

    async def rebuild(
        self, job: JobId, spec: JobSpec, saved: Saved, *, suffix: str = "after-1", **how
    ) -> SupervisedUnitPort:
        return await self.agent.rebuild(
            job, UNIT, spec, saved.facts, saved.directory, suffix=suffix, **how
        )

    async def wait_end(self, job: JobId) -> Exit | None:
        """Wait until the agent has told how a job's unit ended."""
        with trio.fail_after(20):
            while True:
                for ended, how in self.ends:
                    if ended == job:
                        self.ends.remove((ended, how))
                        return how
                await trio.sleep(0.01)


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file that are ended by a newline."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def assert_counts(lines: Sequence[str]) -> None:
    """Each step exactly once."""
    assert [int(line) for line in lines] == list(range(len(lines)))


def unit_cgroups(paths: NodePaths) -> list[Path]:
    top = cgroup_root() / "ckptfs" / paths.store_id
    return [path for path in top.glob("*") if path.is_dir()]


def supervisors(paths: NodePaths) -> list[int]:
    """Return the pids of all supervisors and holders of this bench."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = words[3:] and words[3].startswith(os.fsencode(paths.run) + b"/")
        if ours and words[2] == b"ckptfs.node.supervisor":
            found.append(int(entry.name))
    return found


async def wait_gone(paths: NodePaths) -> None:
    """Wait until no process and no cgroup of this bench is left."""
    with trio.fail_after(20):
        while unit_cgroups(paths) or supervisors(paths):
            await trio.sleep(0.01)


@asynccontextmanager
async def bench(top: Path) -> AsyncIterator[Bench]:
    """Run an agent; at the end every unit is killed, and nothing of it may be left."""
    await trio.Path(top).chmod(0o755)
    store_id = f"ckptfs-test-{os.getpid()}-{next(_numbers)}"
    paths = NodePaths(store_id, Path("/run/ckptfs") / store_id, top / "jobs", top / "logs")
    try:
        async with trio.open_nursery() as nursery:
            made = Bench(Agent("n1", paths, nursery), top, paths)
            made.agent.on_exit(lambda job, _, how: made.ends.append((job, how)))
            yield made
            nursery.cancel_scope.cancel()
    finally:
        for cgroup in unit_cgroups(paths):
            with suppress(FileNotFoundError):  # its supervisor was faster
                (cgroup / "cgroup.freeze").write_text("0")
                (cgroup / "cgroup.kill").write_text("1")
        with trio.CancelScope(shield=True):
            await wait_gone(paths)
        shutil.rmtree(paths.run, ignore_errors=True)
