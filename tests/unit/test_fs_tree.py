"""The tree, its inode numbers, attributes, removal, spool and staging area, without a kernel."""

import gc
import stat
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import (
    Busy,
    Exists,
    Forbidden,
    Gone,
    InvalidInput,
    NotAuthorised,
    NotEmpty,
    NotFound,
    QuotaExceeded,
    TooBig,
)
from ckptfs.fs import spool as spool_module
from ckptfs.fs.attributes import SECTOR, entry_attributes, share_blocks
from ckptfs.fs.changes import Changes
from ckptfs.fs.inodes import Inodes
from ckptfs.fs.nodes import DIRECTORIES, ROOT, SPOOL, Kind, Node
from ckptfs.fs.parts import build_parts
from ckptfs.fs.spool import Spool
from ckptfs.ids import JobId, UnitName, Version
from ckptfs.model import Caller, FileEntry, JobState
from tests.fakes_service import START_NS, UNIT, FakeService

ADMIN = Caller(0, 0)
ALICE = Caller(1001, 1001)
BOB = Caller(1002, 1002)


@pytest.fixture
def service():
    made = FakeService()
    job = made.add_job("heat", uid=ALICE.uid, gid=ALICE.gid)
    made.add_version(job)
    return made


@pytest.fixture
def invalidated():
    return []


@pytest.fixture
def parts(service, invalidated):
    return build_parts(
        service,
        clock_ns=lambda: service.now_ns,
        load=lambda: 0.5,
        invalidate=lambda *what: invalidated.append(what),
    )


def find(parts, path, caller=ADMIN):
    node = ROOT
    for name in path.split("/"):
        node = parts.namespace.lookup(node, name, caller)
    return node


def walk(parts, node=ROOT, path=""):
    for name, child in parts.namespace.children(node, ADMIN):
        yield f"{path}{name}", child
        if child.kind in DIRECTORIES:
            yield from walk(parts, child, f"{path}{name}/")


def test_what_is_listed_can_be_looked_up_and_has_attributes(parts, service):
    parts.spool.create("a", ALICE, 0o600, START_NS)
    seen = dict(walk(parts))
    assert "heat.42/1/JobUnit_1/files/1" in seen
    assert "ctl/spool/a" in seen
    for path, node in seen.items():
        assert find(parts, path) == node
        facts = parts.attributes.facts(node)
        assert stat.S_ISDIR(facts.mode) == (node.kind in DIRECTORIES)
    numbers = {parts.inodes.number(node) for node in seen.values()}
    assert len(numbers) == len(seen)


def test_listings_do_not_wait_for_heads_and_say_nothing_that_they_do_not_know(parts, service):
    node = find(parts, "heat.42/1")
    assert parts.attributes.listed(node) == parts.attributes.facts(node)
    service.store.summaries.unread_heads.add(("heat.42", 1))
    listed = parts.attributes.listed(node)
    assert (listed.mtime_ns, listed.attributes_s) != (parts.attributes.facts(node).mtime_ns, 1.0)
    assert listed.attributes_s == 0  # the kernel asks again before it tells anybody
    assert listed.mode == parts.attributes.facts(node).mode
    with pytest.raises(NotFound):
        parts.attributes.listed(Node(Kind.VERSION, node.job, 2))


@pytest.mark.parametrize(
    "path",
    [
        "heat.43",
        "heat",
        "..",
        "heat.42/2",
        "heat.42/01",
        "heat.42/0",
        "heat.42/ctl/x",
        "ctl/x",
        "heat.42/1/JobUnit_2",
        "heat.42/1/JobUnit_1/x",
        "heat.42/1/JobUnit_1/files/1/x",
        ".staging/heat.42.1",
        "ctl/spool/x",
        "heat.42/latest/x",
        "heat.42/1/JobUnit_1/files/2",
    ],
)
def test_what_is_not_there(parts, path):
    with pytest.raises(NotFound):
        find(parts, path)


def test_the_staging_area_is_looked_up_by_root_alone(parts):
    assert find(parts, ".staging").kind is Kind.STAGING
    with pytest.raises(NotFound):
        find(parts, ".staging", ALICE)
    assert ".staging" not in dict(parts.namespace.children(ROOT, ADMIN))


def test_hidden_jobs(service):
    service.add_job("other", uid=BOB.uid)
    hidden = build_parts(
        service,
        clock_ns=lambda: START_NS,
        load=lambda: 0.0,
        invalidate=lambda *_: None,
        hide_jobs=True,
    )
    listed = lambda who: [name for name, _ in hidden.namespace.children(ROOT, who)]  # noqa: E731
    assert listed(ALICE) == ["ctl", "heat.42"]
    assert listed(ADMIN) == ["ctl", "heat.42", "other.43"]
    assert find(hidden, "other.43", ALICE).kind is Kind.JOB


def test_a_version_with_a_broken_head_keeps_its_ctl(parts, service):
    service.store.broken_heads.add((JobId("heat.42"), Version(1)))
    node = find(parts, "heat.42/1")
    assert [name for name, _ in parts.namespace.children(node, ADMIN)] == ["ctl"]
    assert parts.attributes.facts(node).uid == ALICE.uid


def test_attributes(parts):
    version = parts.attributes.facts(find(parts, "heat.42/1"))
    assert (version.mode, version.uid) == (stat.S_IFDIR | 0o700, ALICE.uid)
    assert version.mtime_ns == START_NS
    image = parts.attributes.facts(find(parts, "heat.42/1/JobUnit_1/pages-1.img"))
    assert image.mode == stat.S_IFREG | 0o400
    assert image.size_bytes == 3 << 20
    assert image.name_s > 0
    live = parts.attributes.facts(find(parts, "heat.42/ctl/state"))
    assert (live.mode, live.size_bytes, live.attributes_s) == (stat.S_IFREG | 0o444, 0, 0)
    latest = parts.attributes.facts(find(parts, "heat.42/latest"))
    assert (latest.size_bytes, latest.name_s) == (1, 0)
    entry = entry_attributes(77, image)
    assert (entry.st_ino, entry.st_size, entry.st_nlink) == (77, 3 << 20, 1)


sizes = st.lists(st.integers(min_value=0, max_value=1 << 40), max_size=20)


@given(sizes, st.integers(min_value=0, max_value=1 << 42))
def test_the_blocks_of_the_files_add_up(sizes, unique_bytes):
    files = [FileEntry(UNIT, str(i), size, "", "") for i, size in enumerate(sizes)]
    shares = share_blocks(unique_bytes, files)
    assert all(share >= 0 for share in shares.values())
    expected = unique_bytes // SECTOR if sum(sizes) else 0
    assert sum(shares.values()) == expected


def test_inode_numbers_are_those_of_the_object():
    first, second = Inodes(), Inodes()
    a, b = Node(Kind.JOB, JobId("a.1")), Node(Kind.JOB, JobId("b.2"))
    number = first.remember(a)
    assert 1 < number < 2**63
    assert second.remember(b) != second.remember(a) == number
    assert first.node(number) == a
    first.remember(a)
    first.forget(number, 1)
    assert first.known(a)
    first.forget(number, 1)
    assert not first.known(a)
    with pytest.raises(Gone):
        first.node(number)
    first.forget(number, 5)  # the kernel may repeat itself
    assert len(first) == 1


def test_two_objects_with_one_hash_get_two_numbers(monkeypatch):
    monkeypatch.setattr(Node, "identity", property(lambda self: "same"))
    inodes = Inodes()
    a, b = Node(Kind.JOB, JobId("a.1")), Node(Kind.JOB, JobId("b.2"))
    assert inodes.remember(b) != inodes.remember(a)
    assert inodes.node(inodes.number(a)) == a
    assert inodes.node(inodes.number(b)) == b


# removal


def test_rm_r_of_a_version(parts, service):
    changes = Changes(parts)
    version = find(parts, "heat.42/1")

    def remove(node, name):
        if node.kind in DIRECTORIES:
            for child_name, child in parts.namespace.children(node, ALICE):
                remove(child, child_name)
            changes.rmdir(node, ALICE)
        else:
            changes.unlink(node, name, ALICE)

    remove(version, "1")
    assert service.job(JobId("heat.42")).versions == []


def test_an_unlink_alone_changes_nothing(parts):
    changes = Changes(parts)
    before = dict(walk(parts))
    changes.unlink(find(parts, "heat.42/1/job.cpx"), "job.cpx", ALICE)
    assert dict(walk(parts)) == before
    with pytest.raises(NotEmpty):
        changes.rmdir(find(parts, "heat.42/1/JobUnit_1"), ALICE)


@pytest.mark.parametrize("path", ["heat.42/1/job.cpx", "heat.42/1/ctl/state"])
def test_nothing_of_a_pinned_version_can_be_unlinked(parts, service, path):
    service.store.pin(JobId("heat.42"), Version(1), True)
    with pytest.raises(Busy):
        Changes(parts).unlink(find(parts, path), "x", ALICE)


def test_who_may_not_remove(parts):
    changes = Changes(parts)
    with pytest.raises(NotAuthorised):
        changes.unlink(find(parts, "heat.42/1/job.cpx"), "job.cpx", BOB)
    with pytest.raises(NotAuthorised):
        changes.rmdir(find(parts, "heat.42/1"), BOB)
    with pytest.raises(Forbidden):
        changes.unlink(find(parts, "ctl/version"), "version", ADMIN)
    with pytest.raises(Busy):
        changes.unlink(find(parts, "heat.42/ctl/state"), "state", ALICE)


def test_a_removed_version_is_announced_once_the_kernel_may_know_it(parts, service, invalidated):
    job = find(parts, "heat.42")
    service.remove_version(JobId("heat.42"), Version(1), ALICE)
    assert invalidated == []
    service.add_version(service.job(JobId("heat.42")))
    version = find(parts, "heat.42/2")
    parent, number = parts.inodes.remember(job), parts.inodes.remember(version)
    service.remove_version(JobId("heat.42"), Version(2), ALICE)
    assert invalidated == [(parent, b"2", number)]
    service.job(JobId("heat.42")).state = JobState.DONE
    service.remove_job(JobId("heat.42"), ALICE)
    assert invalidated[1] == (1, b"heat.42", parent)
    parts.notifier.close()
    service.tell(JobId("heat.42"))


# spool


def test_spool_files_keep_their_identity_over_a_rename():
    spool = Spool()
    file = spool.create("a", ALICE, 0o644, 1)
    spool.write(file, 0, b"hello", 2)
    spool.write(file, 10, b"!", 3)
    spool.rename("a", "b", 4)
    assert spool.find("b") is file
    assert spool.document("b", ALICE) == b"hello\0\0\0\0\0!"
    with pytest.raises(NotAuthorised):
        spool.document("b", ADMIN)
    with pytest.raises(NotFound):
        spool.document("a", ALICE)
    other = spool.create("c", BOB, 0o644, 5)
    with pytest.raises(Exists):
        spool.rename("b", "c", 6, replace=False)
    spool.rename("b", "c", 6)
    assert spool.find("c") is file
    assert not other.linked
    assert spool.by_serial(other.serial) is other  # still open somewhere
    spool.drop(other.serial)
    with pytest.raises(NotFound):
        spool.by_serial(other.serial)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "\x1b[2J", "x" * 256])
def test_names_a_spool_file_cannot_have(name):
    with pytest.raises(InvalidInput):
        Spool().create(name, ALICE, 0o600, 1)


def test_the_spool_is_bounded(monkeypatch):
    monkeypatch.setattr(spool_module, "TOTAL_MAX_BYTES", 3 << 20)
    spool = Spool()
    file = spool.create("a", ALICE, 0o600, 1)
    with pytest.raises(TooBig):
        spool.write(file, spool_module.FILE_MAX_BYTES, b"x", 1)
    with pytest.raises(TooBig):
        spool.resize(file, 1 << 50, 1)
    for name in "bcd":
        big = spool.create(name, BOB, 0o600, 1)
        spool.resize(big, 1 << 20, 1)
    with pytest.raises(QuotaExceeded):
        spool.write(file, 0, b"x", 1)
    for number in range(spool_module.USER_MAX_FILES - 3):
        spool.create(f"n{number}", BOB, 0o600, 1)
    with pytest.raises(QuotaExceeded):
        spool.create("one more", BOB, 0o600, 1)


def test_the_spool_forgets_after_an_hour():
    spool = Spool()
    spool.create("old", ALICE, 0o600, 0)
    spool.create("new", ALICE, 0o600, 10 * spool_module.NS)
    assert [file.name for file in spool.sweep(3605 * spool_module.NS)] == ["old"]
    assert [file.name for file in spool] == ["new"]


# staging


async def _begin(parts, service):
    from ckptfs.coordinator.api import CheckpointRequest

    version = await service.request_checkpoint(JobId("heat.42"), ALICE, CheckpointRequest())
    return find(parts, f".staging/heat.42.{version}/{UNIT}")


@pytest.mark.trio
async def test_staged_files(parts, service):
    changes = Changes(parts)
    unit = await _begin(parts, service)
    node = changes.create(unit, "a.img", 0o600, ADMIN)
    assert find(parts, ".staging/heat.42.2/JobUnit_1/a.img") == node
    parts.staging.by_serial(node.serial).file.write(0, b"12345")
    assert parts.attributes.facts(node).size_bytes == 5
    changes.rename(unit, "a.img", unit, "b.img", replace=True)
    assert find(parts, ".staging/heat.42.2/JobUnit_1/b.img") == node
    saved = changes.mkdir(unit, "files")
    inner = changes.create(saved, "1", 0o600, ADMIN)
    assert find(parts, ".staging/heat.42.2/JobUnit_1/files/1") == inner
    with pytest.raises(NotEmpty):
        changes.rmdir(saved, ADMIN)
    with pytest.raises(Exists):
        changes.mkdir(unit, "files")
    changes.unlink(inner, "1", ADMIN)
    changes.rmdir(saved, ADMIN)
    names = [name for name, _ in parts.namespace.children(unit, ADMIN)]
    assert names == ["b.img"]
    await service.complete(service.job(JobId("heat.42")))
    with pytest.raises(Gone):
        parts.staging.by_serial(node.serial)
    with pytest.raises(NotFound):
        parts.namespace.children(unit, ADMIN)
    assert parts.staging.sessions() == []
    assert find(parts, "heat.42/2/JobUnit_1/b.img").kind is Kind.IMAGE


@pytest.mark.trio
async def test_what_was_written_is_let_go_with_the_version(parts, service):
    """Nobody looks into .staging afterwards: each version once left its buffers, 8 MB."""
    unit = await _begin(parts, service)
    node = Changes(parts).create(unit, "a.img", 0o600, ADMIN)
    ingest = weakref.ref(parts.staging.by_serial(node.serial).ingest)
    assert ingest() is not None
    await service.complete(service.job(JobId("heat.42")))
    gc.collect()
    assert ingest() is None


@pytest.mark.trio
async def test_nothing_else_can_be_made(parts, service):
    changes = Changes(parts)
    unit = await _begin(parts, service)
    for parent in (ROOT, find(parts, "heat.42"), find(parts, "heat.42/1"), find(parts, ".staging")):
        with pytest.raises(Forbidden):
            changes.create(parent, "x", 0o600, ADMIN)
        with pytest.raises(Forbidden):
            changes.mkdir(parent, "x")
    with pytest.raises(Forbidden):
        changes.mkdir(unit, "other")
    changes.create(unit, "x", 0o600, ADMIN)
    with pytest.raises(Forbidden):
        changes.rename(unit, "x", SPOOL, "x", replace=True)
    assert UnitName("JobUnit_1") == unit.unit
