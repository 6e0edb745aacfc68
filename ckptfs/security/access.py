"""Who may do what with a job: a table of rights and one decision.  Pure.

Denied by default.  The owner holds every right, root every right on every
job; nobody else holds any.  Rights are those of the opener of a control file.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from ..errors import NotAuthorised
from ..model import Caller, Owner

ROOT_UID: Final = 0


class Right(enum.StrEnum):
    """What a user can be allowed to do with a job."""

    MONITOR = "monitor"
    CHECKPOINT = "checkpoint"
    RESTART = "restart"
    STOP = "stop"
    CONFIGURE = "configure"
    REMOVE = "remove"


VERB_RIGHTS: Final[Mapping[str, Right]] = {
    "checkpoint": Right.CHECKPOINT,
    "suspend": Right.CHECKPOINT,
    "restart": Right.RESTART,
    "resume": Right.RESTART,
    "kill": Right.STOP,
    "signal": Right.STOP,
    "protocol": Right.CONFIGURE,
    "retention": Right.CONFIGURE,
    "replication": Right.CONFIGURE,
    "pin": Right.CONFIGURE,
    "verify": Right.MONITOR,
    "remove": Right.REMOVE,
    "undelete": Right.REMOVE,
}


def rights_of(caller: Caller, owner: Owner) -> frozenset[Right]:
    """Return what *caller* may do with a job or version of *owner*."""
    return frozenset(Right) if caller.uid in (ROOT_UID, owner.uid) else frozenset()


def require(caller: Caller, owner: Owner, verb: str, thing: str) -> None:
    """Raise NotAuthorised (EPERM) unless *caller* may do *verb* with *thing*.

    A verb that is not in the table is denied to everybody but root.
    """
    right = VERB_RIGHTS.get(verb)
    if right in rights_of(caller, owner) or (right is None and caller.uid == ROOT_UID):
        return
    raise NotAuthorised(
        f"{thing} belongs to {owner.user}; uid {caller.uid} has no right to {verb} it"
    )


def require_owner_of_image(caller: Caller, job: Owner, head: Owner, uids: frozenset[int]) -> None:
    """Raise NotAuthorised unless caller, job, signed head and image all name one user.

    *uids*: every real uid recorded in the image.  Root may act for the owner,
    because the processes come back as the owner all the same.
    """
    if caller.uid not in (ROOT_UID, head.uid):
        raise NotAuthorised(f"the version belongs to {head.user}, not to uid {caller.uid}")
    if head.uid != job.uid:
        raise NotAuthorised(
            f"the version was taken by {head.user}, but the job belongs to {job.user}"
        )
    foreign = sorted(uids - {job.uid})
    if foreign and job.uid != ROOT_UID:
        raise NotAuthorised(f"the image holds a process of uid {foreign[0]}, not of {job.user}")
