"""The files of a host, rendered without the host."""

from __future__ import annotations

from collections.abc import Iterator

from provision.errors import UsageError
from provision.facts import Facts, Gpu
from provision.resources.file import File
from provision.roles.docker.daemon_json import DaemonJson
from provision.roles.docker.text import DAEMON_JSON
from provision.run.host import Target, wanted_of

CODENAMES = {"debian:12": "bookworm", "debian:13": "trixie", "ubuntu:22.04": "jammy", "ubuntu:24.04": "noble"}


def assumed(system: str) -> Facts:
    """Facts of an x86_64 machine with one H100 and this system (``debian:12``).

    :raises UsageError: if it is not of the form ``ID:VERSION``.
    """
    name, colon, version = system.partition(":")
    if not colon or not name or not version:
        raise UsageError(f"system {system!r} is not ID:VERSION", hint=f"one of {', '.join(CODENAMES)}")
    return Facts(
        os=name,
        version=version,
        codename=CODENAMES.get(system, ""),
        machine="x86_64",
        architecture="amd64",
        kernel="(assumed)",
        boot_id="(assumed)",
        virtualization="none",
        secure_boot=False,
        gpus=(Gpu("0000:18:00.0", 0x2330),),
    )


def rendered(target: Target, facts: Facts) -> Iterator[tuple[str, bytes, str]]:
    """Path, content and mode of every file that would be written; daemon.json as on a host that has none.

    :raises RefusedError: if a role refuses such a host.
    """
    for item in wanted_of(target, facts):
        if isinstance(item.resource, File):
            yield item.resource.path, item.resource.content, item.resource.mode
        elif isinstance(item.resource, DaemonJson):
            yield DAEMON_JSON, item.resource.alone, "0644"
