"""What must stay, and what may go: the words in which store and collector speak of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..ids import JobId, Version
from .liveness import Holders
from .object_names import Names, among, names_of, texts_of
from .trash import Trashed
from .volume import Kind

# By kind and directory.  Work on all names at once would hold everybody up, so would objects.
Listed = dict[Kind, dict[str, Names]]


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """An object of the store."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Roots:
    """What must stay, as of one moment."""

    heads: tuple[tuple[JobId, Version], ...]
    trash: tuple[Trashed, ...]
    manifests: frozenset[str]  # that versions being written compare with
    sessions: frozenset[str]  # of versions being written


@dataclass(frozen=True, slots=True)
class Live:
    """Everything that roots refer to."""

    holders: Holders  # manifests that roots name, and their packs
    manifests: frozenset[str]  # these, and those that are just being written

    def unneeded(self, kind: Kind, names: Names) -> list[str]:
        """Return those of *names* that may go; a page table lives with its manifest."""
        if kind == "packs":
            return texts_of(names[~among(names, self.holders.packs)])
        return [name for name in texts_of(names) if name not in self.manifests]

    def needs(self, item: Item) -> bool:
        """Whether *item* must stay."""
        return not self.unneeded(item.kind, names_of([item.name]))


@dataclass(slots=True)
class Condemned:
    """What was set aside in one epoch and waits for its end."""

    epoch: int
    items: dict[Item, Path] = field(default_factory=dict[Item, Path])
