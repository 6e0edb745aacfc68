#!/bin/sh
# enter_cgroup.sh DIRECTORY COMMAND...: run COMMAND as a member of the cgroup DIRECTORY.
# Restored tasks are forked by criu, so they are born where criu runs.
printf 0 > "$1/cgroup.procs" || exit 125
# They also inherit the OOM score, which the supervisor has lowered for itself; criu restores only
# values other than 0.  Refused where ours was above 0 from the start: then there is nothing to undo.
printf 0 2>/dev/null > /proc/self/oom_score_adj || :
shift
exec "$@"
