"""``ckptfs logs``: print what a job has written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

from ...errors import Gone, NotAuthenticated, NotFound
from ..client import Mount, Watch
from ..entry import add_mount_option, mount_of
from ..naming import find_job
from ..outcomes import parse_state

EXAMPLES = """\
ckptfs logs heat
ckptfs logs -f heat
ckptfs logs --stderr heat
"""

PIECE = 1 << 16  # bytes per read
# The files are ordinary ones, which poll(2) always calls ready, so a follower
# looks again; between two looks it sleeps in poll on the job's state.
LOOK_AGAIN_S = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("--stderr", action="store_true", help="standard error, not output")


@contextmanager
def opened_log(mount: Mount, job: str, stream: str) -> Generator[int]:
    """Open the file that the job's *stream* goes to.  Raises NotFound, NotAuthenticated."""
    path = mount.read(f"{job}/ctl/{stream}")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"{job} has written nothing yet, or {path} was removed") from error
    except OSError as error:
        raise NotAuthenticated(f"{path}: {(error.strerror or '').lower()}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy_new(descriptor: int, position: int) -> int:
    """Print what the file holds after *position* and return the new position.

    A file that got shorter was put back by a restart: what was printed stays
    printed, and what is written from now on follows.
    """
    position = min(position, os.fstat(descriptor).st_size)
    while piece := os.pread(descriptor, PIECE, position):
        sys.stdout.buffer.write(piece)
        position += len(piece)
    sys.stdout.buffer.flush()
    return position


def has_ended(state: Watch) -> bool:
    """Return whether nothing more can be written: the job is over or was removed."""
    try:
        return parse_state(state.read()).has_ended
    except Gone:
        return True


def run(args: argparse.Namespace) -> int:
    """Print the log, with ``-f`` until the job ends."""
    mount = mount_of(args)
    job = find_job(mount, args.job)
    with opened_log(mount, job, "stderr" if args.stderr else "stdout") as descriptor:
        position = copy_new(descriptor, 0)
        if args.follow:
            with mount.watch(f"{job}/ctl/state") as state:
                while not has_ended(state):
                    state.wait(LOOK_AGAIN_S)
                    position = copy_new(descriptor, position)
            copy_new(descriptor, position)  # written between the last look and the end
    return 0
