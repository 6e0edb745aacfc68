"""Who pays for a version, and what is refused because somebody would pay more than they may."""

from __future__ import annotations

import os
import threading

import pytest
import trio

from ckptfs.coordinator import user_space
from ckptfs.coordinator.api import CheckpointRequest
from ckptfs.coordinator.charges import DEFAULT
from ckptfs.errors import (
    InvalidInput,
    NotAuthorised,
    NotFound,
    OutOfRange,
    QuotaExceeded,
    StoreFull,
    TimedOut,
    TryAgain,
    Unsupported,
)
from ckptfs.ids import Version
from ckptfs.jobs.jsdl_render import CHECKPOINTING, JSDL, POSIX
from ckptfs.jobs.sizes import SIZE_MAX
from ckptfs.model import Caller, Initiator, Purpose, SpaceClass
from tests.service.kit import OWNER, ROOT, STRANGER, ScriptedStore, World, play, world

SYSTEM = CheckpointRequest(purpose=Purpose.FAULT_TOLERANCE, initiator=Initiator.SYSTEM)


async def first_version(w: World, job) -> int:
    """Take one and return its size, which is what units say from now on."""
    await w.checkpoint(job)
    w.node.image_bytes = w.store.head(job.id, job.versions[-1]).logical_bytes
    return w.node.image_bytes


async def refused(w: World, job) -> str:
    """The next version is refused, and nothing at all has happened to the job."""

    def seen():
        busy = sorted(w.parts.registry.operations)
        return (job.highest_version, job.state, dict(job.events), sorted(w.service.staging), busy)

    before = seen()
    with pytest.raises(QuotaExceeded) as caught:
        await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
    assert seen() == before
    return str(caught.value)


def test_the_users_own_are_charged_and_the_systems_are_not(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            charges = w.service.charges
            job = await w.start()
            size = await first_version(w, job)
            assert charges.of_version(job.id, Version(1)) == (SpaceClass.USER, size)
            await w.service.request_checkpoint(job.id, ROOT, SYSTEM)
            await w.saved(job)
            assert charges.of_version(job.id, Version(2)) == (SpaceClass.SYSTEM, 0)
            with pytest.raises(NotAuthorised):
                await w.service.request_checkpoint(job.id, OWNER, SYSTEM)
            assert charges.of_job(job.id) == size
            w.service.remove_version(job.id, Version(1), OWNER)
            assert charges.of_job(job.id) == 0  # the trash is not the user's to pay

            await charges.refresh()
            (row,) = charges.rows()
            assert (row.uid, row.space_class, row.versions) == (65534, SpaceClass.SYSTEM, 1)
            assert (row.charged_bytes, row.copies, row.copies_wanted) == (0, 1, 1)
            assert row.logical_bytes == w.store.head(job.id, Version(2)).logical_bytes

    play(main)


def test_a_full_space_refuses_the_next_version_and_deletes_nothing(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(keep_last=1)
            size = await first_version(w, job)
            space = 5 * size // 2
            w.service.set_retention(job.id, OWNER, "keep_user_bytes", space)
            await w.checkpoint(job)
            assert job.versions == [1, 2]  # keep_last 1 alone would have let 1 go
            said = await refused(w, job)
            assert f"{space} bytes provided" in said
            assert job.versions == [1, 2]
            await w.service.request_checkpoint(job.id, ROOT, SYSTEM)
            await w.saved(job)
            assert job.versions == [1, 2, 3]  # the system's own are not in that space
            w.service.remove_version(job.id, Version(1), OWNER)
            assert (await w.checkpoint(job)).word == "complete"
            assert job.versions == [2, 4]  # keep_last 1 holds for the system's
            with pytest.raises(QuotaExceeded):
                w.service.undelete(job.id, Version(1), OWNER)
            with pytest.raises(QuotaExceeded, match="already"):
                w.service.set_retention(job.id, OWNER, "keep_user_bytes", size)
            assert job.keep_user_bytes == space
            w.service.set_retention(job.id, OWNER, "keep_user_bytes", 0)
            w.service.undelete(job.id, Version(1), OWNER)

    play(main)


def test_copies_are_charged_as_they_are_asked_for(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            size = await first_version(w, job)
            job.keep_user_bytes = 7 * size // 2
            job.replication = 2
            assert w.service.charges.of_job(job.id) == 2 * size
            await refused(w, job)  # one more would be charged twice
            job.replication = 1
            await w.checkpoint(job)
            w.service._replication.check_level = lambda level: None  # as if there were volumes
            with pytest.raises(QuotaExceeded):
                w.service.set_replication(job.id, OWNER, 2)
            assert job.replication == 1

    play(main)


def test_what_turns_out_larger_than_it_looked_is_not_committed(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.image_bytes = 1
            job.keep_user_bytes = 10
            outcome = await w.checkpoint(job)
            assert outcome.word == "failed"
            assert "bytes provided" in outcome.reason
            assert job.versions == []
            assert w.store.aborted == [(job.id, 1)]
            w.check_nothing_left(job)

    play(main)


def test_it_is_refused_while_it_is_written_and_the_job_goes_on(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            size = await first_version(w, job)
            w.node.image_bytes = 1
            job.keep_user_bytes = size + 1  # less than any image
            outcome = await w.checkpoint(job)
            assert outcome.word == "failed"
            assert "bytes provided" in outcome.reason  # not what a checkpointer makes of an errno
            rows = w.parts.db.rows("SELECT phase FROM phases WHERE operation = 2 ORDER BY sequence")
            assert [phase for (phase,) in rows] == ["stopping", "saving", "aborting", "failed"]
            assert w.parts.registry.operations == {}
            assert (job.versions, job.state_text) == ([1], "running")
            w.check_nothing_left(job)
            job.keep_user_bytes = 2 * size + 64  # the job's record in it has grown by a few bytes
            assert str(await w.checkpoint(job)) == "3 complete"  # a step ahead does not fit: needed

    play(main)


def test_a_quota_holds_for_all_jobs_of_a_user(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            first, second = await w.start(), await w.start()
            size = await first_version(w, first)
            charges = w.service.charges
            for caller in (OWNER, STRANGER):
                with pytest.raises(NotAuthorised):
                    charges.set_limit(caller, "65534", 1)
            charges.set_limit(ROOT, "65534", 5 * size // 2)
            await w.checkpoint(second)
            said = await refused(w, first)
            assert "quota of" in said
            assert await refused(w, second)
            (row,) = charges.quotas()
            assert (row.uid, row.limit_bytes) == (65534, 5 * size // 2)
            assert row.charged_bytes == charges.of_job(first.id) + charges.of_job(second.id)
            other = await w.start(caller=ROOT)
            await w.service.request_checkpoint(other.id, ROOT, CheckpointRequest())
            await w.saved(other)
            charges.set_limit(ROOT, "65534", None)
            await w.checkpoint(first)
            charges.set_limit(ROOT, DEFAULT, 1)
            assert await refused(w, first)
            await w.service.request_checkpoint(other.id, ROOT, CheckpointRequest())  # not root's
            await w.saved(other)
            charges.set_limit(ROOT, "65534", 0)  # none, whatever the default
            await w.checkpoint(first)
            with pytest.raises(NotFound):
                charges.set_limit(ROOT, "nobody-is-called-so", 1)
            with pytest.raises(InvalidInput):
                charges.set_limit(ROOT, "4294967295", 1)
            for limit in (-1, SIZE_MAX + 1):
                with pytest.raises(OutOfRange):
                    charges.set_limit(ROOT, "65534", limit)

    play(main)


def test_two_at_once_do_not_both_get_the_last_bytes(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            first, second = await w.start(), await w.start()
            size = await first_version(w, first)
            w.service.charges.set_limit(ROOT, "65534", 5 * size // 2)
            w.store.commit_s = 5.0
            await w.service.request_checkpoint(first.id, OWNER, CheckpointRequest())
            (row,) = w.service.charges.quotas()
            assert row.reserved_bytes > 0
            await refused(w, second)
            await w.saved(first)
            (row,) = w.service.charges.quotas()
            assert row.charged_bytes > 3 * size // 2
            assert row.reserved_bytes == 0
            await refused(w, second)

    play(main)


def test_quotas_and_space_outlive_the_service(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(keep_within_s=3600, keep_every_s=60, space_bytes=1 << 20)
            w.service.charges.set_limit(ROOT, "65534", 1 << 21)
            w.service.charges.set_limit(ROOT, DEFAULT, 1 << 19)
        async with world(tmp_path, node=w.node, store=w.store) as again:
            job = again.service.job(job.id)
            assert (job.keep_user_bytes, job.keep_within_s, job.keep_every_s) == (1 << 20, 3600, 60)
            (row,) = again.service.charges.quotas()
            assert (row.uid, row.limit_bytes) == (65534, 1 << 21)
            assert again.service.charges.default_limit() == 1 << 19
        (tmp_path / "jobs/quotas.json").write_bytes(b'{"format": 1, "default": -4, "limits": {}}')
        async with world(tmp_path, node=w.node, store=w.store) as last:
            assert any("no quota holds" in line for line in last.service.health())
            last.service.charges.set_limit(ROOT, DEFAULT, None)
            assert not any("quota" in line for line in last.service.health())

    play(main)


class CountingStore(ScriptedStore):
    """A store that was opened just now: what it holds is known when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = trio.Event()

    def is_counted(self) -> bool:
        return self.counted.is_set()

    async def wait_counted(self) -> None:
        await self.counted.wait()

    def totals(self, job):
        return super().totals(job) if self.counted.is_set() else {}


def test_whoever_is_limited_waits_until_what_there_is_has_been_counted(tmp_path):
    async def main():
        store = CountingStore()
        async with world(tmp_path, store=store) as w:
            free, limited = await w.start(caller=ROOT), await w.start()
            w.service.charges.set_limit(ROOT, "65534", 1 << 30)
            await w.service.request_checkpoint(free.id, ROOT, CheckpointRequest())
            await w.saved(free)
            with pytest.raises(TryAgain, match="counts"):
                await w.service.request_checkpoint(limited.id, OWNER, CheckpointRequest())
            with pytest.raises(TryAgain):
                w.service.set_retention(limited.id, OWNER, "keep_user_bytes", 1)
            assert limited.highest_version == 0
            await w.service.charges.refresh()
            assert w.service.charges.is_partial
            store.counted.set()
            assert (await w.checkpoint(limited)).word == "complete"
            await w.service.charges.refresh()
            assert not w.service.charges.is_partial
            assert {row.uid for row in w.service.charges.rows()} == {0, 65534}

    play(main)


def test_what_takes_long_to_count_goes_on_in_the_background(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            added = w.store.added_bytes

            async def slowly(job_id):
                await trio.sleep(20)
                return await added(job_id)

            w.store.added_bytes = slowly
            await w.service.charges.refresh()
            assert w.service.charges.is_partial
            (row,) = w.service.charges.rows()
            assert row.added_bytes == w.store.head(job.id, Version(1)).stored_bytes  # until known
            await trio.sleep(30)
            w.store.added_bytes = added
            await w.service.charges.refresh()
            assert not w.service.charges.is_partial

    play(main)


def document(space: str) -> bytes:
    return f"""<j:JobDefinition xmlns:j="{JSDL}" xmlns:p="{POSIX}" xmlns:c="{CHECKPOINTING}">
    <j:JobDescription><j:Application><p:POSIXApplication><p:Executable>/bin/heat</p:Executable>
    </p:POSIXApplication></j:Application><c:JobCheckpointing><c:FileManagement><c:UserSpace>
    {space}</c:UserSpace></c:FileManagement></c:JobCheckpointing></j:JobDescription>
    </j:JobDefinition>""".encode()


def test_the_space_is_looked_at_before_anything_is_started(tmp_path):
    own, link, file = tmp_path / "own", tmp_path / "link", tmp_path / "file"
    own.mkdir()
    link.symlink_to(own)
    file.touch()
    caller = Caller(os.getuid(), os.getgid())
    cases = [
        ("<c:Bytes>1</c:Bytes>" + f"<c:Path>{path}</c:Path>", NotAuthorised, "no directory of")
        for path in (link, file, tmp_path / "missing")
    ]
    cases += [
        ("<c:Bytes>1</c:Bytes><c:Path>/proc/self</c:Path>", NotAuthorised, "no directory of"),
        ("<c:Bytes>1152921504606846976</c:Bytes>", StoreFull, "the disk has"),
        ("<c:Bytes>2000</c:Bytes>", QuotaExceeded, "1000"),
    ]
    if own.stat().st_dev != os.stat("/proc").st_dev and os.stat("/proc").st_uid == caller.uid:
        cases.append(("<c:Bytes>1</c:Bytes><c:Path>/proc</c:Path>", Unsupported, "another disk"))

    async def main():
        async with world(tmp_path / "service") as w:
            w.service.charges.set_limit(ROOT, str(caller.uid), 1000)
            for space, error, words in cases:
                if error is StoreFull:
                    w.service.charges.set_limit(ROOT, str(caller.uid), 0)
                with pytest.raises(error, match=words):
                    await w.service.submit(caller, document(space))
                w.service.charges.set_limit(ROOT, str(caller.uid), 1000)
            assert list(w.service.jobs()) == []
            space = f"<c:Path>{own}</c:Path><c:Bytes>1000</c:Bytes>"
            job = w.service.job(await w.service.submit(caller, document(space)))
            assert job.keep_user_bytes == 1000

    (tmp_path / "service").mkdir()
    trio.run(main)  # real time: a thread looks


def test_a_path_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    """The thread hangs until the test lets it go; the service answers meanwhile."""
    release = threading.Event()
    monkeypatch.setattr(user_space, "look", lambda path: release.wait() and None)
    monkeypatch.setattr(user_space, "LOOK_S", 0.05)

    async def main():
        async with world(tmp_path) as w:
            space = "<c:Bytes>1</c:Bytes><c:Path>/mnt/hangs</c:Path>"
            with pytest.raises(TimedOut, match="/mnt/hangs"):
                await w.service.submit(OWNER, document(space))
            release.set()

    trio.run(main)
