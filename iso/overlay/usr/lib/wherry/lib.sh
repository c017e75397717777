# shellcheck shell=sh disable=SC2034
# What the guest's scripts share. POSIX sh; no process is started where the shell can do it (a process costs 13 ms under emulation).

run=${WHERRY_RUN:-/run/wherry}
console=${WHERRY_CONSOLE:-/dev/console}

# say TEXT: one line on the serial console.
say() {
    printf '%s\n' "$*" >>"$console"
}

# Seconds since the kernel started, in $uptime ("12.34") and, whole, in $seconds.
read_uptime() {
    read -r uptime _ </proc/uptime
    seconds=${uptime%.*}
}

# stage NAME: once for as long as the guest runs.
stage() {
    [ ! -e "$run/stage/$1" ] || return 0
    : >"$run/stage/$1"
    read_uptime
    say "wherry-stage $1 $uptime"
}

note() {
    say "wherry-note $*"
}

# fail NAME TEXT: the boot cannot go on. Services that were not started yet stay so.
fail() {
    : >"$run/failed"
    say "wherry-fail $*"
    exit 1
}

stop_step() {
    read_uptime
    say "wherry-stop $1 $uptime"
}

# last_line FILE: what a program said last, in $line.
last_line() {
    line=
    while read -r next || [ -n "$next" ]; do
        [ -z "$next" ] || line=$next
    done <"$1"
}

# process NAME: true when the service has a process; its id in $pid.
process() {
    pid=
    [ -e "$run/service/$1.pid" ] || return 1
    read -r pid <"$run/service/$1.pid"
    kill -0 "$pid" 2>/dev/null
}
