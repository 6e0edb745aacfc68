"""The pure parts of the commands: names, requests, variables, tables."""

from __future__ import annotations

import pytest

from ckptfs.cli.commands.checkpoint import request_text as checkpoint_request
from ckptfs.cli.commands.restart import request_text as restart_request
from ckptfs.cli.commands.run import default_name, parse_limits
from ckptfs.cli.commands.signal import request_text as signal_request
from ckptfs.cli.environment import exported, parse_assignments
from ckptfs.cli.tables import age_text, printable, size_text, table_text
from ckptfs.errors import CkptfsError


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("/usr/bin/python3.11", "python3.11"),
        ("./a b*c", "a_b_c"),
        ("...", "job"),
        ("latest", "job"),
        ("x" * 200, "x" * 64),
    ],
)
def test_a_name_is_made_of_any_program(program, name):
    assert default_name(program) == name


def test_requests():
    assert checkpoint_request(keep=False, note="") == "1"
    assert checkpoint_request(keep=True, note="before refactor") == "keep=yes note=before_refactor"
    assert restart_request("7", clone=True, stopped=True) == "7 as=clone stopped=yes"
    assert signal_request("sigterm") == "TERM"
    assert signal_request("15", only="1,2") == "15 only=1,2"
    assert signal_request("USR1", master=True) == "USR1 master"


@pytest.mark.parametrize(
    "refused",
    [
        lambda: checkpoint_request(keep=False, note="a\x1bb"),
        lambda: checkpoint_request(keep=False, note="   "),
        lambda: restart_request("7 as=clone", clone=False, stopped=False),
        lambda: restart_request("../7", clone=False, stopped=False),
        lambda: signal_request("15 master"),
        lambda: signal_request("15", only="1;2"),
        lambda: parse_limits(["nofile=many"]),
        lambda: parse_limits(["nofile"]),
        lambda: parse_assignments(["=x"]),
    ],
)
def test_requests_that_would_smuggle_words_are_refused(refused):
    with pytest.raises(CkptfsError):
        refused()


def test_session_things_stay_behind():
    kept, unsaid = exported(
        {
            "PATH": "/bin",
            "HOME": "/root",
            "SSH_AUTH_SOCK": "/x",
            "XDG_RUNTIME_DIR": "/x",
            "DISPLAY": ":0",
            "TERM": "xterm",
            "CKPTFS_MOUNT": "/ckpt",
            "LESS_TERMCAP_mb": "\x1b[31m",
        }
    )
    assert kept == {"PATH": "/bin", "HOME": "/root"}
    assert unsaid == ["LESS_TERMCAP_mb"]


def test_sizes_ages_and_tables():
    assert [size_text(n) for n in (0, 1023, 1536, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [age_text(s) for s in (-1, 59, 60, 7200, 200000)] == ["0s", "59s", "1m", "2h", "2d"]
    assert table_text(("A", "B"), [("xx", "y")]) == "A   B\nxx  y"
    assert table_text(("A",), [("x" * 99,)]).endswith("x" * 49 + "…")
    assert printable("a\x1b[31m\n\udce9") == "a\\x1b[31m\\n\\udce9"
