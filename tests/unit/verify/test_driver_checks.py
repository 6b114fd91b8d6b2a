"""The driver's checks on a played host: a healthy one, and one with a single thing wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest

from provision.plan.script import ACTIVE
from provision.roles.driver.health import FIELDS
from provision.roles.driver.role import BLACKLIST, PREFERENCES
from provision.verify.outcome import HostResult
from provision.verify.suite import Choice
from tests.unit.verify.healthy_driver import (
    ALONE,
    CHANGED,
    FABRIC,
    FACTS,
    FOREIGN,
    HEALTH,
    HEALTHY,
    IMAGES,
    KERNELS,
    LIBRARIES,
    LOST,
    OWED,
    PACKAGES,
    POLICY,
    SIGNER,
    SMI,
    STATE,
    VERSION,
    alone,
    capture,
    driver,
    driver_packages,
    files_of,
    gpus,
    health,
    policy,
    row,
    state,
)
from tests.unit.verify.played_host import Played, There, Unit, look, said, verdicts


def checked(played: Played, **settings: object) -> HostResult:
    return look(played, driver(**settings))[0]


def messages(result: HostResult, verdict: str) -> dict[str, str]:
    return {check.name: check.message for check in verdicts(result, verdict).values()}


def test_healthy_host_passes_every_check_in_few_execs() -> None:
    result, connection = look(HEALTHY, driver())
    assert [check for check in result.checks if check.verdict != "pass"] == []
    assert len(result.checks) == 21
    assert connection.execs <= 5


def test_device_nodes_are_looked_at_before_nvidia_smi_makes_them() -> None:
    _, connection = look(HEALTHY, driver())
    first = {
        pattern: next(at for at, line in enumerate(connection.asked) if re.search(pattern, line))
        for pattern in (STATE, SMI)
    }
    assert first[STATE] < first[SMI]


def test_what_a_run_owes_that_is_under_way_is_no_finding() -> None:
    owed = HEALTHY.with_({OWED: said("reload-systemd-for-the-device-nodes\n")})
    assert "no run ended early" in messages(checked(owed), "fail")
    under_way = checked(owed.with_(facts={ACTIVE.name: "20261127T213211Z-f1d1fc\n"}))
    assert not messages(under_way, "fail")
    assert under_way.run == "20261127T213211Z-f1d1fc"


NOTHING_IN_SMI = said(capture("docker/H1_fault_no_nodes.txt").splitlines()[1], 9)
NO_LIBRARY = said("\n".join(capture("docker/H3_fault_no_lib.txt").splitlines()[:2]), 12)
HALF = driver_packages().out.replace("installed nvidia-k", "half-configured nvidia-k")
TWO = FACTS["pci"] + "0000:3b:00.0 0x030200 0x2330\n"
SIGNED_BY = "E: Conflicting values set for option Signed-By regarding source x /\n"
MISMATCH = said(capture("docker/H7a_mismatch.txt").partition("$ nvidia-smi\n")[2].partition("rc=")[0], 18)
NOT_ENROLLED = (
    "enforce=N none [integrity] confidentiality\nkey=/var/lib/dkms/mok.pub\n"
    "said=/var/lib/dkms/mok.pub is not enrolled\n"
)
"""What kernel and firmware say of DKMS's key."""

ENROLLED = NOT_ENROLLED.replace("not", "already")

OLD = {
    STATE: state("570.211.01", "NVIDIA UNIX Open Kernel Module for x86_64  570.211.01  Release Build"),
    SMI: MISMATCH,
}
DEAD, OFF = Unit(active="failed"), Unit(enabled="disabled")
STALE = Unit(properties={"NeedDaemonReload": "yes"})

BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "driver does not answer": (
        {"answers": {SMI: NOTHING_IN_SMI}},
        "every gpu on the bus answers",
        "shows no GPU: the kernel module nvidia is not loaded, or its",
    ),
    "nvidia-smi hangs": (
        {"answers": {SMI: said("", 124)}},
        "every gpu on the bus answers",
        "did not answer in time",
    ),
    "no library on the host": (
        {"answers": {SMI: NO_LIBRARY, LIBRARIES: said()}},
        "all parts are of one version",
        r"no version can be read of libnvidia-ml\.so\.1",
    ),
    "a library is gone": (
        {"answers": {SMI: NO_LIBRARY, LIBRARIES: said(), LOST: said("/usr/lib/libnvidia-ml.so.1\n/x\n")}},
        "packages are installed",
        r"/usr/lib/libnvidia-ml\.so\.1 and 1 more of the driver's packages is gone",
    ),
    "a program is changed": (
        {"answers": {CHANGED: said("/usr/bin/nvidia-smi\n")}},
        "packages are installed",
        "/usr/bin/nvidia-smi of the driver's packages is changed",
    ),
    "a restart is owed": (
        {"answers": {OWED: said("reload-systemd-for-the-device-nodes\n")}},
        "no run ended early",
        "an earlier run ended before it could reload systemd for the device nodes",
    ),
    "library of another version": (
        {"answers": {LIBRARIES: said("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535.261.03\n")}},
        "all parts are of one version",
        r"loaded module 580\.159\.04.*libnvidia-ml .*535\.261\.03",
    ),
    "a link that is gone": (
        {"answers": {LIBRARIES: said("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n")}},
        "all parts are of one version",
        r"^no version can be read of libnvidia-ml in /usr/lib/x86_64-linux-gnu$",
    ),
    "the module of before the upgrade": (
        {"answers": OLD},
        "all parts are of one version",
        r"the loaded module 570\.211\.01.*package nvidia-driver-cuda 580",
    ),
    "module not loaded": (
        {"answers": {STATE: state("")}},
        "kernel module is loaded",
        "the kernel module nvidia is not loaded",
    ),
    "module that Secure Boot refuses": (
        {
            "answers": {STATE: state(""), r"\nsecure_boot_keys$": said(NOT_ENROLLED)},
            "facts": {"secure-boot": "   1\n"},
        },
        "kernel module is loaded",
        r"is not loaded: Secure Boot is on, and the firmware does not know /var/lib/dkms/mok\.pub",
    ),
    "module that is away for another reason": (
        {
            "answers": {
                STATE: state(""),
                r"\nsecure_boot_keys$": said(ENROLLED),
            },
            "facts": {"secure-boot": "   1\n"},
        },
        "kernel module is loaded",
        "the kernel module nvidia is not loaded$",
    ),
    "no /proc": (
        {"answers": {STATE: said(state("").out + "module 580.159.04\n")}},
        "all parts are of one version",
        "no version can be read of /proc/driver/nvidia",
    ),
    "another branch is requested": (
        {
            "settings": {"branch": 570},
            "files": files_of(driver(branch=570)),
            "answers": {POLICY: policy("570.211.01-1")},
        },
        "version is the one requested",
        r"driver 580\.159\.04 is loaded and branch 570 is requested",
    ),
    "another version is requested": (
        {
            "settings": {"version": "580.95.05-1"},
            "files": files_of(driver(version="580.95.05-1")),
            "answers": {POLICY: policy("580.95.05-1")},
        },
        "version is the one requested",
        r"580\.159\.04 is loaded and 580\.95\.05 is requested",
    ),
    "package of another version": (
        {"answers": {PACKAGES: driver_packages(nvidia_kernel_open_dkms="580.95.05-1 hold")}},
        "all parts are of one version",
        r"package nvidia-kernel-open-dkms 580\.95\.05",
    ),
    "driver not held": (
        {"answers": {PACKAGES: driver_packages(nvidia_driver_cuda=f"{VERSION}-1 install")}},
        "packages are held",
        "may move nvidia-driver-cuda: not held",
    ),
    "driver half there": (
        {
            "answers": {
                PACKAGES: driver_packages(nvidia_kernel_open_dkms=None),
                KERNELS: said("6.18.44 - yes\n"),
            }
        },
        "packages are installed",
        "not installed: nvidia-kernel-open-dkms",
    ),
    "nothing brings headers": (
        {"answers": {PACKAGES: driver_packages(linux_headers_amd64=None)}},
        "packages are installed",
        "not installed: linux-headers-amd64",
    ),
    "dpkg was interrupted": (
        {"answers": {PACKAGES: said(HALF)}},
        "packages are installed",
        "nvidia-kernel-open-dkms is half-configured, as",
    ),
    "a driver of NVIDIA's installer": (
        {"answers": {FOREIGN: said("installer 575.57.08\n")}},
        "no driver is beside that of packages",
        r"NVIDIA's \.run installer has put a driver on the host \(575\.57\.08\)",
    ),
    "a library of no package": (
        {
            "answers": {
                FOREIGN: said("library /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.590.48.01\n"),
                LIBRARIES: said("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.590.48.01\n"),
                SMI: MISMATCH,
            }
        },
        "no driver is beside that of packages",
        r"programs load /usr/lib/x86_64-linux-gnu/libnvidia-ml\.so\.590\.48\.01, which belongs to no package",
    ),
    "no pin": (
        {"files": {PREFERENCES: None}, "answers": {POLICY: policy("590.48.01-1")}},
        "files are as provisioned",
        f"{PREFERENCES} is not there",
    ),
    "pin of another branch": (
        {"files": {PREFERENCES: There("Pin: version 570.*\n")}, "answers": {POLICY: policy("570.211.01-1")}},
        "files are as provisioned",
        f"{PREFERENCES} is not what the settings ask for",
    ),
    "a file of another mode": (
        {"files": {BLACKLIST: There(HEALTHY.files[BLACKLIST].text, mode=0o666)}},
        "files are as provisioned",
        "is 0666 root:root, wanted 0644 root:root",
    ),
    "another pin in the way": (
        {"answers": {POLICY: policy("590.48.01-1")}},
        "branch is pinned",
        r"apt would install nvidia-driver-cuda 590\.48\.01-1, wanted 580\.\*",
    ),
    "no candidate": (
        {"answers": {POLICY: policy("(none)")}},
        "branch is pinned",
        "nvidia-driver-cuda of no version",
    ),
    "apt cannot read its sources": (
        {"answers": {POLICY: said("", 100, SIGNED_BY)}},
        "branch is pinned",
        "apt cannot read its sources: Conflicting values set for option",
    ),
    "unattended upgrades move the driver": (
        {"answers": {ALONE: alone("nvidia-")}},
        "branch is pinned",
        r"unattended-upgrades may move libnvidia-\*",
    ),
    "proprietary modules": (
        {"answers": {STATE: state(kind="NVIDIA UNIX x86_64 Kernel Module  580.159.04  x")}},
        "modules are of the flavour",
        "the proprietary modules are loaded, wanted open modules",
    ),
    "newest kernel without a module": (
        {"answers": {KERNELS: said(f"6.18.44 {VERSION} yes nvidia/{VERSION}\n6.19.1 - no\n")}},
        "modules are there for the kernels",
        r"^kernel 6\.19\.1 has no module of the driver$",
    ),
    "DKMS kept a file of another version": (
        {"answers": {KERNELS: said(f"6.18.44 570.211.01 yes nvidia/{VERSION}\n")}},
        "modules are there for the kernels",
        r"has the driver's module 570\.211\.01 \(dkms: nvidia/580",
    ),
    "kernels cannot be told": (
        {"answers": {KERNELS: said()}},
        "modules are there for the kernels",
        "the kernels of the host cannot be told",
    ),
    "nouveau": (
        {"answers": {STATE: state("", more="nouveau loaded\n")}},
        "nouveau is not loaded",
        "nouveau is loaded and holds",
    ),
    "persistence off": (
        {"answers": {SMI: gpus(row() | {"persistence_mode": "Disabled"})}},
        "persistence mode is on",
        "off for GPU 0",
    ),
    "no persistence daemon": (
        {"units": {"nvidia-persistenced.service": DEAD}},
        "persistence mode is on",
        "nvidia-persistenced.service does not run",
    ),
    "no persistence daemon at boot": (
        {"units": {"nvidia-persistenced.service": OFF}},
        "persistence mode is on",
        "not enabled",
    ),
    "systemd has not read the unit": (
        {"units": {"provision-nvidia-nodes.service": STALE}},
        "device nodes come at boot",
        "as its files were before they changed",
    ),
    "no nodes at boot": (
        {"units": {"provision-nvidia-nodes.service": OFF}},
        "device nodes come at boot",
        "is not enabled",
    ),
    "no uvm node": (
        {"answers": {STATE: state(more="node nvidia-uvm\n")}},
        "device nodes are there",
        "out of date: /dev/nvidia-uvm",
    ),
    "health is not told": (
        {"answers": {HEALTH: said("", 124)}},
        "gpus are healthy",
        "GPUs' health: it did not answer in time",
    ),
    "memory errors": (
        {"answers": {HEALTH: health(ecc__errors__uncorrected__volatile__total="3")}},
        "gpus are healthy",
        "GPU 0: 3 uncorrected memory errors",
    ),
    "row remapping failed": (
        {"answers": {HEALTH: health(remapped_rows__failure="Yes")}},
        "gpus are healthy",
        "remapping a row",
    ),
    "half the lanes": (
        {"answers": {HEALTH: health(pcie__link__width__current="8")}},
        "gpus are healthy",
        "8 of 16 lanes",
    ),
    "power brake": (
        {"answers": {HEALTH: health(clocks_event_reasons__active="0x0000000000000084")}},
        "gpus are healthy",
        "power brake",
    ),
    "GPU requires reset": (
        {"answers": {HEALTH: health(temperature__gpu="[GPU requires reset]")}},
        "gpus are healthy",
        "GPU requires reset",
    ),
    "silent GPU": (
        {
            "facts": {"pci": TWO},
            "answers": {STATE: state(pci=TWO)},
            "files": files_of(driver(), FACTS | {"pci": TWO}),
        },
        "every gpu on the bus answers",
        "^GPU 0000:3b:00.0 is on the PCI bus and does not answer$",
    ),
    "no GPU at all": (
        {"facts": {"pci": ""}, "answers": {STATE: state("", pci="")}},
        "gpus are on the bus",
        "no NVIDIA GPU is on the PCI bus",
    ),
    "a branch that the GPU cannot have": (
        {"settings": {"branch": 470}},
        "packages are installed",
        "470",
    ),
}
"""What is changed, the one check that fails, and a pattern of its message."""


@pytest.mark.campaign("checks", sample=10)
@pytest.mark.parametrize("name", BROKEN)
def test_one_fault_fails_one_check_with_its_cause(name: str) -> None:
    change, check, pattern = BROKEN[name]
    settings = change.get("settings", {})
    result = checked(HEALTHY.with_(**{key: c for key, c in change.items() if key != "settings"}), **settings)
    failures = messages(result, "fail")
    assert failures.keys() == {check}
    assert re.search(pattern, failures[check]), failures[check]
    assert "\n" not in failures[check]
    assert all(c.hint and "HOST" not in c.hint for c in verdicts(result, "fail").values())
    assert all(
        message.startswith("for the same cause as 'driver: ") for message in messages(result, "skip").values()
    )


SWITCHED = HEALTHY.with_(
    {
        PACKAGES: driver_packages(nvidia_fabricmanager=f"{VERSION}-1 hold"),
        FABRIC: said("0, Completed, Success\n"),
    },
    facts={"pci": FACTS["pci"] + "0000:05:00.0 0x068000 0x22a3\n"},
    units={"nvidia-fabricmanager.service": Unit(properties={"NeedDaemonReload": "no"})},
)
FABRIC_CHECK = "fabric manager is where the switches are"


def test_a_host_with_switches_is_healthy_with_its_fabric_manager() -> None:
    assert {check.verdict for check in checked(SWITCHED).checks} == {"pass"}


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (
            {"answers": {PACKAGES: driver_packages()}},
            "packages are installed",
            "not installed: nvidia-fabricmanager",
        ),
        (
            {"units": {"nvidia-fabricmanager.service": DEAD}},
            FABRIC_CHECK,
            "service does not run: CUDA .* error 802",
        ),
        ({"units": {"nvidia-fabricmanager.service": OFF}}, FABRIC_CHECK, "is not enabled"),
        (
            {"answers": {FABRIC: said("0, In Progress, N/A\n")}},
            FABRIC_CHECK,
            "GPU 0 has not joined the fabric",
        ),
        (
            {
                "answers": {PACKAGES: driver_packages(nvidia_fabricmanager="580.95.05-1 hold")},
                "units": {"nvidia-fabricmanager.service": DEAD},
            },
            "all parts are of one version",
            r"package nvidia-fabricmanager 580\.95\.05",
        ),
        (
            {"answers": {PACKAGES: driver_packages(nvidia_fabricmanager=f"{VERSION}-1 install")}},
            "packages are held",
            "may move nvidia-fabricmanager",
        ),
    ],
)
def test_a_host_with_switches_needs_its_fabric_manager(change: dict[str, Any], check: str, says: str) -> None:
    result = checked(SWITCHED.with_(**change))
    failures = messages(result, "fail")
    assert failures.keys() == {check}
    assert re.search(says, failures[check]), failures[check]
    assert all(failed.hint for failed in verdicts(result, "fail").values())


@pytest.mark.parametrize(
    ("answers", "facts", "check", "says"),
    [
        (
            {PACKAGES: driver_packages(nvidia_fabricmanager=f"{VERSION}-1 hold")},
            {},
            FABRIC_CHECK,
            "nvidia-fabricmanager is installed, and the host has no NVSwitch",
        ),
        (
            {},
            {"secure-boot": "   1\n"},
            "module is signed where that is needed",
            "the module that is loaded is not signed",
        ),
        (
            {IMAGES: said("/boot/initrd.img-6.1.0-9-amd64\n")},
            {},
            "nouveau is kept out at boot",
            f"^/boot/initrd.img-6.1.0-9-amd64 without {BLACKLIST}",
        ),
        (
            {HEALTH: health(ecc__errors__uncorrected__aggregate__total="1", temperature__gpu="91")},
            {},
            "gpus are healthy",
            "^GPU 0: 1 uncorrected memory errors in its life; GPU 0: it is 91 °C hot$",
        ),
    ],
)
def test_what_works_and_should_be_known_is_a_warning(
    answers: dict[str, Any], facts: dict[str, str], check: str, says: str
) -> None:
    result = checked(HEALTHY.with_(answers, facts=facts))
    assert messages(result, "fail") == {}
    assert re.search(says, messages(result, "warn")[check])
    assert result.status == "ok"


BUSY = capture("nvidia-smi/busy_query.csv").splitlines()[1].split(", ")[4]


@pytest.mark.parametrize(
    ("answers", "facts"),
    [
        ({SIGNER: said("Canonical\n")}, {"secure-boot": "   1\n"}),
        ({HEALTH: health(**{field.replace(".", "__"): "[N/A]" for field in FIELDS if field != "index"})}, {}),
        ({HEALTH: health(clocks_event_reasons__active=BUSY)}, {}),
    ],
    ids=["signed module", "values that the GPU does not have", "busy, at its power limit"],
)
def test_what_is_no_finding(answers: dict[str, Any], facts: dict[str, str]) -> None:
    assert {check.verdict for check in checked(HEALTHY.with_(answers, facts=facts)).checks} == {"pass"}


@pytest.mark.parametrize(
    ("settings", "check", "says"),
    [
        ({"hold": False}, "packages are held", "driver.hold is false"),
        ({"persistence": False}, "persistence mode is on", "driver.persistence is false"),
        ({"fabric_manager": "off"}, FABRIC_CHECK, "driver.fabric_manager is off"),
    ],
)
def test_what_does_not_apply_is_skipped_with_a_reason(
    settings: dict[str, Any], check: str, says: str
) -> None:
    result = checked(HEALTHY.with_(files=files_of(driver(**settings))), **settings)
    assert messages(result, "fail") == {}
    assert messages(result, "skip") == {check: says}


@pytest.mark.parametrize("expression", ["persistence", "healthy", "one_version"])
def test_what_a_check_stands_on_fails_where_that_check_is_alone(expression: str) -> None:
    played = HEALTHY.with_({STATE: state("")})
    result = look(played, driver(), Choice(expression=expression))[0]
    assert [check.verdict for check in result.checks] == ["fail"]
    assert result.checks[0].message == "the kernel module nvidia is not loaded"


def test_who_is_not_root_is_told_so_once() -> None:
    """Others see half of a host, so every check would be wrong."""
    result, _ = look(HEALTHY.with_(facts={"user": "1000\n"}), driver())
    assert result.error is not None
    assert result.error.message == "logged in as root, who is not root"  # the played host's login
    assert result.error.hint == "set ansible_become: true for the host, or ansible_user: root"
    assert result.status == "failed"
    assert verdicts(result, "fail", "pass") == {}
