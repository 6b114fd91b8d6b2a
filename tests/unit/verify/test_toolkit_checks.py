"""The toolkit's checks on a played host: a healthy one, and one with a single thing wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest

from provision.role import Role, Settings
from provision.roles import all_roles, choose
from provision.roles.toolkit.cdi import GENERATED
from provision.roles.toolkit.config import CONFIG_TOML
from provision.roles.toolkit.role import PACKAGES, ToolkitSettings
from provision.verify.outcome import HostResult
from provision.verify.suite import Choice
from tests.unit.examples import repo
from tests.unit.verify import healthy_driver as nvidia
from tests.unit.verify.healthy_driver import UUID, VERSION, capture, driver, files_of
from tests.unit.verify.played_host import Played, There, look, said, verdicts

INSTALLED = r"\ninstalled_packages nvidia-container-toolkit [^\n]*$"
DAMAGED = r"\ndamaged_files [^\n]*$"
CTK, CONFIG, CDI = r"^timeout .* nvidia-ctk", r"cat /etc/nvidia-container", r"\ncdi_state$"
SOURCES, FOUND = r"^apt-get indextargets", r"\nother_sources [^\n]*$"
TOML = "".join(capture("docker/B2_versions.txt").partition("#accept")[1:])
LIBRARY = f"/usr/lib/x86_64-linux-gnu/libcuda.so.{VERSION}"


def packages(state: str = "installed", **changed: str) -> str:
    rows = dict.fromkeys(PACKAGES, "1.20.0-1 hold") | {k.replace("_", "-"): v for k, v in changed.items()}
    return "".join(f"{state} {name} {row}\n" for name, row in rows.items() if row)


def cdi(*paths: str, version: str = VERSION, more: str = "boot enabled\n") -> str:
    """What a host with these specs, which are all as captured, says of them."""
    specs = "\n".join(f"==> {path} <==\n{capture('docker/nvidia.yaml')}" for path in paths)
    return f"driver {version}\nuuid {UUID}\nminor 0\n{more}{specs}"


def toolkit(**changed: Any) -> dict[Role, Settings]:
    settings: dict[str, Any] = {"version": "1.20.0-1", "repo": repo(), **changed}
    return {choose(all_roles(), ["toolkit"])[0]: ToolkitSettings.model_construct(None, **settings)}


HEALTHY = nvidia.HEALTHY.with_(
    {
        INSTALLED: said(packages()),
        DAMAGED: said(),
        CTK: said("NVIDIA Container Toolkit CLI version 1.20.0\ncommit: 5505e2f\n"),
        CONFIG: said(TOML),
        CDI: said(cdi(GENERATED)),
        SOURCES: said(),
        FOUND: said(),
    },
    files={CONFIG_TOML: There(TOML), "/sbin/ldconfig": There(mode=0o755), **files_of(toolkit())},
)


def checked(played: Played, expression: str = "", **settings: object) -> HostResult:
    return look(played, driver() | toolkit(**settings), Choice(expression=expression))[0]


def messages(result: HostResult, verdict: str) -> dict[str, str]:
    return {check.title: check.message for check in verdicts(result, verdict).values()}


def test_healthy_host_passes_every_check_in_few_execs() -> None:
    result, connection = look(HEALTHY, driver() | toolkit())
    assert [check for check in result.checks if check.verdict != "pass"] == []
    assert len([check for check in result.checks if check.role == "toolkit"]) == 12
    assert connection.execs <= 5


ROOTLESS = "[nvidia-container-cli]\nno-cgroups = true\n"
UBUNTUS = '[nvidia-container-cli]\nldconfig = "@/sbin/ldconfig.real"\n'
STRANGER = "https://x.example.org/libnvidia-container/stable/deb"
COPY = "/var/run/cdi/copy.yaml"
UVM = "/dev/nvidia-uvm"
SOCKET = "/run/nvidia-persistenced/socket"

BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "two versions": (
        {INSTALLED: said(packages(libnvidia_container_tools="1.19.1-1 hold"))},
        "toolkit: packages are of one version",
        r"libnvidia-container-tools 1\.19\.1-1, libnvidia-container1 1\.20",
    ),
    "half there": (
        {
            INSTALLED: said(f"installed {PACKAGES[3]} 1.20.0-1 hold\n"),
            CTK: said("", 127, "nvidia-ctk: not found"),
        },
        "toolkit: packages are of one version",
        "not installed: nvidia-container-toolkit, nvidia-container-toolkit-base",
    ),
    "dpkg was interrupted": (
        {INSTALLED: said(packages("unpacked"))},
        "toolkit: packages are of one version",
        "nvidia-container-toolkit is unpacked, as its installation was interrupted",
    ),
    "a program is gone": (
        {DAMAGED: said("missing /usr/bin/nvidia-ctk\n"), CTK: said("", 127)},
        "toolkit: files of its packages are as they came",
        "^/usr/bin/nvidia-ctk is missing$",
    ),
    "a hook is gone": (
        {
            DAMAGED: said("missing /usr/bin/nvidia-cdi-hook\n"),
            CDI: said(cdi(GENERATED, more="gone /usr/bin/nvidia-cdi-hook\n")),
        },
        "toolkit: files of its packages are as they came",
        "nvidia-cdi-hook is missing",
    ),
    "not held": (
        {INSTALLED: said(packages(libnvidia_container1="1.20.0-1 install"))},
        "toolkit: packages are held",
        "may move libnvidia-container1: not held",
    ),
    "no nvidia-ctk": (
        {CTK: said("", 127, "timeout: failed to run command 'nvidia-ctk': No such file or directory\n")},
        "toolkit: nvidia ctk answers",
        "nvidia-ctk does not answer: it is not installed",
    ),
    "nvidia-ctk hangs": ({CTK: said("", 124)}, "toolkit: nvidia ctk answers", "did not answer in time"),
    "another nvidia-ctk on the path": (
        {CTK: said("NVIDIA Container Toolkit CLI version 1.14.3\n")},
        "toolkit: nvidia ctk answers",
        r"nvidia-ctk is version 1\.14\.3, and its package is 1\.20\.0-1",
    ),
    "sources with two keys": (
        {SOURCES: said("", 100, "E: Conflicting values set for option Signed-By regarding source x /\n")},
        "toolkit: sources do not contradict",
        "apt cannot read its sources: Conflicting values set for option",
    ),
    "a second repository": (
        {FOUND: said(f"==> /etc/apt/sources.list.d/a.list <==\ndeb {STRANGER}/ /\n")},
        "toolkit: sources do not contradict",
        f"another source: {STRANGER}/ in /etc/apt/sources.list.d/a.list",
    ),
    "config.toml changed by hand": (
        {CONFIG: said(TOML.replace('"auto"', '"legacy"'))},
        "toolkit: config is as declared",
        "another nvidia-container-runtime.mode than is declared",
    ),
    "config.toml for rootless engines": (
        {CONFIG: said(ROOTLESS)},
        "toolkit: containers get access to devices",
        "no-cgroups is true, so containers see the GPUs",
    ),
    "config.toml is none": (
        {CONFIG: said("[nvidia-container-cli\n")},
        "toolkit: config is as declared",
        r"config\.toml:1: not TOML",
    ),
    "config.toml of another distribution": (
        {CONFIG: said(UBUNTUS)},
        "toolkit: ldconfig is there",
        "names /sbin/ldconfig.real, which the host does not have",
    ),
    "no CDI spec": ({CDI: said(cdi())}, "toolkit: cdi spec is of this driver", "there is no CDI spec"),
    "CDI spec of an older driver": (
        {CDI: said(cdi(GENERATED, version="590.48.01"))},
        "toolkit: cdi spec is of this driver",
        r"stale: it is of driver 580\.159\.04 and 590\.48\.01 is loaded",
    ),
    "CDI spec with a file that nobody has": (
        {CDI: said(cdi(GENERATED, more=f"gone {LIBRARY}\n"))},
        "toolkit: cdi spec is of this driver",
        f"stale: it names {LIBRARY}, which the host does not have",
    ),
    "a library of the driver is gone": (
        {CDI: said(cdi(GENERATED, more=f"gone {LIBRARY}\n")), nvidia.LOST: said(f"{LIBRARY}\n")},
        "driver: packages are installed",
        f"^{LIBRARY} of the driver's packages is gone",
    ),
    "a device node is gone": (
        {
            CDI: said(cdi(GENERATED, more=f"gone {UVM}\n")),
            nvidia.STATE: nvidia.state(more="node nvidia-uvm\n"),
        },
        "driver: device nodes are there",
        UVM,
    ),
    "the module is of before the upgrade": (
        {
            nvidia.STATE: nvidia.state("570.211.01", "Open Kernel Module for x86_64  570.211.01  Release"),
            CDI: said(cdi(GENERATED, version="570.211.01")),
        },
        "driver: all parts are of one version",
        r"the loaded module 570\.211\.01",
    ),
    "a GPU does not answer": (
        {
            CDI: said(cdi(GENERATED).replace("minor 0\n", "")),
            nvidia.SMI: nvidia.gpus(nvidia.row() | {"pci.bus_id": "00000000:3B:00.0"}),
        },
        "driver: every gpu on the bus answers",
        "GPU 0000:00:06.0 is on the PCI bus and does not answer",
    ),
    "no persistence daemon": (
        {
            CDI: said(cdi(GENERATED, more=f"gone {SOCKET}\n").replace("/usr/bin/nvidia-debugdump", SOCKET)),
            r"^systemctl is-active nvidia-persistenced": said("inactive\n", 3),
            r"^systemctl show nvidia-persistenced": said("ActiveState=inactive\nUnitFileState=enabled\n"),
        },
        "driver: persistence mode is on",
        "nvidia-persistenced.service does not run",
    ),
    "module not loaded": ({nvidia.STATE: nvidia.state("")}, "driver: kernel module is loaded", "not loaded"),
    "two CDI specs in one folder": (
        {CDI: said(cdi(GENERATED, COPY))},
        "toolkit: no other cdi spec contradicts",
        f"{COPY} names the same devices",
    ),
}
"""What is answered instead, the one check that fails, and a pattern of its message."""


@pytest.mark.campaign("checks", sample=10)
@pytest.mark.parametrize("name", BROKEN)
def test_one_fault_fails_one_check_with_its_cause(name: str) -> None:
    answers, check, pattern = BROKEN[name]
    result = checked(HEALTHY.with_(answers))
    failures = messages(result, "fail")
    assert failures.keys() == {check}
    assert re.search(pattern, failures[check]), failures[check]
    assert all(c.hint and "HOST" not in c.hint for c in verdicts(result, "fail").values())
    assert all(message.startswith("for the same cause as '") for message in messages(result, "skip").values())


@pytest.mark.parametrize(
    ("settings", "check", "says"),
    [
        (
            {"version": "1.19.1-1"},
            "packages are of one version",
            r"1\.20\.0-1 is installed and 1\.19",
        ),
        ({"repo": None}, "files are as provisioned", r"nvidia-github-io\S* is not there"),
    ],
)
def test_other_settings_than_were_provisioned_fail(settings: dict[str, Any], check: str, says: str) -> None:
    failures = messages(checked(HEALTHY, **settings), "fail")
    assert re.search(says, failures[f"toolkit: {check}"])


def test_a_version_with_a_container_escape_fails() -> None:
    old = packages(**{name.replace("-", "_"): "1.19.0-1 hold" for name in PACKAGES})
    played = HEALTHY.with_(
        {INSTALLED: said(old), CTK: said("version 1.19.0")}, files=files_of(toolkit(version=None))
    )
    failures = messages(checked(played, version=None), "fail")
    assert failures == {
        "toolkit: packages are of one version": "version 1.19.0-1 has a known container escape; "
        "1.19.1 is the first without one"
    }


OTHER = "/etc/cdi/nvidia.yaml"
OLDER = cdi(OTHER).partition("==> ")[2].replace(VERSION, "570.211.01")


@pytest.mark.parametrize(
    ("answers", "mode", "check", "says"),
    [
        (
            {CDI: said(cdi(GENERATED, more="boot disabled\n"))},
            0o644,
            "cdi spec is of this driver",
            "nvidia-cdi-refresh is disabled",
        ),
        ({}, 0o666, "config is as declared", "is 0666 of root, so others than root can change it"),
        (
            {CDI: said(f"{cdi(GENERATED)}\n==> {OLDER}")},
            0o644,
            "no other cdi spec contradicts",
            f"{OTHER} is a stale CDI spec: it is of driver 570",
        ),
    ],
)
def test_what_works_and_should_be_known_is_a_warning(
    answers: dict[str, Any], mode: int, check: str, says: str
) -> None:
    result = checked(HEALTHY.with_(answers, files={CONFIG_TOML: There(TOML, mode=mode)}))
    assert messages(result, "fail") == {}
    assert messages(result, "warn").keys() == {f"toolkit: {check}"}
    assert says in messages(result, "warn")[f"toolkit: {check}"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"hold": False}, {"toolkit: packages are held": "toolkit.hold is false"})],
)
def test_what_does_not_apply_is_skipped_with_a_reason(settings: dict[str, Any], says: dict[str, str]) -> None:
    result = checked(HEALTHY, "toolkit", **settings)
    assert messages(result, "fail") == {}
    assert messages(result, "skip") == says


def test_specs_are_not_looked_at_where_they_are_left_alone() -> None:
    skipped = messages(checked(HEALTHY, "cdi", cdi=False), "skip")
    assert set(skipped.values()) == {"toolkit.cdi is false"}
    assert len(skipped) == 2


def test_a_host_without_gpu_needs_no_spec_unless_it_is_to_have_a_driver() -> None:
    bare = HEALTHY.with_({nvidia.STATE: nvidia.state("", pci="")}, facts={"pci": ""})
    result = look(bare, toolkit())[0]
    assert messages(result, "fail") == {}
    assert set(messages(result, "skip").values()) == {"the host has no GPU"}
    failures = messages(checked(bare, "cdi"), "fail")
    assert failures == {"toolkit: cdi spec is of this driver": "no NVIDIA GPU is on the PCI bus"}
