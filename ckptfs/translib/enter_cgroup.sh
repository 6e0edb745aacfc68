#!/bin/sh
# enter_cgroup.sh DIRECTORY COMMAND...: run COMMAND as a member of the cgroup DIRECTORY.
# Restored tasks are forked by criu, so they are born where criu runs.
printf 0 > "$1/cgroup.procs" || exit 125
shift
exec "$@"
