"""What the mount sees of who pays for what: records, and the Protocol of `charging.Charging`.

A version is of one of two classes.  The user's own are charged to the owner of the job: logical
bytes times the copies that the job asks for, so that what somebody else stores or removes changes
nobody's bill.  The system's (taken by it, or for fault tolerance or migration) are charged to
nobody, and neither is what deduplication leaves over, the trash, or slack in packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..ids import JobId, Version
from ..model import Caller, SpaceClass

DEFAULT = "default"  # stands for every user without a limit of their own


@dataclass(frozen=True, slots=True)
class SpaceRow:
    """What one user has in the store, of one class.  Sizes in bytes."""

    user: str
    uid: int
    space_class: SpaceClass
    versions: int
    logical_bytes: int
    added_bytes: int  # in the store, shared pages counted once
    charged_bytes: int
    copies: int  # that there are, summed over the versions
    copies_wanted: int


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """What may be charged to a user, and what is.  Bytes; *limit* 0: nothing limits it."""

    user: str
    uid: int
    limit_bytes: int
    charged_bytes: int
    reserved_bytes: int  # for versions in work


class Charges(Protocol):
    """Trio thread only."""

    is_partial: bool  # `rows` are not yet of all there is: ask again

    def of_version(self, job: JobId, version: Version) -> tuple[SpaceClass, int]:
        """Return who pays for a version, and how many bytes.  Raises NotFound, Corrupt."""
        ...

    def of_job(self, job: JobId) -> int:
        """Return how many bytes the versions of a job are charged to its owner."""
        ...

    async def refresh(self) -> None:
        """Bring `rows` up to date."""
        ...

    def rows(self) -> Sequence[SpaceRow]:
        """Return who has how much, by uid and class, as of the last `refresh`."""
        ...

    def quotas(self) -> Sequence[QuotaRow]:
        """Return the users that have a limit or a version, by uid."""
        ...

    def default_limit(self) -> int:
        """Return the limit in bytes of users without one of their own, 0 for none."""
        ...

    def set_limit(self, caller: Caller, user: str, limit: int | None) -> None:
        """Limit what may be charged to *user* (a name, a uid, or `DEFAULT`), in bytes.

        None takes the limit away; what is charged already stays.  Raises NotAuthorised (EPERM)
        for all but root, NotFound, InvalidInput, OutOfRange, StoreFull.
        """
        ...
