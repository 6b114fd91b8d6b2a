"""What goes wrong on real fleets: each fault is named with a hint, and without it the next run converges."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import aptrepo
from lab.host import LabHost
from lab.lab import Lab
from lab.standins.packages import newer_kernel
from tests.lab.cli import INVENTORY, Answer, inv, lab_inventory, start, write_inventory
from tests.lab.test_provision import converged, host, provision, running, shell, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.slow]

__all__ = ["converged"]

HEADERS = f"linux-headers-{platform.release().replace('_', '-').lower()}"
WITHOUT_HEADERS = (
    f"DEBIAN_FRONTEND=noninteractive apt-get -q -y purge linux-headers-amd64 {HEADERS} && apt-get clean"
)
"""A small thing for the role driver to repair."""

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


def failed(answer: Answer, name: str) -> tuple[str, str]:
    """What the error of a host says, and its hint."""
    assert answer.code == 1, str(answer)
    error = answer.host(name)["error"]
    assert error is not None, str(answer)
    return f"{error['message']}\n{error['stderr'] or ''}", error["hint"] or ""


def repair(*names: str, roles: str = "", inventory: Path = INVENTORY) -> None:
    """The next run converges, and then there is nothing to do."""
    chosen = ("--roles", roles) if roles else ()
    again = provision(*chosen, pattern=",".join(names), inventory=inventory)
    assert again.code == 0, str(again)
    idle = inv("plan", "--hosts", ",".join(names), *chosen, inventory=inventory)
    assert idle.code == 0, str(idle)


# ---- locks

LOCK = """
use Fcntl;
my ($name, $seconds) = @ARGV;
my $lock = pack("s s x4 q q l x4", F_WRLCK, 0, 0, 0, 0);
open(my $file, ">>", $name) or die;
fcntl($file, F_SETLK, $lock) or die;
open(my $ready, ">", "/run/holder-ready");
sleep $seconds;
"""
"""Holds a lock as apt does: of the whole file, with fcntl(2)."""


@contextmanager
def locked(machine: LabHost, file: str, seconds: int) -> Iterator[None]:
    """Another program of the host holds a lock for so long."""
    assert machine.run(["tee", "/run/holder.pl"], given=LOCK).returncode == 0
    shell(
        machine,
        f"systemd-run --quiet --collect --unit=holder perl /run/holder.pl {file} {seconds};"
        " until [ -e /run/holder-ready ]; do sleep 0.1; done",
    )
    try:
        yield
    finally:
        machine.run(["sh", "-c", "systemctl stop holder.service; rm /run/holder*"])


def test_a_lock_that_another_program_holds_is_waited_for(converged: Lab) -> None:
    first, second = host(converged, "gpu-01"), host(converged, "gpu-03")
    for machine in (first, second):
        shell(machine, WITHOUT_HEADERS)
    began = time.monotonic()
    with (
        locked(first, "/var/lib/dpkg/lock-frontend", 8),
        locked(second, "/var/lib/apt/lists/lock", 8),
    ):
        answer = provision("--roles", "driver", pattern="gpu-01,gpu-03")
        assert answer.code == 0, str(answer)
        assert time.monotonic() - began >= 7
    repair("gpu-01", "gpu-03", roles="driver")


# ---- mirrors


def test_a_mirror_that_is_down_is_told(converged: Lab) -> None:
    machine = host(converged, "gpu-01")
    shell(machine, WITHOUT_HEADERS)
    rule = "OUTPUT --protocol tcp --dport 8081 --jump REJECT --reject-with tcp-reset"
    shell(machine, f"iptables --insert {rule}")
    try:
        said, hint = failed(provision("--roles", "driver", pattern="gpu-01"), "gpu-01")
        assert "Could not connect to" in said or "Unable to connect to" in said
        assert "the host cannot reach the server" in hint
    finally:
        shell(machine, f"iptables --delete {rule}")
    repair("gpu-01", roles="driver")


def test_a_repository_that_is_not_there_is_not_written(converged: Lab, tmp_path: Path) -> None:
    """The packages are there, so nothing else would ask it, until an upgrade in some months."""
    machine, sources = host(converged, "gpu-01"), "ls /etc/apt/sources.list.d/"
    document, before = lab_inventory(), shell(machine, sources)
    mirror = document["gpu-nodes"]["vars"]["mirror"]
    signed = {"key": mirror["key"], "fingerprint": mirror["fingerprint"]}
    document["gpu-nodes"]["vars"]["toolkit"] = {"repo": {"uri": f"{mirror['base']}/nowhere", **signed}}
    moved = write_inventory(tmp_path, document)
    said, hint = failed(provision("--roles", "toolkit", pattern="gpu-01", inventory=moved), "gpu-01")
    assert "nowhere" in said
    assert hint
    assert shell(machine, sources) == before
    plan = inv("plan", "--hosts", "gpu-01", "--roles", "toolkit", inventory=moved)
    assert plan.code == 3, str(plan)
    assert "nowhere" in plan.out


def test_a_package_with_other_bytes_is_refused(converged: Lab, tmp_path: Path) -> None:
    machine = host(converged, "gpu-01")
    shell(machine, WITHOUT_HEADERS)
    bad = aptrepo.corrupted(converged.layout.www / "nvidia", f"{HEADERS}_*", tmp_path / "bad")
    with converged.serving("nvidia", bad):
        said, hint = failed(provision("--roles", "driver", pattern="gpu-01"), "gpu-01")
    assert "Hash Sum mismatch" in said
    assert "mirror" in hint
    assert machine.run(["dpkg", "-s", HEADERS]).returncode != 0
    repair("gpu-01", roles="driver")


def test_a_repository_that_another_key_signed_is_refused(converged: Lab, tmp_path: Path) -> None:
    names = ("gpu-01", "gpu-03")
    for name in names:
        shell(host(converged, name), WITHOUT_HEADERS)
    key = aptrepo.signing_key(converged.layout.cache, "debian")
    foreign = aptrepo.signed_by(converged.layout.www / "nvidia", key, tmp_path / "foreign")
    with converged.serving("nvidia", foreign):
        answer = provision("--roles", "driver", pattern=",".join(names))
        for name in names:
            said, hint = failed(answer, name)
            assert "another key" in hint, f"{said}\n{hint}"
    repair(*names, roles="driver")


# ---- packages


def test_a_full_disk_is_told(converged: Lab) -> None:
    machine = host(converged, "gpu-01")
    place = f"/usr/src/linux-headers-{platform.release()}"
    shell(machine, f"{WITHOUT_HEADERS}; mkdir -p {place} && mount -t tmpfs -o size=4k tmpfs {place}")
    machine.run(["dd", "if=/dev/zero", f"of={place}/full"])
    try:
        said, hint = failed(provision("--roles", "driver", pattern="gpu-01"), "gpu-01")
        assert "No space left on device" in said
        assert "the disk is full" in hint
    finally:
        shell(machine, f"umount {place}")
    repair("gpu-01", roles="driver")


def test_what_dpkg_left_half_done_is_finished(converged: Lab) -> None:
    machine = host(converged, "gpu-03")
    shell(
        machine, f"{WITHOUT_HEADERS}; cd /tmp && apt-get download -q {HEADERS} && dpkg --unpack {HEADERS}_*"
    )
    assert HEADERS in shell(machine, "dpkg --audit")
    repair("gpu-03", roles="driver")
    assert shell(machine, "dpkg --audit") == ""


def test_a_package_that_somebody_holds_at_another_version_is_left_alone(
    converged: Lab, tmp_path: Path
) -> None:
    document = lab_inventory()
    document["gpu-nodes"]["vars"]["toolkit"] = {"version": "1.20.0-1"}
    newest = write_inventory(tmp_path, document)
    machine = host(converged, "gpu-01")
    all_four = " ".join(f"{name}=1.19.1-1" for name in TOOLKIT)
    tools = TOOLKIT[-1]
    shell(
        machine,
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y --allow-change-held-packages --allow-downgrades install"
        f" {all_four} && apt-mark hold {tools} && sed -i '/^{tools}$/d' /var/lib/provision/held",
    )
    before = shell(machine, "dpkg -l; apt-mark showhold")
    refused = provision("--roles", "toolkit", pattern="gpu-01", inventory=newest)
    said, hint = failed(refused, "gpu-01")
    assert f"{tools} is held at 1.19.1-1" in said
    assert f"apt-mark unhold {tools}" in hint
    assert shell(machine, "dpkg -l; apt-mark showhold") == before
    shell(machine, f"apt-mark unhold {tools}")
    answer = provision("--roles", "toolkit", pattern="gpu-01", inventory=newest)
    assert answer.code == 0, str(answer)
    assert shell(machine, f"dpkg-query -W -f '${{Version}}' {tools}") == "1.20.0-1"
    repair("gpu-01", roles="toolkit")


def test_a_module_that_does_not_build_is_told_with_its_log(converged: Lab) -> None:
    machine = host(converged, "gpu-02")
    shell(
        machine,
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y --allow-change-held-packages purge"
        " nvidia-kernel-open-dkms",
    )
    machine.break_gpus("dkms-build")
    try:
        said, hint = failed(provision("--roles", "driver", pattern="gpu-02"), "gpu-02")
        assert "Bad return status for module build on kernel" in said
        assert "make.log" in said + hint
        assert hint
    finally:
        machine.break_gpus()
    repair("gpu-02")


def test_a_newer_kernel_gets_headers_and_the_driver_before_it_is_booted(converged: Lab) -> None:
    machine = host(converged, "gpu-02")
    newer = newer_kernel()
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -y"
    shell(machine, f"{apt} update && {apt} install linux-image-{newer}")
    try:
        assert machine.run(["modinfo", "-k", newer, "nvidia"]).returncode != 0
        answer = provision("--roles", "driver", pattern="gpu-02")
        assert answer.code == 0, str(answer)
        assert answer.host("gpu-02")["reboots"] == 0
        assert shell(machine, f"modinfo -k {newer} -F version nvidia").strip() == "580.159.04"
        assert shell(machine, "modinfo -F version nvidia").strip() == "580.159.04"
        assert inv("plan", "--hosts", "gpu-02", "--roles", "driver").code == 0
    finally:
        shell(machine, f"dkms remove nvidia/580.159.04 -k {newer}")
        shell(machine, f"{apt} purge linux-image-{newer} linux-headers-{newer}; rm -rf /lib/modules/{newer}")
    repair("gpu-02")


# ---- reboots

NOUVEAU = "mkdir -p /sys/module/nouveau && echo 1 >/sys/module/nouveau/refcnt"
"""What the kernel shows where it has loaded nouveau; gone at the next boot, as the blacklist is there."""


def test_a_reboot_is_done_where_it_is_allowed_and_the_run_goes_on(converged: Lab) -> None:
    machine = host(converged, "gpu-03")
    later = "/usr/local/lib/provision/triton-gpu-gate"
    shell(machine, f"{NOUVEAU}; chmod 700 {later}")
    before = machine.boot_id()

    said, _ = failed(provision(pattern="gpu-03"), "gpu-03")
    assert said.startswith("reboot needed: nouveau is loaded")
    assert machine.boot_id() == before
    assert shell(machine, f"stat -c %a {later}") == "700\n", "what comes after the reboot was done"

    answer = provision("--reboot", pattern="gpu-03")
    assert answer.code == 0, str(answer)
    assert answer.host("gpu-03")["reboots"] == 1
    assert machine.boot_id() not in (before, None)
    assert shell(machine, f"stat -c %a {later}") == "755\n"
    assert inv("plan", "--hosts", "gpu-03").code == 0


def test_pending_modes_of_gpus_are_reasons_to_reboot(converged: Lab) -> None:
    machine = host(converged, "gpu-01")
    refresh = "/usr/lib/nvidia-standin/module refresh nvidia"
    machine.break_gpus(fields={"mig.mode.pending": "Enabled", "ecc.mode.pending": "Disabled"})
    try:
        shell(machine, refresh)
        plan = inv("plan", "--hosts", "gpu-01", inventory=INVENTORY)
        assert plan.code == 3, str(plan)
        assert "MIG of GPU 0 is disabled, enabled is pending" in plan.out
        assert "ECC of GPU 1 is enabled, disabled is pending" in plan.out
    finally:
        machine.break_gpus()
        shell(machine, refresh)
        # GPUs that begin anew have no persistence mode, which its daemon gives them when it starts.
        shell(machine, "systemctl restart nvidia-persistenced.service")
    assert inv("plan", "--hosts", "gpu-01").code == 0


SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def test_secure_boot_refuses_a_driver_that_would_not_load_before_anything_is_touched(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    machine.break_gpus("secure-boot")
    shell(machine, f"mkdir -p {SECURE_BOOT.rpartition('/')[0]}; printf '\\6\\0\\0\\0\\1' >{SECURE_BOOT}")
    said, hint = failed(provision("--roles", "driver", pattern="gpu-02"), "gpu-02")
    assert "Secure Boot is on, and DKMS has no key yet" in said
    assert "mokutil" in hint
    assert shell(machine, "ls /etc/apt/sources.list.d") == "debian.sources\n"
    machine.break_gpus()
    shell(machine, f"rm {SECURE_BOOT}")
    repair("gpu-02", roles="driver")


def test_a_host_that_somebody_reboots_during_a_run_is_told_and_converges_later(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    before = machine.boot_id()
    process = start("provision", "--hosts", "gpu-02", "--yes", "--json", "--roles", "driver")
    wait_for(lambda: running(machine))
    machine.kill()
    machine.boot()
    out, err = process.communicate(timeout=120)
    answer = Answer(process.returncode, out, err)
    said, hint = failed(answer, "gpu-02")
    assert "boot" in said, str(answer)
    assert hint
    assert machine.boot_id() != before
    repair("gpu-02", roles="driver")
