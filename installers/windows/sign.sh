#!/bin/sh
# Signs what is made for Windows, for a release, on any system that has osslsigncode:
# python -m installers --only setup --only msi --only manifests --sign installers/windows/sign.sh …
#
#   sign.sh tree DIR    every program and library below DIR that nobody has signed yet: a policy may ask that of all
#   sign.sh file FILE   setup.exe, its uninstaller, the MSI
#
# No key is in this repository, and none is in this script's words:
#   WHERRY_CERTIFICATE  the certificate with its chain, PEM
#   WHERRY_KEY          its key: a PEM file, or a pkcs11: URI with WHERRY_PKCS11, the module (and WHERRY_PKCS11_ENGINE)
#   WHERRY_KEY_PASSWORD a file with the key's password, if it has one
#   WHERRY_TIMESTAMP    address of an RFC 3161 server; without one the signature ends with the certificate
set -eu

# A folder of our own: a name in one that all may write to could be another's file by the time it is written.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

# Not in place: a signature that breaks off leaves the file as it was.
sign() {
    file=$1
    set -- -certs "$WHERRY_CERTIFICATE" -key "$WHERRY_KEY" -h sha256 -n Wherry
    [ -z "${WHERRY_PKCS11-}" ] || set -- "$@" -pkcs11module "$WHERRY_PKCS11"
    [ -z "${WHERRY_PKCS11_ENGINE-}" ] || set -- "$@" -pkcs11engine "$WHERRY_PKCS11_ENGINE"
    [ -z "${WHERRY_KEY_PASSWORD-}" ] || set -- "$@" -readpass "$WHERRY_KEY_PASSWORD"
    [ -z "${WHERRY_TIMESTAMP-}" ] || set -- "$@" -ts "$WHERRY_TIMESTAMP"
    rm -f "$file.signed"
    osslsigncode sign "$@" -in "$file" -out "$file.signed" >&2
    chmod --reference="$file" "$file.signed"
    mv "$file.signed" "$file"
}

is_signed() {
    rm -f "$scratch/signature"
    osslsigncode extract-signature -in "$1" -out "$scratch/signature" >/dev/null 2>&1
}

case ${1-} in
tree)
    find "$2" -type f | grep -Ei '\.(exe|dll|pyd)$' | sort >"$scratch/list"
    while read -r program; do
        is_signed "$program" || sign "$program"
    done <"$scratch/list"
    ;;
file) sign "$2" ;;
*)
    echo "sign.sh tree DIR | file FILE" >&2
    exit 2
    ;;
esac
