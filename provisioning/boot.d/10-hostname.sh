# The machine's name, and that it knows itself by it.
echo "$WHERRY_HOSTNAME" >/proc/sys/kernel/hostname
echo "127.0.1.1 $WHERRY_HOSTNAME" >>/etc/hosts
