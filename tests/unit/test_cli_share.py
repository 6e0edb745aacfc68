"""How far something long is: drawn over on a terminal, in a pipe a line now and then."""

from __future__ import annotations

from itertools import count

from ckptfs.cli import progress


def test_in_a_pipe_it_is_a_line_after_a_second_and_then_every_five(capsys):
    seconds = count()
    with progress.shown_share("counting", lambda: next(seconds) / 2) as show:
        for step in range(20):
            show(step / 20)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "counting: 5%\ncounting: 55%\n"


def test_what_is_soon_over_says_nothing(capsys):
    with progress.shown_share("counting", lambda: 3.0) as show:
        show(0.2)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_drawn_at_once_and_taken_away(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_is_drawable", lambda: True)
    with progress.shown_share("counting", lambda: 3.0) as show:
        show(0.2)
        assert capsys.readouterr().err == f"{progress.CLEAR_LINE}counting:  20%"
    assert capsys.readouterr().err == progress.CLEAR_LINE
