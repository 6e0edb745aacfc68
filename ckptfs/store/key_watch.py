"""Which copies cannot be made for want of a key, and which damage cannot be mended for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..errors import KeyMissing
from .copies_plan import Key
from .keyring import KeyRing


class KeyWatch:
    """What is known since the last round.  Trio thread, but for `look`."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._lacking: dict[str, str] = {}  # owner → sentence
        self._owners: Mapping[Key, str] = {}
        self._met: set[str] = set()

    def look(self, volumes: Iterable[str], owners: Mapping[Key, str]) -> dict[Key, frozenset[str]]:
        """Return which of the encrypted *volumes* no copy of a version can go to.

        *owners*: whose each version is.  Worker thread.
        """
        encrypted = frozenset(volumes)
        self._lacking, self._owners, self._met = {}, owners, set()
        for owner in set(owners.values()) if encrypted else ():
            try:
                self._keys.sealing(owner)
            except KeyMissing as error:
                self._lacking[owner] = str(error)
            except OSError as error:
                self._lacking[owner] = f"the keys cannot be read: {error.strerror}"
        return {key: encrypted for key, owner in owners.items() if owner in self._lacking}

    def meet(self, what: str, error: KeyMissing) -> None:
        """Take note that *what* was not done for want of a key."""
        self._met.add(f"{what}: {error}")

    def sentences(self, is_short: Callable[[Key], bool]) -> frozenset[str]:
        """Return what people should know; *is_short*: whether a version lacks copies."""
        lacking = {
            self._lacking[owner]
            for key, owner in self._owners.items()
            if owner in self._lacking and is_short(key)
        }
        return frozenset(f"copies cannot be encrypted: {text}" for text in lacking) | self._met
