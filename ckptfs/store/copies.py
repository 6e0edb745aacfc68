"""Copies of versions on volumes: what is where, copying on, and mending the store from them.

The trio thread decides and knows; whatever touches a volume runs in a worker thread with a
deadline, one at a time per volume, so a volume that hangs holds up nobody but itself.  What a
volume holds is learnt from its listing, so nothing needs to be remembered over a crash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import trio

from ..errors import Busy, CkptfsError, KeyMissing
from ..ids import JobId, Version
from ..model import Head
from .attached import Attached
from .blocks import BlockLoader, PackFiles
from .cleaning import Cleaner
from .copies_api import Pace, VolumeStatus, nobody
from .copies_extra import Extra, Trimmer, drain_text, plan_extra
from .copies_plan import (
    Holding,
    Key,
    Move,
    Needs,
    Piece,
    PieceKind,
    count_copies,
    needed_elsewhere,
    plan_moves,
)
from .copies_proof import CopyProver
from .copies_record import ENCRYPT, LOCAL, PLAIN
from .copies_scrub import CopiesScrub
from .copying import Copier
from .damage import DamageBook
from .fleet import Fleet
from .gone import Gone
from .key_watch import KeyWatch
from .mending import Mender
from .needs import NeedsBook
from .packs import failure_of
from .packs_scrub import PacksScrub
from .superblock import Superblock
from .syscalls import Syscalls
from .trash import Trash
from .versions import Versions
from .volume import LocalVolume

SLICE_S = 30.0  # of copying; then the volumes are looked at and the queue is put in order anew
FIRST_LOOK_S = 3.0  # who wants a head just after a start waits so long for the volumes


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
        self._damage, self._versions = damage, versions
        self.local_domain = LOCAL
        self._fleet = Fleet(block, calls)
        self.trouble = self._fleet.trouble
        self.unfinished = False  # whether a round has left something that can be done now
        local = LocalVolume(block.directory, calls)
        self._trash = Trash(block, calls, volume=local, versions=versions)
        self._book = NeedsBook(block.directory, versions)
        self._watch = KeyWatch(self._fleet.keys)
        self.locked: frozenset[str] = frozenset()
        self._looked = trio.Event()  # what the volumes hold is known
        self._copies: dict[Key, int] = {}
        self.wanted: Callable[[], None] = nobody
        versions.missed = self._miss
        failed = self._fleet.failed
        self._mender = Mender(
            block.directory,
            calls,
            versions=versions,
            damage=damage,
            packs=packs,
            loader=loader,
            volumes=self._by_name,
            locked=self._watch.meet,
        )
        self._copier = Copier(
            block.directory,
            calls,
            versions=versions,
            damage=damage,
            volumes=self._by_name,
            failed=failed,
            broken=self._mender.broken,
        )
        self.gone = Gone(block.directory, calls)
        self.cleaner = Cleaner(
            block.store_id, versions=versions, volumes=self._by_name, failed=failed
        )
        prover = CopyProver(
            block,
            calls,
            versions=versions,
            damage=damage,
            volumes=self._by_name,
            failed=failed,
            broken=self._mender.broken,
        )
        self._packs_scrub = PacksScrub(local, prover=prover, damage=damage)
        self._trimmer = Trimmer(prover=prover, volumes=self._by_name, failed=failed)
        self._scrub = CopiesScrub(block.directory, calls, prover=prover, volumes=self._by_name)
        for attached in self._volumes.values():
            self._scrub.restore(attached)

    @property
    def _volumes(self) -> Mapping[str, Attached]:
        return self._fleet.volumes

    def _by_name(self) -> Mapping[str, Attached]:
        return self._fleet.volumes

    # -- what there is -----------------------------------------------------------

    def rows(self) -> Sequence[VolumeStatus]:
        """Return what is known of each volume; asks none."""
        return self._fleet.rows()

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

    def expect(self, keys: Iterable[Key]) -> None:
        """Be told of versions whose heads are lost: volumes are asked for them in each round."""
        self._versions.expect(keys)

    def lost(self) -> Sequence[Key]:
        """Return the versions whose heads are lost and not back yet."""
        return sorted(self._versions.lost)

    async def fetch_head(self, job: JobId, version: Version) -> Head:
        """Return a head that cannot be read here, from a volume; the next round mends the store.

        Just after a start it waits a moment for the first look at the volumes.
        Raises Corrupt, NotFound (removed meanwhile).
        """
        if self._volumes:
            with trio.move_on_after(FIRST_LOOK_S):
                await self._looked.wait()
        load = self._versions.load_head_or_copy
        head = await trio.to_thread.run_sync(load, job, version)
        self._versions.keep_head(head)
        return head

    def _miss(self, kind: PieceKind, name: str) -> bool:
        """Have a bad object fetched back by a round that begins soon, if a volume holds it."""
        piece = Piece(kind, name)
        held = any(a.readable and piece in a.held for a in self._volumes.values())
        if held and piece not in self._mender.broken:
            self._mender.broken.add(piece)
            self.wanted()
        return held

    def close(self) -> None:
        """Let go of every file on the volumes."""
        for attached in self._volumes.values():
            attached.packs.clear()

    # -- what is asked -----------------------------------------------------------

    async def add(self, directory: str, domain: str = "", seal: str = PLAIN) -> str:
        """Take a directory as a volume; return its name.  See `Fleet.add`."""
        return await self._fleet.add(directory, domain, seal)

    async def scrub(
        self, name: str, pace: Pace, *, since_ns: int, clock_ns: Callable[[], int]
    ) -> tuple[int, int]:
        """Read the copies on a volume that were not read since *since_ns*, and prove them.

        Returns (objects read, damaged); these will be copied anew.
        """
        return await self._scrub.run(name, pace, since_ns=since_ns, clock_ns=clock_ns)

    async def scrub_packs(self, pace: Pace, cursor: str, note: Callable[[str, bool], bool]) -> None:
        """Prove the store's own packs behind *cursor*; see `PacksScrub.run`."""
        await self._packs_scrub.run(pace, cursor, note)

    def set_draining(self, name: str, on: bool) -> None:
        """Have a volume's copies moved elsewhere, or use it again.  Raises NotFound, StoreFull."""
        attached = self._fleet.get(name)
        former = attached.record
        attached.record = replace(former, draining=on)
        try:
            self._fleet.keep(self._volumes)
            if not on:
                self._scrub.trust(attached)
        except CkptfsError:
            attached.record = former
            raise
        except OSError as error:
            raise failure_of(error) from error

    async def remove(self, name: str, levels: Mapping[JobId, int]) -> None:
        """Let a volume go; nothing on it is deleted.

        Raises NotFound; Busy while a version needs it, or while it is not known what it holds.
        """
        attached = self._fleet.get(name)
        if attached.state != "missing" and not attached.record.draining:
            raise Busy(f"drain {name} first: echo {name} drain > ctl/volumes")
        if attached.state not in {"missing", "up", "foreign"}:
            raise Busy(f"{name} is {attached.state}, so it is not known what it holds")
        keys = self._book.keys()
        needs = await trio.to_thread.run_sync(self._book.of, keys)
        is_whole = len(needs) == len(keys) and not self._versions.lost
        if attached.answers and (self._mender.broken or not is_whole):
            raise Busy(f"the store has damage that {name} may mend; see ctl/degraded")
        below = list(needed_elsewhere(name, needs, levels, self._holdings(), self.local_domain))
        if below:
            job, version = below[0]
            count = f"{len(below)} version{'s' * (len(below) > 1)}"
            raise Busy(f"{name} is needed by {count}, first version {version} of {job}")
        if attached.drains and attached.state == "up":
            left = {extra.key for extra in self._extras(needs, levels, [name])}
            if left:
                raise Busy(
                    f"{name} is being emptied: {len(left)} version{'s' * (len(left) > 1)} still "
                    "there; see ctl/volumes"
                )
        self._fleet.keep({key: value for key, value in self._volumes.items() if key != name})
        attached.packs.clear()  # so that its file system can be unmounted

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
        before = (dict(self._copies), self.rows(), self.locked, self.mended())
        await self._fleet.look_at_all()
        self._looked.set()
        keys = self._book.keys()
        needs = await trio.to_thread.run_sync(self._book.of, keys)
        encrypted = [name for name, a in self._volumes.items() if a.record.seal == ENCRYPT]
        owners = {key: self._book.owner(key) for key in needs}
        shut = await trio.to_thread.run_sync(self._watch.look, encrypted, owners)
        await self._mend(needs, pace)
        self._recount(needs)
        is_quiet = await self._copy(needs, levels, shut, pace)
        is_whole = len(needs) == len(keys) and not self._versions.lost
        if is_quiet and is_whole and not self._mender.broken:
            await self._trim(needs, levels, pace)
        for attached in self._volumes.values():
            self._scrub.note_bad(attached)
        self._recount(needs)
        self._tell_progress(needs, levels)
        self.locked = self._watch.sentences(
            lambda key: self._copies.get(key, 0) < levels.get(key[0], 1)
        )
        return before != (self._copies, self.rows(), self.locked, self.mended())

    async def _mend(self, needs: Needs, pace: Pace) -> None:
        broken = self._mender.broken
        broken |= self._book.unreadable
        self._book.unreadable.clear()
        broken |= {Piece("heads", f"{job}@{version}") for job, version in self._versions.lost}
        suspects = {Piece("packs", name) for name in self._damage.quarantined()}
        broken |= suspects & frozenset[Piece]().union(*needs.values())
        for piece in sorted(broken.copy()):
            await self._mender.mend(piece, pace)

    async def _copy(
        self,
        needs: Needs,
        levels: Mapping[JobId, int],
        shut: Mapping[Key, frozenset[str]],
        pace: Pace,
    ) -> bool:
        """Copy what is missing, most urgent first; whether there was nothing to be done."""
        end_s = trio.current_time() + SLICE_S
        failed: set[str] = set()
        moves = plan_moves(needs, levels, self._holdings(), self.local_domain, shut)
        for move in moves:
            if move.volume in failed or move.volume not in self._volumes:
                continue
            if trio.current_time() > end_s:
                self.unfinished = True
                return False
            await pace(0)
            try:
                is_done = await self._copier.carry_out(move, pace, self._owner(move, needs))
            except KeyMissing as error:  # of an object that others' versions need as well
                self._watch.meet("copies cannot be encrypted", error)
                continue
            if not is_done:
                failed.add(move.volume)
            elif move.piece.kind == "heads":
                self._recount(needs)
        if not moves or failed:
            return not moves
        return not plan_moves(needs, levels, self._holdings(), self.local_domain, shut)

    async def _trim(self, needs: Needs, levels: Mapping[JobId, int], pace: Pace) -> None:
        """Let copies go that are too many, once those that stay were read."""
        writable = [name for name, a in self._volumes.items() if a.state in {"up", "full"}]
        extras = self._extras(needs, levels, writable)
        self.unfinished = not await self._trimmer.trim(extras, pace, SLICE_S)

    def _extras(
        self, needs: Needs, levels: Mapping[JobId, int], writable: Collection[str]
    ) -> list[Extra]:
        drained = [name for name, attached in self._volumes.items() if attached.drains]
        return plan_extra(needs, levels, self._holdings(), self.local_domain, writable, drained)

    def _tell_progress(self, needs: Needs, levels: Mapping[JobId, int]) -> None:
        holdings, domain = self._holdings(), self.local_domain
        drained = {name for name, a in self._volumes.items() if a.drains and a.answers}
        trashed = self._trashed() if drained else {}
        for name, attached in self._volumes.items():
            if name in drained:
                attached.progress = drain_text(name, needs, levels, holdings, domain, trashed)
            else:
                attached.progress = ""

    def _trashed(self) -> dict[Key, int]:
        """Return when removed versions expire; where that cannot be told, they are not known."""
        with contextlib.suppress(OSError, CkptfsError):
            return {(entry.job, entry.version): entry.expires_s for entry in self._trash.entries()}
        return {}

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
