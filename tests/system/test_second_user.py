"""A second user tries everything on the first user's job: denied, and the job never notices."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptfs.jobs.jsdl_render import JobDescription, render_jsdl
from tests.programs.oracles import complaints, last_step
from tests.programs.table import PYTHON

from .installation import OWNER, RunningJob, acting_as, eventually, write_control
from .watch import UnitWatch

pytestmark = [pytest.mark.fuse, pytest.mark.criu]

OTHER = 65533
STEPS = 1_000_000
DENIED = {errno.EACCES, errno.EPERM}
COMMANDS = ("1", "latest", "1 as=clone", "15", "keep_last 1", "0", "nonsense", "x" * 5000)


@pytest.fixture(scope="module")
def job(installation):
    """A job of the first user's, with a version."""
    directory = installation.job_directory("counter")
    shutil.copy(Path(__file__).parents[1] / "programs/counter.py", directory)
    (directory / "counter.py").chmod(0o644)
    words = (PYTHON, "counter.py", str(STEPS), "0.02")
    made = installation.run(*words, name="counter", directory=directory)
    eventually(lambda: last_step(made.output()) >= 1, "the first step")
    made.checkpoint()
    return made


def everything(top: Path) -> Iterator[Path]:
    """All paths below *top*, as root sees them."""
    for directory, names, files in os.walk(top):
        yield Path(directory)
        for name in (*names, *files):
            yield Path(directory, name)


def open_and_write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "list": os.listdir,
    "read": lambda path: path.read_bytes(),
    "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "write": lambda path: open_and_write(path, "1\n"),
    "truncate": lambda path: os.truncate(path, 0),
    "remove": os.unlink,
    "rmdir": os.rmdir,
    "rename": lambda path: os.rename(path, path.with_name("stolen")),
    "create": lambda path: (path / "new").touch(),
    "mkdir": lambda path: os.mkdir(path / "new"),
    "chmod": lambda path: os.chmod(path, 0o777, follow_symlinks=True),
    "chown": lambda path: os.chown(path, OTHER, OTHER),
    "utime": lambda path: os.utime(path, (0, 0)),
    "link": lambda path: os.link(path, path.with_name("link")),
    "symlink": lambda path: os.symlink("/etc/passwd", path / "link"),
    "setxattr": lambda path: os.setxattr(path, "user.mine", b"1"),
    "enter": os.chdir,
}
# the directory itself may be looked at from outside: its name is no secret
HARMLESS = {errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.ENOTSUP, errno.EROFS, errno.EXDEV}


def snapshot(job: RunningJob) -> dict[str, str]:
    """Return what would show that somebody has touched the job."""
    shown = {name: job.read(name) for name in ("state", "events", "stat", "units", "checkpoint")}
    versions = sorted(name for name in os.listdir(job.path) if name.isdecimal())
    return {**shown, "versions": " ".join(versions), "retention": job.read("retention")}


@pytest.fixture
def untouched(job):
    """The job is the same after the test, and has gone on all the time."""
    before, watch = snapshot(job), UnitWatch.of(job.root_pid())
    step = last_step(job.output())
    yield job
    assert snapshot(job) == before
    assert not watch.is_frozen()
    eventually(lambda: last_step(job.output()) > step, "the job goes on", 2.0)
    assert complaints("counter", STEPS, {"": job.output()}, finished=False) == []


@pytest.mark.parametrize("attempt", list(ATTEMPTS))
def test_every_path_of_the_job_is_closed(untouched, attempt):
    paths = list(everything(untouched.path))
    assert untouched.control("kill") in paths
    came_through = []
    here = os.getcwd()
    with acting_as(OTHER):
        for path in paths:
            try:
                ATTEMPTS[attempt](path)
            except OSError as error:
                if error.errno in DENIED or (path == untouched.path and error.errno in HARMLESS):
                    continue
                came_through.append((path, error))
            else:
                came_through.append((path, None))
    os.chdir(here)
    assert came_through == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: text[:12].replace(" ", "_"))
def test_every_command_is_denied(untouched, command):
    controls = [path for path in everything(untouched.path) if path.parent.name == "ctl"]
    assert len(controls) > 20
    for path in controls:
        with pytest.raises(PermissionError):
            write_control(path, command, uid=OTHER)


def test_nobody_submits_for_somebody_else(untouched, installation):
    spool = installation.mount / "ctl/spool"
    description = JobDescription(
        name="stolen", argv=("/bin/true",), cwd="/", user=str(OWNER), stdout="/dev/null"
    )
    with acting_as(OTHER):
        (spool / "mine.jsdl").write_text(render_jsdl(description))
    with pytest.raises(PermissionError):
        write_control(installation.mount / "ctl/submit", "mine.jsdl", uid=OTHER)
    with acting_as(OWNER):
        (spool / "his.jsdl").touch(mode=0o600)
        (spool / "his.jsdl").write_text(render_jsdl(description))
    with pytest.raises(PermissionError):
        write_control(installation.mount / "ctl/submit", "his.jsdl", uid=OTHER)
    with acting_as(OTHER), pytest.raises(PermissionError):
        (spool / "his.jsdl").read_text()
    with acting_as(OTHER), pytest.raises(PermissionError):
        (spool / "his.jsdl").unlink()
    assert not [name for name in os.listdir(installation.mount) if name.startswith("stolen")]


def test_beside_the_mount_is_closed_too(untouched, installation):
    """The store, the supervisor's socket, the processes and the cgroup."""
    watch = UnitWatch.of(untouched.root_pid())
    sockets = list(Path("/run/ckptfs").glob("*/*/sock"))
    assert sockets
    outputs = list((installation.store / "jobs").rglob("*"))
    assert outputs
    with acting_as(OTHER):
        for path in sockets:
            with socket.socket(socket.AF_UNIX) as client, pytest.raises(PermissionError):
                client.connect(str(path))
        for path in outputs:
            with pytest.raises(PermissionError):
                os.close(os.open(path, os.O_RDONLY))
        for name in ("cgroup.freeze", "cgroup.kill", "cgroup.procs"):
            with pytest.raises(PermissionError):
                (watch.cgroup / name).write_text("1")
    # not by os.kill: this process is still root by its real uid
    for pid in (watch.root, watch.supervisor):
        words = ["kill", str(pid)]
        killed = subprocess.run(
            words, user=OTHER, group=OTHER, extra_groups=[], capture_output=True
        )
        assert killed.returncode != 0
