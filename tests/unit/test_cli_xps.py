"""xps prints the layout of XtreemOS (D3.3.6, table 3)."""

from __future__ import annotations

import time

import pytest

from ckptfs.cli.jobinfo import (
    cpu_text,
    date_text,
    duration_text,
    parse_jobinfo,
    xps_text,
)
from ckptfs.errors import Corrupt

ID = "heat.42"
METRIC = '<metric><name>{}</name><type>{}</type><value timestamp="{}">{}</value></metric>'
ROWS = [
    ("jobId", "string", 1224589738000, ID),
    ("status", "string", 1224589742536, "running"),
    ("submitTime", "time", 1224589738000, "1224589738000"),
    ("resourceID", "string", 1224589738000, "XOSDHOST/192.168.0.101:60000"),
    ("wallTime", "float", 1224589742536, "4.536"),
    ("PID", "int", 1224589742536, "20514"),
    ("userTime", "string", 1224589742536, "00:00.38"),
    ("systemTime", "string", 1224589742536, "00:00.00"),
    ("status", "string", 1224589742536, "R"),
    ("PID", "int", 1224589742536, "20526"),
    ("userTime", "string", 1224589742536, "0.34"),
    ("systemTime", "string", 1224589742536, "0"),
    ("status", "string", 1224589742536, "R"),
]
DOCUMENT = (
    f'<?xml version="1.0" encoding="UTF-8"?>\n<jobInfoList><jobInfo jobID="{ID}">'
    + "".join(METRIC.format(*row) for row in ROWS)
    + "</jobInfo></jobInfoList>"
)
# the sample of Table 3, with our id and a status word of ours
GOLDEN = """\
heat.42 @ 1224589742536 :
  jobId = heat.42
  status = running
  submitTime = Tue Oct 21 13:48:58 CEST 2008
  resourceID = XOSDHOST/192.168.0.101:60000
  PID = 20514
  userTime = 00:00.38
  systemTime = 00:00.00
  status = R
  PID = 20526
  userTime = 00:00.34
  systemTime = 00:00.00
  status = R"""


@pytest.fixture
def barcelona(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("barcelona")
def test_the_layout_of_the_paper():
    assert [xps_text(info, 0) for info in parse_jobinfo(DOCUMENT)] == [GOLDEN]
    assert date_text(1224589738000) == "Tue Oct 21 13:48:58 CEST 2008"


@pytest.mark.usefixtures("barcelona")
def test_colour_changes_nothing_but_the_colour():
    (info,) = parse_jobinfo(DOCUMENT)
    coloured = xps_text(info, 0, ansi=True)
    assert coloured.replace("\x1b[32m", "").replace("\x1b[0m", "") == GOLDEN
    assert "\x1b[32mrunning\x1b[0m" in coloured


def test_durations():
    assert [duration_text(s) for s in (0, 0.384, 61.5, 3661)] == [
        "00:00.00", "00:00.38", "01:01.50", "61:01.00",
    ]  # fmt: skip
    assert cpu_text(parse_jobinfo(DOCUMENT)[0]) == "00:00.72"


def test_a_job_without_metrics_still_has_a_head():
    (info,) = parse_jobinfo('<jobInfoList><jobInfo jobID="heat.1"/></jobInfoList>')
    assert xps_text(info, 17) == "heat.1 @ 17 :\n  jobId = heat.1"


def test_hostile_text_does_not_reach_the_terminal():
    document = DOCUMENT.replace("running", "run\x9b31mning")
    assert "\x9b" not in xps_text(parse_jobinfo(document)[0], 0, ansi=True)


@pytest.mark.parametrize(
    "document",
    ["", "<jobInfoList>", '<!DOCTYPE a [<!ENTITY b "c">]><jobInfoList>&b;</jobInfoList>'],
)
def test_what_is_no_jobinfo_is_refused(document):
    with pytest.raises(Corrupt):
        parse_jobinfo(document)
