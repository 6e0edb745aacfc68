"""The scrub: what it reads and when, what it remembers, when it stops by itself."""

from __future__ import annotations

import pytest
import trio

from ckptfs.coordinator.scrub import RATE, Scrub
from ckptfs.coordinator.scrub_record import (
    BAD_PACKS_MAX,
    NOTHING,
    ScrubRecord,
    decode_record,
    encode_record,
    oldest_first,
)
from ckptfs.errors import Busy, Corrupt, Degraded, NotAuthorised
from ckptfs.ids import JobId, Version
from ckptfs.store.api import Damage
from ckptfs.store.copies_api import NoCopies, VolumeStatus
from tests.service.kit import OWNER, ROOT, UNIT, ScriptedStore, play, world

JOB = JobId("heat.1")


class OrderedStore(ScriptedStore):
    """Notes which versions are verified, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    async def verify(self, job, version, *, pace=None):
        self.read.append(version)
        self.now_ns = int((1_790_000_000 + trio.current_time()) * 1e9)
        return await super().verify(job, version, pace=pace)


async def versions(w, count: int):
    job = await w.start()
    for _ in range(count):
        await w.checkpoint(job)
    return job


async def scrubbed(w) -> str:
    await w.until(lambda: not w.service.scrub_text().startswith("running"))
    return w.service.scrub_text()


def test_those_verified_longest_ago_come_first():
    record = ScrubRecord(started_ns=50, damaged=((JOB, Version(4)),))
    rows = [
        (30, JOB, Version(1)),
        (0, JOB, Version(2)),
        (10, JOB, Version(3)),
        (0, JOB, Version(4)),
    ]
    assert oldest_first(record, [*rows, (60, JOB, Version(5))]) == [
        (JOB, Version(2)),
        (JOB, Version(3)),
        (JOB, Version(1)),
    ]


def test_the_record_comes_back_and_a_torn_one_is_told():
    record = ScrubRecord(1, 2, 3, ((JOB, Version(7)),), "by hand", 4, 5)
    assert decode_record(encode_record(record)) == record
    assert decode_record(b"") == ScrubRecord()
    for torn in (b"{", b"[]", b"{}", b'{"damaged": [], "colour": 1}'):
        with pytest.raises(Corrupt):
            decode_record(torn)


def test_a_scrub_reads_everything_and_says_so(tmp_path):
    async def main():
        store = OrderedStore()
        async with world(tmp_path, store=store) as w:
            job = await versions(w, 3)
            store.sealed[job.id, 1].verified_ns = 1_700_000_000_000_000_000
            assert w.service.scrub_text() == "idle (never)"
            with pytest.raises(NotAuthorised):
                w.service.request_scrub(OWNER, on=True)
            w.service.request_scrub(ROOT, on=True)
            assert w.service.scrub_text() == "running 0%"
            with pytest.raises(Busy):
                w.service.request_scrub(ROOT, on=True)
            assert (await scrubbed(w)).endswith("Z, 0 errors)")
            assert store.read == [2, 3, 1]
            assert w.service.health() == []

    play(main)


def test_damage_is_told_of_everywhere_and_the_run_goes_on(tmp_path):
    async def main():
        store = OrderedStore()
        async with world(tmp_path, store=store) as w:
            job = await versions(w, 3)
            store.sealed[job.id, 2].hidden_damage.append(Damage(job.id, 2, UNIT, "a", 0, "x"))
            w.service.request_scrub(ROOT, on=True)
            assert (await scrubbed(w)).endswith("Z, 1 errors)")
            assert store.read == [1, 2, 3]
            assert w.service.version_state(job.id, 2).startswith("damaged")
            assert w.service.damaged_versions() == [(job.id, 2)]
            assert f"1 version is damaged: {job.id}/2;" in w.service.health()[0]

    play(main)


def test_five_bad_packs_stop_the_run_and_ring(tmp_path):
    async def main():
        store = OrderedStore()
        async with world(tmp_path, store=store) as w:
            job = await versions(w, BAD_PACKS_MAX + 2)
            for number in range(1, BAD_PACKS_MAX + 3):
                damage = Damage(job.id, number, UNIT, "a", 0, "x")
                store.sealed[job.id, number].hidden_damage.append(damage)
            w.service.request_scrub(ROOT, on=True)
            assert (await scrubbed(w)).startswith("idle (stopped 5 damaged packs in one run")
            assert len(store.read) == BAD_PACKS_MAX
            assert any("the scrub stopped" in sentence for sentence in w.service.health())

    play(main)


def test_bad_packs_of_which_there_were_copies_count_too(tmp_path):
    class MendedStore(OrderedStore):
        def quarantined(self):
            return len(self.read)

    async def main():
        store = MendedStore()
        async with world(tmp_path, store=store) as w:
            await versions(w, BAD_PACKS_MAX + 2)
            w.service.request_scrub(ROOT, on=True)
            assert (await scrubbed(w)).startswith("idle (stopped 5 damaged packs in one run")
            assert w.service.damaged_versions() == []

    play(main)


def test_it_keeps_to_its_rate_and_waits_for_operations(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            scrub = Scrub(w.parts, loaded=lambda: False)
            for _ in range(5):
                await scrub._pace(RATE)
            assert 4 <= trio.current_time() < 5
            scrub = Scrub(w.parts, loaded=lambda: True)
            await scrub._pace(RATE)
            await scrub._pace(RATE)
            assert trio.current_time() >= 16
            w.store.commit_s = 100
            ended = trio.Event()

            async def pace() -> None:
                await Scrub(w.parts, loaded=lambda: False)._pace(1)
                ended.set()

            async with trio.open_nursery() as nursery:
                begun = trio.current_time()
                nursery.start_soon(w.checkpoint, job)
                await w.until(lambda: bool(w.parts.registry.operations))
                nursery.start_soon(pace)
                await ended.wait()
            assert trio.current_time() - begun >= 100

    play(main)


def test_a_stopped_run_goes_on_where_it_was_and_so_does_one_cut_off(tmp_path):
    async def main():
        store = OrderedStore()
        reached = trio.Event()

        async with world(tmp_path, store=store) as w:
            job = await versions(w, 3)
            usual = store.verify

            async def stuck(job_id, version, *, pace=None):
                if version == 2:
                    reached.set()
                    await trio.sleep_forever()
                return await usual(job_id, version, pace=pace)

            store.verify = stuck
            w.service.request_scrub(ROOT, on=True)
            await reached.wait()
            w.service.request_scrub(ROOT, on=False)
            assert await scrubbed(w) == "idle (stopped by hand)"
            w.service.request_scrub(ROOT, on=False)  # nothing runs: nothing to do
            reached = trio.Event()
            w.service.request_scrub(ROOT, on=True)
            await reached.wait()
            node = w.node
        assert store.read == [1]
        store.verify = usual
        async with world(tmp_path, node=node, store=store) as w:
            assert (await scrubbed_after_start(w)).endswith("Z, 0 errors)")
            assert store.read == [1, 2, 3]
            assert job.id in w.service.jobs()

    play(main)


async def scrubbed_after_start(w) -> str:
    await w.until(lambda: w.service.scrub_text().startswith("idle (last"))
    return w.service.scrub_text()


@pytest.mark.slow
def test_one_begins_every_week_by_itself(tmp_path):
    async def main():
        store = OrderedStore()
        async with world(tmp_path, store=store) as w:
            await versions(w, 1)
            await trio.sleep(15 * 24 * 3600)
            assert len(store.read) == 3

    play(main)


class RottenCopies(NoCopies):
    """One volume with two damaged copies."""

    def __init__(self):
        self.heard = []

    def rows(self):
        return [
            VolumeStatus("b", "up", "b", 5, 9, "/mnt/b"),
            VolumeStatus("c", "slow", "c", 0, 0, "/"),
        ]

    async def scrub(self, name, pace, *, since_ns, clock_ns):
        await pace(5)
        self.heard.append((name, since_ns, clock_ns() >= since_ns))
        return 7, 2


def test_copies_are_read_after_the_versions(tmp_path, monkeypatch):
    copies = RottenCopies()
    monkeypatch.setattr("ckptfs.coordinator.parts.NoCopies", lambda: copies)

    async def main():
        store = OrderedStore()
        async with world(tmp_path, store=store) as w:
            await versions(w, 2)
            w.service.request_scrub(ROOT, on=True)
            assert (await scrubbed(w)).endswith("Z, 2 errors)")
            assert store.read == [1, 2]
            ((name, since_ns, is_later),) = copies.heard
            assert (name, is_later) == ("b", True)
            assert since_ns > 0
            assert w.service.counters()["damage_found"] == 2

    play(main)


class Packs(NoCopies):
    """Packs of the store, some of them bad."""

    def __init__(self, bad=()):
        super().__init__()
        self.bad, self.read = bad, []

    async def scrub_packs(self, pace, cursor, note):
        for name in (f"{number:02}" for number in range(40)):
            if name > cursor:
                await pace(1)
                self.read.append(name)
                if not note(name, name not in self.bad):
                    return


@pytest.fixture
def packs(monkeypatch):
    made = Packs()
    monkeypatch.setattr("ckptfs.coordinator.parts.NoCopies", lambda: made)
    return made


def test_the_packs_are_read_behind_the_versions(tmp_path, packs):
    async def main():
        packs.bad = {"07", "31"}
        async with world(tmp_path, store=OrderedStore()) as w:
            await versions(w, 1)
            w.service.request_scrub(ROOT, on=True)
            assert (await scrubbed(w)).endswith("Z, 2 errors)")
            assert len(packs.read) == 40
            assert w.service.counters()["damage_found"] == 2

    play(main)


def test_too_many_bad_packs_stop_it_and_a_cut_off_run_goes_on_at_its_cursor(tmp_path, packs):
    async def main():
        store = OrderedStore()
        packs.bad = {"20", "21", "22", "23", "24"}
        async with world(tmp_path, store=store) as w:
            await versions(w, 1)
            w.service.request_scrub(ROOT, on=True)
            text = await scrubbed(w)
            assert "stopped 5 damaged packs in one run" in text
            assert packs.read[-1] == "24"
            packs.bad, packs.read = (), []
            w.service.request_scrub(ROOT, on=True)  # a new run: from the first
            assert (await scrubbed(w)).endswith("Z, 0 errors)")
            assert len(packs.read) == 40
        cut = NOTHING.begun(1).read_pack("29", is_good=True)
        store.keep_scrub_record(encode_record(cut))
        packs.read = []
        async with world(tmp_path, node=w.node, store=store) as w:
            await w.until(
                lambda: packs.read[-1:] == ["39"] and "0 errors" in w.service.scrub_text()
            )
            assert packs.read == [f"{number:02}" for number in range(30, 40)]

    play(main)


def test_packs_that_cannot_be_listed_are_not_said_to_have_been_read(tmp_path, packs, monkeypatch):
    async def refused(pace, cursor, note):
        raise Degraded("the store's disk failed: Input/output error")

    async def main():
        store = OrderedStore()
        async with world(tmp_path, store=store) as w:
            await versions(w, 1)
            with monkeypatch.context() as patched:
                patched.setattr(packs, "scrub_packs", refused)
                w.service.request_scrub(ROOT, on=True)
                assert await scrubbed(w) == "idle (never)"
            assert packs.read == []
        async with world(tmp_path, node=w.node, store=store) as w:  # it goes on where it was
            await w.until(lambda: "0 errors" in w.service.scrub_text())
            assert len(packs.read) == 40

    play(main)
