"""What the guest's `exec` helper reads, and the two SSH messages that paramiko has no call for.

`send_signal` and `open_streamlocal` use names that paramiko keeps private: tests/test_ssh_request.py tries them on a server.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from launcher.errors import Usage

if TYPE_CHECKING:
    from paramiko import Channel, Transport

# sshd hands the command to a shell as one word, and Linux takes 128 KB in a word.
LARGEST_INLINE: Final = 64 << 10


def encode(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> bytes:
    """The fields of a request (provisioning/README.md), each ended by NUL."""
    fields = [b"1"]
    fields += [b"A" + _bytes(word) for word in argv]
    fields += [b"E" + _bytes(f"{name}={value}") for name, value in env.items()]
    if cwd is not None:
        fields.append(b"C" + _bytes(cwd))
    return b"\0".join(fields) + b"\0"


def inline(fields: bytes) -> str | None:
    """The fields as a word of a command line, or None when they are too large for one."""
    if len(fields) * 4 // 3 >= LARGEST_INLINE:
        return None
    return base64.b64encode(fields).decode("ascii")


def _bytes(text: str) -> bytes:
    if "\0" in text:
        raise Usage("a NUL byte cannot be part of an argument or of the environment.")
    try:
        # Bytes that were no UTF-8 on the host come back as they were (PEP 383).
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Usage(f"{text!r} cannot be written as UTF-8.") from error


def send_signal(channel: Channel, name: str) -> None:
    """Send a signal, named without SIG, to the command on the channel (RFC 4254, 6.9: no reply)."""
    from paramiko.common import cMSG_CHANNEL_REQUEST
    from paramiko.message import Message

    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]


def open_streamlocal(transport: Transport, path: str, timeout: float) -> Channel:
    """A channel to the unix socket `path` in the guest (OpenSSH PROTOCOL 2.4, direct-streamlocal@openssh.com).

    It does what Transport.open_channel does, which has a fixed list of kinds. Raises SSHException when the guest refuses.
    """
    from paramiko import Channel, SSHException
    from paramiko.common import cMSG_CHANNEL_OPEN
    from paramiko.message import Message

    if not transport.is_active():
        raise SSHException("SSH session not active")
    opened = threading.Event()
    with transport.lock:
        number: int = transport._next_channel()  # type: ignore[attr-defined]
        channel = Channel(number)
        transport._channels.put(number, channel)  # type: ignore[attr-defined]
        transport.channel_events[number] = opened
        transport.channels_seen[number] = True
        channel._set_transport(transport)  # type: ignore[attr-defined]
        channel._set_window(transport.default_window_size, transport.default_max_packet_size)  # type: ignore[attr-defined]
    message = Message()
    message.add_byte(cMSG_CHANNEL_OPEN)
    message.add_string("direct-streamlocal@openssh.com")
    message.add_int(number)
    message.add_int(transport.default_window_size)
    message.add_int(transport.default_max_packet_size)
    message.add_string(os.fsencode(path))
    message.add_string("")  # reserved
    message.add_int(0)  # reserved
    transport._send_user_message(message)  # type: ignore[attr-defined]
    deadline = time.monotonic() + timeout
    # In short waits, as paramiko does: a transport that we close ourselves wakes nobody.
    while not opened.wait(0.1) and transport.is_active():
        if time.monotonic() > deadline:
            raise SSHException("Timeout opening channel.")
    # Not whether it is still open: the other side may have closed it already, which the reader will see.
    if not channel.active:
        raise transport.get_exception() or SSHException("Unable to open channel.")
    return channel
