"""The public repositories by system, their keys, and a site's mirror of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from provision.cli.rendered import assumed
from provision.errors import Refusal, SettingsError
from provision.facts import Facts
from provision.inventory import Host
from provision.inventory.settings import read
from provision.render import template_path
from provision.resource import AnyResource, Planned
from provision.resources.file import File
from provision.resources.packages.fetched_key import FetchedKey
from provision.resources.packages.openpgp import fingerprints
from provision.resources.packages.other_sources import OtherSources, SourceFile
from provision.resources.packages.repository import KeyFile, Repo, package_source
from provision.resources.packages.sets import Package
from provision.roles import all_roles
from provision.roles.docker import role as docker
from provision.roles.driver.packages import cuda
from provision.roles.toolkit import role as toolkit
from tests.unit.examples import FINGERPRINT, KEY

ROLES = {role.name: role for role in all_roles()}
CUDA = "https://developer.download.nvidia.com/compute/cuda/repos"
NVIDIA, TRIXIE = "EB693B3035CD5710E231E123A4B469963BF863CC", "02182E60104FCDC26EAE1B8597A5D4CB8793F200"
TOOLKIT = "https://nvidia.github.io/libnvidia-container/stable"
KEYS = "/etc/pki/rpm-gpg"
BASE = "https://mirror.example.org/all"
SIGNED = {"base": BASE, "key": KEY, "fingerprint": FINGERPRINT}


def machine(system: str, kind: str = "x86_64") -> Facts:
    facts = assumed(system)
    return facts if kind == "x86_64" else replace(facts, machine=kind, architecture="arm64")


def settings(role: str, variables: Mapping[str, Any] | None = None) -> Any:
    """The settings of a role whose key is there and empty."""
    host = Host("n1", vars={role: {}, **(variables or {})})
    return read(ROLES[role].settings, host, role, ROLES[role].shared)


@pytest.mark.parametrize(
    ("system", "kind", "address", "fingerprint"),
    [
        ("debian:12", "x86_64", f"{CUDA}/debian12/x86_64/", NVIDIA),
        ("debian:13", "x86_64", f"{CUDA}/debian13/x86_64/", TRIXIE),
        ("ubuntu:22.04", "x86_64", f"{CUDA}/ubuntu2204/x86_64/", NVIDIA),
        ("ubuntu:24.04", "x86_64", f"{CUDA}/ubuntu2404/x86_64/", NVIDIA),
        ("ubuntu:24.04", "aarch64", f"{CUDA}/ubuntu2404/sbsa/", NVIDIA),
    ],
)
def test_the_drivers_repository(system: str, kind: str, address: str, fingerprint: str) -> None:
    repo = cuda.cuda_repository(machine(system, kind), None)
    assert (repo.uri, repo.suite, repo.fingerprint) == (address, "/", fingerprint)


RHEL = ["rhel:8", "rhel:9", "rocky:8", "rocky:9.6", "almalinux:9"]


def key_files(role: str, system: str, variables: Mapping[str, Any] | None = None) -> list[AnyResource]:
    """The files of keys that a role with nothing but these settings declares."""
    declared = ROLES[role].resources(settings(role, variables), machine(system))
    return [r for r in declared if isinstance(r, File | FetchedKey) and r.path.startswith(KEYS)]


@pytest.mark.parametrize("system", RHEL)
def test_the_keys_for_dnf_are_fetched_by_their_fingerprints(system: str) -> None:
    major = machine(system).major
    nvidia, engine = "610C7B14E068A878070DA4E99CD0A493D42D0685", "060A61C51B558A7F742B77AAC52FEB6B621E9F35"
    assert key_files("driver", system) == [
        FetchedKey(f"{KEYS}/provision-{nvidia}", f"{CUDA}/rhel{major}/x86_64/D42D0685.pub", nvidia)
    ]
    assert key_files("docker", system) == [
        FetchedKey(f"{KEYS}/provision-{engine}", "https://download.docker.com/linux/rhel/gpg", engine)
    ]


def test_packages_are_checked_with_a_fetched_key() -> None:
    facts = machine("rhel:9")
    for repo in (cuda.cuda_repository(facts, None), docker.source_of(settings("docker"), facts)):
        key, source = package_source(repo, facts)
        assert source.content.decode().endswith(f"\ngpgcheck=1\nrepo_gpgcheck=0\ngpgkey=file://{key.path}\n")


def test_a_plain_copy_serves_the_keys_for_dnf_too() -> None:
    plain = {"mirror": {"base": BASE}}
    found = [*key_files("driver", "rhel:9", plain), *key_files("docker", "rhel:9", plain)]
    assert [key.address for key in found if isinstance(key, FetchedKey)] == [
        f"{BASE}/developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/D42D0685.pub",
        f"{BASE}/download.docker.com/linux/rhel/gpg",
    ]


@pytest.mark.parametrize("system", RHEL)
def test_the_key_of_a_mirror_that_signs_anew_is_written(system: str) -> None:
    facts, variables = machine(system), {"mirror": SIGNED}
    ours = [KeyFile(f"{KEYS}/provision-{FINGERPRINT}", f"{KEY.strip()}\n".encode())]
    assert key_files("driver", system, variables) == key_files("docker", system, variables) == ours
    repo = cuda.cuda_repository(facts, settings("driver", variables).mirror)
    assert repo.signed == "both"
    assert repo.uri == f"{BASE}/developer.download.nvidia.com/compute/cuda/repos/rhel{facts.major}/x86_64/"
    engine = docker.source_of(settings("docker", variables), facts)
    assert engine.uri == f"{BASE}/download.docker.com/linux/rhel/{facts.major}/x86_64/stable"


@pytest.mark.parametrize("system", ["debian:12", "debian:13"])
def test_nvidia_has_no_arm_packages_for_debian(system: str) -> None:
    with pytest.raises(Refusal, match="has no packages for aarch64"):
        cuda.cuda_repository(machine(system, "aarch64"), None)


@pytest.mark.parametrize(
    ("system", "kind", "address"),
    [
        ("debian:12", "x86_64", f"{TOOLKIT}/deb/amd64/"),
        ("ubuntu:24.04", "aarch64", f"{TOOLKIT}/deb/arm64/"),
        ("rhel:9", "x86_64", f"{TOOLKIT}/rpm/x86_64/"),
    ],
)
def test_the_toolkits_repository(system: str, kind: str, address: str) -> None:
    repo = toolkit.source_of(settings("toolkit"), machine(system, kind))
    assert (repo.uri, repo.signed) == (address, "metadata")
    assert fingerprints(repo.key) == ["C95B321B61E88C1809C4F759DDCAE044F796ECB0"]


@pytest.mark.parametrize(
    ("system", "suite"),
    [
        ("debian:12", "bookworm"),
        ("debian:13", "trixie"),
        ("ubuntu:22.04", "jammy"),
        ("ubuntu:24.04", "noble"),
    ],
)
def test_dockers_repository(system: str, suite: str) -> None:
    facts = machine(system)
    repo = docker.source_of(settings("docker"), facts)
    assert repo.uri == f"https://download.docker.com/linux/{facts.os}"
    assert (repo.suite, repo.components) == (suite, ["stable"])


@pytest.mark.parametrize(
    ("template", "fingerprint"),
    [cuda.KEY, cuda.KEY_OF_DEBIAN_13, toolkit.KEY, docker.KEY],
)
def test_keys_have_their_fingerprints(template: str, fingerprint: str) -> None:
    assert fingerprints(template_path(template).read_text("ascii")) == [fingerprint]


def test_a_plain_copy_keeps_its_publishers_key() -> None:
    repo = toolkit.source_of(settings("toolkit", {"mirror": {"base": f"{BASE}/"}}), machine("debian:12"))
    assert repo.uri == f"{BASE}/nvidia.github.io/libnvidia-container/stable/deb/amd64/"
    assert repo.fingerprint == toolkit.KEY[1]


def test_a_roles_own_mirror_and_repository_win() -> None:
    own = {"toolkit": {"mirror": {"base": "http://own"}}, "mirror": SIGNED}
    assert settings("toolkit", own).mirror.base == "http://own"
    assert settings("driver", own).mirror.base == BASE
    repo = {"uri": "http://mine/x", "key": KEY, "fingerprint": FINGERPRINT}
    found = toolkit.source_of(settings("toolkit", own | {"toolkit": {"repo": repo}}), machine("debian:12"))
    assert found == Repo.model_validate(repo)


@pytest.mark.parametrize(
    ("mirror", "says"),
    [
        ({"base": "mirror.example.org"}, "mirror.base: 'mirror.example.org' does not match"),
        ({"base": BASE, "key": KEY}, "mirror: key and fingerprint go together"),
        ({"bse": BASE}, "unknown setting 'bse' in mirror; did you mean 'base'?"),
        ("http://x", "mirror: 'http://x' is not a mapping"),
        ({**SIGNED, "fingerprint": "0" * 40}, f"mirror: the key has fingerprint {FINGERPRINT}"),
        ({"base": "https://me:s3cret@mirror/x"}, "mirror: the address names a user"),
        ({"base": "http://"}, "mirror: http:// is not the address of a folder"),
        ({"base": "http://m:99999/"}, "mirror: http://m:99999/ is not the address of a folder"),
        ({"base": "http://m/?q=1#x"}, "is not the address of a folder"),
        ({"base": "http://m/../x"}, "is not the address of a folder"),
    ],
)
def test_a_mirror_that_cannot_be_is_refused(mirror: Any, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings("driver", {"mirror": mirror})
    assert says in str(caught.value)
    assert "driver.mirror" not in f"{caught.value} {caught.value.hint}"


def test_the_toolkit_is_not_older_than_its_last_known_hole() -> None:
    package = Package("nvidia-container-toolkit", None, least=toolkit.FIRST_SAFE)
    assert [package.accepts(v) for v in ("1.9.0-1", "1.19.0-1", "1.19.1-1", "1.20.0-1", "2.0.0-1")] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert package.is_newer_than("1.17.8-1")


@pytest.mark.parametrize("system", ["debian:12", "ubuntu:24.04", *RHEL])
def test_ten_lines_are_a_whole_inventory(system: str) -> None:
    """With nothing but defaults, driver and toolkit have their sources, and on RHEL the engine, too."""
    found = [
        resource.path.rpartition("/")[2]
        for name in ("driver", "toolkit", "docker")
        for resource in ROLES[name].resources(settings(name), machine(system))
        if isinstance(resource, File) and resource.path.endswith((".sources", ".repo"))
    ]
    begins = ["provision-developer-download-nvidia-com-", "provision-nvidia-github-io-"]
    begins += ["provision-download-docker-com-"] if system in RHEL else []
    assert len(found) == len(begins)
    assert all(name.startswith(begin) for name, begin in zip(found, begins, strict=True)), found


def test_another_mirror_takes_the_place_of_the_one_before() -> None:
    """Its source file has another name, and apt would go on asking the old address."""
    facts = machine("debian:12")
    old = "/etc/apt/sources.list.d/provision-old-compute-cuda-repos-debian12-x86-64.sources"
    text = b"Types: deb\nURIs: http://old/x/compute/cuda/repos/debian12/x86_64/\nSuites: /\n"
    declared = ROLES["driver"].resources(settings("driver", {"mirror": {"base": BASE}}), facts)
    others = next(resource for resource in declared if isinstance(resource, OtherSources))
    change = others.change((SourceFile(old, text),), Planned())
    assert change is not None
    assert change.summary.startswith(f"remove {old}")
    theirs = SourceFile("/etc/apt/sources.list.d/cuda-debian12-x86_64.sources", text)
    assert others.change((theirs,), Planned()) is None, "a source that somebody else wrote stays"
