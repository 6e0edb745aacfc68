"""Blockers of real processes: each is found before anything is stopped; harmless things are not."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading

import pytest
import trio

from ckptfs.model import Owner

from .nodes import OWNER, UNIT, bench, python_job

pytestmark = pytest.mark.criu

ROOT = Owner(0, 0, (), "root")
READY = "\nprint('ready', flush=True)\nimport time\nwhile True: time.sleep(1)\n"


def own_tmp(tmp_path):
    """Make a directory for what the job leaves: it ends by SIGKILL and clears up nothing."""
    place = tmp_path / "tmp"
    place.mkdir(exist_ok=True)
    place.chmod(0o1777)
    return place


def blockers_of(tmp_path, program, *, then_save=False, owner=OWNER):
    found = []

    async def main():
        async with bench(tmp_path) as b:
            spec = python_job(program + READY, owner=owner, env={"TMPDIR": str(own_tmp(tmp_path))})
            unit = await b.start(spec)
            await b.lines(unit, 0)
            found.extend((await unit.prepare()).blockers)
            await unit.resume_cp()
            if then_save:
                saved = await b.save(unit)
                await unit.kill()
                await b.wait_end(unit.job)
                again = await b.rebuild(unit.job, spec, saved)
                await again.resume_rst()
                assert len(await again.processes()) >= 1

    trio.run(main)
    return found


BLOCKED = {
    "io_uring": (
        "import ctypes\nl = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(256)\n"
        "assert l.syscall(425, 4, b) >= 0",
        ["process 1000 (python3), descriptor 3: io_uring cannot be saved", "UV_USE_IO_URING=0"],
    ),
    "userfaultfd": (
        "import ctypes\nassert ctypes.CDLL(None).syscall(323, 1) >= 0",
        ["descriptor 3: userfaultfd"],
    ),
    "terminal of its own without master": (
        "import os, pty\nm, s = pty.openpty()\nos.close(m)",
        ["descriptor 4: the terminal"],
    ),
    "packet of two processes": (
        "import os, socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({path!r})",
        ["descriptor 3: a unix socket", "outside the job"],
    ),
    "tcp to outside": (
        "import socket\ns = socket.create_connection(('127.0.0.1', {port}))",
        ["descriptor 3: a TCP connection to 127.0.0.1:{port}, outside the job", "tcp_established"],
    ),
    "fifo to outside": (
        "f = open({fifo!r}, 'r+b', buffering=0)",
        ["descriptor 3: a process outside the job has the other end"],
    ),
    "removed name with another link": (
        "import os, tempfile\nd = tempfile.mkdtemp()\nf = open(d + '/a', 'w')\n"
        "os.link(d + '/a', d + '/b')\nos.unlink(d + '/a')",
        ["/a was removed while another hard link"],
    ),
    "traced process": (
        "import os, ctypes\np = os.fork()\nif p == 0:\n    import time; time.sleep(99)\n"
        "assert ctypes.CDLL(None).ptrace(0x4206, p, 0, 0) == 0",
        ["process 1001 (python3): a debugger or tracer is attached"],
    ),
    "system v shared memory": (
        "import ctypes\nl = ctypes.CDLL(None)\nl.shmat.restype = ctypes.c_void_p\n"
        "assert l.shmat(l.shmget(0, 4096, 0o1600), None, 0)",
        ["process 1000 (python3) has System V shared memory"],
    ),
    "user namespace": (
        "import ctypes, os, time\nif os.fork() == 0:\n"
        "    assert ctypes.CDLL(None).unshare(0x10000000) == 0\n"
        "    print('in', flush=True); time.sleep(99)\ntime.sleep(0.5)",
        ["process 1001 (python3) is in a user namespace of its own"],
    ),
    "device": (
        "import os\nf = os.open('/dev/kmsg', os.O_RDONLY)",
        ["descriptor 3: the device /dev/kmsg cannot be saved"],
    ),
    "file system server": (
        "import os\nf = os.open('/dev/fuse', os.O_RDWR)",
        ["descriptor 3: /dev/fuse is open"],
    ),
}


@pytest.fixture
def outside(tmp_path):
    """A process outside the job (this one) that listens, and holds a FIFO open."""
    path, fifo = str(tmp_path / "out.sock"), str(tmp_path / "fifo")
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix.bind(path)
        os.chmod(path, 0o777)
        unix.listen()
        os.mkfifo(fifo)
        os.chmod(fifo, 0o666)
        stack.callback(os.close, os.open(fifo, os.O_RDWR))
        selector = stack.enter_context(selectors.DefaultSelector())
        closing = threading.Event()

        def accept():
            while not closing.is_set():
                for key, _ in selector.select(0.05):
                    stack.enter_context(key.fileobj.accept()[0])

        for listener in (unix, tcp):
            selector.register(listener, selectors.EVENT_READ)
        thread = threading.Thread(target=accept)
        thread.start()
        yield {"path": path, "fifo": fifo, "port": tcp.getsockname()[1]}
        closing.set()
        thread.join()


@pytest.mark.parametrize("name", BLOCKED)
def test_blocker_is_named(tmp_path, outside, name):
    program, words = BLOCKED[name]
    for key, value in outside.items():
        program = program.replace("{" + key + "!r}", repr(value)).replace(f"{{{key}}}", str(value))
    as_root = name in {"device", "file system server"}
    found = blockers_of(tmp_path, program, owner=ROOT if as_root else OWNER)
    assert len(found) == 1, found
    for word in words:
        assert word.format(**outside) in found[0]


HARMLESS = {
    "nothing": "",
    "devices": (
        "keep = [open('/dev/' + n, 'rb') for n in ('null', 'zero', 'full', 'random', 'urandom')]"
    ),
    "epoll and friends": (
        "import select, os, signal\ne = select.epoll()\nv = os.eventfd(0)\ne.register(v)\n"
        "p = select.poll()"
    ),
    "pipes inside": "import os\nr, w = os.pipe()\nos.fork()",
    "pipe with one end": "import os\nr, w = os.pipe()\nos.close(w)",
    "socket pair": "import socket\na, b = socket.socketpair()",
    "unix listener and client": (
        "import socket, tempfile\ns = socket.socket(socket.AF_UNIX)\n"
        "n = tempfile.mkdtemp() + '/s'\ns.bind(n)\ns.listen()\n"
        "c = socket.socket(socket.AF_UNIX)\nc.connect(n)\na = s.accept()"
    ),
    "datagram pair": "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "tcp listener": "import socket\ns = socket.create_server(('127.0.0.1', 0))",
    "tcp listener on IPv6": (
        "import socket\ns = socket.create_server(('::1', 0), family=socket.AF_INET6)"
    ),
    "tcp over loopback": (
        "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(s.getsockname())\na, _ = s.accept()\nc.send(b'x')"
    ),
    "udp": "import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 0))",
    "unlinked file": (
        "import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'x' * 99999)\nf.flush()"
    ),
    "memfd": "import os\nf = os.memfd_create('x')\nos.write(f, b'abc')",
    "locks": (
        "import fcntl, tempfile\nf = tempfile.NamedTemporaryFile()\nfcntl.flock(f, fcntl.LOCK_EX)"
    ),
    "shared memory": ("import mmap, os\nm = mmap.mmap(-1, 1 << 16)\nos.fork()\nm[0:3] = b'abc'"),
    "daemonised child": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
        "    time.sleep(99)\ntime.sleep(0.2)"
    ),
    "stopped child": "import os, signal\np = os.fork()\nif not p: os.kill(os.getpid(), 19)",
    "zombie": "import os\nif not os.fork(): os._exit(0)",
    "signal and timer descriptors": (
        "import ctypes, signal\nl = ctypes.CDLL(None)\nassert l.timerfd_create(1, 0) >= 0\n"
        "m = ctypes.create_string_buffer(128)\nassert l.signalfd(-1, m, 0) >= 0"
    ),
    "inotify": (
        "import ctypes\nl = ctypes.CDLL(None)\nf = l.inotify_init()\n"
        "assert l.inotify_add_watch(f, b'/tmp', 2) >= 0"
    ),
    "threads": (
        "import threading, time\nfor _ in range(8):\n"
        "    threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    ),
    "working directory": "import os, tempfile\nos.chdir(tempfile.mkdtemp())",
    "pidfd": (
        "import os\np = os.fork()\nif not p:\n    import time; time.sleep(99)\nf = os.pidfd_open(p)"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARMLESS)
def test_no_false_alarm_and_it_restarts(tmp_path, name):
    assert blockers_of(tmp_path, HARMLESS[name], then_save=True) == []


def test_terminal_pair_inside_is_judged_as_criu_does(tmp_path):
    """A pseudo terminal whose both ends are inside: no blocker, and it is saved and restarted."""
    found = blockers_of(tmp_path, "import pty\nm, s = pty.openpty()", then_save=True)
    assert found == []


def test_orphans_stay_in_the_tree(tmp_path):
    """The root adopts them, so the checkpointer takes them."""

    async def main():
        async with bench(tmp_path) as b:
            program = HARMLESS["daemonised child"] + READY
            unit = await b.start(python_job(program))
            await b.lines(unit, 0)
            inner = sorted(process.inner_pid for process in await unit.processes())
            assert len(inner) == 2
            prepared = await unit.prepare()
            assert prepared.facts.pids == tuple(inner)
            assert (await b.agent.attach(unit.job, UNIT)) is not None

    trio.run(main)
