#!/bin/sh
# A shell pipeline: a producer that forks a sleep each step, tee to a file, awk with a running sum.
# Line: "step N sum TOTAL".  Arguments: STEPS [DELAY_S].
steps=$1
delay=${2:-0.025}

produce() {
    n=1
    while [ "$n" -le "$steps" ]; do
        echo "$n"
        sleep "$delay"
        n=$((n + 1))
    done
}

# mawk buffers what it reads from a pipe unless told otherwise; others do not know the word
if awk -W interactive 'BEGIN { exit 0 }' 2>/dev/null </dev/null; then
    awk_interactive="-W interactive"
else
    awk_interactive=
fi

# shellcheck disable=SC2086
produce | tee produced.log | awk $awk_interactive '{ sum += $1; print "step", $1, "sum", sum; fflush() } END { print "done", $1 }'
