"""``ckptfs volume add|drain|up|rm|ls``: directories that take copies of versions."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ...errors import InvalidInput
from ..client import Mount
from ..entry import add_mount_option, mount_of, warn
from ..tables import printable, size_text, table_text

EXAMPLES = """\
ckptfs volume ls
sudo ckptfs volume add /mnt/disk2/copies --domain disk2
sudo ckptfs volume add /mnt/far/copies --seal encrypt
sudo ckptfs volume drain copies
sudo ckptfs volume rm copies
"""
FILE = "ctl/volumes"
HEADER = ("VOLUME", "STATE", "DOMAIN", "USED", "FREE", "VERIFIED", "SEALED", "DIRECTORY", "REASON")
LOCAL = "local"
SEALS = ("plain", "compress", "encrypt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("action", metavar="ACTION", help="add, drain, up, rm or ls", nargs="?")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the volume; for add a directory")
    parser.add_argument("--domain", default="", help="add: what fails together (default: its name)")
    parser.add_argument(
        "--seal",
        choices=SEALS,
        default="plain",
        help="add: how copies lie there; encrypt compresses too and needs keys: ckptfs key",
    )


def rows_of(text: str) -> list[tuple[str, ...]]:
    """Return the lines of ``ctl/volumes`` as rows of the table.  Pure."""
    rows: list[tuple[str, ...]] = []
    for line in text.splitlines():
        name, *words = line.split()
        parts = (word.partition("=") for word in words)
        keys = {key: value for key, _, value in parts}
        sizes = [size_text(int(keys.get(f"{key}_bytes", 0))) for key in ("used", "free")]
        reason = keys.get("reason", "-").replace("_", " ")
        sealed = f"{keys['seal']} {keys.get('ratio', '-')}:1" if "seal" in keys else "-"
        rest = (keys.get("verified", "-"), sealed, keys.get("directory", "-"), reason)
        rows.append((name, keys.get("state", "-"), keys.get("domain", "-"), *sizes, *rest))
    return rows


def command_of(action: str, name: str, domain: str, seal: str = "plain") -> str:
    """Return what is written into ``ctl/volumes``.  Raises InvalidInput.  Pure."""
    if not name:
        raise InvalidInput(f"{action} needs {'a directory' if action == 'add' else 'a volume'}")
    if action != "add" and (domain or seal != "plain"):
        raise InvalidInput("--domain and --seal go with add alone")
    if action == "add":
        words = [f"domain={domain}"] * bool(domain) + [f"seal={seal}"] * (seal != "plain")
        return " ".join(["add", *words, str(Path(name).absolute())])
    return f"{name} {action}"


def note_of(text: str, name: str, device: Callable[[str], int]) -> str:
    """Return what to say of a volume that shares its disk with the store or another one, or "".

    *text*: ``ctl/volumes``; *device*: of a directory, raises OSError.  What fails together is not
    always seen in a device number, but where it is, nobody should find it out later.
    """
    rows = {row[0]: row for row in rows_of(text)}
    if name not in rows:
        return ""  # somebody else was faster
    directory, domain = (rows[name][HEADER.index(column)] for column in ("DIRECTORY", "DOMAIN"))
    for other, row in rows.items():
        with suppress(OSError):
            is_alike = row[HEADER.index("DOMAIN")] == domain
            there = row[HEADER.index("DIRECTORY")]
            if other != name and not is_alike and device(there) == device(directory):
                whose = "the store" if other == LOCAL else other
                return f"{name} lies on the same file system as {whose}: one broken disk takes both"
    return ""


def _say(text: Callable[[str], str]) -> Callable[[str], None]:
    return lambda name: print(text(printable(name)))


SAYS: Mapping[str, Callable[[str], None]] = {
    "add": _say(lambda name: f"{name} takes copies of jobs that want more than one"),
    "drain": _say(
        lambda name: f"{name} takes no more copies and is emptied; how far: ckptfs volume ls"
    ),
    "up": _say(lambda name: f"{name} takes copies"),
    "rm": _say(lambda name: f"{name} was let go; what still lies there stays"),
}


def run(args: argparse.Namespace) -> int:
    """List the volumes, or change one."""
    mount: Mount = mount_of(args)
    action: str = args.action or "ls"
    if action == "ls":
        print(table_text(HEADER, rows_of(mount.read(FILE))))
        return 0
    if action not in SAYS:
        raise InvalidInput(f"expected add, drain, up, rm or ls, not {action!r}")
    name = mount.write(FILE, command_of(action, args.name or "", args.domain, args.seal))
    SAYS[action](name)
    if action == "add" and (note := note_of(mount.read(FILE), name, _device)):
        warn(note)
    return 0


def _device(directory: str) -> int:
    return os.stat(directory).st_dev
