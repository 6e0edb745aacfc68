"""The bench's own arithmetic and words; its measurements are nobody's test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptfs.store.store import open_store
from tools.benchlib import machine
from tools.benchlib.compare import HEAD, Side, _row
from tools.benchlib.ingest import Copied
from tools.benchlib.liveness import live_bytes
from tools.benchlib.machine import Job
from tools.benchlib.memory import split
from tools.benchlib.plot import height
from tools.benchlib.programs import PROGRAMS, write_program
from tools.benchlib.rows import GOALS, PAGE, Found, page_hashes, remarks, results, table
from tools.benchlib.scratch import PREFIX, scratch
from tools.benchlib.slack import savings
from tools.benchlib.synthetic import JOB, Size, build

BENCH = Path(__file__).parents[2] / "tools" / "bench"


def test_row_shows_first_later_and_only_the_versions_there_are():
    side = Side("x", still_s=[3.0, 1.0, 2.0], cpu_s=[1.0] * 3, stored_bytes=[10**7, 2 * 10**7, 0])
    words = _row(side).split()
    assert words == ["x", "3.00", "1.50", "-", "10", "20", "-", "1.00", "0", "-", "-"]
    assert len(_row(side)) == len(HEAD)


def test_gaps_count_from_a_line_on(tmp_path):
    gaps = tmp_path / "gaps"
    gaps.write_text("ready\n0.9\n0.025\n0.5\n")
    job = Job(tmp_path, "j.1", gaps)
    assert (job.lines(), job.longest_gap_s(2), job.longest_gap_s(4)) == (4, 0.5, 0.0)


def test_measure_counts_what_the_command_took():
    code = "import time; bytes(50_000_000).count(1); time.sleep(0.05)"
    cost = machine.measure(sys.executable, "-c", code)
    assert cost.wall_s >= 0.05
    assert cost.cpu_s > 0
    assert cost.peak_bytes > 50_000_000


def test_programs_compile(tmp_path):
    for name in PROGRAMS:
        _, script, mib = write_program(tmp_path, name, 8)
        compile(Path(script).read_text(), name, "exec")
        assert mib == "8"


def test_bars_are_medians_of_later_versions_and_all_that_is_stored():
    side = {"still_s": [9.0, 1.0, 3.0], "safe_s": [], "stored_bytes": [1, 5_000_000]}
    assert [height(key, side) for key in side] == [2.0, 0.0, 5.0]


@pytest.mark.wrong_store("its packs hold no pages")
def test_a_synthetic_store_is_one_to_the_store_and_the_collector(tmp_path):
    build(tmp_path / "store", Size(versions=3, packs=30, extents=1200, dead=2))
    store = open_store(tmp_path / "store", create=False)
    try:
        assert [*store.versions(JOB)] == [1, 2, 3]
        roots, listed = store.garbage.roots(), store.garbage.listed()
        live = store.garbage.mark(roots)
        assert len(live.holders.packs) == 30
        dead = store.garbage.dead(listed, live, roots)
        assert len(dead) == 2 + 1  # and the file below all the names
    finally:
        store.close()


def test_every_goal_says_how_far_it_was_reached():
    less, more = GOALS["stored"], GOALS["read"]
    assert [less.verdict(value) for value in (1.0, 1.1, 1.2, 1.31)] == [
        "stretch",
        "stretch",
        "must",
        "missed",
    ]
    assert [more.verdict(value) for value in (2.1, 1.5, 1.0)] == ["stretch", "must", "missed"]


def test_rows_are_ratios_of_what_was_measured_in_one_run():
    found = Found(
        plain_still_s=[1.0, 2.0, 2.0],
        plain_wall_s=[1.0, 2.0, 2.0],
        still_s=[3.0, 1.0, 1.0],
        wall_s=[4.0, 2.0, 2.0],
        copied=Copied(plain_s=[3.0, 4.0, 4.0], ours_s=[1.0, 2.0, 2.0], known=[0.75]),
        copied_slowly=Copied(plain_s=[8.0], ours_s=[2.0], known=[0.75], image_bytes=[10**9]),
        stored_bytes=[50, 80, 110],
        changed_bytes=[50, 25, 25],
        read_gb_s=[1.0, 2.0, 3.0],
        restart_ratio=1.5,
        memory=split(512, 100.0, 1536, 109.0),
    )
    values = results(found)
    assert values == {
        "first": 3.0,
        "later": 0.5,
        "ingest": 2.0,
        "disk": 4.0,
        "stored": 1.1,
        "read": 2.0,
        "restart": 1.5,
        "memory": 9.0,
    }
    found.restic_s = [7.0, 14.0, 14.0]
    assert results(found)["restic"] == 8.0
    assert "for the copy is 4.00 s, 2.00 x" in list(remarks(found, disk_mb_s=250))[3]
    assert list(remarks(found))[4] == "memory: 96 MiB more, whatever the size of the job"
    lines = list(table(values, disk_mb_s=250))
    assert len(lines) == 1 + len(GOALS)
    assert [line for line in lines if "on a disk of 250 MB/s" in line and "4.00 x" in line]
    assert [line.split()[-1] for line in lines[1:]].count("missed") == 2


def test_rows_of_parts_that_were_not_measured_are_left_out():
    assert results(Found()) == {}
    assert list(remarks(Found())) == []
    assert all(line.split()[-2] == "-" for line in list(table({}))[1:])


def test_pages_that_are_all_zero_or_of_no_image_do_not_count_as_changed(tmp_path):
    page = b"x" * PAGE
    (tmp_path / "ctl").mkdir()
    for name in ("ctl/stat", "SHA256SUMS"):
        (tmp_path / name).write_bytes(b"y" * PAGE)
    (tmp_path / "pages-1.img").write_bytes(page + bytes(PAGE) + page + b"z")
    assert len(list(page_hashes(tmp_path))) == 3
    assert len(set(page_hashes(tmp_path))) == 2


def test_what_was_freed_within_packs_is_what_they_take_less():
    assert savings([(100, 52, 49), (100, 100, 50), (7, 7, 7)]) == (207, 159, 106, 48)
    assert savings([]) == (0, 0, 0, 0)


@pytest.mark.wrong_store("its packs hold no pages")
def test_liveness_is_what_the_manifests_name(tmp_path):
    build(tmp_path / "store", Size(versions=3, packs=30, extents=1200, dead=2))
    found = live_bytes(tmp_path / "store")
    assert len(found) == 30 + 2 + 1
    assert sum(alive == 0 for _, _, alive in found) == 3
    # a version refers to its ten packs and to those of the one before, as many pages of each;
    # the first has none before it and names its own under two numbers
    assert {alive for _, _, alive in found} == {0, 20 * PAGE}


def test_help_names_both_measurements():
    done = subprocess.run(
        [sys.executable, BENCH, "--help"], capture_output=True, text=True, check=True
    )
    assert "freeze" in done.stdout
    assert "compare" in done.stdout


def test_what_a_killed_run_has_left_is_taken_away_by_the_next(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / f"{PREFIX}{ended.pid}-x"
    (left / "store").mkdir(parents=True)
    program = left / "program.py"
    program.write_text("import signal; print(flush=True); signal.pause()")
    mine = tmp_path / f"{PREFIX}{os.getpid()}-x"
    mine.mkdir()
    (tmp_path / "else").mkdir()
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE) as running:
        assert running.stdout
        running.stdout.readline()
        with scratch(str(tmp_path)) as base:
            (base / "file").write_text("x")
            assert running.wait(10) == -signal.SIGTERM
            assert sorted(tmp_path.iterdir()) == sorted([mine, base, tmp_path / "else"])
    assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / "else"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_takes_its_directory_away(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit, match=str(128 + number)), scratch(str(tmp_path)):
        os.kill(os.getpid(), number)
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) == before
