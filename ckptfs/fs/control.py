"""What a control file is, and the text formats it may use.  Pure.

The four formats (after cgroup v2): one value; a list,
one per line; flat keyed ``key value``; nested keyed ``key sub=val sub=val``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import InvalidInput, OutOfRange, TooLong
from ..model import Caller

WRITE_MAX = 4096  # bytes in one write(2); kernfs takes a page and answers E2BIG too
T = TypeVar("T")
IDLE = frozenset({"none\n", "never\n"})  # contents of a verb that nobody has used yet


@dataclass(frozen=True, slots=True)
class ControlFile(Generic[T]):
    """One row of the control-file table of objects of type *T*.

    *show* renders the whole file and cannot block.  *store* takes one command,
    newline removed, and returns the one-line answer for a read on the same
    descriptor.  *refresh* is awaited at open for what cannot be had without
    asking a node.  *mode*: permission bits; no write bit means no *store*.
    """

    name: str
    mode: int
    doc: str  # one sentence
    example: str  # what a person types and sees
    show: Callable[[T], str]
    store: Callable[[T, str, Caller], Awaitable[str]] | None = None
    refresh: Callable[[T], Awaitable[None]] | None = None
    pollable: bool = False
    usage: str = ""  # shown behind # by a verb
    is_bare_verb: bool = False  # usage is shown always, not only before the first request

    def content(self, subject: T) -> str:
        """Return what a read at offset 0 gives."""
        text = self.show(subject)
        if self.usage and (self.is_bare_verb or text in IDLE):
            text += f"# {self.usage}\n"
        return text


def table_of(*rows: ControlFile[T]) -> dict[str, ControlFile[T]]:
    """Return rows by name."""
    return {row.name: row for row in rows}


def parse_command(data: bytes) -> str:
    """Return the one command in *data*, the bytes of a single write(2).

    Raises TooLong (E2BIG) above WRITE_MAX bytes; InvalidInput (EINVAL) for
    text that is not UTF-8, an empty command, an embedded newline or another
    control character.
    """
    if len(data) > WRITE_MAX:
        raise TooLong(f"one write takes at most {WRITE_MAX} bytes, not {len(data)}")
    try:
        text = data.decode("utf-8").removesuffix("\n").strip(" \t")
    except UnicodeDecodeError:
        raise InvalidInput("the command is not UTF-8 text") from None
    if not text:
        raise InvalidInput("the command is empty")
    if "\n" in text:
        raise InvalidInput("one write is one command: no newline inside")
    if not text.replace("\t", " ").isprintable():
        raise InvalidInput("the command holds a control character")
    return text


def parse_count(text: str, *, low: int, high: int) -> int:
    """Return *text* as a number in [low, high].  Raises InvalidInput, OutOfRange."""
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidInput(f"expected a number, not {text!r}")
    if len(text) > 20 or not low <= int(text) <= high:  # int() of 4300 digits raises
        raise OutOfRange(f"{text} is not in {low}…{high}")
    return int(text)


def parse_choice(text: str, choices: Mapping[str, T]) -> T:
    """Return what the word *text* stands for.  Raises InvalidInput naming the words there are."""
    try:
        return choices[text]
    except KeyError:
        raise InvalidInput(f"expected one of {', '.join(choices)}, not {text!r}") from None


def parse_keys(words: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return ``key=value`` words as a dict.  Raises InvalidInput on a foreign or repeated key."""
    keys = tuple(known)
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            raise InvalidInput(f"{word!r} is not one of {', '.join(f'{key}=…' for key in keys)}")
        if key in found or not value:
            raise InvalidInput(f"{key}= must have one value")
        found[key] = value
    return found


def expect_one(text: str) -> None:
    """Check the only word a verb takes.  Raises InvalidInput."""
    if text != "1":
        raise InvalidInput(f"write 1, not {text!r}")


def render_flat(values: Mapping[str, object]) -> str:
    """Render "key value" lines."""
    return "".join(f"{key} {value}\n" for key, value in values.items())


def render_nested(rows: Mapping[str, Mapping[str, object]]) -> str:
    """Render "key sub=val sub=val" lines; blanks inside a value become ``_``."""
    return "".join(
        " ".join([key, *(f"{sub}={'_'.join(str(value).split())}" for sub, value in values.items())])
        + "\n"
        for key, values in rows.items()
    )


def render_list(lines: Iterable[str]) -> str:
    """Render one line each; newlines inside a line become blanks."""
    return "".join(" ".join(line.splitlines()) + "\n" for line in lines)


def render_choice(choices: Iterable[str], current: str) -> str:
    """Render all choices with the current one in brackets, as sysfs does."""
    return " ".join(f"[{word}]" if word == current else word for word in choices) + "\n"
