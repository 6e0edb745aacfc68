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
_ckptfs_arguments() {{  # sets args: the words from number $1 to the cursor that are no options
    local i valued=" $2 "
    args=()
    for ((i = $1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            -*) [[ $valued != *" ${{COMP_WORDS[i]}} "* ]] || ((++i)) ;;
            *) args+=("${{COMP_WORDS[i]}}") ;;
        esac
    done
    ((i == COMP_CWORD))  # else an option's value stands there
}}
_ckptfs() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words= args options valued=
    case $command in
{options}
    esac
    if ((COMP_CWORD == 1)); then
        words="{commands}"
    elif [[ $word == -* ]]; then
        words=$options
    else
        _ckptfs_arguments 2 "$valued" || command=
        case $command:${{#args[@]}} in
            {with_job}) words=$(_ckptfs_jobs) ;;
            restart:1) words=$(_ckptfs_versions "${{args[@]}}") ;;
            signal:1) words="{signals}" ;;
            kill:*) words=$(_ckptfs_jobs) ;;
            volume:0) words="ls add drain up rm" ;;
            completion:0) words="bash zsh" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
_ckptfs_x() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words= args
    local command=$1
    _ckptfs_arguments 1 "-c -e -j -T --mount" || command=
    case $command:${{#args[@]}} in
        xrestart:1 | xjobrestart:1) words=$(_ckptfs_versions "${{args[@]}}") ;;
        {job_commands}) words=$(_ckptfs_jobs) ;;
    esac
    [[ $before != -j ]] || words=$(_ckptfs_jobs)
    [[ $before != -e ]] || words="{signals}"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _ckptfs ckptfs
complete -o bashdefault -o default -F _ckptfs_x {x_commands}
"""
SIGNALS = "TERM INT HUP KILL STOP CONT USR1 USR2"
ZSH_PROLOGUE = "autoload -Uz bashcompinit && bashcompinit\n"
X_COMMANDS = ("xps", "xkill", "xwait", *JOB_COMMANDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=("bash", "zsh"))


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a parser."""
    actions = parser._actions  # argparse has no public way to ask a parser for its options
    return sorted(o for action in actions for o in action.option_strings if o.startswith("--"))


def valued_options(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a parser that are followed by a value."""
    actions = parser._actions
    return sorted(o for action in actions if action.nargs != 0 for o in action.option_strings)


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
            f'        {name}) options="{" ".join(options_of(parser))}"'
            f' valued="{" ".join(valued_options(parser))}" ;;'
            for name, parser in parsers.items()
        ),
        with_job=" | ".join(f"{name}:0" for name, parser in parsers.items() if takes_job(parser)),
        job_commands=" | ".join(f"{name}:0" for name in JOB_COMMANDS),
        signals=SIGNALS,
        x_commands=" ".join(X_COMMANDS),
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from ..main import COMMANDS, command_parser  # it imports us: only when asked for

    print(script(args.shell, {name: command_parser(name) for name in COMMANDS}), end="")
    return 0
