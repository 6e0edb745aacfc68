"""The completion script in a real bash; what it would list of a mount is said by a function."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from ckptfs.cli.main import COMMANDS, main

MOUNT = """
ckptfs() {
    case $* in
        ls) echo heat.1; echo sea.2 ;;
        "ls heat.1") echo 1; echo 7 ;;
    esac
}
"""
SIGNALS = ["TERM", "INT", "HUP", "KILL", "STOP", "CONT", "USR1", "USR2"]


@pytest.fixture(scope="module")
def bash() -> str:
    found = shutil.which("bash")
    assert found
    return found


@pytest.fixture
def script(capsys) -> str:
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


def offered(bash: str, script: str, line: str) -> list[str]:
    """Return what a Tab at the end of *line* offers."""
    words = line.split(" ")
    function = "_ckptfs" if words[0] == "ckptfs" else "_ckptfs_x"
    probe = (
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}\n"
        f'{function} {words[0]}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    found = subprocess.run(
        [bash, "-uc", f"{script}{MOUNT}{probe}"], capture_output=True, text=True, check=True
    )
    assert found.stderr == ""
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ckptfs checkp", ["checkpoint"]),
        ("ckptfs ", list(COMMANDS)),
        ("ckptfs run --cl", ["--clean-env"]),
        ("ckptfs run --name h -- py", []),
        ("ckptfs checkpoint ", ["heat.1", "sea.2"]),
        ("ckptfs checkpoint --note x s", ["sea.2"]),
        ("ckptfs checkpoint heat.1 ", []),
        ("ckptfs checkpoint --note ", []),
        ("ckptfs logs --stderr ", ["heat.1", "sea.2"]),
        ("ckptfs restart heat.1 ", ["latest", "1", "7"]),
        ("ckptfs restart --kill heat.1 7", ["7"]),
        ("ckptfs kill heat.1 ", ["heat.1", "sea.2"]),
        ("ckptfs signal heat.1 ", SIGNALS),
        ("ckptfs volume a", ["add"]),
        ("ckptfs completion ", ["bash", "zsh"]),
        ("xkill -j h", ["heat.1"]),
        ("xkill -e ", SIGNALS),
        ("xkill -j heat.1 ", []),
        ("xcheckpoint ", ["heat.1", "sea.2"]),
        ("xrestart heat.1 ", ["latest", "1", "7"]),
        ("xrestart heat.1 7 ", []),
    ],
)
def test_a_tab_offers(bash, script, line, words):
    assert sorted(offered(bash, script, line)) == sorted(words)


def test_zsh_reads_it_by_its_own_emulation(capsys):
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
