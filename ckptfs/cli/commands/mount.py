"""``ckptfs mount``: start the service of a store at a mount point."""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from ...errors import CannotRun, NotADirectory, NotFound
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
SENTENCES_MAX = 4096  # bytes of the daemon's last words shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--store", default=DEFAULT_STORE, metavar="DIR", help="the store (default: %(default)s)")
    add("--foreground", action="store_true", help="stay, log to stderr, unmount at Ctrl-C")
    add("--hide-jobs", action="store_true", help="leave the jobs of others out of ls")
    add("mountpoint", metavar="MOUNTPOINT", help="a directory; made if its parent exists")


def daemon_command(store: Path, mountpoint: Path, *, hide_jobs: bool) -> list[str]:
    """Return the argv of the daemon, without its readiness descriptor.  Pure."""
    options = ["--store", str(store)] + ["--hide-jobs"] * hide_jobs
    return [sys.executable, "-m", "ckptfs.daemon", *options, str(mountpoint)]


def prepare_mountpoint(mountpoint: Path) -> None:
    """Make the mount point where only the last component is missing."""
    try:
        mountpoint.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise NotFound(f"{mountpoint.parent} does not exist: make it first") from error
    except FileExistsError as error:
        # a mount whose service has ended looks like that too; the daemon mends it
        if mountpoint.is_file():
            raise NotADirectory(f"{mountpoint} is not a directory") from error
    except OSError as error:
        raise CannotRun(f"{mountpoint}: {(error.strerror or '').lower()}") from error


def run(args: argparse.Namespace) -> int:
    """Start the daemon and return when the mount serves."""
    store, mountpoint = Path(args.store).absolute(), Path(args.mountpoint).absolute()
    prepare_mountpoint(mountpoint)
    command = daemon_command(store, mountpoint, hide_jobs=args.hide_jobs)
    if args.foreground:
        sys.stdout.flush()
        os.execv(command[0], command)
    start_detached(command, store)
    warn(f"{store} is mounted at {mountpoint}; unmount with: ckptfs umount {mountpoint}")
    return 0


def start_detached(command: list[str], store: Path) -> None:
    """Start the daemon in a session of its own and wait until it is ready.

    Raises CannotRun with its last words when it ends instead.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as words, os.fdopen(reader, "rb", buffering=0) as ready:
        try:
            process = subprocess.Popen(
                [*command[:3], "--ready-fd", str(writer), *command[3:]],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                cwd="/",
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        said = _wait_ready(ready)
        if said:
            process.returncode = 0  # it lives on: Popen must not complain that nobody waited
            return
        code = process.wait()
        raise CannotRun(_last_words(words) or f"the service ended with {code}; see {store}")


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
