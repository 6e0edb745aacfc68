"""What the tests of copies share: a store with volumes, and two versions on all of them."""

from __future__ import annotations

import trio
from hypothesis import strategies as st

from ckptfs.ids import JobId, Version
from ckptfs.store.copies_plan import Holding, Piece
from ckptfs.store.store import open_store
from tests.store_kit import JOB, MIB, noise, save

DATA = {version: noise(MIB, version) for version in (1, 2)}
NOW = 10**18

# plans are drawn over these: two versions of five pieces, up to four volumes in three domains
_PIECES = [Piece("packs", name) for name in "pqr"] + [Piece("heads", f"j.1@{n}") for n in "12"]
_some = st.frozensets(st.sampled_from(_PIECES), min_size=1)
some_needs = st.fixed_dictionaries({(JobId("j.1"), Version(n)): _some for n in (1, 2)})
some_holdings = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(Holding, st.sampled_from(["d1", "d2", "d3"]), _some, st.booleans(), st.booleans()),
)


async def no_pace(_size: int) -> None:
    await trio.lowlevel.checkpoint()


class World:
    """A store with volumes b and c, and two versions on both."""

    def __init__(self, directory):
        self.directory = directory
        self.store = open_store(directory / "store", create=True)

    @property
    def copies(self):
        return self.store.copies

    def reopen(self):
        self.store.close()
        self.store = open_store(self.directory / "store", create=False)

    async def fill(self, *names):
        for version, data in DATA.items():
            await save(self.store, {"a": data}, version=version)
        for name in names:
            (self.directory / name).mkdir()
            await self.copies.add(str(self.directory / name))
        await self.round(1 + len(names))

    async def round(self, level):
        """One round; without a level nothing is copied or taken away."""
        await self.copies.round({JOB: level} if level else {}, no_pace)

    async def scrub(self, name="b", *, since_ns=NOW, pace=no_pace):
        return await self.copies.scrub(name, pace, since_ns=since_ns, clock_ns=lambda: NOW)

    def files(self, name):
        places = ("packs", "manifests", "heads")
        found = (p for place in places for p in (self.directory / name / place).rglob("*"))
        return sorted(path for path in found if path.is_file())

    def state(self, name):
        return next(row.state for row in self.copies.rows() if row.name == name)

    def counts(self):
        return [self.copies.count(JOB, version) for version in self.store.versions(JOB)]


def flip(path):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
