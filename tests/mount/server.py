"""A mount over the fake service, for tests: ``python -m tests.mount.server MOUNTPOINT``.

Commands come on standard input, one per line, each answered with one line;
end of file unmounts.  So a test decides when something happens.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

import trio

from ckptfs.coordinator.api import Service
from ckptfs.fs.mount import MountOptions, serve
from ckptfs.ids import JobId, Version
from ckptfs.model import Caller
from ckptfs.store.api import Damage
from tests.fakes_service import UNIT, FakeService

ROOT = Caller(0, 0)


class Commands:
    """What a test may have happen."""

    def __init__(self, service: FakeService) -> None:
        self.service = service

    async def job(self, name: str, uid: str = "0") -> str:
        return self.service.add_job(name, uid=int(uid), gid=int(uid)).id

    async def version(self, job: str) -> str:
        return str(self.service.add_version(self.service.job(JobId(job))))

    async def complete(self, job: str) -> str:
        await self.service.complete(self.service.job(JobId(job)))
        return "done"

    async def fail(self, job: str, *reason: str) -> str:
        self.service.fail(self.service.job(JobId(job)), " ".join(reason))
        return "done"

    async def finish(self, job: str) -> str:
        self.service.finish(self.service.job(JobId(job)))
        return "done"

    async def running(self, job: str) -> str:
        record = self.service.job(JobId(job))
        if record.restart is not None:
            record.restart.word = "running"
        self.service.tell(record.id)
        return "done"

    async def expire(self, job: str, version: str) -> str:
        """The service itself removes a version."""
        record = self.service.job(JobId(job))
        self.service.remove_version(record.id, Version(int(version)), ROOT)
        return "done"

    async def corrupt(self, job: str, version: str, name: str, block: str) -> str:
        sealed = self.service.store.sealed[JobId(job), Version(int(version))]
        damage = Damage(
            JobId(job), Version(int(version)), UNIT, name, int(block), "hash does not match"
        )
        sealed.hidden_damage.append(damage)
        return "done"

    async def bug(self) -> str:
        """From now on asking for the health is a bug."""
        self.service.troubles = None  # type: ignore[assignment]
        return "done"

    async def degrade(self, *reason: str) -> str:
        self.service.store.degraded_reason = " ".join(reason)
        self.service.tell()
        return "done"


async def answer(commands: Commands, scope: trio.CancelScope) -> None:
    """Carry out one command at a time; a test sends the next one after the answer."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        async for line in stdin:
            verb, *words = shlex.split(line.decode())
            print(await getattr(commands, verb)(*words), flush=True)
    scope.cancel()


async def main(mountpoint: str, *options: str) -> None:
    service = FakeService()
    typed: Service = service
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            hide = MountOptions(hide_jobs="hide_jobs" in options)
            await serve(typed, Path(mountpoint), options=hide, task_status=task_status)
            nursery.cancel_scope.cancel()

        await nursery.start(run)
        print("ready", flush=True)
        nursery.start_soon(answer, Commands(service), nursery.cancel_scope)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    trio.run(main, *sys.argv[1:])
