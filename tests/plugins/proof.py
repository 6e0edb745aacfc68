"""Says at the end of a run how many cases the proof of the store has tried (tests/proof)."""

from __future__ import annotations

from collections import Counter

import pytest

_TRIED = pytest.StashKey[Counter[str]]()


def pytest_configure(config):
    config.stash[_TRIED] = Counter()


@pytest.fixture
def tried(request):
    """Return the count of cases by part, to be added to."""
    return request.config.stash[_TRIED]


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_TRIED]:
        terminalreporter.section("what the proof of the store has tried")
        for part, count in sorted(config.stash[_TRIED].items()):
            terminalreporter.line(f"{count:6} {part}")
