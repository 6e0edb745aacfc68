"""``ctl/space`` and ``ctl/quota``: what they print to whom, and what they take."""

from __future__ import annotations

import pytest
import trio

from ckptfs.coordinator.charges import SpaceRow
from ckptfs.errors import InvalidInput, NotAuthorised, NotFound, OutOfRange
from ckptfs.fs import service_shows, space
from ckptfs.fs.spool import Spool
from ckptfs.fs.views import Recollection, ServiceView, Surroundings
from ckptfs.jobs.sizes import SIZE_MAX, parse_size
from ckptfs.model import Caller, SpaceClass
from tests.fakes_service import FakeService

GIB = 1 << 30
ROWS = [
    SpaceRow("root", 0, SpaceClass.SYSTEM, 1, GIB, GIB // 2, 0, 1, 1),
    SpaceRow("alice", 1000, SpaceClass.USER, 3, 3 * GIB, GIB, 6 * GIB, 5, 6),
]


def view(service: FakeService, uid: int) -> ServiceView:
    return ServiceView(Surroundings(service, Spool(), Recollection(), lambda: 0, lambda: 0.0), uid)


@pytest.fixture
def service() -> FakeService:
    made = FakeService()
    made.charges.counted = ROWS
    made.add_version(made.add_job())
    return made


def test_users_see_their_own_and_root_sees_all(service):
    assert space.space(view(service, 0)).startswith("store ")  # not asked yet
    trio.run(space.refresh, view(service, 0))
    keys = {
        uid: [line.split()[0] for line in space.space(view(service, uid)).splitlines()]
        for uid in (0, 1000, 1001)
    }
    assert keys == {
        0: ["root/system", "alice/user", "store"],
        1000: ["alice/user", "store"],
        1001: ["store"],
    }
    assert space.space(view(service, 1000)).splitlines()[0] == (
        "alice/user versions=3 logical_bytes=3221225472 added_bytes=1073741824"
        " charged_bytes=6442450944 copies=5 copies_wanted=6 dedup_ratio=3.00"
    )
    users = [line.split()[0] for line in space.quota(view(service, 1000)).splitlines()]
    assert users == ["alice", "default"]


def test_the_rest_is_never_negative_and_nothing_is_divided_by_nothing(service):
    trio.run(space.refresh, view(service, 0))  # rows that add more than is stored
    assert "rest_bytes=0 " in space.space(view(service, 0))
    assert space.ratio(0, 0) == space.ratio(5, 0) == "1.00"
    assert space.ratio(5, 2) == "2.50"


def test_quotas_are_set_by_root(service):
    async def main():
        root, alice = view(service, 0), view(service, 1000)
        assert await space.set_quota(root, "alice 10G", Caller(0, 0)) == "alice 10737418240"
        assert await space.set_quota(root, "default 1M", Caller(0, 0)) == "default 1048576"
        assert space.quota(alice).splitlines() == [
            "alice limit_bytes=10737418240 charged_bytes=5 reserved_bytes=0",
            "default limit_bytes=1048576",
        ]
        assert await space.set_quota(root, "alice none", Caller(0, 0)) == "alice none"
        assert "alice limit_bytes=none" in space.quota(alice)
        with pytest.raises(NotAuthorised):
            await space.set_quota(alice, "alice 10G", Caller(1000, 1000))
        with pytest.raises(NotFound):
            await space.set_quota(root, "bob 10G", Caller(0, 0))

    trio.run(main)


@pytest.mark.parametrize(
    "text", ["", "alice", "alice 1 2", "alice ten", "alice 1g", "alice -1", "alice 1.5G", "alice ٣"]
)
def test_what_is_no_quota(text):
    with pytest.raises(InvalidInput):
        space.parse_quota(text)


def test_sizes():
    assert [parse_size(text) for text in ("0", "4096", "1K", "2T")] == [0, 4096, 1024, 2 << 40]
    assert parse_size("1024P") == SIZE_MAX
    for text in ("1025P", "9" * 20, "9" * 4000):
        with pytest.raises(OutOfRange):
            parse_size(text)


def test_the_sums_are_metrics(service):
    text = service_shows.metrics(view(service, 1000))
    charged = sum(map(service.charges.of_job, service.jobs()))
    assert charged > 0
    assert f"ckptfs_charged_bytes {charged}\n" in text
    assert "ckptfs_dedup_ratio 2.0\n" in text
