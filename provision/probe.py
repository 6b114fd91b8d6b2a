"""Commands as values: what a host is asked, and what it answered. Nothing here runs anything."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


def quote(value: str) -> str:
    """Return ``value`` as one word of POSIX sh, whatever it holds.

    :raises ValueError: for NUL, which no argument of a process can carry.
    """
    if "\0" in value:
        raise ValueError("a NUL character cannot be passed to a command")
    return shlex.quote(value)


def words(*argv: str) -> str:
    """Return the sh text that runs ``argv``, every argument quoted."""
    return " ".join(quote(word) for word in argv)


def by_word(text: str) -> dict[str, list[str]]:
    """Lines that are a word and a text: the texts of each word, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


@dataclass(frozen=True)
class Output:
    """What a command left behind: its exit code and both streams, byte for byte."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def out(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are kept as escapes."""
        return self.stdout.decode("utf-8", "backslashreplace")

    @property
    def err(self) -> str:
        """Standard error as text; bytes that are not UTF-8 are kept as escapes."""
        return self.stderr.decode("utf-8", "backslashreplace")

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.exit_code == 0


@dataclass(frozen=True)
class Probe:
    """A question to a host: POSIX sh text that reads and never changes anything.

    It runs with a fixed locale and PATH, with root's rights where the inventory says so, and leaves nothing
    running behind: what came from there would count as the output of another probe.

    :ivar name: unique among the probes of one host.
    :ivar script: one line that calls a command or a function.
    :ivar shell: the files below ``templates/`` whose functions the script calls, such as ``shell/files.sh``.
    :ivar in_place: whether it runs in the shell of all probes and not in a subshell of its own, because it
        leaves that shell as it is but for variables that nobody else reads.
    :ivar last: whether it comes after all others, since it starts nvidia-smi, which makes device nodes.
    """

    name: str
    script: str
    shell: tuple[str, ...] = ()
    in_place: bool = False
    last: bool = False
