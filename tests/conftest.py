"""What all tests share: see the plugins for what each one does."""

pytest_plugins = ["tests.plugins.machine", "tests.plugins.leftovers", "tests.plugins.proof"]
