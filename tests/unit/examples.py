"""A host, its settings and its states, as examples for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from provision.facts import Facts, Gpu
from provision.plan.declared import Declared
from provision.probe import Probe
from provision.resources.packages.openpgp import fingerprints
from provision.resources.packages.repository import Repo
from provision.role import Role, Settings
from provision.roles import all_roles
from provision.roles.driver.kernel import Kernel
from provision.shell import assembled

KEY = (Path(__file__).parent.parent / "data/keys/repository.asc").read_text("utf-8")
FINGERPRINT = fingerprints(KEY)[0]

GPUS = {
    "Pascal": 0x15F8,
    "Volta": 0x1DB4,
    "Turing": 0x1EB8,
    "Ampere": 0x20B0,
    "Hopper": 0x2330,
    "Blackwell": 0x2901,
    "of no known kind": 0xFFFF,
}
"""A device id of each generation: P100, V100, T4, A100, H100, B200."""

H100 = Facts(
    os="debian",
    version="12",
    codename="bookworm",
    machine="x86_64",
    architecture="amd64",
    kernel="6.1.0-32-amd64",
    boot_id="0a0a",
    virtualization="none",
    secure_boot=False,
    gpus=(Gpu("0000:18:00.0", GPUS["Hopper"]),),
)

KERNEL = Kernel(H100.kernel, f"linux-headers-{H100.kernel}", ready=False)
"""The host's kernel, without headers."""

IMAGE = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"


def with_gpus(*generations: str) -> Facts:
    """The host with a GPU of each of these generations instead of its own."""
    return replace(H100, gpus=tuple(Gpu(f"0000:{n:02x}:00.0", GPUS[g]) for n, g in enumerate(generations)))


REPO: dict[str, Any] = {"uri": "https://packages.example.org/nvidia", "key": KEY, "fingerprint": FINGERPRINT}
SETTINGS: dict[str, dict[str, Any]] = {
    "driver": {"repo": REPO, "version": "580.159.04-1"},
    "toolkit": {"version": "1.20.0-1", "repo": REPO},
    "docker": {"daemon": {"log-driver": "local"}},
    "triton": {
        "instances": {
            "main": {"image": IMAGE, "env": {"GREETING": 'hello "world"'}, "args": ["--log-verbose=1"]},
            "second": {
                "image": "nvcr.io/nvidia/tritonserver:24.07-py3",
                "gpus": [0],
                "http_port": 9000,
                "grpc_port": 9001,
                "metrics_port": 9002,
                "canary": False,
            },
        }
    },
}
"""Settings of our roles that need a repository or more than ``Role.example`` says."""


def example_of(role: Role) -> Mapping[str, Any]:
    """The example settings of a role as an inventory gives them; ours have the key of the tests."""
    return SETTINGS.get(role.name, role.example)


def settings_of(role: str, **changes: Any) -> Settings:
    """The example settings of a role with some of them changed."""
    known = next(known for known in all_roles() if known.name == role)
    return known.settings.model_validate({**example_of(known), **changes})


def repo(**changes: Any) -> Repo:
    """The example repository with some of its settings changed."""
    return Repo.model_validate({**REPO, **changes})


def declared(facts: Facts = H100, settings: Mapping[Role, Settings] | None = None) -> list[Declared]:
    """All resources of all roles, with the example settings where no others are given."""
    return [
        Declared(role.name, resource)
        for role in all_roles()
        for resource in role.resources((settings or {}).get(role) or settings_of(role.name), facts)
    ]


def bare(items: Iterable[Declared]) -> dict[str, Any]:
    """The states of a host that has nothing of what is declared."""
    return {item.resource.id: item.resource.bare() for item in items}


def script_of(probe: Probe) -> str:
    """The sh text of a probe as a host runs it: the functions of its files, and the call."""
    return f"{assembled(*probe.shell)}{probe.script}\n"
