#!/bin/sh
# Signs and notarises on a Mac, for a release: python -m installers --only pkg --sign installers/macos/sign.sh …
#
#   sign.sh tree DIR    every Mach-O file below DIR, before it is packed: the notary wants all of them signed
#   sign.sh file PKG    the package, then Apple's notary, then the ticket is put into it
#
# No key is in this repository, and none is in this script's words:
#   WHERRY_APPLICATION_IDENTITY  "Developer ID Application: …", in the keychain
#   WHERRY_INSTALLER_IDENTITY    "Developer ID Installer: …", in the keychain
#   WHERRY_NOTARY_PROFILE        what `xcrun notarytool store-credentials` was called
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# QEMU may use the hypervisor and write code that it runs; nothing else may.
sign_tree() {
    find "$1" -type f | while read -r file; do
        case $(file -b "$file") in
        Mach-O*) ;;
        *) continue ;;
        esac
        case ${file##*/} in
        qemu-system-*) set -- --entitlements "$here/hypervisor.plist" ;;
        *) set -- ;;
        esac
        codesign --force --timestamp --options runtime --sign "$WHERRY_APPLICATION_IDENTITY" "$@" "$file"
    done
}

sign_file() {
    productsign --timestamp --sign "$WHERRY_INSTALLER_IDENTITY" "$1" "$1.signed"
    mv "$1.signed" "$1"
    xcrun notarytool submit --keychain-profile "$WHERRY_NOTARY_PROFILE" --wait "$1"
    xcrun stapler staple "$1"
    spctl --assess --type install "$1"
}

case ${1-} in
tree) sign_tree "$2" ;;
file) sign_file "$2" ;;
*)
    echo "sign.sh tree DIR | file PKG" >&2
    exit 2
    ;;
esac
