"""Steps of random histories in which volumes are copied to, scrubbed, away, drained, let go."""

from __future__ import annotations

import errno

from ckptfs.errors import Busy
from ckptfs.store.copies_record import COMPRESS, ENCRYPT, PLAIN

from .calls import failure
from .history import History
from .steps import one_of, pick, step
from .world import no_pace, word_of

VOLUMES = ("b", "c")


def has_volume(history: History) -> bool:
    """Whether there is a volume that is not away."""
    return bool(history.present)


class Volumes(History):
    """See the top of this file."""

    @step(level=one_of(1, 2, 3))
    def replicate(self, level) -> None:
        """Have a round of copying and mending; a copy that counts is there."""
        self._do(lambda: self.world.replicate(level), "replicate")
        for key in self._live() if not self.is_spoiled else ():
            count, whole = self.world.store.copies.count(*key), 1 + self._whole_on_volumes(key)
            assert count <= whole, f"{word_of(key)} counts {count} copies, and there are {whole}"

    def _whole_on_volumes(self, key) -> int:
        """Return on how many volumes all of a version lies."""
        names = {*self.uses[key]} - {word_of(key)} | {str(key[1])}
        return sum(
            (self.top / volume / "heads" / key[0] / str(key[1])).exists()
            and names <= {path.name for path in (self.top / volume).rglob("*")}
            for volume in self.volumes
        )

    @step(seal=one_of(PLAIN, PLAIN, COMPRESS, ENCRYPT), when=lambda h: h.volumes != [*VOLUMES])
    def add_volume(self, seal) -> None:
        """Take another volume, or one that was let go, with what is on it."""
        missing = set(VOLUMES) - set(self.volumes)
        if not missing:
            return
        name = min(missing)
        is_new = not (self.top / name).exists()
        if is_new:
            (self.top / name).mkdir(mode=0o755)
            self.calls.log += [("mkdir", (name,)), ("sync_directory", ("",))]
        if seal == ENCRYPT and not (self.world.directory / "keys/owners").exists():
            self._do(self._make_key)
        try:
            self._do(lambda: self.world.add_volume(name, seal), "add a volume")
        except Busy:
            assert not is_new, f"{name} is new, and refused"
            self.did["a volume is refused"] += 1  # what is on it lies there in another way
        else:
            self.volumes = [*self.volumes, name]

    async def _make_key(self) -> None:
        self.world.make_key()

    @step(when=lambda h: (h.world.directory / "keys/owners").exists())
    def change_key(self) -> None:
        """Take another key; the old one is for reading from then on."""

        async def change() -> None:
            self.world.make_key(replacing=True)

        self._do(change, "change the key")

    @step(pick=pick, when=has_volume)
    def scrub(self, pick) -> None:
        """Read and prove the copies on a volume."""
        name = self.present[pick % len(self.present)]
        _, damaged = self._do(lambda: self.world.scrub(name), "scrub a volume")
        assert self.is_spoiled or not damaged, f"{damaged} copies on {name} are damaged"

    @step()
    def scrub_packs(self) -> None:
        """Read and prove the store's own packs."""
        bad: list[str] = []

        def note(name: str, is_good: bool) -> bool:
            bad.extend([] if is_good else [name])
            return True

        self._do(lambda: self.world.store.copies.scrub_packs(no_pace, "", note), "scrub the packs")
        assert self.is_spoiled or not bad, f"pack {bad[0]} is damaged"

    @step(pick=pick, on=one_of(True, False), when=lambda h: h.volumes)
    def drain(self, pick, on) -> None:
        """Begin to drain a volume, or use it again."""
        name = self.volumes[pick % len(self.volumes)]

        async def change() -> None:
            self.world.store.copies.set_draining(name, on)

        self._do(change, "drain")

    @step(pick=pick, level=one_of(1, 2), when=has_volume)
    def let_go(self, pick, level) -> None:
        """Drain a volume and let it go; or it is needed, and that is said."""
        name = self.present[pick % len(self.present)]

        async def go() -> bool:
            self.world.store.copies.set_draining(name, True)
            await self.world.replicate(level)
            try:
                await self.world.store.copies.remove(name, dict.fromkeys(self.next, level))
            except Busy:
                return False
            return True

        if self._do(go):
            self.did["let a volume go"] += 1
            self.volumes.remove(name)
        else:
            self.did["a volume is needed"] += 1

    @step(pick=pick, when=has_volume)
    def go_away(self, pick) -> None:
        """Let a volume vanish: nothing there is found any more."""
        self.did["a volume goes away"] += 1
        self._have_away({*self.away, self.present[pick % len(self.present)]})

    @step(when=lambda h: h.away)
    def come_back(self) -> None:
        """Have all volumes back as they were."""
        self.did["a volume comes back"] += 1
        self._have_away(set())

    def _have_away(self, names: set[str]) -> None:
        self.away = names
        places = tuple(str(self.top / name) for name in names)

        def plan(_number: int, _call: str, what: str) -> OSError | None:
            return failure(errno.ENOENT) if places and what.startswith(places) else None

        self.calls.plan = self.plan = plan
