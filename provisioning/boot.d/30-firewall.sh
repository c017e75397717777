# Containers are kept from our sshd before there is one, and from the host until the keeper has told its port.
/usr/lib/wherry/firewall
