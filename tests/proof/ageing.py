"""A step of random histories: a job lives on, its old versions go, so that packs are half dead."""

from __future__ import annotations

from ckptfs.ids import Version

from .history import History
from .steps import one_of, step
from .world import A, B, word_of

VERSIONS = 4  # after which most of what the first one wrote is needed no more


class Ageing(History):
    """See the top of this file."""

    @step(job=one_of(A, B), when=History._room)
    def grow_old(self, job) -> None:
        """Write versions; each time the one before goes."""
        before = None
        for _ in range(VERSIONS):
            key = self._new(job)
            self._do(lambda key=key: self.world.save(word_of(key)), "checkpoint")
            self._learn(key)
            if before is not None:
                self._do(lambda key=before: self._let_go(key), "remove")
            before = key

    async def _let_go(self, key) -> None:
        self.world.remove(word_of(key), trash_s=0)
        assert Version(key[1]) not in self.world.store.versions(key[0])
