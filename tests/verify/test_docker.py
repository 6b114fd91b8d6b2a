"""Docker: the engine answers, and has loaded the runtimes that its containers are to get."""

from __future__ import annotations

import json
from typing import Any

from provision.causes.known_messages import cause
from provision.errors import Refusal
from provision.probe import Probe
from provision.resource import Planned
from provision.resources.gpus_in_containers import SIGHT, seen
from provision.roles.docker.containers import INFO, loaded
from provision.roles.docker.engine import QUESTION
from provision.roles.docker.role import DockerSettings, daemon_of, engine_of
from provision.roles.docker.text import DAEMON_JSON
from provision.verify import Evidence, fail, skip, warn

ROLE = "docker"


def probes(settings: DockerSettings) -> list[Probe]:
    """What the running engine has loaded; files on disk may say something else."""
    return [
        INFO,
        Probe("docker unit", "systemctl is-active docker.service; systemctl is-enabled docker.service"),
        Probe("nvidia runtime", "command -v nvidia-container-runtime"),
        Probe("daemon.json", f"cat {DAEMON_JSON}"),
        QUESTION,
        SIGHT,
    ]


def info(evidence: Evidence) -> dict[str, Any]:
    """What the engine says of itself; without an answer, the check is skipped, as another one fails."""
    found = loaded(evidence[INFO.name])
    if found is None:
        skip("dockerd does not answer")
    return found


def test_engine_answers(evidence: Evidence) -> None:
    if loaded(evidence[INFO.name]) is None:
        why, hint = cause(evidence[INFO.name])
        fail(f"dockerd does not answer: {why}", hint or "on the host: journalctl -u docker.service -n 50")


def test_engine_is_the_one_of_the_settings(evidence: Evidence, settings: DockerSettings) -> None:
    """No snap, no rootless engine, no podman in its place, and no other engine than the declared one."""
    try:
        engine = engine_of(settings, evidence.facts)
        engine.change(engine.read(evidence[QUESTION.name]), Planned())
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)


def test_engine_starts_at_boot(evidence: Evidence) -> None:
    active, enabled, *_ = [*evidence["docker unit"].out.split(), "unknown", "unknown"]
    if active != "active" or enabled not in ("enabled", "alias", "static", "indirect"):
        fail(
            f"docker.service is {active} and {enabled}",
            "on the host: systemctl enable --now docker.service; journalctl -u docker.service -n 50",
        )


def test_default_runtime_is_loaded(evidence: Evidence, settings: DockerSettings) -> None:
    found = info(evidence).get("DefaultRuntime")
    if found != settings.default_runtime:
        fail(
            f"dockerd runs containers with {found} by default, not with {settings.default_runtime}"
            + ("" if found == on_disk(evidence) else f"; daemon.json says {on_disk(evidence) or 'nothing'}"),
            "inv provision --hosts HOST --roles docker"
            if on_disk(evidence) != settings.default_runtime
            else "on the host: systemctl reload docker.service",
        )


def test_nvidia_runtime_is_registered(evidence: Evidence) -> None:
    runtimes = info(evidence).get("Runtimes") or {}
    if "nvidia" not in runtimes:
        fail(
            f"dockerd knows no runtime nvidia, only {', '.join(sorted(runtimes)) or 'none'}",
            "inv provision --hosts HOST --roles docker",
        )


def test_nvidia_runtime_is_installed(evidence: Evidence) -> None:
    if not evidence["nvidia runtime"].ok:
        fail(
            "nvidia-container-runtime is not installed, so that no container starts with the runtime nvidia",
            "inv provision --hosts HOST --roles toolkit",
        )


def test_loaded_configuration_is_the_one_on_disk(evidence: Evidence, settings: DockerSettings) -> None:
    """Keys that need a restart can stand in daemon.json for long before one comes."""
    found, document = info(evidence), daemon_json(evidence)
    for key, name in TOLD.items():
        if key in document and key != "default-runtime" and found.get(name) != document[key]:
            fail(
                f"dockerd runs with {key} {found.get(name)!r}, and daemon.json says {document[key]!r}",
                "on the host: systemctl restart docker.service, which stops containers without live-restore",
            )
    missing = [key for key in daemon_of(settings).declared if key not in document]
    if missing:
        fail(f"daemon.json lacks {', '.join(missing)}", "inv provision --hosts HOST --roles docker")


def test_running_containers_keep_their_gpus(evidence: Evidence) -> None:
    """Those of the legacy hook lose them at the next daemon-reload, which any package may bring."""
    containers = seen(evidence[SIGHT.name])
    if blind := [str(container) for container in containers if container.blind]:
        fail(f"no longer sees its GPUs: {', '.join(blind)}", "re-create it, with --runtime=nvidia")
    if fragile := [str(container) for container in containers if container.fragile]:
        warn(
            f"loses its GPUs when systemd reloads its units: {', '.join(fragile)}",
            "re-create it with --runtime=nvidia, which does not use the legacy hook",
        )


TOLD = {
    "debug": "Debug",
    "default-runtime": "DefaultRuntime",
    "live-restore": "LiveRestoreEnabled",
    "log-driver": "LoggingDriver",
}
"""Keys of daemon.json whose values ``docker info`` tells as they are written, and by which names."""


def daemon_json(evidence: Evidence) -> dict[str, Any]:
    """The document on disk; empty if it cannot be read."""
    try:
        document = json.loads(evidence["daemon.json"].out)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def on_disk(evidence: Evidence) -> str | None:
    """The default runtime in daemon.json, or None if it names none or cannot be read."""
    name = daemon_json(evidence).get("default-runtime")
    return None if name is None else str(name)
