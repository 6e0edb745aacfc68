"""Programs that are over before anybody looks: their end must be known all the same."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from ckptfs.node.agent import Agent
from ckptfs.node.api import Exit

from .nodes import UNIT, bench, python_job

pytestmark = pytest.mark.criu


class LateAgent(Agent):
    """An agent that the kernel did not schedule for a while: it connects when all is over."""

    async def _connect(self, job, unit):
        exit_file = trio.Path(self.unit_paths(job, unit).exit)
        with trio.fail_after(20):
            while not await exit_file.exists():  # noqa: ASYNC110 - another process makes it
                await trio.sleep(0.005)
        return await super()._connect(job, unit)


@pytest.mark.parametrize("status", [0, 3])
def test_a_program_that_ends_before_the_agent_connects(tmp_path, status):
    async def main():
        async with bench(tmp_path) as b, trio.open_nursery() as nursery:
            late = LateAgent("n1", b.paths, nursery)
            late.on_exit(lambda job, _, how: b.ends.append((job, how)))
            spec = dataclasses.replace(python_job(""), argv=("/bin/sh", "-c", f"exit {status}"))
            unit = await late.start(b.job(), UNIT, spec)
            assert await b.wait_end(unit.job) == Exit(status)
            late.forget(unit.job, UNIT)
            nursery.cancel_scope.cancel()

    trio.run(main)
