"""A rack at once: what is wrong with some machines keeps none of the others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from tests.lab.cli import inv
from tests.lab.first_login import DROP_IN, OPS, PASSWORD, Fleet, as_before, gets_in, hand_over, told

pytestmark = [pytest.mark.lab, pytest.mark.campaign("bringup")]

ROOT = {"user": "root", "password": PASSWORD}
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"
DARK = "gpu-dark"
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "wrong password": ({"bootstrap": {"password": "wrong"}}, "cannot log in as root: refused: the password"),
    "changed key": ({"host_key": OTHER_KEY}, "HAS CHANGED"),
}
"""What is wrong with a machine that answers, and what is said of it; the last machines of the lab have it."""


@pytest.fixture
def rack(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab's hosts before their first login: three, in the campaign nine. The tenth machine is dark."""
    if request.config.getoption("--campaign") == "bringup":
        lab.up(9, suites=("bookworm", "trixie"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(hand_over, lab.hosts))
        yield lab
        list(pool.map(as_before, lab.hosts))


def test_what_is_wrong_with_some_keeps_none_of_the_others(rack: Lab, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", ROOT)
    names = [host.name for host in rack.hosts]
    bad = dict(zip(names[-len(WRONG) :], WRONG.values(), strict=True))
    fleet.changed = {name: variables for name, (variables, _) in bad.items()}
    fleet.more = {DARK: {"ansible_host": f"{rack.layout.prefix}.250"}}
    answer = inv("bare.bootstrap", "--hosts", "gpu-nodes", "--yes", inventory=fleet.inventory)
    assert answer.code == 1, str(answer)
    assert PASSWORD not in answer.out + answer.err

    rows = dict(line.split(" : ") for line in answer.out.splitlines() if " : ok=" in line)
    table = {name.strip(): row.split()[1:4] for name, row in rows.items()}
    ready = [host for host in rack.hosts if host.name not in bad]
    expected = {name: ["changed=0", "unreachable=1", "failed=0"] for name in (*bad, DARK)}
    assert table == expected | {host.name: ["changed=5", "unreachable=0", "failed=0"] for host in ready}
    for name, (_, said) in bad.items():
        (line,) = [line for line in answer.out.splitlines() if line.startswith(f"{name}: unreachable: ")]
        assert said in line
    assert f"{DARK}: unreachable: {rack.layout.prefix}.250 port 22" in answer.out

    for host in ready:
        assert gets_in(host, OPS, tmp_path)
        assert not gets_in(host, "root", tmp_path, password=PASSWORD)
    for name in bad:
        (host,) = [host for host in rack.hosts if host.name == name]
        assert told(host, f"getent passwd {OPS}; ls {DROP_IN}") == ""
    again = fleet.bootstrap_of(":".join(host.name for host in ready), "--check")
    assert again.code == 0, str(again)


@pytest.mark.campaign("bringup", only=True)
def test_the_six_that_are_right_serve(rack: Lab, tmp_path: Path) -> None:
    """Ten machines with one inventory: a password, a key and a GPU are wrong, and one machine is dark."""
    fleet = Fleet(tmp_path / "fleet", ROOT)
    *right, short = rack.hosts[: -len(WRONG)]
    bad = dict(zip([host.name for host in rack.hosts[-len(WRONG) :]], WRONG.values(), strict=True))
    fleet.changed = {host.name: {"expect": {"gpus": {"count": host.gpu_count}}} for host in rack.hosts}
    for name, (variables, _) in bad.items():
        fleet.changed[name] |= variables
    fleet.more = {DARK: {"ansible_host": f"{rack.layout.prefix}.250"}}
    short.remove_gpus(short.gpu_count - 1)
    assert fleet.bootstrap_of("gpu-nodes", "--yes").code == 1

    answer = inv(
        "provision", "--hosts", "gpu-nodes", "--yes", "--json", inventory=fleet.inventory, timeout=1800
    )
    assert answer.code == 1, str(answer)
    status = {name: answer.host(name)["status"] for name in answer.document["hosts"]}
    expected = dict.fromkeys((*bad, DARK), "unreachable") | {short.name: "failed"}
    assert status == expected | {host.name: "changed" for host in right}, str(answer)
    wants = f"expects {short.gpu_count} GPUs, has {short.gpu_count - 1}"
    assert wants in answer.host(short.name)["error"]["message"]
    serving = ":".join(host.name for host in right)
    verified = inv("verify", "--hosts", serving, "--json", inventory=fleet.inventory, timeout=1800)
    assert verified.code == 0, str(verified)
