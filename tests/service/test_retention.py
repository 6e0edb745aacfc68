"""Retention of a job with many versions: in the background; what changes meanwhile is heeded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ckptfs.coordinator import retention
from ckptfs.coordinator.api import Job
from ckptfs.ids import UnitName
from ckptfs.store.api import Damage
from tests.service.kit import OWNER, ROOT, World, play, world
from tests.service.test_collecting import FakeSweeper
from tests.service.test_replication import FakeCopies

MANY = 8


class LosingCopies(FakeCopies):
    """Volumes on which copies of *fewer* versions are left than a round made."""

    def __init__(self):
        super().__init__()
        self.fewer: set[int] = set()

    def count(self, job, version):
        return 1 if version in self.fewer else super().count(job, version)


@pytest.fixture(autouse=True)
def many_are_few(monkeypatch):
    monkeypatch.setattr(retention, "BREATH", 2)


async def job_with_versions(w: World) -> Job:
    job = await w.start()
    for _ in range(MANY):
        await w.checkpoint(job)
    return job


def when_one_is_gone(w: World, job: Job, then: Callable[[], None]) -> None:
    """Have *then* called once, when the first version has gone."""
    done: list[bool] = []

    def changed(_job: object, _version: object) -> None:
        if len(job.versions) < MANY and not done:
            done.append(True)
            then()

    w.service.subscribe(changed)


async def settled(w: World, job: Job) -> None:
    await w.until(lambda: len(job.versions) < MANY and not w.parts.registry.letting_go)


def damage(w: World, job: Job, version: int) -> None:
    found = Damage(job.id, job.versions[-1], UnitName("JobUnit_1"), "pages-1.img", 0, "rotten")
    w.store.sealed[job.id, version].damage.append(found)


def test_the_write_returns_and_they_go_one_after_the_other(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await job_with_versions(w)
            seen: list[int] = []
            w.service.subscribe(lambda _job, _version: seen.append(len(job.versions)))
            w.service.set_retention(job.id, OWNER, "keep_last", 2)
            assert job.versions == [*range(1, MANY + 1)]
            await settled(w, job)
            assert job.versions == [MANY - 1, MANY]
            assert {*range(2, MANY)} <= set(seen)

    play(main)


def test_a_newer_version_that_turns_out_damaged_keeps_an_older_one(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await job_with_versions(w)
            when_one_is_gone(w, job, lambda: damage(w, job, MANY))
            w.service.set_retention(job.id, OWNER, "keep_last", 1)
            await settled(w, job)
            assert job.versions == [MANY - 1, MANY]  # 7 can be restarted, 8 is evidence

    play(main)


def test_one_that_is_pinned_meanwhile_stays(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await job_with_versions(w)
            when_one_is_gone(w, job, lambda: w.service.pin(job.id, 4, OWNER, True))
            w.service.set_retention(job.id, OWNER, "keep_last", 1)
            await settled(w, job)
            assert job.versions == [4, MANY]

    play(main)


def test_a_rule_that_changes_meanwhile_holds_at_once(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await job_with_versions(w)
            again = lambda: w.service.set_retention(job.id, OWNER, "keep_last", 5)  # noqa: E731
            when_one_is_gone(w, job, again)
            w.service.set_retention(job.id, OWNER, "keep_last", 1)
            await settled(w, job)
            assert job.versions == [*range(MANY - 4, MANY + 1)]

    play(main)


def test_copies_that_are_lost_meanwhile_keep_what_has_them(tmp_path, monkeypatch):
    copies = LosingCopies()
    monkeypatch.setattr("ckptfs.coordinator.parts.NoCopies", lambda: copies)

    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await job_with_versions(w)
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            w.service.set_replication(job.id, OWNER, 2)
            await w.until(lambda: copies.count(job.id, MANY) == 2)

            when_one_is_gone(w, job, lambda: copies.fewer.add(MANY))
            w.service.set_retention(job.id, OWNER, "keep_last", 1)
            await settled(w, job)
            assert job.versions == [MANY - 1, MANY]

    play(main)


def test_a_job_that_is_never_at_rest_is_decided_on_in_one_go(tmp_path, monkeypatch):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await job_with_versions(w)
            ticks = iter(range(10**6))
            monkeypatch.setattr(w.store.summaries, "moment", lambda: next(ticks) // 5)
            w.service.set_retention(job.id, OWNER, "keep_last", 3)
            await settled(w, job)
            assert job.versions == [*range(MANY - 2, MANY + 1)]

    play(main)
