"""The places of a user's home that a share hides, and those that it only shows, where nobody has said otherwise.

Paths are relative to the home folder, with slashes. What is not there costs a look a second, and cannot be made by the guest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from launcher.sftp.startup import LINUX, MACOS, SHELLS, WINDOWS


class Defaults(NamedTuple):
    """Relative to home: `hidden` is not there for the guest, `guarded` can be read."""

    hidden: tuple[str, ...]
    guarded: tuple[str, ...]


# Keys, tokens and passwords of tools that keep them at the same place everywhere.
_SECRETS: Final = (
    ".ssh",  # private keys; authorized_keys lets others in
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".config/gcloud",
    ".docker/config.json",  # logins to registries; the rest of the folder is harmless
    ".config/containers/auth.json",  # podman's and skopeo's
    ".netrc",  # logins of curl, git and ftp
    ".authinfo",
    ".authinfo.gpg",
    ".git-credentials",  # git's credential store, in clear text
    ".config/git/credentials",
    ".config/gh",  # tokens of GitHub's and GitLab's command lines
    ".config/glab-cli",
    ".config/hub",
    ".config/op",  # 1Password, Bitwarden, pass, age and sops
    ".config/Bitwarden CLI",
    ".password-store",
    ".config/age",
    ".config/sops",
    ".terraform.d/credentials.tfrc.json",
    ".vault-token",
    ".config/doctl",
    ".config/hcloud",
    ".config/rclone",
    ".oci",
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".pypirc",  # tokens to publish packages with
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".m2/settings-security.xml",
)

_LINUX_HIDDEN: Final = (
    ".local/share/keyrings",  # GNOME's and KDE's passwords
    ".local/share/kwalletd",
    ".pki",
    ".mozilla",  # browsers: cookies and passwords
    ".thunderbird",
    ".config/google-chrome",
    ".config/google-chrome-beta",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    ".config/vivaldi",
    ".config/opera",
    ".librewolf",
    ".var/app/org.mozilla.firefox",  # the same as flatpaks
    ".var/app/com.google.Chrome",
    ".var/app/org.chromium.Chromium",
    ".var/app/com.brave.Browser",
    ".var/app/com.microsoft.Edge",
    "snap/firefox",  # and as snaps
    "snap/chromium",
    "snap/brave",
    ".Xauthority",  # lets in to the screen and the keyboard
    ".ICEauthority",
)

_MACOS_HIDDEN: Final = (
    "Library/Keychains",
    "Library/Accounts",
    "Library/Cookies",
    "Library/Safari",
    "Library/Containers/com.apple.Safari",
    "Library/Mail",
    "Library/Messages",
    "Library/Application Support/Firefox",
    "Library/Application Support/Google/Chrome",
    "Library/Application Support/Chromium",
    "Library/Application Support/BraveSoftware",
    "Library/Application Support/Microsoft Edge",
    "Library/Application Support/Vivaldi",
    "Library/Application Support/com.operasoftware.Opera",
    "Library/Application Support/Arc",
    "Library/Application Support/com.apple.TCC",  # who may see what: the system's own answers
    "Library/Group Containers/2BUA8C4S2C.com.1password",
    "Library/Containers/com.bitwarden.desktop",
)

_WINDOWS_HIDDEN: Final = (
    "AppData/Local/Microsoft/Credentials",
    "AppData/Roaming/Microsoft/Credentials",
    "AppData/Local/Microsoft/Vault",
    "AppData/Roaming/Microsoft/Vault",
    "AppData/Roaming/Microsoft/Protect",  # the keys of DPAPI, which the browsers' passwords are locked with
    "AppData/Roaming/Microsoft/Crypto",
    "AppData/Roaming/Microsoft/SystemCertificates",
    "AppData/Local/Microsoft/TokenBroker",
    "AppData/Local/Microsoft/IdentityCache",
    "AppData/Local/Microsoft/Outlook",
    "AppData/Roaming/Mozilla",
    "AppData/Local/Mozilla",
    "AppData/Roaming/Thunderbird",
    "AppData/Local/Google/Chrome",
    "AppData/Local/Chromium",
    "AppData/Local/BraveSoftware",
    "AppData/Local/Microsoft/Edge",
    "AppData/Local/Vivaldi",
    "AppData/Roaming/Opera Software",
    "AppData/Roaming/gcloud",
    "AppData/Roaming/GitHub CLI",
    "AppData/Roaming/gnupg",
    "AppData/Roaming/Bitwarden CLI",
    "AppData/Local/1Password",
    "AppData/Roaming/rclone",
    "AppData/Roaming/terraform.d",
    "AppData/Roaming/postgresql/pgpass.conf",
    "_netrc",
    "NTUSER.DAT",  # the user's registry, and its journals
    "ntuser.dat.LOG1",
    "ntuser.dat.LOG2",
)


def defaults(system: str) -> Defaults:
    """Those of a system, by its name in `launcher.host`: linux, macos or windows."""
    hidden, guarded = {
        "linux": (_LINUX_HIDDEN, LINUX),
        "macos": (_MACOS_HIDDEN, MACOS),
        "windows": (_WINDOWS_HIDDEN, WINDOWS),
    }[system]
    return Defaults(_SECRETS + hidden, SHELLS + guarded)
