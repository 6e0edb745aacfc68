"""Image files that are opened: how the kernel may keep them."""

import pytest
import trio

from ckptfs.fs import images
from ckptfs.fs.nodes import Kind, Node
from ckptfs.fs.operations import file_info
from ckptfs.ids import UnitName
from tests.fakes_service import UNIT, FakeService


@pytest.mark.parametrize(
    ("name", "read_through", "straight"),
    [("pages-1.img", True, True), ("pages-1.img", False, False), ("unit.cpx", True, False)],
)
def test_only_large_files_that_are_read_through_go_past_the_page_cache(
    monkeypatch, name, read_through, straight
):
    monkeypatch.setattr(images, "STRAIGHT_BYTES", 3 << 20)
    service = FakeService()
    job = service.add_job("heat")
    version = service.add_version(job)
    job.read_through = {(1, UNIT)} if read_through else {(2, UNIT), (1, UnitName("JobUnit_2"))}
    node = Node(Kind.IMAGE, job=job.id, version=version, unit=UNIT, name=name)
    opened = trio.run(images.open_image, service, node)
    assert opened.straight is straight
    flags = file_info(7, node, opened)
    assert (flags.direct_io, flags.keep_cache) == (straight, True)
