"""What became of the checks of a fleet, as people and programs read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import HostError, ProbeError, UnreachableError
from provision.inventory.pattern import select
from provision.verify.outcome import Check, HostResult, VerifyResult, naming

GOLDEN = Path(__file__).parents[1] / "golden/screens"
WIDTH = 80

RUNC = Check(
    "default runtime is nvidia",
    "docker",
    None,
    "fail",
    "dockerd's default runtime is runc, wanted nvidia",
    "inv plan --roles docker --hosts {host}",
)
NOT_READY = Check(
    "server is ready",
    "triton",
    "main",
    "fail",
    "the server does not answer on 127.0.0.1:8000: connection refused",
    "journalctl -u triton-main on {host}",
)
ECC = Check(
    "every gpu is healthy",
    "driver",
    None,
    "warn",
    "GPU 3 has 2 remapped rows",
    "watch it: nvidia-smi -q -i 3",
)
NO_SWITCH = Check("fabric manager runs", "driver", None, "skip", "the host has no NVSwitch")
NO_RUNTIME = tuple(
    Check(name, "triton", "main", "skip", "the default runtime is runc")
    for name in ("plain container has nvml", "plain container sees all gpus", "tensorrt_llm can be imported")
)


def passed(count: int) -> tuple[Check, ...]:
    return tuple(Check(f"check {number}", "driver", None, "pass") for number in range(count))


def timeout(host: str, address: str) -> UnreachableError:
    message = f"{address} port 22 does not answer within 10 s"
    return UnreachableError(host, message, hint="is it up, and does a firewall drop packets?")


def hosts(count: int, of: Callable[[int], HostResult]) -> tuple[HostResult, ...]:
    """Hosts gpu-1 to gpu-COUNT, with as many digits as the last one has, at addresses of their own."""
    width = max(2, len(str(count)))
    return tuple(
        replace(of(number), host=f"gpu-{number:0{width}}", address=f"192.0.{number // 100}.{number % 100}")
        for number in range(1, count + 1)
    )


def asked(*checks: Check, passes: int = 60) -> HostResult:
    return HostResult("", (*passed(passes), *checks), seconds=4.2, connects=1, execs=6)


def silent(number: int, count: int) -> HostResult:
    address = f"192.0.{number // 100}.{number % 100}"
    return HostResult("", error=timeout(f"gpu-{number:0{len(str(count))}}", address), seconds=10.0)


def of_fifty(number: int) -> HostResult:
    if number == 47:
        return silent(number, 50)
    if number in (3, 17):
        return asked(RUNC, NOT_READY, *NO_RUNTIME, NO_SWITCH, passes=55)
    return asked(ECC if number == 5 else Check("every gpu is healthy", "driver", None, "pass"), NO_SWITCH)


def of_300(number: int) -> HostResult:
    """A rack without power, 40 hosts with one fault, some of them with others; one that was lost halfway."""
    if 101 <= number <= 124:
        return silent(number, 300)
    if number == 200:
        message = "the connection was lost after 31.2 s of verify: the session ended"
        error = UnreachableError("gpu-200", message, hint="did the host reboot, or the network change?")
        return replace(asked(passes=31), error=error)
    if number == 201:
        return replace(asked(passes=0), error=ProbeError("gpu-201", "probe gpus did not end within 900 s"))
    if 1 <= number <= 40:
        others = (NOT_READY,) if number % 10 == 0 else ()
        return asked(RUNC, *NO_RUNTIME, *others, passes=57 - len(others))
    if number in (60, 77, 130, 131, 132, 133, 140, 151, 152, 190, 260):
        return asked(ECC)
    return asked(passes=61)


SCREENS = {
    "1-host": VerifyResult(hosts(1, lambda _: asked(passes=61)), 4.2, rounds=6),
    "2-hosts": VerifyResult(
        hosts(2, lambda number: asked(passes=61) if number == 1 else asked(NOT_READY)),
        4.4,
        rounds=7,
        live=("server is ready on gpu-02 (waits)",),
    ),
    "50-hosts": VerifyResult(
        hosts(50, of_fifty),
        12.1,
        rounds=6,
        live=tuple(f"server is ready on gpu-{number:02} (waits)" for number in range(1, 47)),
    ),
    "300-hosts": VerifyResult(hosts(300, of_300), 61.0, rounds=6),
    "50-hosts-stopped": VerifyResult(
        hosts(
            50, lambda n: asked(passes=61) if n < 3 else asked(RUNC, passes=8) if n == 3 else HostResult("")
        ),
        3.1,
        rounds=6,
        stopped=True,
    ),
}


@pytest.mark.parametrize("name", SCREENS)
def test_the_screen(name: str) -> None:
    text = SCREENS[name].text()
    assert text == (GOLDEN / f"verify-{name}.txt").read_text("utf-8")
    # Only a list of hosts may be longer, since programs and people copy it as a whole.
    assert [line for line in text.splitlines() if len(line) > WIDTH and "gpu-[" not in line] == []


# ── one line for each finding ────────────────────────────────────────────────────────────────────────────


def test_a_fault_that_hosts_share_is_told_once_though_each_has_others_too() -> None:
    others = [replace(NOT_READY, name=f"fault {number}") for number in range(3)]
    text = VerifyResult(hosts(3, lambda number: asked(RUNC, others[number - 1]))).text()
    assert text.count("default runtime is nvidia") == 1
    assert "FAIL docker: default runtime is nvidia: gpu-[01-03] (3 hosts)\n" in text
    assert "FAIL triton main: fault 1: gpu-02\n" in text
    assert "gpu-[01-03]: 2 failed, 60 passed\n" in text


@pytest.mark.parametrize(
    "other",
    [
        replace(RUNC, message="dockerd does not answer"),
        replace(RUNC, hint=None),
        replace(RUNC, name="another"),
        replace(RUNC, instance="main"),
        replace(RUNC, verdict="warn"),
    ],
)
def test_findings_that_differ_stand_apart(other: Check) -> None:
    text = VerifyResult(hosts(2, lambda number: asked(RUNC if number == 1 else other))).text()
    assert ": gpu-01\n" in text
    assert ": gpu-02\n" in text
    assert "(2 hosts)" not in text


def test_the_worst_comes_first() -> None:
    found = (
        asked(),
        asked(NO_SWITCH),
        asked(ECC),
        HostResult(""),
        asked(NOT_READY),
        asked(RUNC, NOT_READY),
        HostResult("", error=ProbeError("gpu-07", "the answer was cut short")),
        silent(8, 10),
    )
    lines = VerifyResult(hosts(8, lambda number: found[number - 1])).text().splitlines()
    heads = [line for line in lines if line.split(" ")[0].isupper()]
    assert heads == [
        "UNREACHABLE gpu-08",
        "ERROR gpu-07",
        "FAIL triton main: server is ready: gpu-[05-06] (2 hosts)",
        "FAIL docker: default runtime is nvidia: gpu-06",
        "WARN driver: every gpu is healthy: gpu-03",
        "SKIP driver: fabric manager runs: gpu-02",
    ]
    assert [line for line in lines if line.startswith("gpu-")] == [
        "gpu-08: unreachable",
        "gpu-07: failed",
        "gpu-06: 2 failed, 60 passed",
        "gpu-05: 1 failed, 60 passed",
        "gpu-04: unverified: no check ran",
        "gpu-03: 1 with a warning, 60 passed",
        "gpu-01: 60 passed",
        "gpu-02: 60 passed, 1 skipped",
    ]


def test_skipped_checks_are_counted_by_reason_and_never_as_passed() -> None:
    text = VerifyResult(hosts(2, lambda _: asked(*NO_RUNTIME, NO_SWITCH, passes=0))).text()
    assert text.startswith(
        "SKIP 3 checks: gpu-[01-02] (2 hosts)\n"
        "  the default runtime is runc\n"
        "SKIP driver: fabric manager runs: gpu-[01-02] (2 hosts)\n"
        "  the host has no NVSwitch\n"
        "\n"
        "gpu-[01-02]: 0 passed, 4 skipped\n"
    )


def test_a_test_that_fails_twice_on_a_host_names_it_once() -> None:
    assert (
        "FAIL docker: default runtime is nvidia: gpu-01\n"
        in VerifyResult(hosts(1, lambda _: asked(RUNC, RUNC))).text()
    )


def test_every_line_of_a_message_stands_below_its_check() -> None:
    text = VerifyResult(hosts(1, lambda _: asked(replace(RUNC, message="a\nb")))).text()
    assert "gpu-01\n  a\n  b\n  hint: " in text


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────


def test_errors_that_differ_by_the_hosts_own_name_and_address_are_one() -> None:
    text = VerifyResult(hosts(24, lambda number: silent(number, 24))).text()
    assert text.startswith(
        "UNREACHABLE gpu-[01-24] (24 hosts)\n"
        "  192.0.0.1 port 22 does not answer within 10 s (gpu-01 is the first of 24)\n"
        "  hint: is it up, and does a firewall drop packets?\n"
    )


def test_names_that_are_numbers_do_not_keep_errors_apart() -> None:
    found = [
        HostResult(str(number), error=timeout(str(number), f"192.0.2.{number}"), address=f"192.0.2.{number}")
        for number in (1, 3)
    ]
    assert "UNREACHABLE [1,3] (2 hosts)\n" in VerifyResult(tuple(found)).text()


def test_errors_that_differ_otherwise_stand_apart() -> None:
    def refused(number: int) -> HostResult:
        return HostResult("", error=UnreachableError("x", f"port {number} refused"))

    text = VerifyResult(hosts(2, refused)).text()
    assert "UNREACHABLE gpu-01\n  port 1 refused\n" in text
    assert "UNREACHABLE gpu-02\n  port 2 refused\n" in text


def test_a_host_that_was_lost_shows_what_it_had_answered() -> None:
    lost = replace(asked(RUNC, passes=12), error=timeout("gpu-01", "192.0.0.1"))
    text = VerifyResult(hosts(1, lambda _: lost)).text()
    assert "FAIL docker: default runtime is nvidia: gpu-01\n" in text
    assert "gpu-01: unreachable; before that 1 failed, 12 passed\n" in text


# ── {host} ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hosts_are_named_as_a_pattern_for_hosts() -> None:
    names = [f"gpu-{number}" for number in range(10)]
    text = naming("inv verify --hosts {host}", names)
    assert select(text.rpartition(" ")[2], names, {}) == names


def test_of_many_hosts_the_first_one_is_named_and_said_to_be_it() -> None:
    names = [f"gpu-{number}" for number in range(11)]
    assert naming("see {host}, on {host}", names) == "see gpu-0, on gpu-0 (gpu-0 is the first of 11)"
    assert naming("nothing is named", names) == "nothing is named"


def test_other_braces_stay() -> None:
    text = "{} {0} {name} {{host}} %s \\1"
    assert naming(f"{text} {{host}}", ["a"]) == f"{text.replace('{host}', 'a')} a"


def test_messages_that_differ_by_their_own_host_fold() -> None:
    result = VerifyResult(hosts(2, lambda _: asked(replace(RUNC, message="{host} runs runc {x}"))))
    assert "gpu-[01-02] (2 hosts)\n  gpu-01,gpu-02 runs runc {x}\n" in result.text()
    assert "  hint: inv plan --roles docker --hosts gpu-01,gpu-02\n" in result.text()


def test_the_document_names_each_host_itself() -> None:
    error = HostError("gpu-11", "{host} is slow", hint="look at {host}")
    result = VerifyResult(hosts(12, lambda _: replace(asked(RUNC, passes=0), error=error)))
    found = result.document()["hosts"]["gpu-11"]
    assert found["checks"] == [
        {
            "name": "default runtime is nvidia",
            "role": "docker",
            "instance": None,
            "verdict": "fail",
            "message": "dockerd's default runtime is runc, wanted nvidia",
            "hint": "inv plan --roles docker --hosts gpu-11",
            "seconds": 0.0,
        }
    ]
    assert found["error"] == {"message": "gpu-11 is slow", "hint": "look at gpu-11"}


def test_what_has_no_hint_has_none_in_the_document() -> None:
    document = VerifyResult(hosts(1, lambda _: asked(NO_SWITCH, passes=0))).document()
    assert document["hosts"]["gpu-01"]["checks"][0]["hint"] is None


# ── the sum ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_summary_of_the_document() -> None:
    result = SCREENS["50-hosts"]
    summary = json.loads(json.dumps(result.document()))["summary"]
    assert summary == {
        "ok": 47,
        "failed": 2,
        "unreachable": 1,
        "unverified": 0,
        "checks": {"pass": 2 * 55 + 47 * 60 + 46, "fail": 4, "warn": 1, "skip": 2 * 4 + 47},
        "seconds": 12.1,
        "rounds": 6,
        "execs": 49 * 6,
        "live": list(result.live),
        "stopped": False,
    }
    assert SCREENS["50-hosts-stopped"].document()["summary"]["stopped"] is True
    assert SCREENS["50-hosts-stopped"].document()["summary"]["unverified"] == 47


@pytest.mark.parametrize(
    ("count", "lines"),
    [
        (0, []),
        (1, ["1 check asked its host itself:", "  a on gpu-0 (waits)"]),
        (
            3,
            [
                "3 checks asked their hosts themselves:",
                *(f"  a on gpu-{number} (waits)" for number in range(3)),
            ],
        ),
        (
            5,
            [
                "5 checks asked their hosts themselves:",
                *(f"  a on gpu-{number} (waits)" for number in range(3)),
                "  and 2 more",
            ],
        ),
    ],
)
def test_few_checks_that_went_live_are_named(count: int, lines: list[str]) -> None:
    live = tuple(f"a on gpu-{number} (waits)" for number in range(count))
    text = VerifyResult(hosts(1, lambda _: asked()), 1.0, rounds=1, live=live).text()
    assert text.splitlines() == ["gpu-01: 60 passed", *lines, "1 host in 1.0 s: 1 ok; 1 round, 6 execs"]


# ── exit codes ───────────────────────────────────────────────────────────────────────────────────────────

UNREACHABLE = HostResult("gpu-01", error=timeout("gpu-01", "192.0.0.1"))


@pytest.mark.parametrize(
    ("found", "stopped", "code"),
    [
        ([asked()], False, 0),
        ([asked(ECC), asked(NO_SWITCH)], False, 0),
        ([asked(), asked(RUNC)], False, 3),
        ([asked(), UNREACHABLE, asked(RUNC)], False, 1),
        ([HostResult("a", error=ProbeError("a", "m"))], False, 1),
        ([asked(), HostResult("a")], False, 1),
        ([asked(RUNC), HostResult("a")], False, 1),
        ([asked(RUNC), HostResult("a")], True, 3),
        ([UNREACHABLE, HostResult("a")], True, 1),
        ([asked(), HostResult("a")], True, 3),
        ([asked()], True, 3),
    ],
)
def test_exit_codes(found: list[HostResult], stopped: bool, code: int) -> None:
    assert VerifyResult(tuple(found), stopped=stopped).exit_code == code


def test_a_host_without_a_verdict_is_never_ok() -> None:
    assert HostResult("a").status == "unverified"
    assert "1 unverified" in VerifyResult((HostResult("a"),)).text()


def test_a_run_that_was_under_way_is_a_note() -> None:
    found = VerifyResult(hosts(2, lambda _: replace(asked(RUNC), run="r")))
    assert (
        "NOTE gpu-[01-02] (2 hosts)\n  run r was under way; findings may be of that moment\n" in found.text()
    )
    notes = [host["notes"] for host in found.document()["hosts"].values()]
    assert notes == [["run r was under way; findings may be of that moment"]] * 2
    assert found.exit_code == 3
