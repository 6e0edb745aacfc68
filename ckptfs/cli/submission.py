"""Handing a JSDL document to the service: spool, name, answer."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from ..errors import CkptfsError, NotAuthenticated, StoreFull
from ..ids import JobId
from .client import Mount

SPOOL = "ctl/spool"


def submit_document(mount: Mount, document: bytes) -> JobId:
    """Submit a JSDL document and return the id of the job that runs.

    Raises what the service refuses with.
    """
    # any free name will do: the directory is shared, and others may guess ahead
    name = f"job-{os.getpid()}-{secrets.token_hex(8)}.jsdl"
    path = mount.root / SPOOL / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise NotAuthenticated(f"{path.parent} cannot be written: you may not submit") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
        return JobId(mount.write("ctl/submit", name))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreFull(f"the description does not fit into {path.parent}: {reason}") from error
    finally:
        with suppress(OSError, CkptfsError):
            path.unlink()  # else the service does it after an hour
