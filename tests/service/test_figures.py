"""What the service counts: stops, queues, collector and scrub, in stat and metrics."""

from __future__ import annotations

import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ckptfs.fs import service_shows
from ckptfs.fs.views import Recollection, ServiceView, Surroundings
from ckptfs.gc.api import Report
from tests.service.kit import OWNER, ROOT, play, world
from tests.service.test_collecting import FakeSweeper


def metrics(w) -> dict[str, float]:
    """Sample → value, of what ``ctl/metrics`` would print."""
    around = Surroundings(w.service, None, Recollection(), lambda: 0, lambda: 0.0)
    text = service_shows.metrics(ServiceView(around, 0))
    return {
        f"{s.name}{dict(s.labels) or ''}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_every_stop_is_counted_once(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            assert metrics(w)["ckptfs_stop_seconds_count"] == 0
            first, second = [(await w.checkpoint(job)).version for _ in range(2)]
            found = metrics(w)
            assert found["ckptfs_stop_seconds_count"] == 2
            frozen_s = sum(w.service.head(job.id, v).frozen_usec for v in (first, second)) / 1e6
            assert abs(found["ckptfs_stop_seconds_sum"] - frozen_s) < 1e-6
            w.service.pin(job.id, first, OWNER, True)  # a change, and no stop
            w.service.pin(job.id, first, OWNER, False)
            w.service.remove_version(job.id, first, OWNER)
            w.service.undelete(job.id, first, OWNER)
            assert metrics(w)["ckptfs_stop_seconds_count"] == 2

    play(main)


def test_what_the_collector_and_the_scrub_do_is_seen(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        sweeper.report = Report(freed_bytes=41, waiting=3, doubt="a listing failed")
        async with world(tmp_path, sweeper=sweeper) as w:
            job = await w.start()
            version = (await w.checkpoint(job)).version
            await w.until(lambda: metrics(w)["ckptfs_collector_running"] == 1)
            await w.until(lambda: metrics(w)["ckptfs_collector_running"] == 0)
            await trio.sleep(1)
            found = metrics(w)
            assert found["ckptfs_collections_total"] >= 1
            assert found["ckptfs_collector_in_doubt"] == 1
            assert found["ckptfs_collector_waiting_objects"] == 3
            assert found["ckptfs_scrub_last_ended_seconds"] == 0
            w.service.request_scrub(ROOT, on=True)
            assert metrics(w)["ckptfs_scrub_running"] == 1
            await w.until(lambda: metrics(w)["ckptfs_scrub_running"] == 0)
            found = metrics(w)
            assert found["ckptfs_scrubbed_versions_total"] == 1
            assert (
                found["ckptfs_scrubbed_bytes_total"]
                == w.service.head(job.id, version).logical_bytes
            )
            assert found["ckptfs_scrub_last_ended_seconds"] > 0

    play(main)


def test_missing_copies_are_a_queue(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.checkpoint(job)
            assert metrics(w)["ckptfs_copies_missing"] == 0
            job.replication = 3
            found = metrics(w)
            assert found["ckptfs_copies_missing"] == 4
            assert found["ckptfs_versions_short_of_copies"] == 2

    play(main)
