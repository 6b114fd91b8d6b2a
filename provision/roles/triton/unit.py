"""The command of a unit that provisioning wrote: read back from its text, and compared. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"|(\S+)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))|([$%])\3", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


NO_NEW_PRIVILEGES = "--security-opt=no-new-privileges"
"""Nobody restarts a server that runs without it: its next start takes it."""


def needs_restart(runs: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a server that was started with the command ``runs`` must be restarted for another one."""
    without = [word for word in wanted if word != NO_NEW_PRIVILEGES]
    return list(runs) not in (list(wanted), without)


def command_signal(unit: str) -> str:
    """What a change of a unit's file signals if a running container has another command than the new one."""
    return f"command of {unit}"


def models_signal(unit: str) -> str:
    """What it signals if the new command has another model repository."""
    return f"models of {unit}"


def repository_of(command: Sequence[str]) -> str:
    """The option that mounts the model repository; empty for none."""
    return next((word for word in command if re.fullmatch("--volume=[^:]*:/models:ro", word)), "")


def command_of(unit: str) -> list[str]:
    """The words of its ``ExecStart=``, as the process gets them."""
    joined = unit.encode().replace(b"\\\n", b" ")
    line = re.search(rb"^ExecStart=(.*)$", joined, re.MULTILINE)
    found = _WORD.findall(line[1]) if line else []
    return [_plain(quoted or bare).decode("utf-8", "replace") for quoted, bare in found]


def _plain(word: bytes) -> bytes:
    """A word without its escapes."""

    def meant(escape: re.Match[bytes]) -> bytes:
        code, letter, doubled = escape.groups()
        if code:
            return bytes.fromhex(code.decode())
        return doubled or _LETTERS.get(letter, letter)

    return _ESCAPE.sub(meant, word)
