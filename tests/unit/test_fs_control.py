"""The formats of control files, and the commands written to them."""

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import CkptfsError, InvalidInput, NotFound, OutOfRange, TooLong
from ckptfs.fs import control, requests
from ckptfs.fs.documents import clock_text
from ckptfs.fs.handles import ANSWER_MAX, clip
from ckptfs.fs.interface import JOB_FILES, SERVICE_FILES, VERSION_FILES
from ckptfs.fs.mountinfo import find_mount, parse_mountinfo


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"1\n", "1"), (b"1", "1"), (b" 7  as=clone \n", "7  as=clone"), ("é\n".encode(), "é")],
)
def test_one_write_is_one_command(data, text):
    assert control.parse_command(data) == text


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidInput),
        (b"\n", InvalidInput),
        (b"   \n", InvalidInput),
        (b"1\n1\n", InvalidInput),
        (b"1\n\n", InvalidInput),
        (b"\xff", InvalidInput),
        (b"1\0", InvalidInput),
        (b"\x1b[2J", InvalidInput),
        (b"x" * 4097, TooLong),
    ],
)
def test_what_is_no_command(data, error):
    with pytest.raises(error):
        control.parse_command(data)


def test_the_longest_command():
    assert len(control.parse_command(b"x" * 4096)) == 4096


@pytest.mark.parametrize("text", ["", "x", "1x", "--1", "1.5", "٣", "1 2"])
def test_no_number(text):
    with pytest.raises(InvalidInput) as info:
        control.parse_count(text, low=0, high=9)
    assert not isinstance(info.value, OutOfRange)


@pytest.mark.parametrize("text", ["10", "-1", "9" * 4000])
def test_out_of_range(text):
    with pytest.raises(OutOfRange):
        control.parse_count(text, low=0, high=9)


def test_the_four_formats():
    assert control.render_flat({"a": 1, "b": "x"}) == "a 1\nb x\n"
    assert control.render_nested({"n1": {"state": "up", "why": "not installed\nat all"}}) == (
        "n1 state=up why=not_installed_at_all\n"
    )
    assert control.render_list(["one", "two\nlines"]) == "one\ntwo lines\n"
    assert control.render_choice(["a", "b"], "b") == "a [b]\n"


@pytest.mark.parametrize(
    ("text", "keep", "note"),
    [
        ("1", False, ""),
        ("keep=yes", True, ""),
        ("note=x=y keep=no", False, "x=y"),
        ("incremental=yes", False, ""),  # what every version is
    ],
)
def test_checkpoint_requests(text, keep, note):
    request = requests.parse_checkpoint(text)
    assert (request.keep, request.note) == (keep, note)


@pytest.mark.parametrize(
    "text", ["2", "keep=maybe", "incremental=maybe", "keep=yes keep=yes", "note=", "x=1", "1 1"]
)
def test_no_checkpoint_request(text):
    with pytest.raises(InvalidInput):
        requests.parse_checkpoint(text)


def test_restart_requests():
    assert requests.parse_restart("latest").version is None
    assert requests.parse_restart("7").version == 7
    request = requests.parse_restart("7 as=clone stopped=yes JobUnit_2=n3")
    assert (request.as_clone, request.stopped) == (True, True)
    assert request.placement == {"JobUnit_2": "n3"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0", NotFound),
        ("9" * 30, NotFound),
        ("-1", InvalidInput),
        ("seven", InvalidInput),
        ("7 as=copy", InvalidInput),
        ("7 JobUnit_x=n", InvalidInput),
        ("7 JobUnit_1=", InvalidInput),
        ("7 JobUnit_1=a JobUnit_1=b", InvalidInput),
    ],
)
def test_no_restart_request(text, error):
    with pytest.raises(error):
        requests.parse_restart(text)


def test_signal_requests():
    assert requests.parse_signal("15").number == 15
    assert requests.parse_signal("TERM").number == 15
    assert requests.parse_signal("SIGUSR1").number == 10
    assert requests.parse_signal("64").number == 64
    assert requests.parse_signal("9 only=1,2").only == (1, 2)
    assert requests.parse_signal("9 except=3").others == (3,)
    assert requests.parse_signal("9 master").master


@pytest.mark.parametrize("text", ["9 only=1 except=2", "9 x", "9 only=", "TERMINATE", "9 only=a"])
def test_no_signal_request(text):
    with pytest.raises(InvalidInput):
        requests.parse_signal(text)


@pytest.mark.parametrize("text", ["0", "65", "9 only=0", "9 only=" + "1," * 1024 + "1"])
def test_signal_out_of_range(text):
    with pytest.raises(OutOfRange):
        requests.parse_signal(text)


@given(st.text(alphabet=string.printable, max_size=60))
def test_parsers_refuse_with_our_own_errors_alone(text):
    for parse in (
        requests.parse_checkpoint,
        requests.parse_restart,
        requests.parse_signal,
        requests.parse_replication,
        requests.parse_retention,
        requests.parse_volume,
    ):
        with contextlib.suppress(CkptfsError):
            parse(control.parse_command(text.encode()))


SERVED = {
    "service": "version health checkpointers nodes submit volumes degraded scrub gc undelete space"
    " quota stat events metrics",
    "job": "state checkpoint restart suspend resume kill signal protocol retention undelete"
    " replication units versions exit_status blockers stat events error stdout stderr jsdl"
    " jobinfo.xml",
    "version": "state restart pin verify stat",
}


def test_the_tables_hold_what_is_served():
    tables = {"service": SERVICE_FILES, "job": JOB_FILES, "version": VERSION_FILES}
    assert {name: " ".join(table) for name, table in tables.items()} == SERVED


@pytest.mark.parametrize("table", [SERVICE_FILES, JOB_FILES, VERSION_FILES])
def test_every_row_is_described_and_its_mode_says_what_it_does(table):
    for row in table.values():
        assert row.doc.endswith(".")
        assert row.example.startswith(("$ ", "# "))
        assert bool(row.mode & 0o222) == (row.store is not None)
        assert row.mode & 0o400


def test_clock_text():
    assert clock_text(0) == "00:00.00"
    assert clock_text(61.239) == "01:01.24"
    assert clock_text(3600) == "60:00.00"


def test_mountinfo():
    text = (
        "22 1 0:21 / /proc rw shared:1 - proc proc rw\n"
        "30 1 0:40 / /mnt/a\\040b rw - fuse.ckptfs ckptfs rw\n"
        "31 1 0:41 / /mnt/a\\040b rw - tmpfs tmpfs rw\n"
        "garbage\n"
    )
    mounts = parse_mountinfo(text)
    assert len(mounts) == 3
    found = find_mount(mounts, "/mnt/a b")
    assert found is not None
    assert (found.device, found.type) == ("0:41", "tmpfs")
    assert find_mount(mounts, "/nowhere") is None


def test_a_refusal_that_quotes_too_much_is_clipped():
    assert clip("no") == "no"
    long = f"a path: {'x' * 9000}: is too long"
    assert len(clip(long)) <= ANSWER_MAX
    assert clip(long).startswith("a path: x")
    assert clip(long).endswith("x: is too long")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("add /mnt/b", requests.VolumeRequest("add", "/mnt/b")),
        ("add domain=rack /mnt/a b", requests.VolumeRequest("add", "/mnt/a b", "rack")),
        ("b drain", requests.VolumeRequest("drain", "b")),
        ("b rm", requests.VolumeRequest("rm", "b")),
    ],
)
def test_volume_commands(text, wanted):
    assert requests.parse_volume(text) == wanted


@pytest.mark.parametrize("text", ["add", "add domain=x", "b", "b explode", "drain b c"])
def test_volume_commands_that_are_none(text):
    with pytest.raises(InvalidInput):
        requests.parse_volume(text)


@pytest.mark.parametrize(
    ("text", "domain", "seal"),
    [
        ("add seal=encrypt /mnt/a b", "", "encrypt"),
        ("add domain=r2 seal=compress /mnt/a b", "r2", "compress"),
        ("add seal=compress domain=r2 /mnt/a b", "r2", "compress"),
    ],
)
def test_how_copies_are_kept_comes_before_the_directory(text, domain, seal):
    assert requests.parse_volume(text) == requests.VolumeRequest("add", "/mnt/a b", domain, seal)


def test_copies_wanted_and_waited_for():
    assert requests.parse_replication("2") == (2, None)
    assert requests.parse_replication("3 min=2") == (3, 2)
    for bad in ("0", "17", "3 min=17", "3 min=x", "3 most=2", "many"):
        with pytest.raises((InvalidInput, OutOfRange)):
            requests.parse_replication(bad)
