"""Triton's instances for other systems: manifests for Kubernetes, targets for Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from provision.cli import arguments, terminal
from provision.cli.options import Options
from provision.data import beside
from provision.errors import InventoryError, UsageError
from provision.inventory import Host
from provision.kubernetes.dump import dumped
from provision.kubernetes.manifest import Node, manifests
from provision.roles.triton import monitoring
from provision.roles.triton.role import ROLE, TritonSettings
from provision.run.target import Target

GPU_COUNT = "gpu_count"
"""The variable of a host that says how many GPUs it has."""

MOST = 1024
"""GPUs of a host."""

MANIFESTS = "kubernetes.yaml"
TARGETS = "targets.json"
"""Files in the folder of ``--out``."""


def export(options: Options, out: str, *, kubernetes: bool, monitoring: bool, gpus: str) -> None:
    """Print the manifests or the targets, or write them below the folder ``out``.

    :raises UsageError: for anything that is refused.
    """
    if kubernetes and monitoring:
        raise UsageError("--kubernetes and --monitoring are two documents", hint="give one of them a call")
    if gpus and not kubernetes:
        raise UsageError("--gpus is for manifests alone", hint="inv render --kubernetes --gpus 8")
    if gpus and not (re.fullmatch(r"[0-9]{1,4}", gpus) and 1 <= int(gpus) <= MOST):
        hint = "--gpus 8; an instance without GPUs has gpus: none"
        raise UsageError(f"--gpus {gpus}: not a number of GPUs from 1 to {MOST}", hint=hint)
    name, text = (
        (MANIFESTS, _manifests(options, int(gpus or 0))) if kubernetes else (TARGETS, _targets(options))
    )
    if not out:
        terminal.write_data(text)
        return
    path = Path(out, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = beside(path, text.encode())
        written.chmod(0o644)  # nothing in it is secret, and Prometheus has a user of its own
        written.rename(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name another folder: --out DIR") from error
    terminal.log(f"written: {path}")


def _manifests(options: Options, gpus: int) -> str:
    nodes = [
        Node(target.name, settings, gpus or gpu_count(host)) for target, host, settings in _servers(options)
    ]
    found = manifests(nodes)
    for secret in found.secrets:
        terminal.log(f"not written: the Secret {secret.name}, which must be there\n  hint: {secret.command}")
    return dumped(found.objects)


def _targets(options: Options) -> str:
    watched = [
        monitoring.Watched(target.name, target.login.address, host.groups, settings)
        for target, host, settings in _servers(options)
    ]
    found = monitoring.targets(watched)
    for remark in found.remarks:
        terminal.log(remark)
    return json.dumps(found.entries, indent=2) + "\n"


def _servers(options: Options) -> Iterator[tuple[Target, Host, TritonSettings]]:
    targets, hosts = arguments.targets(options)
    for target in targets:
        settings = target.settings.get(ROLE)
        if isinstance(settings, TritonSettings):
            yield target, hosts[target.name], settings


def gpu_count(host: Host) -> int | None:
    """How many GPUs the inventory says that a host has; None where it does not.

    :raises InventoryError: if that is no number of GPUs.
    """
    value = host.vars.get(GPU_COUNT)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise InventoryError(
            f"{GPU_COUNT} must be a number of GPUs", where=host.where(GPU_COUNT), hint=f"{GPU_COUNT}: 8"
        )
    return value
