"""When the collector runs, what it tells, and who may ask."""

from __future__ import annotations

import pytest
import trio

from ckptfs.coordinator import planning
from ckptfs.errors import (
    Busy,
    Corrupt,
    NotAuthorised,
    NotFound,
    TimedOut,
    TryAgain,
    Unsupported,
)
from ckptfs.gc.api import Report
from ckptfs.model import Initiator
from ckptfs.node.api import Exit
from tests.fakes_service import FakeStore
from tests.service.kit import OWNER, ROOT, STRANGER, UNIT, play, world


class FakeSweeper:
    """Takes a second and reports what its script says."""

    def __init__(self) -> None:
        self.runs: list[tuple[bool, bool]] = []
        self.report = Report(freed_bytes=41)
        self.doubt: Exception | None = None
        self.volumes: list[str] = []
        self.packs: list[str] = []
        self.moves = 0  # MiB of packs written anew

    async def plan(self, *, empty_trash):
        if self.doubt:
            raise self.doubt
        return [], 17

    async def plan_volumes(self):
        return self.volumes

    async def plan_packs(self, *, empty_trash):
        return [*self.packs, "emptied"] if empty_trash else self.packs

    async def run(self, *, asked, empty_trash, tell, pace):
        self.runs.append((asked, empty_trash))
        tell(3, 12)
        await trio.sleep(1.0)
        for _ in range(self.moves):
            await pace(1 << 20)
        return self.report


BY_ITSELF, ASKED = (False, False), (True, False)


async def ask(w, caller=ROOT, *, dry=False, empty_trash=False):
    return await w.service.request_gc(caller, dry=dry, empty_trash=empty_trash)


def test_it_runs_at_the_start_when_asked_and_every_hour(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            assert w.service.gc_text() == "idle (freed 0 bytes)"
            await w.until(lambda: w.service.gc_text() == "running 3/12")
            with pytest.raises(Busy):
                await ask(w)
            await w.until(lambda: w.service.gc_text() == "idle (freed 41 bytes)")
            assert await ask(w) == "1"
            assert w.service.gc_text() == "running 0/0"
            await w.until(lambda: w.service.gc_text() == "idle (freed 41 bytes)")
            assert await ask(w, empty_trash=True) == "trash=empty"
            await trio.sleep(2)
            assert sweeper.runs == [BY_ITSELF, ASKED, (True, True)]
            await trio.sleep(2.5 * 3600)
            assert sweeper.runs[3:] == [BY_ITSELF] * 2
            assert w.service.counters()["collected_bytes"] == 5 * 41

    play(main)


def test_it_runs_once_after_several_removals_and_when_what_waited_can_go(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            job = await w.start(keep_last=1)
            await trio.sleep(5)
            assert sweeper.runs == [BY_ITSELF]
            await w.checkpoint(job)
            await trio.sleep(5)
            assert len(sweeper.runs) == 1  # nothing went
            sweeper.report = Report(waiting=3)
            await w.checkpoint(job)
            assert job.versions == [2]
            await trio.sleep(5)
            assert len(sweeper.runs) == 2
            assert "3 objects wait" in w.service.gc_text()
            sweeper.report = Report()
            await w.service.request_kill(job.id, OWNER)
            await trio.sleep(5)
            assert len(sweeper.runs) == 2
            await w.restart(job, 2)
            await trio.sleep(5)
            assert len(sweeper.runs) == 3

    play(main)


def test_who_may_ask(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            for caller in (OWNER, STRANGER):
                for dry in (False, True):
                    with pytest.raises(NotAuthorised):
                        await ask(w, caller, dry=dry)
        async with world(tmp_path / "without") as w:
            with pytest.raises(Unsupported):
                await ask(w)

    (tmp_path / "without").mkdir()
    play(main)


def test_a_doubt_is_told(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        sweeper.report = Report(doubt="heads/x does not belong there")
        sweeper.doubt = Corrupt("heads/x does not belong there")
        async with world(tmp_path, sweeper=sweeper) as w:
            await trio.sleep(5)
            assert w.service.gc_text() == (
                "idle (nothing more was deleted: heads/x does not belong there)"
            )
            assert any("heads/x does not belong" in line for line in w.service.health())
            with pytest.raises(TryAgain, match="heads/x"):
                await ask(w, dry=True)
            sweeper.report = Report()
            await ask(w)
            await trio.sleep(5)
            assert not any("collector" in line for line in w.service.health())

    play(main)


def test_packs_written_anew_are_told_and_the_rest_follows_at_once(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        sweeper.packs = ["pack 12ab: 30 % of its 100 bytes are needed"]
        sweeper.report = Report(freed_bytes=41, packs=2, packs_bytes=30, unfinished=True)
        async with world(tmp_path, sweeper=sweeper) as w:
            await w.until(lambda: len(sweeper.runs) == 3)
            sweeper.report = Report(
                packs=1, packs_bytes=7, freed_bytes=7, left={"12ab": "no room", "34cd": "damaged"}
            )
            await w.until(lambda: "1 pack " in w.service.gc_text())
            assert w.service.gc_text() == (
                "idle (freed 7 bytes, 7 of them in 1 pack that were half dead;"
                " pack 12ab keeps its dead pages (and 1 more): no room)"
            )
            runs = len(sweeper.runs)
            await trio.sleep(100)
            assert len(sweeper.runs) == runs
            assert w.service.counters()["packs_rewritten"] == 2 * (runs - 1) + 1
            assert w.service.health() == []
            assert sweeper.packs[0] in (await ask(w, dry=True)).splitlines()
            assert "emptied" in await ask(w, dry=True, empty_trash=True)
            sweeper.report = Report(freed_bytes=41, packs=2, packs_bytes=30, unfinished=True)
            await ask(w)
            half = "idle (freed 41 bytes, 30 of them in 2 packs that were half dead, more such"
            await w.until(lambda: w.service.gc_text().startswith(half))

    play(main)


def test_packs_are_left_alone_while_an_operation_is_under_way(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        sweeper.moves = 3
        async with world(tmp_path, sweeper=sweeper) as w:
            job = await w.start()
            await w.until(lambda: w.service.gc_text().startswith("idle"))
            w.parts.registry.acquire(job.id, "checkpoint")
            await ask(w)
            await trio.sleep(100)
            assert w.service.gc_text().startswith("running")
            w.parts.registry.release(job.id)
            await w.until(lambda: w.service.gc_text().startswith("idle"))

    play(main)


def test_a_dry_run_says_why(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await w.start()
            for _ in range(3):
                await w.checkpoint(job)
            w.service.pin(job.id, 1, OWNER, True)
            job.keep_last = 1  # as if it had been set and the removal failed
            assert (await ask(w, dry=True)).splitlines() == [
                f"{job.id}/1 stays: pinned",
                f"{job.id}/2 goes: superseded",
                f"{job.id}/3 stays: newest restartable version",
                "17 bytes are needed by no version that stays in store or trash",
            ]
            assert job.versions == [1, 2, 3]

    play(main)


@pytest.mark.parametrize(("code", "left"), [(0, [2]), (3, [1, 2, 3])])
def test_the_systems_versions_go_with_the_job(tmp_path, code, left):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await w.start()
            for initiator in (Initiator.SYSTEM, Initiator.USER, Initiator.SYSTEM):
                await w.checkpoint(job, caller=ROOT, initiator=initiator)
            await trio.sleep(5)
            assert job.versions == [1, 2, 3]
            w.node.end(job.id, UNIT, Exit(code))
            await trio.sleep(5)
            assert job.versions == left

    play(main)


def test_a_removed_version_comes_back_pinned(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await w.start(keep_last=1)
            await w.checkpoint(job)
            w.service.remove_version(job.id, 1, OWNER)
            assert [version for version, _ in w.service.trashed(job.id)] == [1]
            with pytest.raises(NotAuthorised):
                w.service.undelete(job.id, 1, STRANGER)
            with pytest.raises(NotFound):
                w.service.undelete(job.id, 2, OWNER)
            w.service.undelete(job.id, 1, OWNER)
            await w.checkpoint(job)
            await w.checkpoint(job)
            assert job.versions == [1, 3]
            assert not [version for version, _ in w.service.trashed(job.id) if version == 1]

    play(main)


def test_a_volume_in_doubt_is_told_and_planned_for(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        sweeper.report = Report(freed_bytes=41, doubts={"b": "packs/x does not belong there"})
        sweeper.volumes = ["volume b: 3 copies are needed by no version"]
        async with world(tmp_path, sweeper=sweeper) as w:
            await trio.sleep(5)
            told = "nothing goes from volume b: packs/x does not belong there"
            assert w.service.gc_text() == f"idle (freed 41 bytes; {told})"
            assert f"the collector: {told}" in w.service.health()
            plan = await ask(w, dry=True)
            assert "volume b: 3 copies are needed by no version" in plan

    play(main)


def test_nothing_is_decided_before_the_store_is_counted(tmp_path, monkeypatch):
    async def main():
        counted = trio.Event()

        async def count(_store):
            await counted.wait()

        monkeypatch.setattr(FakeStore, "count", count)
        sweeper = FakeSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            await trio.sleep(100)
            assert sweeper.runs == []
            counted.set()
            await w.until(lambda: sweeper.runs == [BY_ITSELF])

    play(main)


def test_a_store_that_cannot_be_counted_is_collected_all_the_same(tmp_path, monkeypatch):
    async def main():
        async def count(_store):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(FakeStore, "count", count)
        sweeper = FakeSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            await w.until(lambda: sweeper.runs == [BY_ITSELF])

    play(main)


def test_the_counting_begins_before_anybody_asks_for_the_usage(tmp_path, monkeypatch):
    """Or whoever asks would count all of it on the trio thread: 6 s of 1 M packs."""

    async def main():
        asked = []
        usage = FakeStore.usage

        async def count(_store):
            asked.append("count")

        monkeypatch.setattr(FakeStore, "count", count)
        monkeypatch.setattr(FakeStore, "usage", lambda s: asked.append("usage") or usage(s))
        async with world(tmp_path, sweeper=FakeSweeper()):
            await trio.sleep(2)
        assert asked[0] == "count"
        assert "usage" in asked

    play(main)


class SlowSweeper(FakeSweeper):
    """Its plan takes as long as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.plan_s = 0.0
        self.plans = 0

    async def plan(self, *, empty_trash):
        self.plans += 1
        await trio.sleep(self.plan_s)
        return await super().plan(empty_trash=empty_trash)


def test_a_plan_that_takes_long_goes_on_and_is_there_when_asked_again(tmp_path):
    async def main():
        sweeper = SlowSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            await w.until(lambda: w.service.gc_text().startswith("idle (freed 41"))
            sweeper.plan_s = 60.0
            started_s = trio.current_time()
            with pytest.raises(TimedOut, match="ask again"):
                await ask(w, dry=True)
            assert trio.current_time() - started_s == planning.PATIENCE_S
            assert w.service.gc_text() == "planning"
            await w.until(lambda: w.service.gc_text() != "planning")
            assert "17 bytes" in await ask(w, dry=True)
            assert sweeper.plans == 1
            sweeper.plan_s = 0.0
            await ask(w, dry=True)
            assert sweeper.plans == 2  # what was told is told once

    play(main)


def test_a_plan_that_nobody_came_for_or_of_something_else_is_made_anew(tmp_path):
    async def main():
        sweeper = SlowSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            await w.until(lambda: w.service.gc_text().startswith("idle (freed 41"))
            for wait_s, empty_trash in ((planning.KEPT_S + 1, False), (0, True)):
                sweeper.plan_s, sweeper.plans = 10.0, 0
                with pytest.raises(TimedOut):
                    await ask(w, dry=True)
                await w.until(lambda: w.service.gc_text() != "planning")
                await trio.sleep(wait_s)
                sweeper.plan_s = 0.0
                assert ("emptied" in await ask(w, dry=True, empty_trash=empty_trash)) == empty_trash
                assert sweeper.plans == 2

    play(main)


def test_a_plan_in_doubt_says_so_also_late(tmp_path):
    async def main():
        sweeper = SlowSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            await w.until(lambda: w.service.gc_text().startswith("idle (freed 41"))
            sweeper.plan_s = 10.0
            with pytest.raises(TimedOut):
                await ask(w, dry=True)
            sweeper.doubt = Corrupt("a listing failed")
            await w.until(lambda: w.service.gc_text() != "planning")
            with pytest.raises(TryAgain, match="nothing would be deleted: a listing failed"):
                await ask(w, dry=True)

    play(main)
