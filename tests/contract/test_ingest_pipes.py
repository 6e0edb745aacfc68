"""Pipes alone: what a checkpointer may do wrong there, and everybody who may end meanwhile."""

from __future__ import annotations

import os
import resource
import struct
import threading

import pytest
import trio
import trio.testing

from ckptfs.errors import CheckpointerFailed, InvalidInput, NoSuchProcess, StoreFull
from ckptfs.ids import UnitName
from ckptfs.store.check import check
from ckptfs.store.hash_ring import SLOTS
from ckptfs.store.ingest import SMALL_MAX
from ckptfs.store.pipes import PIPES_MAX, SOCKET, Pipes
from tests.ingest_kit import Streamer, Streams, dump, write_all
from tests.store_kit import JOB, MIB, UNIT, draft, full, load, noise

from .test_ingest_ways import Kit

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

DATA = noise(6 * MIB + 5)
GONE = (BrokenPipeError, ConnectionResetError)
in_thread = trio.to_thread.run_sync


@pytest.fixture
def kit(tmp_path):
    made = Kit(tmp_path, hash_worker=True)
    yield made
    made.store.close()
    assert not list(made.directory.iterdir())  # no socket is left behind
    assert check(tmp_path / "store") == []


async def is_whole(kit, version=9):
    """The store takes the next version as if nothing had been."""
    with trio.fail_after(20):
        await kit.save(Streams(), {"pages-1.img": DATA}, version=version)
    assert await load(kit.store, "pages-1.img", version=version) == DATA


def refused(kit, act, match):
    """Have *act* done with a fresh streamer; the version fails with a sentence, nothing hangs."""

    async def main():
        ingest = kit.begin()

        async def checkpoint():
            async with ingest.receive(UNIT, kit.directory):
                streamer = Streamer(kit.directory)
                with pytest.raises(GONE):
                    await in_thread(act, streamer)
                streamer.close()
                raise CheckpointerFailed("criu dump: Broken pipe")

        with pytest.raises(InvalidInput, match=match):
            await checkpoint()
        await ingest.abort()
        await is_whole(kit)

    trio.run(main)


def until_refused(streamer):
    """Send until the other side has closed."""
    while True:
        streamer.say(struct.pack("<I", 3))


def test_several_descriptors_at_once(kit):
    def act(streamer):
        reading, writing = os.pipe()
        streamer.request("a.img")
        streamer.give(reading, reading, reading)
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            write_all(writing, DATA)  # every copy of the reading end has been closed
        os.close(writing)
        until_refused(streamer)

    refused(kit, act, "several descriptors")


def test_a_descriptor_beside_the_size(kit):
    def act(streamer):
        reading, writing = os.pipe()
        streamer.give(reading)
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            write_all(writing, DATA)
        os.close(writing)
        until_refused(streamer)

    refused(kit, act, "1 descriptors where 0 belong")


def test_something_else_than_a_pipe(kit, tmp_path):
    def act(streamer):
        with (tmp_path / "plain").open("w+b") as file:
            streamer.request("a.img")
            streamer.give(file.fileno())
        until_refused(streamer)

    refused(kit, act, "something else than a pipe")


def test_the_wrong_end_of_a_pipe(kit):
    def act(streamer):
        reading, writing = os.pipe()
        streamer.request("a.img")
        streamer.give(writing)
        os.close(writing)
        os.close(reading)
        until_refused(streamer)

    refused(kit, act, "wrong end")


@pytest.mark.parametrize("name", ["files/1", "../a", "unit.cpx/x", "a\nb"])
def test_names_that_images_do_not_have(kit, name):
    def act(streamer):
        os.close(streamer.open(name))
        until_refused(streamer)

    refused(kit, act, "cannot be called")


def test_more_pipes_than_may_be_open(kit):
    held = []

    def act(streamer):
        for number in range(PIPES_MAX + 1):
            reading, writing = os.pipe()
            held.append(writing)
            streamer.request(f"a{number}")
            streamer.give(reading)
            os.close(reading)
        until_refused(streamer)

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, before[0]), before[1]))
    try:
        refused(kit, act, "images open")
    finally:
        for writing in held:
            os.close(writing)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_one_name_twice_at_once_is_refused_and_one_after_the_other_begins_anew(kit):
    def act(streamer):
        ends = [streamer.open("a.img"), streamer.open("a.img")]
        try:
            until_refused(streamer)
        finally:
            for end in ends:
                os.close(end)

    refused(kit, act, "twice at once")

    async def main():
        ingest = kit.begin(2)
        async with ingest.receive(UNIT, kit.directory):

            def again():
                streamer = Streamer(kit.directory)
                for data in (noise(5 * MIB, 1), b"", noise(70_000, 2), DATA):
                    streamer.send("a.img", data)
                streamer.close()

            await in_thread(again)
        assert ingest.files(UNIT)["a.img"].size_bytes == len(DATA)
        await ingest.abort()

    trio.run(main)


def test_more_large_files_open_at_once_than_the_ring_has_slots(kit):
    datas = {
        f"pages-{number}.img": noise(SMALL_MAX + MIB // 2 + number, number)
        for number in range(SLOTS + 4)
    }

    def interleaved():
        streamer = Streamer(kit.directory)
        ends = {name: streamer.open(name) for name in datas}
        for at in range(0, 5 * MIB, MIB // 2):
            for name, data in datas.items():
                write_all(ends[name], data[at : at + MIB // 2])
        for end in ends.values():
            os.close(end)
        streamer.close()

    async def main():
        ingest = kit.begin(size=256 * MIB)
        async with ingest.receive(UNIT, kit.directory):
            await in_thread(interleaved)
        await ingest.commit(draft())
        for name, data in datas.items():
            assert await load(kit.store, name) == data

    trio.run(main)


def test_a_version_whose_checkpointer_stands_still_holds_nobody_up(kit):
    async def main():
        slow = kit.begin(1)
        (other := kit.directory.parent / "other").mkdir(mode=0o700)
        async with slow.receive(UNIT, other):
            streamer = await in_thread(Streamer, other)
            end = await in_thread(streamer.open, "pages-1.img")
            await in_thread(write_all, end, DATA[: 5 * MIB])
            await is_whole(kit, version=2)
            await kit.save(Streams(), {"pages-1.img": noise(5 * MIB, 3)}, version=3)
            await in_thread(write_all, end, DATA[5 * MIB :])
            os.close(end)
            streamer.close()
        await slow.commit(draft())
        assert await load(kit.store, "pages-1.img") == DATA

    trio.run(main)


def test_two_units_of_a_version_at_once(kit):
    second = UnitName("JobUnit_2")

    async def main():
        (other := kit.directory.parent / "other").mkdir(mode=0o700)
        ingest = kit.begin()

        async def unit(name, directory, data):
            async with ingest.receive(name, directory):
                await dump(directory, {"pages-1.img": data})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(unit, UNIT, kit.directory, DATA)
            nursery.start_soon(unit, second, other, DATA[::-1])
        assert ingest.files(UNIT)["pages-1.img"].size_bytes == len(DATA)
        assert ingest.files(second)["pages-1.img"].size_bytes == len(DATA)
        await ingest.abort()

    trio.run(main)


def test_the_end_of_the_block_waits_for_the_last_byte(kit):
    """The pages in a pipe are the job's own: it may not go on before."""

    async def main():
        ingest = kit.begin()
        over = trio.Event()

        async def receive(task_status):
            async with ingest.receive(UNIT, kit.directory):
                made = await in_thread(Streamer, kit.directory)
                end = await in_thread(made.open, "pages-1.img")
                task_status.started((made, end))
                # the checkpointer has ended, says the supervisor; somebody still has the pipe
            over.set()

        async with trio.open_nursery() as nursery:
            streamer, end = await nursery.start(receive)
            streamer.close()
            await in_thread(write_all, end, DATA)
            await trio.testing.wait_all_tasks_blocked()
            assert not over.is_set()
            assert not ingest.files(UNIT)
            os.close(end)
            with trio.fail_after(10):
                await over.wait()
        assert ingest.files(UNIT)["pages-1.img"].size_bytes == len(DATA)
        await ingest.abort()

    trio.run(main)


def test_a_checkpointer_that_never_connected(kit):
    async def main():
        ingest = kit.begin()
        with trio.fail_after(10):
            async with ingest.receive(UNIT, kit.directory):
                pass
        assert not ingest.files(UNIT)  # what must be there is asked for afterwards
        with pytest.raises(CheckpointerFailed, match="no such process"):
            async with ingest.receive(UNIT, kit.directory):
                raise CheckpointerFailed("criu dump: no such process")
        await ingest.abort()
        await is_whole(kit)

    trio.run(main)


def test_an_end_in_the_middle_of_a_request_is_a_failure_unless_the_status_tells_more(kit):
    async def cut(ingest, error):
        async with ingest.receive(UNIT, kit.directory):
            streamer = Streamer(kit.directory)
            streamer.request("a.img")
            streamer.close()
            if error:
                raise error

    async def main():
        first, second = kit.begin(1), kit.begin(2)
        with pytest.raises(InvalidInput, match="middle of a request"):
            await cut(first, None)
        with pytest.raises(CheckpointerFailed, match="signal 9"):
            await cut(second, CheckpointerFailed("criu dump: killed by signal 9"))
        await first.abort()
        await second.abort()
        await is_whole(kit)

    trio.run(main)


MOMENTS = ("listening", "connected", "asked", "a small file", "in the middle", "between two")


def upto(directory, moment):
    """Bring a streamer to one of `MOMENTS`; return what it has open."""
    if moment == "listening":
        return None, []
    streamer, ends = Streamer(directory), []
    if moment == "asked":
        streamer.request("a.img")
    if moment == "a small file":
        ends = [streamer.open("a.img")]
        write_all(ends[0], b"few")
    if moment == "in the middle":
        ends = [streamer.open("a.img")]
        write_all(ends[0], DATA)
    if moment == "between two":
        streamer.send("a.img", DATA)
    return streamer, ends


@pytest.mark.parametrize("how", ["cancelled", "fails", "unit ended"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_given_up_at_every_moment(kit, moment, how):
    """The checkpointer gets EPIPE, nobody waits, the version is gone."""
    errors = {"fails": CheckpointerFailed("criu"), "unit ended": NoSuchProcess("the unit")}

    async def main():
        ingest = kit.begin()
        with trio.CancelScope() as scope:
            try:
                async with ingest.receive(UNIT, kit.directory):
                    streamer, ends = await in_thread(upto, kit.directory, moment)
                    if how == "cancelled":
                        scope.cancel()
                        await trio.sleep_forever()
                    raise errors[how]
            except (CheckpointerFailed, NoSuchProcess) as error:
                assert error is errors[how]  # noqa: PT017 - whose sentence it is
        with trio.fail_after(10):
            await ingest.abort()
        for end in ends:
            with pytest.raises(BrokenPipeError):
                await in_thread(write_all, end, bytes(4 * MIB))
            os.close(end)
        if streamer:
            with pytest.raises(GONE):
                await in_thread(until_refused, streamer)
            streamer.close()
        assert not kit.store.versions(JOB)
        await is_whole(kit)

    trio.run(main)


@pytest.mark.parametrize("moment", MOMENTS)
def test_aborted_under_it_at_every_moment(kit, moment):
    async def main():
        ingest = kit.begin()
        receiving = ingest.receive(UNIT, kit.directory)
        await receiving.__aenter__()
        streamer, ends = await in_thread(upto, kit.directory, moment)
        with trio.fail_after(10):
            await ingest.abort()
        for end in ends:
            with pytest.raises(BrokenPipeError):
                await in_thread(write_all, end, bytes(4 * MIB))
            os.close(end)
        if streamer:
            streamer.close()
        await is_whole(kit)

    trio.run(main)


def test_our_sentence_comes_before_the_checkpointers(kit):
    async def main():
        ingest = kit.begin(size=256 * MIB)
        kit.calls.fail_when = lambda name, what: full() if name == "pwrite" else None
        with pytest.raises(StoreFull, match="disk is full") as caught:
            async with ingest.receive(UNIT, kit.directory):
                await dump(kit.directory, {"pages-1.img": noise(40 * MIB)})
        assert "Broken pipe" in str(caught.value.__cause__ or caught.value.__context__)
        kit.calls.fail_when = lambda name, what: None
        await ingest.abort()
        await is_whole(kit)

    trio.run(main)


def test_a_pipe_that_stays_small_is_read_and_the_next_version_goes_through_the_mount(
    kit, monkeypatch
):
    monkeypatch.setattr("ckptfs.store.pipes.PIPE_BYTES", -1)  # which the kernel refuses

    async def main():
        await is_whole(kit, version=1)
        after = kit.begin(2)
        assert "could not be enlarged" in after.receive(UNIT, kit.directory)
        await after.abort()

    trio.run(main)


def test_a_hashing_thread_that_stands_still_does_not_hold_the_job(kit):
    """Whoever gives up goes on at once: the job is thawed behind it."""
    stands, go_on = threading.Event(), threading.Event()

    def stand_still():
        stands.set()
        go_on.wait(20)

    async def main():
        ingest = kit.begin()
        streamer = None
        with trio.move_on_after(10) as scope:
            async with ingest.receive(UNIT, kit.directory):
                streamer, _ends = await in_thread(upto, kit.directory, "in the middle")
                ingest._hashing.submit(stand_still)
                await in_thread(stands.wait)
                scope.cancel()
                await trio.sleep_forever()
        assert not go_on.is_set()  # we are here although it stands
        go_on.set()
        await ingest.abort()
        streamer.close()
        for end in _ends:
            os.close(end)
        await is_whole(kit)

    trio.run(main)


def test_where_pipes_are_not_to_be_had(kit, tmp_path, monkeypatch):
    """Which way a version came is in the log, and so is why."""
    pipes = Pipes()
    assert "No such file or directory" in pipes.listen(tmp_path / "nowhere")
    (open_to_all := tmp_path / "open").mkdir()
    open_to_all.chmod(0o777)
    assert "is not ours alone" in pipes.listen(open_to_all)
    (limit := tmp_path / "limit").write_text("65536\n")
    monkeypatch.setattr("ckptfs.store.pipes._PIPE_MAX_SIZE", limit)
    assert "limit is 65536, below 1048576" in pipes.listen(kit.directory)


def test_a_socket_that_a_killed_service_left(kit):
    (kit.directory / SOCKET).touch()
    trio.run(is_whole, kit)


def test_a_store_that_closes_under_a_checkpointer_which_needs_more_room(kit):
    """Who closes it keeps the trio thread, and so nobody there answers the hashing thread."""
    hold, over = threading.Event(), threading.Event()
    ends = []

    async def main():
        ingest = kit.begin(size=0)  # the first byte needs room
        await ingest.receive(UNIT, kit.directory).__aenter__()
        streamer = await in_thread(Streamer, kit.directory)
        ends.append(await in_thread(streamer.open, "pages-1.img"))
        ingest._hashing.submit(lambda: hold.wait(20))
        write_all(ends[0], b"few")
        hold.set()
        kit.store.close()
        streamer.close()
        over.set()

    threading.Thread(target=trio.run, args=(main,), daemon=True).start()
    assert over.wait(20), "the store does not close"
    with pytest.raises(BrokenPipeError):
        write_all(ends[0], b"more")
    os.close(ends[0])
    (kit.directory / SOCKET).unlink()  # of a service that ends without having given it up
