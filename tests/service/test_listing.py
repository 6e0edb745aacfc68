"""``ctl/versions``: what is known comes at once, the rest is counted behind, not during a save."""

from __future__ import annotations

import trio

from ckptfs.cli.nested import parse_nested
from ckptfs.coordinator import listing
from ckptfs.coordinator.api import CheckpointRequest
from ckptfs.fs import version_list
from ckptfs.fs.views import JobView, Recollection, Surroundings
from ckptfs.ids import Version
from tests.fakes_service import FakeSummaries
from tests.service.kit import OWNER, ScriptedStore, play, world


class SlowSummaries(FakeSummaries):
    """Counting one version takes as long as all that a reader waits."""

    async def count_alone(self, job, version=None, pace=None):
        for number in self._store.versions(job) if version is None else [version]:
            if self.alone_bytes(job, number) is None:
                if pace:
                    await pace()
                await trio.sleep(listing.REFRESH_S * 0.75)
                self.counted.add((job, number))


async def rows(w, job) -> dict[str, dict[str, str]]:
    view = JobView(Surroundings(w.service, None, Recollection(), lambda: 0, lambda: 0.0), job.id)
    await version_list.refresh(view)
    return parse_nested(version_list.versions(view))


def test_every_version_has_a_line_with_all_that_is_known(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            for note in ("first", ""):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest(note=note))
                await w.saved(job)
            w.service.pin(job.id, Version(2), OWNER, True)
            found = await rows(w, job)
            assert [*found] == ["1", "2"]
            assert found["1"]["note"] == "first"
            assert "note" not in found["2"]
            assert (found["1"]["pinned"], found["2"]["pinned"]) == ("0", "1")
            head = w.store.head(job.id, Version(1))
            assert found["1"]["logical_bytes"] == str(head.logical_bytes)
            assert found["1"]["charged_bytes"] == str(head.logical_bytes)
            assert found["1"]["frozen_usec"] == str(head.frozen_usec)
            assert found["1"]["state"] == "restartable"
            assert found["1"]["unique_bytes"] == str(w.store.unique_bytes(job.id, Version(1)))
            w.store.summaries.unread_heads.add((job.id, 1))
            assert (await rows(w, job))["1"].keys() == {"state", "replicas", "level", "pinned"}

    play(main)


def test_what_takes_long_is_counted_behind_and_not_while_a_job_is_saved(tmp_path):
    async def main():
        store = ScriptedStore()
        store.summaries = SlowSummaries(store)
        async with world(tmp_path, store=store) as w:
            job = await w.start()
            for _ in range(3):
                await w.checkpoint(job)
            started_s = trio.current_time()
            found = await rows(w, job)
            assert trio.current_time() - started_s <= listing.REFRESH_S
            assert ["unique_bytes" in found[str(n)] for n in (1, 2, 3)] == [True, False, False]

            w.parts.registry.acquire(job.id, "checkpoint")  # one that takes long
            await trio.sleep(100)
            assert len(store.summaries.counted) <= 2
            w.parts.registry.release(job.id)
            await trio.sleep(10)
            assert all("unique_bytes" in row for row in (await rows(w, job)).values())

    play(main)
