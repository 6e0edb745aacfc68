"""Watching a process to its very end with ptrace(2): PTRACE_O_TRACEEXIT.

A traced process stands still at its exit, killed by SIGKILL too, with its memory and its
descriptors still there; whoever traces it decides when it may go.  All calls must come from the
one thread that seized the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

_SEIZE, _CONT, _LISTEN, _GETEVENTMSG = 0x4206, 7, 0x4208, 0x4201  # linux/ptrace.h
_O_TRACEEXIT = 1 << 6
_EVENT_EXIT, _EVENT_STOP = 6, 128
_STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, 0, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def seize(pid: int) -> None:
    """Trace a child of ours from now on; it does not notice.  Raises OSError."""
    _ptrace(_SEIZE, pid, _O_TRACEEXIT)


def wait_exit(pid: int) -> int | None:
    """Let a seized child run until it stands at its exit; return the wait(2) status it exits with.

    Signals and stops reach it as if nobody looked.  None: it has gone without a stop (its
    status is reaped).  Blocks.
    """
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return None
        number, event = os.WSTOPSIG(status), status >> 16
        if event == _EVENT_EXIT:
            code = ctypes.c_ulong()
            _ptrace(_GETEVENTMSG, pid, ctypes.addressof(code))
            return int(code.value)
        try:
            if event == _EVENT_STOP and number in _STOPS:
                _ptrace(_LISTEN, pid)  # it stays stopped until its SIGCONT
            else:
                _ptrace(_CONT, pid, 0 if event else number)
        except ProcessLookupError:
            continue  # killed meanwhile: its exit is the next to be seen


def let_exit(pid: int) -> None:
    """Let a child that stands at its exit go, and reap it.  Blocks."""
    with suppress(ProcessLookupError):
        _ptrace(_CONT, pid)
    os.waitpid(pid, 0)
