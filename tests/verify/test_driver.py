"""The driver: every GPU on the bus answers, and every part of the driver is of one version."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import pytest
from testinfra.host import Host

from provision.errors import Refusal
from provision.facts import Facts
from provision.resources.packages.installed import Installed, require
from provision.roles.driver.fabric_manager import upstream
from provision.roles.driver.health import Reading
from provision.roles.driver.kernel import headers_of_later_kernels
from provision.roles.driver.packages.choose import DriverPackages
from provision.roles.driver.role import (
    BLACKLIST,
    LEFT_ALONE,
    DriverSettings,
    fabric_manager_of,
    packages_of,
    resources,
)
from provision.verify import Missing, fail, skip, warn
from provision.verify.written import differing, require_settled

ROLE = "driver"
AGAIN = "inv provision --hosts {host} --roles driver"

Packages = Mapping[str, Installed]


@pytest.fixture
def chosen(host: Host, settings: DriverSettings, facts: Facts) -> DriverPackages:
    """What the role gives this host."""
    assert host.nvidia.addresses
    try:
        return packages_of(settings, facts)
    except Refusal as refusal:
        raise Missing("driver for this host", refusal.message, refusal.hint) from refusal


@pytest.fixture
def held(settings: DriverSettings, facts: Facts, chosen: DriverPackages) -> list[str]:
    """The packages that stay as they are, the Fabric Manager's among them."""
    try:
        manager = fabric_manager_of(settings, facts, chosen)
    except Refusal as refusal:
        raise Missing("driver for this host", refusal.message, refusal.hint) from refusal
    beside_manager = [chosen.subnet_manager] if manager and facts.nvlink5 else []
    return [*chosen.versioned, *chosen.beside, *filter(None, [manager]), *beside_manager]


@pytest.fixture
def packages(
    host: Host, settings: DriverSettings, facts: Facts, chosen: DriverPackages, held: list[str]
) -> Packages:
    """The packages of the host, all that it needs among them."""
    later = headers_of_later_kernels(facts) if settings.headers and not chosen.prebuilt else ()
    found: Packages = host.nvidia.packages
    require("driver packages", found, (*held, *chosen.pinning, *later), AGAIN)
    return found


def require_files(host: Host, settings: DriverSettings, facts: Facts) -> None:
    """See that the files that the role writes are as it wrote them."""
    if wrong := differing(host, resources(settings, facts)):
        raise Missing("files of the driver role", "; ".join(wrong), AGAIN)


# ── what all others stand on ─────────────────────────────────────────────────────────────────────────────


def test_gpus_are_on_the_bus(host: Host) -> None:
    assert host.nvidia.addresses


@pytest.mark.usefixtures("packages")
def test_packages_are_installed(host: Host) -> None:
    gone, changed = host.nvidia.lost_files, host.nvidia.changed_files
    if wrong := gone or changed:
        more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
        raise Missing(
            "driver packages",
            f"{wrong[0]}{more} of the driver's packages is {'gone' if gone else 'changed'}",
            f"{AGAIN}; on the host: apt-get install --reinstall, dnf reinstall: what dpkg -S or rpm -qf says",
        )


def test_no_driver_is_beside_that_of_packages(host: Host) -> None:
    host.nvidia.require_packages_alone()


@pytest.mark.usefixtures("held")
def test_files_are_as_provisioned(host: Host, settings: DriverSettings, facts: Facts) -> None:
    require_files(host, settings, facts)


@pytest.mark.usefixtures("held")
def test_no_run_ended_early(host: Host, settings: DriverSettings, facts: Facts) -> None:
    require_settled(host, resources(settings, facts))


def test_nouveau_is_not_loaded(host: Host) -> None:
    assert host.nvidia.is_free_of_nouveau


def test_kernel_module_is_loaded(host: Host, facts: Facts) -> None:
    if facts.secure_boot:
        host.nvidia.require_trusted_module()
    assert host.nvidia.module_version


def test_all_parts_are_of_one_version(host: Host, packages: Packages, chosen: DriverPackages) -> None:
    proof = upstream(packages[chosen.proof].version)
    told = {name: upstream(packages[name].version) for name in packages if name in chosen.versioned}
    told |= {name: upstream(p.version) for name, p in packages.items() if "fabric" in name}
    others = {name: version for name, version in told.items() if name == chosen.proof or version != proof}
    host.nvidia.require_one_version({f"package {name}": version for name, version in others.items()})


def test_every_gpu_on_the_bus_answers(host: Host) -> None:
    host.nvidia.require_every_gpu()


# ── the module ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.hint("on the host: update-initramfs -u -k all, or dracut --force --regenerate-all")
def test_nouveau_is_kept_out_at_boot(host: Host) -> None:
    """The initramfs loads drivers before the root file system with our blacklist is there."""
    if without := host.nvidia.images_without(BLACKLIST):
        warn(f"{' and '.join(without)} without {BLACKLIST}: nouveau may take the GPUs at the next boot")


@pytest.mark.hint(AGAIN)
def test_modules_are_of_the_flavour(host: Host, chosen: DriverPackages) -> None:
    loaded, wanted = host.nvidia.flavour, chosen.flavour
    assert loaded == wanted.modules, f"the {loaded} modules are loaded, wanted {wanted.reason}"


def test_modules_are_there_for_the_kernels(host: Host, packages: Packages, chosen: DriverPackages) -> None:
    """The running kernel has the module, and so has the newest one, which the host boots next."""
    wanted = upstream(packages[chosen.proof].version)
    wrong = []
    for kernel in host.nvidia.kernels:
        # DKMS may say "installed" and have kept a file of another version that it found in the same place.
        dkms = [name.rpartition("/")[2] for name in kernel.built]
        if not kernel.version:
            wrong.append(f"kernel {kernel.kernel} has no module of the driver")
        elif kernel.version not in (wanted, "?") or (dkms and wanted not in dkms):
            books = f" (dkms: {', '.join(kernel.built)})" if dkms else ""
            wrong.append(f"kernel {kernel.kernel} has the driver's module {kernel.version}{books}")
    if wrong:
        fail("; ".join(wrong), f"{AGAIN}; on the host: dkms status")


@pytest.mark.hint("a kernel that validates will not load it; on the host: mokutil --sb-state")
def test_module_is_signed_where_that_is_needed(host: Host, facts: Facts) -> None:
    if facts.secure_boot and not host.nvidia.signer:
        warn("Secure Boot is on, and the module that is loaded is not signed: validation is off in shim")


@pytest.mark.usefixtures("chosen")
@pytest.mark.hint(f"{AGAIN}, then reboot the host")
def test_version_is_the_one_requested(host: Host, settings: DriverSettings) -> None:
    host.nvidia.require_one_version()
    loaded = host.nvidia.module_version
    assert loaded.split(".")[0] == str(settings.branch), (
        f"driver {loaded} is loaded and branch {settings.branch} is requested"
    )
    assert fnmatchcase(loaded, settings.upstream), (
        f"driver {loaded} is loaded and {settings.upstream} is requested"
    )


# ── what keeps it so ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.hint(AGAIN)
def test_packages_are_held(settings: DriverSettings, packages: Packages, held: list[str]) -> None:
    if not settings.hold:
        skip("driver.hold is false")
    loose = [name for name in held if not packages[name].held]
    assert not loose, f"the next upgrade of the system may move {', '.join(loose)}: not held"


@pytest.mark.usefixtures("held")
@pytest.mark.hint("on the host: apt-cache policy; a file in /etc/apt stands against provision-driver")
def test_branch_is_pinned(host: Host, settings: DriverSettings, facts: Facts, chosen: DriverPackages) -> None:
    """What apt makes of all its files, ours among them."""
    if facts.family == "rhel":
        skip("dnf keeps to the branch by the module's stream and the locks")
    candidate = host.nvidia.candidate(chosen.proof)
    alone = host.nvidia.left_alone if settings.hold else LEFT_ALONE
    open_ = [name for name in LEFT_ALONE if name not in alone]
    if open_ or not fnmatchcase(candidate, settings.wanted):
        require_files(host, settings, facts)
    assert not open_, f"unattended-upgrades may move {', '.join(f'{name}*' for name in open_)}"
    assert fnmatchcase(candidate, settings.wanted), (
        f"apt would install {chosen.proof} {candidate or 'of no version'}, wanted {settings.wanted}"
    )


# ── daemons and device nodes ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.hint("on the host: nvidia-modprobe -c 0 -u; systemctl restart nvidia-persistenced.service")
def test_device_nodes_are_there(host: Host) -> None:
    if missing := host.nvidia.missing_nodes:
        raise Missing("device nodes", f"device nodes are missing or out of date: {', '.join(missing)}")


@pytest.mark.hint(
    "on the host: systemctl daemon-reload; systemctl enable --now provision-nvidia-nodes.service"
)
def test_device_nodes_come_at_boot(host: Host, settings: DriverSettings, chosen: DriverPackages) -> None:
    if settings.source == "archive" and "nvidia-modprobe" not in chosen.installed:
        skip("nvidia-modprobe is not among the driver's packages")
    require_unit(host, "provision-nvidia-nodes.service")


@pytest.mark.hint("on the host: systemctl enable --now nvidia-persistenced.service")
def test_persistence_mode_is_on(host: Host, settings: DriverSettings) -> None:
    if not settings.persistence:
        skip("driver.persistence is false")
    cards = host.nvidia.gpus
    require_unit(host, "nvidia-persistenced.service")
    off = [str(card.index) for card in cards if card.persistence not in ("Enabled", "[N/A]", "N/A")]
    if off:
        fail(
            f"persistence mode is off for GPU {', '.join(off)}: the driver lets go of it between jobs",
            "on the host: systemctl restart nvidia-persistenced.service",
        )


@pytest.mark.hint("on the host: systemctl daemon-reload; systemctl enable --now nvidia-fabricmanager.service")
def test_fabric_manager_is_where_the_switches_are(
    host: Host, settings: DriverSettings, facts: Facts, packages: Packages
) -> None:
    unit = "nvidia-fabricmanager.service"
    if settings.fabric_manager == "off":
        skip("driver.fabric_manager is off")
    if not facts.has_nvswitch:
        if there := [name for name in packages if "fabric" in name]:
            warn(f"{', '.join(there)} is installed, and the host has no NVSwitch", "remove it on the host")
        return
    host.nvidia.require_one_version({n: upstream(p.version) for n, p in packages.items() if "fabric" in n})
    if not host.service(unit).is_running:
        fail(f"{unit} does not run: CUDA programs end with error 802", f"on the host: journalctl -u {unit}")
    require_unit(host, unit)
    states = host.nvidia.fabric
    if waiting := [gpu for gpu, state in states.items() if state.startswith(("Not Started", "In Progress"))]:
        fail(
            f"GPU {', '.join(waiting)} has not joined the fabric",
            f"on the host: journalctl -u {unit}; nvidia-smi -q | grep -A3 Fabric",
        )


def require_unit(host: Host, name: str) -> None:
    """See that a unit runs as its files say, and does so after a reboot too."""
    found = host.service(name).systemd_properties
    if found.get("LoadState") == "masked":
        raise Missing(
            name, f"{name} is masked", f"on the host: systemctl unmask {name}; systemctl enable --now {name}"
        )
    if found.get("ActiveState") != "active":
        raise Missing(name, f"{name} does not run")
    assert found.get("UnitFileState") == "enabled", (
        f"{name} is not enabled, so it does not run after a reboot"
    )
    assert found.get("NeedDaemonReload") == "no", f"systemd runs {name} as its files were before they changed"


# ── the GPUs ─────────────────────────────────────────────────────────────────────────────────────────────


def test_gpus_are_healthy(host: Host) -> None:
    found = host.nvidia.health
    failures = [reading for reading in found if reading.verdict == "fail"]
    concerns = [reading for reading in found if reading.verdict == "warn"]
    if failures:
        fail(told(failures), failures[0].hint)
    if concerns:
        warn(told(concerns), concerns[0].hint)


def told(found: list[Reading]) -> str:
    """Readings in one sentence."""
    return "; ".join(f"GPU {reading.gpu}: {reading.message}" for reading in found)
