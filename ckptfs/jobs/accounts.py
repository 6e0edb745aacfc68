"""Local accounts: which one a job runs as.  Reads the account database; writes nothing."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Final

from ..errors import InvalidInput, NotAuthorised, NotFound
from ..model import Caller, Owner

ID_MAX: Final = 0xFFFFFFFE  # (uid_t)-1 means "leave it" to the kernel
_NUMBER = re.compile(r"[0-9]{1,10}\Z")


def resolve_owner(caller: Caller, user: str, group: str) -> Owner:
    """Return the account a job of *caller* runs as; *user* and *group* are names, numbers or "".

    Anybody may run jobs as themselves and in their own groups; root as
    anybody.  Raises NotFound, InvalidInput, NotAuthorised (EPERM).
    """
    uid = find_uid(user) if user else caller.uid
    if caller.uid not in (0, uid):
        raise NotAuthorised(f"uid {caller.uid} may not run jobs as {user}")
    if uid == caller.uid:
        gid, groups = caller.gid, frozenset(caller.groups)
    else:
        gid, groups = _account_groups(uid)
    if group:
        wanted = _gid(group)
        if caller.uid != 0 and wanted not in groups | {gid}:
            raise NotAuthorised(f"uid {caller.uid} is not in the group {group}")
        groups, gid = groups | {gid}, wanted
    return Owner(uid, gid, tuple(sorted(groups - {gid})), user_name(uid))


def user_name(uid: int) -> str:
    """Return the login name of *uid*, or ``uid:<n>``."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"


def home_of(uid: int) -> str:
    """Return the home directory of *uid* where it exists, else "/"."""
    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"
    return home if home.startswith("/") and os.path.isdir(home) else "/"


def _account_groups(uid: int) -> tuple[int, frozenset[int]]:
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return uid, frozenset()  # an account this machine does not know has no group but its own
    return account.pw_gid, frozenset(os.getgrouplist(account.pw_name, account.pw_gid))


def find_uid(user: str) -> int:
    """Return the uid of a login name or a number.  Raises NotFound, InvalidInput."""
    if _NUMBER.match(user):
        return _checked(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        raise NotFound(f"no user is called {user!r} here") from error


def _gid(group: str) -> int:
    if _NUMBER.match(group):
        return _checked(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as error:
        raise NotFound(f"no group is called {group!r} here") from error


def _checked(number: str) -> int:
    if int(number) > ID_MAX:
        raise InvalidInput(f"there is no user or group {number}")
    return int(number)
