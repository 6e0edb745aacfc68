"""Secrets that a person gives: asked on the terminal or read from a file, never arguments."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from ..errors import InvalidInput, NotFound

FILE_MAX = 1 << 16  # bytes of a certificate, a key, a passphrase


def add_passphrase_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--passphrase`` and ``--passphrase-file``."""
    parser.add_argument("--passphrase", action="store_true", help="ask for a passphrase")
    parser.add_argument(
        "--passphrase-file", metavar="FILE", help="its first line is the passphrase; -: stdin"
    )


def read_small(path: str) -> bytes:
    """Return a file's bytes.  Raises NotFound, InvalidInput."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no {path}") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > FILE_MAX:
        raise InvalidInput(f"{path} is too big to be a key or a certificate")
    return data


def read_passphrase(args: argparse.Namespace, *, is_new: bool) -> str:
    """Return the passphrase that the options ask for, nothing when they ask for none.

    *is_new*: asked for twice.  Raises InvalidInput, NotFound.
    """
    if args.passphrase_file == "-":
        return _line(sys.stdin.buffer.readline(FILE_MAX))
    if args.passphrase_file:
        return _line(read_small(args.passphrase_file).partition(b"\n")[0])
    if not args.passphrase:
        return ""
    if not sys.stdin.isatty():
        raise InvalidInput("there is no terminal to ask on: use --passphrase-file")
    given = getpass.getpass("passphrase: ")
    if is_new and getpass.getpass("once more: ") != given:
        raise InvalidInput("the two differ; nothing was done")
    return given


def _line(data: bytes) -> str:
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidInput("a passphrase is text in UTF-8") from None
    if not text:
        raise InvalidInput("the passphrase is empty")
    return text
