"""Says which tests this machine can run, and ends every run with the list of what it could not.

Markers name what a test needs (pyproject.toml).  A need that this machine lacks turns into a skip
whose reason is the doctor's sentence; every skip, ours or a test's own, is listed at the end.
``--fast`` leaves out the tests that need FUSE or CRIU or are slow, and says how many.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache

import pytest

from ckptfs.doctor.checks import Need
from ckptfs.doctor.gate import require
from ckptfs.errors import CannotRun

LEFT_OUT_BY_FAST = ("fuse", "criu", "slow")
_NEEDS = {"fuse": (Need.MOUNT,), "criu": (Need.MOUNT, Need.CHECKPOINT)}
_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.getgroup("ckptfs").addoption(
        "--fast", action="store_true", help="leave out what needs FUSE or CRIU, or is slow"
    )


def pytest_configure(config):
    config.stash[_LEFT_OUT] = 0


@cache
def lacking(marker: str) -> str:
    """Return why tests with *marker* cannot run here, '' when they can."""
    if marker == "root":
        return "" if os.geteuid() == 0 else "this test needs root"
    try:
        require(*_NEEDS[marker])
    except CannotRun as e:
        return str(e)
    return ""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if config.getoption("--fast"):
        kept = [i for i in items if not any(i.get_closest_marker(m) for m in LEFT_OUT_BY_FAST)]
        left_out = [i for i in items if i not in set(kept)]
        config.stash[_LEFT_OUT] = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
    for item in items:
        for marker in ("root", *_NEEDS):
            if item.get_closest_marker(marker) and lacking(marker):
                item.add_marker(pytest.mark.skip(reason=lacking(marker)))
                break


def _reasons(terminalreporter) -> Counter[str]:
    """Count the skipped tests by the reason they give."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ")] += 1
    return reasons


def pytest_terminal_summary(terminalreporter, config):
    reasons = _reasons(terminalreporter)
    left_out = config.stash[_LEFT_OUT]
    terminalreporter.section("what could not run")
    if not reasons and not left_out:
        terminalreporter.line("nothing: every test that was asked for has run")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count} skipped: {reason}")
    if left_out:
        terminalreporter.line(f"{left_out} left out by --fast: they need FUSE or CRIU, or are slow")
