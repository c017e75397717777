# slirp's addresses are always the same: nothing has to be asked for.
ifconfig lo 127.0.0.1 netmask 255.0.0.0 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
