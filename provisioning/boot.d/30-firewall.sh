# Containers are kept from all sshds of wherry's machines, and from as much of the host as host_access says, before there is one. It loads
# a dozen modules: sshd and the disk do not wait for it, the engine and ssh-port do.
run=${WHERRY_RUN:-/run/wherry}
{
    /usr/lib/wherry/firewall 2>"$run/log/firewall.log" || {
        : >"$run/failed"
        echo "wherry-fail 30-firewall the rules were not taken, see $run/log/firewall.log" >>"${WHERRY_CONSOLE:-/dev/console}"
    }
} &
