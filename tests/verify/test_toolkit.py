"""The NVIDIA Container Toolkit: one version, its configuration, and a CDI spec of the GPUs that are there."""

from __future__ import annotations

from typing import Any

from provision.causes.known_messages import cause
from provision.errors import Refusal
from provision.facts import Facts
from provision.probe import Probe, words
from provision.resources.packages.sets import Package
from provision.roles.toolkit import cdi
from provision.roles.toolkit.config import CONFIG_TOML, differing, read
from provision.roles.toolkit.config_keys import flat
from provision.roles.toolkit.role import (
    FIRST_SAFE,
    LDCONFIG,
    NO_CGROUPS,
    OLD_REPOSITORIES,
    PACKAGES,
    ToolkitSettings,
    declared,
    source_of,
)
from provision.verify import Evidence, fail, skip, warn

ROLE = "toolkit"
AGAIN = "inv provision --hosts HOST --roles toolkit"

RESTART = f"on the host: systemctl restart {cdi.UNIT}"
VERIFY = ("toolkit/verify.sh",)


def probes(settings: ToolkitSettings) -> list[Probe]:
    """Packages and their sources, the configuration, and what the CDI specs say."""
    return [
        Probe("toolkit packages", words("toolkit_packages", *PACKAGES), VERIFY),
        Probe("toolkit sources", "apt_targets", VERIFY),
        Probe("nvidia-ctk", "timeout -k 5 30 nvidia-ctk --version"),
        Probe("config.toml", f"[ ! -e {CONFIG_TOML} ] || cat {CONFIG_TOML}"),
        Probe("ldconfig", words("ldconfigs", CONFIG_TOML), VERIFY),
        cdi.QUESTION,
    ]


def installed(evidence: Evidence) -> dict[str, str]:
    """Version of each installed package."""
    rows = (line.split() for line in evidence["toolkit packages"].out.splitlines())
    return {row[1]: row[2] for row in rows if len(row) >= 3 and row[0] == "installed" and row[2] != "locked"}


def config(evidence: Evidence) -> dict[str, Any]:
    """What config.toml says; the check fails if it is not TOML."""
    try:
        return read(evidence["config.toml"].stdout)
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)


def specs(evidence: Evidence, settings: ToolkitSettings, facts: Facts) -> cdi.CdiState:
    """Driver and specs of the host; the check is skipped where there is nothing to say of them."""
    if not settings.cdi:
        skip("toolkit.cdi is false")
    state = cdi.parse(evidence[cdi.QUESTION.name])
    if not facts.gpus or not state.driver:
        skip("the kernel module is not loaded" if facts.gpus else "the host has no GPU")
    return state


def test_packages_are_of_one_version(evidence: Evidence, settings: ToolkitSettings) -> None:
    found = installed(evidence)
    if missing := [package for package in PACKAGES if package not in found]:
        fail(f"not installed: {', '.join(missing)}", AGAIN)
    if len(set(found.values())) > 1:
        fail(
            "its packages are of different versions: "
            + ", ".join(f"{package} {version}" for package, version in sorted(found.items())),
            AGAIN,
        )
    version = found[PACKAGES[0]]
    if settings.version and version != settings.version:
        fail(f"version {version} is installed and {settings.version} is requested", AGAIN)
    if not Package(PACKAGES[0], settings.version, least=FIRST_SAFE).accepts(version):
        fail(f"version {version} has a known container escape; {FIRST_SAFE} is the first without one", AGAIN)


def test_nvidia_ctk_answers(evidence: Evidence) -> None:
    answer = evidence["nvidia-ctk"]
    if not answer.ok or "version" not in answer.out:
        why, hint = cause(answer)
        fail(f"nvidia-ctk does not answer: {why}", hint)


def test_packages_are_held(evidence: Evidence, settings: ToolkitSettings) -> None:
    if not settings.hold:
        skip("toolkit.hold is false")
    rows = (line.split() for line in evidence["toolkit packages"].out.splitlines())
    held = {row[1] for row in rows if row[3:] == ["hold"]}
    if loose := [package for package in installed(evidence) if package not in held]:
        fail(f"the next upgrade of the system may move {', '.join(loose)}: not held", AGAIN)


def test_sources_do_not_contradict(evidence: Evidence, settings: ToolkitSettings, facts: Facts) -> None:
    answer = evidence["toolkit sources"]
    lines = answer.out.splitlines()
    if errors := [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]:
        fail(f"apt cannot read its sources: {errors[0]}", AGAIN)
    ours = source_of(settings, facts).uri.rstrip("/")
    others = {
        line.rstrip("/") for line in lines if any(f"/{part}/" in f"{line}/" for part in OLD_REPOSITORIES)
    }
    if strangers := sorted(others - {ours}):
        fail(f"the toolkit's packages have another source: {strangers[0]}", AGAIN)


def test_config_is_as_declared(evidence: Evidence, settings: ToolkitSettings, facts: Facts) -> None:
    try:
        wrong = differing(config(evidence), declared(settings, facts))
    except Refusal as refusal:
        fail(refusal.message, refusal.hint)
    if keys := [key for key in wrong if key != NO_CGROUPS]:
        fail(f"config.toml has another {', '.join(keys)} than is declared", AGAIN)


def test_containers_get_access_to_devices(evidence: Evidence) -> None:
    if flat(config(evidence)).get(NO_CGROUPS):
        fail(
            f"{NO_CGROUPS} is true, so containers see the GPUs and may not use them (Unknown Error)",
            AGAIN,
        )


def test_ldconfig_is_there(evidence: Evidence) -> None:
    named = str(flat(config(evidence)).get(LDCONFIG, "@/sbin/ldconfig"))
    there = evidence["ldconfig"].out.split()
    if named.startswith("@") and named[1:] not in there:
        fail(f"config.toml names {named[1:]}, which the host does not have", AGAIN)


def test_cdi_spec_is_of_this_driver(evidence: Evidence, settings: ToolkitSettings, facts: Facts) -> None:
    state = specs(evidence, settings, facts)
    if state.generated is None:
        fail(f"there is no CDI spec at {cdi.GENERATED}", RESTART)
    if faults := state.faults(state.generated):
        fail(f"{cdi.GENERATED} is stale: {faults[0]}", RESTART)
    if state.at_boot is False:
        warn(f"{cdi.UNIT} is disabled: there is no CDI spec after a reboot", AGAIN)


def test_no_other_cdi_spec_contradicts(evidence: Evidence, settings: ToolkitSettings, facts: Facts) -> None:
    state = specs(evidence, settings, facts)
    remove = "remove it, or toolkit.other_cdi_specs: remove and inv provision"
    if state.conflicts:
        fail(
            f"{state.conflicts[0].path} names the same devices, so container engines resolve neither", remove
        )
    for spec in state.others:
        if faults := state.faults(spec):
            warn(f"{spec.path} is a stale CDI spec: {faults[0]}", remove)
