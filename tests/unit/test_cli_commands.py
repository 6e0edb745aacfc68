"""Whole commands on a tree of plain files: what they print, write, refuse, and exit with."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from ckptfs.cli import xcheckpoint, xkill, xps, xrestart, xsub, xsub_sh, xwait
from ckptfs.cli.commands.ps import job_cells
from ckptfs.cli.commands.run import describe
from ckptfs.cli.entry import guarded
from ckptfs.cli.listing import UNSEEN, JobRow, read_versions
from ckptfs.cli.main import COMMANDS, NOT_YET, command_parser, main
from ckptfs.errors import CannotRun
from ckptfs.jobs.jsdl_render import JobDescription, render_jsdl
from tests.fakes_cli import FakeTree


@pytest.fixture
def tree(tmp_path, monkeypatch) -> FakeTree:
    root = tmp_path / "mount"
    root.mkdir()
    monkeypatch.setenv("CKPTFS_MOUNT", str(root))
    monkeypatch.delenv("CKPTFS_TRACEBACK", raising=False)
    return FakeTree(root)


def run(capsys, *argv: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of ``ckptfs argv``."""
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


# help and dispatch


def test_help_lists_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(name):
    text = command_parser(name).format_help()
    assert "examples:\n  " in text
    assert "exit codes:" in text


@pytest.mark.parametrize("entry", [xsub, xsub_sh, xps, xkill, xwait, xcheckpoint, xrestart])
def test_every_x_command_has_help_with_examples(entry, capsys):
    try:
        code = entry.main(["--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert "examples:\n  " in capsys.readouterr().out


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys, ckptfs.cli.main as m; m.main(['--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert not loaded & {"trio", "pyfuse3", "lxml", "numpy", "sqlite3", "xml.etree", "subprocess"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["chekpoint"], "did you mean checkpoint?"),
        (["xyzzy"], "see: ckptfs --help"),
        (["--mount", "/ckpt", "ls"], "ckptfs COMMAND --mount"),
        (["ls", "--nonsense"], "see: ckptfs ls --help"),
        (["checkpoint"], "see: ckptfs checkpoint --help"),
        (["run"], "see: ckptfs run --help"),
    ],
)
def test_bad_input_is_one_line_with_the_next_step(argv, sentence, capsys):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("ckptfs: ")
    assert err.count("\n") == 1
    assert sentence in err


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_a_known_command_that_is_not_served_yet_is_refused_as_such(name, capsys):
    assert run(capsys, name) == (5, "", f"ckptfs: {name} is not served yet\n")


def test_a_bug_is_one_line_and_no_traceback(capsys):
    def broken(_argv: object) -> int:
        raise KeyError("x\x1b[31m")

    assert guarded("ckptfs", broken, []) == 70
    _, err = capsys.readouterr()
    assert err.startswith("ckptfs: bug in ckptfs: KeyError")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_no_service_is_told_with_the_way_out(tmp_path, capsys):
    code, _, err = run(capsys, "ls", "--mount", str(tmp_path))
    assert code == CannotRun.exit_code
    assert "ckptfs mount" in err


# listing


def test_ls_prints_names(tree, capsys):
    tree.job("heat.10")
    tree.job("sqlite.9")
    assert run(capsys, "ls") == (0, "sqlite.9\nheat.10\n", "")
    tree.version("heat.10", 2)
    tree.version("heat.10", 10)
    assert run(capsys, "ls", "heat") == (0, "2\n10\n", "")


def test_ls_long_shows_all_that_is_known(tree, capsys):
    tree.job("heat.1", state="failed (node lost)")
    tree.version("heat.1", 7, note="before_refactor", pinned=True)
    _, out, _ = run(capsys, "ls", "-l")
    assert re.search(r"^heat\.1 +failed \(node lost\) +1 +7 ", out, re.MULTILINE)
    _, out, _ = run(capsys, "ls", "-l", "heat")
    assert re.search(
        r"^7 +\w+ +1\.0 MiB +4\.0 KiB +1/2 +restartable +user +user +pinned +before_refactor$",
        out,
        re.MULTILINE,
    )
    _, out, _ = run(capsys, "ls", "--json", "heat")
    assert json.loads(out)[0]["note"] == "before_refactor"


def test_a_listing_waits_for_heads(tree):
    tree.job("heat.1")
    tree.version("heat.1", 1, committed_at=None, unique_bytes=None)
    tree.put("ctl/stat", "versions_unread 1\n")
    tree.files.steps.append(lambda: tree.version("heat.1", 1, unique_bytes=None))
    (row,) = read_versions(tree.mount, "heat.1")
    assert tree.files.steps == []
    assert (row.size, row.unique, row.committed_s) == (1 << 20, None, 1795175523.0)


def test_ls_long_says_what_is_still_being_counted(tree, capsys):
    tree.job("heat.1")
    tree.version("heat.1", 1, unique_bytes=None)
    code, out, err = run(capsys, "ls", "-l", "heat")
    assert code == 0
    assert re.search(r"^1 +\w+ +1\.0 MiB +… +1/2 ", out, re.MULTILINE)
    assert err == "ckptfs: what 1 of 1 versions hold alone is still being counted\n"
    assert json.loads(run(capsys, "ls", "--json", "heat")[1])[0]["unique"] is None


def test_ls_long_shows_versions_whose_head_cannot_be_read(tree, capsys):
    tree.job("heat.1")
    tree.version("heat.1", 1, state="damaged", committed_at=None, unique_bytes=None)
    tree.version("heat.1", 2, state="replicating")
    tree.put("heat.1/1/ctl/state", "damaged (JobUnit_1/pages-1.img, block 17)\n")
    _, out, _ = run(capsys, "ls", "-l", "heat")
    assert re.search(r"^1 .* damaged \(JobUnit_1/pages-1\.img, block 17\) ", out, re.MULTILINE)
    assert re.search(r"^2 .* replicating 1/2 ", out, re.MULTILINE)


def test_ps_shows_the_jobs_that_go_on(tree, capsys):
    tree.job("heat.1")
    tree.job("old.2", state="done", exit_status="0")
    tree.put("heat.1/ctl/checkpoint", "7 complete\n# usage\n")
    _, out, _ = run(capsys, "ps")
    assert "heat.1" in out
    assert "7 complete" in out
    assert "old.2" not in out
    assert "old.2" in run(capsys, "ps", "-a")[1]
    assert json.loads(run(capsys, "ps", "--json")[1])[0]["last_checkpoint"] == "7 complete"


def test_ps_invents_nothing_about_the_jobs_of_others(tree):
    row = JobRow("mine.1", UNSEEN, 1001, 0.0, ())
    assert job_cells(tree.mount, row) == ("mine.1", "-", "-", "-", "-", "-")


# one job


def test_wait_exits_as_the_job_did(tree, capsys):
    tree.job("heat.1", state="done", exit_status="3")
    assert run(capsys, "wait", "heat") == (3, "", "")
    tree.job("heat.1", state="done", exit_status="signal 15")
    code, out, _ = run(capsys, "wait", "--json", "heat")
    assert (code, json.loads(out)["exit"]) == (143, 143)


def test_kill_says_when_there_is_nothing_left_to_kill(tree, capsys):
    tree.job("heat.1", state="done", exit_status="0")
    code, out, _ = run(capsys, "kill", "heat")
    assert (code, out) == (0, "heat.1 has ended already (done)\n")
    assert (tree.root / "heat.1/ctl/kill").read_text() == "none\n"


def test_logs_prints_bytes_as_they_are(tree, capsysbinary):
    log = tree.root.parent / "out"
    log.write_bytes(b"step 1\n\xff\n")
    tree.job("heat.1", state="done")
    tree.put("heat.1/ctl/stdout", f"{log}\n")
    assert main(["logs", "-f", "heat"]) == 0
    assert capsysbinary.readouterr().out == b"step 1\n\xff\n"
    log.unlink()
    assert main(["logs", "heat"]) == 3


def test_submit_goes_through_the_spool_and_leaves_nothing(tree, capsys):
    document = tree.root.parent / "heat.jsdl"
    document.write_text("<x/>")
    tree.put("ctl/submit", "")
    code, out, _ = run(capsys, "submit", str(document))
    assert code == 0
    # a plain file answers with what was written: the name of the spool file
    assert re.fullmatch(r"job-\d+-[0-9a-f]{16}\.jsdl\n", out)
    assert list((tree.root / "ctl/spool").iterdir()) == []


@pytest.mark.parametrize(("name", "code"), [("absent", 3), (".", 2)])
def test_a_document_that_cannot_be_read_is_refused(tree, capsys, name, code):
    assert run(capsys, "submit", str(tree.root / name))[0] == code


def described(*argv: str) -> JobDescription:
    return describe(command_parser("run").parse_args(argv))


def test_run_passes_arguments_untouched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = described("--stdout", "log", "-e", "A=b=c", "--", "./heat", "--name", "x", "--", "-h")
    assert job.argv == ("./heat", "--name", "x", "--", "-h")
    assert (job.name, job.cwd, job.stdout) == ("heat", str(tmp_path), str(tmp_path / "log"))
    assert job.env["A"] == "b=c"
    render_jsdl(job)


def test_run_without_dashes_stops_looking_for_options_at_the_program():
    job = described("--clean-env", "heat", "--wait", "-e")
    assert job.argv == ("heat", "--wait", "-e")
    assert list(job.env) == ["PATH"]


def test_a_job_of_another_user_gets_nothing_that_could_be_a_secret(monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("TZ", "UTC")
    env = described("--uid", "12345", "heat").env
    assert (env["TZ"], "HOME" in env, "TOKEN" in env) == ("UTC", False, False)
    assert described("heat").env["HOME"] == "/root"


def test_a_description_too_large_is_refused_with_what_to_leave_out(tree, capsys):
    code, _, err = run(capsys, "run", "-e", "A=" + "x" * (1 << 20), "heat")
    assert code == 2
    assert "--clean-env" in err
    assert not (tree.root / "ctl/spool").exists() or not list((tree.root / "ctl/spool").iterdir())


def test_run_prints_the_id(tree, capsys):
    tree.put("ctl/submit", "")
    code, out, _ = run(capsys, "run", "heat")
    assert code == 0
    assert out.startswith("job-")  # a plain file answers with what was written
    assert list((tree.root / "ctl/spool").iterdir()) == []


def test_xsub_sh_takes_the_channels_from_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, files = xsub_sh.split_channels(["sort", "-in", "x", "-r", "-in", "names", "-out", "/o"])
    assert words == ["sort", "-in", "x", "-r"]
    assert files == {"-in": str(tmp_path / "names"), "-out": "/o"}


@pytest.mark.parametrize("argv", [[], ["-out", "x"], ["p", "-out"], ["p", "-in", "a", "-in", "b"]])
def test_xsub_sh_refuses_what_it_cannot_read(tree, argv, capsys):
    assert xsub_sh.main(argv) == 2
    assert re.search(r"xsub\.sh --help|given twice", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("entry", "argv"),
    [
        (xps, ["-c", "user.crt"]),
        (xps, ["-T", "TAG", "-j", "heat"]),
        (xsub, ["-c", "user.crt", "-f", "x"]),
        (xkill, ["-c", "user.crt", "-j", "heat"]),
        (xwait, ["-c", "user.crt", "-j", "heat"]),
    ],
)
def test_what_is_not_served_yet_is_refused_by_name(tree, entry, argv, capsys):
    assert entry.main(argv) == 5
    assert f"{argv[0]} " in capsys.readouterr().err


@pytest.mark.parametrize(("entry", "argv"), [(xsub, []), (xkill, []), (xwait, [])])
def test_what_the_field_leaves_optional_but_is_needed_is_asked_for(tree, entry, argv, capsys):
    assert entry.main(argv) == 2
    assert "--help" in capsys.readouterr().err


# the shell


@pytest.mark.parametrize("words", [["mount", ""], ["mount", "--store", "", "/ckpt"]])
def test_an_empty_name_is_not_this_directory(capsys, words):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "empty name" in err


def test_a_full_disk_behind_stdout_is_no_bug():
    with open("/dev/full", "w") as full:
        code = "import sys; from ckptfs.cli.main import main; sys.exit(main(['--help']))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (8, "ckptfs: output: no space left on device\n")


def test_checking_what_is_no_store(tmp_path, capsys):
    code, _, err = run(capsys, "check", "--store", str(tmp_path))
    assert code == 3
    assert "there is no store" in err


# scrub


def test_scrub_waits_for_the_end_and_says_what_it_found(tree, capsys, monkeypatch):
    monkeypatch.setattr("ckptfs.cli.commands.scrub.mount_of", lambda _: tree.mount)
    tree.put("ctl/scrub", "idle (never)\n# echo 1 > scrub\n")
    tree.files.answers["ctl/scrub"] = lambda _: tree.put("ctl/scrub", "running 0%\n") or ""
    ends = ["running 40%", "idle (last 2026-11-20T11:52:03Z, 0 errors)"]
    tree.files.steps += [lambda end=end: tree.put("ctl/scrub", end + "\n") for end in ends]
    assert run(capsys, "scrub") == (0, ends[-1] + "\n", "")
    tree.files.steps.append(lambda: tree.put("ctl/scrub", "idle (last 2026, 2 errors)\n"))
    tree.put("ctl/degraded", "1 (1 version damaged)\nheat.42/7 damaged (pages-1.img, block 17)\n")
    code, out, err = run(capsys, "scrub")
    assert (code, out) == (10, "idle (last 2026, 2 errors)\n")
    assert "ctl/degraded" in err
    tree.files.steps.append(lambda: tree.put("ctl/scrub", "idle (last 2026, 1 errors)\n"))
    tree.put("ctl/degraded", "0\n")
    code, _, err = run(capsys, "scrub")
    assert code == 10
    assert "every version is whole" in err
    assert tree.files.written == [("ctl/scrub", "1")] * 3


def test_scrub_is_stopped(tree, capsys, monkeypatch):
    monkeypatch.setattr("ckptfs.cli.commands.scrub.mount_of", lambda _: tree.mount)
    tree.put("ctl/scrub", "idle (stopped by hand)\n")
    assert run(capsys, "scrub", "--stop")[0] == 0
    assert run(capsys, "scrub", "--no-wait")[0] == 0
    assert tree.files.written == [("ctl/scrub", "stop"), ("ctl/scrub", "1")]


def test_volumes_are_listed_and_changed_through_their_file(tree, capsys, monkeypatch):
    monkeypatch.setattr("ckptfs.cli.commands.volume.mount_of", lambda _: tree.mount)
    tree.put(
        "ctl/volumes",
        "local state=up domain=n1 used_bytes=1024 free_bytes=2048 verified=100%\n"
        "b state=full domain=b used_bytes=1 free_bytes=0 directory=/mnt/b seal=encrypt "
        "ratio=2.31 reason=no_space\n",
    )
    code, out, _ = run(capsys, "volume", "ls")
    assert code == 0
    assert out.splitlines()[2].split()[:3] == ["b", "full", "b"]
    assert "no space" in out
    assert "encrypt 2.31:1" in out
    tree.files.answers["ctl/volumes"] = lambda _: "c"
    assert run(capsys, "volume", "add", "/mnt/c", "--domain", "rack")[0] == 0
    assert run(capsys, "volume", "add", "/mnt/d", "--seal", "encrypt")[0] == 0
    assert run(capsys, "volume", "drain", "b")[0] == 0
    assert tree.files.written == [
        ("ctl/volumes", "add domain=rack /mnt/c"),
        ("ctl/volumes", "add seal=encrypt /mnt/d"),
        ("ctl/volumes", "b drain"),
    ]
    wrong = ("rm", "b", "--domain", "x"), ("up", "b", "--seal", "compress")
    for argv in (("explode",), ("add",), *wrong):
        assert run(capsys, "volume", *argv)[0] == 2


@pytest.fixture
def removable(tree, monkeypatch):
    """A job of two versions."""
    monkeypatch.setattr("ckptfs.cli.commands.rm.mount_of", lambda _: tree.mount)
    tree.job("heat.1", state="done", exit_status="0")
    tree.version("heat.1", 1)
    tree.version("heat.1", 2)
    return tree


def test_versions_are_removed_by_number(removable, capsys):
    assert run(capsys, "rm", "heat", "2", "2")[:2] == (
        0,
        "removed heat.1/2; ckptfs undelete heat.1 2 brings it back\n",
    )
    assert (removable.root / "heat.1/1").exists()
    assert not (removable.root / "heat.1/2").exists()
    assert run(capsys, "rm", "heat", "2")[0] == 3
    assert run(capsys, "rm", "heat", "latest")[0] == 2


def test_a_job_is_removed_with_its_versions_once_it_has_ended(removable, capsys):
    removable.job("heat.1")
    removable.version("heat.1", 2)
    code, _, err = run(capsys, "rm", "heat")
    assert (code, "ckptfs kill heat.1 first" in err) == (4, True)
    removable.put("heat.1/ctl/state", "done\n")
    removable.put("heat.1/ctl/exit_status", "0\n")
    assert run(capsys, "rm", "heat")[0] == 0
    assert not (removable.root / "heat.1").exists()


def test_nothing_is_removed_when_one_version_is_pinned(removable, capsys):
    removable.version("heat.1", 2, pinned=True)
    code, out, err = run(capsys, "rm", "heat")
    assert (code, out) == (4, "")
    assert "heat.1/2/ctl/pin" in err
    assert (removable.root / "heat.1/1").exists()
