"""The catalog and the job records: round trips, faults, upgrades."""

from __future__ import annotations

import sqlite3

import pytest

from ckptfs.catalog import jobs, operations, schema
from ckptfs.catalog.connection import Connection
from ckptfs.catalog.index import read_index
from ckptfs.errors import CkptfsError, Corrupt, Exists, StoreFull
from ckptfs.ids import JobId, Version, unit_name
from ckptfs.jobs.directory import JobsDirectory
from ckptfs.jobs.record import JobRecord, parse_record, render_record
from ckptfs.model import Initiator, JobSpec, JobState, Owner, Policy, Protocol

JOB = JobId("heat.42")
OWNER = Owner(1000, 1000, (4, 24), "alice")
SPEC = JobSpec(
    "heat",
    ("/bin/heat", "odd \udcff byte", ""),
    "/tmp",
    {"A": "1\n2"},
    OWNER,
    limits={"nofile": 64},
    policy=Policy(Initiator.SYSTEM, Protocol.COORDINATED, 3, "copy", ("sockets",)),
    jsdl="<x>ü</x>",
)
RECORD = JobRecord(
    JOB,
    SPEC,
    17,
    18,
    JobState.RUNNING,
    "",
    {unit_name(1): "n1"},
    7,
    3,
    Protocol.COORDINATED,
    None,
    0,
    None,
    "/logs/out",
    "/logs/err",
)


@pytest.fixture
def db(tmp_path):
    connection = Connection(tmp_path / "catalog.db")
    yield connection
    connection.close()


def add(db, job=JOB, state=JobState.RUNNING):
    jobs.save_job(
        db,
        job,
        OWNER,
        state=state,
        reason="",
        created_ns=1,
        highest_version=0,
        clone_of=None,
    )


def test_a_record_survives_the_round_trip():
    assert parse_record(render_record(RECORD), SPEC.jsdl) == RECORD


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        render_record(RECORD).replace(b'"format": 1', b'"format": 2'),
        render_record(RECORD).replace(b'"running"', b'"dancing"'),
        render_record(RECORD).replace(b'"heat.42"', b'"../x"'),
        render_record(RECORD).replace(b'"argv"', b'"argw"'),
    ],
)
def test_a_record_that_does_not_parse_is_corrupt(document):
    with pytest.raises(Corrupt):
        parse_record(document, "")


def test_the_directory_of_jobs(tmp_path):
    directory = JobsDirectory(tmp_path / "jobs", tmp_path / "logs")
    assert directory.next_number([]) == 1
    assert directory.next_number([JobId("lost.40")]) == 41
    assert directory.next_number([]) == 42
    directory.create(RECORD)
    with pytest.raises(Exists):
        directory.create(RECORD)
    (tmp_path / "jobs" / "counter").write_text("rubbish")
    assert directory.next_number([]) == 43
    assert directory.load() == ([RECORD], [])
    (tmp_path / "jobs" / JOB / "job.json").write_text("{")
    records, troubles = directory.load()
    assert records == []
    assert troubles[0].startswith("heat.42: a job record does not parse")
    directory.remove(JOB)
    directory.remove(JOB)
    assert directory.load() == ([], [])


def test_a_job_never_begun_is_swept(tmp_path):
    directory = JobsDirectory(tmp_path / "jobs", tmp_path / "logs")
    (tmp_path / "jobs" / "heat.1").mkdir()
    assert directory.load() == ([], [])
    assert not (tmp_path / "jobs" / "heat.1").exists()


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    directory = JobsDirectory(tmp_path / "jobs", tmp_path / "logs")
    directory.create(RECORD)
    (tmp_path / "jobs" / JOB / ".job.json.new").mkdir()  # what stands in the way of the new one
    with pytest.raises((StoreFull, OSError)):
        directory.save(RECORD)
    assert directory.load()[0] == [RECORD]


def phases(db, operation):
    rows = db.rows("SELECT phase FROM phases WHERE operation = ? ORDER BY sequence", (operation,))
    return [phase for (phase,) in rows]


def test_operations_are_journalled(db):
    add(db)
    first = operations.begin(db, JOB, "checkpoint", Version(1), JobState.RUNNING, 5)
    operations.enter(db, first, "stopping", "", 6)
    operations.enter(db, first, "saving", "", 7)
    (found,) = operations.load_open(db)
    assert (found.job, found.version, found.phase) == (JOB, 1, "saving")
    assert found.former_state is JobState.RUNNING
    operations.end(db, first, "why", 8)
    operations.end(db, first, "again", 9)
    assert operations.load_open(db) == []
    assert phases(db, first) == ["stopping", "saving"]
    jobs.remove_job(db, JOB)
    assert phases(db, first) == []


def test_a_transaction_is_all_or_nothing(db):
    add(db)

    def fail_in_the_middle():
        with db.transaction():
            db.execute("DELETE FROM jobs")
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert jobs.names(db) == {JOB}


def test_a_failing_disk_is_an_error_of_ours(db):
    with pytest.raises(CkptfsError), db.transaction():
        db.execute("INSERT INTO no_such_table VALUES (1)")


@pytest.mark.parametrize("version", [schema.VERSION + 1, 999])
def test_a_newer_catalog_is_put_aside_not_misread(tmp_path, version):
    path = tmp_path / "catalog.db"
    Connection(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version={version}")
    raw.close()
    again = Connection(path)
    assert again.was_rebuilt
    assert (tmp_path / "catalog.db.damaged").exists()
    again.close()


@pytest.mark.parametrize("text", [b"NOT NULL", b"TEXT"])
def test_damage_that_sqlite_repeats_in_bytes_that_are_no_text(tmp_path, text):
    path = tmp_path / "catalog.db"
    Connection(path).close()
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, text[:-1] + b"\xac"))
    with pytest.raises(Corrupt):
        read_index(path)
    again = Connection(path)
    assert again.was_rebuilt
    again.close()
    read_index(path)


def test_an_intact_catalog_is_kept(tmp_path):
    path = tmp_path / "catalog.db"
    first = Connection(path)
    assert first.was_rebuilt
    add(first)
    first.close()
    cut_off = Connection(path)
    assert cut_off.was_rebuilt  # nobody has said yet that it is whole again
    cut_off.settle()
    cut_off.close()
    again = Connection(path)
    assert not again.was_rebuilt
    assert jobs.names(again) == {JOB}
    again.close()


def test_old_operations_are_forgotten(db):
    add(db)
    for number in range(operations.KEPT_PER_JOB + 5):
        found = operations.begin(db, JOB, "checkpoint", Version(1 + number), JobState.RUNNING, 5)
        operations.enter(db, found, "stopping", "", 6)
        operations.end(db, found, "", 7)
    kept = db.number("SELECT count(*) FROM operations")
    assert kept == operations.KEPT_PER_JOB + 1
    assert db.number("SELECT count(*) FROM phases") == kept


def test_a_removed_job_is_put_away_and_brought_back(tmp_path):
    directory = JobsDirectory(tmp_path / "jobs", tmp_path / "logs")
    directory.create(RECORD)
    directory.put_away(JOB)
    assert directory.load() == ([], [])  # and not swept as one that was never begun
    assert directory.load_put_away() == ([RECORD], [])
    directory.bring_back(JOB)
    assert directory.load() == ([RECORD], [])
    assert directory.load_put_away() == ([], [])
    directory.put_away(JOB)
    (tmp_path / "jobs" / JOB / "removed.json").write_text("{")
    assert directory.load_put_away()[1][0].startswith("heat.42, which was removed: a job record")
    directory.remove(JOB)
    assert not (tmp_path / "jobs" / JOB).exists()
    with pytest.raises(StoreFull):
        directory.bring_back(JOB)


def test_what_a_killed_service_was_writing_is_removed(tmp_path):
    directory = JobsDirectory(tmp_path / "jobs", tmp_path / "logs")
    directory.create(RECORD)
    torn = [tmp_path / "jobs/.counter.new", tmp_path / "jobs" / JOB / ".job.json.new"]
    for path in torn:
        path.write_bytes(b"{")
    assert directory.load(sweep=False) == ([RECORD], [])
    assert all(path.exists() for path in torn)
    assert directory.load() == ([RECORD], [])
    assert not any(path.exists() for path in torn)
