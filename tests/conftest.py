"""What all tests share: see the plugins for what each one does."""

import signal

import pytest

# The background job of a shell ignores Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# asserts in it are rewritten; the proof imports it before the system tests do
pytest.register_assert_rewrite("tests.system.installation")

pytest_plugins = [
    "tests.plugins.machine",
    "tests.plugins.leftovers",
    "tests.plugins.proof",
    "tests.plugins.whole",
]
