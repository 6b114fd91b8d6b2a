"""The driver: every GPU on the bus answers, and every part of the driver is of one version."""

from __future__ import annotations

import re

from provision.causes.known_messages import cause
from provision.errors import Refusal
from provision.facts import Facts
from provision.gpu.nvidia_smi import GPUS, Card, cards
from provision.probe import Probe, words
from provision.resource import Planned
from provision.roles.driver.fabric_manager import upstream
from provision.roles.driver.health import HEALTH, Reading, readings
from provision.roles.driver.modules_on_disk import QUESTION, DriverModules
from provision.roles.driver.packages.choose import DriverPackages
from provision.roles.driver.role import (
    BLACKLIST,
    LEFT_ALONE,
    PREFERENCES,
    DriverSettings,
    fabric_manager_of,
    packages_of,
)
from provision.verify import Evidence, fail, skip, warn

ROLE = "driver"
AGAIN = "inv provision --hosts HOST --roles driver"

VERIFY = ("driver/verify.sh",)


def probes(settings: DriverSettings) -> list[Probe]:
    """The device nodes come first: nvidia-smi makes those that are missing when root runs it."""
    return [
        Probe("device nodes", "ls -1 /dev/nvidia* 2>/dev/null || :"),
        Probe("loaded modules", "cut -d' ' -f1 /proc/modules"),
        Probe("module version", "cat /sys/module/nvidia/version"),
        Probe("driver version", "cat /proc/driver/nvidia/version"),
        Probe("driver libraries", "driver_libraries", VERIFY),
        Probe("driver packages", "driver_packages", VERIFY),
        Probe("driver pins", words("driver_pins", PREFERENCES), VERIFY),
        QUESTION,
        Probe("module signer", "module_signer", VERIFY),
        Probe("initramfs contents", words("images_without", BLACKLIST), VERIFY),
        Probe("fabric", "fabric_states", VERIFY),
        GPUS,
        HEALTH,
    ]


def chosen(settings: DriverSettings, facts: Facts) -> DriverPackages:
    """What the role gives this host; the check is skipped where that is nothing."""
    try:
        return packages_of(settings, facts)
    except Refusal as refusal:
        skip(refusal.message)


def manager(settings: DriverSettings, facts: Facts) -> str:
    """The Fabric Manager's package; the check is skipped where the host has none."""
    try:
        return fabric_manager_of(settings, facts, chosen(settings, facts))
    except Refusal as refusal:
        skip(refusal.message)


def installed(evidence: Evidence) -> dict[str, str]:
    """Version of each installed package, without epoch and packaging suffix."""
    rows = (line.split() for line in evidence["driver packages"].out.splitlines())
    return {
        row[1]: upstream(row[2])
        for row in rows
        if len(row) >= 3 and row[0] == "installed" and row[2] != "locked"
    }


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
            "reboot the host; if it comes back, rebuild the initramfs: update-initramfs -u -k all",
        )


def test_nouveau_is_kept_out_at_boot(evidence: Evidence) -> None:
    """The initramfs loads drivers before the root file system with our blacklist is there."""
    if without := evidence["initramfs contents"].out.split():
        warn(
            f"{' and '.join(without)} without {BLACKLIST}: nouveau may take the GPUs at the next boot",
            "on the host: update-initramfs -u -k all, or dracut --force --regenerate-all",
        )


def test_modules_are_of_the_flavour(evidence: Evidence, settings: DriverSettings, facts: Facts) -> None:
    text = evidence["driver version"].out
    if "Kernel Module" not in text:
        skip("the kernel module is not loaded")
    loaded = "open" if "Open Kernel Module" in text else "proprietary"
    flavour = chosen(settings, facts).flavour
    if loaded != flavour.modules:
        fail(f"the {loaded} modules are loaded, wanted {flavour.reason}", AGAIN)


def test_modules_are_there_for_the_kernels(
    evidence: Evidence, settings: DriverSettings, facts: Facts
) -> None:
    """The running kernel has the module, and so has the newest one, which the host boots next."""
    packages = chosen(settings, facts)
    resource = DriverModules(settings.upstream, packages.modules, packages.prebuilt)
    try:
        state = resource.read(evidence[QUESTION.name])
    except ValueError as error:
        fail(f"the kernels of the host cannot be told: {error}", "on the host: ls /lib/modules; dkms status")
    change = resource.change(state, Planned())
    if wrong := [change.reason] if change else list(resource.notes(state, Planned())):
        fail("; ".join(wrong), f"{AGAIN}; on the host: dkms status")


def test_module_is_signed_where_that_is_needed(evidence: Evidence, facts: Facts) -> None:
    if not facts.secure_boot:
        return
    if not evidence["module version"].out.strip():
        skip("the kernel module is not loaded")
    if not evidence["module signer"].out.strip():
        warn(
            "Secure Boot is on, and the module that is loaded is not signed: validation is off in shim",
            "a kernel that validates will not load it; on the host: mokutil --sb-state",
        )


def test_packages_are_held(evidence: Evidence, settings: DriverSettings, facts: Facts) -> None:
    if not settings.hold:
        skip("driver.hold is false")
    packages = chosen(settings, facts)
    wanted = (*packages.versioned, *packages.beside, *filter(None, [manager(settings, facts)]))
    there = installed(evidence)
    if missing := [name for name in wanted if name not in there]:
        fail(f"not installed: {', '.join(missing)}", AGAIN)
    rows = (line.split() for line in evidence["driver packages"].out.splitlines())
    held = {row[1] for row in rows if row[3:] == ["hold"]}
    if loose := [name for name in wanted if name not in held]:
        fail(f"the next upgrade of the system may move {', '.join(loose)}: not held", AGAIN)


def test_branch_is_pinned(evidence: Evidence, settings: DriverSettings, facts: Facts) -> None:
    if facts.family == "rhel":
        skip("dnf keeps to the branch by the module's stream and the locks")
    lines = evidence["driver pins"].out.splitlines()
    pins = [line.removeprefix("pin ") for line in lines if line.startswith("pin ")]
    if pins != [settings.wanted]:
        fail(f"apt is pinned to {', '.join(pins) or 'nothing'}, wanted {settings.wanted}", AGAIN)
    alone = {line.removeprefix("alone ") for line in lines if line.startswith("alone ")}
    if settings.hold and (open_ := [name for name in LEFT_ALONE if name not in alone]):
        fail(f"unattended-upgrades may move {', '.join(f'{name}*' for name in open_)}", AGAIN)


def test_fabric_manager_is_where_the_switches_are(
    evidence: Evidence, settings: DriverSettings, facts: Facts
) -> None:
    there = [name for name in installed(evidence) if re.fullmatch(r"nvidia-fabric-?manager(-\d+)?", name)]
    state, *rows = evidence["fabric"].out.splitlines() or [""]
    if settings.fabric_manager == "off":
        skip("driver.fabric_manager is off")
    if not facts.has_nvswitch:
        if there:
            warn(f"{', '.join(there)} is installed, and the host has no NVSwitch", "remove it on the host")
        return
    if not there:
        fail("the GPUs are joined by NVSwitches, and there is no Fabric Manager: CUDA error 802", AGAIN)
    if state != "active":
        fail(
            f"nvidia-fabricmanager.service is {state or 'not there'}: CUDA programs end with error 802",
            "on the host: journalctl -u nvidia-fabricmanager.service",
        )
    waiting = [row for row in rows if re.search(r", (Not Started|In Progress)\b", row)]
    if waiting:
        fail(
            f"GPU {', '.join(row.partition(',')[0] for row in waiting)} has not joined the fabric",
            "on the host: journalctl -u nvidia-fabricmanager.service; nvidia-smi -q | grep -A3 Fabric",
        )


def test_all_parts_are_of_one_version(evidence: Evidence, settings: DriverSettings, facts: Facts) -> None:
    found = versions(evidence) | packaged(evidence, settings, facts)
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


def packaged(evidence: Evidence, settings: DriverSettings, facts: Facts) -> dict[str, str]:
    """What the packages say: the one that tells the driver's version, and every Fabric Manager."""
    there = installed(evidence)
    told = {f"package {name}": v for name, v in there.items() if re.match("nvidia-fabric-?manager", name)}
    try:
        proof = packages_of(settings, facts).proof
    except Refusal:
        return told
    return told | ({f"package {proof}": there[proof]} if proof in there else {})


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
