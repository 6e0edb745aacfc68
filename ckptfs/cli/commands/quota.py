"""``ckptfs quota``: how much may be charged to whom; root sets it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from ..entry import add_mount_option, mount_of
from ..nested import parse_nested
from ..tables import printable, size_text, table_text

EXAMPLES = """\
ckptfs quota
sudo ckptfs quota alice 10G
sudo ckptfs quota default 50G
sudo ckptfs quota alice none
"""
FILE = "ctl/quota"
HEADER = ("USER", "QUOTA", "CHARGED", "RESERVED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument(
        "user", metavar="USER", nargs="?", help="a name, a uid, or default: all others but root"
    )
    parser.add_argument(
        "size", metavar="SIZE", nargs="?", help="bytes, or with K M G T P, or none; root only"
    )


def row_cells(user: str, row: Mapping[str, str]) -> tuple[str, ...]:
    """Return one user as a row of the table.  Pure."""
    keys = ("limit_bytes", "charged_bytes", "reserved_bytes")
    texts = (row.get(key, "-") for key in keys)
    return (user, *(size_text(int(text)) if text.isdecimal() else text for text in texts))


def run(args: argparse.Namespace) -> int:
    """Print the quotas, or set one and print it."""
    mount = mount_of(args)
    if args.size is not None:
        print(printable(mount.write(FILE, f"{args.user} {args.size}")))
        return 0
    rows = parse_nested(mount.read(FILE))
    chosen = {user: row for user, row in rows.items() if args.user in (None, user)}
    print(table_text(HEADER, [row_cells(user, row) for user, row in chosen.items()]))
    return 0
