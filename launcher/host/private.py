"""What programs keep in a user's home that is nobody else's business, and from where the system runs code by itself.

Paths below the home, as their programs' documents name them; they need not exist. No such list is complete: the user's own
changes come on top (`[shares] hidden`).
"""

from __future__ import annotations

from typing import Final

# Keys, tokens and passwords, the same on all systems.
_EVERYWHERE: Final = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".oci", ".config/gcloud", ".config/gh", ".config/hub", ".config/glab-cli",
    ".config/op", ".config/sops", ".config/rclone", ".config/doctl", ".config/hcloud", ".docker/config.json", ".netrc",
    "_netrc", ".git-credentials", ".config/git/credentials", ".pgpass", ".my.cnf", ".mylogin.cnf", ".npmrc", ".pypirc",
    ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".terraform.d/credentials.tfrc.json",
    ".vault-token", ".password-store", ".local/share/wherry",
)  # fmt: skip
_LINUX: Final = (
    ".local/share/keyrings", ".local/share/kwalletd", ".pki", ".mozilla", ".thunderbird", ".config/google-chrome",
    ".config/google-chrome-beta", ".config/chromium", ".config/BraveSoftware", ".config/microsoft-edge", ".config/vivaldi",
    ".config/opera", ".config/Signal", ".config/Bitwarden", ".config/keepassxc", ".config/1Password", "snap/firefox",
    "snap/chromium", "snap/thunderbird", ".var/app/org.mozilla.firefox", ".var/app/org.mozilla.Thunderbird",
    ".var/app/com.google.Chrome", ".var/app/org.chromium.Chromium", ".var/app/com.brave.Browser", ".var/app/org.signal.Signal",
)  # fmt: skip
_MACOS: Final = (
    "Library/Keychains", "Library/Cookies", "Library/Safari", "Library/Mail", "Library/Messages", "Library/Accounts",
    "Library/Containers/com.apple.Safari", "Library/Containers/com.apple.mail", "Library/HTTPStorages", "Library/Passes",
    "Library/Application Support/Google/Chrome", "Library/Application Support/Chromium", "Library/Application Support/Firefox",
    "Library/Application Support/BraveSoftware", "Library/Application Support/Microsoft Edge", "Library/Thunderbird",
    "Library/Application Support/Vivaldi", "Library/Application Support/Signal", "Library/Application Support/Bitwarden",
    "Library/Application Support/com.apple.TCC", "Library/Application Support/AddressBook", "Library/Group Containers",
    "Library/Application Support/wherry",
)  # fmt: skip
_WINDOWS: Final = (
    "AppData/Roaming/Microsoft/Credentials", "AppData/Roaming/Microsoft/Protect", "AppData/Roaming/Microsoft/Vault",
    "AppData/Roaming/Microsoft/Crypto", "AppData/Roaming/Microsoft/SystemCertificates", "AppData/Local/Microsoft/Credentials",
    "AppData/Local/Microsoft/Vault", "AppData/Local/Microsoft/Edge", "AppData/Local/Microsoft/TokenBroker",
    "AppData/Local/Google/Chrome", "AppData/Local/Chromium", "AppData/Local/BraveSoftware", "AppData/Local/Vivaldi",
    "AppData/Roaming/Mozilla", "AppData/Local/Mozilla", "AppData/Roaming/Thunderbird", "AppData/Roaming/Opera Software",
    "AppData/Roaming/gcloud", "AppData/Roaming/GitHub CLI", "AppData/Roaming/gnupg", "AppData/Roaming/Signal",
    "AppData/Local/wherry",
)  # fmt: skip

# What shells read at their start, and git at each call: it may name programs.
_SHELLS: Final = (
    ".profile", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".zshrc", ".zshenv", ".zprofile",
    ".zlogin", ".zlogout", ".oh-my-zsh", ".kshrc", ".mkshrc", ".cshrc", ".tcshrc", ".login", ".logout", ".inputrc",
    ".config/fish", ".config/zsh", ".config/nushell", ".config/powershell", ".gitconfig", ".config/git", "bin", ".local/bin",
    ".cargo/bin", ".cargo/env", "go/bin", ".nvm/nvm.sh", ".pyenv/bin", ".pyenv/shims", ".rbenv/bin", ".rbenv/shims",
)  # fmt: skip
_LINUX_STARTS: Final = (
    ".xprofile", ".xinitrc", ".xsession", ".xsessionrc", ".pam_environment", ".config/autostart", ".config/autostart-scripts",
    ".config/systemd", ".config/environment.d", ".config/plasma-workspace", ".config/sway", ".config/i3", ".config/hypr",
    ".local/share/systemd", ".local/share/applications", ".local/share/dbus-1", ".local/share/gnome-shell", ".config/upstart",
)  # fmt: skip
_MACOS_STARTS: Final = (
    "Library/LaunchAgents", "Library/LaunchDaemons", "Library/StartupItems", "Library/Services", "Library/Scripts",
    "Library/Application Scripts", "Library/Automator", "Library/QuickLook", "Library/Input Methods", "Library/PreferencePanes",
    "Library/Application Support/iTerm2/Scripts",
)  # fmt: skip
_WINDOWS_STARTS: Final = (
    "AppData/Roaming/Microsoft/Windows/Start Menu", "Documents/PowerShell", "Documents/WindowsPowerShell",
    "OneDrive/Documents/PowerShell", "OneDrive/Documents/WindowsPowerShell", "AppData/Local/Microsoft/WindowsApps",
    "AppData/Local/Programs",
)  # fmt: skip

_PRIVATE: Final = {"linux": _LINUX, "macos": _MACOS, "windows": _WINDOWS}
_STARTS: Final = {"linux": _LINUX_STARTS, "macos": _MACOS_STARTS, "windows": _WINDOWS_STARTS}


def private(system: str) -> tuple[str, ...]:
    """What is hidden, of the system of that name (`HostModule.NAME`)."""
    return _EVERYWHERE + _PRIVATE[system]


def starts(system: str) -> tuple[str, ...]:
    """What may be read and not written."""
    return _SHELLS + _STARTS[system]
