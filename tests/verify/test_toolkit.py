"""The NVIDIA Container Toolkit: one version, its configuration, and a CDI spec of the GPUs that are there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from testinfra.host import Host

from provision.errors import Refusal
from provision.facts import Facts
from provision.resources.packages.installed import Installed, require
from provision.resources.packages.repository import package_source
from provision.resources.packages.sets import Package
from provision.roles.toolkit import cdi
from provision.roles.toolkit.config import CONFIG_TOML, differing
from provision.roles.toolkit.config_keys import flat
from provision.roles.toolkit.role import (
    FIRST_SAFE,
    LDCONFIG,
    NO_CGROUPS,
    OLD_REPOSITORIES,
    PACKAGES,
    ToolkitSettings,
    declared,
    resources,
    source_of,
)
from provision.verify import Missing, Target, fail, skip, warn
from provision.verify.written import differing as differing_files
from provision.verify.written import require_settled

ROLE = "toolkit"
AGAIN = "inv provision --hosts {host} --roles toolkit"
PERSISTENCE = "nvidia-persistenced.service"
RESTART = f"on the host: systemctl restart {cdi.UNIT}"

Packages = Mapping[str, Installed]


@pytest.fixture
def packages(host: Host) -> Packages:
    """The toolkit's packages."""
    found: Packages = host.container_toolkit.packages
    require("toolkit packages", found, PACKAGES, AGAIN)
    return found


@pytest.fixture
def specs(host: Host, settings: ToolkitSettings, facts: Facts, target: Target) -> cdi.CdiState:
    """Driver and specs of the host; the check is skipped where there is nothing to say of them."""
    if not settings.cdi:
        skip("toolkit.cdi is false")
    if not facts.gpus and not any(role.name == "driver" for role in target.settings):
        skip("the host has no GPU")
    state: cdi.CdiState = host.container_toolkit.cdi
    return state


def test_packages_are_of_one_version(packages: Packages, settings: ToolkitSettings) -> None:
    versions = {package.version for package in packages.values()}
    if len(versions) > 1:
        told = ", ".join(f"{name} {package.version}" for name, package in sorted(packages.items()))
        fail(f"its packages are of different versions: {told}", AGAIN)
    version = versions.pop()
    if settings.version and version != settings.version:
        fail(f"version {version} is installed and {settings.version} is requested", AGAIN)
    if not Package(PACKAGES[0], settings.version, least=FIRST_SAFE).accepts(version):
        fail(f"version {version} has a known container escape; {FIRST_SAFE} is the first without one", AGAIN)


@pytest.mark.usefixtures("packages")
def test_files_of_its_packages_are_as_they_came(host: Host) -> None:
    host.container_toolkit.require_files()


def test_files_are_as_provisioned(host: Host, settings: ToolkitSettings, facts: Facts) -> None:
    try:
        wrong = differing_files(host, resources(settings, facts))
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)
    if wrong:
        fail("; ".join(wrong), AGAIN)


def test_no_run_ended_early(host: Host, settings: ToolkitSettings, facts: Facts) -> None:
    require_settled(host, resources(settings, facts))


@pytest.mark.hint("on the host: type -a nvidia-ctk; remove the one that no package has")
def test_nvidia_ctk_answers(host: Host, packages: Packages) -> None:
    version = host.container_toolkit.version
    package = packages["nvidia-container-toolkit-base"].version
    assert package.startswith(version), f"nvidia-ctk is version {version}, and its package is {package}"


@pytest.mark.hint(AGAIN)
def test_packages_are_held(packages: Packages, settings: ToolkitSettings) -> None:
    if not settings.hold:
        skip("toolkit.hold is false")
    loose = [name for name, package in packages.items() if not package.held]
    assert not loose, f"the next upgrade of the system may move {', '.join(loose)}: not held"


@pytest.mark.hint(AGAIN)
def test_sources_do_not_contradict(host: Host, settings: ToolkitSettings, facts: Facts) -> None:
    own = [file.path for file in package_source(source_of(settings, facts), facts)]
    strangers = [
        f"{entry.uri} in {file.path}"
        for file in host.container_toolkit.sources(facts.family or "debian")
        if file.path not in own
        for entry in file.entries
        if any(f"/{part}/" in f"{entry.uri}/" for part in OLD_REPOSITORIES)
    ]
    assert not strangers, f"the toolkit's packages have another source: {strangers[0]}"


def test_config_is_as_declared(host: Host, settings: ToolkitSettings, facts: Facts) -> None:
    found = host.container_toolkit.config
    try:
        wrong = differing(found, declared(settings, facts))
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)
    others = [
        key
        for key in wrong
        if key != NO_CGROUPS and not (key == LDCONFIG and host.container_toolkit.lost_ldconfig)
    ]
    if others:
        fail(f"config.toml has another {', '.join(others)} than is declared", AGAIN)
    file = host.file(CONFIG_TOML)
    if found and (file.mode & 0o022 or file.user != "root"):
        warn(
            f"{CONFIG_TOML} is {file.mode:04o} of {file.user}, so others than root can change it",
            f"on the host: chown root: {CONFIG_TOML}; chmod 0644 {CONFIG_TOML}",
        )


@pytest.mark.hint(AGAIN)
def test_containers_get_access_to_devices(host: Host) -> None:
    assert not flat(host.container_toolkit.config).get(NO_CGROUPS), (
        f"{NO_CGROUPS} is true, so containers see the GPUs and may not use them (Unknown Error)"
    )


def test_ldconfig_is_there(host: Host) -> None:
    host.container_toolkit.require_working()


@pytest.mark.usefixtures("packages")
def test_cdi_spec_is_of_this_driver(host: Host, specs: cdi.CdiState) -> None:
    if specs.generated is None:
        fail(f"there is no CDI spec at {cdi.GENERATED}", RESTART)
    if faults := specs.faults(specs.generated):
        require_what_it_names(host, specs.generated)
        fail(f"{cdi.GENERATED} is stale: {faults[0]}", RESTART)
    if specs.at_boot is False:
        warn(f"{cdi.UNIT} is disabled: there is no CDI spec after a reboot", AGAIN)


def require_what_it_names(host: Host, spec: cdi.Spec) -> None:
    """See that a spec is not stale because something else is wrong: what it names is gone, two versions."""
    sockets = [] if host.service(PERSISTENCE).is_running else [p for p in spec.gone if "persistenced" in p]
    for base, lost in (
        ("toolkit packages", host.container_toolkit.damaged_files),
        ("driver packages", host.nvidia.lost_files),
        ("device nodes", host.nvidia.missing_nodes),
        (PERSISTENCE, sockets),
    ):
        if gone := [path for path in spec.gone if path in lost]:
            raise Missing(base, f"{gone[0]}, which {spec.path} names, is gone", AGAIN)
    host.nvidia.require_one_version()
    if not spec.gone:
        host.nvidia.require_every_gpu()


def test_no_other_cdi_spec_contradicts(specs: cdi.CdiState) -> None:
    remove = "remove it, or toolkit.other_cdi_specs: remove and inv provision"
    if specs.conflicts:
        fail(
            f"{specs.conflicts[0].path} names the same devices, so container engines resolve neither", remove
        )
    for spec in specs.others:
        if faults := specs.faults(spec):
            warn(f"{spec.path} is a stale CDI spec: {faults[0]}", remove)
