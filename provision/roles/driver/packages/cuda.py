"""NVIDIA's repository of drivers: where it is for each system, and who has signed it."""

from __future__ import annotations

import re

from provision.errors import Refusal
from provision.facts import Facts
from provision.resources.packages.public import Mirror, public_repository, public_rpm_repository
from provision.resources.packages.repository import SignedRepo

REPOSITORIES = "https://developer.download.nvidia.com/compute/cuda/repos"
"""NVIDIA Driver Installation Guide, "Network Repository"."""

KEY = ("driver/cuda.asc", "EB693B3035CD5710E231E123A4B469963BF863CC")
KEY_OF_DEBIAN_13 = ("driver/cuda_debian13.asc", "02182E60104FCDC26EAE1B8597A5D4CB8793F200")
"""Keys of the repositories for apt, as templates with their fingerprints (extrepo-offline-data 1.0.7)."""

KEY_FOR_DNF = ("D42D0685.pub", "610C7B14E068A878070DA4E99CD0A493D42D0685")
"""Key of the repositories for RHEL 8 and 9: its file beside the packages, and its fingerprint
(github.com/NVIDIA/cuda-repo-management, "Verify repository")."""


def cuda_repository(facts: Facts, mirror: Mirror | None) -> SignedRepo:
    """NVIDIA's repository for a host, or the site's copy of it.

    :raises Refusal: where NVIDIA has none for it.
    """
    folder = _folder(facts)
    if mirror is None and facts.os == "debian" and facts.machine != "x86_64":
        raise Refusal(
            f"NVIDIA's repository for {facts.system} has no packages for {facts.machine}",
            hint="source: archive, or a repo or mirror that has them",
        )
    machine = "sbsa" if facts.machine == "aarch64" else facts.machine
    address = f"{REPOSITORIES}/{folder}/{machine}/"
    if facts.family == "rhel":
        file, fingerprint = KEY_FOR_DNF
        return public_rpm_repository(address, f"{address}{file}", fingerprint, mirror)
    return public_repository(address, *(KEY_OF_DEBIAN_13 if folder == "debian13" else KEY), mirror)


def _folder(facts: Facts) -> str:
    """What NVIDIA calls a system: ``debian12``, ``ubuntu2404``, ``rhel9``."""
    name = {"rocky": "rhel", "almalinux": "rhel"}.get(facts.os, facts.os)
    return name + (facts.version.replace(".", "") if facts.os == "ubuntu" else facts.major)


def refuse_foreign_repository(facts: Facts, uri: str) -> None:
    """Refuse an address that names another system or machine, as NVIDIA's repositories are laid out.

    They are called ``debian12/x86_64``, ``ubuntu2404/sbsa``: the folder of servers with ARM is ``sbsa``.

    :raises Refusal: naming both.
    """
    parts = set(uri.rpartition("://")[2].lower().split("/"))
    machines = {"x86_64": "x86_64", "sbsa": "aarch64", "aarch64": "aarch64", "arm64": "aarch64"}
    for part, machine in machines.items():
        if part in parts and machine != facts.machine:
            raise Refusal(
                f"the repository is for {machine} ({part} in {uri}), the host is {facts.machine}",
                hint="NVIDIA's folder for servers with ARM is sbsa, the other one x86_64",
            )
    own = _folder(facts)
    for part in sorted(parts):
        if re.fullmatch(r"(debian|ubuntu|rhel)\d+", part) and part != own:
            raise Refusal(
                f"the repository is for {part} ({uri}), the host is {facts.system}",
                hint=f"its folder is {own}",
            )
