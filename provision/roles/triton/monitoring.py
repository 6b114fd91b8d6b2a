"""Where Prometheus finds the metrics of instances: targets of its file_sd. Pure.

The format is that of https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from provision.inventory.folding import folded
from provision.roles.triton.instance import IMAGE, Instance
from provision.roles.triton.role import TritonSettings


@dataclass(frozen=True)
class Watched:
    """A host whose instances are to be watched.

    :ivar address: where other machines reach it.
    """

    name: str
    address: str
    groups: Sequence[str]
    settings: TritonSettings


@dataclass(frozen=True)
class Targets:
    """The targets, and what people should know of them.

    :ivar entries: of the file.
    :ivar remarks: sentences about instances that are left out, or that nobody else can reach.
    """

    entries: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...]


def targets(hosts: Iterable[Watched]) -> Targets:
    """One target for each instance that has metrics."""
    entries: list[dict[str, Any]] = []
    remarks: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        for name, instance in host.settings.servers.items():
            for remark in _remarks(name, instance):
                remarks.setdefault(remark, []).append(host.name)
            if instance.shows_metrics:
                entries.append(_entry(host, name, instance))
    said = (f"{kind}: {folded(names)}: {text}" for (kind, text), names in remarks.items())
    return Targets(tuple(entries), tuple(said))


def _remarks(name: str, instance: Instance) -> Iterator[tuple[str, str]]:
    if not instance.shows_metrics:
        yield "left out", f"triton instance {name} has --allow-metrics=false"
    elif ipaddress.ip_address(instance.address).is_loopback:
        yield (
            "warning",
            f"triton instance {name} has its metrics on {instance.address} alone, where a Prometheus on"
            " another machine cannot reach them; address: sets where they are",
        )


def _entry(host: Watched, name: str, instance: Instance) -> dict[str, Any]:
    address = ipaddress.ip_address(instance.address)
    at = host.address if address.is_loopback or address.is_unspecified else str(address)
    labels = {
        "host": host.name,
        "instance": name,
        "image_tag": tag_of(instance),
        "groups": ",".join(host.groups),
    }
    place = f"[{at}]" if ":" in at else at
    return {"targets": [f"{place}:{instance.metrics_port}"], "labels": labels}


def tag_of(instance: Instance) -> str:
    """The tag of an instance's image, or its digest where there is none."""
    parts = IMAGE.fullmatch(instance.image)
    assert parts is not None
    return parts["tag"] or parts["digest"].removeprefix("@")
