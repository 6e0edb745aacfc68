"""In-memory charges that keep the contract of `coordinator.charges`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ckptfs.coordinator.api import Job
from ckptfs.coordinator.charges import DEFAULT, QuotaRow, SpaceRow
from ckptfs.errors import NotAuthorised, NotFound
from ckptfs.gc.decide import class_of
from ckptfs.ids import JobId, Version
from ckptfs.model import Caller, SpaceClass
from ckptfs.store.api import Store


class FakeCharges:
    def __init__(self, store: Store, job: Callable[[JobId], Job]) -> None:
        self._store, self._job = store, job
        self.counted: list[SpaceRow] = []
        self._rows: Sequence[SpaceRow] = ()
        self.is_partial = False
        self.limits: dict[str, int] = {}

    def of_version(self, job: JobId, version: Version) -> tuple[SpaceClass, int]:
        head = self._store.head(job, version)
        space_class = class_of(head.purpose, head.initiator)
        is_users = space_class is SpaceClass.USER
        return space_class, head.logical_bytes * self._job(job).replication * is_users

    def of_job(self, job: JobId) -> int:
        return sum(self.of_version(job, version)[1] for version in self._store.versions(job))

    async def refresh(self) -> None:
        self._rows = tuple(self.counted)

    def rows(self) -> Sequence[SpaceRow]:
        return self._rows

    def quotas(self) -> Sequence[QuotaRow]:
        users = {"root": 0, "alice": 1000}
        return [QuotaRow(user, uid, self.limits.get(user, 0), 5, 0) for user, uid in users.items()]

    def default_limit(self) -> int:
        return self.limits.get(DEFAULT, 0)

    def set_limit(self, caller: Caller, user: str, limit: int | None) -> None:
        if caller.uid != 0:
            raise NotAuthorised("only root may set quotas")
        if user not in (DEFAULT, "root", "alice"):
            raise NotFound(f"no user is called {user!r} here")
        self.limits[user] = limit or 0
