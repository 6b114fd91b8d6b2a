"""What was ordered: the host is made of it, and the driver tells the same of its GPUs."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from provision.expectation.differences import differences
from provision.expectation.driver import (
    wrong_ecc,
    wrong_links,
    wrong_memory,
    wrong_names,
    wrong_pcie,
    wrong_versions,
)
from provision.expectation.settings import Expect
from provision.facts import Facts
from provision.hardware import Hardware
from provision.verify import fail, warn


def require(expect: Expect, wrong: str) -> None:
    """See that nothing is wrong."""
    if wrong:
        told = warn if expect.differences == "allowed" else fail
        told(wrong, "compare {host} with its order; expect: in the inventory says what was ordered")


@pytest.mark.expects
def test_hardware_is_as_ordered(expect: Expect, facts: Facts, hardware: Hardware) -> None:
    require(expect, "; ".join(differences(expect, facts, hardware)))


@pytest.mark.expects("driver")
def test_driver_is_the_one_ordered(host: Host, expect: Expect) -> None:
    assert expect.driver
    require(expect, wrong_versions(expect.driver, host.nvidia.told))


@pytest.mark.expects("gpus.name")
def test_gpus_have_the_name_ordered(host: Host, expect: Expect) -> None:
    assert expect.gpus
    assert expect.gpus.name
    require(expect, wrong_names(expect.gpus.name, host.nvidia.told))


@pytest.mark.expects("gpus.memory")
def test_gpus_have_the_memory_ordered(host: Host, expect: Expect) -> None:
    assert expect.gpus
    assert expect.gpus.memory
    require(expect, wrong_memory(expect.gpus.memory, host.nvidia.told))


@pytest.mark.expects("gpus.ecc")
def test_ecc_is_as_ordered(host: Host, expect: Expect) -> None:
    assert expect.gpus
    require(expect, wrong_ecc(host.nvidia.told, on=bool(expect.gpus.ecc)))


@pytest.mark.expects("gpus.pcie")
def test_pcie_links_are_as_ordered(host: Host, expect: Expect) -> None:
    assert expect.gpus
    assert expect.gpus.pcie
    require(expect, wrong_pcie(expect.gpus.pcie, host.nvidia.told))


@pytest.mark.expects("gpus.nvlinks")
def test_nvlinks_are_as_ordered(host: Host, expect: Expect) -> None:
    assert expect.gpus
    assert expect.gpus.nvlinks is not None
    require(expect, wrong_links(expect.gpus.nvlinks, host.nvidia.told, host.nvidia.links_up))
