"""Packages that unattended-upgrades leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

from provision.resources.file import File


def left_alone(name: str, prefixes: Sequence[str]) -> File:
    """The file that keeps unattended-upgrades from packages whose names begin with one of ``prefixes``.

    The lists of all files of ``/etc/apt/apt.conf.d`` add up, so the distribution's own list stays in force.
    Entries are regular expressions, which unattended-upgrades(8) matches at the beginning of a name.

    :param name: what the packages are, for the file's name.
    """
    entries = "".join(f'  "{_escaped(prefix)}";\n' for prefix in prefixes)
    text = f"Unattended-Upgrade::Package-Blacklist {{\n{entries}}};\n"
    return File(f"/etc/apt/apt.conf.d/60provision-{name}", text.encode())


def _escaped(prefix: str) -> str:
    # The only characters of Debian package names that mean something in a regular expression.
    return prefix.replace(".", "[.]").replace("+", "[+]")
