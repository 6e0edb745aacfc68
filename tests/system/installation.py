"""A real daemon on a temporary store and mount, driven as a shell user would: echo, cat, poll.

Shared by the tests of programs and of faults.  Nothing of the daemon is
imported here but the renderer of JSDL: what is not in a file of the mount
cannot be seen.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ckptfs.jobs.jsdl_render import JobDescription, render_jsdl
from tests.plugins.whole import assert_whole

OWNER = 65534  # uid and gid of the jobs' owner
READY_S = 60.0
TIMEOUT_S = 30.0
TICK_S = 0.01  # between two looks at a file that nobody can poll


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Do what follows with the file system rights of *uid* (and the gid of the same number)."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def eventually(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = TIMEOUT_S,
    *,
    explain: Callable[[], str] = str,
) -> None:
    """Return once *condition* holds; for things that give no event, such as a growing file."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n{explain()}")
        time.sleep(TICK_S)


def write_control(path: Path, text: str, *, uid: int = OWNER) -> str:
    """``exec 3<>path; echo text >&3; read -u3 answer``: return the answer."""
    with acting_as(uid):
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.write(descriptor, f"{text}\n".encode())
            return os.pread(descriptor, 4096, 0).decode().rstrip("\n")
        finally:
            os.close(descriptor)


def refused_control(path: Path, text: str, *, uid: int = OWNER) -> tuple[int, str]:
    """Write a control file that must refuse; return the errno and the sentence read back."""
    with acting_as(uid):
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.write(descriptor, f"{text}\n".encode())
        except OSError as error:
            return error.errno or 0, os.pread(descriptor, 4096, 0).decode()
        finally:
            os.close(descriptor)
    raise AssertionError(f"{path} has taken {text!r}")


def wait_control(
    path: Path, wanted: Callable[[str], bool], timeout_s: float = TIMEOUT_S, *, uid: int = OWNER
) -> str:
    """Poll a control file until its content is *wanted*; return the content."""
    deadline = time.monotonic() + timeout_s
    with acting_as(uid):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLPRI | select.POLLERR)
            while not wanted(text := os.pread(descriptor, 4096, 0).decode().rstrip("\n")):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{path} still says {text!r} after {timeout_s:.0f} s"
                poller.poll(left_s * 1000)
            return text
        finally:
            os.close(descriptor)


@dataclass
class RunningJob:
    """One job: its directory in the mount, and its output file."""

    path: Path
    stdout: Path
    directory: Path  # it runs here

    @property
    def name(self) -> str:
        """Its id."""
        return self.path.name

    def control(self, name: str) -> Path:
        """Return the path of a control file."""
        return self.path / "ctl" / name

    def read(self, name: str) -> str:
        """``cat ctl/name``, as root."""
        return self.control(name).read_text().rstrip("\n")

    def write(self, name: str, text: str, **how: int) -> str:
        """Write a control file; return the answer."""
        return write_control(self.control(name), text, **how)

    def wait(self, name: str, wanted: Callable[[str], bool], timeout_s: float = TIMEOUT_S) -> str:
        """Poll a control file."""
        return wait_control(self.control(name), wanted, timeout_s)

    def checkpoint(self) -> int:
        """Take a version and wait until it is complete; return its number."""
        version = int(self.write("checkpoint", "1"))
        outcome = self.wait("checkpoint", lambda text: "saving" not in text)
        assert outcome == f"{version} complete", outcome
        state = self.wait("state", lambda text: text != "checkpointing")
        assert state == "running", self.read("error")
        return version

    def restart(self, version: int | str) -> None:
        """Restart a version by echoing into the job's own file, and wait until it runs."""
        self.write("restart", str(version))
        self.wait_restarted()

    def wait_restarted(self) -> None:
        """Wait for the end of a restart that has been asked for."""
        text = self.wait("restart", lambda text: "rebuilding" not in text)
        assert text.endswith(" running"), text

    def kill(self) -> None:
        """Kill it and wait until it is gone."""
        self.write("kill", "1")
        self.wait("state", lambda text: text not in {"running", "checkpointing"})

    def output(self) -> bytes:
        """Return what it has printed."""
        return self.stdout.read_bytes() if self.stdout.exists() else b""

    def describe(self) -> str:
        """Return all that may explain why it does not do what it should."""
        names = ("state", "checkpoint", "restart", "exit_status", "error", "units")
        shown = [f"{name}: {self.read(name)}" for name in names]
        files = sorted(f"{f.name} {f.stat().st_size}" for f in self.directory.iterdir())
        errors = (self.directory / "err").read_text(errors="replace")[-2000:]
        return "\n".join([*shown, *files, f"err: {errors}", f"out: {self.output()[-200:]!r}"])

    def root_pid(self) -> int:
        """Return the host pid of the unit's root process, 0 when none."""
        words = dict(word.split("=", 1) for word in self.read("units").split()[1:])
        return int(words["pid"])


def inner_pid(pid: int) -> int:
    """Return the pid of process *pid* in its own pid namespace."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


@dataclass
class Installation:
    """A store, a mount point and the daemon between them, in a temporary directory."""

    top: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    program: Sequence[str] = ("-m", "ckptfs.daemon")  # what Python is told to run
    daemon: subprocess.Popen[bytes] | None = None
    jobs: list[RunningJob] = field(default_factory=list[RunningJob])
    is_wrong: str = ""  # why ``ckptfs check`` complains about the store in the end, on purpose

    @property
    def store(self) -> Path:
        """The store directory."""
        return self.top / "store"

    @property
    def mount(self) -> Path:
        """The mount point."""
        return self.top / "mount"

    def start(self) -> None:
        """Start the daemon and return when it is ready."""
        self.mount_point_free()
        reader, writer = os.pipe()
        with open(self.top / "daemon.log", "ab") as log:
            self.daemon = subprocess.Popen(
                [
                    *(sys.executable, *self.program, "--ready-fd", str(writer)),
                    *("--store", str(self.store), str(self.mount)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                env={**os.environ, **self.environment},
            )
        os.close(writer)
        with open(reader, "rb", buffering=0) as ready:
            answered, _, _ = select.select([ready], [], [], READY_S)
            assert answered, "the daemon did not become ready"
            assert ready.read(64), f"the daemon has ended: {self.log()[-2000:]}"

    def mount_point_free(self) -> None:
        """Make the mount point; a mount whose daemon was killed is left for the new one to mend."""
        with contextlib.suppress(FileExistsError, OSError):
            self.mount.mkdir(parents=True)

    def log(self) -> str:
        """Return what the daemon has printed and logged."""
        files = (self.top / "daemon.log", self.store / "daemon.log")
        return "".join(f.read_text(errors="replace") for f in files if f.exists())

    def taken_bytes(self) -> int:
        """Return how much the daemon has read: images, out of pipes or out of the mount's requests.

        Nothing else that it reads in a checkpoint comes near a MiB.
        """
        assert self.daemon is not None
        text = Path(f"/proc/{self.daemon.pid}/io").read_text()
        return int(text.split()[1])  # rchar

    def kill_daemon(self) -> None:
        """SIGKILL: no chance to clean up."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(TIMEOUT_S)
        self.daemon = None

    def stop_daemon(self) -> None:
        """End the daemon the polite way: it unmounts; jobs go on."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(TIMEOUT_S)
            self.daemon = None

    def submit(self, description: JobDescription, directory: Path) -> RunningJob:
        """Submit as root for the owner, through spool and ctl/submit."""
        spooled = self.mount / "ctl/spool" / f"{description.name}-{len(self.jobs)}.jsdl"
        spooled.write_text(render_jsdl(description))
        job = write_control(self.mount / "ctl/submit", spooled.name, uid=0)
        spooled.unlink()
        running = RunningJob(self.mount / job, Path(description.stdout), directory)
        self.jobs.append(running)
        return running

    def job_directory(self, name: str) -> Path:
        """Make a directory that belongs to the jobs' owner."""
        directory = self.top / "work" / f"{name}-{len(self.jobs)}"
        directory.mkdir(parents=True)
        os.chown(directory, OWNER, OWNER)
        return directory

    def run(self, *argv: str, name: str = "job", directory: Path | None = None) -> RunningJob:
        """Run a command as the owner, stdout and stderr into files of its directory."""
        directory = directory or self.job_directory(name)
        description = JobDescription(
            name=name,
            argv=argv,
            cwd=str(directory),
            user=str(OWNER),
            stdout=str(directory / "out"),
            stderr=str(directory / "err"),
        )
        return self.submit(description, directory)

    def end(self) -> None:
        """Kill the jobs, end the daemon, unmount.  Also after a failure, whatever still stands."""
        try:
            if self.daemon is None or self.daemon.poll() is not None:
                self.start()
            for job in self.jobs:
                with contextlib.suppress(OSError, AssertionError):
                    job.write("kill", "1", uid=0)
                    job.wait(
                        "state", lambda text: not text.startswith(("running", "check", "rest"))
                    )
        finally:
            self._end_hard()
        if not self.is_wrong:
            assert_whole(self.top)

    def _end_hard(self) -> None:
        try:
            self.stop_daemon()
        except subprocess.TimeoutExpired:
            self.kill_daemon()
        if os.path.ismount(self.mount):
            subprocess.run(["umount", "--lazy", str(self.mount)], check=False, timeout=TIMEOUT_S)


@contextlib.contextmanager
def running(top: Path) -> Iterator[Installation]:
    """Run a daemon on a fresh store below *top*; take everything away at the end."""
    top.chmod(0o755)
    made = Installation(top)
    try:
        made.start()
        yield made
    finally:
        made.end()
