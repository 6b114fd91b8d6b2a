"""The files of a host, rendered without the host."""

from __future__ import annotations

from collections.abc import Iterator

from provision.errors import UsageError
from provision.facts import RHEL_FAMILY, Facts, Gpu
from provision.plan.declared import declare
from provision.resource import RenderedFile
from provision.run.target import Target

CODENAMES = {"debian:12": "bookworm", "debian:13": "trixie", "ubuntu:22.04": "jammy", "ubuntu:24.04": "noble"}


def assumed(system: str) -> Facts:
    """Facts of an x86_64 machine with one H100 and this system (``debian:12``).

    :raises UsageError: if it is not of the form ``ID:VERSION``.
    """
    system = system.lower()
    name, colon, version = system.partition(":")
    if not colon or not name or not version:
        raise UsageError(
            f"system {system!r} is not ID:VERSION", hint="such as debian:12, ubuntu:24.04, rocky:9"
        )
    return Facts(
        os=name,
        version=version,
        codename=CODENAMES.get(system, ""),
        machine="x86_64",
        architecture="" if name in RHEL_FAMILY else "amd64",
        kernel="(assumed)",
        boot_id="(assumed)",
        virtualization="none",
        secure_boot=False,
        gpus=(Gpu("0000:18:00.0", 0x2330),),
    )


def rendered(target: Target, facts: Facts) -> Iterator[RenderedFile]:
    """Every file that would be written to a host that has none of them.

    :raises RefusedError: if a role refuses such a host.
    """
    for item in declare(target.name, target.settings, facts):
        if file := item.resource.rendered():
            yield file
