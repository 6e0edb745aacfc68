"""The translibs that a node offers, by name.  `sim.SimTranslib` is for tests and not among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import NotFound
from .api import Translib
from .criu import CriuTranslib

TRANSLIBS: Mapping[str, Callable[[], Translib]] = {
    "criu": CriuTranslib,
}


def make_translib(name: str) -> Translib:
    """Return a new translib.  Raises NotFound (ENOENT) for an unknown name."""
    factory = TRANSLIBS.get(name)
    if factory is None:
        raise NotFound(
            f"no checkpointer is called {name!r}; there are {', '.join(sorted(TRANSLIBS))}"
        )
    return factory()
