"""A host with an H100 and a healthy driver, played from recorded answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from provision.facts import parse
from provision.probe import Output
from provision.resources.file import File
from provision.role import Role, Settings
from provision.roles import all_roles, choose
from provision.roles.driver.health import FIELDS
from provision.roles.driver.role import LEFT_ALONE, DriverSettings
from tests.unit.examples import repo
from tests.unit.verify.played_host import Played, There, Unit, said

CAPTURES = Path(__file__).parents[2] / "data" / "captures" / "h100-580"
VERSION = "580.159.04"
ADDRESS = "0000:00:06.0"
UUID = "GPU-00000000-1111-2222-3333-444444444444"
FACTS = {
    "os-release": "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
    "system": "6.18.44\nx86_64\namd64\nb\n",
    "pci": f"{ADDRESS} 0x030200 0x2330\n",
}
QUERY_40 = [
    "index", "uuid", "name", "serial", "pci.bus_id", "driver_version", "vbios_version", "compute_cap",
    "persistence_mode", "ecc.mode.current", "ecc.mode.pending", "ecc.errors.corrected.volatile.total",
    "ecc.errors.uncorrected.volatile.total", "ecc.errors.uncorrected.aggregate.total",
    "retired_pages.pending", "mig.mode.current", "mig.mode.pending", "pstate", "temperature.gpu",
    "temperature.memory", "power.draw", "power.limit", "enforced.power.limit", "power.default_limit",
    "clocks.current.sm", "clocks.max.sm", "clocks_event_reasons.active", "pcie.link.gen.current",
    "pcie.link.gen.max", "pcie.link.width.current", "pcie.link.width.max", "compute_mode", "memory.total",
    "memory.used", "memory.reserved", "gpu_recovery_action", "inforom.checksum_validation",
    "gsp.mode.current", "fabric.state", "fabric.status",
]  # fmt: skip
"""The fields of the captured query."""

# The last line of a question, as a regular expression: the functions that it calls are before it.
STATE, LIBRARIES, HEALTH = r"\ndriver_state$", r"\ndriver_libraries$", r"\ngpu_health [^\n]*$"
FOREIGN = r"\nforeign_driver [^\n]*$"
SMI, LOST = r"\nsmi --query-gpu=index,uuid[^\n]*$", r"\nlost_files [^\n]*$"
CHANGED = r"\nchanged_files [^\n]*$"
OWED, OWED_TO_DOCKER = r"\nnames_in [^\n]*$", r"\nowed_to_docker [^\n]*$"
PACKAGES = r"\ninstalled_packages 'nvidia-\*'[^\n]*$"
KERNELS, IMAGES, SIGNER = r"\nmodules_on_disk$", r"\nimages_without [^\n]*$", r"\nmodule_signer$"
FABRIC, POLICY, ALONE = r"\nfabric_states$", r"^apt-cache policy ", r"^apt-config dump "


def capture(name: str) -> str:
    """What a host with an H100 printed."""
    return (CAPTURES / name).read_text(encoding="utf-8")


def row() -> dict[str, str]:
    """The captured GPU's value of every field."""
    values = capture("nvidia-smi/smi_query_verify40.csv").splitlines()[1].split(", ")
    more = {"remapped_rows.failure": "No", "remapped_rows.pending": "No"}
    return dict(zip(QUERY_40, values, strict=True)) | more


def gpus(*rows: Mapping[str, str]) -> Output:
    """What nvidia-smi tells of these GPUs."""
    fields = ("index", "uuid", "pci.bus_id", "driver_version", "persistence_mode")
    return said("".join(", ".join(r[field] for field in fields) + "\n" for r in rows))


def health(**changed: str) -> Output:
    """The health of the captured GPU with some of its fields changed, whose dots are two underscores."""
    values = row() | {name.replace("__", "."): value for name, value in changed.items()}
    return said(",".join(FIELDS) + "\n" + ", ".join(values[field] for field in FIELDS) + "\n")


def state(version: str = VERSION, kind: str = "", pci: str = FACTS["pci"], more: str = "") -> Output:
    """What is there before nvidia-smi is asked; without a version the module is not loaded."""
    proc = re.search(r"^NVRM version: *(.*)$", capture("nvidia-smi/drv_proc.txt"), re.MULTILINE)
    assert proc is not None
    loaded = f"module {version}\nkind {kind or proc[1]}\n" if version else ""
    return said("".join(f"pci {line}\n" for line in pci.splitlines()) + loaded + more)


def driver_packages(**changed: str | None) -> Output:
    """What the package manager has, with "VERSION WANT" of some changed; ``_`` stands for ``-``."""
    rows: dict[str, str | None] = {
        "nvidia-driver-cuda": f"{VERSION}-1 hold",
        "nvidia-kernel-open-dkms": f"{VERSION}-1 hold",
        "libnvidia-ml1": f"{VERSION}-1 install",
        "linux-headers-amd64": "6.1-1 install",
    }
    rows |= {name.replace("_", "-"): value for name, value in changed.items()}
    return said("".join(f"installed {name} {value}\n" for name, value in rows.items() if value))


def policy(candidate: str = f"{VERSION}-1") -> Output:
    """What apt would install."""
    return said(
        f"nvidia-driver-cuda:\n  Installed: {VERSION}-1\n  Candidate: {candidate}\n  Version table:\n"
    )


def alone(*names: str) -> Output:
    """What unattended-upgrades leaves alone."""
    lines = [f'Unattended-Upgrade::Package-Blacklist:: "{name}";\n' for name in names]
    return said("".join(('Unattended-Upgrade::Package-Blacklist "";\n', *lines)))


def files_of(settings: Mapping[Role, Settings], facts: Mapping[str, str] = FACTS) -> dict[str, There]:
    """The files that these roles write on a host."""
    known = parse(
        {
            name: said(facts.get(name, ""))
            for name in ("os-release", "system", "pci", "nvlink5", "secure-boot")
        }
    )
    return {
        file.path: There(file.content, int(file.mode, 8))
        for role, chosen in settings.items()
        for file in role.resources(chosen, known)
        if isinstance(file, File)
    }


def driver(**changed: object) -> dict[Role, Settings]:
    """The role with the example's repository."""
    return {choose(all_roles(), ["driver"])[0]: DriverSettings.model_validate({"repo": repo(), **changed})}


HEALTHY = Played(
    facts=FACTS,
    units={
        name: Unit(properties={"NeedDaemonReload": "no"})
        for name in ("nvidia-persistenced.service", "provision-nvidia-nodes.service")
    },
    files=files_of(driver()),
    answers={
        STATE: state(),
        FOREIGN: said(),
        LIBRARIES: said(f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}\n"),
        SMI: gpus(row()),
        HEALTH: health(),
        PACKAGES: driver_packages(),
        LOST: said(),
        CHANGED: said(),
        OWED: said(),
        OWED_TO_DOCKER: said(),
        KERNELS: said(f"6.18.44 {VERSION} yes nvidia/{VERSION}\n" * 2),
        IMAGES: said(),
        SIGNER: said(),
        FABRIC: said("0, [N/A], [N/A]\n"),
        POLICY: policy(),
        ALONE: alone(*LEFT_ALONE),
    },
)
