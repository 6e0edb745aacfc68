"""The node agent: `NodePort` over real supervisors.

It starts supervisors, connects to the ones it finds after a restart of the
daemon, and tells who listens when a unit ends.  It is never inside a job's
cgroup or namespaces, and its own end harms no job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from ..errors import Busy, CannotRun, NoSuchProcess
from ..ids import JobId, UnitName
from ..model import JobSpec, UnitFacts
from ..translib.api import Availability
from ..translib.registry import TRANSLIBS, make_translib
from . import facts as node_facts
from .api import Exit
from .cgroup import remove_cgroup, unit_cgroup
from .client import connect
from .orders import Launch, store_launch
from .port import ANSWER_TIMEOUT_S, SupervisedUnitPort
from .rundir import (
    LogView,
    NodePaths,
    UnitPaths,
    load_exit,
    make_directory,
    make_output_files,
    make_shown,
    remove_run,
    unit_paths,
)
from .starting import REST_S, Spare, start_supervisor

_TRANSLIB = "criu"

ExitCallback = Callable[[JobId, UnitName, Exit | None], None]
LoadedCallback = Callable[[JobId, UnitName], None]


class Agent:
    """The agent of this node.  Tasks that read from supervisors run in *nursery*.

    *hidden*: mount points that units shall not see (a mount that a unit's
    namespace pins outlives its umount).
    """

    def __init__(
        self, name: str, paths: NodePaths, nursery: trio.Nursery, *, hidden: Sequence[Path] = ()
    ) -> None:
        self.name = name
        self._paths = paths
        self._nursery = nursery
        self._hidden = tuple(str(path) for path in hidden)
        self._callbacks: list[ExitCallback] = []
        self._loaded: list[LoadedCallback] = []
        self._ready: dict[tuple[JobId, UnitName], SupervisedUnitPort] = {}
        self._spare = Spare()
        self._here = node_facts.node_facts()

    def keep_spare(self, rest_s: float = REST_S) -> None:
        """Have a supervisor started before it is needed, the next *rest_s* after its use."""
        self._nursery.start_soon(self._spare.keep, rest_s)

    def unit_paths(self, job: JobId, unit: UnitName) -> UnitPaths:
        """Return where a unit's files are, its default stdout and stderr among them."""
        return unit_paths(self._paths, job, unit)

    async def probe(self) -> Mapping[str, Availability]:
        """Return what each translib here can do, by name."""
        return {name: await make_translib(name).probe() for name in TRANSLIBS}

    def on_exit(self, callback: ExitCallback) -> None:
        """Register who hears of ended units."""
        self._callbacks.append(callback)

    def on_loaded(self, callback: LoadedCallback) -> None:
        """Register who hears of units whose memory is all there."""
        self._loaded.append(callback)

    def check_restart(self, facts: UnitFacts, availability: Mapping[str, Availability]) -> str:
        """Return "" if an image with these facts can be rebuilt here, else one sentence."""
        return node_facts.compare(facts, self._here, availability)

    # -- starting --------------------------------------------------------------------------------

    async def start(self, job: JobId, unit: UnitName, spec: JobSpec) -> SupervisedUnitPort:
        """Start a fresh unit; return when its program runs."""
        own = self._log_directory(job)
        logs = LogView(own, own)
        return await self._launch(job, unit, spec, translib=_TRANSLIB, fresh=True, logs=logs)

    async def make_ready(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        facts: UnitFacts,
        *,
        logs_shown_as: JobId | None = None,
    ) -> None:
        """Start supervisor and namespaces for a `rebuild` to come."""
        shown = Path(facts.logs or self._log_directory(logs_shown_as or job))
        view = LogView(self._log_directory(job), shown)
        port = await self._launch(job, unit, spec, translib=facts.translib, fresh=False, logs=view)
        self._ready[job, unit] = port
        try:
            await port.hold_for_rebuild()
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.drop_ready(job, unit)
            raise

    async def drop_ready(self, job: JobId, unit: UnitName) -> None:
        """Take `make_ready` back; harmless when there is nothing ready."""
        port = self._ready.pop((job, unit), None)
        if port is not None:
            await self._abandon(port)

    async def _abandon(self, port: SupervisedUnitPort) -> None:
        with trio.CancelScope(shield=True):
            await port.abandon()
            await trio.to_thread.run_sync(self._sweep, port.job, port.unit)

    async def rebuild(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        facts: UnitFacts,
        directory: Path,
        *,
        suffix: str,
        logs_shown_as: JobId | None = None,
        logs_copied_from: JobId | None = None,
        lazy: bool = False,
        proved: trio.Event | None = None,
    ) -> SupervisedUnitPort:
        """Put the output files back and rebuild the unit, frozen."""
        if (job, unit) not in self._ready:
            await self.make_ready(job, unit, spec, facts, logs_shown_as=logs_shown_as)
        port = self._ready.pop((job, unit))
        copied = logs_copied_from and str(self._log_directory(logs_copied_from))
        try:
            await port.rebuild(
                facts,
                directory,
                suffix=suffix,
                copied_logs=copied or "",
                lazy=lazy,
                proved=proved,
            )
        except BaseException:
            await self._abandon(port)
            raise
        port.let_supervisor_be()
        return port

    async def _launch(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        *,
        translib: str,
        fresh: bool,
        logs: LogView,
    ) -> SupervisedUnitPort:
        launch = Launch(
            job=job,
            unit=unit,
            node=self.name,
            translib=translib,
            fresh=fresh,
            spec=spec,
            cgroup=unit_cgroup(self._paths.store_id, job, unit),
            paths=self.unit_paths(job, unit),
            hidden=self._hidden,
            logs=logs,
        )
        await _require_unserved(launch.paths)
        self._lay_out(launch)
        try:
            await start_supervisor(launch.paths.run, self._spare)
            port = await self._connect(job, unit)
            if port is None:
                raise CannotRun("the unit's supervisor ended at once")
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._sweep, job, unit)
            raise
        return port

    def _lay_out(self, launch: Launch) -> None:
        """Make the directories and files that a new supervisor needs."""
        paths, owner = launch.paths, launch.spec.owner
        paths.exit.unlink(missing_ok=True)
        make_directory(self._paths.run, 0o700)
        make_directory(paths.state, 0o700)
        remove_run(paths)
        store_launch(launch)
        make_output_files(paths, owner.uid, owner.gid)
        if launch.logs.shown != launch.logs.own:  # where they are mounted
            make_shown(launch.logs.shown)

    def _log_directory(self, job: JobId) -> Path:
        return self._paths.logs.resolve() / job

    # -- finding ---------------------------------------------------------------------------------

    async def attach(self, job: JobId, unit: UnitName) -> SupervisedUnitPort | Exit | None:
        """Find a unit: running, ended (recorded), or lost (None: killed supervisor, reboot).

        Raises TryAgain when that cannot be told.
        """
        try:
            port = await self._connect(job, unit)
        except NoSuchProcess:  # it ends at this moment
            port = None
        if port is not None:
            return port
        ended = load_exit(self.unit_paths(job, unit))
        if ended is None:
            await trio.to_thread.run_sync(self._sweep, job, unit)
        return ended

    def forget(self, job: JobId, unit: UnitName) -> None:
        """Remove runtime leftovers of a unit that has ended."""
        self._sweep(job, unit)
        self.unit_paths(job, unit).exit.unlink(missing_ok=True)

    def _sweep(self, job: JobId, unit: UnitName) -> None:
        remove_cgroup(unit_cgroup(self._paths.store_id, job, unit))
        remove_run(self.unit_paths(job, unit))

    async def _connect(self, job: JobId, unit: UnitName) -> SupervisedUnitPort | None:
        def ended(how: Exit | None) -> None:
            self._tell(job, unit, port, how)

        def loaded() -> None:
            if port is not None:
                port.is_loading = False
                for callback in self._loaded:
                    callback(job, unit)

        port: SupervisedUnitPort | None = None
        client = await connect(self.unit_paths(job, unit).socket, ended, loaded)
        if client is None:
            return None
        self._nursery.start_soon(client.run)
        hello = await client.request("hello", timeout_s=ANSWER_TIMEOUT_S)
        port = SupervisedUnitPort(job, unit, client, int(hello["pid"]))
        return port

    def _tell(
        self, job: JobId, unit: UnitName, port: SupervisedUnitPort | None, how: Exit | None
    ) -> None:
        if port is None or port.is_abandoned:
            return
        port.pid = 0
        how = how or load_exit(self.unit_paths(job, unit))
        for callback in self._callbacks:
            callback(job, unit, how)


async def _require_unserved(paths: UnitPaths) -> None:
    """Raise Busy when a supervisor serves this unit already: it must not be swept away."""
    client = await connect(paths.socket, lambda _: None)
    if client is not None:
        await client.aclose()
        raise Busy("the unit is running")
