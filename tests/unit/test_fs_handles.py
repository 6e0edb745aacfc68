"""Open files: answers, snapshots, poll, deadlines, and what hostile writes do."""

from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.errors import (
    CkptfsError,
    Corrupt,
    Forbidden,
    Gone,
    InvalidInput,
    NoData,
    NotAuthenticated,
    TimedOut,
)
from ckptfs.fs.boundary import fuse_handler
from ckptfs.fs.interface import JOB_FILES, SERVICE_FILES, VERSION_FILES
from ckptfs.fs.opening import Opening
from ckptfs.fs.parts import build_parts
from ckptfs.ids import JobId, Version
from ckptfs.model import Caller
from ckptfs.store.api import Damage
from ckptfs.store.copies_api import VolumeStatus
from tests.fakes_service import UNIT, FakeService

from .test_fs_tree import find

ALICE = Caller(1001, 1001)
BOB = Caller(1002, 1002)
JOB = JobId("heat.42")


class World:
    """A service with one job of Alice's that has one version, and open files on it."""

    def __init__(self, files=None) -> None:
        self.service = FakeService()
        self.job = self.service.add_job("heat", uid=ALICE.uid, gid=ALICE.gid)
        self.service.add_version(self.job, files)
        self.parts = build_parts(
            self.service,
            clock_ns=lambda: self.service.now_ns,
            load=lambda: 0.5,
            invalidate=lambda *_: None,
        )
        self.opening = Opening(self.parts)

    async def open(self, path, caller=ALICE, *, writable=True):
        node = find(self.parts, path)
        return await self.opening.open(node, caller, writable=writable, truncate=False)

    async def cat(self, path, caller=ALICE):
        return (await (await self.open(path, caller, writable=False)).read(0, 1 << 20)).decode()

    async def echo(self, path, text, caller=ALICE):
        opened = await self.open(path, caller)
        await opened.write(0, text.encode() + b"\n")
        return (await opened.read(0, 4096)).decode().rstrip("\n")


@pytest.fixture
def world():
    return World()


async def never(*args):
    await trio.sleep_forever()


class FakePollHandle:
    """Counts notifications as the kernel's does; it cannot be made outside pyfuse3."""

    def __init__(self) -> None:
        self.notified = 0

    def notify(self) -> None:
        self.notified += 1


@pytest.mark.trio
async def test_the_answer_is_read_wherever_the_shell_stands(world):
    opened = await world.open("heat.42/ctl/retention")
    await opened.write(0, b"keep_last 3\n")
    assert await opened.read(12, 5) == b"keep_"
    assert await opened.read(17, 100) == b"last 3\n"
    assert await opened.read(24, 100) == b""
    assert await opened.read(0, 100) == b"keep_last 3\n"
    await opened.write(12, b"keep_last 4\n")  # the offset means nothing
    assert await opened.read(0, 100) == b"keep_last 4\n"  # the answer
    assert await opened.read(0, 100) == b"keep_last 4\n"  # the content
    assert await opened.read(10, 100) == b"4\n"


@pytest.mark.trio
async def test_a_refusal_is_the_answer_too(world):
    opened = await world.open("heat.42/ctl/kill")
    with pytest.raises(InvalidInput):
        await opened.write(0, b"2")
    assert (await opened.read(0, 100)).startswith(b"error write 1")
    assert (await opened.read(0, 100)).startswith(b"none\n# echo 1 > kill")
    assert "kill: write 1, not '2'" in await world.cat("heat.42/ctl/error")


@pytest.mark.trio
async def test_a_snapshot_does_not_change_while_it_is_read(world):
    opened = await world.open("heat.42/ctl/state", writable=False)
    assert await opened.read(0, 3) == b"run"
    world.service.finish(world.job)
    assert await opened.read(3, 100) == b"ning\n"
    assert await opened.read(0, 100) == b"done\n"


@pytest.mark.trio
async def test_poll_is_sticky_per_descriptor(world):
    first = await world.open("heat.42/ctl/state", writable=False)
    second = await world.open("heat.42/ctl/state", writable=False)
    handle = FakePollHandle()
    assert first.poll(None)  # never read: behind
    await first.read(0, 100)
    await second.read(0, 100)
    assert not first.poll(handle)
    await world.echo("heat.42/ctl/checkpoint", "1")
    assert handle.notified == 1
    world.service.fail(world.job, "reason")  # the state is what it was, but something happened
    assert first.poll(handle)
    assert handle.notified == 1
    await first.read(3, 100)
    assert first.poll(None)  # offset 0 alone catches up
    await first.read(0, 100)
    assert not first.poll(None)
    assert second.poll(None)
    world.service.tell(JOB)  # nothing changed
    assert not first.poll(None)


@pytest.mark.trio
async def test_what_is_not_pollable_is_never_exceptional(world):
    assert not (await world.open("heat.42/ctl/stat", writable=False)).poll(None)


@pytest.mark.trio
async def test_a_closed_descriptor_is_not_notified(world):
    opened = await world.open("heat.42/ctl/state", writable=False)
    await opened.read(0, 100)
    handle = FakePollHandle()
    opened.poll(handle)
    world.parts.notifier.unwatch(opened)
    opened.close()
    world.service.finish(world.job)
    assert handle.notified == 0


@pytest.mark.trio
async def test_service_files_hear_of_jobs(world):
    opened = await world.open("ctl/events", writable=False)
    await opened.read(0, 1000)
    world.service.add_version(world.job)
    assert opened.poll(None)


@pytest.mark.trio
async def test_a_bug_while_rendering_harms_neither_the_service_nor_other_pollers(world, caplog):
    opened = await world.open("ctl/health", writable=False)
    await opened.read(0, 100)
    world.service.troubles = None
    world.service.tell(JOB)
    assert "bug while announcing" in caplog.text
    caplog.clear()


@pytest.mark.trio
async def test_read_only_files_are_refused_at_open_for_everybody(world):
    for caller in (ALICE, Caller(0, 0)):
        with pytest.raises(NotAuthenticated):
            await world.open("heat.42/ctl/state", caller)
        with pytest.raises(Forbidden):
            await world.open("heat.42/1/job.cpx", caller)


@pytest.mark.trio
async def test_a_removed_job_is_enodev(world):
    opened = await world.open("heat.42/ctl/kill")
    version = await world.open("heat.42/1/ctl/pin")
    world.service.remove_version(JOB, Version(1), ALICE)
    with pytest.raises(Gone):
        await version.read(0, 10)
    with pytest.raises(Gone):
        await version.write(0, b"1")
    assert await version.read(0, 100) == b"error version 1 of heat.42 was removed\n"
    world.service.finish(world.job)
    world.service.remove_job(JOB, ALICE)
    with pytest.raises(Gone):
        await opened.write(0, b"1")


@pytest.mark.trio
async def test_a_command_has_a_deadline(world, autojump_clock):
    world.service.request_kill = never
    opened = await world.open("heat.42/ctl/kill")
    with pytest.raises(TimedOut):
        await opened.write(0, b"1")
    assert trio.current_time() == pytest.approx(10, abs=0.1)
    assert (await opened.read(0, 100)).startswith(b"error no answer within 10 s")


@pytest.mark.trio
async def test_asking_at_open_has_a_deadline(world, autojump_clock):
    world.service.refresh_blockers = never
    with pytest.raises(TimedOut):
        await world.open("heat.42/ctl/blockers", writable=False)


@pytest.mark.trio
async def test_blockers_are_asked_for_at_open(world):
    world.service.found_blockers = ("a tty is open: process 7, fd 0", "another")
    assert (await world.cat("heat.42/ctl/blockers")).splitlines() == [
        "a tty is open: process 7, fd 0",
        "another",
    ]


@pytest.mark.trio
async def test_a_sealed_volume_shows_how_and_what_that_saves(world):
    world.service.volume_rows += [
        VolumeStatus("b", "up", "b", 100, 5, "/mnt/b", "", "encrypt", 231),
        VolumeStatus("c", "up", "c", 100, 5, "/mnt/c"),
    ]
    _, sealed, plain = (await world.cat("ctl/volumes")).splitlines()
    assert sealed.endswith("directory=/mnt/b seal=encrypt ratio=2.31")
    assert plain.endswith("directory=/mnt/c")


@pytest.mark.trio
async def test_every_file_shows_its_service(world):
    assert await world.cat("ctl/version") == "ckptfs 0.1.0\nabi 1\n"
    assert await world.cat("ctl/health") == "ok\n"
    world.service.troubles = ["the disk is nearly full: remove versions"]
    assert await world.cat("ctl/health") == "the disk is nearly full: remove versions\n"
    assert "dmtcp available=0 version=none" in await world.cat("ctl/checkpointers")
    assert await world.cat("ctl/nodes") == "n1 state=up units=1 load=0.5 checkpointers=criu\n"
    assert (await world.cat("ctl/volumes")).startswith("local state=up domain=n1 used_bytes=")
    assert await world.cat("ctl/degraded") == "0\n"
    world.service.store.degraded_reason = "a pack is torn"
    assert await world.cat("ctl/degraded") == "1 (a pack is torn)\n"
    damage = Damage(JOB, Version(1), UNIT, "pages-1.img", 17, "x")
    world.service.store.sealed[JOB, Version(1)].damage.append(damage)
    first, line = (await world.cat("ctl/degraded")).splitlines()
    assert first == "1 (a pack is torn; 1 version damaged)"
    assert line.startswith(f"{JOB}/1 damaged (")
    metrics = await world.cat("ctl/metrics")
    assert metrics.endswith("# EOF\n")
    assert "# TYPE ckptfs_complete counter\nckptfs_complete_total 1\n" in metrics
    assert "ckptfs_jobs_running 1\n" in metrics


@pytest.mark.trio
async def test_jobinfo_is_xml_that_says_who_runs(world):
    from lxml import etree

    text = await world.cat("heat.42/ctl/jobinfo.xml")
    root = etree.fromstring(text.encode())
    assert root.xpath("string(//jobInfo/@jobID)") == "heat.42"
    assert root.xpath("//metric[name='PID']/value/text()") == ["4711"]
    assert root.xpath("//metric[name='userTime']/value/text()") == ["01:02.50"]


@pytest.mark.trio
async def test_submit_takes_the_callers_own_file(world):
    file = world.parts.spool.create("a.jsdl", BOB, 0o644, 1)
    world.parts.spool.write(file, 0, b"<JobDefinition/>", 1)
    assert await world.echo("ctl/submit", "a.jsdl", BOB) == "submitted.43"
    assert (await world.cat("ctl/submit", BOB)).startswith("submitted.43\n")
    assert (await world.cat("ctl/submit", ALICE)).startswith("none\n")
    with pytest.raises(CkptfsError):
        await world.echo("ctl/submit", "a.jsdl", ALICE)


@pytest.mark.trio
async def test_version_verbs(world):
    assert await world.echo("heat.42/1/ctl/pin", "1") == "1"
    assert await world.cat("heat.42/1/ctl/pin") == "1\n"
    assert (await world.cat("heat.42/1/ctl/verify")).startswith("never\n# ")
    await world.echo("heat.42/1/ctl/verify", "1")
    assert (await world.cat("heat.42/1/ctl/verify")).startswith("ok 2026-")
    world.service.finish(world.job)
    assert await world.echo("heat.42/1/ctl/restart", "1") == "1"
    assert await world.cat("heat.42/1/ctl/restart") == "1 rebuilding\n"
    assert await world.echo("heat.42/1/ctl/restart", "1 as=clone") == "clone.43"
    assert "logical_bytes 3145750\n" in await world.cat("heat.42/1/ctl/stat")


@pytest.mark.trio
async def test_damage_found_by_a_reader_is_recorded(world):
    damage = Damage(JOB, Version(1), UNIT, "pages-1.img", 1, "hash does not match")
    world.service.store.sealed[JOB, Version(1)].hidden_damage.append(damage)
    opened = await world.open("heat.42/1/JobUnit_1/pages-1.img", writable=False)
    assert len(await opened.read(0, 4096)) == 4096
    with pytest.raises(Corrupt):
        await opened.read(1 << 20, 4096)
    assert world.service.damaged == [damage]
    opened.close()
    assert world.service.store.open_readers == 0


@pytest.mark.trio
async def test_xattrs(world):
    node = find(world.parts, "heat.42/1/JobUnit_1/unit.cpx")
    xattrs = world.parts.xattrs
    names = xattrs.names(node)
    values = {name: await xattrs.value(node, name) for name in names}
    assert values[b"user.ckptfs.owner"] == b"uid:1001"
    assert len(values[b"user.ckptfs.sha256"]) == len(values[b"user.ckptfs.blake3"]) == 64
    version = find(world.parts, "heat.42/1")
    assert b"user.ckptfs.sha256" not in xattrs.names(version)
    for name in (b"user.ckptfs.sha256", b"user.other", b"security.capability", b"\xff"):
        with pytest.raises(NoData):
            await xattrs.value(version, name)
    assert xattrs.names(find(world.parts, "heat.42/ctl/state")) == []


@pytest.mark.trio
async def test_the_boundary_lets_nothing_through_but_fuse_errors(caplog):
    import errno

    from pyfuse3 import FUSEError

    @fuse_handler
    async def handler(error):
        raise error

    for error, number in (
        (Gone("x"), errno.ENODEV),
        (ValueError("a bug"), errno.EIO),
        (FUSEError(errno.EXDEV), errno.EXDEV),
    ):
        with pytest.raises(FUSEError) as info:
            await handler(error)
        assert info.value.errno == number
    assert "a bug" in caplog.text
    caplog.clear()
    with pytest.raises(KeyboardInterrupt):
        await handler(KeyboardInterrupt())


WRITABLE = [
    *(f"ctl/{row.name}" for row in SERVICE_FILES.values() if row.store),
    *(f"heat.42/ctl/{row.name}" for row in JOB_FILES.values() if row.store),
    *(f"heat.42/1/ctl/{row.name}" for row in VERSION_FILES.values() if row.store),
]
WORDS = ["1", "0", "7", "latest", "keep=yes", "note=x", "as=clone", "stopped=yes", "TERM", "15"]
WORDS += ["only=4711", "except=1,2", "master", "keep_last", "3", "coordinated", "JobUnit_1=n1"]


def random_command(random: Random) -> bytes:
    """Return a command made of right words, or noise, or one at the edge of what is too long."""
    kind = random.randrange(4)
    if kind == 0:
        return random.randbytes(random.randrange(64))
    if kind == 1:
        return random.choice(WORDS).encode() * random.choice([1, 1, 1, 1000, 4096])
    words = random.choices(WORDS, k=random.randrange(4))
    return (random.choice(" \t\n\0,") if kind == 2 else " ").join(words).encode()


async def write_once(world: World, path: str, data: bytes) -> None:
    """Write: either it is taken whole, or refused with a sentence on the same descriptor."""
    opened = await world.open(path)
    try:
        assert await opened.write(0, data) == len(data)
        refused = False
    except CkptfsError:
        refused = True
    answer = await opened.read(0, 8192)
    assert answer.startswith(b"error ") == refused
    assert answer.count(b"\n") == 1
    world.parts.notifier.unwatch(opened)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_ten_thousand_random_writes(seed):
    """250 worlds of 40 writes each: an answer or one of our errors, never a hang.

    Hypothesis draws the seeds: drawing every byte through it took 80 s instead of 2.
    """

    async def write_all() -> None:
        world, random = World({(UNIT, "core.img"): b"core"}), Random(seed)
        with trio.fail_after(5):
            for _ in range(40):
                await write_once(world, random.choice(WRITABLE), random_command(random))

    trio.run(write_all)
