"""Host keys in the logs of consoles, where cloud-init prints them. Pure.

When a system has started for the first time, cloud-init prints two blocks: the fingerprints of all host keys,
through logger(1), and the keys themselves (tools/write-ssh-key-fingerprints in its source). What a console
adds are carriage returns, escape sequences, and lines of the kernel and of systemd in between. Nothing is
taken from a block without its end, nor from a line that may have been cut or has no fingerprint before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from provision.connection.known_hosts import HostKey
from provision.errors import Location

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
"""Escape sequences (ECMA-48): of colours and cursors, of titles, and the short ones."""

_LINE_END = re.compile(r"(\r*\n|\r)")

_NAME = r"[A-Za-z0-9][A-Za-z0-9.-]*"
_KERNEL = r"\[ *\d+\.\d+\] ?"
_PREFIX = re.compile(
    rf"(?:{_KERNEL})?(?:<\d+>)?(?:[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d )?"
    rf"(?:(?P<host>{_NAME}) )?(?:cloud-init|ec2)(?:\[\d+\])?: "
)
"""What stands before a line of cloud-init: the kernel's clock, a priority, a date, the host, the program."""

_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+=*)(?: (\S.*))?")
_COMMENT = re.compile(rf"[!-Z\\-~]*@({_NAME})")
_FINGERPRINT = re.compile(r"\d+ (SHA256:[A-Za-z0-9+/]{43}) (.*) \([A-Z0-9-]+\)")
_PROMPT = re.compile(rf"({_NAME}) login:( .*)?")
_NOISE = re.compile(rf"|{_KERNEL}.*|\[(?: +OK +|FAILED|DEPEND| *\** *)\] .*|ci-info: .*|#+")
"""Lines that stand between those of a block and do not make them doubtful: the kernel's and systemd's."""

_BEGIN, _END = (f"-----{word} SSH HOST KEY KEYS-----" for word in ("BEGIN", "END"))
_PRINTS, _PRINTS_END = (f"-----{word} SSH HOST KEY FINGERPRINTS-----" for word in ("BEGIN", "END"))


@dataclass
class Block:
    """The host keys that a system printed at one start.

    :ivar where: its first line.
    :ivar names: what it says its host is called.
    :ivar damaged: places of lines that nothing is taken from, each with the reason.
    :ivar ended: whether its last line is there.
    """

    where: Location
    keys: list[HostKey] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    damaged: dict[Location, str] = field(default_factory=dict)
    ended: bool = False


@dataclass
class Log:
    """What is in the log of a console.

    :ivar names: names of hosts in login prompts and in front of lines of cloud-init.
    """

    blocks: list[Block] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Line:
    """A line without what the console and cloud-init put around it.

    :ivar whole: whether its end is there.
    """

    where: Location
    text: str
    whole: bool


def read(text: str, path: str) -> Log:
    """What a log holds.

    :param path: the log's file, for places in it.
    """
    log = Log()
    fingerprints: dict[str, str] = {}  # of the last whole block of them → the comment of the key
    opened: dict[str, str] | None = None
    block: Block | None = None
    lines = [line for line in _lines(text, path, log) if not _NOISE.fullmatch(line.text)]
    for line, after in zip_longest(lines, lines[1:]):
        if line.text == _BEGIN:
            block = Block(line.where)
            log.blocks.append(block)
        elif line.text == _END and block:
            block.ended = True
            block, fingerprints = None, {}
        elif line.text == _PRINTS:
            opened, block = {}, None
        elif line.text == _PRINTS_END:
            opened, fingerprints = None, opened or {}
        elif opened is not None and (found := _FINGERPRINT.fullmatch(line.text)):
            opened[found[1]] = found[2]
        elif block:
            _take(block, line, after, fingerprints)
    return log


def _lines(text: str, path: str, log: Log) -> Iterator[_Line]:
    """The lines of a log, whose names of hosts are noted. After a carriage return a line is written over."""
    number = 1
    parts = [*_LINE_END.split(_ESCAPE.sub("", text)), ""]
    for said, end in zip(parts[::2], parts[1::2], strict=True):
        line = said
        while prefix := _PREFIX.match(line):  # of cloud-init's own logger, and of who prints its output
            log.names |= {prefix["host"]} - {None}
            line = line[prefix.end() :]
        prompt = _PROMPT.fullmatch(line)
        log.names |= {prompt[1]} if prompt else set()
        yield _Line(Location(path, number), line.strip("\0").rstrip(), end.endswith("\n"))
        number += end.endswith("\n")


def _take(block: Block, line: _Line, after: _Line | None, fingerprints: Mapping[str, str]) -> None:
    """Take the key of a line, or note why not."""
    found = _KEY.fullmatch(line.text)
    key = _key(found[1], found[2]) if found and line.whole else None
    # What follows may be the rest of the line, where the console was too narrow for it.
    goes_on = after is None or not (after.text == _END or re.match("(ssh|ecdsa|sk)-", after.text))
    if found is None or key is None or goes_on:
        block.damaged[line.where] = "cut, or not a key alone"
        return
    comment = found[3] or ""
    if fingerprints.get(key.fingerprint) != (comment or "no comment"):
        block.damaged[line.where] = f"its fingerprint is not printed before it: {key.kind} {key.fingerprint}"
        return
    block.keys.append(key)
    if named := _COMMENT.fullmatch(comment):
        block.names.add(named[1])


def _key(kind: str, blob: str) -> HostKey | None:
    """The key, if it is whole: what is cut has another length than it says."""
    try:
        load_ssh_public_key(f"{kind} {blob}".encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return HostKey(kind, blob)


def owner(log: Log, block: Block, named: Mapping[str, Sequence[str]]) -> tuple[str | None, str]:
    """The host that a block is of; or None, and why that is not clear.

    :param named: what a host may call itself, in lower case → the inventory's hosts that it may be.
    """

    def hosts(names: set[str]) -> set[str]:
        return {host for name in names for host in named.get(name.lower(), ())}

    own, told = hosts(block.names), hosts(log.names)
    names = ", ".join(sorted(block.names))
    if len(own) > 1:
        return None, f"{names} may be {' or '.join(sorted(own))}"
    if block.names and not own:
        return None, f"no host of the inventory is called {names}"
    if own and told and not own <= told:
        return None, f"the keys name {names}, and the log's prompts {', '.join(sorted(log.names))}"
    known = all(name.lower() in named for name in log.names)
    found = own or (told if known else set())
    if len(found) != 1:
        return None, "nothing in the log tells which host they are of"
    return found.pop(), ""
