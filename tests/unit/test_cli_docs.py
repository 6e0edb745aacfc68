"""docs/commands.md names every command, every option and every exit code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from ckptfs import errors
from ckptfs.cli.main import COMMANDS, command_parser

TEXT = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_described(name):
    assert f"`ckptfs {name}" in TEXT
    for action in command_parser(name)._actions:
        if action.help is not argparse.SUPPRESS and "--help" not in action.option_strings:
            assert all(option in TEXT for option in action.option_strings)


def test_every_exit_code_is_described():
    codes = {
        cls.exit_code
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.CkptfsError)
    }
    described = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert codes <= described
