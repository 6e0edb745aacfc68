"""``ckptfs submit``: a JSDL document becomes a job."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...errors import InvalidInput, NotAuthenticated, NotFound, TooBig
from ..entry import add_mount_option, mount_of
from ..submission import DOCUMENT_MAX, submit_document

EXAMPLES = """\
ckptfs submit heat.jsdl
sed s/512/1024/ heat.jsdl | ckptfs submit -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("file", help="a JSDL document, - for standard input")


def read_document(name: str) -> bytes:
    """Return the content of a file, or of standard input for ``-``.

    Raises NotFound, NotAuthenticated, InvalidInput, TooBig.
    """
    try:
        if name == "-":
            document = sys.stdin.buffer.read(DOCUMENT_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                document = file.read(DOCUMENT_MAX + 1)
    except FileNotFoundError as error:
        raise NotFound(f"{name} does not exist") from error
    except PermissionError as error:
        raise NotAuthenticated(f"{name} may not be read by you") from error
    except OSError as error:
        raise InvalidInput(f"{name}: {(error.strerror or '').lower()}") from error
    if len(document) > DOCUMENT_MAX:
        raise TooBig(f"{name} is larger than {DOCUMENT_MAX} bytes")
    return document


def run(args: argparse.Namespace) -> int:
    """Submit the document and print the job's id."""
    document = read_document(args.file)
    job = submit_document(mount_of(args), document)
    print(json.dumps({"job": job}) if args.json else job)
    return 0
