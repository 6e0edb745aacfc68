"""Every error ckptfs raises on purpose, and what each one becomes outside.  Pure.

This file is the only place where a domain failure meets an errno or an exit
code.  A class names the condition; ``errno`` is what a process doing
open/read/write on the mount sees (`fs.boundary` reads it), ``exit_code`` is
what a command ends with.  The text is the exception's argument: one sentence
a user can act on.
"""

from __future__ import annotations

import errno as _e
from typing import ClassVar


class CkptfsError(Exception):
    """Base class.  Never raised itself."""

    errno: ClassVar[int] = _e.EIO
    exit_code: ClassVar[int] = 1


class InvalidInput(CkptfsError):
    """The text does not parse: unknown word or key, empty command, embedded newline."""

    errno = _e.EINVAL
    exit_code = 2


class OutOfRange(InvalidInput):
    """The text parses, but the number is outside the documented range."""

    errno = _e.ERANGE


class TooLong(InvalidInput):
    """One write(2) carried more than `fs.control.WRITE_MAX` bytes."""

    errno = _e.E2BIG


class TooBig(InvalidInput):
    """A spool file grew past its limit."""

    errno = _e.EFBIG


class NotFound(CkptfsError):
    """The named job, version, unit, node, checkpointer or spool file does not exist."""

    errno = _e.ENOENT
    exit_code = 3


class Gone(CkptfsError):
    """The object behind an open descriptor has been removed."""

    errno = _e.ENODEV
    exit_code = 3


class NoSuchProcess(CkptfsError):
    """The process is gone."""

    errno = _e.ESRCH
    exit_code = 3


class NoData(CkptfsError):
    """An extended attribute of that name does not exist here."""

    errno = _e.ENODATA


class Exists(CkptfsError):
    """The name is taken."""

    errno = _e.EEXIST


class NotADirectory(CkptfsError):
    """A path goes through something that is not a directory."""

    errno = _e.ENOTDIR


class IsADirectory(CkptfsError):
    """A file operation on a directory."""

    errno = _e.EISDIR


class NotEmpty(CkptfsError):
    """The directory still holds entries."""

    errno = _e.ENOTEMPTY


class Busy(CkptfsError):
    """Another operation is under way, or the object is still needed; legal later."""

    errno = _e.EBUSY
    exit_code = 4


class TryAgain(CkptfsError):
    """Capacity is missing right now; nothing was done."""

    errno = _e.EAGAIN
    exit_code = 4


class Unsupported(CkptfsError):
    """This object can never do that: capability missing, job ended, not served yet."""

    errno = _e.EOPNOTSUPP
    exit_code = 5


class NotAuthenticated(CkptfsError):
    """Mode bits forbid it, or no valid certificate."""

    errno = _e.EACCES
    exit_code = 6


class KeyMissing(CkptfsError):
    """The key of a sealed copy is not here, or cannot be opened here."""

    errno = _e.ENOKEY
    exit_code = 6


class NotAuthorised(CkptfsError):
    """A known user without the right."""

    errno = _e.EPERM
    exit_code = 6


class Forbidden(CkptfsError):
    """A sealed, pinned or immutable object."""

    errno = _e.EPERM
    exit_code = 6


class Degraded(CkptfsError):
    """The store is read-only after damage."""

    errno = _e.EROFS
    exit_code = 7


class StoreFull(CkptfsError):
    """No space in the store."""

    errno = _e.ENOSPC
    exit_code = 8


class QuotaExceeded(CkptfsError):
    """No space left to this user."""

    errno = _e.EDQUOT
    exit_code = 8


class TimedOut(CkptfsError):
    """Somebody did not answer within the deadline."""

    errno = _e.ETIMEDOUT
    exit_code = 9


class Corrupt(CkptfsError):
    """Stored bytes do not match their hash, or a stored document does not parse."""

    errno = _e.EIO
    exit_code = 10


class CheckpointerFailed(CkptfsError):
    """The checkpointer ended with an error, or did not write what it should have."""

    errno = _e.EIO
    exit_code = 11


class CannotRun(CkptfsError):
    """This machine lacks something that ckptfs needs; the text says what and how to get it."""

    errno = _e.ENOSYS
    exit_code = 12
