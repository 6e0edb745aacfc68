"""Images of another store, whose default logs are lost: the job goes on with logs of this one."""

from __future__ import annotations

import dataclasses
import os

import pytest
import trio

from ckptfs.errors import Forbidden
from ckptfs.model import LOGS

from .nodes import COUNTER, assert_counts, bench, python_job, whole_lines, with_rollback

pytestmark = pytest.mark.criu


def run(tmp_path, scenario):
    async def main():
        (tmp_path / "lost").mkdir()
        (tmp_path / "here").mkdir()
        async with bench(tmp_path / "lost") as lost, bench(tmp_path / "here") as here:
            await scenario(lost, here)

    tmp_path.chmod(0o755)
    trio.run(main)


async def save_and_lose(lost, spec):
    """Return a saved image and how many lines its log had; the log is gone."""
    unit = await lost.start(spec)
    await lost.lines(unit, 100)
    saved = await lost.save(unit)
    await unit.kill()
    output = lost.output(unit)
    size = next(file.size_bytes for file in saved.facts.files if file.path == str(output))
    held = output.read_bytes()[:size]
    for path in output.parent.iterdir():
        path.unlink()
    return unit.job, saved, held


def new_lines(path, held):
    """Return the lines after the hole, the line that tells of it taken out."""
    data = path.read_bytes()
    assert len(data) >= len(held)
    notice = f"\n[ckptfs: {len(held)} bytes that stood here were lost with the store]\n".encode()
    assert data[: len(held)] == bytes(len(held) - len(notice)) + notice
    return data[len(held) :].decode().splitlines()


def test_a_job_goes_on_where_its_log_was_and_says_what_is_lost(tmp_path):
    async def scenario(lost, here):
        spec = python_job(COUNTER)
        job, saved, held = await save_and_lose(lost, spec)
        first = len(held.splitlines())
        unit = await here.rebuild(job, spec, saved)
        assert here.output(unit).stat().st_blocks * 512 < len(held) + 8192
        await unit.resume_rst()
        await here.lines(unit, 20)
        assert new_lines(here.output(unit), held)[:3] == [str(first + n) for n in range(3)]
        own = await here.save(unit)
        await unit.kill()
        before = here.output(unit).read_bytes()

        again = await here.rebuild(job, spec, saved, suffix="after-1")
        kept = here.output(unit).with_name("JobUnit_1.out.after-1")
        assert kept.read_bytes() == before
        await again.resume_rst()
        await here.lines(again, 20)
        await again.kill()
        assert new_lines(here.output(again), held)[:2] == [str(first), str(first + 1)]

        back = await here.rebuild(job, spec, own, suffix="after-2")
        size = next(f.size_bytes for f in own.facts.files if f.path.endswith(".out"))
        assert here.output(back).read_bytes() == before[:size]
        await back.resume_rst()
        await here.lines(back, 40)
        await back.kill()
        lines = new_lines(here.output(back), held)
        assert len(lines) > 30  # the hole and its notice are lines as well
        assert lines[:30] == [str(first + n) for n in range(30)]

    run(tmp_path, scenario)


def test_logs_saved_whole_are_whole(tmp_path):
    async def scenario(lost, here):
        spec = with_rollback(python_job(COUNTER))
        job, saved, held = await save_and_lose(lost, spec)
        unit = await here.rebuild(job, spec, saved)
        assert here.output(unit).read_bytes() == held
        await unit.resume_rst()
        await here.lines(unit, len(held.splitlines()) + 5)
        await unit.kill()
        assert_counts(whole_lines(here.output(unit)))

    run(tmp_path, scenario)


def test_a_store_that_was_moved_has_its_logs_moved_with_it(tmp_path):
    async def scenario(lost, here):
        spec = python_job(COUNTER)
        unit = await lost.start(spec)
        await lost.lines(unit, 10)
        saved = await lost.save(unit)
        await unit.kill()
        moved = here.paths.logs / unit.job
        moved.parent.mkdir(parents=True)
        lost.output(unit).parent.rename(moved)
        here_now = {**saved.facts.facts, "store": here.paths.store_id}
        saved = dataclasses.replace(saved, facts=dataclasses.replace(saved.facts, facts=here_now))
        back = await here.rebuild(unit.job, spec, saved)
        await back.resume_rst()
        await here.lines(back, 30)
        await back.kill()
        assert_counts(whole_lines(here.output(back)))

    run(tmp_path, scenario)


@pytest.mark.parametrize("how", ["link", "climbing", "file"])
def test_an_image_does_not_lead_its_logs_elsewhere(tmp_path, how):
    async def scenario(lost, here):
        spec = python_job(COUNTER)
        job, saved, _ = await save_and_lose(lost, spec)
        there = tmp_path / "target"
        logs = there / ("a/../logs" if how == "climbing" else "logs")
        there.mkdir()
        if how == "link":
            logs.symlink_to("/etc")
        elif how == "file":
            logs.write_text("mine")
        named = [
            dataclasses.replace(file, path=f"{logs}/{os.path.basename(file.path)}")
            for file in saved.facts.files
        ]
        facts = {**saved.facts.facts, LOGS: str(logs)}
        hostile = dataclasses.replace(saved.facts, facts=facts, files=tuple(named))
        with pytest.raises(Forbidden, match="the image names its logs in"):
            await here.rebuild(job, spec, dataclasses.replace(saved, facts=hostile))
        assert how != "file" or logs.read_text() == "mine"

    run(tmp_path, scenario)
