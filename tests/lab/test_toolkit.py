"""The toolkit on a real host: sources of other instructions, its configuration, and CDI specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import Answer, inv, lab_inventory, write_inventory
from tests.lab.test_provision import host, provision, shell

pytestmark = pytest.mark.lab

NAME = "gpu-02"
ROLES = ("--roles", "driver,toolkit")
SPEC = "/var/run/cdi/nvidia.yaml"
CONFIG = "/etc/nvidia-container-runtime/config.toml"
OLDER = "s/580[.]159[.]04/535.261.03/"
"""The edit that makes a spec one of an older driver."""

LISTS = "/etc/apt/sources.list.d"
REMARK = "of the user"
BY_HAND = (
    '[nvidia-container-cli]\\nno-cgroups = true\\n\\n[nvidia-container-runtime]\\nlog-level = "warning"\\n'
)

LISTED = "nvidia-ctk cdi list 2>/dev/null"
NAMES = "nvidia-smi --query-gpu=index,uuid --format=csv,noheader | tr -d ' ' | tr , '\\n'; echo all"


@pytest.fixture(scope="module")
def machine(lab: Lab) -> LabHost:
    """A host that somebody began to set up by hand, and that was provisioned then."""
    bare = host(lab, NAME)
    bare.reset()
    uri = repository()
    shell(bare, f"echo 'deb [signed-by=/usr/share/keyrings/old.gpg] {uri} /' >{LISTS}/gpu.list")
    shell(bare, f"mkdir -p {CONFIG.rpartition('/')[0]} && printf '# {REMARK}\\n{BY_HAND}' >{CONFIG}")
    answer = provision(*ROLES, pattern=NAME)
    assert answer.code == 0, str(answer)
    return bare


def repository() -> str:
    """The address of the lab's mirror of the toolkit's repository."""
    base = lab_inventory()["gpu-nodes"]["vars"]["mirror"]["base"]
    return f"{base}/nvidia.github.io/libnvidia-container/stable/deb/amd64"


def changes(answer: Answer) -> set[tuple[str, str]]:
    """What a run changed, and how; it ended well, so its plan of the time after is empty."""
    assert answer.code == 0, str(answer)
    return {(row["resource"], row["action"]) for row in answer.host(NAME)["changes"]}


def repair() -> set[tuple[str, str]]:
    """Provision; what that changed."""
    return changes(provision(*ROLES, pattern=NAME))


def test_what_was_there_before_is_in_order(machine: LabHost) -> None:
    assert shell(machine, f"ls {LISTS} | grep -v ^provision-").split() == ["debian.sources"]
    text = shell(machine, f"cat {CONFIG}")
    assert "no-cgroups = false" in text
    assert 'log-level = "warning"' in text
    kept = shell(machine, f"grep -l -r '{REMARK}' /var/backups/provision")
    assert kept.endswith(f"{CONFIG}\n")
    assert shell(machine, "dpkg-query -W -f '${Version}' nvidia-container-toolkit-base") == "1.20.0-1"


def test_the_spec_names_what_nvidia_smi_shows(machine: LabHost) -> None:
    shown = {f"nvidia.com/gpu={name}" for name in shell(machine, NAMES).split()}
    assert len(shown) == 5
    assert set(shell(machine, LISTED).split()) == shown


@pytest.mark.parametrize(
    "harm",
    [
        f"sed -i '{OLDER}' {SPEC}",
        f"rm {SPEC}",
        f"sed -i 's/nvidia1$/nvidia7/' {SPEC}",
        "systemctl disable --quiet nvidia-cdi-refresh.service",
        # Last: that the file is back wakes the unit once more.
        f"rm {SPEC}; mv /lib/modules/$(uname -r)/modules.dep /root",
    ],
    ids=["older driver", "gone", "another GPU", "not at boot", "gone, and the unit does nothing"],
)
def test_a_spec_that_is_not_right_is_made_anew(machine: LabHost, harm: str) -> None:
    before = shell(machine, f"cat {SPEC}")
    shell(machine, harm)
    assert repair() == {("cdi:generated", "refresh")}
    assert shell(machine, f"cat {SPEC}") == before
    shell(machine, "systemctl is-enabled nvidia-cdi-refresh.service")
    shell(machine, "[ ! -e /root/modules.dep ] || mv /root/modules.dep /lib/modules/$(uname -r)/")


def test_a_hand_made_spec_is_named_and_removed_where_that_is_wanted(machine: LabHost, tmp_path: Path) -> None:
    shell(machine, f"mkdir -p /etc/cdi && sed '{OLDER}' {SPEC} >/etc/cdi/by-hand.yaml")
    plan = inv("plan", "--hosts", NAME, *ROLES, "--json")
    assert plan.code == 0, str(plan)
    (note,) = [note for note in plan.host(NAME)["notes"] if "/etc/cdi/by-hand.yaml" in note]
    assert "is stale: it is of driver 535.261.03 and 580.159.04 is loaded" in note

    document = lab_inventory()
    document["gpu-nodes"]["vars"]["toolkit"] |= {"other_cdi_specs": "remove"}
    answer = provision(*ROLES, pattern=NAME, inventory=write_inventory(tmp_path, document))
    assert changes(answer) == {("cdi:others", "remove")}
    shell(
        machine,
        "[ ! -e /etc/cdi/by-hand.yaml ] && find /var/backups/provision -name by-hand.yaml | grep -q .",
    )


def test_a_second_source_with_another_key_stops_apt_and_is_removed(machine: LabHost) -> None:
    shell(machine, f"echo 'deb [signed-by=/usr/share/keyrings/old.gpg] {repository()} /' >{LISTS}/gpu.list")
    stopped = machine.run(["apt-get", "-q", "update"])
    assert "Conflicting values set for option Signed-By" in stopped.stderr
    shell(machine, f"echo 'deb https://packages.example.org/deb /' >{LISTS}/nvidia-docker.list")
    assert {action for resource, action in repair() if resource.startswith("other-sources:")} == {"remove"}
    assert shell(machine, f"ls {LISTS} | grep -v ^provision-").split() == ["debian.sources"]
    shell(machine, "apt-get -q update")


def test_config_is_repaired_and_the_rest_of_it_kept(machine: LabHost) -> None:
    shell(
        machine,
        "sed -i -e 's/^no-cgroups = false/no-cgroups = true # why not/'"
        " -e 's/^log-level = .*/log-level = \"debug\"/'"
        f" -e '/^.nvidia-container-runtime.$/a mode = \"legacy\"' {CONFIG}",
    )
    assert repair() == {(f"file:{CONFIG}", "update")}
    text = shell(machine, f"cat {CONFIG}")
    assert "no-cgroups = false # why not" in text
    assert '[nvidia-container-runtime]\nmode = "auto"\n' in text
    assert 'log-level = "debug"' in text


def test_in_the_end_nothing_is_left_to_do_and_nothing_wrong(machine: LabHost) -> None:
    assert repair() == set()
    answer = inv("verify", "--hosts", NAME, *ROLES, "--json")
    assert answer.code == 0, str(answer)
