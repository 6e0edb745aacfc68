"""``ckptfs df``: who has how much in the store, and who pays for it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping

from ..entry import add_mount_option, mount_of
from ..nested import parse_nested
from ..tables import size_text, table_text

EXAMPLES = """\
ckptfs df
ckptfs df --json
"""
HEADER = (
    "OWNER",
    "CLASS",
    "VERSIONS",
    "LOGICAL",
    "STORED",
    "DEDUP",
    "CHARGED",
    "QUOTA",
    "COPIES",
)
STORE = "store"
Rows = Mapping[str, Mapping[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")


def number(row: Mapping[str, str], key: str) -> int:
    """Return a figure of a row, 0 when it is missing or no number.  Pure."""
    text = row.get(key, "")
    return int(text) if text.isdecimal() else 0


def owner_cells(key: str, row: Mapping[str, str], quotas: Rows) -> tuple[str, ...]:
    """Return one owner and class as a row of the table.  Pure."""
    owner, _, space_class = key.rpartition("/")
    limit = quotas.get(owner, {}).get("limit_bytes", "none")
    is_users = space_class == "user"
    return (
        owner,
        space_class,
        row.get("versions", "-"),
        size_text(number(row, "logical_bytes")),
        size_text(number(row, "added_bytes")),
        row.get("dedup_ratio", "-"),
        size_text(number(row, "charged_bytes")) if is_users else "-",
        size_text(int(limit)) if is_users and limit.isdecimal() else "-",
        f"{row.get('copies', '-')}/{row.get('copies_wanted', '-')}",
    )


def lines(space: Rows, quotas: Rows, volumes: Rows) -> Iterator[str]:
    """Yield what the command prints.  Pure."""
    owners = [(key, row) for key, row in space.items() if key != STORE]
    yield table_text(HEADER, [owner_cells(key, row, quotas) for key, row in owners])
    store = space.get(STORE, {})
    yield ""
    thinned = number(store, "thinned_bytes")
    less = f", {size_text(thinned)} less since packs were thinned" if thinned else ""
    yield (
        f"store: {size_text(number(store, 'stored_bytes'))} for"
        f" {size_text(number(store, 'logical_bytes'))} in {store.get('versions', '0')} versions"
        f" (dedup {store.get('dedup_ratio', '-')}),"
        f" of it trash and slack {size_text(number(store, 'rest_bytes'))}{less}"
    )
    yield (
        f"disk: {size_text(number(store, 'free_bytes'))} of"
        f" {size_text(number(store, 'total_bytes'))} free,"
        f" {size_text(number(store, 'reserved_bytes'))} promised to checkpoints under way"
    )
    if store.get("counting") == "1":
        yield "the service still counts: ask again in a moment"
    for name, row in volumes.items():
        if name != "local":
            packed = f" (compression {row['ratio']})" if "ratio" in row else ""
            yield (
                f"copies on {name}: {size_text(number(row, 'used_bytes'))}{packed},"
                f" {size_text(number(row, 'free_bytes'))} free"
            )


def run(args: argparse.Namespace) -> int:
    """Print the table; users see their own rows, root all."""
    mount = mount_of(args)
    files = [parse_nested(mount.read(f"ctl/{name}")) for name in ("space", "quota", "volumes")]
    if args.json:
        names = ("space", "quota", "volumes")
        print(json.dumps(dict(zip(names, files, strict=True)), indent=2))
    else:
        print("\n".join(lines(*files)))
    return 0
