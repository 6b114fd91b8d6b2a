"""Kernels of lab hosts: modules that are missing, headers that are gone, device nodes that are made anew."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from lab.standins.packages import newer_kernel
from tests.lab.cli import inv, lab_inventory, write_inventory
from tests.lab.test_faults import HEADERS, failed, repair
from tests.lab.test_provision import converged, host, provision, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

__all__ = ["converged"]

APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y"
NEWER = newer_kernel()
GONE = f"Package: linux-headers-amd64 {HEADERS}\nPin: version *\nPin-Priority: -1\n"


@pytest.fixture
def left_behind(converged: Lab) -> Iterator[LabHost]:
    """A host with a newer kernel, where no repository has the headers of the running one any more."""
    machine = host(converged, "gpu-02")
    shell(machine, f"{APT} update && {APT} install linux-image-{NEWER} linux-headers-{NEWER}")
    shell(machine, f"{APT} purge linux-headers-amd64 {HEADERS}")
    shell(machine, f"printf '{GONE}' >/etc/apt/preferences.d/gone")
    yield machine
    shell(machine, f"rm /etc/apt/preferences.d/gone; dkms remove nvidia/580.159.04 -k {NEWER}")
    shell(machine, f"{APT} purge linux-image-{NEWER} linux-headers-{NEWER}; rm -rf /lib/modules/{NEWER}")
    repair("gpu-02")


def test_a_kernel_that_is_left_behind_is_rebooted_once(left_behind: LabHost, tmp_path: Path) -> None:
    """The lab boots the same kernel again, as a boot loader does that somebody has told to."""
    document = lab_inventory()
    # Debian's package of later headers never needs those of the running kernel; the stand-in does.
    document["gpu-nodes"]["vars"]["driver"]["headers"] = False
    source = write_inventory(tmp_path / "inventory", document)
    arguments = ("plan", "--hosts", "gpu-02", "--roles", "driver")
    assert inv(*arguments, inventory=source).code == 0, "the module is there, so nothing has to be done"

    shell(left_behind, f"dkms remove nvidia/580.159.04 -k {platform.release()}")
    before = left_behind.boot_id()
    said, _ = failed(provision("--roles", "driver", pattern="gpu-02", inventory=source), "gpu-02")
    assert said.startswith(f"reboot needed: no repository has {HEADERS} for the running kernel")
    assert left_behind.boot_id() == before

    answer = provision("--roles", "driver", "--reboot", pattern="gpu-02", inventory=source)
    said, hint = failed(answer, "gpu-02")
    assert said.startswith("it was rebooted and still needs a reboot")
    assert "another kernel" in hint
    assert answer.host("gpu-02")["reboots"] == 1


def test_a_module_that_is_gone_is_built_or_its_compiler_quoted(converged: Lab) -> None:
    machine = host(converged, "gpu-02")
    shell(machine, f"dkms remove nvidia/580.159.04 -k {platform.release()}")
    machine.break_gpus("dkms-build")
    try:
        said, hint = failed(provision("--roles", "driver", pattern="gpu-02"), "gpu-02")
        assert "driver-modules: " in said
        assert "nv-pci.c:1: error: this kernel's interface is another one" in said
        assert "does not compile" in hint
    finally:
        machine.break_gpus()
    repair("gpu-02", roles="driver")
    assert shell(machine, "modinfo -F version nvidia").strip() == "580.159.04"


@pytest.mark.parametrize("gone", ["/dev/nvidia-uvm", "/dev/nvidia0 /dev/nvidiactl"])
def test_device_nodes_are_made_anew(converged: Lab, gone: str) -> None:
    machine = host(converged, "gpu-02")
    shell(machine, f"rm {gone}")
    answer = provision("--roles", "driver", pattern="gpu-02")
    assert answer.code == 0, str(answer)
    shell(machine, f"for node in {gone}; do [ -c $node ] || exit 1; done")
