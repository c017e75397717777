#!/bin/sh
# What the keeper runs in the guest, over SSH, before its memory is saved and when it goes on from there. Containers stand still
# from the one to the other: none of them sees the wrong time, and none writes while the rest comes to rest.
#   rest quiet ID        stop containers, write everything to the disk; KiB of memory in use
#   rest wake ID [NS]    the random pool is stirred with the line on stdin, the clock moved by so many nanoseconds (what it says
#                        then is told), containers go on. With as few programs as can be: each takes a tenth of a second to
#                        start in a guest that was just resumed under emulation.
set -eu

mark=/run/wherry/rest
# Should nobody wake us: the guest's own time, which stands still while it is saved.
alone=60

# Every container is in a control group of the top level.
freeze() {
    for group in /sys/fs/cgroup/*/cgroup.freeze; do
        [ ! -e "$group" ] || echo "$1" >"$group"
    done
}

# In a subshell: around a function the shell itself would keep the session's descriptors, and the session waits for their end.
go_on_alone() {
    sleep $alone
    [ "$(cat $mark 2>/dev/null)" != "$1" ] || freeze 0
}

case $1 in
    quiet)
        echo "$2" >$mark
        freeze 1
        (go_on_alone "$2") </dev/null >/dev/null 2>&1 &
        sync
        awk '/^MemTotal/ { all = $2 } /^MemFree/ { print all - $2 }' /proc/meminfo
        ;;
    wake)
        read -r stir
        echo "$stir" >/dev/urandom
        if [ -n "${3-}" ]; then
            /usr/lib/wherry/vitals <<EOF || true
step $3
t
EOF
        fi
        : >$mark
        freeze 0
        ;;
esac
