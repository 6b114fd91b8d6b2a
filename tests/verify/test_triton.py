"""Triton: containers of its image see the GPUs, and every instance serves its models on its GPUs."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any

from provision.causes.known_messages import cause, cause_inside
from provision.facts import Facts
from provision.gpu.nvidia_smi import GPUS, Card, cards, selected, uuids
from provision.gpu.triton_releases import has_known_rce, release_of, server_version
from provision.probe import Output, Probe, words
from provision.roles.docker.containers import INFO, loaded, none_run, plain_run, steps
from provision.roles.triton import http
from provision.roles.triton.listening import SOCKETS, listening
from provision.roles.triton.role import CANARY_MODEL, Instance, TritonSettings, container_of, unit_of
from provision.run.host import Target
from provision.verify import Evidence, fail, skip, warn

ROLE = "triton"

SHELL = "triton/verify.sh"
YOUNG = 120.0
"""A unit that restarted within so many seconds may be about to do so again."""


def probes(settings: TritonSettings) -> Iterator[Probe]:
    """What all instances share, each image once, and each instance."""
    if not settings.servers:
        return
    yield GPUS
    yield INFO
    for name, instance in settings.servers.items():
        yield from instance_probes(name, instance)
    yield SOCKETS
    for image in dict.fromkeys(instance.image for instance in settings.servers.values()):
        yield plain_run(image)
        yield none_run(image)


def instance_probes(name: str, instance: Instance) -> Iterator[Probe]:
    """Unit, container, and the HTTP API of one instance."""
    container, address, port = container_of(name), instance.address, instance.http_port
    yield Probe(f"{name} unit", words("unit_since", unit_of(name)), (SHELL,))
    yield Probe(
        f"{name} ports",
        f"timeout 30 docker inspect --format '{{{{json .NetworkSettings.Ports}}}}' {container}",
    )
    yield Probe(f"{name} gpus", f"timeout -k 5 60 docker exec {container} nvidia-smi -L")
    yield http.probe(f"{name} ready", address, port, "/v2/health/ready")
    yield http.probe(f"{name} server", address, port, "/v2")
    yield http.probe(f"{name} index", address, port, "/v2/repository/index", {})
    if instance.canary:
        yield http.probe(f"{name} inference", address, port, http.CANARY_PATH, http.canary_request())
    if instance.gpus != "none":
        yield metrics_probe(f"{name} metrics", instance)


def metrics_probe(name: str, instance: Instance) -> Probe:
    """The metrics, asked again while there are GPUs in them whose memory still reads 0."""
    asked = http.request(instance.address, instance.metrics_port, "/metrics")
    return Probe(name, words("risen_metrics", *asked), (SHELL,))


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────


def plain_step(evidence: Evidence, instance: Instance, target: Target, facts: Facts, name: str) -> Output:
    """A step in a container started without ``--gpus``; skipped where it is to find nothing."""
    if instance.gpus == "none":
        skip("this instance uses no GPU")
    if not facts.gpus:
        skip("no NVIDIA GPU is on the PCI bus")
    runtime = wanted_runtime(target) or (loaded(evidence[INFO.name]) or {}).get("DefaultRuntime")
    if runtime != "nvidia":
        skip(f"the default runtime is {runtime}, so that only containers started with --gpus get any")
    answer = evidence[plain_run(instance.image).name]
    found = steps(answer)
    if not found:
        why, hint = cause(answer)
        fail(f"docker run --rm {instance.image} does not start a container: {why}", hint)
    if name not in found:
        why, hint = cause(answer)
        fail(f"docker run --rm {instance.image} ended before its step {name}: {why}", hint or "dmesg | tail")
    return found[name]


def wanted_runtime(target: Target) -> str | None:
    """The default runtime in the settings of the role docker, if the host has that role."""
    found = (settings for role, settings in target.settings.items() if role.name == "docker")
    return getattr(next(found, None), "default_runtime", None)


def test_plain_container_has_nvml(
    evidence: Evidence, instance: Instance, target: Target, facts: Facts
) -> None:
    step = plain_step(evidence, instance, target, facts, "nvml")
    if step.exit_code == 127:
        skip("the image has no python3")
    if not step.ok:
        why, hint = cause(step)
        fail(f"NVML does not start in docker run --rm {instance.image}: {why}", hint)


def test_plain_container_imports_tensorrt_llm(
    evidence: Evidence, instance: Instance, target: Target, facts: Facts
) -> None:
    if "trtllm" not in instance.image:
        skip("the image is not a TensorRT-LLM one")
    step = plain_step(evidence, instance, target, facts, "tensorrt_llm")
    if not step.ok:
        why, hint = cause(step)
        fail(f"import tensorrt_llm fails in docker run --rm {instance.image}: {why}", hint)


def test_plain_container_sees_all_gpus(
    evidence: Evidence, instance: Instance, target: Target, facts: Facts
) -> None:
    step = plain_step(evidence, instance, target, facts, "gpus")
    there = [card.uuid for card in host_cards(evidence)]
    found = uuids(step.out)
    if not found:
        why, hint = cause_inside(step)
        fail(f"docker run --rm {instance.image} nvidia-smi -L shows no GPU: {why}", hint)
    if set(found) != set(there):
        fail(
            f"a container sees {len(found)} of the {len(there)} GPUs of the host",
            "look for NVIDIA_VISIBLE_DEVICES in the image: docker image inspect",
        )


def test_container_with_none_sees_no_gpu(
    evidence: Evidence, instance: Instance, target: Target, facts: Facts
) -> None:
    plain_step(evidence, instance, target, facts, "gpus")
    answer = evidence[none_run(instance.image).name]
    if not answer.ok:
        why, hint = cause(answer)
        fail(f"docker run --env=NVIDIA_VISIBLE_DEVICES=none {instance.image} does not start: {why}", hint)
    if uuids(answer.out) or "device node" in answer.out:
        fail(
            "a container with NVIDIA_VISIBLE_DEVICES=none sees GPUs",
            "look for NVIDIA_VISIBLE_DEVICES and mode in /etc/nvidia-container-runtime/config.toml",
        )


def test_image_is_safe_where_it_is_reachable(instance: Instance) -> None:
    if has_known_rce(instance.image) and not ipaddress.ip_address(instance.address).is_loopback:
        warn(
            f"release {release_of(instance.image)} lets anybody run code who reaches "
            f"{instance.address}:{instance.http_port} (CVE-2025-23319)",
            "take release 25.07 or later, or publish on 127.0.0.1 behind a proxy that authenticates",
        )


# ── the unit ─────────────────────────────────────────────────────────────────────────────────────────────


def unit(evidence: Evidence, name: str) -> dict[str, str]:
    """Properties of the instance's unit."""
    lines = evidence[f"{name} unit"].out.splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def running(evidence: Evidence, name: str) -> dict[str, str]:
    """Properties of the unit; skipped if it does not run, which is a failure of its own."""
    found = unit(evidence, name)
    if found.get("ActiveState") != "active":
        skip(f"{unit_of(name)} is {found.get('ActiveState') or 'unknown'}")
    return found


def test_unit_is_active(evidence: Evidence, instance_name: str) -> None:
    found = unit(evidence, instance_name)
    state = found.get("ActiveState") or "unknown"
    if state != "active":
        why = f" ({found['Result']})" if found.get("Result", "success") != "success" else ""
        fail(
            f"{unit_of(instance_name)} is {state}{why}",
            f"on the host: journalctl -u {unit_of(instance_name)} -n 50",
        )


def test_unit_starts_at_boot(evidence: Evidence, instance_name: str) -> None:
    enabled = unit(evidence, instance_name).get("Enabled") or "unknown"
    if enabled != "enabled":
        fail(
            f"{unit_of(instance_name)} is {enabled}",
            f"on the host: systemctl enable {unit_of(instance_name)}",
        )


def test_unit_does_not_restart(evidence: Evidence, instance_name: str) -> None:
    found = running(evidence, instance_name)
    restarts = int(found.get("NRestarts") or 0)
    age = running_for(found)
    if restarts and age is not None and age < YOUNG:
        fail(
            f"{unit_of(instance_name)} was restarted {restarts}×, the last time {age:.0f} s ago",
            f"on the host: journalctl -u {unit_of(instance_name)} -n 100",
        )


def running_for(found: dict[str, str]) -> float | None:
    """Seconds since the unit's process was started, or None if that is not known."""
    try:
        return float(found["Uptime"].split()[0]) - int(found["ExecMainStartTimestampMonotonic"]) / 1e6
    except (LookupError, ValueError):
        return None


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────


def ask(evidence: Evidence, name: str, what: str) -> http.Answer:
    """The answer of the server; without one, the check fails."""
    running(evidence, name)
    answer = http.parse(evidence[f"{name} {what}"])
    if answer.status != 200:
        said = answer.text[:300] or f"status {answer.status}"
        fail(f"{what}: the server says: {said}", f"on the host: journalctl -u {unit_of(name)} -n 50")
    return answer


def parsed(answer: http.Answer) -> Any:
    """The JSON of an answer; if it is none, the check fails."""
    try:
        return answer.json()
    except ValueError:
        fail(f"what listens on the port does not speak as Triton does: {answer.text[:100]}")


def test_server_is_ready(evidence: Evidence, instance_name: str) -> None:
    ask(evidence, instance_name, "ready")


def test_server_is_of_the_version_of_its_tag(
    evidence: Evidence, instance_name: str, instance: Instance
) -> None:
    wanted = server_version(instance.image)
    if wanted is None:
        skip(f"the version behind {instance.image} is not known")
    found = parsed(ask(evidence, instance_name, "server"))
    version = found.get("version") if isinstance(found, dict) else None
    if version != wanted:
        fail(
            f"the server is version {version}, and {instance.image} holds {wanted}",
            "another server has the port, or the tag was pushed anew: docker image inspect",
        )


def test_models_are_ready(evidence: Evidence, instance_name: str, instance: Instance) -> None:
    wanted = [*instance.expect, *([CANARY_MODEL] if instance.canary else [])]
    if not wanted:
        skip("no model is expected: neither expect nor canary is set")
    index = parsed(ask(evidence, instance_name, "index"))
    rows = [row for row in index if isinstance(row, dict)] if isinstance(index, list) else []
    ready = {row.get("name") for row in rows if row.get("state") == "READY"}
    reasons = {row.get("name"): row.get("reason") or row.get("state") for row in rows}
    if missing := [name for name in wanted if name not in ready]:
        fail(
            "; ".join(
                f"model {name} is not ready: {reasons.get(name, 'not in the repository')}" for name in missing
            ),
            f"look at the model repository and at the server's log: journalctl -u {unit_of(instance_name)}",
        )


def test_canary_answers_from_the_assigned_gpus(
    evidence: Evidence, instance_name: str, instance: Instance
) -> None:
    if not instance.canary:
        skip("canary is false")
    answer = ask(evidence, instance_name, "inference")
    try:
        found = http.outputs(answer)
    except ValueError as error:
        fail(str(error))
    if found.get("TEXT") != [http.CANARY_TEXT]:
        fail(f"the canary was asked {http.CANARY_TEXT!r} and answers {found.get('TEXT')}", "restart the unit")
    same_gpus(evidence, instance, [str(uuid) for uuid in found.get("GPUS", [])], "the server's process")


def test_container_sees_the_assigned_gpus(evidence: Evidence, instance_name: str, instance: Instance) -> None:
    running(evidence, instance_name)
    answer = evidence[f"{instance_name} gpus"]
    found = uuids(answer.out)
    if not found and instance.gpus != "none":
        why, hint = cause_inside(answer)
        fail(f"nvidia-smi in {container_of(instance_name)} shows no GPU: {why}", hint)
    same_gpus(evidence, instance, found, container_of(instance_name))


def same_gpus(evidence: Evidence, instance: Instance, found: list[str], where: str) -> None:
    """Fail unless exactly the GPUs of the settings are seen."""
    if isinstance(instance.gpus, list) and any(str(name).startswith("MIG-") for name in instance.gpus):
        skip("MIG devices are assigned, and are not compared")
    there = host_cards(evidence) if instance.gpus != "none" else []
    wanted, unknown = selected(instance.gpus, there)
    if unknown:
        fail(f"GPU {', '.join(unknown)} of the settings is not on this host", "compare with nvidia-smi -L")
    if missing := sorted(set(wanted) - set(found)):
        fail(
            f"{where} sees {len(found)} GPUs and not {', '.join(missing)}",
            "restart the unit; keep mode = auto in /etc/nvidia-container-runtime/config.toml",
        )
    if more := sorted(set(found) - set(wanted)):
        fail(
            f"{where} sees {', '.join(more)}, which is not assigned to it",
            "look at env: and mounts: of the instance",
        )


def host_cards(evidence: Evidence) -> list[Card]:
    """The GPUs of the host; without any, the check fails."""
    found = cards(evidence[GPUS.name])
    if not found:
        why, hint = cause(evidence[GPUS.name])
        fail(f"nvidia-smi shows no GPU on the host: {why}", hint)
    return found


def test_metrics_show_the_assigned_gpus(evidence: Evidence, instance_name: str, instance: Instance) -> None:
    if instance.gpus == "none":
        skip("this instance uses no GPU")
    if any(re.match(r"--allow-(gpu-)?metrics=(false|0)$", arg, re.IGNORECASE) for arg in instance.args):
        skip("GPU metrics are turned off in args")
    text = ask(evidence, instance_name, "metrics").text
    found = dict(re.findall(r'^nv_gpu_memory_total_bytes\{gpu_uuid="([^"]+)"\} (\S+)$', text, re.MULTILINE))
    if not found:
        warn(
            "the server reports no GPU metrics: its CUDA sees no GPU, or DCGM does not work in its container",
            f"on the host: journalctl -u {unit_of(instance_name)} | grep -i -e cuda -e dcgm",
        )
    if zero := [uuid for uuid, value in found.items() if float(value) == 0]:
        fail(f"the server reports no memory for {', '.join(zero)}", "nvidia-smi -q -i UUID; restart the unit")
    same_gpus(evidence, instance, list(found), "the server's metrics")


def test_ports_are_on_the_configured_address_only(
    evidence: Evidence, instance_name: str, instance: Instance
) -> None:
    running(evidence, instance_name)
    wanted = ipaddress.ip_address(instance.address)
    if wanted.is_unspecified:
        skip(f"published on {instance.address}, which is every address")
    places = [*published(evidence, instance_name), *listening(evidence[SOCKETS.name])]
    ports = set(instance.ports.values())
    wrong = {f"{address}:{port}" for address, port in places if port in ports and address != wanted}
    if wrong:
        fail(
            f"reachable on {', '.join(sorted(wrong))} and not on {instance.address} alone",
            "inv provision --hosts HOST --roles triton; Triton has no authentication",
        )


def published(
    evidence: Evidence, name: str
) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """Address and port of everything that Docker publishes of the container; fails without an answer."""
    answer = evidence[f"{name} ports"]
    try:
        found = json.loads(answer.out) or {}
    except ValueError:
        why, hint = cause(answer)
        fail(f"docker does not know {container_of(name)}: {why}", hint)
    places = [place for bindings in found.values() for place in bindings or ()]
    return [(ipaddress.ip_address(place["HostIp"] or "0.0.0.0"), int(place["HostPort"])) for place in places]
