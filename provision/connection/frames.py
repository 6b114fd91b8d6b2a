"""The frame around a script: how it reaches a shell whole, and how its answer is told from noise.

sshd hands the command to the user's login shell, whose rc files may print anything and set any variable. The
command is therefore one `exec` that csh and fish read as sh does. It starts a small loader, which marks both
streams, reads the script from stdin to its very end, and only then evaluates it: no program in the script can
eat from it, its size has no limit, and a script that was cut off on the way is not run at all.

In a conversation the loader reads as many bytes as the first script has, and evaluates it. Then it marks both
streams once more, and reads the second script to the end of stdin.
"""

from __future__ import annotations

import base64
import math
import secrets
from dataclasses import dataclass, field

from provision.connection.login import Login
from provision.probe import words
from provision.shell import assembled, constant

_SESSION = "shell/session.sh"
LOCALE = constant("shell/environment.sh", "session_locale")
KILL_AFTER = 5
"""Seconds between the host's SIGTERM and SIGKILL to a script that is out of time."""

NOISE = 1 << 16
"""Bytes that a login shell may print before it starts the command."""

_FUNCTIONS = "; ".join(line for line in assembled(_SESSION).splitlines() if line and not line.startswith("#"))
_FIRST = 'read_script "$1" head -c "$2"; eval "unset script; $script" </dev/null; mark_streams "$1"; '
_LAST = 'read_script "$1" cat; shift $#; exec </dev/null; eval "unset script; $script"'


@dataclass(frozen=True)
class Frame:
    """The frame of one exec: a random token and the texts made from it."""

    token: str = field(default_factory=lambda: secrets.token_hex(12))

    @property
    def mark(self) -> bytes:
        """What stands in front of the script's output on both streams; never part of the command line."""
        return f"<{self.token}>\n".encode()

    @property
    def prompt(self) -> bytes:
        """What sudo prints when it wants a password; never part of the command line."""
        return f"{self.token[:8]}%{self.token[8:]}".encode()

    def command(self, login: Login, timeout: float, first: int = 0) -> str:
        """Return the command line for sshd: the loader as the user to become, for ``timeout`` s at most.

        :param first: bytes of the first script of a conversation, as it is sent.
        """
        asks = login.needs_sudo and login.become_password is not None
        skip = 'skip_unread "$1"; ' if asks else ""
        loader = f'{_FUNCTIONS}; mark_streams "$1"; {skip}settle; {_FIRST if first else ""}{_LAST}'
        limit = str(max(1, math.ceil(timeout)))
        argv = ["timeout", "-k", str(KILL_AFTER), limit, "/bin/sh", "-c", loader, "provision", self.token]
        argv += [str(first)] if first else []
        if login.needs_sudo:
            # sudo reads one line from stdin; with -n it fails at once where it would have to ask
            prompt = ["-S", "-p", self.prompt.decode().replace("%", "%%")] if asks else ["-n"]
            argv = ["sudo", "-H", *prompt, "-u", login.become_user, "--", *argv]
        return "exec " + words("env", f"LC_ALL={LOCALE}", "LANGUAGE=C", *argv)

    def answer_to_prompt(self, password: str) -> bytes:
        """Return the line that sudo reads; where sudo does not ask, the loader drops it."""
        return password.encode("utf-8", "surrogateescape") + b"\n"

    def after_prompt(self) -> bytes:
        """Return the line after which the loader takes what comes as the script."""
        return self.token.encode() + b"\n"

    def script(self, script: str, stdin: bytes = b"") -> bytes:
        """Return what the loader is to read: the script, which finds ``stdin`` as its standard input.

        :raises ValueError: for a script with a NUL character, which no shell can read.
        """
        if "\0" in script:
            raise ValueError("a script cannot hold a NUL character")
        text = script.encode("utf-8", "surrogateescape")
        if stdin:
            data = base64.encodebytes(stdin)
            text = b"base64 -d <<'end-of-stdin' | (\n%send-of-stdin\n%s\n)" % (data, text)
        return text + b"\n#" + self.token.encode()


class Unframed:
    """One stream of an exec: drops what comes before the mark, keeps what comes after it.

    :ivar noise: what came before the mark, :data:`NOISE` bytes at most.
    :ivar size: bytes that came so far, noise included.
    """

    def __init__(self, frame: Frame) -> None:
        self.mark = frame.mark
        self.noise = b""
        self.marked = False
        self.size = 0
        self._kept = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take in ``data``; return the part of it that belongs to the script."""
        self.size += len(data)
        if self.marked:
            return data
        before, mark, data = (self.noise + data).partition(self.mark)
        self.noise, self.marked = before if mark else before[:NOISE], bool(mark)
        return data

    def keep(self, data: bytes) -> None:
        """Keep what :meth:`feed` returned."""
        self._kept += data

    @property
    def data(self) -> bytes:
        """Everything that was kept of what came after the mark."""
        return bytes(self._kept)

    @property
    def has_part(self) -> bool:
        """Whether what came so far holds the mark once more, which ends the output of a first script."""
        return self.mark in self._kept

    def take_part(self) -> bytes:
        """Return what came before that mark, and keep what came after it."""
        part, _, rest = bytes(self._kept).partition(self.mark)
        self._kept = bytearray(rest)
        return part
