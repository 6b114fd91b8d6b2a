"""The checks of Docker on a played host: a healthy one, and one with a single thing wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from provision.probe import Output
from provision.roles.docker.memory import MEMORY
from provision.verify.outcome import HostResult
from provision.verify.suite import Choice
from tests.unit.verify.healthy_driver import OWED_TO_DOCKER
from tests.unit.verify.healthy_triton import (
    DAMAGED,
    ENGINE,
    FLAGS,
    FORCE,
    INFO,
    JSON,
    PACKAGES,
    SIGHT,
    docker_info,
    docker_packages,
    document,
    serving,
    settings,
)
from tests.unit.verify.played_host import Answer, Played, There, Unit, look, said, verdicts

DOWN = Output(
    1,
    b'{"ID":""}',
    b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon",
)
STOPPED = {"docker.service": Unit(active="failed")}


def checked(played: Played, expression: str = "docker", **docker: Any) -> HostResult:
    return look(played, settings(docker), Choice(expression=expression))[0]


def broken(answers: Mapping[str, Answer] | None = None, **more: Any) -> Played:
    return serving(settings()).with_(answers, **more)


def messages(result: HostResult, verdict: str = "fail") -> dict[str, str]:
    return {check.name: check.message for check in verdicts(result, verdict).values()}


def test_healthy_engine_passes_every_check() -> None:
    result = checked(serving(settings()))
    assert [check for check in result.checks if check.verdict != "pass"] == []
    assert len(result.checks) == 14


def flags(text: str) -> Output:
    return said(
        f"== unit /etc/systemd/system/docker.service.d/x.conf\n[Service]\nExecStart=/usr/bin/dockerd {text}\n"
    )


def reloaded(**loaded: Any) -> Output:
    text = json.dumps(json.dumps(loaded)).strip('"')
    return said(f"command /usr/sbin/dockerd -H fd://\nyounger\nreloaded {text}\n")


BASE, ENGINE_CHECK = "engine answers", "engine is the one of the settings"
DEFAULT, RUNTIME, ON_DISK = (
    "default runtime is loaded",
    "nvidia runtime is there",
    "daemon json is as declared",
)
LOADED = "loaded configuration is the one on disk"
OWN, FILES = "packages are those of the settings", "files of its packages are as they came"

MEMORY_OF_BIP = {
    "schema": 1,
    "daemon.json": "",
    "settings": [{"path": ["bip"], "ours": "172.31.9.1/24"}],
}

FAULTS: dict[str, tuple[Played, str, str]] = {
    "a restart is owed": (
        broken({OWED_TO_DOCKER: said("restart-docker.service\n")}),
        "no run ended early",
        "an earlier run ended before it could restart docker.service",
    ),
    "a key of ours that is no longer declared": (
        broken(files={JSON: document(bip="172.31.9.1/24"), MEMORY: There(json.dumps(MEMORY_OF_BIP))}),
        "daemon json has no key of an earlier run",
        "an earlier run set bip in /etc/docker/daemon.json, and the settings name it no longer",
    ),
    "a memory of our keys that nobody can read": (
        broken(files={MEMORY: There("{")}),
        "daemon json has no key of an earlier run",
        f"{MEMORY} is not as it was written",
    ),
    "dockerd is down": (broken({INFO: DOWN}), BASE, "dockerd does not answer: dockerd is not running"),
    "dockerd hangs": (broken({INFO: said(code=124)}), BASE, "did not answer in time"),
    "unit failed": (broken(units=STOPPED), BASE, r"dockerd is not running: docker\.service is failed"),
    "unit failed as daemon.json is none": (
        broken(units=STOPPED, files={JSON: There("{")}),
        BASE,
        r"/etc/docker/daemon\.json:1: not JSON",
    ),
    "unit failed as a key is a flag, too": (
        broken({FLAGS: flags("--default-runtime=runc")}, units=STOPPED),
        BASE,
        "starts dockerd with --default-runtime",
    ),
    "unit failed as its program is gone": (
        broken({DAMAGED: said("missing /usr/sbin/dockerd\n")}, units=STOPPED),
        BASE,
        "/usr/sbin/dockerd is missing",
    ),
    "no engine": (broken({ENGINE: said()}), BASE, "there is no Docker Engine on the host"),
    "docker as a snap": (broken({ENGINE: said("snap /snap/docker/current\n")}), BASE, "installed as a snap"),
    "podman": (broken({ENGINE: said("podman /usr/bin/docker\n")}), BASE, "is podman under another name"),
    "rootless": (broken({ENGINE: said("running /run/user/1000/docker\n")}), BASE, "rootless here"),
    "another context": (
        broken({ENGINE: said('dockerd /usr/sbin/dockerd\n"currentContext": "far"\n')}),
        BASE,
        "go to the context 'far'",
    ),
    "containerd is stopped": (
        broken(units={"containerd.service": Unit("inactive", properties={"LoadState": "loaded"})}),
        BASE,
        r"^containerd\.service is inactive, through which Docker reaches its containers$",
    ),
    "another engine": (
        broken({ENGINE: said("running /run/docker\ndockerd /usr/bin/dockerd\npackage docker-ce\n")}),
        ENGINE_CHECK,
        r"docker-ce is installed here, and the settings want docker\.io",
    ),
    "not at boot": (
        broken(units={"docker.service": Unit(enabled="disabled")}),
        "engine starts at boot",
        r"docker\.service is disabled",
    ),
    "runc is loaded": (
        broken({INFO: docker_info(DefaultRuntime="runc")}),
        DEFAULT,
        r"with runc by default, not with nvidia; daemon\.json says nvidia",
    ),
    "runc is loaded and on disk": (
        broken({INFO: docker_info(DefaultRuntime="runc")}, files={JSON: document(default_runtime="runc")}),
        DEFAULT,
        "with runc by default, not with nvidia$",
    ),
    "runtime not registered": (
        broken({INFO: docker_info(Runtimes={"runc": {}})}),
        RUNTIME,
        "dockerd knows no runtime nvidia, only runc",
    ),
    "runtime not installed": (
        broken({"^command -v nvidia-container-runtime$": said(code=127)}),
        RUNTIME,
        "nvidia-container-runtime is not installed, so that no container starts",
    ),
    "daemon.json is empty": (broken(files={JSON: There("")}), ON_DISK, r"daemon\.json lacks default-runtime"),
    "daemon.json is blank behind a mark": (
        broken(files={JSON: There("\ufeff \n")}),
        ON_DISK,
        r"daemon\.json lacks default-runtime",
    ),
    "daemon.json is gone": (broken(files={JSON: None}), ON_DISK, r"/etc/docker/daemon\.json is not there"),
    "a key is gone": (broken(files={JSON: document(runtimes=None)}), ON_DISK, r"daemon\.json lacks runtimes"),
    "another path of the runtime": (
        broken(files={JSON: document(runtimes={"nvidia": {"path": "/opt/x"}})}),
        ON_DISK,
        r"another runtimes\.nvidia\.path than is declared",
    ),
    "writable for others": (
        broken(files={JSON: There(str(document().text), mode=0o666)}),
        "only root can change daemon json",
        "has mode 0666",
    ),
    "of another user": (
        broken(files={JSON: There(str(document().text), user="bob")}),
        "only root can change daemon json",
        "belongs to bob",
    ),
    "not restarted since": (
        broken(files={JSON: document(log_driver="journald")}),
        LOADED,
        r"with log-driver 'json-file', and daemon\.json says 'journald'",
    ),
    "a registry that was not read": (
        broken({FORCE: reloaded(debug=False)}, files={JSON: document(insecure_registries=["a:1"])}),
        LOADED,
        r"runs without insecure=a:1, which daemon\.json has",
    ),
    "another configuration file": (
        broken({FORCE: said("command /usr/sbin/dockerd -H fd:// --config-file=/etc/other.json\n")}),
        LOADED,
        r"was started with /etc/other\.json in the place of",
    ),
    "reloaded where a restart is needed": (
        broken({FORCE: reloaded(bip="172.17.0.1/16")}, files={JSON: document(bip="172.31.0.1/24")}),
        LOADED,
        "another bip than daemon.json says",
    ),
    "package is gone": (broken({PACKAGES: said()}), OWN, r"not installed: docker\.io, tini"),
    "package is half there": (
        broken({PACKAGES: docker_packages(state="half-configured")}),
        OWN,
        r"docker\.io is half-configured",
    ),
    "a file is gone": (
        broken({DAMAGED: said("missing /usr/bin/docker-init\n")}),
        FILES,
        "/usr/bin/docker-init is missing",
    ),
    "a container lost its gpus": (
        broken({SIGHT: said("0a0a lost no /legacy image:1\n0b0b kept yes /triton-llm image:1\n")}),
        "running containers keep their gpus",
        r"no longer sees its GPUs: container legacy \(image:1\)$",
    ),
}


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        (
            ["/a i:1 main"],
            "on the host: systemctl restart triton@main.service; with injection: runtime they keep",
        ),
        (["/a i:1"], "re-create it, with --runtime=nvidia; keep mode = auto"),
        (["/a i:1 $(x) y"], "re-create it, with --runtime=nvidia; keep mode = auto"),
        (
            ["/a i:1 main", "/b i:1"],
            "on the host: systemctl restart triton@main.service; with injection: runtime they keep their"
            " GPUs; re-create what is of no unit, with --runtime=nvidia",
        ),
    ],
)
def test_an_instance_that_lost_its_gpus_is_restarted_by_its_unit(rows: list[str], hint: str) -> None:
    found = checked(broken({SIGHT: said("".join(f"0a{n} lost no {row}\n" for n, row in enumerate(rows)))}))
    (check,) = verdicts(found, "fail").values()
    assert str(check.hint).startswith(hint)


@pytest.mark.campaign("checks", sample=10)
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_told_once_with_its_cause(name: str) -> None:
    played, check, words = FAULTS[name]
    result = checked(played)
    failures = messages(result)
    assert list(failures) == [check]
    assert re.search(words, failures[check]), failures[check]
    assert all(found.hint for found in verdicts(result, "fail").values())
    assert messages(result, "warn") == {}


def test_a_fault_of_the_engine_is_told_where_only_triton_is_looked_at() -> None:
    result = checked(broken({INFO: DOWN}), "triton")
    assert list(messages(result).values()) == ["dockerd does not answer: dockerd is not running"]


WARNINGS: dict[str, tuple[Played, str, str]] = {
    "a container that will lose its gpus": (
        broken({SIGHT: said("0a0a lost yes /legacy image:1\n")}),
        "running containers keep their gpus",
        r"loses its GPUs when systemd reloads its units: container legacy \(image:1\)$",
    ),
    "a drop-in that is not loaded": (
        broken(units={"docker.service": Unit(properties={"NeedDaemonReload": "yes"})}),
        "unit is loaded as it is",
        r"has not loaded the files of docker\.service",
    ),
    "a reload that cannot be read": (
        broken(
            {FORCE: said('command dockerd\nyounger\nreloaded {\\x1b"\n')},
            files={JSON: document(dns=["192.0.2.1"])},
        ),
        LOADED,
        "its journal has no reload since",
    ),
    "written and not read": (
        broken({FORCE: said("command dockerd\nyounger\n")}, files={JSON: document(dns=["192.0.2.1"])}),
        LOADED,
        "its journal has no reload since",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_concern_is_a_warning(name: str) -> None:
    played, check, words = WARNINGS[name]
    result = checked(played)
    assert messages(result) == {}
    assert list(messages(result, "warn")) == [check]
    assert re.search(words, messages(result, "warn")[check])


@pytest.mark.parametrize(
    ("answers", "files"),
    [
        ({FORCE: reloaded(bip="172.31.0.1/24")}, {JSON: document(bip="172.31.0.1/24")}),
        ({FORCE: said("command dockerd\nyounger\n")}, {JSON: document(log_level="warn")}),
        ({FORCE: reloaded(ipv6=True)}, {JSON: document(ipv6=True, userland_proxy=False, dns=["192.0.2.1"])}),
        ({}, {JSON: document(bip="172.31.0.1/24", debug=False)}),
    ],
)
def test_what_is_in_force_is_no_finding(answers: dict[str, Answer], files: dict[str, There]) -> None:
    result = checked(broken(answers, files=files))
    assert messages(result) | messages(result, "warn") == {}


@pytest.mark.parametrize(
    ("docker", "words"),
    [
        (
            {"packages": {"docker.io": "26.1.*"}},
            r"docker\.io 20\.10\.24 is installed and 26\.1\.\* is requested",
        ),
        ({"hold": True}, r"may move docker\.io, tini: not held"),
    ],
)
def test_packages_of_the_settings(docker: dict[str, Any], words: str) -> None:
    assert re.search(words, messages(checked(serving(settings()), **docker))[OWN])


def test_an_engine_that_is_left_alone_may_be_any() -> None:
    here = "running /run/docker\ndockerd /usr/bin/dockerd\npackage moby-engine 27.1 installed\n"
    result = checked(broken({ENGINE: said(here)}), source="none")
    assert messages(result) == {}
    assert set(messages(result, "skip")) == {OWN, FILES}
