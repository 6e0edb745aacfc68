"""Waiting for operations and jobs, without a clock: each wait is the next step of a script."""

from __future__ import annotations

import argparse
import io
import json

import pytest

from ckptfs.cli.commands.restart import go_back
from ckptfs.cli.operations import carry_out
from ckptfs.cli.outcomes import Outcome, State, parse_exit, parse_outcome, parse_state
from ckptfs.cli.progress import (
    CLEAR_LINE,
    Bytes,
    JsonProgress,
    LineProgress,
    TerminalProgress,
    bar_text,
)
from ckptfs.cli.waiting import follow, wait_for_end
from ckptfs.errors import Busy, CheckpointerFailed, Gone, NotFound
from tests.fakes_cli import FakeTree

CHECKPOINT = "heat.1/ctl/checkpoint"
STATE = "heat.1/ctl/state"


@pytest.fixture
def tree(tmp_path) -> FakeTree:
    tree = FakeTree(tmp_path)
    tree.job("heat.1")
    return tree


def options(**changes: object) -> argparse.Namespace:
    off = dict.fromkeys(("no_wait", "json", "kill", "clone"), False)
    return argparse.Namespace(**(off | changes))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("none\n# echo 1 > checkpoint", None),
        ("7 saving\n# usage", Outcome(7, "saving")),
        ("7 failed (a (b) c)\n", Outcome(7, "failed", "a (b) c")),
        ("7", None),
        ("", None),
    ],
)
def test_outcomes_are_read(text, outcome):
    assert parse_outcome(text) == outcome


def test_states_and_exits_are_read():
    assert parse_state("failed (node lost)\n") == State("failed", "node lost")
    assert parse_state("running") == State("running")
    assert [parse_exit(t) for t in ("none", "0\n", "3", "signal 9", "odd")] == [
        None, 0, 3, 137, None,
    ]  # fmt: skip


def test_a_checkpoint_is_followed_to_its_end(tree):
    tree.put(CHECKPOINT, "7 saving\n")
    tree.later("heat.1/ctl/stat", "saving_done_bytes 512\nsaving_total_bytes 1024")
    tree.later(CHECKPOINT, "7 complete")
    out = io.StringIO()
    assert follow(tree.mount, "heat.1", "checkpoint", 7, LineProgress(out)).word == "complete"
    assert out.getvalue() == "heat.1: 7 saving\nheat.1: 7 complete\n"


def test_a_failure_is_told_with_its_reason(tree):
    tree.put(CHECKPOINT, "7 saving\n")
    tree.later(CHECKPOINT, "7 failed (fd 3 is a tty)")
    with pytest.raises(CheckpointerFailed, match="fd 3 is a tty"):
        follow(tree.mount, "heat.1", "checkpoint", 7, LineProgress(io.StringIO()))


@pytest.mark.parametrize("committed", [True, False])
def test_a_later_request_does_not_hide_what_became_of_ours(tree, committed):
    tree.put(CHECKPOINT, "8 saving\n")
    if committed:
        tree.version("heat.1", 7)
        progress = LineProgress(io.StringIO())
        assert follow(tree.mount, "heat.1", "checkpoint", 7, progress).word == "complete"
    else:
        with pytest.raises(CheckpointerFailed, match="another request"):
            follow(tree.mount, "heat.1", "checkpoint", 7, LineProgress(io.StringIO()))


def test_ctrl_c_ends_the_waiting_and_says_what_goes_on(tree, capsys):
    tree.put(CHECKPOINT, "7 saving\n")

    def interrupt() -> None:
        raise KeyboardInterrupt

    tree.files.steps.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        follow(tree.mount, "heat.1", "checkpoint", 7, LineProgress(io.StringIO()))
    assert "stopped waiting; version 7 of heat.1 goes on" in capsys.readouterr().err


def test_the_bar_is_taken_away_before_the_sentence_about_ctrl_c(tree, monkeypatch):
    tree.put(CHECKPOINT, "7 saving\n")
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)

    def interrupt() -> None:
        raise KeyboardInterrupt

    tree.files.steps.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        follow(tree.mount, "heat.1", "checkpoint", 7, TerminalProgress(terminal))
    assert terminal.getvalue().split(CLEAR_LINE)[-1].startswith("ckptfs: stopped waiting;")


@pytest.mark.parametrize("moved", [Bytes(), Bytes(3 << 20, 0), Bytes(3 << 20, 4 << 20)])
@pytest.mark.parametrize("width", range(1, 90))
def test_the_bar_fits_every_terminal(width, moved):
    text = bar_text("heat.1", Outcome(7, "saving"), moved, 4.2, width)
    assert len(text) <= width
    assert text.startswith("heat.1: 7 saving"[: width - 1])


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (79, "heat.1: 7 saving  [##################......]  75%  3.0 MiB of 4.0 MiB  4 s"),
        (60, "heat.1: 7 saving   75%  3.0 MiB of 4.0 MiB  4 s"),
        (30, "heat.1: 7 saving   75%  4 s"),
        (22, "heat.1: 7 saving  75%"),
        (12, "heat.1: 7 s…"),
    ],
)
def test_what_does_not_fit_goes_the_least_important_first(width, text):
    moved = Bytes(3 << 20, 4 << 20)
    assert bar_text("heat.1", Outcome(7, "saving"), moved, 4.2, width) == text


def test_stdout_holds_the_version_alone(tree, capsys):
    tree.put(CHECKPOINT, "7 complete\n")
    assert carry_out(tree.mount, "heat.1", "checkpoint", 7, options()) == 0
    assert capsys.readouterr() == ("7\n", "heat.1: 7 complete\n")


def test_json_is_a_line_per_change(tree):
    tree.put(CHECKPOINT, "7 saving\n")
    tree.later(CHECKPOINT, "7 saving")
    tree.later(CHECKPOINT, "7 complete")
    out = io.StringIO()
    follow(tree.mount, "heat.1", "checkpoint", 7, JsonProgress(out))
    states = [json.loads(line)["state"] for line in out.getvalue().splitlines()]
    assert states == ["saving", "complete"]


def test_without_waiting_nothing_is_watched(tree, capsys):
    tree.put(CHECKPOINT, "7 saving\n")
    assert carry_out(tree.mount, "heat.1", "checkpoint", 7, options(no_wait=True)) == 0
    assert capsys.readouterr().out == "7\n"


def test_the_bar_never_shows_more_than_all_of_it():
    text = bar_text("heat.1", Outcome(7, "saving"), Bytes(3 << 20, 2 << 20), 4.2)
    assert text == "heat.1: 7 saving  [########################] 100%  3.0 MiB of 2.0 MiB  4 s"
    assert "%" not in bar_text("heat.1", Outcome(7, "saving"), Bytes(3 << 20, 0), 1)


def test_the_bar_is_taken_away_at_the_end():
    out = io.StringIO()
    progress = TerminalProgress(out)
    progress.update("heat.1", "checkpoint", Outcome(7, "saving"), Bytes())
    progress.close()
    assert out.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(("status", "code"), [("0", 0), ("3", 3), ("signal 9", 137), ("none", 125)])
def test_waiting_for_a_job_gives_its_exit_code(tree, status, code):
    tree.put("heat.1/ctl/exit_status", f"{status}\n")
    tree.later(STATE, "checkpointing")
    tree.later(STATE, "done")
    assert wait_for_end(tree.mount, "heat.1")[1] == code


def test_a_suspended_job_is_waited_for_and_told_once(tree, capsys):
    for state in ("suspended", "suspended", "running", "done"):
        tree.later(STATE, state)
    tree.put("heat.1/ctl/exit_status", "0\n")
    assert wait_for_end(tree.mount, "heat.1") == (State("done"), 0)
    assert capsys.readouterr().err.count("is suspended") == 1


def test_a_job_that_is_removed_ends_the_waiting(tree):
    tree.files.steps.append((tree.root / STATE).unlink)
    with pytest.raises(Gone, match="was removed"):
        wait_for_end(tree.mount, "heat.1")


def test_a_running_job_is_killed_before_a_restart_only_if_asked_to(tree):
    def refuse(_text: str) -> str:
        raise Busy("no")

    tree.files.answers["heat.1/ctl/restart"] = refuse
    with pytest.raises(Busy, match="add --kill"):
        go_back(tree.mount, "heat.1", "7", options())
    assert tree.files.written == [("heat.1/ctl/restart", "7")]


def test_kill_and_restart(tree, capsys):
    tree.version("heat.1", 7)
    tree.later(STATE, "done")
    tree.put("heat.1/ctl/restart", "7 running\n")
    tree.files.answers["heat.1/ctl/restart"] = lambda text: text
    assert go_back(tree.mount, "heat.1", "7", options(kill=True)) == 0
    assert tree.files.written == [("heat.1/ctl/kill", "1"), ("heat.1/ctl/restart", "7")]
    assert capsys.readouterr().out == "7\n"


def test_a_job_is_not_killed_for_a_version_that_is_not_there(tree):
    with pytest.raises(NotFound, match="has no version 7"):
        go_back(tree.mount, "heat.1", "7", options(kill=True))
    with pytest.raises(NotFound, match="has no version yet"):
        go_back(tree.mount, "heat.1", "latest", options(kill=True))
    assert tree.files.written == []


def test_a_clone_is_followed_under_its_own_id(tree, capsys):
    tree.job("heat.2")
    tree.put("heat.2/ctl/restart", "7 rebuilding\n")
    tree.later("heat.2/ctl/restart", "7 running")
    tree.files.answers["heat.1/ctl/restart"] = lambda _: "heat.2"
    assert go_back(tree.mount, "heat.1", "7 as=clone", options()) == 0
    assert capsys.readouterr().out == "heat.2\n"
