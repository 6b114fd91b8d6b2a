"""Files rendered here, without a host."""

from __future__ import annotations

import json

import pytest

from provision.cli.rendered import assumed, rendered
from provision.connection.login import Login
from provision.errors import RefusedError, UsageError
from provision.roles import all_roles
from provision.run.target import Target
from tests.unit.examples import settings_of


def target(*names: str) -> Target:
    settings = {role: settings_of(role.name) for role in all_roles() if role.name in names}
    return Target("gpu-01", Login("gpu-01", "192.0.2.1"), settings)


@pytest.mark.parametrize(
    ("system", "told", "codename"),
    [
        ("debian:12", "debian 12", "bookworm"),
        ("ubuntu:24.04", "ubuntu 24.04", "noble"),
        ("Ubuntu:24.04", "ubuntu 24.04", "noble"),
        ("mine:1", "mine 1", ""),
    ],
)
def test_a_system_is_assumed(system: str, told: str, codename: str) -> None:
    facts = assumed(system)
    assert (facts.system, facts.codename, facts.architecture, len(facts.gpus)) == (told, codename, "amd64", 1)


@pytest.mark.parametrize("system", ["", "debian", "debian:", ":12"])
def test_what_is_no_system(system: str) -> None:
    with pytest.raises(UsageError, match="is not ID:VERSION") as caught:
        assumed(system)
    assert "debian:12" in str(caught.value.hint)


def test_the_files_of_a_host() -> None:
    files = {
        file.path: (file.content, file.mode)
        for file in rendered(target("docker", "triton"), assumed("debian:12"))
    }
    assert list(files) == [
        "/etc/docker/daemon.json",
        "/usr/local/lib/provision/triton-gpu-gate",
        "/usr/local/lib/provision/triton-mounts",
        "/usr/local/lib/provision/triton-wait-ready",
        "/usr/local/share/provision/triton/provision_canary/config.pbtxt",
        "/usr/local/share/provision/triton/provision_canary/1/model.py",
        "/etc/triton/main.env",
        "/etc/systemd/system/triton@main.service",
        "/etc/triton/second.env",
        "/etc/systemd/system/triton@second.service",
    ]
    assert json.loads(files["/etc/docker/daemon.json"][0])["default-runtime"] == "nvidia"
    assert files["/etc/triton/main.env"][1] == "0600"
    assert b'GREETING="hello \\"world\\""\n' in files["/etc/triton/main.env"][0]


def test_a_system_that_a_role_refuses() -> None:
    with pytest.raises(RefusedError, match="gpu-01: no driver packages known for debian 11"):
        list(rendered(target("driver"), assumed("debian:11")))


def test_a_file_that_the_host_fetches_is_told_without_content() -> None:
    files = [file for file in rendered(target("docker"), assumed("rhel:9")) if file.origin]
    assert [(file.origin, file.content) for file in files] == [
        ("https://download.docker.com/linux/rhel/gpg", b"")
    ]
