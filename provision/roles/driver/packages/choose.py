"""A host and the settings of its driver → its row of the table, filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from provision.errors import Refusal
from provision.facts import SUPPORTED, Facts
from provision.roles.driver.packages.flavour import Flavour
from provision.roles.driver.packages.table import ANY, ONE_NAME_FROM, PINNING_FROM, SWAPPED, TABLE, Row
from provision.roles.driver.packages.ubuntu import kernel_of_metapackage

Source = Literal["archive", "cuda"]


@dataclass(frozen=True)
class DriverPackages:
    """The packages of one host's driver. What is not told here is as in :class:`Row`, for its flavour.

    :ivar flavour: the kernel modules, and why these.
    :ivar pinning: installed before everything else; keeps apt on the branch.
    :ivar versioned: at the driver's version: userland and kernel modules.
    :ivar beside: with versions of their own: prebuilt modules have their kernel's.
    :ivar modules: the kernel module packages among them.
    :ivar prebuilt: what the names of packages with ready modules begin with, before a kernel's release;
        empty where DKMS builds the modules on the host, which takes the kernel's headers.
    :ivar kernels: the flavour of kernels that ready modules are for (``generic-hwe-24.04``), or nothing.
    """

    flavour: Flavour
    pinning: tuple[str, ...]
    versioned: tuple[str, ...]
    beside: tuple[str, ...]
    proof: str
    modules: tuple[str, ...]
    prebuilt: str
    kernels: str
    stream: str
    fabric_manager: str
    subnet_manager: str
    components: tuple[str, ...]
    exact: str
    caution: str

    @property
    def installed(self) -> tuple[str, ...]:
        """All of them but the Fabric Manager."""
        return (*self.pinning, *self.versioned, *self.beside)


def system_of(facts: Facts) -> str:
    """The system as the table names it: Ubuntu's releases are 22.04 and 24.04, of others the major counts."""
    return facts.system if facts.os == "ubuntu" else f"{facts.os} {facts.major}"


def package_set(
    facts: Facts, source: Source, branch: int, flavour: Flavour, *, prebuilt: bool = True
) -> DriverPackages:
    """Look a host up in the table.

    :param prebuilt: take modules that the distribution has built and signed, where there are some.
    :raises Refusal: if the system, the branch or the flavour is not in it.
    """
    row = _row(facts, source, branch)
    index = 0 if flavour.modules == "open" else 1

    def names(text: str) -> tuple[str, ...]:
        return tuple(text.format(branch=branch).split())

    userland, beside = names(row.userland), names(row.beside)
    modules = names((row.open, row.proprietary)[index])
    if not modules:
        raise Refusal(
            f"source {source} has no {flavour.modules} modules of branch {branch} for {system_of(facts)}",
            hint="another branch, or source: cuda",
        )
    kernels = kernel_of_metapackage(facts) if prebuilt and row.prebuilt[index] else ""
    prefix = ""
    if kernels:
        prefix = names(row.prebuilt[index])[0]
        userland, modules = userland + names(row.no_dkms[index]), ()
        beside += (f"{prefix}-{facts.kernel}", f"{prefix}-{kernels}")
    managers = names(row.fabric_manager)
    return DriverPackages(
        flavour=flavour,
        pinning=names(row.pinning) if branch >= PINNING_FROM else (),
        versioned=userland + modules,
        beside=beside,
        proof=names(row.proof)[0],
        modules=modules or beside,
        prebuilt=prefix,
        kernels=kernels,
        stream=row.stream[index].format(branch=branch),
        fabric_manager=(managers[0] if branch < ONE_NAME_FROM else managers[-1]) if managers else "",
        subnet_manager=row.subnet_manager,
        components=names(row.components),
        exact=row.exact[index],
        caution=row.caution[index],
    )


def _row(facts: Facts, source: Source, branch: int) -> Row:
    """The row of a host.

    :raises Refusal: saying what there is instead.
    """
    system = system_of(facts)
    rows = [row for row in TABLE if system in row.systems and row.source == source]
    if not rows:
        raise Refusal(_unknown_system(facts, source, system), hint=SUPPORTED)
    swapped = SWAPPED.get(branch) if source == "archive" and facts.os == "ubuntu" else None
    if swapped:
        raise Refusal(
            f"the packages of branch {branch} in {system}'s archive are transitional: they bring {swapped}",
            hint=f"branch: {swapped}",
        )
    for row in rows:
        if row.branches[0] <= branch <= row.branches[1]:
            return row
    there = ", ".join(_range(row) for row in sorted(rows, key=lambda row: row.branches))
    raise Refusal(
        f"source {source} has no branch {branch} for {system}; it has {there}",
        hint="driver.branch, or another driver.source",
    )


def _unknown_system(facts: Facts, source: Source, system: str) -> str:
    if facts.family == "rhel" and facts.major == "10":
        return (
            f"{system} has no streams of the module nvidia-driver, which are what keeps a host on its branch"
        )
    if facts.family == "rhel" and source == "archive":
        return f"{system} has no NVIDIA driver in its own repositories: source cuda"
    return f"no driver packages known for {system} from source {source}"


def _range(row: Row) -> str:
    first, last = row.branches
    return str(first) if first == last else f"{first} and later" if last == ANY else f"{first} to {last}"
