"""What apt-get says that it would do: how it is asked, and how its answer is read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from debian.debian_support import Version

from provision.probe import words
from provision.resource import Planned
from provision.shell import constant

HELD = constant("shell/apt.sh", "held")
"""File on a host with the packages that we hold, one name a line; every other hold is somebody else's."""

NOT_YET = re.compile(
    r"Unable to locate package|Version '.*' for '.*' was not found|no installation candidate"
)
"""What apt-get says where an earlier step of the plan, or a fresh index, has to come first."""

LINE = re.compile(
    r"(?P<verb>Inst|Remv) (?P<name>\S+)(?: \[(?P<old>[^] ]+)\])?(?: \((?P<new>\S+) [^)]*\))?", re.ASCII
)
"""``Inst a [1] (2 Debian:12 [amd64])`` or ``Remv a [1]`` of apt-get(8) --simulate."""


@dataclass(frozen=True)
class Simulation:
    """The answer of ``apt-get -s install``.

    :ivar removed: packages that would go.
    :ivar held: packages that somebody else holds, and that would move.
    :ivar text: a line for each package, removals first; or why there is no answer.
    """

    removed: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    text: str = ""


def simulate(argv: Sequence[str], planned: Planned) -> str:
    """Sh text that asks apt-get what ``install ARGV`` would do, with apt's files as planned.

    The files that earlier steps write below ``/etc/apt`` (pins, sources) decide what apt does. So it is asked
    with a copy of that folder in which they are written already.
    """
    files = [c for c in planned.changes if c.resource.startswith(("file:/etc/apt/", "no-file:/etc/apt/"))]
    ask = f"sed 's/^/ours /' {HELD} 2>/dev/null\napt-get -s -q -y -o APT::Color=0 -o APT::Ignore-Hold=true"
    end = f"install --no-install-recommends --allow-change-held-packages {words(*argv)} 2>&1"
    if not files:
        return f"{ask} {end}"
    return "\n".join(
        (
            'etc=$(mktemp -d) && trap \'rm -rf "$etc"\' EXIT && cp -a /etc/apt/. "$etc" || exit',
            "backup() { :; }",
            'write_file() { f=$etc/${1#/etc/apt/}; mkdir -p "${f%/*}" && base64 -d >"$f"; }',
            'rm() { command rm -f -- "$etc/${3#/etc/apt/}"; }',
            *(c.script for c in files),
            "unset -f rm",
            f'{ask} -o Dir::Etc="$etc" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= {end}',
        )
    )


def read(text: str, *, ok: bool) -> Simulation:
    """Read the answer to :func:`simulate`."""
    if not ok:
        said = [line for line in text.splitlines() if line.startswith("E: ")] or text.splitlines()[-1:]
        why = "" if NOT_YET.search(text) else "".join(f"\napt-get now says: {line}" for line in said)
        return Simulation(text=f"known after apply{why}\n")
    found = [match for line in text.splitlines() if (match := LINE.match(line))]
    removed = [match for match in found if match["verb"] == "Remv"]
    return Simulation(
        tuple(dict.fromkeys(match["name"] for match in removed)),
        _held_by_others(text),
        "".join(f"{_words(match)}\n" for match in [*removed, *(m for m in found if m["verb"] == "Inst")]),
    )


def _words(match: re.Match[str]) -> str:
    name, old, new = match["name"], match["old"], match["new"]
    if match["verb"] == "Remv":
        return f"remove {name} {old or ''}".rstrip()
    if not old:
        return f"install {name} {new}"
    if not new or old == new:
        return f"reinstall {name} {old}"
    verb = "upgrade" if Version(new) > Version(old) else "downgrade"
    return f"{verb} {name} {old} → {new}"


def _held_by_others(text: str) -> tuple[str, ...]:
    """The names below ``The following held packages will be changed:``, which are indented."""
    ours = {line.removeprefix("ours ") for line in text.splitlines() if line.startswith("ours ")}
    _, _, rest = text.partition("The following held packages will be changed:\n")
    lines = itertools.takewhile(lambda line: line.startswith(" "), rest.splitlines())
    return tuple(name for line in lines for name in line.split() if name.partition(":")[0] not in ours)
