"""Copies of versions on volumes: what is where, copying on, and mending the store from them.

The trio thread decides and knows; whatever touches a volume runs in a worker thread with a
deadline, one at a time per volume, so a volume that hangs holds up nobody but itself.  What a
volume holds is learnt from its listing, so nothing needs to be remembered over a crash.
"""

from __future__ import annotations

import contextlib
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
    NotFound,
)
from ..ids import JobId, Version
from .attached import FRESH_S, Attached, state_of, within
from .blocks import BlockLoader, PackFiles
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
    VolumeRecord,
    check_word,
    decode_volumes,
    encode_volumes,
)
from .copy_volume import (
    CopyVolume,
    Listing,
    piece_path,
    split_head,
)
from .damage import DamageBook
from .mending import Mender
from .packs import failure_of
from .receiving import prove_pack
from .superblock import Superblock
from .syscalls import Syscalls, write_durably
from .versions import Versions

log = logging.getLogger(__name__)
LOOK_S = 8.0  # for a look at a volume; a control write gives up at 10
COPY_S = 30.0  # for one object, and on top:
COPY_BYTES_PER_S = 4 << 20


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
        self._pieces: dict[Key, frozenset[Piece]] = {}  # of versions; never change
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

    def _read(self) -> list[VolumeRecord]:
        try:
            return decode_volumes(self._calls.read_file(self._directory / FILE, FILE_MAX))
        except FileNotFoundError:
            return []
        except (OSError, Corrupt) as error:
            self.trouble = f"{error}: no volume takes copies until it is put right"
            return []

    def _attach(self, record: VolumeRecord) -> Attached:
        volume = CopyVolume(Path(record.directory), self._calls, record.domain)
        return Attached(record, volume, volume.pack_files())

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
                attached.reason,
            )
            for name, attached in sorted(self._volumes.items())
        ]

    def _word(self, attached: Attached) -> str:
        if attached.record.draining and attached.state == "up":
            return "draining"
        return attached.state

    def domains(self) -> int:
        """Return in how many failure domains copies can be, the store's own included."""
        lasting = (a.record for a in self._volumes.values() if not a.record.draining)
        return len({self.local_domain} | {record.domain for record in lasting})

    def mended(self) -> int:
        """Return how many objects of the store were mended since it was opened."""
        return self._mender.mended

    def count(self, job: JobId, version: Version) -> int:
        """Return how many verified copies a version has, as of the last round."""
        here = int(not self._damage.of(job, version))
        return self._copies.get((job, version), here)

    # -- what is asked -----------------------------------------------------------

    async def add(self, directory: str, domain: str = "") -> str:
        """Take a directory as a volume; return its name.

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
        volume = CopyVolume(path, self._calls, domain)
        limiter = trio.CapacityLimiter(1)
        volume_id = await within(LOOK_S, limiter, partial(volume.claim, self._store_id), name)
        if name in self._volumes or any(
            a.record.volume_id == volume_id for a in self._volumes.values()
        ):
            raise Exists(f"{path} is a volume of this store already")
        attached = self._attach(VolumeRecord(name, str(path), domain, volume_id))
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
        keys = self._keys()
        needs = await trio.to_thread.run_sync(self._needs, keys)
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

        *pace* is awaited before each object.
        """
        if not self._volumes:
            self._copies.clear()
            return False
        before = (dict(self._copies), self.rows())
        async with trio.open_nursery() as nursery:
            for name in list(self._volumes):
                nursery.start_soon(self._look, name)
        needs = await trio.to_thread.run_sync(self._needs, self._keys())
        suspects = {Piece("packs", name) for name in self._damage.quarantined()}
        self._mender.broken |= suspects & frozenset[Piece]().union(*needs.values())
        for piece in sorted(self._mender.broken.copy()):
            await pace()
            await self._mender.mend(piece)
        self._recount(needs)
        failed: set[str] = set()
        for move in plan_moves(needs, levels, self._holdings(), self.local_domain):
            if move.volume not in failed:
                await pace()
                if not await self._carry_out(move):
                    failed.add(move.volume)
                elif move.piece.kind == "heads":
                    self._recount(needs)
        self._recount(needs)
        return before != (self._copies, self.rows())

    def _keys(self) -> list[Key]:
        jobs = self._versions.jobs()
        return [(job, version) for job in jobs for version in self._versions.versions(job)]

    def _needs(self, keys: Sequence[Key]) -> Needs:
        """Return the objects of each version that can be read.  Worker thread."""
        found: dict[Key, frozenset[Piece]] = {}
        for key in keys:
            if key not in self._pieces:
                with contextlib.suppress(CkptfsError):
                    self._pieces[key] = self._pieces_of(*key)
            if key in self._pieces:
                found[key] = self._pieces[key]
        for key in self._pieces.keys() - set(keys):
            self._pieces.pop(key, None)
        return found

    def _pieces_of(self, job: JobId, version: Version) -> frozenset[Piece]:
        head_piece = Piece("heads", f"{job}@{version}")
        try:
            head = self._versions.load_head(job, version)
        except Corrupt:
            self._mender.broken.add(head_piece)
            raise
        pieces = {head_piece}
        for manifest_id in {file.manifest.partition(":")[0] for file in head.files}:
            manifest = self._versions.load_manifest(manifest_id)
            pieces |= {Piece("manifests", manifest_id)}
            pieces |= {Piece("packs", pack) for pack in manifest.packs}
            if piece_path(self._directory, Piece("tables", manifest_id)).is_file():
                pieces.add(Piece("tables", manifest_id))
        return frozenset(pieces)

    def _holdings(self) -> dict[str, Holding]:
        return {
            name: Holding(
                a.record.domain,
                a.listing.held if a.answers else frozenset(),
                a.state == "up" and not a.record.draining,
                not a.record.draining,
            )
            for name, a in self._volumes.items()
        }

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
        was_there = attached.state not in {"missing", "slow", "stale"}
        relist = not was_there or now_s - attached.listed_s > FRESH_S

        def look() -> Listing | None:
            found = attached.volume.check(self._store_id)
            if found != attached.record.volume_id:
                raise Busy(f"{attached.record.directory} holds another volume of this store")
            return attached.volume.listing() if relist else None

        try:
            listing = await within(LOOK_S, attached.turn, look, name)
        except (CkptfsError, OSError) as error:
            self._note_failure(name, error, looking=True)
            return
        if listing is not None:
            attached.listing, attached.listed_s = listing, now_s
        if listing is not None or attached.state not in {"full", "readonly"}:
            attached.state, attached.reason = "up", ""

    def _note_failure(self, name: str, error: Exception, *, looking: bool = False) -> None:
        attached = self._volumes[name]
        attached.state, attached.reason = state_of(error), str(error)
        log.warning("volume %s is %s: %s", name, attached.state, error)
        if not attached.answers:  # it will be another when it comes back
            fresh = self._attach(attached.record)
            fresh.state, fresh.reason = attached.state, attached.reason
            fresh.turn = attached.turn  # a thread may still hang in there
            self._volumes[name] = fresh

    async def _carry_out(self, move: Move) -> bool:
        """Copy one object; False when the volume can take no more for now."""
        attached = self._volumes[move.volume]
        source = piece_path(self._directory, move.piece)

        def copy() -> int:
            self._prove_document(move.piece)
            return attached.volume.receive(source, move.piece)

        try:
            size = source.stat().st_size
            await within(COPY_S + size / COPY_BYTES_PER_S, attached.turn, copy, move.volume)
        except (NotFound, FileNotFoundError):
            if source.exists():
                self._note_failure(move.volume, NotFound("the volume vanished"))
                return False
            return True  # collected meanwhile, or missing: found by whoever reads it
        except Corrupt as error:
            return await self._judge(move, error)
        except (CkptfsError, OSError) as error:
            self._note_failure(move.volume, error)
            return False
        attached.listing = replace(
            attached.listing,
            held=attached.listing.held | {move.piece},
            used_bytes=attached.listing.used_bytes + size,
            free_bytes=max(0, attached.listing.free_bytes - size),
        )
        return True

    def _prove_document(self, piece: Piece) -> None:
        if piece.kind == "heads":
            self._versions.load_head(*split_head(piece.name))
        elif piece.kind == "manifests":
            self._versions.read_manifest(piece.name)

    async def _judge(self, move: Move, error: Corrupt) -> bool:
        """Tell a damaged original from a volume that does not keep what it is given."""
        if move.piece.kind == "packs":
            path = piece_path(self._directory, move.piece)
            try:
                await trio.to_thread.run_sync(prove_pack, self._calls, path, move.piece.name)
            except (Corrupt, NotFound, OSError):
                self._damage.quarantine(move.piece.name)
                self._mender.broken.add(move.piece)
                return True
        self._note_failure(move.volume, error)
        return False
