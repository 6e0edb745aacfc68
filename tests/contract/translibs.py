# ruff: noqa: ASYNC110 - what is waited for happens in other processes and raises no trio.Event
"""What the contract suite needs of each translib: a running unit, an empty one, its progress."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio.testing import MockClock

from ckptfs.errors import CheckpointerFailed
from ckptfs.ids import UnitName
from ckptfs.node import procfs
from ckptfs.node.cgroup import unit_cgroup
from ckptfs.node.rundir import LogView
from ckptfs.translib import freezer
from ckptfs.translib.api import UnitHandle
from ckptfs.translib.criu import CriuTranslib
from ckptfs.translib.order import Primitive
from ckptfs.translib.sim import SimTranslib
from tests.system.nodes import COUNTER, UNIT, Bench, bench, python_job, supervisors, whole_lines


class SimHarness:
    """A simulated unit on a mock clock."""

    def __init__(self, top: Path) -> None:
        self.translib = SimTranslib()
        nowhere = Path("/nonexistent")
        self.unit = UnitHandle(UNIT, 0, 1000, nowhere, 0, 0, nowhere)
        self._empty = dataclasses.replace(self.unit, unit=UnitName("JobUnit_2"))

    @classmethod
    def clock(cls):
        return MockClock(autojump_threshold=0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.translib.start(self.unit.unit)
        yield

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[UnitHandle]:
        yield self._empty

    def progress(self, unit: UnitHandle) -> float:
        return self.translib.processes[unit.unit].progress

    async def end(self, unit: UnitHandle) -> None:
        self.translib.processes[unit.unit].end()

    def break_checkpoint(self) -> None:
        failure = CheckpointerFailed("scripted")
        self.translib.script.failures[Primitive.CHECKPOINT] = failure

    def damage(self, directory: Path) -> None:
        (directory / "sim.img").write_text("{")


class CriuHarness:
    """A counting program under a real holder; the translib runs here, not in the supervisor."""

    def __init__(self, top: Path) -> None:
        self.translib = CriuTranslib()
        self._top = top
        self._spec = python_job(COUNTER)
        self._outputs: dict[UnitName, Path] = {}
        self._bench: Bench

    @classmethod
    def clock(cls):
        return None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with bench(self._top) as made:
            self._bench = made
            port = await made.start(self._spec)
            await made.lines(port, 2)
            status = procfs.read_status(port.pid)
            assert status is not None
            self.unit = self._handle(port.job, status.parent, UNIT)
            self._outputs[UNIT] = made.output(port)
            yield

    def _handle(self, job, holder_pid, unit) -> UnitHandle:
        work = self._top / f"work-{unit}"
        work.mkdir(exist_ok=True)
        cgroup = unit_cgroup(self._bench.paths.store_id, job, UNIT)
        return UnitHandle(unit, holder_pid, 1000, cgroup, 65534, 65534, work)

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[UnitHandle]:
        before = set(supervisors(self._bench.paths))
        job = self._bench.job()
        agent = self._bench.agent
        own = agent._log_directory(job)
        port = await agent._launch(
            job, UNIT, self._spec, translib="criu", fresh=False, logs=LogView(own, own)
        )
        holder = max(set(supervisors(self._bench.paths)) - before)
        name = UnitName("JobUnit_2")
        self._outputs[name] = self._outputs[UNIT]  # the image's files are the first unit's
        try:
            yield self._handle(job, holder, name)
        finally:
            await port.kill()

    def progress(self, unit: UnitHandle) -> float:
        return len(whole_lines(self._outputs[unit.unit]))

    async def end(self, unit: UnitHandle) -> None:
        freezer.kill_members(unit.cgroup)
        with trio.fail_after(10):
            while freezer.member_pids(unit.cgroup):
                await trio.sleep(0.005)

    def break_checkpoint(self) -> None:
        """Make criu fail once: its work directory is gone for the next run."""
        binary = self.translib._binary

        async def failing(*arguments, **options):
            self.translib._run = original
            self.translib._binary = binary
            options = dict(options)
            unit, fd, command, words = arguments
            return await original(unit, fd, command, (*words, "--tree", "999999"))

        original = self.translib._run
        self.translib._run = failing

    def damage(self, directory: Path) -> None:
        (directory / "pstree.img").write_bytes(b"")


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[int]:
    directory.mkdir(exist_ok=True)  # noqa: ASYNC240 - in a thread, the mock clock would run on
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
