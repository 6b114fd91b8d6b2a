"""unattended-upgrades, the real one, leaves the driver alone by what is in its own configuration."""

from __future__ import annotations

import re

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.test_provision import host, provision, shell

pytestmark = [pytest.mark.lab, pytest.mark.slow]

OURS = "/etc/apt/apt.conf.d/60provision-driver"


def upgraded(machine: LabHost) -> set[str]:
    """The packages that it would upgrade."""
    said = shell(machine, "unattended-upgrade --dry-run --debug 2>&1")
    return set(re.findall(r"^Checking: (\S+)", said, re.MULTILINE)) & set(
        " ".join(re.findall(r"^Packages that will be upgraded: (.*)$", said, re.MULTILINE)).split()
    )


def test_the_driver_is_not_upgraded_even_without_pin_and_hold(lab: Lab) -> None:
    machine = host(lab, "gpu-02")
    machine.reset()
    answer = provision("--roles", "driver", pattern="gpu-02")
    assert answer.code == 0, str(answer)
    shell(
        machine,
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install unattended-upgrades"
        " && apt-mark showhold | xargs apt-mark unhold && rm /etc/apt/preferences.d/provision-*"
        " && echo 'Unattended-Upgrade::Origins-Pattern { \"origin=*\"; };' >/etc/apt/apt.conf.d/99everything",
    )
    assert "nvidia-driver-cuda" not in upgraded(machine)
    shell(machine, f"mv {OURS} /root")
    assert "nvidia-driver-cuda" in upgraded(machine), "without our file it would be"
    machine.reset()
