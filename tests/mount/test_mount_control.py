"""Control files through the kernel: what a shell user sees."""

import errno
import os
import select
import time

import pytest

pytestmark = pytest.mark.fuse


def test_ls_cat_echo(mounted):
    assert mounted.out("ls").split() == ["ctl", "heat.42"]
    assert mounted.out("ls heat.42").split() == ["1", "ctl", "latest"]
    assert mounted.out("cat heat.42/ctl/state ctl/health") == "running\nok\n"
    assert mounted.out("readlink heat.42/latest; ls heat.42/latest") == (
        "1\nJobUnit_1\nSHA256SUMS\nctl\njob.cpx\n"
    )
    script = "cd heat.42/ctl; echo keep_last 3 > retention; cat retention; cat protocol"
    assert mounted.out(script) == "keep_last 3\n[coordinated] independent\n"


def test_every_control_file_can_be_read(shared):
    done = shared.sh("cat ctl/* heat.42/ctl/* heat.42/1/ctl/*")
    assert done.stderr == "cat: ctl/spool: Is a directory\n"


def test_a_verb_prints_its_usage(mounted):
    assert mounted.out("cat heat.42/ctl/kill").startswith("none\n# echo 1 > kill")
    mounted.out("echo USR1 > heat.42/ctl/signal")
    assert mounted.out("head -1 heat.42/ctl/signal") == "USR1\n"


def test_a_checkpoint_from_the_shell(mounted):
    script = "exec 3<>heat.42/ctl/checkpoint; echo 1 >&3; read -u3 version; echo $version"
    assert mounted.out(script) == "2\n"
    assert mounted.out("cat heat.42/ctl/checkpoint heat.42/ctl/state") == (
        "2 saving\ncheckpointing\n"
    )
    assert mounted.out("ls heat.42").split() == ["1", "ctl", "latest"]  # unfinished: not visible
    mounted.tell("complete", "heat.42")
    assert mounted.out("cat heat.42/ctl/checkpoint; readlink heat.42/latest") == "2 complete\n2\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo frobnicate > heat.42/ctl/checkpoint", "Invalid argument"),
        ("echo > heat.42/ctl/checkpoint", "Invalid argument"),
        ("printf '1\\n1\\n\\0' | dd of=heat.42/ctl/kill bs=10", "Invalid argument"),
        ("echo keep_last 99999999 > heat.42/ctl/retention", "Numerical result out of range"),
        ("echo 999 > heat.42/ctl/signal", "Numerical result out of range"),
        ("dd if=/dev/zero of=heat.42/ctl/kill bs=5000 count=1", "Argument list too long"),
        ("echo 9 > heat.42/ctl/restart", "No such file or directory"),
        ("echo nothing > ctl/submit", "No such file or directory"),
        ("echo 15 only=1 > heat.42/ctl/signal", "No such process"),
        ("echo 1 > heat.42/ctl/restart", "Device or resource busy"),
        ("echo running > heat.42/ctl/state", "Permission denied"),  # root too
        ("echo x > heat.42/ctl/new", "Operation not permitted"),
        ("mkdir heat.43", "Operation not permitted"),
        ("rm heat.42/ctl/state", "Device or resource busy"),
        ("cat nothing.1", "No such file or directory"),
        ("chmod 777 heat.42/ctl/kill", "Operation not permitted"),
    ],
)
def test_errno_reaches_the_shell(shared, script, message):
    done = shared.sh(script)
    assert message in done.stderr
    assert done.returncode != 0
    assert shared.out("cat heat.42/ctl/state") == "running\n"  # no side effect


def test_a_refusal_is_a_sentence_on_the_same_descriptor_and_in_error(mounted):
    script = """exec 3<>heat.42/ctl/restart
        echo 1 2>/dev/null >&3; read -u3 a; echo 9 2>/dev/null >&3; read -u3 b; echo "$a|$b" """
    assert mounted.out(script) == ("error heat.42 is running|error heat.42 has no version 9\n")
    assert mounted.out("cut -c22- heat.42/ctl/error") == "restart: heat.42 has no version 9\n"


def test_python_sees_the_errno_and_a_repeat_at_close_does_no_harm(mounted):
    path = mounted.path / "heat.42/ctl/checkpoint"
    with pytest.raises(OSError, match="Invalid argument") as info:
        path.write_text("nonsense")
    assert info.value.errno == errno.EINVAL
    path.write_text("1")
    assert path.read_text() == "2 saving\n"


def test_poll_wakes_once_and_shows_the_latest(mounted):
    fd = os.open(mounted.path / "heat.42/ctl/state", os.O_RDONLY)
    waiter = select.poll()
    waiter.register(fd, select.POLLPRI)
    assert waiter.poll(0) == [(fd, select.POLLPRI | select.POLLERR)]  # never read yet
    assert os.read(fd, 100) == b"running\n"
    assert waiter.poll(50) == []
    mounted.out("echo 1 > heat.42/ctl/checkpoint")
    assert waiter.poll(2000) == [(fd, select.POLLPRI | select.POLLERR)]
    assert os.pread(fd, 100, 0) == b"checkpointing\n"
    assert waiter.poll(50) == []
    mounted.tell("fail", "heat.42", "the disk is full")
    assert waiter.poll(2000) == [(fd, select.POLLPRI | select.POLLERR)]
    os.close(fd)
    assert mounted.out("cat heat.42/ctl/checkpoint") == "2 failed (the disk is full)\n"


def test_a_change_there_and_back_is_not_missed(mounted):
    """The content is what was read before, but something happened: poll says so."""
    fd = os.open(mounted.path / "heat.42/ctl/state", os.O_RDONLY)
    os.read(fd, 100)
    mounted.out("echo 1 > heat.42/ctl/checkpoint")
    mounted.tell("fail", "heat.42", "reason")
    waiter = select.poll()
    waiter.register(fd, select.POLLPRI)
    assert waiter.poll(0) == [(fd, select.POLLPRI | select.POLLERR)]
    os.close(fd)


def test_epoll_and_select_work_too(mounted):
    fd = os.open(mounted.path / "heat.42/ctl/exit_status", os.O_RDONLY)
    os.read(fd, 100)
    waiter = select.epoll()
    waiter.register(fd, select.EPOLLPRI | select.EPOLLET)
    waiter.poll(0.05)
    mounted.tell("finish", "heat.42")
    assert waiter.poll(2)[0][0] == fd
    assert select.select([], [], [fd], 0)[2] == [fd]
    assert os.pread(fd, 10, 0) == b"0\n"
    waiter.close()
    os.close(fd)


def test_three_hundred_pollers(mounted):
    """pyfuse3 serves 99 requests at once: pollers must not take any of them."""
    descriptors = [os.open(mounted.path / "heat.42/ctl/state", os.O_RDONLY) for _ in range(300)]
    waiter = select.poll()
    for fd in descriptors:
        os.read(fd, 100)
        waiter.register(fd, select.POLLPRI)
    assert waiter.poll(50) == []
    start = time.monotonic()
    os.stat(mounted.path / "heat.42/ctl/state")
    assert time.monotonic() - start < 1
    mounted.out("echo 1 > heat.42/ctl/checkpoint")
    ready = set()
    deadline = time.monotonic() + 10
    while len(ready) < 300 and time.monotonic() < deadline:
        ready |= {fd for fd, _ in waiter.poll(1000)}
    assert len(ready) == 300
    for fd in descriptors:
        os.close(fd)


def test_a_bug_is_an_eio_and_the_mount_stays(mounted):
    mounted.tell("bug")
    assert "Input/output error" in mounted.sh("cat ctl/health").stderr
    assert mounted.out("cat heat.42/ctl/state") == "running\n"
    assert "Traceback" in mounted.log.read_text()


def test_a_removed_version_is_enodev_on_open_descriptors(mounted):
    fd = os.open(mounted.path / "heat.42/1/ctl/state", os.O_RDONLY)
    os.read(fd, 100)
    waiter = select.poll()
    waiter.register(fd, select.POLLPRI)
    assert waiter.poll(0) == []
    mounted.tell("expire", "heat.42", "1")
    assert waiter.poll(2000) != []
    with pytest.raises(OSError, match="No such device") as info:
        os.pread(fd, 100, 0)
    assert info.value.errno == errno.ENODEV
    os.close(fd)


def test_submit_through_the_spool(mounted):
    script = """cd ctl; printf '<JobDefinition/>' > spool/a.jsdl
        mv spool/a.jsdl spool/b.jsdl; ls spool
        exec 3<>submit; echo b.jsdl >&3; read -u3 job; echo $job; head -1 submit; rm spool/b.jsdl
        ls spool"""
    assert mounted.out(script) == "b.jsdl\nsubmitted.43\nsubmitted.43\n"


def test_the_spool_is_bounded(mounted):
    big = mounted.sh("head -c 1048577 /dev/zero > ctl/spool/big")
    assert "File too large" in big.stderr
    many = mounted.sh("for i in $(seq 9); do head -c 1048576 /dev/zero > ctl/spool/$i; done")
    assert "Disk quota exceeded" in many.stderr
    assert mounted.sh("ln -s /etc/passwd ctl/spool/link; mkdir ctl/spool/dir").returncode == 1
    bad = mounted.sh("touch $'ctl/spool/a\\nb'")
    assert "Invalid argument" in bad.stderr
    mounted.out("rm -r ctl/spool/*")
    mounted.out("head -c 1048576 /dev/zero > ctl/spool/fits")


def test_a_thousand_random_writes_through_the_kernel(mounted):
    """The ten thousand are in the unit tests; these go through FUSE, by six processes at once."""
    script = """
import os, random, sys
rng = random.Random(int(sys.argv[1]))
words = ["1", "0", "7", "latest", "keep=yes", "as=clone", "15", "only=1", "keep_last", "x"]
names = ["checkpoint", "restart", "resume", "signal", "protocol", "retention"]
for _ in range(200):
    fd = os.open("heat.42/ctl/" + rng.choice(names), os.O_RDWR)
    text = " ".join(rng.choices(words, k=rng.randrange(4))).encode()
    data = rng.choice([text, rng.randbytes(rng.randrange(1, 5000)), text * 2000])
    try:
        os.write(fd, data or b"x")
    except OSError as error:
        assert os.read(fd, 8192).startswith(b"error "), error
    os.close(fd)
"""
    program = mounted.path.parent / "random_writes.py"
    program.write_text(script)
    mounted.out(
        f"for seed in 1 2 3 4 5 6; do /usr/bin/python3 {program} $seed & pids+=($!); done;"
        " for pid in ${pids[@]}; do wait $pid || exit 1; done"
    )
    assert mounted.out("cat heat.42/ctl/state") in {"restarting\n", "checkpointing\n", "running\n"}
    assert "Traceback" not in mounted.log.read_text()
