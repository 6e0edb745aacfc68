"""What all commands share: options, one-line refusals, exit codes.

Exit codes: 0 done; those of ckptfs/errors.py for a refusal, whose one line on
stderr says what to do next; 70 for a bug of ours (sysexits.h EX_SOFTWARE);
128+n after a signal (Ctrl-C: 130), as in a shell.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..errors import CkptfsError, InvalidInput, Unsupported
from .client import ERRORS, Mount, open_mount
from .mounts import choose_mount, mounted_points
from .tables import printable

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
TRACEBACK_VARIABLE = "CKPTFS_TRACEBACK"

EXIT_CODES = """\
exit codes:
  0 done   2 bad input   3 no such job, version or process   4 busy, or try again later
  5 can never be done    6 not allowed    7 the store is read-only    8 no space
  9 timed out   10 damaged data   11 the checkpoint or restart failed
  12 this machine or mount cannot do it   130 interrupted (what was asked for goes on)"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose refusals are InvalidInput, so that they look like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise InvalidInput with argparse's sentence."""
        raise InvalidInput(f"{message}; see: {self.prog} --help")


def make_parser(prog: str, summary: str, examples: str) -> Parser:
    """Return a parser with *summary*, *examples* (shell lines) and the exit codes in its help."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    return Parser(
        prog=prog,
        description=summary,
        epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_mount_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--mount``."""
    parser.add_argument(
        "--mount",
        metavar="DIR",
        default="",
        help="the mount to use (default: $CKPTFS_MOUNT, or the only one there is)",
    )


def add_certificate_option(parser: argparse.ArgumentParser) -> None:
    """Add ``-c``; see `refuse_certificate`."""
    parser.add_argument(
        "-c", metavar="CERT", dest="certificate", help="user certificate (not served yet)"
    )


def refuse_certificate(certificate: str | None) -> None:
    """Raise Unsupported when a certificate is given: ignoring it would look like checking it."""
    if certificate is not None:
        raise Unsupported(
            "-c is for grids with certificates, which are not served yet; "
            "on one machine you are known by your uid: leave -c out"
        )


def open_any_mount() -> Mount:
    """Return the mount that the environment names, or the only one."""
    return open_mount(choose_mount("", os.environ, mounted_points()))


def mount_of(args: argparse.Namespace) -> Mount:
    """Return the mount that the options and the environment name."""
    return open_mount(choose_mount(args.mount, os.environ, mounted_points()))


def warn(sentence: str) -> None:
    """Print one line on stderr."""
    print(f"ckptfs: {printable(sentence)}", file=sys.stderr, flush=True)


def _close_output() -> None:
    """Keep the interpreter from trying once more, at its exit, to write what could not be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def guarded(name: str, command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run *command* and return its exit code; whatever goes wrong is one line on stderr."""
    try:
        code = command(argv)
        sys.stdout.flush()
    except CkptfsError as error:
        warn(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _close_output()  # the reader (head, less) has had enough
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        _close_output()
        reason = (error.strerror or str(error)).lower()
        warn(f"{error.filename}: {reason}" if error.filename else f"output: {reason}")
        return ERRORS.get(error.errno or 0, CkptfsError).exit_code
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        warn(
            f"bug in {name}: {type(error).__name__}: {error}; "
            f"please report it with the output under {TRACEBACK_VARIABLE}=1"
        )
        return EXIT_BUG
    return code
