"""The doctor's lines, its exit code, and how a CRIU log is read."""

import json

import pytest

from ckptfs.doctor.checks import Need
from ckptfs.doctor.command import main, render
from ckptfs.doctor.gate import Finding
from ckptfs.doctor.smoke import reason_in_log, try_criu

LOG = """\
Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.042) Error (criu/sockets.c:503): sockets: Can't get 1:16 opt: Operation not supported
(00.043) Error (criu/cr-dump.c:1545): Dump files (pid: 2) failed with -1
(00.044) Error (criu/cr-dump.c:1975): Dumping FAILED.
"""


def test_the_line_of_a_good_check():
    assert render(Finding("root", Need.MOUNT, "")) == "ok       root"


def test_the_line_of_a_bad_check_and_of_a_note():
    assert render(Finding("root", Need.MOUNT, "use sudo")) == "MISSING  root: use sudo"
    assert render(Finding("cap", Need.NOTE, "less well")) == "note     cap: less well"


def test_the_reason_is_the_line_that_tells_it():
    assert reason_in_log(LOG) == "sockets: Can't get 1:16 opt: Operation not supported"


@pytest.mark.parametrize("log", ["", "all is well\n", LOG.splitlines()[0]])
def test_a_log_without_a_reason(log):
    assert reason_in_log(log) == ""


@pytest.mark.slow
@pytest.mark.root
def test_a_criu_that_does_nothing_does_not_work():
    result = try_criu("/bin/true")
    assert not result.works
    assert result.reason


@pytest.mark.root
def test_a_criu_that_is_not_there_does_not_work():
    assert "does not start" in try_criu("/nonexistent/criu").reason


@pytest.mark.criu
def test_the_doctor_tries_criu_for_real(capsys):
    assert main(["--json"]) == 0
    findings = {f["name"]: f for f in map(json.loads, capsys.readouterr().out.splitlines())}
    assert findings["criu"] == {"name": "criu", "need": "checkpoint", "sentence": ""}
