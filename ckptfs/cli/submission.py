"""Handing a JSDL document to the service: spool, name, answer."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from ..errors import TooBig
from ..ids import JobId
from .client import Mount, translated

SPOOL = "ctl/spool"
DOCUMENT_MAX = 1 << 20  # bytes; what a file in the spool may hold


def submit_document(mount: Mount, document: bytes) -> JobId:
    """Submit a JSDL document and return the id of the job that runs.

    Raises TooBig, and what the service refuses with.
    """
    if len(document) > DOCUMENT_MAX:
        raise TooBig(
            f"the job's description takes {len(document)} bytes, at most {DOCUMENT_MAX} are taken: "
            "pass on fewer variables (--clean-env, -e) or arguments"
        )
    # any free name will do: the directory is shared, and others may guess ahead
    name = f"job-{os.getpid()}-{secrets.token_hex(8)}.jsdl"
    path = mount.root / SPOOL / name
    with translated(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with translated(path), os.fdopen(descriptor, "wb") as file:
            file.write(document)
        return JobId(mount.write("ctl/submit", name))
    finally:
        with suppress(OSError):
            path.unlink()  # else the service does it after an hour
