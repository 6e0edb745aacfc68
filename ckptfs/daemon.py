"""The composition root: one process, one store, one mount, one nursery.

``python -m ckptfs.daemon --store DIR [--ready-fd N] [--hide-jobs] MOUNTPOINT``

Order at the start: store (which is locked: one daemon each), jobs and their
units, mount.  At the end the other way round, so that a checkpoint under way
is undone, and its units thawed, while the mount it writes into still answers.
Jobs go on when the daemon ends, however it ends.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import trio

from .coordinator.lost_heads import is_named
from .coordinator.parts import make_parts
from .coordinator.service import Coordinator
from .doctor.gate import require
from .errors import CannotRun, CkptfsError
from .fs.mount import MountOptions, make_room, serve
from .gc.decide import is_scarce
from .gc.sweep import Sweep
from .heap import keep_freed_memory
from .node.agent import Agent
from .node.rundir import NodePaths, remove_empty
from .store.store import LocalStore, open_store

log = logging.getLogger("ckptfs.daemon")
RUN_DIRECTORY: Final = Path("/run/ckptfs")
# For how long a worker thread keeps the interpreter from the one that serves requests.  With the
# default of 5 ms five readers waited for 260 ms at worst while 1 M packs were marked.
SWITCH_S: Final = 0.0005
LOG_NAME: Final = "daemon.log"
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    store: Path
    mountpoint: Path
    ready_fd: int  # -1: in the foreground, log to stderr
    hide_jobs: bool


def parse_arguments(argv: Sequence[str]) -> Settings:
    """Return the settings in *argv*."""
    parser = argparse.ArgumentParser(prog="ckptfs.daemon", description="Serve a store at a mount.")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--hide-jobs", action="store_true")
    parser.add_argument("mountpoint", type=Path)
    found = parser.parse_args(argv)
    return Settings(
        store=found.store.absolute(),
        mountpoint=found.mountpoint.absolute(),
        ready_fd=found.ready_fd,
        hide_jobs=found.hide_jobs,
    )


async def run(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or umount.  Raises CkptfsError when it cannot begin."""
    check_places(settings.store, settings.mountpoint)
    make_room(settings.mountpoint)  # before a store is made for nothing
    require()
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    store = open_store(settings.store, create=True, hash_worker=True)
    move_log(settings)
    remove_empty(RUN_DIRECTORY)
    settings.store.chmod(0o711)  # passable: owners read their own files below logs/
    try:
        async with trio.open_nursery() as agents:
            await _serve_store(settings, store, agents)
            agents.cancel_scope.cancel()
    finally:
        with suppress(OSError):  # units that go on keep it
            (RUN_DIRECTORY / store.store_id).rmdir()
        store.close()


def check_places(store: Path, mountpoint: Path) -> None:
    """Raise CannotRun when one place is inside the other: the mount would hide its store."""
    inside, outside = store.resolve(), mountpoint
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise CannotRun(f"{store} and {mountpoint} lie in each other: choose another directory")


async def _serve_store(settings: Settings, store: LocalStore, agents: trio.Nursery) -> None:
    paths = NodePaths(
        store_id=store.store_id,
        run=RUN_DIRECTORY / store.store_id,
        state=settings.store / "jobs",
        logs=settings.store / "logs",
    )
    name = socket.gethostname().partition(".")[0] or "localhost"
    agent = Agent(name, paths, agents, hidden=[settings.mountpoint])
    agent.keep_spare()
    sweep = Sweep(
        store.garbage,
        wall_s=time.time,
        uptime_s=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        is_scarce=lambda: is_scarce(*store.garbage.free_and_total()),
        room=store.garbage.free_and_total,
        copies=store.copies,
    )
    parts = make_parts(
        store,
        agent,
        directory=settings.store,
        mountpoint=settings.mountpoint,
        sweeper=sweep,
        copies=store.copies,
    )
    store.trash.is_named = partial(is_named, parts)
    service = Coordinator(parts)
    try:
        await service.recover()
        async with trio.open_nursery() as mounted:
            async with trio.open_nursery() as serving:
                await serving.start(service.run)
                # before there is a mount that a signal could leave behind
                await serving.start(_stop_at_signal, serving.cancel_scope)
                await mounted.start(_serve_mount, service, settings, serving.cancel_scope)
                log.info("%s serves %s", settings.store, settings.mountpoint)
                if not report_ready(settings.ready_fd):
                    log.info("ending: whoever asked for the mount has gone before it was ready")
                    serving.cancel_scope.cancel()
            # What was under way has been undone by now, while the mount still answered.
            mounted.cancel_scope.cancel()
    finally:
        service.close()


async def _serve_mount(
    service: Coordinator,
    settings: Settings,
    serving: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve the mount; when it is taken away, everything else ends as well."""
    options = MountOptions(hide_jobs=settings.hide_jobs)
    try:
        await serve(service, settings.mountpoint, options=options, task_status=task_status)
    finally:
        serving.cancel()


async def _stop_at_signal(
    serving: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    # `ckptfs umount` sends SIGTERM as well, also to a service that is ending by then: what is still
    # to be closed must not be cut off.  Not SIG_IGN, which everything started here would inherit.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            log.info("%s: ending; jobs go on", signal.Signals(number).name)
            serving.cancel()


def report_ready(descriptor: int) -> bool:
    """Tell whoever waits at the pipe's other end that the mount serves; False: nobody does."""
    if descriptor < 0:
        return True
    try:
        os.write(descriptor, b"ready\n")
    except BrokenPipeError:
        return False
    finally:
        os.close(descriptor)
    return True


def refusals(error: BaseException) -> Iterator[CkptfsError]:
    """Yield the errors of ours in *error*, which nurseries may have wrapped."""
    if isinstance(error, CkptfsError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from refusals(inner)


def move_log(settings: Settings) -> None:
    """In the background, log to the store's file from now on; there is nobody at stderr.

    Not earlier: a directory that is no store yet, or another daemon's, is left alone.
    """
    if settings.ready_fd < 0:
        return
    logging.basicConfig(
        level=logging.INFO,
        format=LOG_FORMAT,
        filename=settings.store / LOG_NAME,
        encoding="utf-8",
        force=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit code, after one sentence on stderr when it cannot run."""
    settings = parse_arguments(sys.argv[1:] if argv is None else argv)
    faulthandler.enable()
    os.umask(0o077)  # the catalog and the log are root's alone
    background = settings.ready_fd >= 0
    logging.basicConfig(level=logging.CRITICAL if background else logging.INFO, format=LOG_FORMAT)
    try:
        trio.run(run, settings)
    except OSError as error:
        return _give_up(CannotRun(f"{error.filename or settings.store}: {error.strerror}"))
    except (CkptfsError, BaseExceptionGroup) as error:
        refused = next(refusals(error), None)
        if refused is None:
            log.exception("the service ended in a bug")
            raise
        return _give_up(refused)
    log.info("ended")
    return 0


def _give_up(error: CkptfsError) -> int:
    log.error("%s", error)
    print(f"ckptfs: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
