"""What was ordered × what is there: settings, sentences, and hosts that are left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.errors import InventoryError, RefusedError
from provision.expectation.differences import differences
from provision.expectation.driver import (
    Told,
    links_up,
    told_of,
    wrong_ecc,
    wrong_links,
    wrong_memory,
    wrong_names,
    wrong_pcie,
    wrong_versions,
)
from provision.expectation.settings import EXPECT, Expect, Pcie
from provision.facts import Facts, Gpu
from provision.hardware import Disk, Nic
from provision.inventory.settings import read
from provision.inventory.sources import load
from provision.probe import Output
from provision.roles import all_roles
from provision.run.fleet import Fleet, Rollout, exit_code, targets
from provision.run.inspection import ask_all
from tests.unit.examples import H100
from tests.unit.fake_host import FakeHost, target_of
from tests.unit.test_hardware import SERVER
from tests.unit.verify.healthy_driver import row

SLOTS = ("18", "3b", "86", "af", "5d", "9a", "cb", "db")
ADDRESSES = [f"0000:{slot}:00.0" for slot in SLOTS]
EIGHT = replace(H100, gpus=tuple(Gpu(address, 0x2330) for address in ADDRESSES))
SEVEN = replace(H100, gpus=tuple(gpu for gpu in EIGHT.gpus if gpu.address != "0000:5d:00.0"))
MIXED = replace(H100, gpus=(*SEVEN.gpus, Gpu("0000:5d:00.0", 0x20B5)))
AT_SEVEN = ", ".join(gpu.address for gpu in SEVEN.gpus)


def order(values: Mapping[str, Any]) -> Expect:
    return Expect.model_validate_json(json.dumps(values))


def nics(**more: str) -> dict[str, Any]:
    return {"nics": [{"count": 1, "id": "15b3:1021", **more}]}


SENTENCES: list[tuple[Mapping[str, Any], Facts, list[str]]] = [
    ({}, SEVEN, []),
    ({"gpus": {"model": "H100", "count": 8}}, EIGHT, []),
    ({"gpus": {"model": "nvidia h100", "slots": ADDRESSES}}, EIGHT, []),
    ({"gpus": {"model": "10de:2330"}}, EIGHT, []),
    (
        {"gpus": {"model": "10de:2330", "count": 8}},
        SEVEN,
        [f"expects 8 GPUs of 10de:2330, has 7: at {AT_SEVEN}"],
    ),
    (
        {"gpus": {"model": "10de:2330", "slots": ADDRESSES}},
        SEVEN,
        ["expects 8 GPUs of 10de:2330, has 7; none at 0000:5d:00.0"],
    ),
    (
        {"gpus": {"model": "H100", "slots": ADDRESSES}},
        MIXED,
        ["expects 8 GPUs of H100, has 7; none at 0000:5d:00.0; but 10de:20b5 at 0000:5d:00.0"],
    ),
    ({"gpus": {"model": "H100"}}, MIXED, ["expects all GPUs of H100, has 10de:20b5 at 0000:5d:00.0"]),
    ({"gpus": {"model": "H100"}}, replace(H100, gpus=()), ["expects all GPUs of H100, has no GPU"]),
    ({"gpus": {"count": 1}}, replace(H100, gpus=()), ["expects 1 GPU, has 0"]),
    ({"gpus": {"count": 0}}, H100, ["expects 0 GPUs, has 1: at 0000:18:00.0"]),
    ({"gpus": {"slots": ["0000:3b:00.0"]}}, H100, ["expects a GPU at 0000:3b:00.0, has none there"]),
    ({"memory": "about 8 GiB"}, H100, []),
    ({"memory": "at least 2 TiB"}, H100, ["expects at least 2 TiB of memory, has 0.01 TiB"]),
    (nics(speed="400 Gb/s", driver="mlx5*", name="IBP*"), H100, []),
    (
        nics(speed="200 Gb/s"),
        H100,
        ["expects 1 NIC (15b3:1021, 200 Gb/s), has 0; ibp93s0 (0000:5d:00.0) has 400 Gb/s"],
    ),
    ({"nics": [{"count": 3}]}, H100, []),
    (
        {"nics": [{"count": 2, "driver": "i40e", "name": "e*"}]},
        H100,
        [
            "expects 2 NICs (e*, driver i40e), has 0;"
            " ens1 (0000:5e:00.0) has no driver, eth0 (0000:5f:00.0) has no driver"
        ],
    ),
    (
        {"nics": [{"count": 1, "id": "1af4:1041", "speed": "10 Gb/s"}]},
        H100,
        ["expects 1 NIC (1af4:1041, 10 Gb/s), has 0; eth0 (0000:5f:00.0) has no link, so no speed"],
    ),
    ({"disks": [{"count": 2, "size": "at least 3.8 TB"}]}, H100, []),
    ({"disks": [{"transport": "usb"}, {"transport": "nvme", "model": "samsung*"}]}, H100, []),
    (
        {"disks": [{"count": 2, "transport": "nvme", "size": "about 7.68 TB"}]},
        H100,
        ["expects 2 disks (nvme, about 7.68 TB), has 0; nvme0n1 has 3.84 TB"],
    ),
    ({"cpu": {"sockets": 2, "cores": 4, "threads": 8, "model": "xeon*8480+"}}, H100, []),
    (
        {"cpu": {"sockets": 1, "cores": 8, "model": "*EPYC*"}},
        H100,
        [
            "expects 1 socket of CPUs, has 2",
            "expects 8 cores of CPUs, has 4",
            "expects CPUs of model '*EPYC*', has 'Xeon Platinum 8480+'",
        ],
    ),
    (
        {"firmware": {"secure_boot": True, "bios": "2.2.*"}},
        H100,
        ["expects Secure Boot to be on, it is off", "expects BIOS version '2.2.*', has '2.1.3'"],
    ),
]


@pytest.mark.parametrize(("values", "facts", "told"), SENTENCES, ids=lambda value: str(value)[:60])
def test_each_difference_is_one_sentence(values: Mapping[str, Any], facts: Facts, told: list[str]) -> None:
    assert differences(order(values), facts, SERVER) == told


def test_names_from_a_host_are_made_visible_and_bounded() -> None:
    hardware = replace(
        SERVER,
        disks=tuple(Disk(f"sd\x1b{n}", n, transport="sata") for n in range(1, 30)),
        nics=(Nic("\x1b[2J", "15b3:1021", driver="\n\n"),),
        cpu=replace(SERVER.cpu, model="\x1b[2J"),
        firmware=replace(SERVER.firmware, bios_version=""),
    )
    wanted = order(
        nics(driver="mlx5_core")
        | {"disks": [{"size": "at least 1 TB"}], "cpu": {"model": "x"}, "firmware": {"bios": "1"}}
    )
    told = differences(wanted, H100, hardware)
    assert all(text.isprintable() and len(text) < 300 for text in told)
    assert "and 21 more" in told[1]
    assert told[-1] == "expects BIOS version '1', and the host does not tell it"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("{gpu: {count: 8}}", "hosts.yml:4: unknown setting 'gpu' in expect; did you mean 'gpus'?", ""),
        ("{gpus: {modell: H100}}", "unknown setting 'modell' in expect.gpus; did you mean 'model'?", ""),
        (
            "{gpus: {model: H1000}}",
            "expect.gpus.model: no PCI id is known of 'H1000'",
            "did you mean H100? Or give its PCI id",
        ),
        ("{gpus: {model: RTX 4090}}", "no PCI id is known of 'RTX 4090'", "give its PCI id, as 10de:2330"),
        (
            "{gpus: {slots: ['0000:18:00.0', '0000:18:00.0']}}",
            "expect.gpus.slots: 0000:18:00.0 is there twice",
            "name each GPU once",
        ),
        (
            "{gpus: {count: 7, slots: ['0000:18:00.0']}}",
            "expect.gpus: count is 7, and slots has 1",
            "leave out",
        ),
        ("{memory: 2 TiB}", "expect.memory: '2 TiB' does not match", "about 2 TiB"),
        ("{memory: 2048}", "expect.memory: 2048 is not a string", "quote it"),
        ("{nics: [{speed: fast}]}", "expect.nics[0].speed: 'fast' does not match", "400 Gb/s"),
        ("{nics: [{id: mellanox}]}", "expect.nics[0].id: 'mellanox' does not match", "PCI id"),
        ("{driver: 580.15}", "expect.driver: 580.15 is not a string", "quote it"),
        ("[]", "expect is a list, not a mapping", ""),
    ],
)
def test_what_means_nothing_is_refused_with_its_line(tmp_path: Path, text: str, said: str, hint: str) -> None:
    (tmp_path / "hosts.yml").write_text(f"all:\n  hosts:\n    h:\n      expect: {text}\n")
    (host,) = load([tmp_path / "hosts.yml"]).select("h")
    with pytest.raises(InventoryError) as caught:
        read(Expect, host, EXPECT)
    assert said in str(caught.value)
    assert "hosts.yml:4" in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_an_order_is_merged_over_groups_and_is_enough_to_be_planned(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        "all:\n  vars: {expect: {gpus: {model: H100, count: 8}}}\n"
        "  hosts:\n    a: {expect: {gpus: {count: 4}}}\n    b: {driver: {}}\n"
    )
    hosts = load([tmp_path / "hosts.yml"]).select("all")
    found, without = targets(hosts, all_roles(), all_roles())
    assert {one.name: one.expect and one.expect.gpus and one.expect.gpus.wanted for one in found} == {
        "a": 4,
        "b": 8,
    }
    assert without == []
    docker = [role for role in all_roles() if role.name == "docker"]
    assert targets(hosts, docker, all_roles())[1] == ["b"], "it has other roles, none of which is chosen"


# ── hosts ────────────────────────────────────────────────────────────────────────────────────────────────


def pci(facts: Facts) -> str:
    return "".join(f"{gpu.address} 0x030200 0x{gpu.device:04x}\n" for gpu in facts.gpus)


def ordered(name: str, facts: Facts, **expect: Any) -> tuple[FakeHost, Any]:
    host = FakeHost({"a": "update"}, name)
    host.told["pci"] = pci(facts)
    wanted = order({"gpus": {"model": "H100", "count": 8}, **expect})
    return host, replace(target_of(host), expect=wanted)


def test_a_host_that_differs_is_refused_alone() -> None:
    good, wrong = ordered("good", EIGHT), ordered("wrong", SEVEN)
    hosts = {host.login.host: host for host, _ in (good, wrong)}
    with Fleet([good[1], wrong[1]], Rollout(), lambda *_: None, connect=lambda way: hosts[way.host]) as fleet:
        fleet.survey()
        fleet.apply("r")
        results = {result.host: result for result in fleet.in_order()}
    assert {name: result.status for name, result in results.items()} == {"good": "changed", "wrong": "failed"}
    assert hosts["wrong"].runs == []
    assert hosts["wrong"].wants == {"a": "update"}
    error = results["wrong"].error
    assert error is not None
    assert error.message == f"not what was ordered: expects 8 GPUs of H100, has 7: at {AT_SEVEN}"
    assert error.hint is not None
    assert "inv facts --hosts wrong" in error.hint
    assert exit_code(list(results.values()), check=False) == 1


def test_somebody_who_is_not_root_is_told_so_and_plans_nothing() -> None:
    host = FakeHost({"a": "update"}, "h")
    host.told["system"] = "6.1.0-1-amd64\nx86_64\namd64\nb001\n1000\n"
    with Fleet([target_of(host)], Rollout(), lambda *_: None, connect=lambda _: host) as fleet:
        fleet.survey()
        fleet.apply("r")
    assert host.runs == []
    error = fleet.results["h"].error
    assert error is not None
    assert error.message == f"logged in as {host.login.user}, who is not root"
    assert error.hint == "set ansible_become: true for the host, or ansible_user: root"


def test_facts_of_somebody_who_is_not_root_are_not_shown() -> None:
    host = FakeHost({}, "h")
    host.told["system"] = "6.1.0-1-amd64\nx86_64\namd64\nb001\n1000\n"
    with pytest.raises(RefusedError, match="who is not root"):
        ask_all(host)


def test_a_difference_that_is_allowed_is_told_and_the_host_is_changed() -> None:
    host, target = ordered("h", SEVEN, differences="allowed")
    with Fleet([target], Rollout(), lambda *_: None, connect=lambda _: host) as fleet:
        plans = fleet.survey()
        fleet.apply("r")
    assert plans["h"].notes == (f"not what was ordered: expects 8 GPUs of H100, has 7: at {AT_SEVEN}",)
    assert fleet.results["h"].status == "changed"


# ── the driver ───────────────────────────────────────────────────────────────────────────────────────────


def idle(**changed: str) -> Told:
    """A captured H100 with nothing to do, with some fields changed, whose dots are two underscores."""
    return Told(row() | {name.replace("__", "."): value for name, value in changed.items()})


def test_of_an_idle_gpu_the_best_generation_counts() -> None:
    slow = idle(pcie__link__gen__current="1")
    assert wrong_pcie(Pcie(generation=5, width=16), [idle(), slow]) == ""
    busy = idle(pcie__link__gen__current="3", clocks_event_reasons__active="0x0000000000000004")
    assert wrong_pcie(Pcie(generation=5), [idle(), busy]) == (
        "expects PCIe of generation 5: GPU 0 has generation 3 under load"
    )
    narrow = idle(pcie__link__width__current="8", pcie__link__gen__max="4")
    assert wrong_pcie(Pcie(generation=5, width=16), [narrow]) == (
        "expects PCIe of generation 5 and 16 lanes: GPU 0 has generation 4 at most, GPU 0 has 8 lanes"
    )


def test_what_the_driver_tells_is_compared() -> None:
    there = [
        idle(),
        idle(index="1", name="NVIDIA H100 PCIe", memory__total="81000", ecc__mode__current="[N/A]"),
    ]
    assert wrong_names("NVIDIA H100*", there) == ""
    assert wrong_names("*HBM3", there) == "expects GPUs called *HBM3: GPU 1 has NVIDIA H100 PCIe"
    assert wrong_memory("about 80 GiB", there) == ""
    assert wrong_memory("at least 81559 MiB", there) == (
        "expects at least 81559 MiB of memory in each GPU: GPU 1 has 81000 MiB"
    )
    assert wrong_ecc(there, on=True) == "expects ECC to be Enabled: GPU 1 has [N/A]"
    assert wrong_versions("580.*", there) == ""
    assert wrong_versions("590.*", there) == "expects driver 590.*, has 580.159.04"


def test_links_of_nvlink_that_are_up_are_counted() -> None:
    link = "\t Link {}: 26.562 GB/s\n"
    text = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)\n"
        + "".join(link.format(n) for n in range(18))
        + "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n"
        + "".join(link.format(n) for n in range(17))
        + "\t Link 17: <inactive>\n"
    )
    assert links_up(text) == {"0": 18, "1": 17}
    there = [idle(), idle(index="1"), idle(index="2")]
    assert (
        wrong_links(18, there, links_up(text))
        == "expects 18 NVLinks up on each GPU: GPU 1 has 17, GPU 2 has 0"
    )
    assert links_up("") == links_up("Link 0: 1 GB/s") == {}


def test_lines_that_are_no_gpu_are_left_out() -> None:
    told = told_of(Output(0, b"index,name\n0, A\n1, B, C\nNo devices found.\n"))
    assert [(gpu["index"], gpu["name"], gpu["memory.total"]) for gpu in told] == [("0", "A", "")]
    assert wrong_memory("at least 1 GB", told).endswith("GPU 0 has an unknown value MiB")
