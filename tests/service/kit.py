"""A whole service over a simulated node and a store in memory, on trio's mock clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from ckptfs.coordinator.api import CheckpointRequest, Job, Outcome, RestartRequest
from ckptfs.coordinator.parts import Deadlines, Parts, make_parts
from ckptfs.coordinator.service import Coordinator
from ckptfs.errors import CkptfsError
from ckptfs.gc.api import Sweeper
from ckptfs.ids import JobId, Version, unit_name
from ckptfs.jobs.jsdl_render import JobDescription, render_jsdl
from ckptfs.model import Caller, JobState
from tests.fakes import FakeNode, FakeUnit
from tests.fakes_service import FakeIngest, FakeStore

OWNER = Caller(65534, 65534)
ROOT = Caller(0, 0)
STRANGER = Caller(65533, 65533)
UNIT = unit_name(1)


class SlowIngest(FakeIngest):
    """Commits as the store's script says."""

    async def commit(self, head):
        await trio.sleep(self._store.commit_s)
        if self._store.commit_failure:
            raise self._store.commit_failure
        return await super().commit(head)

    async def abort(self):
        await super().abort()
        self._store.aborted.append((self.job, self.version))


class ScriptedStore(FakeStore):
    """A store in memory whose commit takes time or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.commit_s = 0.0
        self.commit_failure: CkptfsError | None = None
        self.begin_failure: CkptfsError | None = None
        self.aborted: list[tuple[JobId, Version]] = []

    def begin(self, job, version, *, expect_bytes, family=()):
        if self.begin_failure:
            raise self.begin_failure
        return SlowIngest(self, job, version)


def make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def read_all(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class BridgedUnit(FakeUnit):
    """Writes into the staging area as the mount would, and reads committed images."""

    async def checkpoint(self, directory: Path):
        make(directory)
        files = await super().checkpoint(directory)
        ingest = self.node.staging[directory.parent.name]
        for name, data in read_all(directory).items():
            ingest.create(self.unit, name).write(0, data)
        return files

    async def rebuild(self, directory: Path, *, lazy: bool = False):
        job, version = directory.parts[-3], int(directory.parts[-2])
        make(directory)
        sealed = self.node.store.sealed[JobId(job), Version(version)]
        for (unit, name), data in sealed.contents.items():
            if unit == self.unit:
                (directory / name).write_bytes(data)
        await super().rebuild(directory, lazy=lazy)


class BridgedNode(FakeNode):
    """A node whose units reach the staging area and the store without a mount."""

    store: ScriptedStore
    staging: dict

    def _new(self, job, unit):
        port = super()._new(job, unit)
        return BridgedUnit(self, job, unit, port.pid)


@dataclass
class World:
    """One service.  The node and the store outlive it, as supervisors and disks do."""

    service: Coordinator
    parts: Parts
    node: BridgedNode
    store: ScriptedStore
    told: trio.Event = field(default_factory=trio.Event)

    async def start(self, *, caller: Caller = OWNER, **fields) -> Job:
        description = JobDescription("heat", ("/bin/heat",), cwd="/", **fields)
        return self.service.job(
            await self.service.submit(caller, render_jsdl(description).encode())
        )

    async def checkpoint(self, job: Job, *, caller: Caller = OWNER, **fields) -> Outcome:
        await self.service.request_checkpoint(job.id, caller, CheckpointRequest(**fields))
        return await self.saved(job)

    async def saved(self, job: Job) -> Outcome:
        await self.until(lambda: job.id not in self.parts.registry.operations)
        assert job.checkpoint is not None
        return job.checkpoint

    async def restart(self, job: Job, version: int | None, **fields) -> Outcome:
        request = RestartRequest(Version(version) if version else None, **fields)
        await self.service.request_restart(job.id, OWNER, request)
        return await self.restarted(job)

    async def restarted(self, job: Job) -> Outcome:
        await self.until(lambda: job.id not in self.parts.registry.operations)
        assert job.restart is not None
        return job.restart

    async def kill(self, job: Job) -> None:
        await self.service.request_kill(job.id, OWNER)
        await self.until(lambda: job.state is JobState.DONE)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for *condition*, looked at after each change the service tells of."""
        with trio.fail_after(10_000):
            while not condition():
                self.told = trio.Event()
                await self.told.wait()

    def unit(self, job: Job) -> FakeUnit:
        return self.node.unit(job.id, UNIT)

    def check_nothing_left(self, job: Job) -> None:
        """After each operation: no unit stands still, nothing is staged, no lock is held."""
        assert not self.service.staging
        assert not self.parts.registry.operations
        assert not self.node.ready
        for unit in self.node.running():
            assert unit.process.is_running
        assert job.state not in (JobState.CHECKPOINTING, JobState.RESTARTING)


@asynccontextmanager
async def world(
    path: Path,
    *,
    node: BridgedNode | None = None,
    store: ScriptedStore | None = None,
    deadlines: Deadlines | None = None,
    sweeper: Sweeper | None = None,
) -> AsyncIterator[World]:
    """A service in *path*; with *node* and *store* of an earlier one it is a restarted daemon."""
    node, store = node or BridgedNode(), store or ScriptedStore()
    node._callbacks.clear()
    node._loaded.clear()
    parts = make_parts(
        store,
        node,
        directory=path,
        mountpoint=path / "mnt",
        clock_ns=lambda: int((1_790_000_000 + trio.current_time()) * 1e9),
        deadlines=deadlines,
        sweeper=sweeper,
    )
    node.store, node.staging = store, parts.staging
    service = Coordinator(parts)
    try:
        await service.recover()
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            made = World(service, parts, node, store)
            service.subscribe(lambda _job, _version: made.told.set())
            yield made
            nursery.cancel_scope.cancel()
    finally:
        service.close()


def play(main: Callable[[], Awaitable[None]]) -> None:
    """Run *main* on a clock that jumps over every sleep."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
