"""One installation per module of system tests."""

from __future__ import annotations

import os

import pytest

from .installation import Installation


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A daemon on a fresh store, for all tests of a module."""
    top = tmp_path_factory.mktemp("system")
    os.chmod(top, 0o755)
    made = Installation(top)
    made.start()
    try:
        yield made
    finally:
        made.end()
