# ruff: noqa: ASYNC110 - what is waited for happens in other processes and raises no trio.Event
"""One suite over every translib: order, repeats, abort, failure, and what runs or stands when."""

from __future__ import annotations

import pytest
import trio

from ckptfs.errors import Busy, CheckpointerFailed, NoSuchProcess, Unsupported

from .arriving import arriving, put
from .translibs import CriuHarness, SimHarness, opened

HARNESSES = [
    pytest.param(SimHarness, id="sim"),
    pytest.param(CriuHarness, id="criu", marks=pytest.mark.criu),
]


@pytest.fixture(params=HARNESSES)
def play(request, tmp_path):
    """Run a scenario with a running unit."""

    def run(scenario):
        async def main():
            harness = request.param(tmp_path)
            async with harness.running():
                with trio.fail_after(60):
                    await scenario(harness, harness.translib, harness.unit, tmp_path / "image")

        trio.run(main, clock=request.param.clock())

    return run


async def assert_runs(harness, unit):
    before = harness.progress(unit)
    with trio.fail_after(10):
        while harness.progress(unit) <= before:
            await trio.sleep(0.01)


async def assert_stands(harness, unit):
    before = harness.progress(unit)
    await trio.sleep(0.05)
    assert harness.progress(unit) == before


class TestContract:
    def test_probe_says_what_it_can(self, play):
        async def scenario(harness, translib, unit, image):
            found = await translib.probe()
            assert found.available
            assert found.version
            assert found.capabilities
            assert found.reason == ""

        play(scenario)

    def test_prepare_stops_nothing(self, play):
        async def scenario(harness, translib, unit, image):
            for _ in range(2):
                preparation = await translib.prepare(unit)
                assert preparation.blockers == ()
                assert preparation.facts[f"{translib.name}_version"]
                await assert_runs(harness, unit)

        play(scenario)

    def test_checkpoint_between_stop_and_resume(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            await assert_stands(harness, unit)
            async with opened(image) as fd:
                await translib.checkpoint(unit, fd)
            await assert_stands(harness, unit)
            assert any(image.iterdir())
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)

        play(scenario)

    def test_repeats_are_harmless(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            await translib.stop(unit)
            async with opened(image) as first:
                await translib.checkpoint(unit, first)
            async with opened(image.with_name("second")) as second:
                await translib.checkpoint(unit, second)
            await assert_stands(harness, unit)
            await translib.resume_cp(unit)
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)

        play(scenario)

    def test_abort_before_and_after_the_stop(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)
            await translib.prepare(unit)
            await translib.stop(unit)
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)

        play(scenario)

    def test_illegal_order_raises_and_changes_nothing(self, play):
        async def scenario(harness, translib, unit, image):
            async with opened(image) as fd:
                for call in (
                    lambda: translib.stop(unit),
                    lambda: translib.checkpoint(unit, fd),
                    lambda: translib.resume_cp(unit),
                    lambda: translib.rebuild(unit, fd),
                    lambda: translib.resume_rst(unit),
                ):
                    with pytest.raises(Busy):
                        await call()
                    await assert_runs(harness, unit)
                await translib.prepare(unit)
                with pytest.raises(Busy):
                    await translib.checkpoint(unit, fd)
                await translib.stop(unit)
                with pytest.raises(Busy):
                    await translib.prepare(unit)
                await translib.resume_cp(unit)
            assert list(image.iterdir()) == []

        play(scenario)

    def test_one_primitive_at_a_time(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            refused = []

            async def again(fd):
                try:
                    await translib.checkpoint(unit, fd)
                except Busy as bad:
                    refused.append(bad)

            async with opened(image) as fd, trio.open_nursery() as nursery:
                nursery.start_soon(again, fd)
                nursery.start_soon(again, fd)
            assert len(refused) == 1
            await translib.resume_cp(unit)

        play(scenario)

    def test_streamed_checkpoint_counts_once_it_has_arrived(self, play):
        async def scenario(harness, translib, unit, image):
            preparation = await translib.prepare(unit)
            await translib.stop(unit)
            async with opened(image) as fd:
                if not preparation.streams:
                    with pytest.raises(Unsupported):
                        await translib.checkpoint(unit, fd, streams=True)
                for has_arrived in (False, True) if preparation.streams else ():
                    async with arriving(unit.work_dir) as files:
                        await translib.checkpoint(unit, fd, streams=True)
                    await assert_stands(harness, unit)
                    assert not any(image.iterdir())
                    if has_arrived:
                        await put(image, files)
                        await translib.confirm(unit, fd)
                    with pytest.raises(CheckpointerFailed):  # none, or confirmed before
                        await translib.confirm(unit, fd)
                if not preparation.streams:
                    with pytest.raises(Unsupported):
                        await translib.confirm(unit, fd)
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)

        play(scenario)

    def test_streamed_image_is_rebuilt(self, play):
        async def scenario(harness, translib, unit, image):
            streams = (await translib.prepare(unit)).streams
            await translib.stop(unit)
            async with opened(image) as fd, arriving(unit.work_dir, needed=streams) as files:
                await translib.checkpoint(unit, fd, **({"streams": True} if streams else {}))
            async with opened(image) as fd:
                await put(image, files)
                await harness.end(unit)
                async with harness.empty() as fresh:
                    await translib.rebuild(fresh, fd)
                    await translib.resume_rst(fresh)
                    await assert_runs(harness, fresh)

        play(scenario)

    def test_failed_checkpoint_leaves_it_stopped_then_running(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            harness.break_checkpoint()
            async with opened(image) as fd:
                with pytest.raises(CheckpointerFailed):
                    await translib.checkpoint(unit, fd)
            await assert_stands(harness, unit)
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)
            await translib.prepare(unit)
            await translib.stop(unit)
            async with opened(image.with_name("second")) as fd:
                await translib.checkpoint(unit, fd)
            await translib.resume_cp(unit)

        play(scenario)

    def test_rebuilt_stands_until_let_go(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            async with opened(image) as fd:
                await translib.checkpoint(unit, fd)
                await harness.end(unit)
                async with harness.empty() as fresh:
                    with pytest.raises(Busy):
                        await translib.resume_rst(fresh)
                    await translib.rebuild(fresh, fd)
                    await translib.rebuild(fresh, fd)
                    await assert_stands(harness, fresh)
                    await translib.resume_rst(fresh)
                    await translib.resume_rst(fresh)
                    await assert_runs(harness, fresh)
                    await translib.prepare(fresh)  # saved again
                    await translib.stop(fresh)
                    async with opened(image.with_name("second")) as second:
                        await translib.checkpoint(fresh, second)
                    await translib.resume_cp(fresh)
                    await assert_runs(harness, fresh)

        play(scenario)

    def test_lazily_rebuilt_goes_on_and_is_whole_in_the_end(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            async with opened(image) as fd:
                await translib.checkpoint(unit, fd)
                await translib.resume_cp(unit)
                assert not translib.is_loading(unit)
                await translib.wait_loaded(unit)  # nothing is missing
                await harness.end(unit)
                assert await translib.end_loading(unit) == ""
                async with harness.empty() as fresh:
                    await translib.rebuild(fresh, fd, lazy=True)
                    await assert_stands(harness, fresh)
                    await translib.resume_rst(fresh)
                    await assert_runs(harness, fresh)
                    await translib.wait_loaded(fresh)
                    assert not translib.is_loading(fresh)
                    await assert_runs(harness, fresh)
                    await harness.end(fresh)
                    assert await translib.end_loading(fresh) == ""
                    assert await translib.end_loading(fresh) == ""

        play(scenario)

    def test_failed_rebuild_can_be_tried_again(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            good, bad = image, image.with_name("bad")
            for directory in (good, bad):
                async with opened(directory) as fd:
                    await translib.checkpoint(unit, fd)
            await harness.end(unit)
            harness.damage(bad)
            async with harness.empty() as fresh, opened(bad) as fd:
                with pytest.raises(CheckpointerFailed):
                    await translib.rebuild(fresh, fd)
                with pytest.raises(Busy):
                    await translib.resume_rst(fresh)
                async with opened(good) as whole:
                    await translib.rebuild(fresh, whole)
                await translib.resume_rst(fresh)
                await assert_runs(harness, fresh)

        play(scenario)

    def test_ended_unit_is_no_such_process(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await harness.end(unit)
            with pytest.raises(NoSuchProcess):
                await translib.prepare(unit)
            with pytest.raises(NoSuchProcess):
                await translib.stop(unit)

        play(scenario)

    def test_cancelled_checkpoint_leaves_it_stopped(self, play):
        async def scenario(harness, translib, unit, image):
            await translib.prepare(unit)
            await translib.stop(unit)
            async with opened(image) as fd:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await translib.checkpoint(unit, fd)
            await assert_stands(harness, unit)
            await translib.resume_cp(unit)
            await assert_runs(harness, unit)

        play(scenario)
