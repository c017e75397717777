# slirp's addresses are always the same: nothing has to be asked for.
ifconfig lo 127.0.0.1 netmask 255.0.0.0 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
# A port that a container publishes on the host's 127.0.0.1 is reached as 127.0.0.1 here too.
echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
route add default gw 10.0.2.2
