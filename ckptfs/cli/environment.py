"""Which variables of the caller a job gets.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import InvalidInput
from ..jobs.jsdl_render import can_be_carried

# What belongs to the login session or terminal the caller sits at: a job that
# is restarted next week, or elsewhere, would find it gone.
SESSION_NAMES = frozenset(
    {
        "COLORTERM",
        "COLUMNS",
        "DISPLAY",
        "GPG_TTY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LINES",
        "LS_COLORS",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "STY",
        "TERM",
        "TMUX",
        "TMUX_PANE",
        "WAYLAND_DISPLAY",
        "WINDOWID",
        "_",
    }
)
SESSION_PREFIXES = ("CKPTFS_", "DBUS_", "SSH_", "SUDO_", "XDG_", "LC_TERMINAL", "TERM_")
# What another user's job gets of mine: as with sudo, nothing that could be a secret
OF_EVERYBODY = frozenset({"LANG", "LANGUAGE", "LC_ALL", "TZ"})
CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def exported(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return what a job gets of *environment*, and the names left out because JSDL cannot say them.

    The latter hold control characters (colours for ``less``, say) or are no UTF-8.
    """
    kept: dict[str, str] = {}
    unsaid: list[str] = []
    for name, value in environment.items():
        if name in SESSION_NAMES or name.startswith(SESSION_PREFIXES):
            continue
        if can_be_carried(name) and can_be_carried(value):
            kept[name] = value
        else:
            unsaid.append(name)
    return kept, sorted(unsaid)


def handed_over(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job of another user gets of *environment*: language and time zone."""
    shared = {name: environment[name] for name in OF_EVERYBODY if name in environment}
    return {"PATH": CLEAN_PATH} | exported(shared)[0]


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Return ``K=V`` words as a dictionary; the last one of a name wins.  Raises InvalidInput."""
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or not equals:
            raise InvalidInput(f"a variable is given as NAME=VALUE, not {assignment!r}")
        values[name] = value
    return values
