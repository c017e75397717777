#!/bin/sh
# Has wherry on this computer, and a machine as a project's wherry.toml wants it. It only installs: all else is `wherry up -f`,
# which prints what it changes and does nothing the second time, so this may run every morning.
#
#   sh onboard.sh [FILE | URL#sha256=HEX] [OPTIONS of wherry up]     without one: ./wherry.toml, if it is there
#
# WHERRY_PACKAGE is what to install, in pip's words: wherry (the default), wherry==1.2, a wheel.
set -eu

package=${WHERRY_PACKAGE:-wherry}

say() { printf 'wherry: %s\n' "$*" >&2; }

# A Python that wherry runs on; pipx would take its own, which may be too old.
find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$name" >/dev/null 2>&1 && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Where wherry is: on PATH, or where pipx and pip have put it though that is not on PATH yet.
find_wherry() {
    if command -v wherry 2>/dev/null; then
        return
    fi
    for folder in "${PIPX_BIN_DIR:-$HOME/.local/bin}" "$("$1" -m site --user-base 2>/dev/null)/bin"; do
        if [ -x "$folder/wherry" ]; then
            say "$folder is not on your PATH: add it in your shell's profile to have wherry there."
            printf '%s\n' "$folder/wherry"
            return
        fi
    done
    return 1
}

install_wherry() {
    if command -v pipx >/dev/null 2>&1; then
        say "installing $package with pipx"
        pipx install --python "$1" "$package" >&2
    elif "$1" -m pip --version >/dev/null 2>&1; then
        say "installing $package with pip, for you alone"
        "$1" -m pip install --user --disable-pip-version-check "$package" >&2
    else
        return 1
    fi
}

by_hand() {
    say "$1"
    cat >&2 <<'END'
        Install pipx (and with it a Python of 3.11 or later), then run this again:
          Debian, Ubuntu   sudo apt-get install pipx
          Fedora           sudo dnf install pipx
          macOS            brew install pipx
END
    exit 4
}

if [ $# -eq 0 ] && [ -f wherry.toml ]; then
    set -- wherry.toml
fi
if [ $# -gt 0 ]; then
    set -- -f "$@"
fi
if wherry=$(command -v wherry 2>/dev/null); then
    exec "$wherry" up "$@"
fi
python=$(find_python) || by_hand "there is no Python of 3.11 or later on this computer."
wherry=$(find_wherry "$python") || {
    install_wherry "$python" || by_hand "$package could not be installed: neither pipx nor pip did it."
    wherry=$(find_wherry "$python") || by_hand "$package is installed, but there is no wherry to be found."
}
exec "$wherry" up "$@"
