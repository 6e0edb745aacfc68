"""job.cpx and unit.cpx: what goes in comes out; what is not ours is Corrupt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.coordinator.cpx import parse_record_of, parse_unit, render_job, render_unit
from ckptfs.errors import Corrupt
from ckptfs.ids import JobId, Version, unit_name
from ckptfs.jobs.record import JobRecord
from ckptfs.jobs.xml import parse_xml
from ckptfs.model import (
    Initiator,
    JobSpec,
    JobState,
    OpenFile,
    Owner,
    Policy,
    Protocol,
    Purpose,
    UnitFacts,
)

JOB, VERSION, UNIT = JobId("heat.42"), Version(7), unit_name(1)
SPEC = JobSpec(
    "heat",
    ("/bin/heat", "a\\b"),
    "/\udcff",
    {"A": "\x01"},
    Owner(5, 5, (7,), "alice"),
    policy=Policy(keep_last=3, rollback="copy"),
    jsdl="<a>\n&</a>",
)
RECORD = JobRecord(
    JOB,
    SPEC,
    created_ns=17,
    started_ns=18,
    state=JobState.RUNNING,
    reason="",
    units={UNIT: "n1"},
    highest_version=7,
    keep_last=3,
    protocol=Protocol.COORDINATED,
    exit_code=None,
    exit_signal=0,
    clone_of=None,
    stdout="/logs/out",
    stderr="/logs/err",
)
TEXT = st.text(st.characters(codec=None), max_size=30)
NUMBER = st.integers(0, 1 << 62)
FILES = st.builds(
    OpenFile,
    path=TEXT,
    device=NUMBER,
    inode=NUMBER,
    size_bytes=NUMBER,
    position=NUMBER,
    flags=NUMBER,
    mode=NUMBER,
    uid=NUMBER,
    gid=NUMBER,
    pid=NUMBER,
    fd=st.integers(-1, 1000),
    copy=TEXT,
    tail_bytes=st.integers(0, 65536),
    tail_hash=st.text("0123456789abcdef", min_size=1, max_size=32),
)
FACTS = st.builds(
    UnitFacts,
    unit=st.just(UNIT),
    node=st.just("n1"),
    translib=st.just("criu"),
    facts=st.dictionaries(TEXT, TEXT, max_size=4),
    pids=st.lists(NUMBER, max_size=3).map(tuple),
    uids=st.lists(NUMBER, max_size=3).map(tuple),
    files=st.lists(FILES, max_size=3).map(tuple),
)


@given(FACTS)
def test_a_unit_survives_the_round_trip(facts):
    assert parse_unit(render_unit(JOB, VERSION, facts), JOB, VERSION) == facts


def test_a_name_with_every_odd_byte():
    path = "".join(map(chr, range(1, 256))) + "\udcff\\x41\u2028"
    file = OpenFile(path, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1)
    facts = UnitFacts(UNIT, "n1", "criu", {}, (1000,), (5,), (file,))
    assert parse_unit(render_unit(JOB, VERSION, facts), JOB, VERSION).files[0].path == path


PLAIN = render_unit(JOB, VERSION, UnitFacts(UNIT, "n1", "criu", {}, (1000,), (5,), ()))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<unit/>",
        PLAIN.replace(b'format="1"', b'format="2"'),
        PLAIN.replace(b"heat.42", b"heat.43"),
        PLAIN.replace(b'version="7"', b'version="8"'),
        PLAIN.replace(b'pid="1000"', b'pid="x"'),
        PLAIN.replace(b'unit="JobUnit_1"', b'unit="../.."'),
        b'<!DOCTYPE unit [<!ENTITY a "b">]>' + PLAIN.split(b"\n", 1)[1],
        PLAIN[:-10],
    ],
)
def test_what_is_not_ours_is_corrupt(document):
    with pytest.raises(Corrupt):
        parse_unit(document, JOB, VERSION)


def test_the_job_document_names_owner_units_and_images():
    facts = UnitFacts(UNIT, "n1", "criu", {}, (1000, 1001), (5,), ())
    document = render_job(
        JOB,
        VERSION,
        owner=Owner(5, 5, (), "alice"),
        purpose=Purpose.USER,
        initiator=Initiator.USER,
        protocol=Protocol.COORDINATED,
        taken_ns=17,
        note="a & b \x01",
        record=RECORD,
        units=[facts],
        checkpointers={"criu": "4.2.1"},
        files={UNIT: {"pages-1.img": 4096}},
    )
    root = parse_xml(document)
    assert root.get("job") == "heat.42"
    assert root.find("owner").get("user") == "alice"
    assert root.findtext("note") == "a & b \\x01"
    unit = root.find("unit")
    assert (unit.get("checkpointer_version"), unit.get("processes")) == ("4.2.1", "1000 1001")
    assert unit.find("image").attrib == {"name": "pages-1.img", "size_bytes": "4096"}
    assert parse_record_of(document, JOB, VERSION) == RECORD


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'heat.42"', b'heat.43"'), (b'"argv"', b'"arg"'), (b"</record>", b"{</record>"), (b"<", b"")],
)
def test_a_record_that_is_not_ours_is_corrupt(old, new):
    document = render_job(
        JOB,
        VERSION,
        owner=SPEC.owner,
        purpose=Purpose.USER,
        initiator=Initiator.USER,
        protocol=Protocol.COORDINATED,
        taken_ns=17,
        note="",
        record=RECORD,
        units=[],
        checkpointers={},
        files={},
    )
    first, _, rest = document.partition(b"<record>")
    with pytest.raises(Corrupt):
        parse_record_of((first + b"<record>" + rest).replace(old, new), JOB, VERSION)


def test_a_version_of_before_holds_no_record():
    assert parse_record_of(b"<checkpoint/>", JOB, VERSION) is None
