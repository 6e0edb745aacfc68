"""The supervisor's loop: one unix socket, the unit's primitives, its lease, its end.

A request is a line ``{"id": 1, "do": "stop", ...}``, its answer ``{"id": 1,
"ok": ...}`` or ``{"id": 1, "error": class, "text": sentence}``; ``{"event":
"exit", ...}`` comes unasked.  Whoever stopped the unit holds a lease: when that
connection closes or the time is over, the unit goes on by itself.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import trio

from ..errors import CheckpointerFailed, CkptfsError, Corrupt, InvalidInput, NoSuchProcess
from ..translib.freezer import kill_members
from .cgroup import remove_cgroup
from .isolation import Holder, kill_holder
from .orders import Launch
from .records import Json, decode_line, encode_line, exit_from_status, to_json
from .rundir import make_directory, store_exit
from .unit import SupervisedUnit

_LINE_MAX = 64 << 20  # bytes; a restart's facts list every open file
_KILL_GRACE_S = 5.0
_LAST_WORDS_S = 1.0  # how long ended units wait for their listeners to take the news
# A program that ends at once (1 in 100 runs of /bin/true) may be over before the agent, told that
# the unit is ready, has connected: it is waited for this long.
_GREETING_S = 5.0


class Connection:
    """One client; sends whole lines, one at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send one message; a client that has gone is no error."""
        async with self._lock:
            try:
                await self._stream.send_all(encode_line(message))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


class Service:
    """Serves one unit until it has ended."""

    def __init__(self, launch: Launch, holder: Holder) -> None:
        self.launch = launch
        self.holder = holder
        self.unit = SupervisedUnit(launch, holder)
        self.connections: set[Connection] = set()
        self.ended = trio.Event()  # the root process has ended, or there will be none
        self._greeted = trio.Event()  # the agent that started the unit knows it
        self._lessee: Connection | None = None
        self._lease: trio.CancelScope | None = None
        self._operation: trio.CancelScope | None = None
        self._at_work = 0  # primitives under way, also one that was cut short and is still ending
        self._at_rest = trio.Event()
        self._nursery: trio.Nursery | None = None

    # -- requests --------------------------------------------------------------------------------

    async def answer(self, connection: Connection, request: Mapping[str, Json]) -> None:
        """Carry one request out and send its answer."""
        number = request.get("id")
        try:
            handler = HANDLERS.get(request.get("do", ""))
            if handler is None:
                raise InvalidInput(f"no request is called {request.get('do')!r}")
            result = await handler(self, connection, request)
        except CkptfsError as bad:
            await connection.send({"id": number, "error": type(bad).__name__, "text": str(bad)})
        except OSError as bad:
            await connection.send({"id": number, "error": "CheckpointerFailed", "text": str(bad)})
        else:
            await connection.send({"id": number, "ok": result})
            if request.get("do") == "hello":
                self._greeted.set()
            if request.get("do") == "resume_rst" and self._nursery and self.unit.is_loading():
                self._nursery.start_soon(self._follow_loading)
        if self.unit.failed and request.get("do") == "rebuild":
            self.ended.set()  # only now, when the answer is out: the supervisor ends with this

    async def operate(self, work: Callable[[], Awaitable[Json]]) -> Json:
        """Run a primitive that `let_go`, `kill` and the unit's end may cut short."""
        with trio.CancelScope() as scope:
            before, self._operation = self._operation, scope
            self._at_work += 1
            try:
                return await work()
            finally:
                self._operation = before
                self._at_work -= 1
                if not self._at_work:
                    self._at_rest.set()
                    self._at_rest = trio.Event()
        raise NoSuchProcess("the operation was cut short: the unit ended, or its lease was over")

    async def stop(self, connection: Connection, request: Mapping[str, Json]) -> Json:
        """Freeze under a lease of ``lease_s`` seconds held by the connection."""
        assert self._nursery is not None
        self._lessee = connection
        files = await self.operate(self.unit.stop)
        if self._lease is not None:
            self._lease.cancel()
        self._lease = trio.CancelScope(deadline=trio.current_time() + float(request["lease_s"]))
        self._nursery.start_soon(self._watch_lease, self._lease)
        return files

    async def _watch_lease(self, lease: trio.CancelScope) -> None:
        with lease:
            await trio.sleep_forever()
        if self._lease is lease:
            await self.let_go()

    async def confirm(self, connection: Connection, request: Mapping[str, Json]) -> Json:
        """See that what was streamed has arrived, and that the unit stands still to this moment.

        Pages in a pipe are the unit's own: were it to go on before they are read, its new bytes
        would be taken for those of the standstill.  Raises CheckpointerFailed.
        """
        if self._lease is None:
            raise CheckpointerFailed("the unit's lease was over before its image had been read")
        return await self.operate(partial(self.unit.confirm, request["directory"]))

    async def resume_cp(self, connection: Connection, request: Mapping[str, Json]) -> Json:
        """Thaw, and end the lease."""
        await self.unit.resume_cp()
        self._end_lease()
        return None

    def _end_lease(self) -> None:
        lease, self._lease, self._lessee = self._lease, None, None
        if lease is not None:
            lease.cancel()

    def hold(self, connection: Connection) -> None:
        """Wait for a rebuild as long as *connection* lives, no longer."""
        self._lessee = connection

    async def rebuild(self, connection: Connection, request: Mapping[str, Json]) -> Json:
        """Rebuild; a failure ends this supervisor once the answer is sent."""
        self._lessee = connection
        try:
            return await self.operate(partial(self.unit.rebuild, request))
        except BaseException:
            self.unit.failed = True
            raise

    async def resume_rst(self, connection: Connection, request: Mapping[str, Json]) -> Json:
        """Let the rebuilt unit go; the daemon's connection does not matter to it any more."""
        await self.unit.resume_rst(stopped=bool(request["stopped"]))
        self._lessee = None
        return {"loading": self.unit.is_loading()}

    async def _follow_loading(self) -> None:
        """Tell everyone when nothing is missing any more; a loss is told with the exit."""
        try:
            await self.unit.wait_loaded()
        except CheckpointerFailed:
            kill_members(self.launch.cgroup)
            return
        for connection in tuple(self.connections):
            await connection.send({"event": "loaded"})

    async def kill(self, connection: Connection, request: Mapping[str, Json]) -> Json:
        """Kill every process; return when the end has been recorded."""
        if self.unit.is_rebuilding():
            await self.let_go()
            return None
        self._cut_short()
        kill_members(self.launch.cgroup)
        with trio.move_on_after(_KILL_GRACE_S):
            await self.ended.wait()
        if not self.ended.is_set():
            os.kill(self.holder.pid, 9)
        await self.ended.wait()
        return None

    def _cut_short(self) -> None:
        if self._operation is not None:
            self._operation.cancel()

    async def let_go(self) -> None:
        """Abort for a daemon that has gone: a stopped unit goes on, a half-made one goes away.

        A dump that is cut short leaves the unit frozen, as its caller wants it; here there is none
        any more.  So the unit is let go now, in case the dump cannot end, and when it has ended.
        """
        self._cut_short()
        self._end_lease()
        if self.unit.is_rebuilding():
            kill_members(self.launch.cgroup)
            self.unit.failed = True
            self.ended.set()
            return
        with trio.CancelScope(shield=True):
            await self.unit.abort()
            if self._at_work:
                await self._at_rest.wait()
                if self._lease is None:  # nobody has stopped it anew
                    await self.unit.abort()

    # -- the unit's end --------------------------------------------------------------------------

    async def watch_holder(self) -> None:
        """Wait for the root's status, record it durably, tell everyone."""
        await trio.lowlevel.wait_readable(self.holder.status_fd)
        text = os.read(self.holder.status_fd, 32)
        if self.unit.is_rebuilding():
            # Never let go, so its end is nobody's news; an operation under way will fail by this.
            self.unit.failed = True
            if self._operation is None:
                self.ended.set()
            return
        # No status: the holder was killed, and with it the unit.
        ended = exit_from_status(int(text) if text else 9)
        self._cut_short()
        ended = replace(ended, reason=await self.unit.end_loading())
        await trio.to_thread.run_sync(store_exit, self.launch.paths, ended)
        with trio.move_on_after(_LAST_WORDS_S):
            await trio.to_thread.run_sync(self._clean)
        with trio.move_on_after(_GREETING_S):
            await self._greeted.wait()
        self.launch.paths.socket.unlink(missing_ok=True)
        with trio.move_on_after(_LAST_WORDS_S):
            for connection in tuple(self.connections):
                await connection.send({"event": "exit", **to_json(ended)})
        self.ended.set()

    def _clean(self) -> None:
        kill_holder(self.holder.pid)
        remove_cgroup(self.launch.cgroup)

    # -- connections -----------------------------------------------------------------------------

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one client until it closes."""
        connection = Connection(stream)
        self.connections.add(connection)
        try:
            async with trio.open_nursery() as nursery:
                await self._read_requests(connection, stream, nursery)
                nursery.cancel_scope.cancel()
        finally:
            self.connections.discard(connection)
            if connection is self._lessee:
                with trio.CancelScope(shield=True):
                    await self.let_go()
            with trio.CancelScope(shield=True):
                await stream.aclose()

    async def _read_requests(
        self, connection: Connection, stream: trio.SocketStream, nursery: trio.Nursery
    ) -> None:
        running: dict[Json, trio.CancelScope] = {}
        pending = b""
        while True:
            try:
                data = await stream.receive_some(65536)
            except trio.BrokenResourceError:
                return
            if not data or len(pending) > _LINE_MAX:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                try:
                    request = decode_line(line)
                except Corrupt:
                    return
                if "cancel" in request:
                    scope = running.get(request["cancel"])
                    if scope is not None:
                        scope.cancel()
                    continue
                nursery.start_soon(self._run_request, connection, request, running)

    async def _run_request(
        self,
        connection: Connection,
        request: Mapping[str, Json],
        running: dict[Json, trio.CancelScope],
    ) -> None:
        with trio.CancelScope() as scope:
            running[request.get("id")] = scope
            try:
                await self.answer(connection, request)
            finally:
                running.pop(request.get("id"), None)
        if scope.cancelled_caught:
            await connection.send(
                {"id": request.get("id"), "error": "TryAgain", "text": "cancelled"}
            )

    async def run(self, ready: Callable[[], None]) -> None:
        """Listen, say *ready*, and serve until the unit has ended."""
        make_directory(self.launch.paths.run, 0o700)
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        path = self.launch.paths.socket
        path.unlink(missing_ok=True)
        await listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(16)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.watch_holder)
            nursery.start_soon(trio.serve_listeners, self.serve, [trio.SocketListener(listener)])
            ready()
            await self.ended.wait()
            nursery.cancel_scope.cancel()


Handler = Callable[[Service, Connection, Mapping[str, Json]], Awaitable[Json]]


async def _hello(service: Service, connection: Connection, request: Mapping[str, Json]) -> Json:
    return {"pid": service.unit.root_pid(), "job": service.launch.job, "unit": service.launch.unit}


async def _hold(service: Service, connection: Connection, request: Mapping[str, Json]) -> Json:
    service.hold(connection)
    return {"pid": os.getpid()}


async def _prepare(service: Service, connection: Connection, request: Mapping[str, Json]) -> Json:
    return await service.unit.prepare()


async def _checkpoint(
    service: Service, connection: Connection, request: Mapping[str, Json]
) -> Json:
    streams = bool(request.get("streams", False))
    work = partial(service.unit.checkpoint, request["directory"], streams=streams)
    return await service.operate(work)


async def _proved(service: Service, connection: Connection, request: Mapping[str, Json]) -> Json:
    service.unit.note_proved()


async def _signal(service: Service, connection: Connection, request: Mapping[str, Json]) -> Json:
    service.unit.signal(
        request["number"], only=request["only"], others=request["others"], master=request["master"]
    )


async def _processes(service: Service, connection: Connection, request: Mapping[str, Json]) -> Json:
    return [to_json(process) for process in service.unit.processes()]


HANDLERS: dict[str, Handler] = {
    "hello": _hello,
    "hold": _hold,
    "prepare": _prepare,
    "stop": Service.stop,
    "checkpoint": _checkpoint,
    "confirm": Service.confirm,
    "resume_cp": Service.resume_cp,
    "rebuild": Service.rebuild,
    "proved": _proved,
    "resume_rst": Service.resume_rst,
    "kill": Service.kill,
    "signal": _signal,
    "processes": _processes,
}


def serve_unit(launch: Launch, holder: Holder, ready: Callable[[], None]) -> None:
    """Run the service on trio until the unit has ended."""
    trio.run(Service(launch, holder).run, ready)
