"""What apt-get says that it would do: how it is asked, and how its answer is read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from debian.debian_support import Version

from provision.probe import Probe, words
from provision.resource import Planned
from provision.resources.packages.sets import Simulation

NOT_YET = re.compile(
    r"Unable to locate package|Version '.*' for '.*' was not found|no installation candidate"
)
"""What apt-get says where an earlier step of the plan, or a fresh index, has to come first."""

LINE = re.compile(
    r"(?P<verb>Inst|Remv) (?P<name>\S+)(?: \[(?P<old>[^] ]+)\])?(?: \((?P<new>\S+) [^)]*\))?", re.ASCII
)
"""``Inst a [1] (2 Debian:12 [amd64])`` or ``Remv a [1]`` of apt-get(8) --simulate."""


def preview(arguments: Sequence[str], planned: Planned) -> Probe:
    """Asks apt-get what ``install ARGUMENTS`` would do, with the files below ``/etc/apt`` as planned."""
    ask = words("apt_preview", *arguments)
    files = [c.script for c in planned.changes if c.resource.startswith("file:/etc/apt/")]
    script = "\n".join(("with_planned_files", *files, ask)) if files else ask
    return Probe("", script, ("shell/apt_preview.sh",))


def read(text: str, *, ok: bool) -> Simulation:
    """Read the answer to :func:`preview`."""
    if not ok:
        said = [line for line in text.splitlines() if line.startswith("E: ")] or text.splitlines()[-1:]
        why = "" if NOT_YET.search(text) else "".join(f"\napt-get now says: {line}" for line in said)
        return Simulation(text=f"known after apply{why}\n")
    moves = [match for line in text.splitlines() if (match := LINE.match(line))]
    removed = [match for match in moves if match["verb"] == "Remv"]
    return Simulation(
        tuple(dict.fromkeys(match["name"] for match in removed)),
        _held_by_others(text),
        "".join(f"{_words(match)}\n" for match in [*removed, *(m for m in moves if m["verb"] == "Inst")]),
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
