"""The daemon before it serves: what it refuses, and how it says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from ckptfs import daemon
from ckptfs.errors import CannotRun, NotADirectory, NotEmpty, NotFound


@pytest.mark.parametrize(
    ("store", "mountpoint", "refused"),
    [
        ("/srv/store", "/ckpt", False),
        ("/srv/store", "/srv/storefront", False),
        ("/srv/store", "/srv/store", True),
        ("/srv/store", "/srv/store/mnt", True),
        ("/srv/store", "/srv", True),
        ("/srv/store", "/", True),
    ],
)
def test_store_and_mount_lie_apart(store, mountpoint, refused):
    if refused:
        with pytest.raises(CannotRun, match="lie in each other"):
            daemon.check_places(Path(store), Path(mountpoint))
    else:
        daemon.check_places(Path(store), Path(mountpoint))


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("missing", NotFound),
        ("file", NotADirectory),
        ("full", NotEmpty),
    ],
)
def test_an_unfit_mount_point_is_refused_before_there_is_a_store(tmp_path, place, error):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    words = ["--store", str(tmp_path / "store"), str(tmp_path / place)]
    with pytest.raises(error, match=place):
        trio.run(daemon.run, daemon.parse_arguments(words))
    assert not (tmp_path / "store").exists()


def test_a_service_that_is_ending_does_not_mind_being_told_to_end():
    async def main():
        async with trio.open_nursery() as serving:
            await serving.start(daemon._stop_at_signal, serving.cancel_scope)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()

    try:
        trio.run(main)
        os.kill(os.getpid(), signal.SIGTERM)  # while the rest is being closed
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_paths_are_absolute_whatever_the_caller_says():
    settings = daemon.parse_arguments(["--store", "s", "--ready-fd", "7", "m"])
    assert settings.store == Path.cwd() / "s"
    assert settings.mountpoint == Path.cwd() / "m"
    assert (settings.ready_fd, settings.hide_jobs) == (7, False)


def test_our_refusals_are_found_in_what_nurseries_wrap():
    wrapped = ExceptionGroup("", [ValueError(), ExceptionGroup("", [NotFound("x")])])
    assert [str(error) for error in daemon.refusals(wrapped)] == ["x"]
    assert list(daemon.refusals(ValueError())) == []


def test_readiness_is_told_once_and_a_reader_that_has_gone_is_noticed():
    reader, writer = os.pipe()
    assert daemon.report_ready(writer)
    assert os.read(reader, 64) == b"ready\n"
    assert os.read(reader, 64) == b""
    os.close(reader)
    reader, writer = os.pipe()
    os.close(reader)
    assert not daemon.report_ready(writer)
    assert daemon.report_ready(-1)
