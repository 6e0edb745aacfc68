"""``ckptfs mount`` and ``umount`` without FUSE: the daemon they start, wait for, end and find."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptfs.cli.commands import mount as mount_command
from ckptfs.cli.commands.mount import daemon_command, start_detached
from ckptfs.cli.commands.umount import store_served
from ckptfs.cli.main import main
from ckptfs.errors import CannotRun


def run(capsys, *argv: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of ``ckptfs argv``."""
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_daemon_is_started_and_found_by_the_same_words():
    command = daemon_command(Path("/s"), Path("/ckpt"), hide_jobs=True, ready_fd=5)
    assert command[1:4] == ["-P", "-m", "ckptfs.daemon"]
    assert command[4:] == ["--store", "/s", "--hide-jobs", "--ready-fd", "5", "/ckpt"]
    assert store_served(command, "/ckpt") == "/s"
    assert store_served(command, "/ckp") == ""
    assert store_served(["grep", "ckptfs.daemon"], "/ckpt") == ""


@pytest.mark.parametrize("words", ["ckptfs: no /dev/fuse here: load the module fuse", ""])
def test_a_daemon_that_ends_is_quoted(words):
    script = f"import sys; print({words!r}, file=sys.stderr); sys.exit(12)"
    with pytest.raises(CannotRun, match="no /dev/fuse" if words else "ended with 12"):
        start_detached(lambda _: [sys.executable, "-c", script], Path("/s"))


def test_a_daemon_that_is_ready_is_left_alone():
    script = "import os, sys; os.write(int(sys.argv[1]), b'ready\\n')"
    start_detached(lambda fd: [sys.executable, "-c", script, str(fd)], Path("/s"))


@pytest.fixture
def heard():
    """SIGHUP is not ignored, as it is under nohup: what is ignored stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_mount_that_is_interrupted_ends_its_daemon(tmp_path, capsys, monkeypatch, number):
    daemons: list[subprocess.Popen[bytes]] = []
    wait, end = mount_command._wait_ready, mount_command._end

    def interrupted(ready):
        signal.raise_signal(number)
        return wait(ready)

    def noted(process):
        daemons.append(process)
        end(process)

    silent = [sys.executable, "-c", "import signal; signal.pause()"]  # never ready
    monkeypatch.setattr(mount_command, "daemon_command", lambda *_, **__: silent)
    monkeypatch.setattr(mount_command, "_wait_ready", interrupted)
    monkeypatch.setattr(mount_command, "_end", noted)
    code, _, err = run(capsys, "mount", "--store", str(tmp_path / "s"), str(tmp_path / "ckpt"))
    assert (code, [daemon.returncode for daemon in daemons]) == (130, [-signal.SIGTERM])
    assert "nothing has been mounted" in err
    assert not (tmp_path / "ckpt").exists()


def test_a_mount_point_in_nowhere_is_refused(tmp_path, capsys):
    code, _, err = run(capsys, "mount", str(tmp_path / "a" / "b"))
    assert code == 3
    assert "make it first" in err


def test_unmounting_what_is_not_mounted_is_refused(tmp_path, capsys):
    code, _, err = run(capsys, "umount", str(tmp_path))
    assert code == 3
    assert "no ckptfs is mounted" in err
