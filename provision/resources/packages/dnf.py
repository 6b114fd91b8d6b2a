"""What dnf says that it would do: how it is asked, and how its answer is read; and its module streams."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from debian.debian_support import Version

from provision.probe import quote, words
from provision.resources.packages.apt import HELD

STREAMS = "/etc/dnf/modules.d"
"""Where dnf keeps which stream of a module is enabled, a file for each module."""

LOCKS = "/etc/dnf/plugins/versionlock.list"
"""Where dnf's versionlock plugin keeps its locks, a line each: ``NAME-EPOCH:VERSION-RELEASE.*``."""

OTHERS = (
    f'BEGIN {{ while ((getline name <"{HELD}") > 0) ours[name] }} '
    '{ name = $0; sub(/-[^-]*-[^-]*$/, "", name) } !(name in ours)'
)
"""awk's words for the locks that are not ours."""

NOT_YET = re.compile(r"Unable to find a match|no enabled repositories")
"""What dnf says where an earlier step of the plan, or fresh metadata, has to come first."""

SECTION = re.compile(r"(Install|Upgrad|Downgrad|Reinstall|Remov)ing\b[^:]*:$", re.ASCII)
"""The head of a part of dnf's table: ``Installing dependencies:``, ``Removing dependent packages:``."""


@dataclass(frozen=True)
class Simulation:
    """The answer of ``dnf --assumeno install``.

    :ivar removed: packages that would go, those that others make obsolete among them.
    :ivar text: a line for each package, removals first; or why there is no answer.
    """

    removed: tuple[str, ...] = ()
    text: str = ""


def simulate(selectors: Sequence[str], stream: str = "") -> str:
    """Sh text that asks dnf what ``install SELECTORS`` would do once our own locks are lifted.

    :param stream: ``MODULE:STREAM`` that will be enabled before. It is, like the locks, for this question
        alone: in a mount namespace of its own.
    """
    options = "--assumeno --color=never --setopt=install_weak_deps=False"
    module, _, name = stream.partition(":")
    text = f"[{module}]\nname={module}\nstream={name}\nprofiles=\nstate=enabled\n"
    streams = (
        f"mkdir /mnt/streams && cp -a {STREAMS}/. /mnt/streams",
        f"printf %s {quote(text)} >/mnt/streams/{module}.module",
        f"mount --bind /mnt/streams {STREAMS}",
    )
    lines = (
        "set -e",
        "mount -t tmpfs tmpfs /mnt",
        *(streams if stream else ()),
        f"if [ -e {LOCKS} ]; then",
        f"  awk {quote(OTHERS)} {LOCKS} >/mnt/locks && mount --bind /mnt/locks {LOCKS}",
        "fi",
        "umount /mnt",
        f"exec dnf {options} install --allowerasing {words(*selectors)}",
    )
    joined = "\n".join(lines)
    return f"unshare --mount sh -c {quote(joined)} 2>&1"


def read(text: str) -> Simulation:
    """Read the answer to :func:`simulate`; dnf exits with 1 whatever it says."""
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
    return Simulation(tuple(dict.fromkeys(removed)), "".join(f"{line}\n" for line in lines))


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
    """The enabled stream of each module, from the lines of files in ``/etc/dnf/modules.d``."""
    found: dict[str, dict[str, str]] = {}
    module = ""
    for line in lines:
        if line.startswith("["):
            module = line.strip("[] ")
        elif "=" in line:
            key, _, value = line.partition("=")
            found.setdefault(module, {})[key.strip()] = value.strip()
    return {name: keys.get("stream", "") for name, keys in found.items() if keys.get("state") == "enabled"}


def compare(one: str, other: str) -> int:
    """Which of two versions is newer, as rpm sees it: below, at or above 0.

    For versions of digits, letters and dots rpm and dpkg agree.
    """
    first, second = Version(one or "0"), Version(other)
    return (first > second) - (first < second)
