"""Docker: the engine answers, and has loaded the runtimes that its containers are to get."""

from __future__ import annotations

import re
from typing import Any

import pytest
from testinfra.host import Host

from provision.errors import Refusal
from provision.facts import Facts
from provision.resources.packages.installed import require
from provision.resources.packages.sets import Package
from provision.roles.docker.daemon import declared_words, told_words
from provision.roles.docker.daemon_options import RELOADABLE
from provision.roles.docker.engine import refuse_other_engines
from provision.roles.docker.role import ALONG, DockerSettings, daemon_of, engine_of, packages_of, resources
from provision.roles.docker.testinfra import AGAIN, PACKAGES
from provision.roles.docker.text import DAEMON_JSON
from provision.verify import fail, skip, warn
from provision.verify.written import require_settled

ROLE = "docker"

TOLD = {
    "debug": "Debug",
    "default-runtime": "DefaultRuntime",
    "live-restore": "LiveRestoreEnabled",
    "log-driver": "LoggingDriver",
}
"""Keys of daemon.json whose values ``docker info`` tells as they are written, and by which names."""

READ_ALONG = frozenset({"insecure-registries", "registry-mirrors", "runtimes"})
"""Further keys of which it tells enough to see whether they were read."""

REWRITTEN = frozenset({"data-root", "http-proxy", "https-proxy"})
"""Keys that dockerd tells otherwise than they are written: links are followed, passwords are hidden."""

RELOAD = "on the host: systemctl reload docker.service"
RESTART = "on the host: systemctl restart docker.service, which stops containers without live-restore"


def test_engine_answers(host: Host) -> None:
    assert host.docker_engine.info
    host.docker_engine.require_containerd()


def test_engine_is_the_one_of_the_settings(host: Host, settings: DockerSettings, facts: Facts) -> None:
    """No snap, no rootless engine, no podman in its place, and no other engine than the declared one."""
    try:
        refuse_other_engines(host.docker_engine.here, engine_of(settings, facts).declared)
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)


@pytest.mark.hint("on the host: systemctl unmask docker.service; systemctl enable docker.service")
def test_engine_starts_at_boot(host: Host) -> None:
    state = host.docker_engine.unit.get("UnitFileState")
    assert state in ("enabled", "alias", "static", "indirect"), f"docker.service is {state}"


@pytest.mark.hint("on the host: systemctl daemon-reload; what it changes comes with the next restart")
def test_unit_is_loaded_as_it_is(host: Host) -> None:
    if host.docker_engine.unit.get("NeedDaemonReload") == "yes":
        warn("systemd has not loaded the files of docker.service as they are now")


def test_default_runtime_is_loaded(host: Host, settings: DockerSettings) -> None:
    host.docker_engine.require_default_runtime(settings.default_runtime)


def test_nvidia_runtime_is_there(host: Host, settings: DockerSettings, facts: Facts) -> None:
    if "nvidia" not in (daemon_of(settings, facts).declared.get("runtimes") or {}):
        skip("docker.default_runtime is runc, and the host has no GPU")
    host.docker_engine.require_runtime("nvidia")


def test_daemon_json_is_as_declared(host: Host, settings: DockerSettings, facts: Facts) -> None:
    host.docker_engine.require_on_disk(daemon_of(settings, facts).declared)


def test_daemon_json_has_no_key_of_an_earlier_run(host: Host, settings: DockerSettings, facts: Facts) -> None:
    host.docker_engine.require_no_leftovers(daemon_of(settings, facts))


def test_no_run_ended_early(host: Host, settings: DockerSettings, facts: Facts) -> None:
    try:
        declared = resources(settings, facts)
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)
    require_settled(host, declared)


@pytest.mark.hint(f"on the host: chown root:root {DAEMON_JSON}; chmod 0644 {DAEMON_JSON}")
def test_only_root_can_change_daemon_json(host: Host) -> None:
    file = host.file(DAEMON_JSON)
    if file.exists:
        assert file.user == "root", f"{DAEMON_JSON} belongs to {file.user}"
        assert not file.mode & 0o022, f"{DAEMON_JSON} has mode {file.mode:04o}"


def test_loaded_configuration_is_the_one_on_disk(host: Host, settings: DockerSettings, facts: Facts) -> None:
    """Keys that need a restart can stand in daemon.json for long before one comes."""
    engine = host.docker_engine
    info = engine.info
    engine.require_on_disk(daemon_of(settings, facts).declared)
    other = re.search(r" --config-file[ =](\S+)", engine.started_with)
    if other and other[1] != DAEMON_JSON:
        fail(f"dockerd was started with {other[1]} in the place of {DAEMON_JSON}", RESTART)
    document = engine.daemon_json
    for key, name in TOLD.items():
        if key in document and key != "default-runtime" and info.get(name) != document[key]:
            fail(
                f"dockerd runs with {key} {info.get(name)!r}, and daemon.json says {document[key]!r}", RESTART
            )
    if unread := [word for word in declared_words(document) if word not in {*told_words(info)}]:
        fail(f"dockerd runs without {', '.join(unread)}, which daemon.json has", RELOAD)
    untold(document, engine.reloaded)


def untold(document: dict[str, Any], reloaded: dict[str, Any] | None) -> None:
    """What ``docker info`` does not tell, where daemon.json was written after dockerd had started."""
    if reloaded is None or not document.keys() - TOLD.keys() - READ_ALONG:
        return
    if not reloaded:
        if document.get("log-level") in ("warn", "error", "fatal"):
            skip("daemon.json was written after dockerd had started, which logs no reload at this log level")
        warn(
            "daemon.json was written after dockerd had started, and its journal has no reload since",
            "on the host: systemctl reload docker.service; keys that it does not take over need a restart",
        )
    plain = {key: value for key, value in document.items() if isinstance(value, str | bool | int)}
    plain = {key: plain[key] for key in plain.keys() - RELOADABLE - REWRITTEN}
    # What is false or empty is not told.
    if owed := sorted(
        key for key, value in plain.items() if (reloaded.get(key) or False) != (value or False)
    ):
        fail(f"dockerd runs with another {', '.join(owed)} than daemon.json says", RESTART)


@pytest.fixture
def wanted(settings: DockerSettings, facts: Facts) -> dict[str, str | None]:
    """The packages of the settings, and the version of each or None."""
    try:
        found = packages_of(settings, facts)
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)
    return found or skip("docker.source is none: the engine that is there is left alone")


def test_packages_are_those_of_the_settings(
    host: Host, settings: DockerSettings, wanted: dict[str, str | None]
) -> None:
    there = host.docker_engine.packages(*wanted)
    require(PACKAGES, there, wanted, AGAIN)
    for name, version in wanted.items():
        if not Package(name, version).accepts(there[name].version):
            fail(f"{name} {there[name].version} is installed and {version} is requested", AGAIN)
    loose = [name for name in wanted if settings.hold and not there[name].held]
    if loose:
        fail(f"the next upgrade of the system may move {', '.join(loose)}: not held", AGAIN)


def test_files_of_its_packages_are_as_they_came(host: Host, wanted: dict[str, str | None]) -> None:
    there = host.docker_engine.packages(*wanted, *ALONG)
    host.docker_engine.require_whole(*wanted, *(name for name in ALONG if name in there))


def test_running_containers_keep_their_gpus(host: Host) -> None:
    """Those of the legacy hook lose them at the next daemon-reload, which any package may bring."""
    host.docker_engine.require_sight()
    if fragile := [str(found) for found in host.docker_engine.containers_with_gpus if found.fragile]:
        warn(
            f"loses its GPUs when systemd reloads its units: {', '.join(fragile)}",
            "re-create it with --runtime=nvidia, which does not use the legacy hook",
        )
