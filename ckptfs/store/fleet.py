"""The volumes of a store that take copies: which there are, and how each of them is.

The trio thread knows; whatever touches a volume runs in a worker thread with a deadline, one at a
time per volume, so one that hangs holds up nobody but itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from ..errors import Busy, CkptfsError, Corrupt, Exists, InvalidInput, NotFound
from .attached import FRESH_S, GONE, Attached, sentence_of, state_after_look, state_of, within
from .copies_api import VolumeStatus
from .copies_record import (
    ENCRYPT,
    FILE,
    FILE_MAX,
    LOCAL,
    PLAIN,
    VolumeRecord,
    check_seal,
    check_word,
    decode_volumes,
    encode_volumes,
)
from .copy_volume import CopyVolume, Listing
from .keyring import KeyRing
from .packs import failure_of
from .sealed_volume import SealedVolume
from .superblock import Superblock
from .syscalls import Syscalls, write_durably

log = logging.getLogger(__name__)
LOOK_S = 8.0  # for a look at a volume; a control write gives up at 10


class Fleet:
    """Volumes by name.  Trio thread only."""

    def __init__(self, block: Superblock, calls: Syscalls) -> None:
        self._directory, self._store_id, self._calls = block.directory, block.store_id, calls
        self.keys = KeyRing(block.directory, calls)
        self.trouble = ""
        self.volumes: dict[str, Attached] = {}
        for record in self._read():
            self.volumes[record.name] = self._attach(record)

    def _read(self) -> list[VolumeRecord]:
        try:
            return decode_volumes(self._calls.read_file(self._directory / FILE, FILE_MAX))
        except FileNotFoundError:
            return []
        except (OSError, Corrupt) as error:
            self.trouble = f"{error}: no volume takes copies until it is put right"
            return []

    def _attach(self, record: VolumeRecord) -> Attached:
        volume = self._volume(Path(record.directory), record.domain, record.seal)
        return Attached(record, volume, volume.pack_files())

    def _volume(self, directory: Path, domain: str, seal: str) -> CopyVolume:
        if seal == PLAIN:
            return CopyVolume(directory, self._calls, domain)
        return SealedVolume(directory, self._calls, domain, seal, self.keys)

    def keep(self, volumes: Mapping[str, Attached]) -> None:
        """Have these be the volumes from now on, durably.  Raises Corrupt, StoreFull, Degraded."""
        if self.trouble:
            raise Corrupt(self.trouble)
        document = encode_volumes(attached.record for attached in volumes.values())
        try:
            write_durably(self._calls, self._directory / FILE, document, mode=0o600)
        except OSError as error:
            raise failure_of(error) from error
        self.volumes = dict(volumes)

    def rows(self) -> Sequence[VolumeStatus]:
        """Return what is known of each volume; asks none."""
        return [
            VolumeStatus(
                name,
                word_of(attached),
                attached.record.domain,
                attached.listing.used_bytes,
                attached.listing.free_bytes,
                attached.record.directory,
                attached.reason or attached.alarm or attached.progress,
                attached.record.seal,
                attached.listing.plain_bytes,
            )
            for name, attached in sorted(self.volumes.items())
        ]

    async def add(self, directory: str, domain: str = "", seal: str = PLAIN) -> str:
        """Take a directory as a volume; return its name.  *seal*: plain, compress or encrypt.

        Raises InvalidInput, NotADirectory, NotEmpty, Busy (another store's), CannotRun, Exists,
        TimedOut, StoreFull.
        """
        path = Path(directory)
        if not path.is_absolute() or ".." in path.parts:
            raise InvalidInput(f"the path of a volume is absolute, not {directory!r}")
        if path.is_relative_to(self._directory) or self._directory.is_relative_to(path):
            raise InvalidInput(f"{path} and the store lie in each other")
        name = check_word(path.name, "the name of the directory, which becomes the volume's,")
        domain = check_word(domain or name, "a domain")
        volume = self._volume(path, domain, check_seal(seal))
        former = self.volumes.get(name)
        if former and former.record.directory == str(path) and former.record.seal != seal:
            how = (
                "an encrypted volume stays one: take another directory"
                if former.record.seal == ENCRYPT
                else f"ckptfs volume drain {name}, rm {name} when it is empty, then add it again"
            )
            kept = f"{name} keeps its copies {former.record.seal}, which cannot be changed in place"
            raise Exists(f"{kept}; {how}")
        if name == LOCAL or former:
            raise Exists(f"a volume is called {name} already")
        limiter = trio.CapacityLimiter(1)
        taken = frozenset(a.record.volume_id for a in self.volumes.values())
        claim = partial(volume.claim, self._store_id, taken)
        volume_id = await within(LOOK_S, limiter, claim, name)
        if name in self.volumes or any(
            a.record.volume_id == volume_id for a in self.volumes.values()
        ):
            raise Exists(f"{path} is a volume of this store already")
        attached = self._attach(VolumeRecord(name, str(path), domain, volume_id, seal=seal))
        self.keep(self.volumes | {name: attached})
        return name

    def get(self, name: str) -> Attached:
        """Return a volume.  Raises NotFound."""
        try:
            return self.volumes[name]
        except KeyError:
            raise NotFound(f"no volume is called {name!r}; see ctl/volumes") from None

    async def look_at_all(self) -> None:
        """Find out how every volume is, side by side."""
        async with trio.open_nursery() as nursery:
            for name in list(self.volumes):
                nursery.start_soon(self._look, name)

    async def _look(self, name: str) -> None:
        """Find out whether a volume is there and what it holds."""
        attached = self.volumes[name]
        now_s = trio.current_time()
        relist = attached.state in GONE | {"stale"} or now_s - attached.listed_s > FRESH_S

        def look() -> tuple[Listing | None, bool, int]:
            volume = attached.volume
            if volume.check(self._store_id) != attached.record.volume_id:
                raise Busy(f"{attached.record.directory} holds another volume of this store")
            free, _ = volume.free_and_total()
            return volume.listing() if relist else None, volume.is_readonly(), free

        try:
            listing, readonly, free = await within(LOOK_S, attached.turn, look, name)
        except (CkptfsError, OSError) as error:
            self.failed(name, error)
            self.volumes[name].listed_s = -FRESH_S  # listed anew as soon as it can be
            return
        if listing is not None:
            attached.listing, attached.listed_s = listing, now_s
            attached.bad &= listing.held  # others were set aside
        state = state_after_look(
            attached, readonly=readonly, free_bytes=free, listed=listing is not None
        )
        if state == "readonly":
            attached.reason = "its file system is mounted read-only"
        elif state == "up":
            attached.reason = ""
        attached.state = state

    def failed(self, name: str, error: Exception) -> None:
        """Note that a volume did not do what it was asked."""
        attached = self.volumes[name]
        attached.state, attached.reason = state_of(error), sentence_of(error)
        log.warning("volume %s is %s: %s", name, attached.state, attached.reason)
        if attached.state in GONE:  # it will be another when it comes back
            fresh = self._attach(attached.record)
            fresh.state, fresh.reason = attached.state, attached.reason
            fresh.turn = attached.turn  # a thread may still hang in there
            fresh.bad, fresh.alarm = attached.bad, attached.alarm
            self.volumes[name] = fresh


def word_of(attached: Attached) -> str:
    """Return the state that is shown.  Pure."""
    if attached.record.draining and attached.state == "up":
        return "draining"
    return "failing" if attached.alarm and attached.answers else attached.state
