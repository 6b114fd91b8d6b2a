"""Triton's instances as Kubernetes' objects: a Deployment and a Service each, and one RuntimeClass. Pure.

A Pod is what the unit of the instance is on a host: same image, arguments, models, ports and times. The
fields are those of https://kubernetes.io/docs/reference/kubernetes-api/.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provision.errors import UsageError
from provision.kubernetes.quantities import GPU
from provision.kubernetes.volumes import volumes_of
from provision.resources.image import registry_of
from provision.roles.triton import launch
from provision.roles.triton.arguments import PORTS_INSIDE
from provision.roles.triton.instance import STEERING, Instance
from provision.roles.triton.role import TritonSettings, models_of
from provision.secrecy import is_secret, without_secrets

RUNTIME_CLASS = "nvidia"
VISIBLE = "NVIDIA_VISIBLE_DEVICES"
"""By this variable NVIDIA's runtime gives GPUs; the device plugin sets it to those that are scheduled."""

LONGEST_NAME = 63
"""Characters of a DNS label (RFC 1123), which the names of Services and Pods are."""

_USERS = {"root": 0, "triton-server": 1000}
"""Ids of the users that NVIDIA's image has (server, build.py); Kubernetes takes no names."""

_PULL_SECONDS = 600
"""Seconds that the pull of an image may take before the Deployment counts as stuck, beside its loading."""


@dataclass(frozen=True)
class Node:
    """What a host of the inventory brings.

    :ivar gpus: how many GPUs it has; None if nobody said.
    """

    name: str
    settings: TritonSettings
    gpus: int | None = None


@dataclass(frozen=True)
class Secret:
    """A Secret that manifests refer to, which is never written: whoever applies them makes it.

    :ivar keys: of it, by the environment variable or argument that it stands for; none for a registry's.
    """

    name: str
    keys: tuple[str, ...] = ()
    registry: str = ""

    @property
    def command(self) -> str:
        """How it is made."""
        if self.registry:
            return (
                f"kubectl create secret docker-registry {self.name}"
                f" --docker-server={self.registry} --docker-username=USER --docker-password=PASSWORD"
            )
        files = " ".join(f"--from-file={key}=FILE" for key in self.keys)
        return f"kubectl create secret generic {self.name} {files}"


@dataclass(frozen=True)
class Manifests:
    """The objects of some hosts, and the Secrets that must be there beside them."""

    objects: tuple[Mapping[str, Any], ...]
    secrets: tuple[Secret, ...]


@dataclass
class _Workload:
    """An instance on all hosts that have it with the same settings."""

    name: str
    instance: Instance
    gpus: int
    hosts: list[str] = field(default_factory=list)


def manifests(nodes: Sequence[Node]) -> Manifests:
    """The objects for all instances of hosts; one that several hosts have alike is one Deployment.

    :raises UsageError: if there is none, or for settings that Kubernetes has nothing for.
    """
    workloads = _workloads(nodes)
    if not workloads:
        raise UsageError("none of the hosts has an instance of triton", hint="triton: {instances: …}")
    logins = {registry for node in nodes for registry in node.settings.registry_logins}
    objects: list[Mapping[str, Any]] = []
    secrets: dict[Secret, None] = {}
    if any(one.gpus for one in workloads.values()):
        objects.append(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": RUNTIME_CLASS},
                "handler": "nvidia",
            }
        )
    for name, one in workloads.items():
        registry = registry_of(one.instance.image)
        pull = Secret(kubernetes_name(f"registry-{registry}"), registry=registry)
        deployment, keys = _deployment(name, one, pull if registry in logins else None)
        objects += [deployment, _service(name, one.instance)]
        secrets |= dict.fromkeys([Secret(f"{name}-env", tuple(keys))] if keys else [])
        secrets |= dict.fromkeys([pull] if registry in logins else [])
    return Manifests(tuple(objects), tuple(secrets))


def kubernetes_name(text: str) -> str:
    """``text`` as a name of objects: a DNS label. One that is too long ends in a part of its checksum."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(label) <= LONGEST_NAME:
        return label
    return f"{label[: LONGEST_NAME - 7].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _workloads(nodes: Sequence[Node]) -> dict[str, _Workload]:
    """Workloads by the name of their objects."""
    variants: dict[str, dict[str, _Workload]] = {}
    for node in nodes:
        for name, instance in node.settings.servers.items():
            one = _Workload(name, instance, _gpus(node, name, instance))
            _refuse_ranks_without_gpus(node, one)
            found = variants.setdefault(name, {}).setdefault(_sameness(one), one)
            found.hosts.append(node.name)
    named: dict[str, _Workload] = {}
    for name, ways in variants.items():
        for one in ways.values():
            label = kubernetes_name(f"triton-{name}" + (f"-{one.hosts[0]}" if len(ways) > 1 else ""))
            if label in named:
                raise UsageError(
                    f"the instances {named[label].name} and {name} would both be {label} in Kubernetes",
                    hint="give one of them another name, or render them apart: --hosts PATTERN",
                )
            named[label] = one
    return named


def _sameness(one: _Workload) -> str:
    """What two hosts must have alike to share a Deployment: how many GPUs, but not which."""
    apart = {"address", "expect", "canary", "canaries", "ulimits", "gpus", "models"}
    kept = one.instance.model_dump(mode="json", exclude=apart)
    return json.dumps([kept, one.gpus, models_of(one.name, one.instance)])


def _gpus(node: Node, name: str, instance: Instance) -> int:
    """How many GPUs a Pod asks for; the scheduler, and not the inventory, chooses which they are."""
    if instance.gpus == "none":
        return 0
    if instance.gpus == "all":
        if node.gpus is None:
            raise UsageError(
                f"{node.name}: triton instance {name} has all GPUs, and Kubernetes must be told how many",
                hint="--gpus 8, or a variable of the host: gpu_count: 8",
            )
        return node.gpus
    if mig := [gpu for gpu in instance.gpus if str(gpu).startswith("MIG-")]:
        raise UsageError(
            f"{node.name}: triton instance {name} has {mig[0]}, and Kubernetes wants a profile of MIG",
            hint="leave the host out: --hosts 'PATTERN:!HOST', or give it whole GPUs",
        )
    return len(set(instance.gpus))


def _refuse_ranks_without_gpus(node: Node, one: _Workload) -> None:
    """Settings refuse a list of GPUs that is too short; of ``all`` nobody knew how many they are."""
    ranks = one.instance.world_size
    if ranks > 1 and one.gpus < ranks:
        raise UsageError(
            f"{node.name}: triton instance {one.name} has world_size {ranks}, a GPU for each rank, and its"
            f" Pod asks for {GPU}: {one.gpus}",
            hint=f"--gpus {ranks}, or a variable of the host: gpu_count: {ranks}",
        )


def _deployment(name: str, one: _Workload, pull: Secret | None) -> tuple[dict[str, Any], list[str]]:
    """The Deployment, and the keys that its Secret must have."""
    instance = one.instance
    labels = {"app.kubernetes.io/name": "triton", "app.kubernetes.io/instance": name}
    models = models_of(one.name, instance)
    volumes, places = volumes_of(
        one.name, models, instance.shm_size, instance.mounts, read_only=instance.read_only
    )
    container, keys = _container(name, one)
    pod: dict[str, Any] = {
        **({"runtimeClassName": RUNTIME_CLASS} if one.gpus else {}),
        # The models lie on these hosts, and the cluster may have others.
        "affinity": {"nodeAffinity": _on(one.hosts)},
        "topologySpreadConstraints": [_one_a_host(labels)],
        **({"tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]} if one.gpus else {}),
        # As process 1, tritonserver ignores SIGTERM while it loads.
        "shareProcessNamespace": True,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": launch.stop_timeout_of(instance),
        **({"imagePullSecrets": [{"name": pull.name}]} if pull else {}),
        **({"securityContext": _user(one)} if instance.user else {}),
        "containers": [{**container, "volumeMounts": places}],
        "volumes": volumes,
    }
    spec = {
        "replicas": len(one.hosts),
        "selector": {"matchLabels": labels},
        # A Pod more than there are hosts would wait for GPUs that the others hold.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "progressDeadlineSeconds": instance.ready_timeout + _PULL_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}}
    return {**head, "spec": spec}, keys


def _on(hosts: Sequence[str]) -> dict[str, Any]:
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(hosts)}
    terms = [{"matchExpressions": [term]}]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _one_a_host(labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }


def _user(one: _Workload) -> dict[str, int]:
    user, _, group = (one.instance.user or "").partition(":")
    ids = {"runAsUser": user, **({"runAsGroup": group} if group else {})}
    unknown = [name for name in ids.values() if not name.isdecimal() and name not in _USERS]
    if unknown:
        raise UsageError(
            f"triton instance {one.name}: user {unknown[0]!r} has a name, and Kubernetes takes numbers",
            hint="give its id: user: 1000:1000",
        )
    return {key: int(_USERS.get(name, name)) for key, name in ids.items()}


def _container(name: str, one: _Workload) -> tuple[dict[str, Any], list[str]]:
    """The container, and the keys of the Secret that it refers to."""
    instance = one.instance
    alone = instance.model_copy(update={"canary": False})
    args, hidden = _arguments(launch.server(one.name, alone, one.gpus))
    plain = {key: _literal(value) for key, value in instance.env.items() if STEERING.fullmatch(key)}
    keys = [*(key for key in instance.env if key not in plain), *hidden]
    if not one.gpus:
        plain[VISIBLE] = "void"  # else a node whose default runtime is NVIDIA's gives all of its GPUs
    env: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in plain.items()]
    env += [{"name": key, "valueFrom": {"secretKeyRef": {"name": f"{name}-env", "key": key}}} for key in keys]
    health = {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "timeoutSeconds": 5}
    live = {"httpGet": {"path": "/v2/health/live", "port": "http"}, "timeoutSeconds": 10}
    return {
        "name": "tritonserver",
        "image": instance.image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        **({"env": env} if env else {}),
        "ports": [{"name": port, "containerPort": PORTS_INSIDE[f"{port}_port"]} for port in _PORTS],
        # Requests of GPUs are what limits say: the API knows no others.
        **({"resources": {"limits": {GPU: one.gpus}}} if one.gpus else {}),
        **({"securityContext": found} if (found := _confinement(instance)) else {}),
        # Triton opens its ports when all models are loaded; until then there is nothing to be live.
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": -(-instance.ready_timeout // 10)},
        "readinessProbe": {**health, "periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**live, "periodSeconds": 10, "failureThreshold": 6},
    }, keys


def _confinement(instance: Instance) -> dict[str, Any]:
    found: dict[str, Any] = {"allowPrivilegeEscalation": False} if instance.no_new_privileges else {}
    if instance.capabilities is not None:
        found["capabilities"] = {"drop": ["ALL"], "add": instance.capabilities}
    return found | ({"readOnlyRootFilesystem": True} if instance.read_only else {})


_PORTS = ("http", "grpc", "metrics")


def _arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a container, and the environment variables that stand in those that may be secret."""
    found, hidden = [], []
    option = ""
    for number, word in enumerate(words):
        before, joined, _ = word.partition("=") if word.startswith("--") else ("", "", "")
        if without_secrets(word) != word or (not joined and option and is_secret([option])):
            name = re.sub(r"\W+", "_", (before or option).strip("-"), flags=re.ASCII).upper() or "ARGUMENT"
            hidden.append(f"{name}_{number}")
            found.append(f"{_literal(before)}{joined}$({hidden[-1]})")
        else:
            found.append(_literal(word))
        option = "" if joined else before
    return found, hidden


def _literal(text: str) -> str:
    """Text in which the kubelet expands no ``$(VARIABLE)``; it writes one dollar for two."""
    return text.replace("$", "$$")


def _service(name: str, instance: Instance) -> dict[str, Any]:
    """The Service, on the ports that a host publishes."""
    labels = {"app.kubernetes.io/name": "triton", "app.kubernetes.io/instance": name}
    ports = [
        {"name": port, "port": instance.ports[f"{port}_port"], "targetPort": port, "protocol": "TCP"}
        for port in _PORTS
    ]
    head = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels}}
    return {**head, "spec": {"selector": labels, "ports": ports}}
