"""``ckptfs key ls|show|create|wrap|export|import``: the keys of sealed copies."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import Corrupt, InvalidInput, NotFound
from ..secret_input import add_passphrase_options, read_passphrase, read_small
from ..tables import printable, table_text
from .check import add_store_option, store_of

EXAMPLES = """\
sudo ckptfs key create alice --certificate alice.pem
sudo ckptfs key create bob --passphrase
sudo ckptfs key wrap alice --passphrase
sudo ckptfs key export alice > alice.key.json
sudo ckptfs key import alice.key.json --private-key alice.private.pem
"""
HEADER = ("KEY", "OWNER", "STATE", "CREATED", "OPENERS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        default="ls",
        help="ls, show, create, wrap, export or import",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="an owner, the id of a key, or a file to import"
    )
    parser.add_argument(
        "--certificate",
        metavar="PEM",
        action="append",
        default=[],
        help="create, wrap: who has this certificate's private key may open it; may be repeated",
    )
    add_passphrase_options(parser)
    parser.add_argument("--private-key", metavar="PEM", help="import: what opens the key")
    parser.add_argument("--replace", action="store_true", help="create: though there is one")
    add_store_option(parser)


def _upkeep() -> Any:  # noqa: ANN401 - imported when it is needed
    return importlib.import_module("ckptfs.upkeep.keys")


def _when(created_ns: int) -> str:
    return datetime.fromtimestamp(created_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ls(store: Path, args: argparse.Namespace) -> None:
    rows, troubles = _upkeep().listed(store)
    shown = [
        (row.key_id, row.owner, row.state, _when(row.created_ns), str(len(row.openers)))
        for row in rows
        if args.name is None or args.name in {row.key_id, row.owner}
    ]
    print(table_text(HEADER, [tuple(map(printable, row)) for row in shown]))
    if troubles:
        raise Corrupt("; ".join(troubles))


def _show(store: Path, args: argparse.Namespace) -> None:
    rows = [r for r in _upkeep().listed(store)[0] if args.name in {r.key_id, r.owner}]
    if not rows:
        raise NotFound(f"{args.name} has no key; see: ckptfs key ls")
    for row in rows:
        print(printable(f"{row.key_id} {row.state}, of {row.owner}, {_when(row.created_ns)}"))
        for opener in row.openers:
            print(printable(f"    opened by {opener}"))


def _create(store: Path, args: argparse.Namespace) -> None:
    row = _upkeep().create(
        store,
        args.name,
        certificates=[read_small(path) for path in args.certificate],
        passphrase=read_passphrase(args, is_new=True),
        replacing=args.replace,
    )
    print(row.key_id)


def _wrap(store: Path, args: argparse.Namespace) -> None:
    certificates = [read_small(path) for path in args.certificate]
    passphrase = read_passphrase(args, is_new=True)
    row = _upkeep().wrap(store, args.name, certificates=certificates, passphrase=passphrase)
    print(row.key_id)


def _export(store: Path, args: argparse.Namespace) -> None:
    sys.stdout.write(_upkeep().exported(store, args.name).decode())


def _import(store: Path, args: argparse.Namespace) -> None:
    upkeep = _upkeep()
    document = read_small(args.name)
    row = upkeep.take_in(store, document, read_opening(upkeep, args))
    print(printable(f"{row.key_id} of {row.owner}, {row.state}"))


def read_opening(upkeep: Any, args: argparse.Namespace) -> Any:  # noqa: ANN401 - as above
    """Return what the options say opens a wrapped key.  Raises InvalidInput, NotFound."""
    private = read_small(args.private_key) if args.private_key else b""
    return upkeep.Opening(private, read_passphrase(args, is_new=False))


ACTIONS: Mapping[str, Callable[[Path, argparse.Namespace], None]] = {
    "ls": _ls,
    "show": _show,
    "create": _create,
    "wrap": _wrap,
    "export": _export,
    "import": _import,
}


def run(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    if args.action not in ACTIONS:
        raise InvalidInput(f"expected {', '.join(ACTIONS)}, not {args.action!r}")
    if args.name is None and args.action != "ls":
        raise InvalidInput(
            f"{args.action} needs {'a file' if args.action == 'import' else 'a name'}"
        )
    ACTIONS[args.action](store_of(args), args)
    return 0
