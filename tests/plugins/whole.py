"""Runs ``ckptfs check`` after every test that has used a store on the disk.

Stores are found below the test's own directory, once everything else has ended.  A test whose
store is wrong in the end, and is meant to be, says why: ``@pytest.mark.wrong_store("why")``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptfs.upkeep.check import check_all

DEPTH = 2  # directories below the test's own in which stores lie
_CHECKED = pytest.StashKey[list[int]]()  # stores, those wrong on purpose


def stores_below(top: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield the directories that hold a store; a mount is one or is not looked into."""
    if os.path.isfile(top / "FORMAT") and os.path.isdir(top / "heads"):
        yield top
    elif depth and not os.path.ismount(top):
        for path in sorted(top.iterdir()):
            if os.path.isdir(path) and not path.is_symlink():
                yield from stores_below(path, depth - 1)


def assert_whole(top: Path) -> int:
    """Raise AssertionError unless every store below *top* is whole; return how many there are."""
    count = 0
    for store in stores_below(top):
        wrong, _ = check_all(store, lambda _: None)
        assert wrong == [], f"ckptfs check of {store}: {'; '.join(wrong)}"
        count += 1
    return count


def pytest_configure(config):
    config.stash[_CHECKED] = [0, 0]
    config.addinivalue_line(
        "markers", "wrong_store(why): leaves a store that check complains about"
    )


@pytest.fixture(autouse=True)
def _whole_stores(request):
    """See the top of this file.  Made first, so it ends last."""
    is_asked = not request.config.getoption("--fast") and "tmp_path" in request.fixturenames
    top = request.getfixturevalue("tmp_path") if is_asked else None
    yield
    if top is None:
        return
    counts = request.config.stash[_CHECKED]
    if request.node.get_closest_marker("wrong_store"):
        counts[1] += 1
    else:
        counts[0] += assert_whole(top)


def pytest_terminal_summary(terminalreporter, config):
    whole, wrong = config.stash[_CHECKED]
    if whole or wrong:
        terminalreporter.section("stores checked after their tests")
        terminalreporter.line(f"{whole} whole; {wrong} tests leave theirs wrong on purpose")
    elif config.getoption("--fast"):
        terminalreporter.section("stores checked after their tests")
        terminalreporter.line("none: left out by --fast, as it takes a second")
