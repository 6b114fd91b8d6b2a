"""Docker: the engine answers, and has loaded the runtimes that its containers are to get."""

from __future__ import annotations

import json
from typing import Any

from provision.command import Probe
from provision.roles.docker import DockerSettings
from provision.verify import Evidence, fail, skip
from provision.verify.causes import cause
from provision.verify.docker import INFO, loaded

ROLE = "docker"


def probes(settings: DockerSettings) -> list[Probe]:
    """What the running engine has loaded; files on disk may say something else."""
    return [
        INFO,
        Probe("docker unit", "systemctl is-active docker.service; systemctl is-enabled docker.service"),
        Probe("nvidia runtime", "command -v nvidia-container-runtime"),
        Probe("daemon.json", "cat /etc/docker/daemon.json"),
    ]


def info(evidence: Evidence) -> dict[str, Any]:
    """What the engine says of itself; without an answer, the check is skipped, as another one fails."""
    found = loaded(evidence)
    if found is None:
        skip("dockerd does not answer")
    return found


def test_engine_answers(evidence: Evidence) -> None:
    if loaded(evidence) is None:
        why, hint = cause(evidence[INFO.name])
        fail(f"dockerd does not answer: {why}", hint or "on the host: journalctl -u docker.service -n 50")


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


def on_disk(evidence: Evidence) -> str | None:
    """The default runtime in daemon.json, or None if it names none or cannot be read."""
    try:
        document = json.loads(evidence["daemon.json"].out)
        return str(document["default-runtime"])
    except (ValueError, LookupError, TypeError):
        return None
