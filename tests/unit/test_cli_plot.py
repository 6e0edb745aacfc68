"""ckptfs plot: what the terminal and the picture show."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ckptfs.cli import chart
from ckptfs.cli.chart import HEIGHT, LABELS, Panel, axis_line, panel_lines, positions
from ckptfs.cli.commands import plot
from ckptfs.cli.main import main
from ckptfs.cli.picture import LINES, png
from tests.fakes_cli import FakeTree

pytestmark = pytest.mark.slow  # draws pictures: left out of the fast part

VALUES = st.lists(st.floats(0, 1e15), min_size=1, max_size=60)


def lit(lines: list[str]) -> set[tuple[int, int]]:
    """Return (column, row) of every dot in the lines of a panel."""
    dots: set[tuple[int, int]] = set()
    for row, line in enumerate(lines):
        for column, character in enumerate(line[LABELS:]):
            bits = 0 if character == " " else ord(character) - chart.BLANK
            for y in range(chart.DOWN):
                for x in range(chart.ACROSS):
                    if bits & chart.DOTS[y][x]:
                        dots.add((column * chart.ACROSS + x, row * chart.DOWN + y))
    return dots


@given(VALUES, st.integers(1, 200), st.data())
def test_every_value_is_a_dot_at_its_height_and_time(values, width, data):
    gaps = data.draw(
        st.lists(st.integers(0, 10**6), min_size=len(values), max_size=len(values)), label="gaps"
    )
    times = [sum(gaps[: n + 1]) for n in range(len(values))]
    panel = Panel("what", tuple(values), lambda value: f"{value:.3g}")

    title, *lines = panel_lines(panel, times, width)

    assert "what".startswith(title[:4])
    assert len(lines) == HEIGHT
    assert all(len(line) <= max(width, LABELS + chart.NARROWEST) for line in lines)
    dots, rows = lit(lines), HEIGHT * chart.DOWN
    steps = max(chart.NARROWEST, width - LABELS) * chart.ACROSS
    for x, value in zip(positions(times, steps), values, strict=True):
        assert (x, rows - 1 - round(value / panel.top * (rows - 1))) in dots
    assert {y for _, y in dots} <= set(range(rows))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50).map(sorted), st.integers(1, 500))
def test_time_runs_from_the_left_end_to_the_right_one(times, steps):
    places = positions(times, steps)
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == (steps - 1 if times[-1] > times[0] else 0)


def test_a_terminal_without_unicode_gets_asterisks():
    panel = Panel("size", (1.0, 2.0), str)
    lines = list(panel_lines(panel, [0, 1], 40, braille=False))
    assert "".join(lines).isascii()
    assert "*" in lines[1]


def test_the_axis_leaves_out_what_does_not_fit():
    assert axis_line("one", "two", 30) == " " * LABELS + "one" + "two".rjust(30 - LABELS - 3)
    assert axis_line("a" * 15, "b" * 15, 30) == " " * LABELS + "a" * 15


@pytest.fixture
def tree(tmp_path, monkeypatch) -> FakeTree:
    root = tmp_path / "mount"
    root.mkdir()
    monkeypatch.setenv("CKPTFS_MOUNT", str(root))
    found = FakeTree(root)
    found.job("heat.1")
    return found


def put_version(tree: FakeTree, number: int, **figures: object) -> None:
    known: dict[str, object] = {
        "committed_at": f"2026-11-20T11:{number:02}:00Z",
        "logical_bytes": number << 20,
        "unique_bytes": 4096,
        "frozen_usec": 250_000,
        "replicas": 2,
    }
    tree.version("heat.1", number, **(known | figures))


def test_the_versions_are_drawn_by_time_and_what_cannot_be_read_is_named(tree, capsys):
    for number in (1, 2, 10):
        put_version(tree, number)
    put_version(tree, 3, committed_at=None)

    assert main(["plot", "heat"]) == 0

    out, err = capsys.readouterr()
    assert "size, last 10.0 MiB\n 10.0 MiB │" in out
    assert "stood still, last 0.25 s" in out
    assert "copies, last 2" in out
    last = out.rstrip("\n").splitlines()[-1]
    assert last.split("  ")[-1].strip() == "version 10, 2026-11-20 11:10"
    assert "version 1, 2026-11-20 11:01" in last
    assert err.count("version 3") == 1


def test_a_job_without_versions_is_no_failure(tree, capsys):
    assert main(["plot", "heat"]) == 0
    assert capsys.readouterr() == ("", "ckptfs: heat.1 has no versions\n")


@pytest.mark.parametrize("count", [1, 2, 500])
def test_the_picture_is_a_png_with_a_line_for_every_figure(count):
    points = [
        plot.Point(n, 1e9 + n * 60.0, n << 20, 4096 * (n % 7), 0.1 * (n % 3), 1 + n % 2)
        for n in range(1, count + 1)
    ]
    ends = (plot.end_text(points[0]), plot.end_text(points[-1]))
    data = png(plot.panels_of(points), [p.committed_s for p in points], "versions of heat.1", ends)

    image = Image.open(io.BytesIO(data))
    image.load()

    assert image.format == "PNG"
    colors = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in image.getcolors(1 << 24)}
    assert colors >= set(LINES)


def test_the_picture_goes_where_it_is_told(tree, tmp_path, capsys):
    put_version(tree, 1)
    put_version(tree, 2)
    target = tmp_path / "heat.png"
    assert main(["plot", "heat", "-o", str(target)]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "heat", "-o", str(tmp_path / "no" / "heat.png")]) != 0
    assert str(tmp_path / "no" / "heat.png") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["heat", "heat.svg"])
def test_only_a_png_is_written(tree, name, tmp_path, capsys):
    put_version(tree, 1)
    assert main(["plot", "heat", "-o", str(tmp_path / name)]) == 2
    assert f"call it {tmp_path / name}.png" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_without_pillow_one_sentence_says_so(tree, tmp_path, monkeypatch, capsys):
    put_version(tree, 1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["plot", "heat", "-o", str(tmp_path / "x.png")]) == 12
    assert "a picture needs the Python package pillow" in capsys.readouterr().err
