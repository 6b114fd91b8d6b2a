"""Other sources of the same packages: found by what they say, removed where nothing else is in them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Planned
from provision.resources.packages.other_sources import OtherSources, SourceFile
from provision.roles.toolkit.role import OLD_REPOSITORIES, OLD_SOURCES
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

URI = "https://mirror.example.org/nvidia/deb/amd64"
LISTS = "/etc/apt/sources.list.d"
APT = OtherSources(
    "toolkit", "debian", URI, "/", "amd64", (f"{LISTS}/ours.sources",), OLD_REPOSITORIES, OLD_SOURCES
)
DNF = replace(APT, family="rhel", uri="https://mirror.example.org/rpm/x86_64", architecture="x86_64", own=())

OLD = "https://packages.example.org/libnvidia-container/stable/deb"


def refused(wanted: OtherSources, path: str, text: str) -> str:
    with pytest.raises(Refusal) as caught:
        wanted.change((SourceFile(path, text.encode()),), Planned())
    assert "by hand" in str(caught.value.hint)
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("any.list", f"deb [signed-by=/usr/share/keyrings/x.gpg] {URI} /\n"),
        ("any.list", f"deb {URI}/ /\n"),
        ("any.list", f"# a remark\n\ndeb {URI} /  # ours\n#deb http://deb.example.org trixie main\n"),
        ("any.list", "deb [arch=amd64 signed-by=/k] https://mirror.example.org/nvidia/deb/$(ARCH) /\n"),
        ("any.list", f"deb {OLD}/$(ARCH) /\n#deb {OLD}/experimental /\n"),
        ("any.list", f"deb {OLD}/$(ARCH) /\ndeb-src {OLD}/$(ARCH) /\n"),
        ("nvidia-docker.list", "deb https://elsewhere.example.org/gpu /\n"),
        ("libnvidia-container-experimental.sources", "Types: deb\nURIs: https://e.example.org\nSuites: /\n"),
        ("any.sources", f"Types: deb\nURIs: {URI}\nSuites: /\nSigned-By: /k.gpg\n"),
        ("any.sources", f"# a remark\nTypes: deb\nURIs: {OLD}/amd64\n {URI}\nSuites: /\n"),
    ],
)
def test_files_that_go(name: str, text: str) -> None:
    change = APT.change((SourceFile(f"{LISTS}/{name}", text.encode()),), Planned())
    assert change is not None
    assert change.action == "remove"
    assert f"{LISTS}/{name}" in change.summary
    assert all(f"-{line}\n" in change.diff for line in text.splitlines())
    assert f"holds {LISTS}/{name}" in change.guard


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("any.list", f"#deb {OLD}/amd64 /\n"),
        ("any.list", f"deb {URI} trixie main\n"),
        ("any.list", f"deb {URI}-other /\n"),
        ("any.list", "deb https://packages.example.org/libnvidia-containers /\n"),
        ("nvidia-docker.list", "# nothing any more\n"),
        ("any.sources", f"Enabled: no\nTypes: deb\nURIs: {URI}\nSuites: /\n"),
        ("any.sources", f"Types: deb\nURIs: {URI}\nSuites: trixie\nComponents: main\n"),
    ],
)
def test_files_that_stay(name: str, text: str) -> None:
    assert APT.change((SourceFile(f"{LISTS}/{name}", text.encode()),), Planned()) is None


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("/etc/apt/sources.list", f"deb {URI} /\n", 1),
        (f"{LISTS}/site.list", f"deb http://a.example.org x main\n\ndeb [a=b] {OLD}/$(ARCH) /\n", 3),
        (
            f"{LISTS}/site.sources",
            f"Types: deb\nURIs: http://a.example.org\nSuites: x\nComponents: main\n\n"
            f"Types: deb\nURIs: {URI}\nSuites: /\n",
            6,
        ),
    ],
)
def test_sources_among_others_are_refused_with_their_line(path: str, text: str, line: int) -> None:
    assert refused(APT, path, text).startswith(f"{path}:{line}: ")


def test_repo_files_of_dnf() -> None:
    folder = "/etc/yum.repos.d"
    old = f"[nvidia-docker]\nname=x\nbaseurl={OLD}\nenabled=1\n"
    same = "[gpu]\nname=gpu\nbaseurl=https://mirror.example.org/rpm/$basearch\n"
    base = "[base]\nname=b\nbaseurl=https://b.example.org\n"
    for name, text in (("any.repo", old), ("any.repo", same), ("libnvidia-container.repo", base)):
        assert DNF.change((SourceFile(f"{folder}/{name}", text.encode()),), Planned()) is not None
    for text in (base, same + "enabled=0\n", "not a repo file", "[x]\nmirrorlist=https://m.example.org\n"):
        assert DNF.change((SourceFile(f"{folder}/any.repo", text.encode()),), Planned()) is None
    assert refused(DNF, f"{folder}/site.repo", base + old).startswith(f"{folder}/site.repo:4: ")


@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_found_by_content_and_by_name(shell: str, tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example.org x main\n")
    for name, text in {
        "ours.sources": f"URIs: {URI}",
        "same.list": "deb https://mirror.example.org/nvidia/deb/$(ARCH) /",
        "old.sources": f"URIs: {OLD}",
        "nvidia-docker.list": "deb https://elsewhere.example.org /",
        "other.list": "deb http://a.example.org y main",
        "old.list.bak": f"deb {OLD} /",
    }.items():
        (folder / name).write_text(text + "\n")
    script = script_of(APT.probe([APT])).replace("/etc/apt/", f"{tmp_path}/")
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True)
    output = Output(0, ran.stdout.replace(f"{tmp_path}/".encode(), b"/etc/apt/"), ran.stderr)
    found = APT.states([APT], output)[APT.id]
    assert [file.path.removeprefix(f"{LISTS}/") for file in found] == [
        "nvidia-docker.list",
        "old.sources",
        "same.list",
    ]
    assert found[1].text == f"URIs: {OLD}\n"
    assert ran.stderr == b""


def test_a_source_that_cannot_be_read_is_not_taken_for_none() -> None:
    with pytest.raises(ValueError, match="head: cannot open"):
        APT.states([APT], Output(1, b"", b"head: cannot open 'x'\n"))


def test_a_clean_host_needs_nothing() -> None:
    assert APT.states([APT], Output(0, b"")) == {APT.id: ()}
    assert APT.change((), Planned()) is None
    assert APT.bare() == ()


def test_a_file_that_another_role_removes_is_removed_once() -> None:
    file = SourceFile(f"{LISTS}/any.list", f"deb {URI} /\n".encode())
    first = replace(APT, name="driver", parts=(), files=()).change((file,), Planned())
    assert first is not None
    assert APT.change((file,), Planned((first,))) is None
    more = APT.change((file, SourceFile(f"{LISTS}/old.list", f"deb {OLD} /\n".encode())), Planned((first,)))
    assert more is not None
    assert more.summary == f"remove {LISTS}/old.list (kept in the backups)"
