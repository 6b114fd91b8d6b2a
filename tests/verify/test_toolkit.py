"""The NVIDIA Container Toolkit: four packages of one version, and its program answers."""

from __future__ import annotations

from provision.command import Probe, words
from provision.roles.toolkit import PACKAGES, ToolkitSettings
from provision.verify import Evidence, fail
from provision.verify.causes import cause

ROLE = "toolkit"


def probes(settings: ToolkitSettings) -> list[Probe]:
    """Packages, and the program that makes the devices of containers known."""
    form = "${db:Status-Status} ${Package} ${Version}\\n"
    return [
        Probe("toolkit packages", f"{words('dpkg-query', '-W', '-f', form, *PACKAGES)} 2>/dev/null || :"),
        Probe("nvidia-ctk", "timeout -k 5 30 nvidia-ctk --version"),
    ]


def installed(evidence: Evidence) -> dict[str, str]:
    """Version of each installed package."""
    rows = (line.split() for line in evidence["toolkit packages"].out.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}


def test_packages_are_of_one_version(evidence: Evidence, settings: ToolkitSettings) -> None:
    found = installed(evidence)
    again = "inv provision --hosts HOST --roles toolkit"
    if missing := [package for package in PACKAGES if package not in found]:
        fail(f"not installed: {', '.join(missing)}", again)
    if len(set(found.values())) > 1:
        fail(
            "its packages are of different versions: "
            + ", ".join(f"{package} {version}" for package, version in sorted(found.items())),
            again,
        )
    if (version := found[PACKAGES[0]]) != settings.version:
        fail(f"version {version} is installed and {settings.version} is requested", again)


def test_nvidia_ctk_answers(evidence: Evidence) -> None:
    answer = evidence["nvidia-ctk"]
    if not answer.ok or "version" not in answer.out:
        why, hint = cause(answer)
        fail(f"nvidia-ctk does not answer: {why}", hint)
