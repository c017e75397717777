# What the user trusts beside the usual certificates (network.ca), for the engine and all else that is in the guest.
trusted=${WHERRY_RUN:-/run/wherry}/provision/ca.pem
if [ -e "$trusted" ]; then
    # The line feed ends a last line that has none.
    { echo && cat "$trusted"; } >>"${WHERRY_TRUST:-/etc/ssl/certs/ca-certificates.crt}"
fi
