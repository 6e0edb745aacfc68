"""What the collector asks of the store: what is needed, what there is, and taking the rest away.

Nothing here decides that something goes; it answers only whether anything can
refer to it.  Every doubt is an exception, and then nothing is deleted: a
listing that fails, a file that does not belong there, a head or manifest that
cannot be read, somebody else writing, a store that is read-only.

Why a version being written never refers to what goes: its packs bear the id of
its session, the packs it may hit are those of one manifest that is a root while
it is written, and the manifest it is about to write is claimed before it is put.
So candidates are listed first and roots taken afterwards, on the trio thread.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

from ..errors import Busy, Corrupt, Degraded, NotFound, TryAgain
from ..ids import JobId, Version
from . import layout
from .blocks import PackFiles
from .collector_record import CollectorRecord
from .compaction import Compaction
from .counting import taken_bytes
from .damage import DamageBook
from .head_listing import Named, heads_on_disk
from .heads import HEAD_MAX
from .leftovers import Leftovers, is_temporary
from .liveness import Holders
from .manifest import MANIFEST_MAX, manifest_packs
from .object_names import NO_NAMES, Names, names_of
from .roots import Condemned, Item, Listed, Live, Roots
from .sessions import sweep_sessions
from .superblock import Superblock
from .syscalls import Syscalls, is_full
from .trash import Trash
from .versions import Versions
from .volume import Kind, LocalVolume
from .writers import Writers

log = logging.getLogger(__name__)
SUFFIXES: dict[Kind, str] = {"packs": ".pack", "manifests": ".manifest", "tables": ".pages"}
BESIDE_FANS = frozenset(
    place.partition("/")[2] for place in (layout.OPEN_PACKS, layout.CONDEMNED, layout.QUARANTINE)
)


class Garbage:
    """Plain methods run on the trio thread; those called *blocking* in a worker thread, one at a
    time.  All raise OSError and CkptfsError when in doubt.
    """

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        *,
        volume: LocalVolume,
        versions: Versions,
        writers: Writers,
        damage: DamageBook,
        packs: PackFiles,
        trash: Trash,
    ) -> None:
        self._directory, self._calls, self._volume = block.directory, calls, volume
        self._versions, self._writers, self._damage = versions, writers, damage
        self._packs, self.trash = packs, trash
        self._leftovers = Leftovers(block.directory, calls)
        self._manifests_of: dict[tuple[JobId, Version], frozenset[str]] = {}  # never change
        self._packs_of: dict[str, Names] = {}  # manifest → packs; likewise
        self.recount = volume.counted.look  # blocking: has the sums follow what was set aside
        self.record = CollectorRecord(block.directory, calls)
        writers.epoch = max(writers.epoch, self.record.read())
        self.compaction = Compaction(
            block,
            calls,
            volume=volume,
            packs=packs,
            damage=damage,
            read=versions.read_manifest,
            promise=writers.space.promise,
        )

    # -- what must stay ---------------------------------------------------------

    def tidy(self) -> None:
        """Remove what writers that died have left behind.  Raises Degraded, Busy (a stranger)."""
        if self._writers.degraded:
            raise Degraded(f"the store is read-only: {self._writers.degraded}")
        running = {guard.session_id for guard in self._writers.guards().values()}
        sweep_sessions(self._directory, self._calls, running)
        self.trash.tidy()
        for entry in self._calls.scan(self._directory / layout.SESSIONS):
            if entry.name not in running and not is_temporary(entry.name):
                raise Busy(f"somebody else writes into this store: sessions/{entry.name}")

    def named(self) -> Named:
        """Return what the directory names.  Any thread; what is found holds while `moment` does."""
        heads = frozenset(heads_on_disk(self._directory, self._calls, self._leftovers))
        return Named(heads, tuple(self.trash.entries()))

    def moment(self) -> object:
        """Return what is equal as long as no version was begun, ended, removed or brought back."""
        return self._versions.changes, frozenset(self._writers.guards())

    def roots(self, named: Named | None = None) -> Roots:
        """Return what must stay from now on, held against the directory, or what was *named*."""
        self._versions.check_none_lost()
        named = named or self.named()
        on_disk, known = named.heads, set(self._versions.keys())
        guards = self._writers.guards()
        strange = on_disk - known - guards.keys()
        if strange or known - on_disk:
            self._versions.miss_heads(known - on_disk)
            job, version = min(strange or known - on_disk)
            word = "appeared" if strange else "vanished"
            raise Corrupt(f"the head of version {version} of {job} {word}")
        sessions = frozenset(guard.session_id for guard in guards.values())
        self._writers.claims.prune(sessions)
        return Roots(
            tuple(sorted(on_disk)),
            named.trash,
            frozenset(name for guard in guards.values() for name in guard.manifests),
            sessions,
        )

    def mark(self, roots: Roots) -> Live:
        """Return everything that *roots* need.  Blocking.

        Raises Corrupt; TryAgain when a version was removed or brought back meanwhile.
        """
        manifests = set(roots.manifests)
        for job, version in roots.heads:
            manifests |= self._named_by(job, version)
        for entry in roots.trash:
            manifests |= self._named_by(entry.job, entry.version, entry.path)
        holders = Holders(manifests, self.packs_in)
        return Live(holders, frozenset(manifests | self._writers.claims.names()))

    def _named_by(self, job: JobId, version: Version, path: Path | None = None) -> frozenset[str]:
        found = self._manifests_of.get((job, version))
        if found is None:
            try:
                path = path or self._versions.path(job, version)
                document = self._calls.read_file(path, HEAD_MAX)
            except FileNotFoundError:
                raise TryAgain(f"version {version} of {job} was moved meanwhile") from None
            head = self._versions.prove(document, job, version)
            found = frozenset(file.manifest.partition(":")[0] for file in head.files)
            self._manifests_of[job, version] = found
        return found

    def packs_in(self, manifest: str) -> Names:
        """Return the packs that a manifest names.  Blocking.  Raises Corrupt, also when missing."""
        found = self._packs_of.get(manifest)
        if found is None:
            try:
                body = self._volume.get("manifests", manifest, MANIFEST_MAX)
            except NotFound as error:
                raise Corrupt(f"manifest {manifest} is missing") from error
            try:
                found = names_of(manifest_packs(manifest, body))
            except ValueError as error:
                raise Corrupt(f"manifest {manifest} names a pack that cannot be") from error
            self._packs_of[manifest] = found
        return found

    # -- what there is ----------------------------------------------------------

    def listed(self) -> Listed:
        """Return every sealed object.  Blocking; call before `roots`."""
        found: Listed = {"packs": {}, "manifests": {}, "tables": {}}
        self._list("packs", ("packs",), found)
        self._list("manifests", ("manifests", "tables"), found)
        return found

    def _list(self, place: str, kinds: tuple[Kind, ...], into: Listed) -> None:
        for fan in self._calls.scan(self._directory / place):
            if place == "packs" and fan.name in BESIDE_FANS:
                continue
            if len(fan.name) != 2 or not fan.is_dir(follow_symlinks=False):
                raise Corrupt(f"{place}/{fan.name} does not belong there")
            names: dict[Kind, list[str]] = {kind: [] for kind in kinds}
            for entry in self._calls.scan(Path(fan.path)):
                for kind in kinds:
                    if name := layout.object_name(kind, entry.name):
                        names[kind].append(name)
                        break
                else:
                    if not is_temporary(entry.name):
                        raise Corrupt(f"{place}/{fan.name}/{entry.name} does not belong there")
                    self._leftovers.note(Path(entry.path))
            for kind in kinds:
                into[kind][fan.name] = names_of(names[kind])

    def dead(self, listed: Listed, live: Live, roots: Roots) -> set[Item]:
        """Return what nothing can come to refer to.  Blocking."""
        rest = {
            Item(kind, name)
            for kind, fans in listed.items()
            for names in fans.values()
            for name in live.unneeded(kind, names)
        }
        return {item for item in rest if item.kind != "packs" or self._is_over(item.name, roots)}

    def _is_over(self, pack: str, roots: Roots) -> bool:
        """Whether a pack proves itself and its version is not being written any more."""
        try:
            fd, footer = self._volume.open_pack(pack)
        except (Corrupt, NotFound):
            return False  # not known to be ours: left to scrub and repair
        self._calls.close(fd)
        return footer.session.hex() not in roots.sessions

    def size_of(self, item: Item) -> int:
        """Return the bytes of an object on the disk, 0 when it is gone."""
        with contextlib.suppress(FileNotFoundError):
            return taken_bytes(self._volume.path(item.kind, item.name).stat())
        return 0

    def free_and_total(self) -> tuple[int, int]:
        """Return bytes free to us and bytes in all of the disk."""
        return self._volume.free_and_total()

    # -- taking away ------------------------------------------------------------

    def raise_epoch(self, now_s: int) -> int:
        """Begin a new epoch, durably, and return it: versions begun from now on are of it."""
        waiting = [condemned.epoch for condemned in self.condemned()]
        epoch = max([self._writers.epoch, *waiting]) + 1
        self.record.keep(epoch, now_s)
        self._writers.epoch = epoch
        return epoch

    def note_end(self, now_s: int) -> None:
        """Remember when the collector last ran, to notice a clock that goes back."""
        self.record.keep(self._writers.epoch, now_s)

    def older_than(self, epoch: int) -> bool:
        """Whether a version begun before *epoch* is still being written."""
        return any(guard.epoch < epoch for guard in self._writers.guards().values())

    def condemn(self, items: Iterable[Item], epoch: int) -> None:
        """Set objects aside.  Blocking.  A full disk does not matter."""
        place = self._directory / layout.CONDEMNED / str(epoch)
        prefix = ""
        try:
            self._calls.mkdir(place)
        except OSError as error:
            if not is_full(error):
                raise
            place, prefix = place.parent, f"{epoch}."
        touched = {place, place.parent}
        for item in sorted(items):
            path = self._volume.path(item.kind, item.name)
            if self._set_aside(item, path, place / f"{prefix}{item.name}{SUFFIXES[item.kind]}"):
                touched.add(path.parent)
        for directory in sorted(touched):
            self._calls.fsync_directory(directory)

    def _set_aside(self, item: Item, path: Path, target: Path) -> bool:
        thinned = self._thinned_by(item)
        with self._writers.claims.held(item.name) as is_claimed:
            if is_claimed:
                return False  # a version with the same content is being committed
            try:
                self._calls.rename(path, target)
            except FileNotFoundError:
                return False  # given up by its writer meanwhile
        self._forget(item)
        self.compaction.thin(thinned)
        return True

    def _thinned_by(self, item: Item) -> Names | None:
        """Return the packs that lose pages when *item* goes, None when that cannot be told."""
        try:
            return self.packs_in(item.name) if item.kind == "manifests" else NO_NAMES
        except (Corrupt, OSError):
            return None

    def _forget(self, item: Item) -> None:
        if item.kind == "packs":
            self._packs.drop(item.name)
        elif item.kind == "manifests":
            self._packs_of.pop(item.name, None)

    def condemned(self) -> list[Condemned]:
        """Return what waits for its end, oldest epoch first."""
        found: dict[int, Condemned] = {}
        place = self._directory / layout.CONDEMNED
        for entry in self._calls.scan(place):
            if entry.is_dir(follow_symlinks=False) and entry.name.isdecimal():
                condemned = found.setdefault(int(entry.name), Condemned(int(entry.name)))
                for inner in self._calls.scan(Path(entry.path)):
                    condemned.items[_item(inner.name)] = Path(inner.path)
            else:
                epoch, _, name = entry.name.partition(".")
                if not epoch.isdecimal():
                    raise Corrupt(f"packs/condemned/{entry.name} does not belong there")
                condemned = found.setdefault(int(epoch), Condemned(int(epoch)))
                condemned.items[_item(name)] = Path(entry.path)
        return [found[epoch] for epoch in sorted(found)]

    def destroy(self, condemned: Condemned, live: Live) -> tuple[int, int]:
        """Unlink what was condemned; return (bytes freed, objects put back).  Blocking.

        An object that is needed after all is put back: that is a bug, and no loss.
        """
        freed = restored = 0
        for item, path in sorted(condemned.items.items()):
            home = self._volume.path(item.kind, item.name)
            if live.needs(item) and not home.exists():
                self._volume.make_room(home)
                self._calls.rename(path, home)
                self._calls.fsync_directory(home.parent)
                restored += 1
                continue
            size = path.stat().st_blocks * 512
            self._calls.unlink(path)
            freed += size
            if item.kind == "packs":
                self._damage.release(item.name)
        place = self._directory / layout.CONDEMNED / str(condemned.epoch)
        if place.is_dir():
            self._calls.rmdir(place)
        self._calls.fsync_directory(place.parent)
        return freed, restored

    def collect_leftovers(self, uptime_s: float) -> int:
        """Unlink small files that a writer which was cut off has left; return bytes.  Blocking.

        *uptime_s*: seconds on a clock that nobody sets.
        """
        files, size = self._leftovers.collect(uptime_s)
        if files:
            log.info("%d temporary files were left over", files)
        return size


def _item(name: str) -> Item:
    for kind, suffix in SUFFIXES.items():
        stem = name.removesuffix(suffix)
        if stem != name and layout.object_name("packs", stem):
            return Item(kind, stem)
    raise Corrupt(f"{name!r} among the condemned does not belong there")
