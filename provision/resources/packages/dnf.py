"""What dnf says that it would do: how it is asked, and how its answer is read; and its module streams."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from debian.debian_support import Version

from provision.probe import Probe, words
from provision.resources.packages.sets import Simulation

NOT_YET = re.compile(r"Unable to find a match|no enabled repositories")
"""What dnf says where an earlier step of the plan, or fresh metadata, has to come first."""

SECTION = re.compile(r"(Install|Upgrad|Downgrad|Reinstall|Remov)ing\b[^:]*:$", re.ASCII)
"""The head of a part of dnf's table: ``Installing dependencies:``, ``Removing dependent packages:``."""


def preview(selectors: Sequence[str], stream: str = "") -> Probe:
    """Asks dnf what ``install SELECTORS`` would do once our own locks are lifted.

    :param stream: ``MODULE:STREAM`` that will be enabled before.
    """
    return Probe("", words("dnf_preview", stream, *selectors), ("shell/dnf_preview.sh",))


def read(text: str) -> Simulation:
    """Read the answer to :func:`preview`; dnf exits with 1 whatever it says."""
    if "Dependencies resolved." not in text and "Nothing to do." not in text:
        wrong = [line for line in text.splitlines() if line.startswith(("Error:", " Problem", "  - "))]
        said = [line.strip() for line in wrong if line.strip() != "Error:"]
        if not said or NOT_YET.search(text):
            return Simulation(text="known after apply\n")
        return Simulation(text="known after apply\n" + "".join(f"dnf now says: {line}\n" for line in said))
    removed: list[str] = []
    lines: list[str] = []
    for verb, fields in _rows(text):
        if verb == "remove":
            removed.append(fields[0])
        lines.append(f"{verb} {fields[0]} {fields[2] if len(fields) > 2 else ''}".rstrip())
    lines.sort(key=lambda line: not line.startswith("remove "))
    return Simulation(tuple(dict.fromkeys(removed)), text="".join(f"{line}\n" for line in lines))


def _rows(text: str) -> Iterable[tuple[str, list[str]]]:
    """Verb and columns (name, architecture, version, …) of every row of the table.

    Long rows go on in the next line, which is indented deeper.
    """
    verb = ""
    rows: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if head := SECTION.match(line):
            verb = {"Install": "install", "Reinstall": "reinstall", "Remov": "remove"}.get(
                head[1], head[1].lower() + "e"
            )
        elif not line.startswith(" "):
            verb = ""
        elif verb and line.startswith("     replacing "):
            name, _, architecture = line.split()[1].rpartition(".")
            rows.append(("remove", [name, architecture, *line.split()[2:]]))
        elif verb and line.startswith("  ") and rows:
            rows[-1][1].extend(line.split())
        elif verb:
            rows.append((verb, line.split()))
    return rows


def streams(lines: Iterable[str]) -> dict[str, str]:
    """The enabled stream of each module, from the lines of dnf's files."""
    modules: dict[str, dict[str, str]] = {}
    module = ""
    for line in lines:
        if line.startswith("["):
            module = line.strip("[] ")
        elif "=" in line:
            key, _, value = line.partition("=")
            modules.setdefault(module, {})[key.strip()] = value.strip()
    return {name: keys.get("stream", "") for name, keys in modules.items() if keys.get("state") == "enabled"}


def compare(one: str, other: str) -> int:
    """Which of two versions is newer, as rpm sees it: below, at or above 0.

    For versions of digits, letters and dots rpm and dpkg agree.
    """
    first, second = Version(one or "0"), Version(other)
    return (first > second) - (first < second)
