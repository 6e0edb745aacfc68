"""What is read out of CRIU's logs, versions and images, without CRIU."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import CheckpointerFailed, Corrupt
from ckptfs.translib import criu_images
from ckptfs.translib.criu_log import error_lines, reason, translate
from ckptfs.translib.criu_words import needed_version, parse_version

RLIMIT = (
    "(00.000012) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: "
    "Operation not permitted"
)
FAILED = "(00.1) Error (criu/cr-dump.c:2098): Dumping FAILED."


def log(*lines: str) -> str:
    return "\n".join([RLIMIT, *lines, FAILED])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "Error (criu/sk-unix.c:880): unix: Can't dump half of stream unix connection.",
            "connected through a unix socket to a process outside",
        ),
        (
            "Error (criu/files-reg.c:2212): File tmp/out has bad size 120 (expect 80)",
            "the file tmp/out is 120 bytes long, 80 when the checkpoint was taken",
        ),
        (
            "Error (criu/files-reg.c:2260): Can't open file tmp/gone on restore: No such file",
            "the file tmp/gone, which the job had open, cannot be opened",
        ),
        ("Error (criu/cr-restore.c:1): Can't fork for 1000: File exists", "number 1000 is taken"),
        (
            "Error (criu/files-reg.c:1): Can't dump ghost file /x of 2097152 size, increase limit",
            "the unlinked file /x holds 2097152 bytes",
        ),
        ("Error (criu/image.c:1): write: No space left on device", "no space is left"),
        ("Error (criu/tty.c:5): tty: Found dangling tty with sid 1", "a terminal open"),
    ],
)
def test_reason_is_a_sentence(line, words):
    assert words in reason(log(line), "", 1)


def test_harmless_lines_are_never_the_reason():
    assert error_lines(log()) == ()
    assert "RLIMIT" not in reason(log(), "criu: something", 1)


def test_scripts_are_no_terminals():
    line = "One of more action scripts failed"
    assert translate(line) == line


def test_the_cause_is_preferred_to_what_follows():
    text = log(
        "Error (criu/sk-unix.c:880): unix: Can't dump half of stream unix connection.",
        "Error (criu/cr-dump.c:1): Dump files (pid: 5 [1000]) failed with -1",
    )
    assert "unix socket" in reason(text, "", 1)


def test_unknown_errors_are_passed_on():
    text = log("Error (criu/new.c:1): something nobody has seen")
    assert reason(text, "", 1) == "something nobody has seen"


def test_killed_and_silent():
    assert reason("", "", -9) == "the checkpointer was killed by signal 9"
    assert "status 3" in reason("", "", 3)
    assert reason("", "first\nlast words\n", 1) == "last words"


@given(st.text(), st.text(), st.integers(-64, 255))
def test_any_log_gives_one_line(text, output, status):
    found = reason(text, output, status)
    assert found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Version: 4.2.1\n", (4, 2, 1)),
        ("Version: 4.1\nGitID: x", (4, 1, 0)),
        ("criu: not found", None),
    ],
)
def test_version(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("kernel", "needs"),
    [
        ("6.18.44-fc-v595", (4, 2)),
        ("6.16", (4, 2)),
        ("6.13.2-amd64", (4, 1)),
        ("6.1.0-28", (3, 17)),
        ("strange", (3, 17)),
    ],
)
def test_needed_version(kernel, needs):
    assert needed_version(kernel) == needs


# -- images --------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def core(uids: tuple[int, int, int, int], *, zombie: bool = False) -> bytes:
    creds = message(*((n, uid) for n, uid in zip((1, 3, 5, 7), uids, strict=True)), (2, 5))
    thread = message((1, 1 << 40), *([] if zombie else [(10, creds)]))
    entry = message((1, 1), (2, b"regs"), *([] if zombie else [(5, thread)]))
    return struct.pack("<III", 1, 2, len(entry)) + entry


def test_uids_of_a_core():
    assert criu_images.core_uids(core((65534, 0, 65534, 7))) == {65534, 0, 7}
    assert criu_images.core_uids(core((1, 1, 1, 1), zombie=True)) == frozenset()


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_corrupt(data):
    try:
        criu_images.core_uids(data)
    except Corrupt:
        return


@given(st.integers(0, 60))
def test_a_cut_core_is_corrupt(size):
    whole = core((1, 1, 1, 1))
    with pytest.raises(Corrupt):
        criu_images.core_uids(whole[: min(size, len(whole) - 1)])


def test_uids_of_an_image(tmp_path):
    import os

    (tmp_path / "core-1000.img").write_bytes(core((5, 5, 5, 5)))
    (tmp_path / "core-1001.img").write_bytes(core((6, 5, 5, 5)))
    (tmp_path / "core-x.img").write_bytes(b"not one")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert criu_images.image_uids(fd) == {5, 6}
    finally:
        os.close(fd)


def test_missing_and_empty_images(tmp_path):
    import os

    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for name in ("inventory.img", "pstree.img", "files.img", "core-1000.img"):
            with pytest.raises(CheckpointerFailed, match=name):
                criu_images.require_images(fd, (1000,))
            (tmp_path / name).write_bytes(b"x")
        criu_images.require_images(fd, (1000,))
        (tmp_path / "files.img").write_bytes(b"")
        with pytest.raises(CheckpointerFailed, match=r"files\.img empty"):
            criu_images.require_images(fd, (1000,))
        (tmp_path / "core-1000.img").unlink()
        with pytest.raises(Corrupt):
            criu_images.image_uids(fd)
    finally:
        os.close(fd)
