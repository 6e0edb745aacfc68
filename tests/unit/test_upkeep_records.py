"""What check and repair say of quotas and of jobs that were removed."""

from __future__ import annotations

import pytest

from ckptfs.jobs.directory import JobsDirectory
from ckptfs.jobs.quotas import NAME, Quotas, decode_quotas, encode_quotas
from ckptfs.upkeep.records import load_records
from tests.unit.test_catalog_records import JOB, RECORD


@pytest.fixture
def directory(tmp_path) -> JobsDirectory:
    return JobsDirectory(tmp_path / "jobs", tmp_path / "logs")


def test_quotas_come_back_as_they_were_written():
    quotas = Quotas(5, {0: 7, 1000: 0})
    assert decode_quotas(encode_quotas(quotas)) == quotas
    assert [quotas.limit_of(uid) for uid in (0, 1000, 1001)] == [7, 0, 5]
    assert decode_quotas(b"") == Quotas()
    assert Quotas(5).limit_of(0) == 0  # root is not everybody


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        b'{"format": 2, "default": 0, "limits": {}}',
        b'{"format": 1, "default": -1, "limits": {}}',
        b'{"format": 1, "default": 0, "limits": {"-1": 5}}',
        b'{"format": 1, "default": 0, "limits": {"1000": 99999999999999999999}}',
        b'{"format": 1, "default": 0, "limits": {"1000": "many"}}',
        b'{"format": 1, "default": 0}',
    ],
)
def test_quotas_that_cannot_be_are_named(directory, tmp_path, document):
    directory.keep(NAME, document)
    (trouble,) = load_records(tmp_path)[1]
    assert trouble.startswith("no quota holds: quotas.json ")


def test_a_removed_job_is_no_job_and_its_record_is_looked_at(directory, tmp_path):
    directory.create(RECORD)
    directory.put_away(JOB)
    assert load_records(tmp_path) == ([], [])
    (tmp_path / "jobs" / JOB / "removed.json").write_bytes(b"{}")
    (trouble,) = load_records(tmp_path)[1]
    assert trouble.startswith(f"{JOB}, which was removed: ")
