"""Who pays for what, and what is refused because somebody would pay more than they may.

Charges are sums over the figures of heads, never kept anywhere, so they cannot drift.  What a
version in work will be charged is reserved on the job's lock from the request to the commit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping

import trio

from ..errors import (
    CkptfsError,
    Corrupt,
    NotAuthorised,
    NotFound,
    OutOfRange,
    QuotaExceeded,
    TryAgain,
)
from ..gc.decide import charge_of, class_of
from ..ids import JobId, Version
from ..jobs.accounts import find_uid, user_name
from ..jobs.quotas import NAME, Quotas, decode_quotas, encode_quotas
from ..jobs.sizes import SIZE_MAX
from ..model import Caller, Initiator, Purpose, SpaceClass
from ..security.access import ROOT_UID
from .api import CheckpointRequest, Job
from .charges import DEFAULT, QuotaRow, SpaceRow
from .parts import Parts
from .registry import Operation

log = logging.getLogger(__name__)
REFRESH_S = 0.5  # what is not counted by then is in the background, for the next time
BREATH = 200  # versions summed up before others get their turn


class Charging:
    """See charges.Charges, for the mount; `require` and `charge_of` are for the verbs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rows: list[SpaceRow] = []
        self._added: dict[JobId, Mapping[Version, int]] = {}
        self.is_partial = self._goes_on = False
        self._quotas = Quotas()
        self.trouble = ""  # one sentence when the quotas cannot be read: nothing limits anybody
        try:
            self._quotas = decode_quotas(parts.directory.kept(NAME))
        except (Corrupt, OSError) as error:
            self.trouble = f"no quota holds: {error}"
            log.error("%s", self.trouble)

    # -- what is charged ------------------------------------------------------

    def of_version(self, job: JobId, version: Version) -> tuple[SpaceClass, int]:
        """See Charges."""
        account, record = self._parts.store.account(job, version), self._parts.registry.get(job)
        charge = _charge(record, account.purpose, account.initiator, account.logical_bytes)
        return class_of(account.purpose, account.initiator), charge

    def of_job(self, job: JobId) -> int:
        """See Charges.  What cannot be read counts nothing: nobody knows its size any more."""
        record = self._parts.registry.jobs.get(job)
        return sum(
            charge_of(
                *kind,
                logical_bytes=logical_bytes,
                copies_wanted=record.replication if record else 1,
            )
            for kind, (_, logical_bytes) in self._parts.store.totals(job).items()
        )

    def reserved(self, job: JobId) -> int:
        """Return what a version of *job* in work may come to be charged."""
        operation = self._parts.registry.operations.get(job)
        if operation is None or operation.version in self._parts.store.versions(job):
            return 0  # it is committed: charged, not reserved
        return operation.charge_bytes

    def _jobs_of(self, uid: int) -> list[Job]:
        jobs = self._parts.registry.jobs.values()
        return [job for job in jobs if job.spec.owner.uid == uid]

    # -- what is refused ------------------------------------------------------

    def _is_limited(self, job: Job) -> bool:
        return bool(job.keep_user_bytes or self._quotas.limit_of(job.spec.owner.uid))

    def _require_counted(self) -> None:
        if not self._parts.store.is_counted():
            raise TryAgain("the service was started just now and still counts what there is")

    async def ready(self, job: Job) -> None:
        """Wait until what *job* is charged is known, if that matters.  Raises TryAgain."""
        if self._is_limited(job):
            with trio.move_on_after(self._parts.deadlines.request_s):
                await self._parts.store.wait_counted()
            self._require_counted()

    def require(self, job: Job, more_bytes: int) -> None:
        """Raise QuotaExceeded (EDQUOT) unless *job* may be charged *more_bytes* more.

        Raises TryAgain while the store is being counted; `ready` waits for the end.
        """
        if more_bytes <= 0 or not self._is_limited(job):
            return
        self._require_counted()
        if space := job.keep_user_bytes:
            left = space - self.of_job(job.id) - self.reserved(job.id)
            if more_bytes > left:
                raise QuotaExceeded(
                    f"of the {space} bytes provided for versions of {job.id} {max(0, left)} are"
                    f" left, {more_bytes} are needed: remove versions, or raise keep_user_bytes"
                )
        uid = job.spec.owner.uid
        if limit := self._quotas.limit_of(uid):
            jobs = self._jobs_of(uid)
            left = limit - sum(self.of_job(each.id) + self.reserved(each.id) for each in jobs)
            if more_bytes > left:
                raise QuotaExceeded(
                    f"of the quota of {job.spec.owner.user}, {limit} bytes, {max(0, left)} are"
                    f" left, {more_bytes} are needed: remove versions, or ask root for more"
                )

    def require_copies(self, job: Job, level: int) -> None:
        """Raise QuotaExceeded when *level* copies of what there is would be charged too much."""
        self.require(job, self.of_job(job.id) // job.replication * (level - job.replication))

    def require_back(self, job: Job, versions: Iterable[Version]) -> None:
        """Raise QuotaExceeded when there is no room for *versions* of the trash."""
        more_bytes = 0
        for version in versions:
            with contextlib.suppress(Corrupt, NotFound):  # it cannot come back, so it costs nothing
                head = self._parts.store.trashed_head(job.id, version)
                more_bytes += _charge(job, head.purpose, head.initiator, head.logical_bytes)
        self.require(job, more_bytes)

    def require_keep(self, job: Job, space: int) -> None:
        """Raise QuotaExceeded when *space* is not enough for what is there already."""
        self._require_counted()
        charged = self.of_job(job.id) + self.reserved(job.id)
        if space and charged > space:
            raise QuotaExceeded(f"{job.id} is charged {charged} bytes already: remove versions")
        self.require_space(job.spec.owner.uid, space)

    def require_space(self, uid: int, space: int) -> None:
        """Raise QuotaExceeded when a user promises a job more than they may use themselves."""
        limit = self._quotas.limit_of(uid)
        if limit and space > limit:
            raise QuotaExceeded(f"your quota is {limit} bytes, fewer than the {space} promised")

    def reserve(
        self, job: Job, operation: Operation, request: CheckpointRequest, logical_bytes: int
    ) -> None:
        """Reserve what a version of this size will be charged, or raise QuotaExceeded.

        May be repeated when the version turns out larger.
        """
        charge = _charge(job, request.purpose, request.initiator, logical_bytes)
        former, operation.charge_bytes = operation.charge_bytes, 0
        try:
            self.require(job, charge if charge > former else 0)
            former = charge
        finally:
            operation.charge_bytes = former

    # -- quotas ---------------------------------------------------------------

    def quotas(self) -> list[QuotaRow]:
        """See Charges."""
        jobs = list(self._parts.registry.jobs.values())
        uids = {job.spec.owner.uid for job in jobs if job.versions} | set(self._quotas.limits)
        rows: list[QuotaRow] = []
        for uid in sorted(uids):
            own = [job.id for job in jobs if job.spec.owner.uid == uid]
            charged, reserved = sum(map(self.of_job, own)), sum(map(self.reserved, own))
            limit = self._quotas.limit_of(uid)
            rows.append(QuotaRow(user_name(uid), uid, limit, charged, reserved))
        return rows

    def default_limit(self) -> int:
        """See Charges."""
        return self._quotas.default

    def set_limit(self, caller: Caller, user: str, limit: int | None) -> None:
        """See Charges."""
        if caller.uid != ROOT_UID:
            raise NotAuthorised("only root may set quotas")
        if limit is not None and not 0 <= limit <= SIZE_MAX:
            raise OutOfRange(f"a quota is 0 to {SIZE_MAX} bytes, not {limit}")
        uid = None if user == DEFAULT else find_uid(user)
        quotas = self._quotas.with_limit(uid, limit)
        self._parts.directory.keep(NAME, encode_quotas(quotas))
        self._quotas, self.trouble = quotas, ""
        log.info("quota of %s: %s bytes", user, limit)
        self._parts.registry.changed(None)

    # -- who has what ---------------------------------------------------------

    def rows(self) -> list[SpaceRow]:
        """See Charges."""
        return self._rows

    async def refresh(self) -> None:
        """See Charges.  Where versions went, manifests are compared in a worker thread."""
        if not self._parts.store.is_counted():
            self.is_partial = True
            return
        self.is_partial = False
        with trio.move_on_after(REFRESH_S) as scope:
            await self._count_all()
        self.is_partial = scope.cancelled_caught
        if self.is_partial and not self._goes_on:
            self._goes_on = True
            self._parts.background.spawn("what versions add", self._go_on)
        sums: dict[tuple[int, SpaceClass], list[int]] = {}
        for at, (job, version) in enumerate(self._versions()):
            self._add(sums, job, version, self._added.get(job.id, {}).get(version))
            if at % BREATH == 0:
                await trio.lowlevel.checkpoint()
        self._rows = [
            SpaceRow(user_name(uid), uid, space_class, *figures)
            for (uid, space_class), figures in sorted(sums.items())
        ]

    async def _go_on(self) -> None:
        try:
            await self._count_all()
        finally:
            self._goes_on = False

    async def _count_all(self) -> None:
        for job in list(self._parts.registry.jobs.values()):
            try:
                self._added[job.id] = await self._parts.store.added_bytes(job.id)
            except CkptfsError as error:
                log.error("%s cannot be counted: %s", job.id, error)

    def _versions(self) -> list[tuple[Job, Version]]:
        jobs = self._parts.registry.jobs
        self._added = {job: added for job, added in self._added.items() if job in jobs}
        return [(job, version) for job in jobs.values() for version in job.versions]

    def _add(
        self,
        sums: dict[tuple[int, SpaceClass], list[int]],
        job: Job,
        version: Version,
        added_bytes: int | None,
    ) -> None:
        try:
            account = self._parts.store.account(job.id, version)
            space_class, charged = self.of_version(job.id, version)
        except (Corrupt, NotFound):
            return  # it cannot be read, or was removed meanwhile
        copies = self._parts.copies.count(job.id, version)
        added = account.stored_bytes if added_bytes is None else added_bytes
        figures = (1, account.logical_bytes, added, charged, copies, job.replication)
        row = sums.setdefault((job.spec.owner.uid, space_class), [0] * len(figures))
        row[:] = [known + more for known, more in zip(row, figures, strict=True)]


def _charge(job: Job, purpose: Purpose, initiator: Initiator, logical_bytes: int) -> int:
    return charge_of(purpose, initiator, logical_bytes=logical_bytes, copies_wanted=job.replication)
