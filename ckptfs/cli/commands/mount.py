"""``ckptfs mount``: start the service of a store at a mount point."""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ...errors import CannotRun, InvalidInput, NotADirectory, NotFound
from ..entry import warn

EXAMPLES = """\
sudo ckptfs mount /ckpt
sudo ckptfs mount --store /srv/ckptfs /ckpt
sudo ckptfs mount --foreground /ckpt
"""

DEFAULT_STORE = "/var/lib/ckptfs"
# Opening a store reads its heads and finds the jobs again; a CRIU that is
# tried first takes seconds.  After this long somebody should look.
READY_TIMEOUT_S = 120.0
ENDED_TIMEOUT_S = 30.0  # a service that is told to end before it was ready
SENTENCES_MAX = 4096  # bytes of the daemon's last words shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--store", default=DEFAULT_STORE, metavar="DIR", help="the store (default: %(default)s)")
    add("--foreground", action="store_true", help="stay, log to stderr, unmount at Ctrl-C")
    add("--hide-jobs", action="store_true", help="leave the jobs of others out of ls")
    add("mountpoint", metavar="MOUNTPOINT", help="a directory; made if its parent exists")


def daemon_command(
    store: Path, mountpoint: Path, *, hide_jobs: bool, ready_fd: int | None = None
) -> list[str]:
    """Return the argv of the daemon.  Pure.

    ``-P`` keeps modules that lie about in the current directory out: this runs as root.
    """
    options = ["--store", str(store)] + ["--hide-jobs"] * hide_jobs
    if ready_fd is not None:
        options += ["--ready-fd", str(ready_fd)]
    return [sys.executable, "-P", "-m", "ckptfs.daemon", *options, str(mountpoint)]


def daemon_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the daemon's variables: it must find the very package that starts it.  Pure."""
    package = Path(__file__).resolve().parents[3]
    return {**environment, "PYTHONPATH": str(package)}


def prepare_mountpoint(mountpoint: Path) -> bool:
    """Make the mount point where only the last component is missing; return whether it was made.

    Raises NotFound, NotADirectory, CannotRun.
    """
    try:
        os.mkdir(mountpoint)
    except FileNotFoundError as error:
        raise NotFound(f"{mountpoint.parent} does not exist: make it first") from error
    except FileExistsError as error:
        # a mount whose service has ended is no directory either; the daemon mends that
        if os.path.isfile(mountpoint):
            raise NotADirectory(f"{mountpoint} is not a directory") from error
    except OSError as error:
        root = "" if os.geteuid() == 0 else "; mounting takes root: use sudo"
        raise CannotRun(f"{mountpoint}: {(error.strerror or '').lower()}{root}") from error
    else:
        return True
    return False


def run(args: argparse.Namespace) -> int:
    """Start the daemon and return when the mount serves."""
    if not args.store or not args.mountpoint:
        raise InvalidInput("an empty name is no directory")  # it would stand for this one
    store, mountpoint = (Path(os.path.realpath(path)) for path in (args.store, args.mountpoint))
    is_new = prepare_mountpoint(mountpoint)
    if args.foreground:
        command = daemon_command(store, mountpoint, hide_jobs=args.hide_jobs)
        os.execve(command[0], command, daemon_environment(os.environ))

    def command_with(ready_fd: int) -> list[str]:
        return daemon_command(store, mountpoint, hide_jobs=args.hide_jobs, ready_fd=ready_fd)

    try:
        with ended_like_ctrl_c():
            start_detached(command_with, store)
    except (CannotRun, KeyboardInterrupt) as error:
        if is_new:
            with suppress(OSError):
                mountpoint.rmdir()
        if isinstance(error, KeyboardInterrupt):
            warn("interrupted; nothing has been mounted")
        raise
    warn(f"{store} is mounted at {mountpoint}; unmount with: ckptfs umount {mountpoint}")
    return 0


@contextmanager
def ended_like_ctrl_c() -> Generator[None]:
    """Have SIGTERM, and the SIGHUP of a terminal that is closed, clean up as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # nohup(1) means it
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def start_detached(command: Callable[[int], list[str]], store: Path) -> None:
    """Start *command* (of the readiness descriptor) in a new session and wait until it is ready.

    Raises CannotRun with its last words when it ends instead.  One that is not ready in time, or
    no longer waited for, is ended: a mount must not appear behind somebody's back.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as words, os.fdopen(reader, "rb", buffering=0) as ready:
        try:
            process = subprocess.Popen(
                command(writer),
                env=daemon_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                cwd="/",
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        try:
            said = _wait_ready(ready)
        except BaseException:
            _end(process)
            raise
        if said:
            process.returncode = 0  # it lives on: Popen must not complain that nobody waited
            return
        code = process.wait()
        raise CannotRun(_last_words(words) or f"the service ended with {code}; see {store}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Tell the daemon to end, and return when it has, or when it takes too long."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDED_TIMEOUT_S)


def _wait_ready(ready: IO[bytes]) -> bytes:
    """Return what the daemon writes when it is ready; nothing when it has ended without."""
    poller = select.poll()
    poller.register(ready, select.POLLIN)
    if not poller.poll(READY_TIMEOUT_S * 1000):
        raise CannotRun(f"the service was not ready within {READY_TIMEOUT_S:.0f} s; see its log")
    return ready.read(64)


def _last_words(words: IO[bytes]) -> str:
    """Return the last line the daemon printed, without the name in front."""
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - SENTENCES_MAX))
    lines = words.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("ckptfs: ").strip()
