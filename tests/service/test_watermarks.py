"""The collector starts by itself when the disk is nearly full, and says so."""

from __future__ import annotations

from dataclasses import replace

import trio

from tests.service.kit import ScriptedStore, play, world
from tests.service.test_collecting import FakeSweeper


class FillingStore(ScriptedStore):
    free_bytes = 40

    def usage(self):
        return replace(super().usage(), total_bytes=100, free_bytes=self.free_bytes)


def test_below_the_low_mark_it_runs_once_and_again_while_it_stays_there(tmp_path):
    async def main():
        store, sweeper = FillingStore(), FakeSweeper()
        async with world(tmp_path, store=store, sweeper=sweeper) as w:
            await trio.sleep(100)
            runs = len(sweeper.runs)  # what an earlier service has left
            assert w.service.health() == []
            store.free_bytes = 6
            await trio.sleep(100)
            assert len(sweeper.runs) == runs
            store.free_bytes = 4
            await trio.sleep(100)
            assert sweeper.runs[runs:] == [(False, False)]
            (sentence,) = w.service.health()
            assert "nearly full, 4 %" in sentence
            await trio.sleep(1000)
            assert len(sweeper.runs) == runs + 2
            store.free_bytes = 8  # between the marks: neither well nor a reason to run again
            await trio.sleep(1000)
            assert len(sweeper.runs) == runs + 2
            assert w.service.health() == [sentence]
            store.free_bytes = 10
            await trio.sleep(100)
            assert w.service.health() == []
            store.free_bytes = 4
            await trio.sleep(100)
            assert len(sweeper.runs) == runs + 3

    play(main)


def test_a_disk_that_does_not_say_is_asked_again(tmp_path):
    async def main():
        store, sweeper = FillingStore(), FakeSweeper()
        usage = store.usage
        async with world(tmp_path, store=store, sweeper=sweeper) as w:

            def fail():
                raise OSError(5, "Input/output error")

            store.usage = fail
            await trio.sleep(100)
            runs = len(sweeper.runs)
            store.usage, store.free_bytes = usage, 1
            await trio.sleep(100)
            assert len(sweeper.runs) == runs + 1
            assert len(w.service.health()) == 1

    play(main)
