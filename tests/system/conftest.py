"""One installation per module of system tests."""

from __future__ import annotations

import pytest

from .installation import running


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A daemon on a fresh store, for all tests of a module."""
    with running(tmp_path_factory.mktemp("system")) as made:
        yield made
