"""Files, directories and files that must not be: how they are read by a real sh, and what is planned."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provision.errors import ProbeError, Refusal
from provision.plan.declared import Declared
from provision.plan.plan import probes, states
from provision.probe import Output
from provision.resource import ABSENT, Missing, Planned, unified
from provision.resources.file import (
    LARGEST,
    Directory,
    File,
    FileState,
    checksum,
    parse_paths,
    read_paths,
)
from provision.roles.toolkit.config import ConfigToml
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

NOTHING = Planned()


def read(shell: str, paths: list[Path]) -> dict[str, FileState | Missing]:
    """Run the probe for paths with a real shell, and read its answer."""
    names = [str(path) for path in paths]
    ran = subprocess.run(
        [shell, "-c", script_of(read_paths("x", names))],
        capture_output=True,
        check=False,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    return parse_paths(names, Output(ran.returncode, ran.stdout, ran.stderr))


def state(
    content: bytes | None = b"x\n", mode: str = "0644", owner: str = "root", type_: str = "file"
) -> FileState:
    return FileState(type_, mode, owner, "root", content)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "name", ["plain", "two words", "it's", 'a"b', "-n", "$HOME", "new\nline", "é", "*", "back\\slash", "a|b"]
)
def test_a_file_of_any_name_is_read(shell: str, name: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 3
    file = tmp_path / name
    file.write_bytes(content)
    file.chmod(0o640)
    found = read(shell, [file, tmp_path])
    assert found[str(file)] == FileState("file", "0640", file.owner(), file.group(), content)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_kind_of_path_is_told_apart(shell: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch(0o644)
    (tmp_path / "special").touch(0o4755)
    (tmp_path / "special").chmod(0o4755)
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
    (tmp_path / "largest").write_bytes(b"x" * LARGEST)
    (tmp_path / "folder").mkdir(0o750)
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "link-to-folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    names = [
        "empty",
        "special",
        "large",
        "largest",
        "folder",
        "link",
        "link-to-folder",
        "dangling",
        "pipe",
        "absent",
    ]
    found = read(shell, [tmp_path / name for name in names])
    told = {Path(path).name: state for path, state in found.items()}
    assert told.pop("absent") is ABSENT
    kinds = {name: state.type for name, state in told.items() if isinstance(state, FileState)}
    assert kinds == {
        "empty": "file",
        "special": "file",
        "large": "file",
        "largest": "file",
        "folder": "directory",
        "link": "file",
        "link-to-folder": "directory",
        "dangling": "dangling link",
        "pipe": "fifo",
    }
    assert [name for name, state in told.items() if isinstance(state, FileState) and state.linked] == ["link"]
    contents = {name: state.content for name, state in told.items() if isinstance(state, FileState)}
    assert (contents["empty"], contents["large"], contents["pipe"]) == (b"", None, None)
    assert contents["largest"] == b"x" * LARGEST
    modes = {name: state.mode for name, state in told.items() if isinstance(state, FileState)}
    assert (modes["special"], modes["folder"]) == ("4755", "0750")


def test_nothing_is_written_through_a_link() -> None:
    """What it points to may be any file; one that is right stays as it is."""
    file = File("/etc/triton/main.env", b"A=1\n", mode="0600", sensitive=True)
    theirs = FileState("file", "0640", "root", "shadow", b"root:x\n", linked=True)
    with pytest.raises(
        Refusal, match=r"main\.env is a link to another file, and its content differs; mode is"
    ):
        file.change(theirs, Planned())
    right = FileState("file", "0600", "root", "root", b"A=1\n", linked=True)
    assert file.change(right, Planned()) is None
    edited = File.edited("/etc/docker/daemon.json", b"{}\n", theirs)
    assert edited.change(theirs, Planned()), "a file of the owner's, whose link stays"


def test_an_answer_that_was_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="0 of 1 paths are told"):
        parse_paths(["/a"], Output(255, b""))


TWO = ["/a", "/b"]
TOLD = b"rr\nregular file|644|root|root|2\nregular file|644|root|root|3\n"


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"==> /a <==\nx\n\n==> /b <==\nyy\n", None),
        (b"==> /a <==\nxxx\n\n==> /b <==\nyy\n", "/b or one before it changed while it was read"),
        (b"==> /a <==\nx\n\n==> /b <==\ny\n", "/b or one before it changed while it was read"),
        (b"==> /a <==\nx\n\n==> /b <==\nyyyy\n", "a file changed while it was read"),
        (b"==> /a <==\nx\n", "/b or one before it changed while it was read"),
        (b"", "/a or one before it changed while it was read"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_not_taken_for_another(
    contents: bytes, complaint: str | None
) -> None:
    answer = Output(0, TOLD + contents)
    if complaint:
        with pytest.raises(ValueError, match=complaint):
            parse_paths(TWO, answer)
    else:
        assert [s.content for s in parse_paths(TWO, answer).values() if isinstance(s, FileState)] == [
            b"x\n",
            b"yy\n",
        ]


@pytest.mark.parametrize(
    "answer",
    [
        Output(1, TOLD + b"==> /a <==\nx\n\n==> /b <==\nyy\n"),
        Output(0, b"rr\nregular file|644|root|root|2\n"),
        Output(0, b"ar\n"),
        Output(0, b"a\n"),
    ],
)
def test_half_an_answer_about_paths_is_refused(answer: Output) -> None:
    with pytest.raises(ValueError, match=r"of 2 paths are told|of 1 paths are told"):
        parse_paths(TWO, answer)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_file_that_cannot_be_read_is_not_empty(shell: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    script = script_of(read_paths("x", [str(tmp_path / "file")]))
    broken = f"head() {{ echo 'head: error reading' >&2; return 1; }}\n{script}"
    ran = subprocess.run([shell, "-c", broken], capture_output=True, check=False)
    with pytest.raises(ValueError, match="head: error reading"):
        parse_paths([str(tmp_path / "file")], Output(ran.returncode, ran.stdout, ran.stderr))


def test_one_question_for_all_paths() -> None:
    items = [Declared("x", File("/a", b"")), Declared("y", Directory("/b")), Declared("z", ConfigToml({}))]
    (probe,) = probes(items)
    assert probe.script == "path_states /a /b /etc/nvidia-container-runtime/config.toml"
    found = states("h", items, {probe.name: Output(0, b"aaa\n")})
    assert found == {item.resource.id: ABSENT for item in items}
    with pytest.raises(ProbeError, match="cannot read the state of paths: 1 of 3 paths are told: no stat"):
        states("h", items, {probe.name: Output(127, b"a\n", b"no stat")})


FILE = File("/etc/a b", b"new\n")


@pytest.mark.parametrize(
    ("found", "action", "reason", "guard"),
    [
        (ABSENT, "create", "it does not exist", "[ ! -e '/etc/a b' ]"),
        (
            state(b"old\n"),
            "update",
            "its content differs",
            f"holds '/etc/a b' {checksum(b'old' + bytes([10]))}",
        ),
        (state(b"new\n", "0600"), "update", "mode is 0600, wanted 0644", None),
        (state(b"new\n", owner="www"), "update", "owner is www:root, wanted root:root", None),
        (state(b"", "0600"), "update", "its content differs; mode is 0600, wanted 0644", None),
        (state(None), "update", "its content differs", "[ -f '/etc/a b' ]"),
    ],
)
def test_a_file_that_is_not_right(
    found: FileState | Missing, action: str, reason: str, guard: str | None
) -> None:
    change = FILE.change(found, NOTHING)
    assert change is not None
    assert (change.resource, change.action, change.reason) == ("file:/etc/a b", action, reason)
    assert change.summary == "write /etc/a b (4 bytes, 0644 root:root)"
    assert change.guard == guard or guard is None
    assert change.done == f"holds '/etc/a b' {checksum(FILE.content)} && owned '/etc/a b' '0644 root:root'"


def test_a_file_that_is_right_needs_nothing() -> None:
    assert FILE.change(state(b"new\n"), NOTHING) is None


@pytest.mark.parametrize(
    ("resource", "type_"),
    [(FILE, "directory"), (FILE, "fifo"), (Directory("/a"), "file")],
)
def test_what_is_in_the_way_is_never_removed(resource: File | Directory, type_: str) -> None:
    with pytest.raises(Refusal, match=f"there is a {type_} at /"):
        resource.change(state(None, type_=type_), NOTHING)


def test_secret_content_is_shown_nowhere_but_in_the_script() -> None:
    change = File("/etc/key", b"hunter2\n", sensitive=True).change(state(b"hunter1\n"), NOTHING)
    assert change is not None
    shown = " ".join((change.summary, change.reason, change.diff, change.guard, change.done, change.resource))
    assert "hunter" not in shown
    assert change.diff == "(content is not shown)\n"


def test_the_diff_of_a_file() -> None:
    change = File("/etc/a", b"one\ntwo").change(state(b"one\nzwei\xff\n"), NOTHING)
    assert change is not None
    assert change.diff.splitlines() == [
        "--- /etc/a (now)",
        "+++ /etc/a (planned)",
        "@@ -1,2 +1,2 @@",
        " one",
        "-zwei\\xff",
        "+two",
        "\\ No newline at end of file",
    ]
    assert unified("same", "same", "x") == ""


@pytest.mark.parametrize(
    ("directory", "found", "action"),
    [
        (Directory("/a"), ABSENT, "create"),
        (Directory("/a"), state(None, "0755", type_="directory"), None),
        (Directory("/a"), state(None, "0700", type_="directory"), "update"),
        (Directory("/a"), state(None, "0755", "triton", "directory"), "update"),
        (Directory("/a", keep_mode=True), state(None, "0700", "triton", "directory"), None),
        (Directory("/a", keep_mode=True), ABSENT, "create"),
    ],
)
def test_directories(directory: Directory, found: FileState | Missing, action: str | None) -> None:
    change = directory.change(found, NOTHING)
    assert (change.action if change else None) == action
    assert change is None or ("owned" in change.done) != directory.keep_mode


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", [File, Directory])
def test_states_are_told_by_id(shell: str, kind: type[File] | type[Directory], tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    Path(one).write_bytes(b"1")
    resources: list[File | Directory] = {  # type: ignore[assignment]
        File: [File(one, b""), File(other, b"")],
        Directory: [Directory(one), Directory(other)],
    }[kind]
    ran = subprocess.run([shell, "-c", script_of(kind.probe(resources))], capture_output=True, check=True)  # type: ignore[arg-type]
    found = kind.states(resources, Output(0, ran.stdout))  # type: ignore[arg-type]
    assert found[resources[1].id] is ABSENT
    assert isinstance(found[resources[0].id], FileState)
