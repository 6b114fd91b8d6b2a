"""What every system that we promise gets: systems × GPU sets × branches, as plans of hosts without a driver.

``pytest --update-golden tests/unit/test_driver_golden.py`` writes ``tests/golden/driver``; look at the
difference in git.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Refusal
from provision.facts import Facts, Gpu
from provision.plan.declared import Declared
from provision.plan.plan import plan
from provision.resources.file import File
from provision.roles.driver.kernel import Kernel, Kernels
from provision.roles.driver.modules_on_disk import KernelModules
from provision.roles.driver.packages.choose import system_of
from provision.roles.driver.packages.table import TABLE
from provision.roles.driver.role import PREFERENCES, DriverSettings, resources
from tests.roles.test_role import compare
from tests.unit.examples import FINGERPRINT, KEY, bare
from tests.unit.recordings import SYSTEMS, facts_of

GOLDEN = Path(__file__).parent.parent / "golden" / "driver"


@dataclass(frozen=True)
class GpuSet:
    """The GPUs of a kind of host.

    :ivar fabric: ``nvswitches`` or ``nvlink5``, where they are joined by one.
    """

    name: str
    devices: tuple[int, ...]
    fabric: str = ""

    def on(self, facts: Facts) -> Facts:
        gpus = tuple(Gpu(f"0000:{n + 16:02x}:00.0", device) for n, device in enumerate(self.devices))
        switches = 4 if self.fabric == "nvswitches" else 0
        return replace(facts, gpus=gpus, nvswitches=switches, nvlink5=self.fabric == "nvlink5")


SERVERS = (
    GpuSet("2 × H100", (0x2330,) * 2),
    GpuSet("HGX H100, 8 GPUs and 4 NVSwitches", (0x2330,) * 8, "nvswitches"),
    GpuSet("HGX B200, 8 GPUs and NVLink 5", (0x2901,) * 8, "nvlink5"),
    GpuSet("L40S and A100", (0x26B9, 0x20B0)),
    GpuSet("2 × V100", (0x1DB4,) * 2),
    GpuSet("T4 and P100", (0x1EB8, 0x15F8)),
)
GRACE = (
    GpuSet("GH200 480GB", (0x2342,)),
    GpuSet("2 × GH200 144G HBM3e", (0x2348,) * 2),
    GpuSet("GB200, 4 GPUs and NVLink 5", (0x2941,) * 4, "nvlink5"),
    GpuSet("GB300, 4 GPUs and NVLink 5", (0x31C2,) * 4, "nvlink5"),
    GpuSet("L40S and A100", (0x26B9, 0x20B0)),
    GpuSet("2 × V100", (0x1DB4,) * 2),
)
BRANCHES = {
    ("debian 12", "archive"): (470, 535, 580),
    ("debian 13", "archive"): (535, 550, 580),
    ("debian 13", "cuda"): (580, 590, 610),
    ("ubuntu 22.04", "archive"): (470, 580, 595),
    ("ubuntu 24.04", "archive"): (535, 565, 580),
}
USUAL = (570, 580, 595)


def sources(facts: Facts) -> tuple[str, ...]:
    return ("cuda",) if facts.family == "rhel" else ("archive", "cuda")


def folder(facts: Facts) -> str:
    """The folder of a system as NVIDIA's repository calls it."""
    system = {"rocky": "rhel"}.get(facts.os, facts.os)
    version = facts.version.replace(".", "") if system == "ubuntu" else facts.major
    return f"{system}{version}/{'sbsa' if facts.machine == 'aarch64' else facts.machine}"


def settings(facts: Facts, source: str, branch: int) -> DriverSettings:
    repo = {
        "uri": f"https://mirror.example.org/nvidia/{folder(facts)}/",
        "key": KEY,
        "fingerprint": FINGERPRINT,
    }
    values: dict[str, Any] = {"source": source, "branch": branch}
    return DriverSettings.model_validate(values | ({} if source == "archive" else {"repo": repo}))


def told(facts: Facts, wanted: DriverSettings) -> Iterator[str]:
    """The plan of a host without a driver: what depends on system, GPUs and branch, one line each."""
    try:
        found = resources(wanted, facts)
    except Refusal as refusal:
        yield f"refused: {refusal.message} ({refusal.hint})"
        return
    items = [Declared("driver", resource) for resource in found]
    planned = plan("host", items, bare(items) | own_kernel(facts))
    pins = [r.content.decode() for r in found if isinstance(r, File) and r.path == PREFERENCES]
    for pin in pins:
        yield "pin " + pin.partition("Pin: version ")[2].replace("\nPin-Priority: ", " at ").strip()
    for change in planned.changes:
        kind = change.resource.partition(":")[0]
        if change.resource == "packages:driver":
            yield change.reason.partition(";")[0]
        if kind in ("packages", "kernel-headers", "fabric-manager", "service", "newest-kernel"):
            yield change.summary
        elif change.resource in ("driver-modules", "module:ib_umad"):
            yield change.summary.removesuffix(" if the packages have not built them")
    for note in planned.notes:
        yield f"note: {note}"


def own_kernel(facts: Facts) -> dict[str, Any]:
    """The states of a host that runs its only kernel, without headers."""
    headers = "kernel-devel" if facts.family == "rhel" else "linux-headers"
    kernel = Kernel(facts.kernel, f"{headers}-{facts.kernel}", ready=False)
    both = Kernels(kernel, kernel)
    return {
        "kernel-headers": both,
        "newest-kernel": (both, False),
        "driver-modules": (KernelModules(facts.kernel, "", headers=False),),
    }


def document(facts: Facts, source: str, branch: int) -> str:
    """Where the names come from; nothing for a branch that the source does not have."""
    rows = [row for row in TABLE if system_of(facts) in row.systems and row.source == source]
    return next((r.document for r in rows if r.branches[0] <= branch <= r.branches[1]), "")


def golden(system: str) -> str:
    """Everything about one system."""
    facts = facts_of(system)
    sets: Sequence[GpuSet] = GRACE if facts.machine == "aarch64" else SERVERS
    lines = [f"{system}: {facts.system}, {facts.machine}, kernel {facts.kernel}"]
    for source in sources(facts):
        for branch in BRANCHES.get((system_of(facts), source), USUAL):
            lines += ["", f"== source {source}, branch {branch}"]
            if names := document(facts, source, branch):
                lines += textwrap.wrap(f"names: {names}", 100, subsequent_indent="       ")
            for gpus in sets:
                host = gpus.on(replace(facts, secure_boot=False))
                lines += [
                    f"-- {gpus.name}",
                    *(f"   {x}" for x in told(host, settings(facts, source, branch))),
                ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_plans_of_a_system(system: str, update_golden: bool) -> None:
    compare(GOLDEN / f"{system}.txt", golden(system), update=update_golden)


def test_every_golden_file_is_of_a_system_that_is_tested() -> None:
    assert sorted(file.stem for file in GOLDEN.iterdir()) == SYSTEMS
    assert len(SYSTEMS) >= 8
    assert min(len(SERVERS), len(GRACE)) >= 6


def test_every_row_of_the_table_is_in_a_golden_file() -> None:
    text = "".join(file.read_text("utf-8") for file in GOLDEN.iterdir())
    for row in TABLE:
        first = textwrap.wrap(f"names: {row.document}", 100)[0]
        assert first in text, row


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_recording_is_of_the_system_that_its_name_says(system: str) -> None:
    facts = facts_of(system)
    name, version, *machine = system.split("-")
    assert system_of(facts) == f"{name} {version}"
    assert facts.machine == (machine[0] if machine else "x86_64")
    assert facts.gpus
    assert facts.family == ("debian" if name in ("debian", "ubuntu") else "rhel")


def test_recorded_switches_and_secure_boot() -> None:
    hgx, grace = facts_of("rocky-9"), facts_of("ubuntu-24.04-aarch64")
    assert (len(hgx.gpus), hgx.nvswitches, hgx.has_nvswitch, hgx.secure_boot) == (8, 4, True, True)
    assert (grace.architecture, grace.has_nvswitch, grace.secure_boot) == ("arm64", False, True)
    assert facts_of("ubuntu-24.04").nvlink5
