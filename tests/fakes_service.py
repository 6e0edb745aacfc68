"""An in-memory coordinator and store that keep the contracts of the api files.

Deterministic: nothing happens by itself.  A test calls `complete`, `fail`,
`finish` … where the real service would work in the background.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptfs.coordinator.api import (
    NO_VERSION,
    CheckpointRequest,
    Job,
    Outcome,
    RemovedJob,
    RestartRequest,
    SignalRequest,
    Subscriber,
    UnitStatus,
)
from ckptfs.coordinator.charges import Charges
from ckptfs.coordinator.histogram import Histogram
from ckptfs.errors import (
    Busy,
    CkptfsError,
    Corrupt,
    InvalidInput,
    NoSuchProcess,
    NotAuthorised,
    NotEmpty,
    NotFound,
    Unsupported,
)
from ckptfs.ids import JobId, UnitName, Version, make_job_id, unit_name
from ckptfs.model import (
    Caller,
    FileEntry,
    Head,
    Initiator,
    JobSpec,
    JobState,
    Owner,
    Protocol,
    Purpose,
)
from ckptfs.node.api import Exit, Process
from ckptfs.store.accounts import account_of
from ckptfs.store.api import TRASH_S, Account, Damage, Pace, Pause, Usage
from ckptfs.store.copies_api import VolumeStatus
from ckptfs.store.ingest_api import Ingest, IngestFile
from ckptfs.translib.api import Availability, Capability
from tests.fakes_charges import FakeCharges

UNIT = unit_name(1)
START_NS = 1_790_000_000_000_000_000
BLOCK = 1 << 20


class FakeIngestFile:
    def __init__(self, name: str, ingest: FakeIngest | None = None) -> None:
        self.name = name
        self._ingest = ingest
        self.data = bytearray()
        self.size_bytes = 0

    def write(self, offset: int, data: bytes) -> int:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data
        self.size_bytes = len(self.data)
        if self._ingest is not None:
            self._ingest.admit()
        return len(data)

    async def wait_writable(self) -> None:
        pass

    async def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def truncate(self, size: int) -> None:
        self.data[:] = self.data[:size].ljust(size, b"\0")
        self.size_bytes = size


class FakeIngest:
    def __init__(self, store: FakeStore, job: JobId, version: Version) -> None:
        self.job, self.version = job, version
        self._store = store
        self._files: dict[tuple[UnitName, str], FakeIngestFile] = {}
        self.refused: CkptfsError | None = None
        self._admitted_bytes, self._may_take = 1 << 60, int

    def limit(self, admitted_bytes: int, may_take: Callable[[int], int]) -> None:
        self._admitted_bytes, self._may_take = admitted_bytes, may_take

    def admit(self) -> None:
        if (total := sum(file.size_bytes for file in self._files.values())) > self._admitted_bytes:
            try:
                self._admitted_bytes = self._may_take(total)
            except CkptfsError as error:
                self.refused = error
                raise

    def create(self, unit: UnitName, name: str) -> IngestFile:
        if name.count("/") > 1 or ("/" in name and not name.startswith("files/")):
            raise InvalidInput(f"an image cannot be called {name!r}")
        file = self._files.get((unit, name))
        if file is None:
            file = self._files[unit, name] = FakeIngestFile(name, self)
        file.truncate(0)
        return file

    def files(self, unit: UnitName) -> Mapping[str, IngestFile]:
        return {name: file for (of, name), file in self._files.items() if of == unit}

    def unlink(self, unit: UnitName, name: str) -> None:
        del self._files[unit, name]

    def rename(self, unit: UnitName, old: str, new: str) -> None:
        self._files[unit, new] = self._files.pop((unit, old))
        self._files[unit, new].name = new

    def progress_bytes(self) -> int:
        return sum(file.size_bytes for file in self._files.values())

    async def commit(self, head: Head) -> Head:
        contents = {key: bytes(file.data) for key, file in self._files.items()}
        return self._store.seal(head, contents)

    async def abort(self) -> None:
        self._files.clear()


class FakeReader:
    def __init__(
        self, store: FakeStore, sealed: Sealed, unit: UnitName, name: str, data: bytes
    ) -> None:
        self._store, self._sealed, self._data = store, sealed, data
        self._place = (unit, name)
        self.size_bytes = len(data)
        store.open_readers += 1

    async def read(self, offset: int, size: int) -> bytes:
        for damage in (*self._sealed.damage, *self._sealed.hidden_damage):
            covers = offset < (damage.block + 1) * BLOCK and offset + size > damage.block * BLOCK
            if covers and (damage.unit, damage.name) == self._place:
                if damage not in self._sealed.damage:
                    self._sealed.damage.append(damage)
                raise Corrupt(str(damage))
        return self._data[offset : offset + size]

    def close(self) -> None:
        self._store.open_readers -= 1


@dataclass
class Sealed:
    head: Head
    contents: Mapping[tuple[UnitName, str], bytes]
    unique_bytes: int
    pinned: bool = False
    verified_ns: int = 0
    progress: float | None = None
    damage: list[Damage] = field(default_factory=list[Damage])
    hidden_damage: list[Damage] = field(default_factory=list[Damage])  # found by reading alone


class FakeSummaries:
    """Knows what is there but for *unread* heads; *alone* is counted when asked to."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.unread_heads: set[tuple[JobId, Version]] = set()
        self.counted: set[tuple[JobId, Version]] = set()

    def account(self, job: JobId, version: Version) -> Account | None:
        key = (job, version)
        is_known = key in self._store.sealed and key not in self.unread_heads
        if not is_known or key in self._store.broken_heads:
            return None
        return account_of(self._store.sealed[key].head)

    def moment(self) -> object:
        sealed = self._store.sealed
        newest = max(((s.head.committed_ns, *key) for key, s in sealed.items()), default=None)
        return newest, [list(s.damage) for s in sealed.values() if s.damage]

    def unread(self) -> int:
        return len(self.unread_heads)

    def alone_bytes(self, job: JobId, version: Version) -> int | None:
        is_counted = (job, version) in self.counted
        return self._store.unique_bytes(job, version) if is_counted else None

    async def count_alone(
        self, job: JobId, version: Version | None = None, pace: Pause | None = None
    ) -> None:
        wanted = self._store.versions(job) if version is None else [version]
        self.counted |= {(job, number) for number in wanted}


class FakeStore:
    store_id = "fake"

    def __init__(self) -> None:
        self.summaries = FakeSummaries(self)
        self.sealed: dict[tuple[JobId, Version], Sealed] = {}
        self.broken_heads: set[tuple[JobId, Version]] = set()
        self.trash: dict[tuple[JobId, Version], tuple[Sealed, int]] = {}
        self.open_readers = 0
        self.degraded_reason = ""
        self.scrub_document = b""
        self.now_ns = START_NS + 1

    def seal(self, head: Head, contents: Mapping[tuple[UnitName, str], bytes]) -> Head:
        files = tuple(
            FileEntry(
                unit, name, len(data), hashlib.blake2b(data, digest_size=32).hexdigest(), name
            )
            for (unit, name), data in contents.items()
        )
        size = sum(file.size_bytes for file in files)
        head = replace(head, files=files, logical_bytes=size, stored_bytes=size // 2)
        self.sealed[head.job, head.version] = Sealed(head, contents, size // 2)
        return head

    def _get(self, job: JobId, version: Version) -> Sealed:
        try:
            return self.sealed[job, version]
        except KeyError:
            raise NotFound(f"{job} has no version {version}") from None

    def degraded(self) -> str:
        return self.degraded_reason

    def usage(self) -> Usage:
        logical = sum(sealed.head.logical_bytes for sealed in self.sealed.values())
        return Usage(
            total_bytes=100 << 30,
            free_bytes=40 << 30,
            reserved_bytes=1 << 30,
            stored_bytes=logical // 2,
            logical_bytes=logical,
            versions=len(self.sealed),
            packs=1,
        )

    async def count(self) -> None:
        pass

    def is_counted(self) -> bool:
        return True

    async def wait_counted(self) -> None:
        pass

    def totals(self, job: JobId) -> Mapping[tuple[Purpose, Initiator], tuple[int, int]]:
        totals: dict[tuple[Purpose, Initiator], tuple[int, int]] = {}
        for version in self.versions(job):
            head = self.sealed[job, version].head
            count, size = totals.get((head.purpose, head.initiator), (0, 0))
            totals[head.purpose, head.initiator] = count + 1, size + head.logical_bytes
        return totals

    def account(self, job: JobId, version: Version) -> Account:
        return account_of(self.head(job, version))

    async def added_bytes(self, job: JobId) -> Mapping[Version, int]:
        return {v: s.unique_bytes for (of, v), s in sorted(self.sealed.items()) if of == job}

    def jobs(self) -> Sequence[JobId]:
        return sorted({job for job, _ in self.sealed})

    def versions(self, job: JobId) -> Sequence[Version]:
        return sorted(version for of, version in self.sealed if of == job)

    def head(self, job: JobId, version: Version) -> Head:
        if (job, version) in self.broken_heads:
            raise Corrupt(f"the head of version {version} does not match its hash")
        return self._get(job, version).head

    def begin(
        self, job: JobId, version: Version, *, expect_bytes: int, family: Sequence[JobId] = ()
    ) -> Ingest:
        return FakeIngest(self, job, version)

    async def ready(self, job: JobId, version: Version) -> None:
        self.head(job, version)

    def open(self, job: JobId, version: Version, unit: UnitName, name: str) -> FakeReader:
        sealed = self._get(job, version)
        try:
            data = sealed.contents[unit, name]
        except KeyError:
            raise NotFound(f"no {unit}/{name}") from None
        return FakeReader(self, sealed, unit, name, data)

    async def sums(self, job: JobId, version: Version) -> bytes:
        lines = [
            f"{hashlib.sha256(data).hexdigest()}  ./{f'{unit}/' if unit else ''}{name}\n"
            for (unit, name), data in self._get(job, version).contents.items()
        ]
        return "".join(lines).encode()

    def sums_size(self, job: JobId, version: Version) -> int:
        return sum(
            64 + 2 + 2 + len(f"{unit}/" if unit else "") + len(name) + 1
            for unit, name in self._get(job, version).contents
        )

    async def verify(
        self, job: JobId, version: Version, *, pace: Pace | None = None
    ) -> Sequence[Damage]:
        sealed = self._get(job, version)
        for at in range(0, sealed.head.logical_bytes if pace else 0, BLOCK):
            assert pace
            await pace(min(BLOCK, sealed.head.logical_bytes - at))
        sealed.damage += [d for d in sealed.hidden_damage if d not in sealed.damage]
        if not sealed.damage:
            sealed.verified_ns = self.now_ns
        return sealed.damage

    async def prove(
        self, job: JobId, version: Version, *, up_to_bytes: int = 0
    ) -> Sequence[Damage]:
        sealed = self._get(job, version)
        sealed.damage += [d for d in sealed.hidden_damage if d not in sealed.damage]
        return sealed.damage

    def quarantined(self) -> int:
        return len({(d.job, d.version) for sealed in self.sealed.values() for d in sealed.damage})

    def scrub_record(self) -> bytes:
        return self.scrub_document

    def keep_scrub_record(self, document: bytes) -> None:
        self.scrub_document = document

    def verify_progress(self, job: JobId, version: Version) -> float | None:
        return self._get(job, version).progress

    def damage(self, job: JobId, version: Version) -> Sequence[Damage]:
        return self._get(job, version).damage

    def unique_bytes(self, job: JobId, version: Version) -> int:
        return self._get(job, version).unique_bytes

    def pinned(self, job: JobId, version: Version) -> bool:
        return self._get(job, version).pinned

    def pin(self, job: JobId, version: Version, on: bool) -> None:
        self._get(job, version).pinned = on

    def verified_ns(self, job: JobId, version: Version) -> int:
        return self._get(job, version).verified_ns

    def remove(self, job: JobId, version: Version, *, trash_s: int = TRASH_S) -> None:
        if self._get(job, version).pinned:
            raise Busy(f"version {version} is pinned")
        if self.open_readers:
            raise Busy(f"version {version} is being read")
        self.trash[job, version] = (self.sealed.pop((job, version)), START_NS // 10**9 + trash_s)

    def trashed(self, job: JobId) -> Sequence[tuple[Version, int]]:
        return sorted((v, expires_s) for (of, v), (_, expires_s) in self.trash.items() if of == job)

    def trashed_head(self, job: JobId, version: Version) -> Head:
        if (job, version) not in self.trash:
            raise NotFound(f"version {version} of {job} is not in the trash")
        return self.trash[job, version][0].head

    def undelete(self, job: JobId, version: Version) -> None:
        if (job, version) not in self.trash:
            raise NotFound(f"version {version} of {job} is not in the trash")
        self.sealed[job, version] = self.trash.pop((job, version))[0]

    def close(self) -> None:
        pass


class FakeService:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.charges: Charges = FakeCharges(self.store, self.job)
        self.staging: dict[str, Ingest] = {}
        self.now_ns = START_NS
        self.records: dict[JobId, Job] = {}
        self.removed: dict[JobId, Job] = {}
        self.subscribers: list[Subscriber] = []
        self.troubles: list[str] = []
        self.counts = {"submitted": 0, "complete": 0, "failed": 0}
        self.stops = Histogram()
        self.damaged: list[Damage] = []
        self.scrubbing = False
        self.volume_rows: list[VolumeStatus] = []
        self.found_blockers: tuple[str, ...] = ()
        self.signals: list[SignalRequest] = []

    # what a test does to it

    def add_job(self, name: str = "heat", *, uid: int = 0, gid: int = 0) -> Job:
        job = make_job_id(name, len(self.records) + 42)
        owner = Owner(uid, gid, (), "root" if uid == 0 else f"uid:{uid}")
        spec = JobSpec(name, ("sleep", "60"), "/", {}, owner, jsdl=f"<JobDefinition id='{job}'/>")
        record = Job(job, spec, self.now_ns, JobState.RUNNING, changed_ns=self.now_ns)
        record.units[UNIT] = UnitStatus("n1", 4711, "criu", "running")
        record.stdout, record.stderr = f"/var/log/{job}.out", f"/var/log/{job}.err"
        self.records[job] = record
        self.counts["submitted"] += 1
        self.tell(job)
        return record

    def add_version(
        self, job: Job, files: Mapping[tuple[UnitName, str], bytes] | None = None, **changes: object
    ) -> Version:
        """Commit a version with *files* at once."""
        job.highest_version += 1
        version = Version(job.highest_version)
        contents = files or {
            (UnitName(""), "job.cpx"): b"<job/>\n",
            (UNIT, "unit.cpx"): b"<unit/>\n",
            (UNIT, "pages-1.img"): bytes(range(256)) * 4096 * 3,
            (UNIT, "files/1"): b"step 1\n",
        }
        head = replace(self._new_head(job, version), **changes)  # type: ignore[arg-type]
        self.store.seal(head, contents)
        self._committed(job, version)
        return version

    def _new_head(self, job: Job, version: Version) -> Head:
        return Head(
            job=job.id,
            version=version,
            owner=job.spec.owner,
            committed_ns=self.now_ns,
            purpose=Purpose.USER,
            initiator=Initiator.USER,
            protocol=Protocol.COORDINATED,
            files=(),
            logical_bytes=0,
            stored_bytes=0,
            frozen_usec=1234,
        )

    def _committed(self, job: Job, version: Version) -> None:
        job.versions.append(version)
        job.checkpoint = Outcome(version, "complete")
        job.state = JobState.RUNNING
        job.events["complete"] += 1
        job.stat["checkpoints"] += 1
        self.counts["complete"] += 1
        self.tell(job.id, version)

    async def complete(self, job: Job) -> None:
        """End the checkpoint in work with a commit."""
        assert job.checkpoint is not None
        version = job.checkpoint.version
        ingest = self.staging[f"{job.id}.{version}"]
        await ingest.commit(self._new_head(job, version))
        del self.staging[f"{job.id}.{version}"]
        self._committed(job, version)

    def fail(self, job: Job, reason: str) -> None:
        """End the checkpoint in work without a version."""
        assert job.checkpoint is not None
        self.staging.pop(f"{job.id}.{job.checkpoint.version}", None)
        job.checkpoint = Outcome(job.checkpoint.version, "failed", reason)
        job.state = JobState.RUNNING
        job.events["failed"] += 1
        job.error = f"2026-11-20T11:52:03Z checkpoint: {reason}"
        self.tell(job.id)

    def finish(self, job: Job, code: int = 0, signal: int = 0) -> None:
        """Have the job end."""
        job.state, job.exit = JobState.DONE, Exit(code, signal)
        self.tell(job.id)

    def tell(self, job: JobId | None = None, version: Version | None = None) -> None:
        for subscriber in self.subscribers:
            subscriber(job, version)

    # the Protocol

    def jobs(self) -> Sequence[JobId]:
        return tuple(self.records)

    def job(self, job: JobId) -> Job:
        try:
            return self.records[job]
        except KeyError:
            raise NotFound(f"no job is called {job!r}") from None

    def head(self, job: JobId, version: Version) -> Head:
        return self.store.head(job, version)

    def latest(self, job: JobId) -> Version | None:
        good = [v for v in self.job(job).versions if not self.store.damage(job, v)]
        return good[-1] if good else None

    def version_state(self, job: JobId, version: Version) -> str:
        damage = self.store.damage(job, version)
        return f"damaged ({damage[0]})" if damage else "restartable"

    def subscribe(self, subscriber: Subscriber) -> None:
        self.subscribers.append(subscriber)

    def _authorised(self, job: JobId, caller: Caller) -> Job:
        record = self.job(job)
        if caller.uid not in (0, record.spec.owner.uid):
            raise NotAuthorised(f"{job} belongs to another user")
        return record

    async def submit(self, caller: Caller, document: bytes) -> JobId:
        if not document.startswith(b"<"):
            raise InvalidInput("this is not JSDL")
        return self.add_job("submitted", uid=caller.uid, gid=caller.gid).id

    async def request_checkpoint(
        self, job: JobId, caller: Caller, request: CheckpointRequest
    ) -> Version:
        record = self._authorised(job, caller)
        if record.state is JobState.CHECKPOINTING:
            assert record.checkpoint is not None
            raise Busy(f"version {record.checkpoint.version} is being saved")
        if record.state is not JobState.RUNNING:
            raise Unsupported(f"{job} is {record.state}")
        record.highest_version += 1
        version = Version(record.highest_version)
        record.state = JobState.CHECKPOINTING
        record.checkpoint = Outcome(version, "saving")
        self.staging[f"{job}.{version}"] = self.store.begin(job, version, expect_bytes=0)
        self.tell(job)
        return version

    async def request_restart(self, job: JobId, caller: Caller, request: RestartRequest) -> str:
        record = self._authorised(job, caller)
        version = request.version if request.version is not None else self.latest(job)
        if version not in record.versions:
            raise NotFound(f"{job} has no version {version}")
        assert version is not None
        if request.as_clone:
            return self.add_job("clone", uid=caller.uid).id
        if record.state is JobState.RUNNING:
            raise Busy(f"{job} is running")
        record.state, record.restart = JobState.RESTARTING, Outcome(version, "rebuilding")
        self.tell(job)
        return str(version)

    async def request_suspend(self, job: JobId, caller: Caller) -> Version:
        record = self._authorised(job, caller)
        if record.state is JobState.SUSPENDED:
            return record.versions[-1]
        version = self.add_version(record, {(UNIT, "core.img"): b"core"})
        self.job(job).state = JobState.SUSPENDED
        self.tell(job)
        return version

    async def request_resume(self, job: JobId, caller: Caller) -> Version:
        record = self._authorised(job, caller)
        if record.state is JobState.RUNNING:
            return NO_VERSION
        if record.state is not JobState.SUSPENDED:
            raise Busy(f"{job} is {record.state}")
        record.state = JobState.RUNNING
        self.tell(job)
        return record.versions[-1]

    async def request_kill(self, job: JobId, caller: Caller) -> None:
        self.finish(self._authorised(job, caller), -1, 9)

    async def request_signal(self, job: JobId, caller: Caller, request: SignalRequest) -> None:
        record = self._authorised(job, caller)
        known = {unit.pid for unit in record.units.values()}
        if not known.issuperset({*request.only, *request.others}):
            raise NoSuchProcess("no such process in this job")
        self.signals.append(request)

    def set_protocol(self, job: JobId, caller: Caller, protocol: Protocol) -> None:
        self._authorised(job, caller).protocol = protocol
        self.tell(job)

    def set_retention(self, job: JobId, caller: Caller, rule: str, number: int) -> None:
        setattr(self._authorised(job, caller), rule, number)
        self.tell(job)

    def set_replication(
        self, job: JobId, caller: Caller, level: int, min_level: int | None = None
    ) -> None:
        record = self._authorised(job, caller)
        if level > 1 + len({row.domain for row in self.volume_rows}):
            raise Unsupported(f"there are not {level} failure domains")
        record.replication, record.min_level = level, min_level or record.min_level
        self.tell(job)

    def replicas(self, job: JobId, version: Version) -> int:
        return 1

    def volumes(self) -> Sequence[VolumeStatus]:
        return self.volume_rows

    async def request_volume(
        self, caller: Caller, verb: str, name: str, domain: str = "", seal: str = "plain"
    ) -> str:
        if caller.uid != 0:
            raise NotAuthorised("only root may change volumes")
        if verb == "add":
            word = name.rpartition("/")[2]
            self.volume_rows.append(
                VolumeStatus(word, "up", domain or word, 1, 2, name, "", seal, 3)
            )
            return word
        if name not in {row.name for row in self.volume_rows}:
            raise NotFound(f"no volume is called {name!r}")
        return name

    def pin(self, job: JobId, version: Version, caller: Caller, on: bool) -> None:
        self._authorised(job, caller)
        self.store.pin(job, version, on)
        self.tell(job, version)

    def request_verify(self, job: JobId, version: Version, caller: Caller) -> None:
        self._authorised(job, caller)
        self.store.sealed[job, version].verified_ns = self.now_ns
        self.tell(job, version)

    def verify_text(self, job: JobId, version: Version) -> str:
        return "ok 2026-11-20T11:52:03Z" if self.store.verified_ns(job, version) else "never"

    def scrub_text(self) -> str:
        return "running 0%" if self.scrubbing else "idle (never)"

    def request_scrub(self, caller: Caller, *, on: bool) -> None:
        if caller.uid != 0:
            raise NotAuthorised("only root may scrub the store")
        if on and self.scrubbing:
            raise Busy("the scrub is running already")
        self.scrubbing = on
        self.tell(None)

    def gc_text(self) -> str:
        return "idle (freed 0 bytes)"

    async def request_gc(self, caller: Caller, *, dry: bool, empty_trash: bool) -> str:
        if caller.uid != 0:
            raise NotAuthorised("only root may collect the store's garbage")
        return "heat.42/1 stays: pinned" if dry else "1"

    def trashed(self, job: JobId) -> Sequence[tuple[Version, int]]:
        return self.store.trashed(job)

    def undelete(self, job: JobId, version: Version, caller: Caller) -> None:
        record = self._authorised(job, caller)
        self.store.undelete(job, version)
        record.versions = sorted({*record.versions, version})
        self.tell(job, version)

    def removed_jobs(self) -> Sequence[RemovedJob]:
        return [
            RemovedJob(job, record.spec.owner.uid, tuple(v for v, _ in self.trashed(job)), 9)
            for job, record in sorted(self.removed.items())
        ]

    def undelete_job(self, job: JobId, caller: Caller) -> None:
        record = self.removed.get(job)
        if record is None:
            raise NotFound(f"no removed job is called {job}")
        if caller.uid not in (0, record.spec.owner.uid):
            raise NotAuthorised(f"{job} belongs to another user")
        record.removed = False
        self.records[job] = self.removed.pop(job)
        for version, _ in self.trashed(job):
            self.undelete(job, version, caller)
        self.tell(job)

    def damaged_versions(self) -> Sequence[tuple[JobId, Version]]:
        return [key for key, sealed in sorted(self.store.sealed.items()) if sealed.damage]

    def remove_version(self, job: JobId, version: Version, caller: Caller) -> None:
        record = self._authorised(job, caller)
        self.store.remove(job, version)
        record.versions.remove(version)
        self.tell(job, version)

    def remove_job(self, job: JobId, caller: Caller) -> None:
        record = self._authorised(job, caller)
        if record.state not in {JobState.DONE, JobState.FAILED}:
            raise Busy(f"{job} is {record.state}")
        if record.versions:
            raise NotEmpty(f"{job} has versions")
        record.removed = True
        del self.records[job]
        self.removed[job] = record
        self.tell(job)

    def note_damage(self, damage: Damage) -> None:
        self.damaged.append(damage)
        known = self.store.sealed[damage.job, damage.version].damage
        if damage not in known:
            known.append(damage)
        self.tell(damage.job, damage.version)

    async def refresh_blockers(self, job: JobId) -> None:
        self.job(job).blockers = self.found_blockers

    async def listed_versions(self, job: JobId) -> AsyncIterator[Sequence[Version]]:
        await self.store.summaries.count_alone(job)
        yield self.job(job).versions

    async def processes(self, job: JobId) -> Sequence[Process]:
        if self.job(job).state is not JobState.RUNNING:
            return ()
        return (Process(4711, 1000, 62.5, 0.25, "R", "heat & <cold>"),)

    def checkpointers(self) -> Mapping[str, Availability]:
        return {
            "criu": Availability(True, "4.2.1", frozenset(Capability)),
            "dmtcp": Availability(False, "", frozenset(), "dmtcp_launch is not installed"),
        }

    def node_name(self) -> str:
        return "n1"

    def store_directory(self) -> str:
        return "/var/lib/ckptfs"

    def health(self) -> Sequence[str]:
        return self.troubles

    def usage(self) -> Usage:
        return self.store.usage()

    def levels(self) -> Mapping[str, int]:
        return {"versions_in_work": len(self.staging)}

    def stop_times(self) -> Histogram:
        return self.stops

    def counters(self) -> Mapping[str, int]:
        states = [record.state for record in self.records.values()]
        jobs = {f"jobs_{state}": states.count(state) for state in JobState}
        return {"jobs": len(states), **jobs, "operations": len(self.staging), **self.counts}


__all__ = ["UNIT", "FakeService", "FakeStore"]
