"""Places of a home folder from which this computer runs code: at login, in a shell, or when a program starts."""

from __future__ import annotations

from typing import Final

# On every system: shells, and programs that are started from one. What only names code for commands that download code anyway
# (.npmrc, pip.conf) is not here.
SHELLS: Final = (
    ".profile",  # sh, and desktop sessions
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",  # read by Debian's .bashrc
    ".bash_completion",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".zlogout",
    ".oh-my-zsh",  # read by the .zshrc that its installer writes
    ".kshrc",
    ".mkshrc",
    ".shrc",
    ".cshrc",
    ".tcshrc",
    ".login",
    ".logout",
    ".config/fish",
    ".config/nushell",
    ".config/powershell",  # PowerShell's profile outside Windows
    ".config/zsh",  # where ZDOTDIR usually points
    ".config/bash",
    ".inputrc",  # readline's keys can type commands
    ".editrc",
    ".local/share/fish",
    ".local/bin",  # on PATH, before the system's programs
    "bin",  # likewise, by Debian's .profile
    ".cargo/bin",  # put on PATH by rustup, and cargo/env is read by the shell
    ".cargo/env",
    ".gitconfig",  # aliases, hooks, pagers and filters are commands, run in any repository
    ".config/git",
    ".hgrc",
    ".vimrc",  # an editor runs its start-up files
    ".vim",
    ".config/nvim",
    ".emacs",
    ".emacs.d",
    ".config/emacs",
    ".nanorc",
    ".exrc",
    ".screenrc",
    ".tmux.conf",
    ".config/tmux",
    ".lesskey",  # its LESSOPEN is a command
    ".lessfilter",
    ".gdbinit",
    ".config/gdb",
    ".lldbinit",
    ".pdbrc",
    ".pythonrc",
    ".pystartup",
    ".irbrc",
    ".pryrc",
    ".Rprofile",
    ".direnvrc",
    ".config/direnv",  # also holds which folders are allowed
    ".local/share/direnv",
    ".config/starship.toml",  # its modules are commands
    ".ssh/rc",  # in case .ssh is shown on purpose: sshd runs it, and ssh runs ProxyCommand
    ".ssh/config",
    ".ssh/environment",
    ".ssh/authorized_keys",
    ".wezterm.lua",  # terminals start a command of theirs
    ".config/wezterm",
    ".config/kitty",
    ".config/alacritty",
    ".docker/cli-plugins",  # docker runs what is in it
)

LINUX: Final = (
    ".xprofile",  # the display manager, and startx
    ".xsession",
    ".xsessionrc",
    ".xinitrc",
    ".xserverrc",
    ".Xresources",
    ".pam_environment",
    ".config/autostart",
    ".config/autostart-scripts",
    ".config/plasma-workspace",  # env, and shutdown
    ".config/systemd",  # units of the user's own manager, and their environment
    ".config/environment.d",
    ".local/share/systemd",
    ".local/share/applications",  # what a click in the menu starts
    ".local/share/dbus-1",  # what a message starts
    ".local/share/gnome-shell",  # extensions
    ".local/share/nautilus",
    ".config/mimeapps.list",
    ".config/upstart",
    ".config/i3",  # window managers run commands from these
    ".i3",
    ".config/sway",
    ".config/hypr",
    ".config/awesome",
    ".config/openbox",
    ".config/bspwm",
    ".config/sxhkd",
    ".config/xfce4",
    ".gnomerc",
    ".dmrc",
    ".config/guix",
    ".nix-profile",
    ".config/home-manager",
    ".local/share/bash-completion",
    ".local/lib",  # Python's user site: a .pth file is code for every python
)

MACOS: Final = (
    "Library/LaunchAgents",
    "Library/LaunchDaemons",
    "Library/Services",  # workflows of the Services menu
    "Library/Scripts",
    "Library/Workflows",
    "Library/Preferences",  # login items, and the default shell of terminals
    "Library/Application Scripts",
    "Library/QuickLook",  # code that other programs load
    "Library/Spotlight",
    "Library/PreferencePanes",
    "Library/Input Methods",
    "Library/Internet Plug-Ins",
    "Library/Python",  # Python's user site: a .pth file is code for every python
    "Library/Application Support/iTerm2",
    "Applications",
    ".MacOSX",
    ".hammerspoon",
    ".config/karabiner",
    ".yabairc",
    ".skhdrc",
)

WINDOWS: Final = (
    "AppData/Roaming/Microsoft/Windows/Start Menu",  # Startup is in it, and what a click starts
    "AppData/Roaming/Microsoft/Windows/SendTo",
    "AppData/Roaming/Microsoft/Windows/PowerShell",
    "AppData/Roaming/Microsoft/Internet Explorer/Quick Launch",  # the taskbar
    "AppData/Roaming/Microsoft/Word/STARTUP",
    "AppData/Roaming/Microsoft/Excel/XLSTART",
    "AppData/Roaming/Microsoft/Templates",
    "AppData/Roaming/Microsoft/AddIns",
    "AppData/Local/Microsoft/WindowsApps",  # on PATH
    "AppData/Local/Microsoft/Windows Terminal",
    "AppData/Local/Packages",  # settings of Windows Terminal and other programs from the store
    "AppData/Local/Programs",
    "AppData/Roaming/Python",
    "AppData/Roaming/npm",  # on PATH
    "AppData/Roaming/nushell",
    "AppData/Local/clink",
    "AppData/Local/nvim",
    "Documents/PowerShell",  # profiles and modules
    "Documents/WindowsPowerShell",
    "OneDrive/Documents/PowerShell",  # where OneDrive has taken the folder over
    "OneDrive/Documents/WindowsPowerShell",
    "Documents/AutoHotkey.ahk",
    "Desktop/desktop.ini",
    "_vimrc",
    "vimfiles",
    "scoop/shims",  # on PATH
    ".dotnet/tools",
)
