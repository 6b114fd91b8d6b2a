"""The same files, read by ansible-core and by us: the same hosts, groups, variables, order and patterns."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from provision.inventory import Inventory
from provision.inventory.sources import load
from provision.inventory.values import plain

DATA = Path(__file__).parents[1] / "data" / "inventory"
ALL = ["all", "*"]

CASES: dict[str, tuple[list[str], list[str]]] = {
    path.stem: ([path.name], ALL)
    for path in sorted([*DATA.glob("*.yml"), *DATA.glob("*.json"), DATA / "bare"])
    if path.stem != "patterns"
}
CASES |= {
    "patterns": (
        ["patterns.yml"],
        [
            "all",
            "gpu",
            "paris:rome",
            "rome,paris",
            "gpu:&paris",
            "gpu:!paris",
            "&paris:gpu:!canary",
            "!canary",
            "!gpu",
            "&gpu:&rome",
            "paris,!old1,&h100",
            "node01",
            "node01,node01,paris",
            "node06:canary",
            "node0*",
            "node0[135]",
            "node0?:!node06",
            "*.example.com",
            "node-x.example.com",
            "h?00",
            "p*,lone",
            "~node0[1-3]",
            "~(paris|rome)",
            "~old:&~.*2",
            "h100[0]",
            "h100[-1]",
            "h100[-6]",
            "h100[1:3]",
            "h100[2:]",
            "h100[0:0]",
            "h100[3:0]",
            "~paris|lone",
            "h100[4:99]",
            "h100[1:-1]",
            "?100[0:4]",
            "gpu[0:2]",
            "h100[1:3]:&paris",
            "h100[0],a100[1:2],lone",
            "ungrouped",
            "all:!ungrouped",
            " paris , rome ",
            "nobody,lone",
            "nobody[0],lone",
            "a*",
            "un*",
            "[np]*",
            "al[l]",
        ],
    ),
    "order": (["order.yml"], ["all", "a:z", "z:a", "a,z,!h1", "h1:a"]),
    "folder": (["folder"], [*ALL, "gpu[0:1]", "n*,!n1"]),
    "one file of a folder": (["folder/10-hosts.yml"], ALL),
    "two folders": (["two/one", "two/two"], ALL),
    "two folders, reversed": (["two/two", "two/one"], ALL),
    "two files, their folders": (["two/one/hosts.yml", "two/two/hosts.yml", "two/one/other.yml"], ALL),
    "program": (["script/fleet"], ALL),
    "program without _meta": (["script_hosts/fleet.sh"], ALL),
    "ini": (["ini/hosts.ini"], ALL),
    "ini's folder": (["ini"], ALL),
    "mixed folder with a plugin": (["mixed"], ALL),
    "file, program and list": (["nested.yml", "script/fleet", "extra1,extra2:2022, s1,"], ALL),
    "list": (["h1,", "h2, 192.0.2.1:22,[2001:db8::1]:23"], ALL),
    "the example": (["../../../inventories/example"], [*ALL, "gpu-nodes:&paris:!canary"]),
    "file and json": (["plain.yml", "json.json"], ALL),
}


def sources(case: str) -> list[str]:
    return [text if "," in text else str(DATA / text) for text in CASES[case][0]]


@functools.cache
def ours_of(case: str) -> Inventory:
    return load(sources(case))


@pytest.fixture(scope="module")
def ansible() -> Any:
    """What ansible-core says about every case."""
    question = {
        "cases": {name: {"sources": sources(name), "patterns": case[1]} for name, case in CASES.items()}
    }
    done = subprocess.run(
        [sys.executable, str(DATA / "ansible_says.py")],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_same_groups(ansible: Any, case: str) -> None:
    theirs = {name: group for name, group in ansible[case]["list"].items() if name != "_meta"}
    ours = {}
    for name, group in ours_of(case).groups.items():
        shown = {"hosts": [] if name == "all" else list(group.hosts), "children": list(group.children)}
        ours[name] = {key: names for key, names in shown.items() if names}
    assert {name: group for name, group in ours.items() if group} == theirs


@pytest.mark.parametrize("case", CASES)
def test_same_variables(ansible: Any, case: str) -> None:
    inventory = ours_of(case)
    theirs = ansible[case]["list"]["_meta"]["hostvars"]
    ours = {name: plain(host.vars) for name, host in inventory.hosts.items() if host.vars}
    assert ours == _without_unsafe(theirs)


@pytest.mark.parametrize("case", CASES)
def test_same_graph(ansible: Any, case: str) -> None:
    assert ours_of(case).graph() == ansible[case]["graph"]


@pytest.mark.parametrize(
    ("case", "pattern"), [(case, pattern) for case in CASES for pattern in CASES[case][1]]
)
def test_same_selection(ansible: Any, case: str, pattern: str) -> None:
    theirs = ansible[case]["patterns"][pattern]
    ours = _selected(ours_of(case), pattern)
    if ansible[case]["ordered"]:
        assert ours == theirs
    else:
        assert sorted(ours) == sorted(theirs)


def test_most_cases_have_an_order(ansible: Any) -> None:
    assert sum(ansible[case]["ordered"] for case in CASES) > len(CASES) * 3 / 4
    assert ansible["patterns"]["ordered"]


def _selected(inventory: Inventory, pattern: str) -> list[str]:
    try:
        return [host.name for host in inventory.select(pattern)]
    except UsageError:
        return []


def _without_unsafe(value: Any) -> Any:
    """Ansible marks what is tagged !unsafe; for us it is a string."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: _without_unsafe(item) for key, item in value.items()}
    return [_without_unsafe(item) for item in value] if isinstance(value, list) else value
