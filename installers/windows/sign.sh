#!/bin/sh
# Signs what is made for Windows, for a release, on any system that has osslsigncode:
# python -m installers --only setup --only msi --sign installers/windows/sign.sh …
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
    found=$(mktemp)
    rm "$found"
    if osslsigncode extract-signature -in "$1" -out "$found" >/dev/null 2>&1; then
        rm -f "$found"
        return 0
    fi
    rm -f "$found"
    return 1
}

case ${1-} in
tree)
    list=$(mktemp)
    find "$2" -type f | grep -Ei '\.(exe|dll|pyd)$' | sort >"$list"
    while read -r program; do
        is_signed "$program" || sign "$program"
    done <"$list"
    rm "$list"
    ;;
file) sign "$2" ;;
*)
    echo "sign.sh tree DIR | file FILE" >&2
    exit 2
    ;;
esac
