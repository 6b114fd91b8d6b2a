"""The flags that systemd starts dockerd with, and the keys of daemon.json that they collide with.

dockerd does not start if an option is given both as a flag and in daemon.json; only ``runtimes`` may be
(moby, daemon/config, findConfigurationConflicts, skipDuplicates).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from provision.errors import Refusal
from provision.probe import Probe
from provision.roles.docker.text import DAEMON_JSON
from provision.shell import constant

SHELL = "docker/flags.sh"

SECTION = constant(SHELL, "flags_section")
"""Begins the line before each file in the answer to :data:`UNIT_FILES`."""

UNIT_FILES = Probe("flags of dockerd", "docker_unit_files", (SHELL,))
"""Asks for the files of docker.service, and the environment files that they name."""

SHORT = {
    "-H": "hosts",
    "-D": "debug",
    "-G": "group",
    "-b": "bridge",
    "-g": "data-root",
    "-l": "log-level",
    "-p": "pidfile",
    "-s": "storage-driver",
}
LONG = {
    "host": "hosts",
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "cluster-store-opt": "cluster-store-opts",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
"""Flags whose keys have other names."""


@dataclass(frozen=True)
class Flag:
    """An option on dockerd's command line.

    :ivar written: as it is written, without its value.
    :ivar key: the key of daemon.json for the same.
    :ivar value: what follows; the next word where that is not told from a switch.
    :ivar file: where it is written.
    """

    written: str
    key: str
    value: str
    file: str


def conflict(answer: str, document: Mapping[str, Any]) -> Refusal | None:
    """Why dockerd would not start with this daemon.json, from the answer to :data:`UNIT_FILES`."""
    for flag in flags(answer):
        if flag.key == "config-file" and flag.value != DAEMON_JSON:
            return Refusal(
                f"{flag.file} starts dockerd with {flag.written} {flag.value}:"
                f" it does not read {DAEMON_JSON}",
                hint=f"move its content to {DAEMON_JSON}, and take {flag.written} out of {flag.file}",
            )
        if flag.key in document and flag.key != "runtimes":
            return Refusal(
                f"{flag.file} starts dockerd with {flag.written}, and {DAEMON_JSON} has {flag.key}:"
                " with both, dockerd does not start",
                hint=f"take {flag.written} out of {flag.file}; or take {flag.key} out of {DAEMON_JSON}",
            )
    return None


def flags(answer: str) -> list[Flag]:
    """The flags of dockerd's command line, with those that its variables hold."""
    command = ("", "")
    variables: dict[str, tuple[str, str]] = {}
    for part in re.split(rf"^{SECTION}(?=(?:unit|environment) /)", answer, flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        kind, _, file = head.partition(" ")
        if kind == "environment":
            variables |= {key: (file, value) for key, value in _environment(text)}
            continue
        for key, value in _assignments(text):
            if key == "ExecStart":
                # An empty one takes back those before it.
                command = (file, value)
            elif key == "Environment":
                pairs = (word.partition("=") for word in _split(value))
                variables |= {name: (file, given) for name, equals, given in pairs if equals}
    return list(_flags(_words(*command, variables)))


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Keys and values of a unit file, continued lines joined (systemd.syntax(7))."""
    joined = re.sub(r"\\\n(?:[#;].*\n)*", " ", text)
    for line in joined.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";", "[")):
            yield key.strip(), value.strip()


def _environment(text: str) -> Iterator[tuple[str, str]]:
    """Variables of an environment file, one in a line; their values may hold blanks."""
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            yield key.removeprefix("export ").strip(), _unquoted(value.strip())


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _words(file: str, command: str, variables: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The words of a command after its program, with the file that each comes from."""
    for word in _split(command.lstrip("-@:+!"))[1:]:
        name = re.fullmatch(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", word)
        if name is None:
            yield file, word
        elif name[1] in variables:
            source, text = variables[name[1]]
            yield from ((source, part) for part in _split(text))


def _flags(listed: Iterator[tuple[str, str]]) -> Iterator[Flag]:
    for (file, word), (_, following) in pairwise([*listed, ("", "")]):
        written, equals, value = word.partition("=")
        value = value if equals else following
        if written.startswith("--"):
            name = written[2:]
            yield Flag(written, LONG.get(name, name), value, file)
        elif word[:2] in SHORT:
            yield Flag(word[:2], SHORT[word[:2]], word[2:].lstrip("=") or following, file)
