"""What a writer that was cut off has left is collected; what is being written is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ckptfs.store.check import check
from ckptfs.store.leftovers import OLD_S, Leftovers
from ckptfs.store.sessions import sweep_sessions
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import JOB, MIB, noise, save
from tests.unit.test_gc_sweep import World

NAME = ".4242424242424242424242424242424242424242.tmp"


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.store.close()


def leave(directory: Path, *places: str) -> list[Path]:
    paths = [directory / place for place in places]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
    return paths


async def later(world: World, seconds: float):
    world.now_s += seconds
    world.uptime_s += seconds
    return await world.collect()


async def test_what_was_left_goes_after_two_looks(world, autojump_clock):
    await save(world.store, {"pages": noise(MIB)})
    left = leave(
        world.directory,
        f"manifests/42/{NAME}",
        f"packs/42/{NAME}",
        f"heads/{JOB}/.2.tmp",
        "keys/.pages.key.tmp",
        ".scrub.json.tmp",
        f"packs/quarantine/{NAME}",
    )
    for wait_s in (0.0, OLD_S - 60):
        assert (await later(world, wait_s)).doubt == ""
        assert all(path.exists() for path in left)
    report = await later(world, 61.0)
    assert report.doubt == ""
    assert report.freed_bytes >= len(left) * 5000
    assert not any(path.exists() for path in left)
    assert check(world.directory) == []


async def test_one_that_is_being_written_stays(world, autojump_clock):
    (path,) = leave(world.directory, f"manifests/42/{NAME}")
    await later(world, 0.0)
    path.unlink()
    leave(world.directory, f"manifests/42/{NAME}")  # the same name, another file
    await later(world, OLD_S)
    assert path.exists()
    path.write_bytes(b"goes on")
    await later(world, OLD_S)
    assert path.exists()
    await later(world, OLD_S)
    assert not path.exists()


def test_nothing_but_files_of_that_name_is_touched(tmp_path):
    """A link, a directory, and a file without the temporary form of name."""
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    (tmp_path / ".link.tmp").symlink_to(kept)
    (tmp_path / ".directory.tmp").mkdir()
    os.mkfifo(tmp_path / ".pipe.tmp")
    leave(tmp_path, "visible.tmp", ".hidden", ".gone.tmp")
    leftovers = Leftovers(tmp_path, Syscalls())
    assert leftovers.collect(0.0) == (0, 0)
    files, size = leftovers.collect(OLD_S)
    assert files == 1
    assert size >= 5000
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"kept", ".link.tmp", ".directory.tmp", ".pipe.tmp", "visible.tmp", ".hidden"}


def test_a_session_that_cannot_be_read_keeps_its_pages(tmp_path):
    """It may be another machine's: only what it says is proof that its writer has gone."""

    class Unreadable(Syscalls):
        def read_file(self, path, limit):
            raise OSError(errno.EIO, "Input/output error")

    session, pages = leave(tmp_path, "sessions/aa", "packs/open/aa.1")
    assert sweep_sessions(tmp_path, Unreadable()) == 0
    assert session.exists()
    assert pages.exists()
    assert sweep_sessions(tmp_path, Syscalls()) == 1
    assert not session.exists()
    assert not pages.exists()
