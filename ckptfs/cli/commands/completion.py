"""``ckptfs completion``: a script for the shell, made from the parsers of the commands."""

from __future__ import annotations

import argparse

EXAMPLES = """\
source <(ckptfs completion bash)
ckptfs completion bash > /etc/bash_completion.d/ckptfs
source <(ckptfs completion zsh)
"""

JOB_COMMANDS = ("xcheckpoint", "xjobcheckpoint", "xrestart", "xjobrestart")

SCRIPT = """\
# Completion of ckptfs and its x-commands; made by: ckptfs completion {shell}
{prologue}_ckptfs_jobs() {{ ckptfs ls 2>/dev/null; }}
_ckptfs_versions() {{ echo latest; ckptfs ls "$1" 2>/dev/null; }}
_ckptfs() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words=
    if ((COMP_CWORD == 1)); then
        words="{commands}"
    elif [[ $word == -* ]]; then
        case $command in
{options}
        esac
    else
        case $command in
            restart) ((COMP_CWORD == 2)) && words=$(_ckptfs_jobs) ||
                words=$(_ckptfs_versions "${{COMP_WORDS[2]}}") ;;
            {with_job}) words=$(_ckptfs_jobs) ;;
            completion) words="bash zsh" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
_ckptfs_x() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    if [[ $before == -j ]] || ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "$(_ckptfs_jobs)" -- "$word"))
    fi
}}
complete -o bashdefault -o default -F _ckptfs ckptfs
complete -o bashdefault -o default -F _ckptfs_x {x_commands}
"""
ZSH_PROLOGUE = "autoload -Uz bashcompinit && bashcompinit\n"
X_COMMANDS = ("xps", "xkill", "xwait", *JOB_COMMANDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=("bash", "zsh"))


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a parser."""
    actions = parser._actions  # argparse has no public way to ask a parser for its options
    return sorted(o for action in actions for o in action.option_strings if o.startswith("--"))


def takes_job(parser: argparse.ArgumentParser) -> bool:
    """Return whether the command has a JOB argument."""
    return any(action.metavar == "JOB" for action in parser._actions)


def script(shell: str, parsers: dict[str, argparse.ArgumentParser]) -> str:
    """Return the completion script of *parsers* for bash or zsh.  Pure."""
    return SCRIPT.format(
        shell=shell,
        prologue=ZSH_PROLOGUE if shell == "zsh" else "",
        commands=" ".join(parsers),
        options="\n".join(
            f'            {name}) words="{" ".join(options_of(parser))}" ;;'
            for name, parser in parsers.items()
        ),
        with_job="|".join(name for name, parser in parsers.items() if takes_job(parser)),
        x_commands=" ".join(X_COMMANDS),
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from ..main import COMMANDS, command_parser  # it imports us: only when asked for

    print(script(args.shell, {name: command_parser(name) for name in COMMANDS}), end="")
    return 0
