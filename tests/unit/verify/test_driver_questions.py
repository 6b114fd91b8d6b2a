"""What the checks of driver and toolkit ask, on a real shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.probe import words
from provision.resources.packages.installed import INSTALLED, Installed, installed
from provision.shell import assembled
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

DPKG_VERIFY = """missing     /usr/bin/nvidia-ctk
??5??????   /usr/bin/nvidia-container-runtime
??5?????? c /etc/nvidia-container-runtime/config.toml
missing     /usr/share/doc/nvidia-container-toolkit/copyright
"""
RPM_VERIFY = """S.5....T.    /usr/bin/nvidia-container-runtime
.......T.    /usr/bin/nvidia-cdi-hook
S.5....T.  c /etc/nvidia-container-runtime/config.toml
missing     /usr/bin/nvidia-ctk
"""
DAMAGED = {"missing /usr/bin/nvidia-ctk", "changed /usr/bin/nvidia-container-runtime"}


WITHOUT_DPKG = "command() { return 1; }\n"
"""On RHEL the shell finds no dpkg, as it would on this machine."""


def asked(
    root: FakeRoot, function: str, *arguments: str, file: str = INSTALLED, before: str = ""
) -> list[str]:
    answer = root.sh(f"{before}{assembled(file)}{words(function, *arguments)}")
    assert answer.err == ""
    return answer.out.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_packages_of_dpkg(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    text = "installed a 1-1 hold\nhalf-configured b 1-1 install\nnot-installed c  unknown\nconfig-files d 1 -"
    root.program("dpkg-query", f"echo '{text}'; echo 'no packages found' >&2; exit 1")
    found = installed("\n".join(asked(root, "installed_packages", "a", "b*")))
    assert found == {"a": Installed("1-1", held=True), "b": Installed("1-1", "half-configured")}
    assert root.calls[-1].endswith(" a b*")


@pytest.mark.parametrize("shell", SHELLS)
def test_packages_of_rpm_and_the_locks_of_dnf(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    root.program("rpm", "printf 'installed nvidia-driver 580.1-1.el9\\ninstalled nvlsm 2-1\\n'")
    root.write("/etc/dnf/plugins/versionlock.list", "nvidia-driver-3:580.1-1.el9.*\n")
    found = installed("\n".join(asked(root, "installed_packages", "nvidia*", "nvlsm", before=WITHOUT_DPKG)))
    assert found == {"nvidia-driver": Installed("580.1-1.el9", held=True), "nvlsm": Installed("2-1")}


@pytest.mark.parametrize(("manager", "told"), [("dpkg", DPKG_VERIFY), ("rpm", RPM_VERIFY)])
@pytest.mark.parametrize("shell", SHELLS)
def test_damaged_files(shell: str, manager: str, told: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    root.write("told", told)
    root.program(manager, f"cat {tmp_path}/told; exit 1")
    before = WITHOUT_DPKG if manager == "rpm" else ""
    assert set(asked(root, "damaged_files", "a", before=before)) == DAMAGED


@pytest.mark.parametrize("manager", ["dpkg-query", "rpm"])
@pytest.mark.parametrize("shell", SHELLS)
def test_lost_files(shell: str, manager: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    listed = "".join(
        f"{line}\\n"
        for line in (
            *("/usr/bin/env", "/usr/lib/libcuda.so.0", "/usr/share/doc/none", "/etc/none"),
            "diverted by x to: /usr/lib/y",
        )
    )
    state = "installed " if manager == "dpkg-query" else ""
    root.program(
        manager,
        f"case $1 in -L | -ql) printf '{listed}' ;;"
        f" *) printf '{state}nvidia-smi\\n{state}nvidia-container-toolkit\\n' ;; esac",
    )
    before = WITHOUT_DPKG if manager == "rpm" else ""
    assert asked(root, "lost_files", "nvidia-*", before=before) == ["/usr/lib/libcuda.so.0"]
    assert root.calls[-1].split()[-1] == "nvidia-smi"


@pytest.mark.parametrize("shell", SHELLS)
def test_state_of_the_driver(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    assert asked(root, "driver_state", file="driver/verify.sh") == []
    for name, value in {"vendor": "0x10de", "class": "0x030200", "device": "0x2330"}.items():
        root.write(f"/sys/bus/pci/devices/0000:18:00.0/{name}", f"{value}\n")
    root.write("/sys/module/nouveau/refcnt")
    root.write("/sys/module/nvidia/version", "580.159.04\n")
    root.write("/proc/driver/nvidia/version", "NVRM version: UNIX Open  580.159.04  x\nGCC version: y\n")
    root.write("/proc/devices", "195 nvidia\n")
    assert asked(root, "driver_state", file="driver/verify.sh") == [
        "pci 0000:18:00.0 0x030200 0x2330",
        "nouveau loaded",
        "module 580.159.04",
        "kind UNIX Open  580.159.04  x",
        "node nvidiactl",
        "node nvidia-uvm",
        "node nvidia-uvm-tools",
    ]
