"""Small records prove themselves: a changed bit never changes what they say."""

from __future__ import annotations

import json

import pytest

from ckptfs.coordinator import scrub_record
from ckptfs.coordinator.scrub_record import ScrubRecord
from ckptfs.errors import Corrupt
from ckptfs.ids import JobId, Version
from ckptfs.store.collector_record import RECORD, CollectorRecord
from ckptfs.store.copies_record import VolumeRecord, decode_volumes, encode_volumes
from ckptfs.store.gone import decode_gone, encode_gone
from ckptfs.store.small_record import decode_small, encode_small
from ckptfs.store.syscalls import Syscalls

JOB = JobId("heat.1")
SMALL = {"epoch": 12, "names": ["a", "ü"], "on": True}
KINDS = {
    "small": (encode_small, lambda d: {key: decode_small(d)[key] for key in SMALL}, SMALL),
    "gone": (encode_gone, decode_gone, frozenset({(JOB, Version(2)), (JOB, Version(13))})),
    "volumes": (
        encode_volumes,
        decode_volumes,
        [VolumeRecord("copies", "/mnt/copies", "rack2", "5f" * 16, seal="encrypt")],
    ),
    "scrub": (
        scrub_record.encode_record,
        scrub_record.decode_record,
        ScrubRecord(5, 1, 1, ((JOB, Version(2)),), last_ended_ns=1_790_000_000_000_000_000),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found_or_changes_nothing(kind):
    encode, decode, value = KINDS[kind]
    document = encode(value)
    assert decode(document) == value
    found = 0
    for at in range(len(document)):
        for bit in range(8):
            changed = bytearray(document)
            changed[at] ^= 1 << bit
            try:
                assert decode(bytes(changed)) == value
            except (ValueError, Corrupt, KeyError):
                found += 1
    assert found > 7 * len(document)


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_an_older_ckptfs_is_taken(kind):
    encode, decode, value = KINDS[kind]
    row = json.loads(encode(value))
    del row["digest"]
    assert decode(json.dumps(row).encode()) == value


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "Expecting value"),
        (b"[]", "no record"),
        (b"{", "Expecting property name"),
        (b'{"digest": "0"}', "does not match its digest"),
        (b"\xff", "can't decode"),
    ],
)
def test_what_is_no_record_is_refused(document, words):
    with pytest.raises(ValueError, match=words):
        decode_small(document)


def test_a_changed_epoch_is_none(tmp_path):
    record = CollectorRecord(tmp_path, Syscalls())
    record.keep(12, 5)
    assert (CollectorRecord(tmp_path, Syscalls()).read(), record.last_s) == (12, 5)
    path = tmp_path / RECORD
    path.write_bytes(path.read_bytes().replace(b"12", b"92"))
    again = CollectorRecord(tmp_path, Syscalls())
    assert (again.read(), again.last_s) == (0, 0)
