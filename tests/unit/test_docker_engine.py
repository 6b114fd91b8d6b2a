"""Which Docker a host has, and which of them are refused."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provision.errors import Refusal, SettingsError
from provision.facts import Facts
from provision.inventory.settings import read
from provision.inventory.sources import load
from provision.probe import Output
from provision.resource import Planned
from provision.resources.packages.rpm import RpmPackages
from provision.roles.docker.engine import Engine, EngineState
from provision.roles.docker.role import DockerSettings, packages_of, resources
from tests.unit.examples import H100, REPO, script_of, settings_of

ARCHIVE = Engine(("docker.io",))
NONE = Engine(())
PACKAGE = "package docker.io\ndockerd /usr/sbin/dockerd\n"
CE = "package docker-ce\ndockerd /usr/bin/dockerd\n"
MOBY = "package moby-engine\n"


def state(text: str) -> EngineState:
    return Engine.states([ARCHIVE], Output(0, text.encode()))[ARCHIVE.id]


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        (ARCHIVE, ""),
        (ARCHIVE, PACKAGE),
        (ARCHIVE, PACKAGE + 'running /run/docker\n"currentContext": "default"\n'),
        (ARCHIVE, PACKAGE + "running /run/user/1000/docker\nrunning /run/docker\n"),
        (NONE, CE),
        (NONE, MOBY),
        (NONE, "dockerd /usr/local/bin/dockerd\n"),
        (Engine(("docker-ce",)), CE),
    ],
)
def test_engines_that_are_right(engine: Engine, text: str) -> None:
    assert engine.change(state(text), Planned()) is None


@pytest.mark.parametrize(
    ("engine", "text", "says", "hint"),
    [
        (ARCHIVE, CE, "docker-ce is installed here", "docker.source: none"),
        (ARCHIVE, CE, "the settings want docker.io: to replace it would stop its containers", "by hand"),
        (Engine(("docker-ce",)), PACKAGE, "docker.io is installed here", "docker.source: none"),
        (ARCHIVE, "dockerd /usr/local/bin/dockerd\n", "no known package brought", "docker.source: none"),
        (NONE, "", "there is no Docker Engine here, and docker.source is none", "archive or docker"),
        (ARCHIVE, "snap /snap/docker/current\n", "installed as a snap (/snap/docker/current)", "snap remove"),
        (NONE, PACKAGE + "snap /snap/docker/current\n", "installed as a snap", "snap remove"),
        (ARCHIVE, "podman /usr/bin/docker\n", "/usr/bin/docker is podman", "podman-docker"),
        (ARCHIVE, "running /run/user/1000/docker\n", "rootless here (user 1000)", "systemctl --user"),
        (ARCHIVE, PACKAGE + '"currentContext": "desktop-linux"\n', "'desktop-linux'", "context use"),
    ],
)
def test_engines_that_are_refused(engine: Engine, text: str, says: str, hint: str) -> None:
    with pytest.raises(Refusal) as caught:
        engine.change(state(text), Planned())
    assert says in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_host_that_nobody_asked_is_not_refused() -> None:
    assert NONE.change(NONE.bare(), Planned()) is None
    assert NONE.notes(NONE.bare(), Planned()) == []


def test_a_rootless_engine_beside_the_hosts_own_is_told() -> None:
    found = state(PACKAGE + "running /run/user/1000/docker\nrunning /run/docker\n")
    (note,) = ARCHIVE.notes(found, Planned())
    assert note.startswith("user 1000 also runs a Docker of its own (rootless)")


def test_the_question_on_a_machine_with_everything(tmp_path: Path) -> None:
    """The script finds what lies at its places, here below another root."""
    script = script_of(Engine.probe([ARCHIVE]))
    for path in (
        "/snap/docker/",
        "/run/user/",
        "/run/docker",
        "/usr/bin/docker",
        "/root/.docker",
        "/proc/$pid",
        "/usr/local/sbin/",
        "/usr/local/bin/",
        "/usr/sbin/",
        "/usr/bin/$program",
        "/var/lib/dpkg/info",
    ):
        script = script.replace(f" {path}", f" {tmp_path}{path}").replace(f'"{path}', f'"{tmp_path}{path}')
        script = script.replace(f"={path}", f"={tmp_path}{path}")
    for path, text in {
        "snap/docker/current": "",
        "run/user/1000/docker.pid": "17",
        "run/user/1001/docker.pid": "18\n",
        "usr/bin/docker": '#!/bin/sh\nexec /usr/bin/podman "$@"\n',
        "root/.docker/config.json": '{\n\t"auths": {},\n\t"currentContext": "far away"\n}\n',
        "proc/17/comm": "dockerd",
        "usr/local/bin/runc": "",
        "usr/sbin/runc": "",
        "usr/local/sbin/containerd": "",
        "var/lib/dpkg/info/docker-ce.list": "",  # what dpkg keeps of one that was removed, and not purged
        "var/lib/dpkg/info/moby-engine.list": "",
        "var/lib/dpkg/info/moby-engine.md5sums": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    found = state(ran.stdout)
    assert ran.stderr == ""
    assert found.packages == ("moby-engine",)
    assert found.snap == f"{tmp_path}/snap/docker/current"
    assert found.rootless == (f"{tmp_path}/run/user/1000",)
    assert found.podman == f"{tmp_path}/usr/bin/docker"
    assert found.context == "far away"
    assert found.hidden == (f"{tmp_path}/usr/sbin/runc by {tmp_path}/usr/local/bin/runc",)


@pytest.mark.parametrize(
    ("status", "packages"), [("half-installed", ("docker.io",)), ("config-files", ()), ("not-installed", ())]
)
def test_an_engine_whose_unpacking_was_cut_is_the_packages(
    tmp_path: Path, status: str, packages: tuple[str, ...]
) -> None:
    """dpkg had put dockerd in place when the power failed, and not yet the package's sums."""
    (tmp_path / "dockerd").touch(mode=0o755)
    (tmp_path / "dpkg-query").write_text(f"#!/bin/sh\necho 'package docker.io {status}'\nexit 1\n")
    (tmp_path / "dpkg-query").chmod(0o755)
    script = script_of(Engine.probe([ARCHIVE])).replace("/usr/sbin/dockerd", f"{tmp_path}/dockerd")
    script = f"PATH={tmp_path}:$PATH\n" + script.replace("=/var/lib/dpkg/info\n", f"={tmp_path}\n")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert state(ran.stdout).packages == packages
    if packages:
        assert ARCHIVE.change(state(ran.stdout), Planned()) is None


def test_a_program_that_hides_a_packages_is_told() -> None:
    found = state("hidden /usr/bin/nvidia-container-runtime by /usr/local/bin/nvidia-container-runtime\n")
    assert ARCHIVE.notes(found, Planned()) == [
        "/usr/local/bin/nvidia-container-runtime is found before /usr/bin/nvidia-container-runtime,"
        " which a package brought"
    ]


def test_a_real_client_is_no_podman(tmp_path: Path) -> None:
    """A binary that holds the word is not taken for the script."""
    (tmp_path / "docker").write_bytes(b"\x7fELF\x02\0\0" + b"podman\n" * 9)
    script = script_of(Engine.probe([ARCHIVE])).replace("=/usr/bin/docker\n", f"={tmp_path}/docker\n")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert state(ran.stdout).podman == ""


def test_packages_that_rpm_does_not_know_are_not_there() -> None:
    head = """command() { [ "$2" = rpm ]; }
rpm() { printf 'package docker.io is not installed\\npackage docker-ce\\n'; }
"""
    script = head + script_of(Engine.probe([ARCHIVE])).replace("=/var/lib/dpkg/info\n", "=/none\n")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert state(ran.stdout).packages == ("docker-ce",)


# --- settings -------------------------------------------------------------------------------------

DEBIAN13 = replace(H100, version="13", codename="trixie")
NOBLE = replace(H100, os="ubuntu", version="24.04", codename="noble")
ROCKY = replace(H100, os="rocky", version="9.4", codename="", architecture="")
CE_SET = ["docker-ce", "docker-ce-cli", "containerd.io"]


@pytest.mark.parametrize(
    ("facts", "changes", "names"),
    [
        (H100, {}, ["docker.io", "tini"]),
        (NOBLE, {}, ["docker.io", "tini"]),
        (DEBIAN13, {}, ["docker.io", "docker-cli", "tini"]),
        (H100, {"source": "docker", "repo": REPO}, CE_SET),
        (ROCKY, {"source": "docker", "repo": REPO}, CE_SET),
        (ROCKY, {}, CE_SET),
        (H100, {"repo": REPO}, CE_SET),
        (H100, {"source": "none"}, []),
        (ROCKY, {"source": "none"}, []),
        (H100, {"packages": {"moby-engine": "25.*"}}, ["moby-engine"]),
        (H100, {"packages": {}}, []),
    ],
)
def test_packages_of_the_engine(facts: Facts, changes: dict[str, Any], names: list[str]) -> None:
    settings = settings_of("docker", **changes)
    assert isinstance(settings, DockerSettings)
    assert list(packages_of(settings, facts)) == names


def test_rhel_takes_dockers_repository() -> None:
    settings = settings_of("docker", source="docker", repo=REPO, hold=True)
    assert isinstance(settings, DockerSettings)
    found = {r.id: r for r in resources(settings, ROCKY)}
    assert "file:/etc/yum.repos.d/provision-packages-example-org-nvidia.repo" in found
    packages = found["packages:docker"]
    assert isinstance(packages, RpmPackages)
    assert ([p.name for p in packages.packages], packages.hold) == (CE_SET, True)
    assert next(iter(found)) == "docker:engine"


def test_rhel_has_no_engine_of_its_own() -> None:
    settings = settings_of("docker", source="archive")
    assert isinstance(settings, DockerSettings)
    with pytest.raises(Refusal, match=r"rocky 9\.4 has no Docker Engine of its own") as caught:
        packages_of(settings, ROCKY)
    assert "docker.source: docker" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "archive", "repo": REPO}, "source archive with a repo"),
        ({"source": "none", "repo": REPO}, "source none with a repo"),
        ({"source": "none", "packages": {"docker.io": None}}, "source none with packages"),
        ({"restart": "always"}, "'allowed' or 'when-idle'"),
        ({"daemon": {"default-runtime": "runc"}}, "default-runtime has a setting of its own"),
        ({"daemon": {"log_driver": "local"}}, "dockerd spells it 'log-driver'"),
        ({"daemon": {"Debug": True}}, "dockerd spells it 'debug'"),
        ({"daemon": {"debug": "yes"}}, "daemon.debug\n  Value error, dockerd wants true or false"),
        ({"daemon": {"mtu": True}}, "daemon.mtu\n  Value error, dockerd wants a whole number"),
        ({"daemon": {"mtu": 1.5}}, "daemon.mtu\n  Value error, dockerd wants a whole number"),
        ({"daemon": {"dns": "10.0.0.1"}}, "daemon.dns\n  Value error, dockerd wants a list"),
        ({"daemon": {"runtimes": []}}, "daemon.runtimes\n  Value error, dockerd wants a mapping"),
        ({"daemon": {"log-opts": {"max-file": 3}}}, "dockerd wants text for options of logs"),
    ],
)
def test_settings_that_no_dockerd_takes(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_of("docker", **changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "daemon",
    [
        {"a-key-of-tomorrow": [1, {"x": None}]},
        {"default-shm-size": "64M"},
        {"default-shm-size": 67108864},
        {"bip": None},
        {"log-opts": {"max-size": "10m"}},
        {"live-restore": True, "default-ulimits": {}, "dns": [], "mtu": 1500, "data-root": "/d"},
    ],
)
def test_keys_that_dockerd_may_know(daemon: dict[str, Any]) -> None:
    assert settings_of("docker", daemon=daemon)


def test_a_wrong_key_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(
        "all:\n  hosts:\n    h1:\n      docker:\n        daemon:\n          mtu: 1\n          log_level: x\n"
    )
    with pytest.raises(SettingsError) as caught:
        read(DockerSettings, load([str(file)]).hosts["h1"], "docker")
    assert caught.value.message == f"{file}:7: docker.daemon.log_level: dockerd spells it 'log-level'"
