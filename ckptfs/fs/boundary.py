"""The line between the kernel's requests and ckptfs: exceptions in, errno out.

With ``errors.py`` the only file that knows errno values.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from pyfuse3 import FUSEError

from ..errors import CkptfsError

log = logging.getLogger(__name__)
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


def fuse_handler(handler: Handler) -> Handler:
    """Wrap a pyfuse3 handler so that only `FUSEError` can leave it.

    pyfuse3 turns FUSEError into a reply; any other exception ends its main
    loop and with it the mount.  A `CkptfsError` is an answer to the caller.
    Anything else is a bug here: logged with its traceback, answered EIO, and
    the mount stays.  trio.Cancelled is a BaseException and passes untouched.
    """

    @functools.wraps(handler)
    async def guarded(*args: object, **kwargs: object) -> object:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except CkptfsError as error:
            raise FUSEError(error.errno) from error
        except Exception:
            log.exception("bug in %s", handler.__qualname__)
            raise FUSEError(errno.EIO) from None

    return cast("Handler", guarded)


def is_dead_mount(path: str) -> bool:
    """Return whether *path* is a mount whose daemon has gone (ENOTCONN, "Transport endpoint …").

    statvfs(3), because the kernel would answer a stat out of its cache, daemon or no daemon.
    Never call it on a mount of this process: it would wait for itself.
    """
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False
