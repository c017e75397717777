#!/bin/sh
# Runs boot.d/NN-name.sh in order. Each has the environment file's values and stops at its first error, which ends the boot with a
# line on the console.
set -u

here=${0%/*}
console=${WHERRY_CONSOLE:-/dev/console}
seed=${WHERRY_SEED:-/run/wherry/seed}
words=${WHERRY_RUN:-/run/wherry}/boot.err

for script in "$here"/boot.d/[0-9][0-9]-*.sh; do
    # A copy of this shell, not a new one: it costs a fraction.
    (
        set -eu
        set -a
        # shellcheck source=/dev/null
        . "$seed/env"
        set +a
        # shellcheck source=/dev/null
        . "$script"
    ) 2>"$words"
    code=$?
    [ "$code" -ne 0 ] || continue
    last=
    while read -r line || [ -n "$line" ]; do
        [ -z "$line" ] || last=$line
    done <"$words"
    name=${script##*/}
    printf 'wherry-fail %s %s\n' "${name%.sh}" "${last:-exit code $code}" >>"$console"
    exit 1
done
