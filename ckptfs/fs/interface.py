"""THE TABLE: every control file of the service, of a job and of a version.

This is the ABI.  ``docs/control-files.md`` is generated from it.  What a row
prints is in `shows`, what a write does in `verbs`; the service's rows are in
`service_files`.
"""

from __future__ import annotations

from collections.abc import Callable

from . import shows, verbs, version_list
from .control import ControlFile, table_of
from .service_files import SERVICE_FILES
from .views import JobView, VersionView

__all__ = ["JOB_FILES", "SERVICE_FILES", "VERSION_FILES"]


def _last(name: str) -> Callable[[JobView], str]:
    return lambda view: shows.last_request(view, name)


JOB_FILES: dict[str, ControlFile[JobView]] = table_of(
    ControlFile(
        "state",
        0o444,
        "`pending`, `running`, `checkpointing`, `restarting`, `suspended`, `done` or `failed "
        "(reason)`.",
        "$ cat heat.42/ctl/state\nrunning",
        shows.job_state,
        pollable=True,
    ),
    ControlFile(
        "checkpoint",
        0o640,
        "Write `1`, or `keep=yes note=word`, to take a version; the answer is its number. "
        "`incremental=yes` is taken too: every version stores only what is new. Root adds "
        "`initiator=system` for one that is charged to nobody and goes when the job is done.",
        "$ exec 3<>heat.42/ctl/checkpoint; echo 1 >&3; read -u3 v; echo $v\n"
        "7\n"
        "$ cat heat.42/ctl/checkpoint\n"
        "7 complete",
        lambda view: shows.outcome(view.job.checkpoint),
        verbs.checkpoint,
        pollable=True,
        usage="echo 1 > checkpoint, or: keep=yes note=word",
    ),
    ControlFile(
        "restart",
        0o640,
        "Write a version number or `latest`, then `as=clone`, `stopped=yes`, `lazy=yes` (it runs "
        "while its memory is still being read) or `JobUnit_1=node`, to restart it.",
        "$ echo latest > heat.42/ctl/restart\n$ cat heat.42/ctl/restart\n7 running",
        lambda view: shows.outcome(view.job.restart),
        verbs.restart,
        pollable=True,
        usage="echo 7 > restart, or: latest, 7 as=clone stopped=yes lazy=yes, 7 JobUnit_1=node",
    ),
    ControlFile(
        "suspend",
        0o640,
        "Write `1` to take a version and then end the job's processes; the answer is the version.",
        "$ echo 1 > heat.42/ctl/suspend\n$ cat heat.42/ctl/state\nsuspended",
        _last("suspend"),
        verbs.suspend,
        usage="echo 1 > suspend: checkpoint, then kill; resume starts it again",
        is_bare_verb=True,
    ),
    ControlFile(
        "resume",
        0o640,
        "Write `1` to restart a suspended job from its newest version; the answer is the version.",
        "$ echo 1 > heat.42/ctl/resume\n$ cat heat.42/ctl/state\nrunning",
        _last("resume"),
        verbs.resume,
        usage="echo 1 > resume: restart the newest version",
        is_bare_verb=True,
    ),
    ControlFile(
        "kill",
        0o600,
        "Write `1` to kill every process of the job.",
        "$ echo 1 > heat.42/ctl/kill\n$ cat heat.42/ctl/exit_status\nsignal 9",
        _last("kill"),
        verbs.kill,
        usage="echo 1 > kill: kill every process of the job",
        is_bare_verb=True,
    ),
    ControlFile(
        "signal",
        0o640,
        "Write a signal's number or name, then `only=PIDS`, `except=PIDS` or `master`; alone "
        "it goes to all processes.",
        "$ echo USR1 master > heat.42/ctl/signal",
        _last("signal"),
        verbs.signal,
        usage="echo 15 > signal, or: TERM, 15 only=4711,4712, 15 except=4711, 15 master",
        is_bare_verb=True,
    ),
    ControlFile(
        "protocol",
        0o640,
        "How the units of the job are checkpointed together; the current choice is in brackets.",
        "$ cat heat.42/ctl/protocol\n[coordinated] independent",
        shows.protocol,
        verbs.set_protocol,
    ),
    ControlFile(
        "retention",
        0o640,
        "Which restartable versions are kept: the newest so many, all younger than `keep_within_s` "
        "seconds, one for each `keep_every_s`; a version that no rule wants goes, 0 ends a rule, "
        "without a rule all stay. `keep_user_bytes` is the space you provide: your own versions "
        "within it stay whatever the rules say, and one that would not fit is refused (EDQUOT).",
        "$ echo keep_last 3 > heat.42/ctl/retention\n$ cat heat.42/ctl/retention\nkeep_last 3",
        shows.retention,
        verbs.set_retention,
    ),
    ControlFile(
        "undelete",
        0o640,
        "Removed versions and until when they can be brought back: write the number of one; it "
        "comes back pinned.",
        "$ cat heat.42/ctl/undelete\n7 until=2026-11-21T11:52:03Z\n$ echo 7 > heat.42/ctl/undelete",
        shows.trashed,
        verbs.undelete,
    ),
    ControlFile(
        "replication",
        0o640,
        "In how many failure domains each version is kept, 1 to 16; copies are made in the "
        "background. `min=N` behind it: a checkpoint is `complete` when there are N, and fails "
        "where there are not within 5 minutes and a minute per GiB; the version is kept then, too.",
        "$ echo 2 > heat.42/ctl/replication\n$ getfattr --only-values -n "
        "user.ckptfs.replicas heat.42/7\n2",
        shows.replication,
        verbs.set_replication,
    ),
    ControlFile(
        "units",
        0o444,
        "One line per job unit: its node, the host's pid of its root process, who checkpoints it, "
        "and its state; `loading`: it runs, and memory of a lazy restart is still being read.",
        "$ cat heat.42/ctl/units\nJobUnit_1 node=n1 pid=4711 translib=criu state=running",
        shows.units,
    ),
    ControlFile(
        "versions",
        0o444,
        "One line per version, all that is known of it, for listings of many. `state` without its "
        "reason; the keys of a head are absent until it has been read after a start, and where it "
        "cannot be read; `unique_bytes` until it has been counted.",
        "$ cat heat.42/ctl/versions\n"
        "7 state=restartable replicas=1 level=1 pinned=0 committed_at=2026-11-20T11:52:03Z "
        "logical_bytes=1073741824 … unique_bytes=41231",
        version_list.versions,
        refresh=version_list.refresh,
    ),
    ControlFile(
        "exit_status",
        0o444,
        "`none` while the job runs, then the exit code or `signal 9`.",
        "$ cat heat.42/ctl/exit_status\n0",
        shows.exit_status,
        pollable=True,
    ),
    ControlFile(
        "blockers",
        0o444,
        "What would make a checkpoint of this job fail right now, one sentence each; empty "
        "means nothing.",
        "$ cat heat.42/ctl/blockers",
        shows.blockers,
        refresh=verbs.refresh_blockers,
    ),
    ControlFile(
        "stat",
        0o444,
        "Figures of the last checkpoint and restart, and how far a save in work has come.",
        "$ grep frozen heat.42/ctl/stat\nlast_frozen_usec 412034",
        shows.job_stat,
    ),
    ControlFile(
        "events",
        0o444,
        "Counters of what happened to the job; they only grow, also when the service is restarted.",
        "$ grep complete heat.42/ctl/events\ncomplete 7",
        shows.job_events,
        pollable=True,
    ),
    ControlFile(
        "error",
        0o444,
        "The last request that was refused, or operation that failed, with its time; empty if "
        "none.",
        "$ cat heat.42/ctl/error\n2026-11-20T11:52:03Z checkpoint: version 7 is being saved",
        shows.job_error,
    ),
    ControlFile(
        "stdout",
        0o444,
        "The path of the file that takes the job's standard output.",
        '$ tail -f "$(cat heat.42/ctl/stdout)"',
        shows.stdout,
    ),
    ControlFile(
        "stderr",
        0o444,
        "The path of the file that takes the job's standard error.",
        '$ cat "$(cat heat.42/ctl/stderr)"',
        shows.stderr,
    ),
    ControlFile(
        "jsdl",
        0o444,
        "The job's description as it was submitted.",
        "$ cat heat.42/ctl/jsdl > again.jsdl",
        shows.jsdl,
    ),
    ControlFile(
        "jobinfo.xml",
        0o444,
        "State, times and processes of the job as XML (`jobInfoList`), taken when the file is "
        "opened.",
        "$ xmllint --xpath '//metric[name=\"status\"]/value' heat.42/ctl/jobinfo.xml",
        verbs.jobinfo,
        refresh=verbs.refresh_processes,
    ),
)

VERSION_FILES: dict[str, ControlFile[VersionView]] = table_of(
    ControlFile(
        "state",
        0o444,
        "`restartable`, `replicating 1/3` while copies are missing, or `damaged` and what is "
        "wrong.",
        "$ cat heat.42/7/ctl/state\nrestartable",
        shows.version_state,
        pollable=True,
    ),
    ControlFile(
        "restart",
        0o640,
        "Write `1`, with the options of the job's own `restart`, to restart this version.",
        "$ echo 1 > heat.42/7/ctl/restart\n$ cat heat.42/7/ctl/restart\n7 running",
        shows.version_restart,
        verbs.restart_version,
        pollable=True,
        usage="echo 1 > restart, or: 1 as=clone, 1 stopped=yes, 1 lazy=yes",
    ),
    ControlFile(
        "pin",
        0o640,
        "`1` keeps this version from being removed by anybody or anything.",
        "$ echo 1 > heat.42/7/ctl/pin\n"
        "$ rmdir heat.42/7\n"
        "rmdir: failed to remove 'heat.42/7': Device or resource busy",
        shows.pin,
        verbs.set_pin,
    ),
    ControlFile(
        "verify",
        0o640,
        "Write `1` to have every byte read and hashed; prints when that was last done, how "
        "far it is, or what is wrong. What no reader is given, the padding of a file's last page "
        "in its pack, is left to the scrub and `ckptfs check`.",
        "$ echo 1 > heat.42/7/ctl/verify\n$ cat heat.42/7/ctl/verify\nok 2026-11-20T11:52:03Z",
        shows.verify,
        verbs.verify,
        pollable=True,
        usage="echo 1 > verify: read and hash everything",
    ),
    ControlFile(
        "stat",
        0o444,
        "Sizes, time, purpose and note of this version.",
        "$ grep frozen heat.42/7/ctl/stat\nfrozen_usec 412034",
        shows.version_stat,
    ),
)
