"""What all tests share: see the plugins for what each one does."""

import pytest

# asserts in it are rewritten; the proof imports it before the system tests do
pytest.register_assert_rewrite("tests.system.installation")

pytest_plugins = [
    "tests.plugins.machine",
    "tests.plugins.leftovers",
    "tests.plugins.proof",
    "tests.plugins.whole",
]
