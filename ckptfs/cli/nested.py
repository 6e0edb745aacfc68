"""Nested keyed text, ``key sub=val sub=val``, as control files print it.  Pure."""

from __future__ import annotations


def parse_nested(text: str) -> dict[str, dict[str, str]]:
    """Return key → sub-key → value; words without ``=`` are dropped."""
    rows: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        key, *words = line.split()
        pairs = (word.partition("=") for word in words)
        rows[key] = {name: value for name, equals, value in pairs if equals}
    return rows
