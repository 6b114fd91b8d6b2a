"""Plans and results as people and programs read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provision.errors import ChangeError, HostError, UnreachableError
from provision.plan.plan import Plan
from provision.plan.report import Plans, document, failure, plans, recap
from provision.plan.result import Result
from provision.resource import Change
from provision.resources.reboot import REBOOT

FILE = Change(
    "file:/etc/a",
    "update",
    "write /etc/a",
    "secret script",
    "x",
    "its content differs",
    diff="-old\n+new\n",
    role="driver",
)
PULL = Change("image:x:1", "pull", "pull x:1", "x", "x", sign="+", role="triton")
REMOVE = Change("no-file:/b", "remove", "remove /b", "x", "x", "an older source", sign="-", role="triton")
FAILED = ChangeError(
    "gpu-02",
    "file:/etc/a: write /etc/a: exit 1",
    resource="file:/etc/a",
    exit_code=1,
    stderr="".join(f"line {n}\n" for n in range(20)),
    hint="the disk is full: see df -h on the host",
)
RESULTS = [
    Result("gpu-01", "ok", right=30, seconds=0.24, connects=1, execs=2),
    Result("gpu-02", "failed", right=25, changes=(FILE,), error=FAILED, not_run=3, seconds=12.3456),
    Result(
        "a-long-name", "unreachable", error=UnreachableError("a-long-name", "no route to host"), seconds=10
    ),
    Result("gpu-04", "changed", right=28, changes=(FILE, PULL), seconds=100, reboots=1),
    Result("gpu-05", "skipped"),
]


def test_plans_are_shown_once_for_hosts_that_share_one() -> None:
    found = {
        "h1": Plan("h1", (FILE, PULL, REMOVE)),
        "h2": Plan("h2"),
        "h3": Plan("h3", (FILE, PULL, REMOVE)),
        "h4": Plan("h4", (PULL,)),
    }
    assert plans(found, diff=True) == (
        "h[1,3]: 3 changes\n"
        "  driver\n"
        "    ~ write /etc/a  (its content differs)\n"
        "        -old\n"
        "        +new\n"
        "  triton\n"
        "    + pull x:1\n"
        "    - remove /b  (an older source)\n"
        "\n"
        "h2: nothing to do\n"
        "\n"
        "h4: 1 change\n"
        "  triton\n"
        "    + pull x:1\n"
    )
    assert "+new" not in plans(found, diff=False)


def test_a_plan_that_was_shown_is_named_when_another_host_has_it_too() -> None:
    shown = Plans(diff=False)
    assert shown.text({"h1": Plan("h1", (PULL,)), "h2": Plan("h2")}) == (
        "h1: 1 change\n  triton\n    + pull x:1\n\nh2: nothing to do\n"
    )
    later = {name: Plan(name, (PULL,)) for name in ("h3", "h4")}
    assert shown.text({**later, "h5": Plan("h5"), "h6": Plan("h6", (REMOVE,))}) == (
        "\nh[3-4]: 1 change, as shown for h1\n"
        "\nh5: nothing to do\n"
        "\nh6: 1 change\n  triton\n    - remove /b  (an older source)\n"
    )


def test_the_recap_is_in_ansibles_words() -> None:
    lines = recap(RESULTS, "20260102T030405Z-abcdef").splitlines()
    assert [line.rstrip() for line in lines[:10]] == [
        "RECAP",
        "gpu-01      : ok=30   changed=0    unreachable=0    failed=0    skipped=0      0.2 s",
        "gpu-02      : ok=26   changed=1    unreachable=0    failed=1    skipped=0    not run=3     12.3 s",
        "a-long-name : ok=0    changed=0    unreachable=1    failed=0    skipped=0     10.0 s",
        "gpu-04      : ok=30   changed=2    unreachable=0    failed=0    skipped=0    100.0 s",
        "gpu-05      : ok=0    changed=0    unreachable=0    failed=0    skipped=1      0.0 s",
        "5 hosts: 1 ok, 1 changed, 1 failed, 1 unreachable, 1 skipped; 3 changes made,"
        " the longest took 100.0 s",
        "run 20260102T030405Z-abcdef; what each step printed: /run/provision/20260102T030405Z-abcdef*/"
        " on its host, for 10 runs, until it reboots",
        "skipped hosts were not started, because others had failed; --max-failed says how many may",
        "",
    ]
    assert lines[10] == "gpu-02: failed: file:/etc/a: write /etc/a: exit 1"


def test_the_recap_names_no_run_where_none_began() -> None:
    assert recap([], "r") == "RECAP\n0 hosts: none; 0 changes made, the longest took 0.0 s\n"
    planned = recap([RESULTS[3]], "").splitlines()
    assert planned[2:] == ["1 host: 1 changed; 2 changes pending, the longest took 100.0 s"]


def test_a_failure_says_everything_that_is_known() -> None:
    lines = failure(RESULTS[1]).splitlines()
    assert lines[0] == "gpu-02: failed: file:/etc/a: write /etc/a: exit 1"
    assert lines[1:-1] == [f"    line {n}" for n in range(8, 20)]
    assert lines[-1] == "  hint: the disk is full: see df -h on the host"
    assert failure(RESULTS[0]) == ""
    assert failure(RESULTS[2]) == "a-long-name: unreachable: no route to host"


def test_the_document_of_a_run() -> None:
    found = json.loads(json.dumps(document(RESULTS, "run-1", diff=False)))
    assert (found["schema"], found["run"]) == (1, "run-1")
    assert found["summary"] == {"ok": 1, "changed": 1, "failed": 1, "unreachable": 1, "skipped": 1}
    assert list(found["hosts"]) == ["gpu-01", "gpu-02", "a-long-name", "gpu-04", "gpu-05"]
    ok = found["hosts"]["gpu-01"]
    assert (ok["status"], ok["changes"], ok["error"], ok["seconds"], ok["reboots"]) == (
        "ok",
        [],
        None,
        0.24,
        0,
    )
    assert (ok["connects"], ok["execs"]) == (1, 2)
    assert found["hosts"]["gpu-02"]["error"] == {
        "resource": "file:/etc/a",
        "message": "file:/etc/a: write /etc/a: exit 1",
        "hint": "the disk is full: see df -h on the host",
        "exit_code": 1,
        "stderr": FAILED.stderr,
    }
    assert found["hosts"]["a-long-name"]["error"] == {
        "resource": None,
        "message": "no route to host",
        "hint": None,
        "exit_code": None,
        "stderr": "",
    }


@pytest.mark.parametrize("diff", [True, False])
def test_changes_in_the_document_never_hold_scripts(diff: bool) -> None:
    found: dict[str, Any] = document(RESULTS, "r", diff=diff)["hosts"]["gpu-04"]["changes"][0]
    assert found.pop("diff", None) == ("-old\n+new\n" if diff else None)
    assert found.pop("simulation", None) == ("" if diff else None)
    assert found == {
        "role": "driver",
        "resource": "file:/etc/a",
        "action": "update",
        "summary": "write /etc/a",
        "reason": "its content differs",
        "needs": None,
        "impact": [],
    }
    assert "secret script" not in json.dumps(document(RESULTS, "r", diff=diff))


def test_what_a_change_needs_and_does_to_users_stands_below_it() -> None:
    reboot = Change(
        "reboot",
        "reboot",
        "reboot the host",
        "true",
        "true",
        reason="nouveau is loaded",
        needs=REBOOT,
        impact=("container triton stops",),
        simulation="Remv one\nInst two\n",
    )
    shown = plans({"h1": Plan("h1", (reboot,), ("MIG is on",))}, diff=False)
    assert shown.splitlines() == [
        "h1: 1 change",
        "  note: MIG is on",
        "    ~ reboot the host  (nouveau is loaded)",
        "        not allowed yet: --reboot allows it for this run, driver.reboot: allowed for all",
        "        ! container triton stops",
        "        | Remv one",
        "        | Inst two",
    ]
    assert "not allowed" not in plans({"h1": Plan("h1", (reboot,), granted=("reboot",))}, diff=False)


def test_an_error_without_details() -> None:
    found = document([Result("h", "failed", error=HostError("h", "m", hint="x"))], "r", diff=False)
    assert found["hosts"]["h"]["error"]["hint"] == "x"
