"""``ckptfs COMMAND …``: a table of commands, each in its own file below `commands`.

Only the file of the command that is asked for is imported: ``ckptfs --help``
takes about 50 ms.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from ..errors import InvalidInput, Unsupported
from .entry import EXIT_CODES, Parser, guarded, make_parser

# name → what it does, in the order of ``ckptfs --help``; the module has the same name
COMMANDS: Mapping[str, str] = {
    "mount": "mount a store; the first time creates it",
    "umount": "unmount; the jobs go on",
    "run": "run a program as a job",
    "submit": "submit a job described in JSDL",
    "ls": "list jobs, or the versions of one",
    "ps": "show your jobs and what they do",
    "plot": "draw a job's versions over time",
    "checkpoint": "take a version of a job",
    "restart": "restart a job from a version",
    "suspend": "take a version, then end the job for now",
    "resume": "go on with a suspended job",
    "kill": "end a job",
    "signal": "send a signal to a job's processes",
    "wait": "wait for a job's end and exit as it did",
    "logs": "print what a job has written",
    "df": "say who has how much in the store, and who pays",
    "quota": "show or set how much may be charged to whom",
    "doctor": "say what this machine can do and what it lacks",
    "gc": "free what no version needs",
    "rm": "remove versions, or an ended job",
    "undelete": "bring a removed version back",
    "scrub": "have every version read and proved, in the background",
    "volume": "keep copies of versions on other disks",
    "key": "make and keep the keys of encrypted copies",
    "check": "prove that a store is whole",
    "repair": "mend a store that is not mounted, as far as nothing is lost by it",
    "recover": "make a store out of a volume of copies",
    "completion": "print a completion script for bash or zsh",
    "version": "print versions",
}

# known names that have no command yet: said so, rather than guessed at
NOT_YET = frozenset({"migrate", "top"})


class Command(Protocol):
    """What a module below `commands` offers."""

    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit code."""
        ...


def load_command(name: str) -> Command:
    """Return the module of a command."""
    return cast("Command", importlib.import_module(f".commands.{name}", __package__))


def command_parser(name: str) -> Parser:
    """Return the parser of one command."""
    module = load_command(name)
    summary = COMMANDS[name]
    parser = make_parser(f"ckptfs {name}", f"{summary[0].upper()}{summary[1:]}.", module.EXAMPLES)
    module.add_arguments(parser)
    return parser


def help_text() -> str:
    """Return what ``ckptfs --help`` prints."""
    rows = "\n".join(f"  {name:<11} {summary}" for name, summary in COMMANDS.items())
    return f"""\
usage: ckptfs COMMAND [OPTIONS]

Run programs as jobs, checkpoint them, look at the versions, restart any of them.

commands:
{rows}

ckptfs COMMAND --help says more, with examples.  JOB is an id (heat.42), a unique name (heat)
or a number (42).

examples:
  ckptfs mount /ckpt
  ckptfs run --name heat -- python3 heat.py
  ckptfs checkpoint heat
  ckptfs kill heat && ckptfs restart heat latest

{EXIT_CODES}
"""


def dispatch(argv: Sequence[str]) -> int:
    """Run the command that *argv* (without the program's name) asks for."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        if len(argv) > 1 and argv[1] in COMMANDS:
            return dispatch([argv[1], "--help"])
        print(help_text(), end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else InvalidInput.exit_code
    name = "version" if argv[0] in {"-V", "--version"} else argv[0]
    if name in NOT_YET:
        raise Unsupported(f"{name} is not served yet")
    if name.startswith("-"):
        raise InvalidInput(f"options come behind the command: ckptfs COMMAND {name} ...")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "see: ckptfs --help"
        raise InvalidInput(f"no command is called {name!r}; {hint}")
    args = command_parser(name).parse_args(argv[1:])
    return load_command(name).run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``ckptfs``."""
    return guarded("ckptfs", dispatch, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
