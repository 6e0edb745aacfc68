"""Copies of versions on volumes: what is where, copying on, and mending the store from them.

The trio thread decides and knows; whatever touches a volume runs in a worker thread with a
deadline, one at a time per volume, so a volume that hangs holds up nobody but itself.  What a
volume holds is learnt from its listing, so nothing needs to be remembered over a crash.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from ..errors import (
    Busy,
    CkptfsError,
    Corrupt,
    Exists,
    InvalidInput,
    KeyMissing,
    NotFound,
)
from ..ids import JobId, Version
from .attached import FRESH_S, GONE, Attached, sentence_of, state_after_look, state_of, within
from .blocks import BlockLoader, PackFiles
from .cleaning import Cleaner
from .copies_api import Pace, VolumeStatus
from .copies_plan import (
    Holding,
    Key,
    Move,
    Needs,
    Piece,
    count_copies,
    needed_elsewhere,
    plan_moves,
)
from .copies_record import (
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
from .copying import Copier
from .damage import DamageBook
from .gone import Gone
from .keyring import KeyRing
from .mending import Mender
from .needs import NeedsBook
from .packs import failure_of
from .sealed_volume import SealedVolume
from .superblock import Superblock
from .syscalls import Syscalls, write_durably
from .versions import Versions

log = logging.getLogger(__name__)
LOOK_S = 8.0  # for a look at a volume; a control write gives up at 10
SLICE_S = 30.0  # of copying; then the volumes are looked at and the queue is put in order anew


class Copies:
    """The volumes of one store beside the local one."""

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        *,
        versions: Versions,
        damage: DamageBook,
        packs: PackFiles,
        loader: BlockLoader,
    ) -> None:
        self._directory, self._store_id, self._calls = block.directory, block.store_id, calls
        self._versions, self._damage = versions, damage
        self.local_domain = LOCAL
        self.trouble = ""
        self._volumes: dict[str, Attached] = {}
        self.unfinished = False  # whether a round has left something that can be done now
        self._book = NeedsBook(block.directory, versions)
        self._keys = KeyRing(block.directory, calls)
        self.locked: frozenset[str] = frozenset()
        self._copies: dict[Key, int] = {}
        for record in self._read():
            self._volumes[record.name] = self._attach(record)
        self._mender = Mender(
            block.directory,
            calls,
            versions=versions,
            damage=damage,
            packs=packs,
            loader=loader,
            volumes=lambda: self._volumes,
        )
        self._copier = Copier(
            block.directory,
            calls,
            versions=versions,
            damage=damage,
            volumes=lambda: self._volumes,
            failed=self._note_failure,
            broken=self._mender.broken,
        )

        self.gone = Gone(block.directory, calls)
        self.cleaner = Cleaner(
            block.store_id,
            versions=versions,
            volumes=lambda: self._volumes,
            failed=self._note_failure,
        )

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
        return SealedVolume(directory, self._calls, domain, seal, self._keys)

    def _keep(self, volumes: Mapping[str, Attached]) -> None:
        if self.trouble:
            raise Corrupt(self.trouble)
        document = encode_volumes(attached.record for attached in volumes.values())
        try:
            write_durably(self._calls, self._directory / FILE, document, mode=0o600)
        except OSError as error:
            raise failure_of(error) from error

    # -- what there is -----------------------------------------------------------

    def rows(self) -> Sequence[VolumeStatus]:
        """Return what is known of each volume; asks none."""
        return [
            VolumeStatus(
                name,
                self._word(attached),
                attached.record.domain,
                attached.listing.used_bytes,
                attached.listing.free_bytes,
                attached.record.directory,
                attached.reason or attached.alarm,
                attached.record.seal,
                attached.listing.plain_bytes,
            )
            for name, attached in sorted(self._volumes.items())
        ]

    def _word(self, attached: Attached) -> str:
        if attached.record.draining and attached.state == "up":
            return "draining"
        return "failing" if attached.alarm and attached.answers else attached.state

    def domains(self) -> int:
        """Return in how many failure domains copies can be, the store's own included."""
        lasting = (a.record for a in self._volumes.values() if a.stays)
        return len({self.local_domain} | {record.domain for record in lasting})

    def mended(self) -> int:
        """Return how many objects of the store were mended since it was opened."""
        return self._mender.mended

    def count(self, job: JobId, version: Version) -> int:
        """Return how many verified copies a version has, as of the last round."""
        here = int(not self._damage.of(job, version))
        return self._copies.get((job, version), here)

    # -- what is asked -----------------------------------------------------------

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
        if name == LOCAL or name in self._volumes:
            raise Exists(f"a volume is called {name} already")
        volume = self._volume(path, domain, check_seal(seal))
        limiter = trio.CapacityLimiter(1)
        volume_id = await within(LOOK_S, limiter, partial(volume.claim, self._store_id), name)
        if name in self._volumes or any(
            a.record.volume_id == volume_id for a in self._volumes.values()
        ):
            raise Exists(f"{path} is a volume of this store already")
        attached = self._attach(VolumeRecord(name, str(path), domain, volume_id, seal=seal))
        self._keep(self._volumes | {name: attached})
        self._volumes[name] = attached
        return name

    def set_draining(self, name: str, on: bool) -> None:
        """Have a volume's copies moved elsewhere, or use it again.  Raises NotFound, StoreFull."""
        attached = self._get(name)
        changed = replace(attached, record=replace(attached.record, draining=on))
        self._keep(self._volumes | {name: changed})
        self._volumes[name] = changed

    async def remove(self, name: str, levels: Mapping[JobId, int]) -> None:
        """Let a volume go; nothing on it is deleted.

        Raises NotFound; Busy while a version needs it, or while it is not known what it holds.
        """
        attached = self._get(name)
        if attached.state != "missing" and not attached.record.draining:
            raise Busy(f"drain {name} first: echo {name} drain > ctl/volumes")
        if attached.state not in {"missing", "up", "foreign"}:
            raise Busy(f"{name} is {attached.state}, so it is not known what it holds")
        keys = self._book.keys()
        needs = await trio.to_thread.run_sync(self._book.of, keys)
        if attached.answers and (self._mender.broken or len(needs) < len(keys)):
            raise Busy(f"the store has damage that {name} may mend; see ctl/degraded")
        below = list(needed_elsewhere(name, needs, levels, self._holdings(), self.local_domain))
        if below:
            job, version = below[0]
            count = f"{len(below)} version{'s' * (len(below) > 1)}"
            raise Busy(f"{name} is needed by {count}, first version {version} of {job}")
        rest = {key: value for key, value in self._volumes.items() if key != name}
        self._keep(rest)
        self._volumes = rest

    def _get(self, name: str) -> Attached:
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"no volume is called {name!r}; see ctl/volumes") from None

    # -- a round -----------------------------------------------------------------

    async def round(self, levels: Mapping[JobId, int], pace: Pace) -> bool:
        """Look at every volume, mend the store, copy what is missing; whether anything changed.

        *pace* is awaited before each MiB.  Ends after half a minute of copying, `unfinished`, so
        that what is most urgent by then comes first.
        """
        self.unfinished = False
        if not self._volumes:
            self._copies.clear()
            return False
        before = (dict(self._copies), self.rows())
        await self._look_at_all()
        needs = await trio.to_thread.run_sync(self._book.of, self._book.keys())
        await self._mend(needs, pace)
        self._recount(needs)
        await self._copy(needs, levels, pace)
        self._recount(needs)
        return before != (self._copies, self.rows())

    async def _look_at_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in list(self._volumes):
                nursery.start_soon(self._look, name)

    async def _mend(self, needs: Needs, pace: Pace) -> None:
        broken = self._mender.broken
        broken |= self._book.unreadable
        self._book.unreadable.clear()
        suspects = {Piece("packs", name) for name in self._damage.quarantined()}
        broken |= suspects & frozenset[Piece]().union(*needs.values())
        for piece in sorted(broken.copy()):
            await self._mender.mend(piece, pace)

    async def _copy(self, needs: Needs, levels: Mapping[JobId, int], pace: Pace) -> None:
        end_s = trio.current_time() + SLICE_S
        failed: set[str] = set()
        locked: dict[tuple[str, str], str] = {}  # volume and owner whose key is missing
        self.locked = frozenset()
        for move in plan_moves(needs, levels, self._holdings(), self.local_domain):
            if move.volume in failed or move.volume not in self._volumes:
                continue
            if trio.current_time() > end_s:
                self.unfinished = True
                return
            await pace(0)
            owner = self._owner(move, needs)
            if (move.volume, owner) in locked:
                continue
            try:
                is_done = await self._copier.carry_out(move, pace, owner)
            except KeyMissing as error:
                locked[move.volume, owner] = f"no copies for volume {move.volume}: {error}"
                self.locked = frozenset(locked.values())
                continue
            if not is_done:
                failed.add(move.volume)
            elif move.piece.kind == "heads":
                self._recount(needs)

    def _owner(self, move: Move, needs: Needs) -> str:
        """Return whose key seals a copy; of several, one and always the same."""
        if self._volumes[move.volume].record.seal == PLAIN:
            return ""
        return self._book.owner_of(move.piece, needs)

    def _holdings(self) -> dict[str, Holding]:
        return {name: attached.holding for name, attached in self._volumes.items()}

    def _recount(self, needs: Needs) -> None:
        holdings = self._holdings()
        self._copies = {
            key: count_copies(
                pieces,
                holdings,
                self.local_domain,
                is_sound=not self._damage.of(*key) and self._mender.broken.isdisjoint(pieces),
            )
            for key, pieces in needs.items()
        }

    async def _look(self, name: str) -> None:
        """Find out whether a volume is there and what it holds."""
        attached = self._volumes[name]
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
            self._note_failure(name, error)
            return
        if listing is not None:
            attached.listing, attached.listed_s = listing, now_s
        state = state_after_look(
            attached, readonly=readonly, free_bytes=free, listed=listing is not None
        )
        if state == "readonly":
            attached.reason = "its file system is mounted read-only"
        elif state == "up":
            attached.reason = ""
        attached.state = state

    def _note_failure(self, name: str, error: Exception) -> None:
        attached = self._volumes[name]
        attached.state, attached.reason = state_of(error), sentence_of(error)
        log.warning("volume %s is %s: %s", name, attached.state, attached.reason)
        if attached.state in GONE:  # it will be another when it comes back
            fresh = self._attach(attached.record)
            fresh.state, fresh.reason = attached.state, attached.reason
            fresh.turn = attached.turn  # a thread may still hang in there
            fresh.bad, fresh.alarm = attached.bad, attached.alarm
            self._volumes[name] = fresh
