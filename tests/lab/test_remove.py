"""What we wrote goes when it is not wanted any more, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import inv, lab_inventory, write_inventory
from tests.lab.test_provision import converged, host, image, provision, shell

pytestmark = pytest.mark.lab

__all__ = ["converged"]

NAME = "gpu-01"
OURS = (
    "find /etc /usr/local -xdev '(' -name '*provision*' -o -name 'triton*' ')';"
    " grep -r -l 'Written by provision' /etc /usr/local; apt-mark showhold;"
    " systemctl list-unit-files --no-legend 'triton@*' 'provision-*'; cat /var/lib/provision/ours"
    " /var/lib/provision/held"
)
"""Prints whatever is ours on a host, and all holds."""


@pytest.fixture
def machine(converged: Lab) -> LabHost:
    return host(converged, NAME)


def test_a_role_is_taken_off_a_host_and_what_others_wrote_stays(machine: LabHost, tmp_path: Path) -> None:
    document = lab_inventory()
    settings = document["gpu-nodes"]["vars"]
    mirror = settings["mirror"]
    signed = {"key": mirror["key"], "fingerprint": mirror["fingerprint"]}
    settings["toolkit"] = {"repo": {"uri": f"{mirror['base'].removesuffix('/mirror')}/nvidia", **signed}}
    moved = settings["triton"]["instances"]["other"] = settings["triton"]["instances"].pop("main")
    sources = "ls /etc/apt/sources.list.d/"
    before = set(shell(machine, sources).split())
    name = shell(machine, f"docker run --detach --runtime=runc --rm {image()} sleep 600").strip()
    key = r"sed -i '0,/{/s//{\n  \"max-concurrent-downloads\": 5,/' /etc/docker/daemon.json"
    shell(machine, f"grep -q max-concurrent-downloads /etc/docker/daemon.json || {key}")

    other = provision(pattern=NAME, inventory=write_inventory(tmp_path / "moved", document))
    assert other.code == 0, str(other)
    gone = before - set(shell(machine, sources).split())
    assert [name for name in gone if "libnvidia-container" in name], gone
    shell(machine, "test ! -e /etc/triton/main.env && test -e /etc/triton/other.env")

    del settings["triton"]
    less = write_inventory(tmp_path / "less", document)
    plan = inv("plan", "--hosts", NAME, "--json", inventory=less)
    assert plan.code == 0, str(plan)
    assert "role triton has no settings for this host" in str(plan.host(NAME)["notes"]), str(plan)
    needed = inv("remove", "--roles", "driver", "--hosts", NAME, "--yes", "--json", inventory=less)
    assert needed.code == 1, str(needed)
    assert "toolkit needs it" in needed.host(NAME)["error"]["message"], str(needed)
    remove = ("remove", "--roles", "triton,docker,toolkit,driver", "--hosts", NAME, "--json")
    unasked = inv(*remove, inventory=less)
    assert unasked.code == 2, str(unasked)

    answer = inv(*remove, "--yes", inventory=less)

    assert answer.code == 0, str(answer)
    assert machine.run(["sh", "-c", OURS]).stdout == ""
    assert moved["image"] in str(answer)
    assert "max-concurrent-downloads" in shell(machine, "cat /etc/docker/daemon.json")
    assert "nvidia" not in shell(machine, "cat /etc/docker/daemon.json")
    assert "true" in shell(machine, f"docker inspect --format '{{{{.State.Running}}}}' {name}")
    shell(
        machine,
        f"docker rm --force {name}; apt-get -s install -y nvidia-container-toolkit; test -d /srv/triton",
    )
    again = inv(*remove, "--yes", inventory=less)
    assert (again.code, again.host(NAME)["changes"]) == (0, []), str(again)
    back = provision(pattern=NAME)
    assert back.code == 0, str(back)
