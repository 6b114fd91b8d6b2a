"""The driver: every GPU on the bus answers, and every part of the driver is of one version."""

from __future__ import annotations

import re

from provision.command import Probe
from provision.facts import Facts
from provision.roles.driver import DriverSettings
from provision.verify import Evidence, fail, skip, warn
from provision.verify.causes import cause
from provision.verify.health import HEALTH, Reading, readings
from provision.verify.nvidia import GPUS, Card, cards

ROLE = "driver"

LIBRARIES = """found=$(ldconfig -p | sed -n 's/^[[:space:]]*libnvidia-ml\\.so\\.1 .*=> //p')
for library in $found; do readlink -f "$library"; done"""


def probes(settings: DriverSettings) -> list[Probe]:
    """The device nodes come first: nvidia-smi makes those that are missing when root runs it."""
    return [
        Probe("device nodes", "ls -1 /dev/nvidia* 2>/dev/null || :"),
        Probe("loaded modules", "cut -d' ' -f1 /proc/modules"),
        Probe("module version", "cat /sys/module/nvidia/version"),
        Probe("driver version", "cat /proc/driver/nvidia/version"),
        Probe("driver libraries", LIBRARIES),
        GPUS,
        HEALTH,
    ]


def answering(evidence: Evidence) -> list[Card]:
    """The GPUs that nvidia-smi shows; without an answer, the check fails."""
    answer = evidence[GPUS.name]
    found = cards(answer)
    if not found:
        why, hint = cause(answer)
        fail(f"nvidia-smi shows no GPU: {why}", hint)
    return found


def test_gpus_are_on_the_bus(facts: Facts) -> None:
    if not facts.gpus:
        fail(
            "no NVIDIA GPU is on the PCI bus",
            "look at the machine: seating and power of the GPUs, the BIOS, passthrough of a virtual machine",
        )


def test_every_gpu_on_the_bus_answers(evidence: Evidence, facts: Facts) -> None:
    there = {gpu.address for gpu in facts.gpus}
    answer = {card.address for card in answering(evidence)}
    if silent := sorted(there - answer):
        fail(
            f"{len(there)} GPUs are on the PCI bus and {len(there & answer)} answer: "
            f"{', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not",
            "on the host: dmesg | grep -i -e xid -e nvrm; a GPU that has fallen off the bus needs a reboot",
        )
    if unknown := sorted(answer - there):
        fail(f"nvidia-smi shows {', '.join(unknown)}, which the PCI bus does not", "reboot the host")


def test_kernel_module_is_loaded(evidence: Evidence) -> None:
    if not evidence["module version"].out.strip():
        fail(
            "the kernel module nvidia is not loaded",
            "on the host: modprobe nvidia; dkms status; dmesg | grep -i 'key was rejected' (Secure Boot)",
        )


def test_nouveau_is_not_loaded(evidence: Evidence) -> None:
    if "nouveau" in evidence["loaded modules"].out.split():
        fail(
            "nouveau is loaded and holds the GPUs",
            "reboot the host; if it comes back, rebuild the initramfs: update-initramfs -u",
        )


def test_all_parts_are_of_one_version(evidence: Evidence) -> None:
    found = versions(evidence)
    if missing := [part for part, version in found.items() if not version]:
        fail(f"no version can be read of {', '.join(missing)}", "inv provision --hosts HOST --roles driver")
    if len(set(found.values())) > 1:
        fail(
            "the parts of the driver are of different versions: "
            + ", ".join(f"{part} {version}" for part, version in found.items()),
            "reboot the host: the module of the installed version is loaded then",
        )


def test_version_is_the_one_requested(evidence: Evidence, settings: DriverSettings) -> None:
    loaded = evidence["module version"].out.strip()
    if not loaded:
        skip("the kernel module is not loaded")
    if loaded.split(".")[0] != str(settings.branch):
        fail(
            f"driver {loaded} is loaded and branch {settings.branch} is requested",
            "inv provision --hosts HOST --roles driver, then reboot the host",
        )
    if settings.version and upstream(settings.version) != loaded:
        fail(
            f"driver {loaded} is loaded and {upstream(settings.version)} is requested",
            "inv provision --hosts HOST --roles driver, then reboot the host",
        )


def test_persistence_mode_is_on(evidence: Evidence, settings: DriverSettings) -> None:
    if not settings.persistence:
        skip("driver.persistence is false")
    off = [card for card in answering(evidence) if card.persistence not in ("Enabled", "[N/A]", "N/A")]
    if off:
        fail(
            f"persistence mode is off for GPU {', '.join(str(card.index) for card in off)}: "
            "the driver lets go of it between jobs",
            "on the host: systemctl status nvidia-persistenced.service",
        )


def test_device_nodes_are_there(evidence: Evidence, facts: Facts) -> None:
    nodes = set(evidence["device nodes"].out.split())
    missing = [node for node in ("/dev/nvidiactl", "/dev/nvidia-uvm") if node not in nodes]
    numbered = [node for node in nodes if re.fullmatch(r"/dev/nvidia\d+", node)]
    if missing or len(numbered) < len(facts.gpus):
        what = missing or [f"/dev/nvidia0 to /dev/nvidia{len(facts.gpus) - 1} (there: {len(numbered)})"]
        fail(
            f"device nodes are missing: {', '.join(what)}",
            "on the host: nvidia-modprobe -c 0 -u; systemctl restart nvidia-persistenced.service",
        )


def test_gpus_are_healthy(evidence: Evidence) -> None:
    found = readings(evidence[HEALTH.name])
    if found is None:
        skip(f"nvidia-smi does not tell: {cause(evidence[HEALTH.name])[0]}")
    failures = [reading for reading in found if reading.verdict == "fail"]
    concerns = [reading for reading in found if reading.verdict == "warn"]
    if failures:
        fail(told(failures), failures[0].hint)
    if concerns:
        warn(told(concerns), concerns[0].hint)


def told(found: list[Reading]) -> str:
    """Readings in one sentence."""
    return "; ".join(f"GPU {reading.gpu}: {reading.message}" for reading in found)


def versions(evidence: Evidence) -> dict[str, str]:
    """What each part of the driver says of its version; "" where it says nothing."""
    module = re.search(r"^NVRM version: .*?  (\d+(?:\.\d+)+)", evidence["driver version"].out, re.MULTILINE)
    found = {
        "the loaded module": evidence["module version"].out.strip(),
        "/proc/driver/nvidia": module.group(1) if module else "",
    }
    libraries = evidence["driver libraries"].out.split()
    for path in libraries:
        found[path.rpartition("/")[2].partition(".so.")[0] + " in " + path.rpartition("/")[0]] = (
            path.partition(".so.")[2]
        )
    if not libraries:
        found["libnvidia-ml.so.1"] = ""
    for card in cards(evidence[GPUS.name]):
        found["nvidia-smi"] = card.driver
    return found


def upstream(version: str) -> str:
    """NVIDIA's version in Debian's: ``580.159.04`` of ``1:580.159.04-1``."""
    return version.partition(":")[2].partition("-")[0] if ":" in version else version.partition("-")[0]
