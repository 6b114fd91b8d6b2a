"""What roles have left on a host: remembered there, gone when nobody wants it, or with its role."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Refusal
from provision.plan.declared import Declared, declare
from provision.probe import Output
from provision.resource import ABSENT, Change, Planned
from provision.resources.file import FileState, checksum
from provision.resources.leftovers import Leftovers, OldSources, with_leftovers, without
from provision.resources.packages.deb import Packages
from provision.resources.packages.repository import KeyFile, RepositoryFile
from provision.roles import all_roles
from provision.roles.docker.daemon_json import DaemonJsonState
from provision.roles.docker.memory import as_memory
from provision.roles.docker.merge import merge
from provision.roles.docker.removal import OwnersDaemonJson
from provision.roles.docker.text import as_text, parse
from provision.roles.toolkit.role import PACKAGES
from tests.unit.examples import FINGERPRINT, H100, REPO, settings_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

ROLES = {role.name: role for role in all_roles()}
OTHER = {**REPO, "uri": "https://packages.example.org/moved"}
IMAGE = {"image": "nvcr.io/nvidia/tritonserver:24.07-py3"}


def declared(**roles: Mapping[str, Any]) -> tuple[Declared, ...]:
    settings = {ROLES[name]: settings_of(name, **changes) for name, changes in roles.items()}
    return declare("h", settings, H100)


def record(items: tuple[Declared, ...]) -> str:
    """What a host says whose record has all that is declared."""
    return "".join(f"here {row}\n" for item in items for row in item.leaves)


def changes_of(items: tuple[Declared, ...], said: str) -> list[Change]:
    """What is planned about leftovers alone, where all else is right."""
    found: list[Change] = []
    for item in items:
        if isinstance(item.resource, Leftovers):
            state = Leftovers.states([item.resource], Output(0, said.encode()))[item.resource.id]
            change = item.resource.change(state, Planned(tuple(found)))
            found += [change] if change else []
    return found


def notes_of(items: tuple[Declared, ...], said: str) -> list[str]:
    found: list[str] = []
    for item in items:
        if isinstance(item.resource, Leftovers):
            state = Leftovers.states([item.resource], Output(0, said.encode()))[item.resource.id]
            found += item.resource.notes(state, Planned())
    return found


CANARY = "/usr/local/share/provision/triton/provision_canary"
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nothing": ({"toolkit": {}}, {"toolkit": {}}, ""),
    "another version": ({"toolkit": {}}, {"toolkit": {"version": "1.20.1-1"}}, ""),
    "another mirror": ({"toolkit": {}}, {"toolkit": {"repo": OTHER}}, "packages-example-org-nvidia.sources"),
    "the distribution's driver": (
        {"driver": {}},
        {"driver": {"source": "archive", "repo": None, "branch": 535, "version": None}},
        "packages-example-org-nvidia.sources FINGERPRINT.asc nvidia-kernel-open-dkms nvidia-driver-cuda",
    ),
    "no hold": (
        {"toolkit": {}},
        {"toolkit": {"hold": False}},
        " ".join(PACKAGES),
    ),
    "no canary": (
        {"triton": {"instances": {"main": IMAGE}}},
        {"triton": {"instances": {"main": {**IMAGE, "canary": False}}}},
        f"{CANARY}/config.pbtxt {CANARY}/1/model.py",
    ),
    "another image": (
        {"triton": {"instances": {"main": IMAGE}}},
        {"triton": {"instances": {"main": {"image": "nvcr.io/nvidia/tritonserver:25.01-py3"}}}},
        "",
    ),
    "an instance less": (
        {
            "triton": {
                "instances": {
                    "main": {**IMAGE, "canary": False},
                    "old": {**IMAGE, "canary": False}
                    | {"http_port": 9000, "grpc_port": 9001, "metrics_port": 9002},
                }
            }
        },
        {"triton": {"instances": {"main": {**IMAGE, "canary": False}}}},
        "/etc/triton/old.env triton@old.service",
    ),
    "no instance": (
        {"triton": {"instances": {"main": {**IMAGE, "canary": False}}}},
        {"triton": {"instances": {}}},
        "triton-gpu-gate triton-mounts triton-wait-ready main.env triton@main.service",
    ),
    "Docker of the distribution": (
        {"docker": {"source": "docker"}},
        {"docker": {"source": "archive"}},
        "download-docker-com-linux-debian-bookworm-stable.sources"
        " provision-9DC858229FC7DD38854AE2D88D81803C0EBFCD88.asc",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_settings_no_longer_name_goes(name: str) -> None:
    old, new, ends = SETTINGS[name]
    ends = ends.replace("FINGERPRINT", FINGERPRINT)
    items = with_leftovers(declared(**new), list(new), list(new))
    said = record(declared(**old)) + record(declared(**new))
    scripts = [shlex.split(change.script) for change in changes_of(items, said)]
    going = [word.partition(":")[2] for script in scripts for word in script[2:]]
    found = {next((end for end in ends.split() if word.endswith(end)), word) for word in going}
    assert found == set(ends.split())


def test_what_another_role_has_too_stays() -> None:
    both = record(declared(driver={}, toolkit={}))
    archive = declared(driver={"source": "archive", "repo": None, "branch": 535, "version": None})
    alone = changes_of(with_leftovers(archive, ["driver"], ["driver", "toolkit"]), both)
    assert not [change for change in alone if ".sources" in change.summary or ".asc" in change.summary]
    gone = changes_of(
        with_leftovers(archive, ["driver"], ["driver"]), both.replace("here toolkit", "here driver")
    )
    assert [change for change in gone if ".sources" in change.summary and ".asc" in change.summary]


def test_sources_go_before_packages_are_installed_and_all_else_comes_last() -> None:
    items = with_leftovers(declared(toolkit={}), ["toolkit"], [])
    kinds = [type(item.resource) for item in items]
    assert kinds[:2] == [KeyFile, RepositoryFile]
    assert kinds.index(RepositoryFile) < kinds.index(OldSources) < kinds.index(Packages)
    assert kinds.index(Leftovers) > [item.resource.id for item in items].index("packages:toolkit")


def test_a_hold_that_nobody_has_noted_is_not_taken_for_ours() -> None:
    """As where /var/lib/provision was lost: the host drops what it does not know to be ours, at each run."""
    items = with_leftovers(declared(toolkit={}), ["toolkit"], [])
    (change,) = changes_of(items, "")
    assert "package:" in change.script
    assert "hold:" not in change.script
    holds = "".join(
        f"here driver {leaf}\n" for item in items for leaf in item.resource.leaves if leaf[:5] == "hold:"
    )
    (change,) = changes_of(items, holds)
    assert "hold:" in change.script


def test_what_an_earlier_version_wrote_is_noted_once() -> None:
    items = with_leftovers(declared(toolkit={}), ["toolkit"], [])
    (change,) = changes_of(items, "")
    assert change.action == "note"
    assert "/etc/apt/preferences.d/provision-toolkit" in change.summary
    assert changes_of(items, record(declared(toolkit={}))) == []
    before = record(declared(toolkit={})).replace("file:", "before:")
    assert changes_of(items, before) == [], "what was there before us is noted as that"


def test_a_role_without_settings_is_named_and_nothing_is_done() -> None:
    said = record(declared(toolkit={}, triton={}, docker={}))
    items = with_leftovers(declared(toolkit={}), ["toolkit"], ["toolkit", "docker"])
    assert changes_of(items, said) == []
    (note,) = notes_of(items, said)
    assert note.startswith(
        "role triton has no settings for this host, and /etc/systemd/system/triton@main.service"
    )
    assert note.endswith("to remove that: inv remove --roles triton --hosts all")
    items = with_leftovers(declared(toolkit={}), ["toolkit"], ["toolkit", "triton"])
    assert ["our keys in /etc/docker/daemon.json is left" in note for note in notes_of(items, said)] == [True]
    assert notes_of(items, said.replace("here docker", "gone site")) == []


def removal(*names: str, given: tuple[str, ...] = (), strange: tuple[str, ...] = ()) -> tuple[Declared, ...]:
    return without([ROLES[name] for name in names], all_roles(), given, strange)


@pytest.mark.parametrize(
    ("removed", "given", "there", "says"),
    [
        (
            "docker",
            "triton",
            "docker",
            "role docker is not removed: triton needs it, and has settings for this host",
        ),
        (
            "docker",
            "",
            "docker triton",
            "role docker is not removed: triton needs it, and is still on this host",
        ),
        ("driver", "toolkit", "driver", "role driver is not removed: toolkit needs it"),
        ("toolkit", "", "toolkit docker", "role toolkit is not removed: docker needs it"),
    ],
)
def test_a_role_that_another_needs_stays(removed: str, given: str, there: str, says: str) -> None:
    said = record(declared(**{name: {} for name in there.split()}))
    with pytest.raises(Refusal) as caught:
        changes_of(removal(removed, given=tuple(given.split())), said)
    assert caught.value.message.startswith(says)


def test_roles_go_with_those_that_need_them_and_only_once() -> None:
    said = record(declared(docker={}, triton={}, toolkit={}))
    items = removal("toolkit", "docker", "triton", given=("triton",))
    changes = changes_of(items, said)
    assert [change.resource for change in changes] == [
        "old-sources:toolkit",
        "leftovers:triton",
        "leftovers:docker",
        "leftovers:toolkit",
    ]
    assert all(change.reason == "the role is removed" for change in changes)
    assert notes_of(items, said) == ["role triton still has settings for this host: provision brings it back"]
    assert changes_of(items, "") == []


def test_a_role_of_which_only_the_host_knows_is_removed() -> None:
    items = removal(strange=("site",))
    (change,) = changes_of(
        items, "here site file:/etc/site.conf\nhere site before:/etc/motd\ngone site file:/x\n"
    )
    assert change.summary == "remove /etc/site.conf (kept in the backups)"
    assert change.script == "take_away site file:/etc/site.conf && forget_role site"
    told = items[-1].resource.refine(
        change,
        Output(
            0,
            b"package-tool apt-get purge\npackage a\npackage b\nruns x.service\n"
            b"==> /etc/site.conf <==\none\n",
        ),
    )
    assert told.impact == (
        "x.service is running and will be stopped",
        "packages stay; to remove them: apt-get purge a b",
    )
    assert "-one" in told.diff
    assert "content is not shown" in items[-1].resource.refine(change, Output(0, b"")).diff


def test_what_was_there_before_us_stays_and_a_strange_name_is_told() -> None:
    items = removal(strange=("site",))
    (note,) = notes_of(items, "here site before:/etc/motd\n")
    assert note.startswith("/etc/motd was there before role site, and stays as it is now")
    assert notes_of(items, "") == ["there is no role 'site', and nothing of one on this host"]
    assert changes_of(items, "") == []
    units = "here site file:/etc/a\nhere site file:/etc/systemd/system/x.service\n"
    (change,) = changes_of(items, units)
    assert change.summary.startswith("remove /etc/systemd/system/x.service, /etc/a")


def test_a_record_that_is_not_ours_is_not_read() -> None:
    for line in ("what", "", "x garbage", "x file:/etc/../etc/passwd", "x file:etc/passwd", "x hold:"):
        with pytest.raises(Refusal, match="/var/lib/provision/ours is not as provision writes it") as caught:
            Leftovers.states([], Output(0, f"here {line}\n".encode()))
        assert str(caught.value.hint).startswith("on the host: mv /var/lib/provision/ours ")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "content",
    [b"\xdc\xc4\x7f\0\x0b\x85", b"\xff\xfe \n\n\0x", b'{"a": 1}', b"x" * 10_000, b"site file:/a\n" * 20_000],
    ids=["bytes", "lines", "JSON", "a long line", "many lines"],
)
def test_a_damaged_record_is_named(shell: str, content: bytes, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    root.write("/var/lib/provision/ours").write_bytes(content)
    answer = root.words("recorded")
    assert len(answer.stdout) < 1_000_000
    with pytest.raises(Refusal, match="/var/lib/provision/ours is not as provision writes it"):
        Leftovers.states([], answer)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_record_tells_ours_from_what_was_there(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    record = root.write("/var/lib/provision/ours")
    root.write("/etc/motd", "theirs\n")
    root.write("/etc/marked", "#!/bin/sh\n# Written by provision\n")
    lines = [f"site file:{root.folder}/etc/{name}" for name in ("motd", "marked", "new/deep/file")]
    run = root.words(
        "remember 'site hold:a' "
        + " ".join(f"'{line}'" for line in lines)
        + " && are_remembered "
        + " ".join(f"'{line}'" for line in lines)
    )
    assert run.ok, run.err
    at = f"{root.folder}/etc"
    noted = [
        "hold:a",
        f"before:{at}/motd",
        f"file:{at}/marked",
        f"folder:{at}/new/deep",
        f"folder:{at}/new",
        f"file:{at}/new/deep/file",
    ]
    assert record.read_text().splitlines() == [f"site {item}" for item in noted]
    root.write("/etc/new/deep/file", "text\n")
    root.write("/etc/new/other", "theirs\n")
    before = record.read_text()
    root.write("/etc/motd", "# Written by provision over theirs\n")
    assert root.words("remember " + " ".join(f"'{line}'" for line in lines)).ok
    assert record.read_text() == before
    assert root.words("recorded").out.splitlines()[0] == "gone site hold:a"
    ran = root.words(f"backups={tmp_path}/backups; take_away site 'file:{at}/new/deep/file' hold:a")
    assert ran.ok, ran.err
    assert [path.name for path in (tmp_path / "etc/new").iterdir()] == ["other"]
    assert (tmp_path / f"backups/spool{at}/new/deep/file").read_text() == "text\n"
    assert "deep/file" not in "".join(line for line in record.read_text().splitlines() if "file:" in line)
    assert root.words("forget_role site && is_forgotten site && recorded").out == ""
    assert (tmp_path / "etc/motd").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_gone_is_ours_no_more_though_somebody_makes_it_again(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    record = root.write("/var/lib/provision/ours")
    removed, kept = (root.write(f"/etc/{name}", "# Written by provision\n") for name in ("removed", "kept"))
    lines = [
        f"triton file:{removed}",
        f"site file:{removed}",
        f"triton file:{kept}",
        f"triton file:{root.folder}/gone",
    ]
    record.write_text("".join(f"{line}\n" for line in [*lines, "triton image:x"]))
    assert root.words(f"backups={tmp_path}/backups; remove_file {removed}").ok
    assert record.read_text().splitlines() == [*lines[2:], "triton image:x"]
    unit = root.write("/etc/systemd/system/triton@x.service", "[Unit]\n")
    record.write_text(record.read_text() + f"triton file:{unit}\ntriton file:{root.folder}/etc\n")
    asked = root.words(f"unit_folder={unit.parent}; recorded").out.splitlines()
    assert [line.split()[0] for line in asked] == ["here", "gone", "here", "other", "other"]
    record.write_text("".join(f"{line}\n" for line in [*lines[2:], "triton image:x"]))
    assert root.words("forget_gone").ok
    assert record.read_text().splitlines() == [lines[2], "triton image:x"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_in_the_record_alone_makes_no_file_ours(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    theirs = [root.write(path, "theirs\n") for path in ("/etc/fstab", "/etc/triton/provision.env")]
    ours = [root.write("/etc/apt/keyrings/provision-AB.asc", "key\n")]
    ours.append(root.write("/etc/triton/main.env", "# Written by provision: environment\n"))
    root.write("/var/lib/provision/ours", "".join(f"triton file:{path}\n" for path in [*theirs, *ours]))
    told = root.words("recorded").out.splitlines()
    assert [line.split()[0] for line in told] == ["other", "other", "here", "here"]
    items = removal("triton")
    said = "other triton file:/etc/fstab\n"
    assert "fstab" not in "".join(change.script for change in changes_of(items, said))
    assert "/etc/fstab is not what role triton wrote there, and stays" in notes_of(items, said)
    ran = root.words(f"backups={tmp_path}/backups; take_away triton file:{theirs[0]}")
    assert not ran.ok
    assert "is not what we wrote there" in ran.out + ran.err
    assert all(path.exists() for path in (*theirs, *ours))


OWNERS: list[dict[str, Any]] = [
    {},
    {"log-driver": "journald"},
    {"default-runtime": "runc", "runtimes": {"other": {"path": "/opt/other"}}},
]


@pytest.mark.parametrize("owners", OWNERS)
def test_daemon_json_is_its_owners_again(owners: dict[str, Any]) -> None:
    declared = {"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}
    merged = merge(parse(as_text(owners)), (), declared)
    content = as_text(merged.document)
    state = DaemonJsonState(_file(content), _file(as_memory(merged.settings, content)))
    change = OwnersDaemonJson().change(state, Planned())
    assert change is not None
    assert "/etc/docker/daemon.json" in change.summary
    assert "forget_daemon_json" in change.script
    if owners:
        assert (
            f"holds /etc/docker/daemon.json {checksum(as_text(parse(as_text(owners)), content))}"
            in change.done
        )
    else:
        assert "remove_file /etc/docker/daemon.json" in change.script
    told = OwnersDaemonJson().refine(change, Output(0, b"/web\n"))
    assert told.impact[-1] == "container web was made with runtime nvidia: re-create it"
    assert OwnersDaemonJson().change(replace(state, memory=ABSENT), Planned()) is None


def test_keys_that_their_owner_changed_since_stay() -> None:
    content = as_text(parse(b'{"default-runtime": "mine"}'))
    memory = as_memory(merge({}, (), {"default-runtime": "nvidia"}).settings, content)
    change = OwnersDaemonJson().change(DaemonJsonState(_file(content), _file(memory)), Planned())
    assert change is not None
    assert change.action == "forget"


def _file(content: bytes) -> FileState:
    return FileState("file", "0644", "root", "root", content)
