"""Whoever polls again and again on one descriptor misses nothing: the kernel asks every time."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.fuse
ROUNDS = 100
WAKE_S = 5.0  # a wake-up that is lost would take for ever


@contextmanager
def opened(mounted, name: str) -> Iterator[int]:
    descriptor = os.open(mounted.path / "heat.42/ctl" / name, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def by_poll(descriptor: int) -> Callable[[float], bool]:
    waiter = select.poll()
    waiter.register(descriptor, select.POLLPRI)
    return lambda timeout_s: bool(waiter.poll(timeout_s * 1000))


def by_select(descriptor: int) -> Callable[[float], bool]:
    return lambda timeout_s: bool(select.select([], [], [descriptor], timeout_s)[2])


def by_epoll(descriptor: int) -> Callable[[float], bool]:
    waiter = select.epoll()
    waiter.register(descriptor, select.EPOLLPRI)
    return lambda timeout_s: bool(waiter.poll(timeout_s))


def by_epoll_edge(descriptor: int) -> Callable[[float], bool]:
    waiter = select.epoll()
    waiter.register(descriptor, select.EPOLLPRI | select.EPOLLET)
    return lambda timeout_s: bool(waiter.poll(timeout_s))


def changes(mounted) -> Iterator[Callable[[], object]]:
    """Yield what changes ``ctl/checkpoint``, each time to another text."""
    while True:
        yield lambda: (mounted.path / "heat.42/ctl/checkpoint").write_text("1")
        yield lambda: mounted.tell("fail", "heat.42", "the test says so")


@pytest.mark.parametrize("make", [by_poll, by_select, by_epoll, by_epoll_edge])
def test_every_poll_on_the_same_descriptor_wakes(mounted, make):
    """The change comes while the waiter sleeps in the kernel: in another thread, a bit later."""
    with opened(mounted, "checkpoint") as descriptor:
        wait = make(descriptor)
        wait(WAKE_S)  # a descriptor that never read is behind
        for round_number, change in zip(range(ROUNDS), changes(mounted), strict=False):
            before = os.pread(descriptor, 200, 0)
            later = threading.Timer(0.002 * (round_number % 3), change)
            later.start()
            assert wait(WAKE_S), f"round {round_number} was not woken"
            later.join()
            assert os.pread(descriptor, 200, 0) != before


def test_a_change_between_read_and_poll_is_not_slept_through(mounted):
    with opened(mounted, "checkpoint") as descriptor:
        wait = by_poll(descriptor)
        for round_number, change in zip(range(ROUNDS), changes(mounted), strict=False):
            os.pread(descriptor, 200, 0)
            change()
            assert wait(0), f"round {round_number} is not seen"


def test_two_waiters_on_one_open_file_both_wake(mounted):
    """As after fork(2): one file in the kernel, one handle in the service."""
    with opened(mounted, "checkpoint") as descriptor:
        os.pread(descriptor, 200, 0)
        twin = os.dup(descriptor)
        woken: list[bool] = []
        waiters = [
            threading.Thread(target=lambda fd=fd: woken.append(by_poll(fd)(WAKE_S)))
            for fd in (descriptor, twin)
        ]
        for waiter in waiters:
            waiter.start()
        next(changes(mounted))()
        for waiter in waiters:
            waiter.join()
        os.close(twin)
        assert woken == [True, True]
