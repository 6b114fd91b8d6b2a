"""The units that roles render, as systemd itself judges them, and the scripts beside them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.render import render
from provision.resources.file import File
from provision.roles import all_roles
from tests.unit.examples import H100, IMAGE, settings_of
from tests.unit.sandbox import SHELLS

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (package systemd)"
)
needs_shellcheck = pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed"
)

NASTY = [
    "",
    "two words",
    'q"uote',
    "it's",
    "100%",
    "%n",
    "$HOME",
    "${X}",
    "back\\slash",
    ";",
    "a\nb",
    "-1",
    "é🙂",
]
INSTANCES: dict[str, dict[str, Any]] = {
    "plain": {},
    "cpu": {"image": IMAGE.replace("-trtllm-python", ""), "gpus": "none", "canary": False},
    "some-gpus": {"gpus": [0, "GPU-8f7e0001-0000"], "user": "1000:1000", "ulimits": {}},
    "everywhere": {"address": "::", "shm_size": "2g"},
    "nasty": {
        "args": NASTY,
        "env": {f"V{n}": value for n, value in enumerate(NASTY)},
        "mounts": ["/a b:/c d:ro"],
    },
    "late": {"ready_timeout": 3600, "exit_timeout": 300, "models": "/srv/100% models"},
}


def unit_files() -> dict[str, bytes]:
    """All units that all roles write below /etc/systemd, for settings of every kind."""
    instances = {
        name: {
            "image": IMAGE,
            "http_port": 8000 + n,
            "grpc_port": 8100 + n,
            "metrics_port": 8200 + n,
            **changes,
        }
        for n, (name, changes) in enumerate(INSTANCES.items())
    }
    found = [
        resource
        for role in all_roles()
        for changes in [{"instances": instances} if role.name == "triton" else {}]
        for resource in role.resources(settings_of(role.name, **changes), H100)
    ]
    return {
        f.path: f.content for f in found if isinstance(f, File) and f.path.startswith("/etc/systemd/system/")
    }


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with the units, and with what they need to be there."""
    root = tmp_path_factory.mktemp("root")
    files = {
        **unit_files(),
        "/usr/lib/systemd/system/docker.service": b"[Service]\nExecStart=/usr/bin/docker\n",
        "/usr/bin/docker": b"#!/bin/sh\n",
        "/usr/bin/nvidia-modprobe": b"#!/bin/sh\n",
        "/bin/sh": b"#!/bin/sh\n",
        "/usr/local/lib/provision/triton-gpu-gate": b"#!/bin/sh\n",
        "/usr/local/lib/provision/triton-wait-ready": b"#!/bin/sh\n",
    }
    for name in ("sysinit", "basic", "shutdown", "multi-user", "network-online"):
        files[f"/usr/lib/systemd/system/{name}.target"] = b"[Unit]\n"
    for name in ("system.slice", "-.slice"):
        files[f"/usr/lib/systemd/system/{name}"] = b"[Unit]\n"
    for path, content in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if content.startswith(b"#!") else 0o644)
    return root


def analyze(root: Path, path: str) -> tuple[int, str]:
    """Exit code and words of systemd-analyze verify for a unit below ``root``."""
    argv = ["systemd-analyze", "verify", f"--root={root}", "--man=no", path]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


@needs_systemd
@pytest.mark.parametrize("path", sorted(unit_files()))
def test_systemd_finds_nothing_wrong(host: Path, path: str) -> None:
    assert analyze(host, path) == (0, "")


@needs_systemd
def test_systemd_would_find_a_fault(host: Path) -> None:
    unit = host / "etc/systemd/system/broken.service"
    unit.write_text("[Service]\nExecStart=/usr/bin/docker\nTimeoutStartSec=soon\n")
    assert "Failed to parse TimeoutStartSec=" in analyze(host, "/etc/systemd/system/broken.service")[1]


def test_no_value_breaks_out_of_its_line() -> None:
    text = unit_files()["/etc/systemd/system/triton@nasty.service"].decode()
    allowed = {"[Unit]", "[Service]", "[Install]"}
    for line in text.replace("\\\n", "").splitlines():
        assert not line or line.startswith("#") or line in allowed or "=" in line.split(" ")[0], line


@needs_shellcheck
@pytest.mark.parametrize("template", ["triton/gpu-gate.j2", "triton/wait-ready.j2"])
def test_shellcheck_finds_nothing(template: str, tmp_path: Path) -> None:
    file = tmp_path / Path(template).name
    # What it includes is sh; a directive would count for all of it.
    file.write_text(render(template).replace("# shellcheck shell=sh\n", ""))
    ran = subprocess.run(["shellcheck", str(file)], capture_output=True, text=True, check=False)
    assert ran.stdout == ""


SMI = "0, GPU-aaaa\n1, GPU-bbbb\n"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\n"


@pytest.fixture
def host_with(tmp_path: Path) -> Callable[[str, int], dict[str, str]]:
    """Makes an nvidia-smi that answers so, and returns the environment in which it is found."""

    def make(answer: str, code: int) -> dict[str, str]:
        smi = tmp_path / "nvidia-smi"
        listing = "echo '  MIG 1g.10gb Device 0: (UUID: MIG-1)'; exit 0"
        smi.write_text(
            f"#!/bin/sh\n[ \"$1\" != -L ] || {{ {listing}; }}\nprintf %s '{answer}'\nexit {code}\n"
        )
        smi.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return make


def gate(shell: str, selection: str, env: dict[str, str]) -> tuple[int, str]:
    """Exit code and words of the GPU gate."""
    argv = [shell, "-c", render("triton/gpu-gate.j2"), "gate", selection]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("selection", ["all", "0", "1,GPU-aaaa", "MIG-1", "0,MIG-1"])
def test_the_gpu_gate_opens(
    shell: str, selection: str, host_with: Callable[[str, int], dict[str, str]]
) -> None:
    assert gate(shell, selection, host_with(SMI, 0)) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("missing", ["2", "GPU-cccc", "GPU-aaa", "MIG-2"])
def test_the_gpu_gate_names_the_gpu_that_is_missing(
    shell: str, missing: str, host_with: Callable[[str, int], dict[str, str]]
) -> None:
    says = f"GPU {missing} is not among the GPUs of this host:\n{SMI}\n"
    assert gate(shell, f"0,{missing}", host_with(SMI, 0)) == (1, says.replace("\n\n", "\n"))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("No devices found.\n", 0, "the NVIDIA driver shows no GPU: No devices found.\n"),
        (MISMATCH, 18, f"the NVIDIA driver does not answer (nvidia-smi: exit 18): {MISMATCH}"),
    ],
)
def test_the_gpu_gate_says_why_it_stays_closed(
    shell: str, answer: str, code: int, says: str, host_with: Callable[[str, int], dict[str, str]]
) -> None:
    assert gate(shell, "all", host_with(answer, code)) == (1, says)
