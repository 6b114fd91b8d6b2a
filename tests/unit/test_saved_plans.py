"""What is approved: saved without scripts and secrets, read back, and compared change by change."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.cli import saved_plans
from provision.errors import UsageError
from provision.plan import saved
from provision.plan.plan import Plan, plan
from provision.plan.saved import SavedPlans
from provision.probe import Output, Probe
from provision.resource import AWAIT, CHECK, Change, Permission, Planned
from provision.resources.packages.other_sources import OtherSources, SourceFile
from provision.resources.reboot import RebootPolicy
from provision.role import Role, Settings
from provision.roles import all_roles
from provision.roles.docker.restart import DOCKER_RESTART, DockerRestart
from provision.roles.driver.module import Module, ModuleState
from tests.unit.examples import IMAGE, REPO, bare, declared, settings_of

KEY = b"k" * 32
ALLOWED = Permission("reboot", "reboot needed", "--reboot allows it")


class Wish(Settings):
    """Settings of a role that a test needs."""

    text: str = ""


ROLE = Role("role", Wish, lambda *_: ())
SAME: Mapping[Role, Settings] = {ROLE: Wish(text="s3cret")}
OTHER: Mapping[Role, Settings] = {ROLE: Wish(text="other")}


def step(name: str, action: str = "update", **values: Any) -> Change:
    return replace(Change(name, action, f"{action} {name}", "do", "done", role="role"), **values)


def approved(*changes: Change, wished: Mapping[Role, Settings] = SAME) -> SavedPlans:
    return saved.load(saved.save({"h": Plan("h", changes)}, {"h": wished}, KEY), "f")


def said(known: SavedPlans, *changes: Change, wished: Mapping[Role, Settings] = SAME) -> str:
    """The refusal of a fresh plan with these changes; empty if it is as approved."""
    found = known.refusal(Plan("h", changes), wished, KEY)
    return str(found) if found else ""


# --- comparing ------------------------------------------------------------------------------------


def test_a_plan_with_the_same_changes_is_as_approved() -> None:
    assert said(approved(step("a"), step("b")), step("a"), step("b")) == ""
    assert said(approved(step("a")), step("a"), wished=OTHER) == "", "settings count by what they change"


@pytest.mark.parametrize(
    "value",
    [
        {"script": "x"},
        {"done": "x"},
        {"guard": "x"},
        {"diff": "x"},
        {"action": "remove", "summary": "update a"},
        {"owes": ("x",)},
        {"role": "x"},
        {"functions": "x"},
        {"reboot": 7},
    ],
)
def test_what_makes_another_change(value: dict[str, Any]) -> None:
    assert said(approved(step("a")), step("a", **value)) == (
        "h: 1 difference from the approved plan (the settings are the same): different: update a"
    )


@pytest.mark.parametrize(
    "value",
    [
        {"summary": "update a, enabled already"},
        {"reason": "python3 uses it"},
        {"impact": ("triton stops",)},
        {"simulation": "Inst x"},
        {"preview": Probe("p", "x")},
        {"needs": ALLOWED},
        {"varying": "boot=b002"},
    ],
)
def test_what_two_plans_of_one_change_may_say_differently(value: dict[str, Any]) -> None:
    assert said(approved(step("a")), step("a", **value)) == ""


def test_differences_are_named_change_by_change() -> None:
    known = approved(step("a"), step("b"), step("c", summary="write c (1 byte)"), step("d"))
    fresh = (step("c", script="x", summary="write c (2 bytes)"), step("d"), step("e", "start"))
    assert said(known, *fresh, wished=OTHER) == (
        "h: 4 differences from the approved plan (the settings of role changed): new: start e; "
        "gone: update a; gone: update b; different: write c (2 bytes) (approved: write c (1 byte))"
    )
    assert "different: the order of its changes" in said(known, *(step("d"), *known_changes("c", "b", "a")))


def known_changes(*names: str) -> list[Change]:
    return [step(name, summary="write c (1 byte)") if name == "c" else step(name) for name in names]


def test_many_differences_are_counted() -> None:
    text = said(approved(), *(step(f"s{n}") for n in range(50)))
    assert text.startswith(
        "h: 50 differences from the approved plan (the settings are the same): new: update s0; "
    )
    assert text.endswith("new: update s19; and 30 more")


def test_a_host_that_is_right_by_now_is_as_approved_unless_something_else_is_wanted() -> None:
    assert said(approved(step("a"))) == ""
    assert "(the settings of role changed): gone: update a" in said(approved(step("a")), wished=OTHER)
    assert "(the settings of role changed): gone: update a" in said(approved(step("a")), wished={})
    assert said(approved(), wished=OTHER) == ""


def test_checks_come_and_go_with_containers_and_waiting_ends_by_itself() -> None:
    check, wait = step("see", CHECK), step("unit", AWAIT)
    assert said(approved(step("a"), check), step("a")) == said(approved(step("a")), step("a"), check) == ""
    assert said(approved(step("a"), wait), step("a")) == ""
    assert "new: await unit" in said(approved(step("a")), step("a"), wait)


def test_who_uses_the_gpus_and_which_boot_it_is_makes_no_other_change() -> None:
    """Two plans of a host some seconds or a reboot apart."""

    def planned(boot: str, users: str) -> Change:
        module = Module("nvidia", "580.1", ("driver",), RebootPolicy(boot, ALLOWED))
        change = module.change(ModuleState("570.1", "580.1"), Planned())
        assert change is not None
        return module.refine(change, Output(0, users.encode()))

    one = planned("b001", "process 12 0::/ tritonserver\n")
    assert "tritonserver uses it" in one.reason
    assert said(approved(one), planned("b002", "process 13 0::/ python3\nprocess 14 0::/ nvtop\n")) == ""
    assert "different: reload kernel module nvidia" in said(approved(one), planned("b001", ""))


def test_permissions_of_the_settings_are_no_part_of_a_change() -> None:
    def planned(allowed: bool, answer: str = "active\ncontainer /box img no\n") -> Change:
        restart = DockerRestart("restart", on=("a",), script="restart_docker", allowed=allowed)
        change = restart.change(False, Planned((step("a"),)))
        assert change is not None
        return restart.refine(change, Output(0, answer.encode()))

    needs = planned(False).needs
    assert needs is not None
    assert needs.name == DOCKER_RESTART.name
    assert said(approved(planned(False)), planned(True)) == ""
    assert said(approved(planned(False, "active\n")), planned(False)) == ""


def test_a_plan_is_of_its_host() -> None:
    text = saved.save({"h": Plan("h", (step("a"),))}, {"h": SAME}, KEY)
    moved = saved.load(text.replace('"h": {', '"other": {'), "f")
    found = moved.refusal(Plan("other", (step("a"),)), SAME, KEY)
    assert found is not None
    assert "different: update a" in found.message


# --- which run it is ------------------------------------------------------------------------------


A, B = (f"h1: approved, and no part of this run: update {name}" for name in "ab")


@pytest.mark.parametrize(
    ("chosen", "known", "misfits"),
    [
        ({"h1": ["x", "y"], "h2": ["x"]}, "h1 h2", []),
        ({"h1": ["x", "y", "z"], "h2": []}, "h1 h2", []),
        ({"h1": ["x", "y"]}, "h1 h2 h3", []),
        ({"h1": ["x", "y"]}, "h1", []),
        ({"h1": ["x"]}, "h1 h2", [B]),
        ({"h1": []}, "h1 h2", [A, B]),
        ({"h2": ["x"]}, "h1 h2", [A, B]),
        ({"h2": ["x"]}, "h2", [A, B]),
        ({"h3": ["x"]}, "h3", ["h3: no plan of it was approved", A, B]),
        ({"h1": ["x", "y"], "h3": ["x"]}, "h1 h3", ["h3: no plan of it was approved"]),
    ],
)
def test_a_run_of_other_hosts_or_roles_is_not_the_approved_one(
    chosen: dict[str, list[str]], known: str, misfits: list[str]
) -> None:
    plans = {"h1": Plan("h1", (step("a", role="x"), step("b", role="y"))), "h2": Plan("h2")}
    text = saved.save(plans, {"h1": SAME, "h2": SAME}, KEY)
    assert saved.load(text, "f").misfits(chosen, known.split()) == misfits


# --- the text -------------------------------------------------------------------------------------

TEXTS = st.text(st.characters())
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
CHANGES = st.builds(
    Change,
    **dict.fromkeys(
        ("resource", "action", "summary", "script", "done", "reason", "diff", "guard", "role"), TEXTS
    ),
    **dict.fromkeys(("owes", "settles", "signals", "causes", "impact"), NAMES),
    sign=st.sampled_from(["+", "-", "~"]),
    needs=st.none() | st.just(ALLOWED),
    shell=NAMES,
    reboot=st.integers(0, 3600),
    after_reboot=st.booleans(),
    reloads_systemd=st.booleans(),
)
PLANS = st.lists(
    st.builds(
        Plan, TEXTS, st.lists(CHANGES, max_size=4, unique_by=lambda c: c.resource).map(tuple), NAMES, NAMES
    ),
    max_size=4,
    unique_by=lambda p: p.host,
)


@settings(max_examples=40, deadline=None)
@given(plans=PLANS)
def test_a_saved_plan_is_read_back(plans: list[Plan]) -> None:
    text = saved.save({p.host: p for p in plans}, {p.host: SAME for p in plans}, KEY)
    found = saved.load(text, "f")
    assert list(found.hosts) == [p.host for p in plans]
    assert [found.refusal(p, SAME, KEY) for p in plans] == [None] * len(plans)


def test_the_text_shows_what_a_person_approves_and_no_script() -> None:
    change = step("a", diff="-x\n+y\n", reason="x is wrong", needs=ALLOWED, impact=("triton stops",))
    text = saved.save({"h": Plan("h", (change,), ("a note",), ("branch-change",))}, {"h": SAME}, KEY)
    host = json.loads(text)["hosts"]["h"]
    assert {**host["changes"][0], "digest": ""} == {
        "role": "role",
        "resource": "a",
        "action": "update",
        "summary": "update a",
        "reason": "x is wrong",
        "needs": "reboot",
        "impact": ["triton stops"],
        "diff": "-x\n+y\n",
        "simulation": "",
        "digest": "",
    }
    assert (host["notes"], host["granted"]) == (["a note"], ["branch-change"])


SECRETS = {"token": "hf_pl4nted", "password": "r3gistry-pw", "pin": "4711-env"}


def planted() -> tuple[Plan, dict[Role, Settings]]:
    """The plan of a host that has and gets secrets wherever they may be."""
    proxy = f"http://me:{SECRETS['password']}@proxy:1"
    instance = {"image": IMAGE, "env": {"HF_TOKEN": SECRETS["token"], "PIN": SECRETS["pin"]}}
    given: dict[str, dict[str, Any]] = {
        "docker": {
            "daemon": {
                "log-opts": {"splunk-token": SECRETS["token"]},
                "proxies": {"http-proxy": proxy},
            }
        },
        "triton": {"instances": {"main": instance}},
    }
    wished = {role: settings_of(role.name, **given.get(role.name, {})) for role in all_roles()}
    items = list({item.resource.id: item for item in declared(settings=wished)}.values())
    mirror = REPO["uri"].replace("://", f"://me:{SECRETS['password']}@")
    source = SourceFile("/etc/apt/sources.list.d/nvidia-docker.list", f"deb {mirror} ./\n".encode())
    others = {item.resource.id: (source,) for item in items if isinstance(item.resource, OtherSources)}
    found = plan("h", items, bare(items) | others)
    return found, wished


def test_no_secret_is_in_the_text_and_no_guess_can_be_tested_with_it() -> None:
    found, wished = planted()
    text = saved.save({"h": found}, {"h": wished}, KEY)
    assert [name for name, secret in SECRETS.items() if secret in text] == []
    assert "deb https://(hidden)@packages.example.org/nvidia ./" in text
    assert all(change.script not in text for change in found.changes if len(change.script) > 40)
    digests = {change["digest"] for change in json.loads(text)["hosts"]["h"]["changes"]}
    for change in found.changes:
        for guess in (change.script, change.done, json.dumps(asdict(change), sort_keys=True)):
            assert hashlib.sha256(guess.encode()).hexdigest() not in digests
    other = saved.save({"h": found}, {"h": wished}, b"x" * 32)
    assert digests.isdisjoint(change["digest"] for change in json.loads(other)["hosts"]["h"]["changes"])


ROW = {"role": "r", "resource": "a", "action": "update", "summary": "s", "digest": "d"}
HOST: dict[str, Any] = {"changes": [], "settings": {}}
WRONG: tuple[Any, ...] = ({}, "x", None, 7)


def document(hosts: Any) -> str:
    return json.dumps({"schema": 4, "key": "k", "hosts": hosts})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "null",
        "7",
        "[]",
        "{}",
        '{"schema": 4}',
        '{"schema": 4, "hosts": {}}',
        *map(document, ([], None, {"h": {}}, {"h": ""}, {"h": 7}, {"h": {"changes": []}})),
        *(document({"h": {**HOST, "changes": [wrong]}}) for wrong in WRONG),
        *(document({"h": {**HOST, "changes": [{**ROW, name: 7}]}}) for name in ROW),
        *(document({"h": {**HOST, "settings": wrong}}) for wrong in (*WRONG[1:], [], {"r": 7})),
        '{"schema": "4"}',
        '{"schema": "4\\nerror: forged"}',
        "[" * 100_000,
    ],
)
def test_garbage_is_no_saved_plan(text: str) -> None:
    with pytest.raises(UsageError, match=r"^saved\.json: not a saved plan: .") as caught:
        saved.load(text, "saved.json")
    assert caught.value.hint == "make one with: inv plan --out FILE"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("schema", ["1", "3"])
def test_a_plan_of_another_version_is_refused(schema: str) -> None:
    with pytest.raises(UsageError, match=r"saved plan of schema \S.*, this version reads 4") as caught:
        saved.load(f'{{"schema": {schema}, "plans": {{}}}}', "saved.json")
    assert caught.value.hint == "plan again: inv plan --hosts PATTERN --out FILE"
    assert "\n" not in caught.value.message


@settings(max_examples=30, deadline=None)
@given(st.recursive(st.none() | st.integers() | TEXTS, lambda v: st.lists(v) | st.dictionaries(TEXTS, v)))
def test_any_other_document_is_refused_in_a_sentence(found: Any) -> None:
    with pytest.raises(UsageError):
        saved.load(document({"h": [found]}), "f")


# --- files ----------------------------------------------------------------------------------------

PLANS_OF = {"h": Plan("h", (step("a"),), granted=("reboot",))}
WISHED = {"h": SAME}


@pytest.fixture(autouse=True)
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key of this test's plans is made."""
    monkeypatch.delenv("PROVISION_PLAN_KEY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/gpu-provision/plan-key"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """In a folder of its own."""
    (tmp_path / "plans").mkdir()
    return tmp_path / "plans/tonight.plan"


@pytest.mark.parametrize("before", [None, 0o644])
def test_a_saved_plan_is_for_its_owner_only_and_so_is_the_key(
    file: Path, key_file: Path, before: int | None
) -> None:
    if before is not None:
        file.write_text('{\n "schema": 4, ' + "longer than a plan " * 1000)
        file.chmod(before)
    saved_plans.save(str(file), PLANS_OF, WISHED, "")
    assert oct(file.stat().st_mode & 0o7777) == oct(key_file.stat().st_mode & 0o7777) == "0o600"
    assert oct(key_file.parent.stat().st_mode & 0o7777) == "0o700"
    assert saved_plans.load(str(file)).refusal(PLANS_OF["h"], SAME, saved_plans.key()) is None
    assert list(key_file.parent.iterdir()) == [key_file]
    assert key_file.read_text().strip() not in file.read_text()


def test_the_command_that_applies_a_plan_names_the_inventory(
    file: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_plans.save(str(file), PLANS_OF, WISHED, "our site/hosts.yml")
    assert capsys.readouterr().err.endswith(f"--plan {file} --inventory 'our site/hosts.yml'\n")


def test_the_key_stays_the_same() -> None:
    assert saved_plans.key(make=True) == saved_plans.key(make=True) == saved_plans.key()


@pytest.mark.parametrize("change", ["none", "another", "short", "a folder"])
def test_a_plan_of_another_key_is_not_compared(
    file: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    saved_plans.save(str(file), PLANS_OF, WISHED, "")
    kept = tmp_path / "kept"
    key_file.rename(kept)
    if change == "another":
        saved_plans.key(make=True)
    elif change == "short":
        key_file.write_text("changeme\n")
    elif change == "a folder":
        key_file.mkdir()
    with pytest.raises(UsageError) as caught:
        saved_plans.load(str(file))
    assert (
        caught.value.message
        == {
            "none": f"the key of saved plans, {key_file}: No such file or directory",
            "another": f"{file}: it was saved with another key than {key_file}, so it cannot be compared",
            "short": f"the key of saved plans, {key_file}: shorter than 32 bytes",
            "a folder": f"the key of saved plans, {key_file}: Is a directory",
        }[change]
    )
    assert caught.value.hint
    monkeypatch.setenv("PROVISION_PLAN_KEY", str(kept))
    assert list(saved_plans.load(str(file)).hosts) == ["h"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        (b"\xff", "it is not UTF-8"),
        (b"{}", "not a saved plan"),
        (document({}).encode(), "it holds the plan of no host"),
    ],
)
def test_a_file_that_is_no_saved_plan_is_named(file: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"^{file}: {says}") as caught:
        saved_plans.load(str(file))
    assert "--out FILE" in (caught.value.hint or "")


def test_a_plan_that_cannot_be_saved_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}/none/plan: its folder is not there"):
        saved_plans.save(str(tmp_path / "none/plan"), PLANS_OF, WISHED, "")


def test_an_older_plan_stays_where_the_new_one_cannot_be_written(file: Path) -> None:
    """As on a disk that is full."""
    saved_plans.save(str(file), PLANS_OF, WISHED, "")
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(UsageError, match=f"^{file}: File too large") as caught:
            saved_plans.save(str(file), PLANS_OF, WISHED, "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.hint == "name another file: --out FILE"
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"


def test_nothing_is_saved_where_no_host_could_be_planned(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_plans.save(str(file), {}, WISHED, "")
    assert not file.exists()
    assert f"{file} is not written: no host could be planned" in capsys.readouterr().err


def test_a_plan_behind_a_link_is_replaced_and_the_link_stays(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file.name)
    saved_plans.save(str(link), PLANS_OF, WISHED, "")
    assert link.is_symlink()
    assert list(saved_plans.load(str(file)).hosts) == ["h"]
    with pytest.raises(UsageError, match="not a regular file"):
        saved_plans.save("/dev/null", PLANS_OF, WISHED, "")


def test_no_file_but_an_older_plan_is_replaced(file: Path, key_file: Path) -> None:
    file.write_text("all:\n  hosts:\n    gpu-01:\n")
    with pytest.raises(UsageError, match="is there, and is no saved plan"):
        saved_plans.save(str(file), PLANS_OF, WISHED, "")
    assert file.read_text().startswith("all:")
