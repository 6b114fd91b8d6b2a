"""config.toml of the toolkit: declared keys are set, and nothing else of it changes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.errors import Refusal
from provision.resource import ABSENT, Planned
from provision.resources.file import DANGLING, FileState
from provision.roles.toolkit.config import CONFIG_TOML, ConfigToml, differing, read, with_keys
from provision.roles.toolkit.config_keys import CHOICES, DEFAULTS, Value, default, flat, wrong

PACKAGED = (Path(__file__).parents[2] / "lab/standins/files/config.toml").read_bytes()
"""What nvidia-ctk 1.20.0 makes on a Debian host."""

MODE = "nvidia-container-runtime.mode"
NO_CGROUPS = "nvidia-container-cli.no-cgroups"


def file(content: bytes | None, type_: str = "file", owner: str = "root") -> FileState:
    return FileState(type_, "0640", owner, "root", content)


# --- keys -----------------------------------------------------------------------------------------


def test_the_packaged_file_says_the_defaults() -> None:
    for key, value in flat(read(PACKAGED)).items():
        assert default(key) == value, key


def test_every_commented_key_of_the_packaged_file_is_known() -> None:
    table = ""
    for line in PACKAGED.decode().splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line.startswith("#"):
            assert table + line[1:].partition(" =")[0] in DEFAULTS


@pytest.mark.parametrize("key", CHOICES)
def test_defaults_are_among_the_choices(key: str) -> None:
    assert DEFAULTS[key] in CHOICES[key]


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_default_may_be_declared(key: str) -> None:
    assert wrong(key, default(key)) is None


@pytest.mark.parametrize(
    ("key", "value", "says", "hint"),
    [
        ("nvidia-container-runtime.mod", "auto", "has no key", f"did you mean '{MODE}'?"),
        ("zzzzzz", 1, "has no key", "known: accept-nvidia"),
        (NO_CGROUPS, "false", "must be true or false", "without quotes"),
        (NO_CGROUPS, 0, "must be true or false", "without quotes"),
        ("nvidia-container-runtime.debug", True, "must be text", "quote it"),
        ("nvidia-container-runtime.runtimes", "runc", "must be a list of text values", "behind a dash"),
        ("nvidia-container-runtime.runtimes", ["runc", 1], "must be a list of text values", "behind a dash"),
        (MODE, "legcy", "'legcy' is not one of auto, cdi", "auto"),
        (MODE, "csv", "'csv' is not one of", "Tegra"),
        ("features.disable-imex-channel-creation", "yes", "must be true or false", "without quotes"),
    ],
)
def test_values_that_cannot_be(key: str, value: object, says: str, hint: str) -> None:
    found = wrong(key, value)
    assert found is not None
    assert says in found[0]
    assert hint in found[1]


def test_tables_and_dotted_names_mean_the_same() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": 2}) == flat({"a.b.c": 1, "d": 2}) == {"a.b.c": 1, "d": 2}
    with pytest.raises(ValueError, match=r"a\.b is given twice"):
        flat({"a": {"b": 1}, "a.b": 1})


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wanted", "found"),
    [
        (b"", {MODE: "auto", NO_CGROUPS: False}, {}),
        (PACKAGED, {MODE: "auto", NO_CGROUPS: False}, {}),
        (PACKAGED, {MODE: "legacy"}, {MODE: "legacy"}),
        (b"[nvidia-container-cli]\nno-cgroups = true\n", {NO_CGROUPS: False}, {NO_CGROUPS: False}),
        (b"nvidia-container-cli.no-cgroups = true\n", {NO_CGROUPS: True}, {}),
        (b"[nvidia-container-cli]\nno-cgroups = 0\n", {NO_CGROUPS: False}, {NO_CGROUPS: False}),
        (b"", {"features.new": True, "features.other": False}, {"features.new": True}),
    ],
)
def test_keys_that_differ(content: bytes, wanted: dict[str, Value], found: dict[str, Value]) -> None:
    assert differing(read(content), wanted) == found


def test_a_change_touches_its_line_only() -> None:
    old = PACKAGED.decode().splitlines()
    new = with_keys(PACKAGED, {MODE: "legacy"}).decode().splitlines()
    assert [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]] == [
        ('mode = "auto"', 'mode = "legacy"')
    ]


def test_a_new_key_comes_last_in_its_table() -> None:
    text = with_keys(PACKAGED, {NO_CGROUPS: True, "features.x": True}).decode()
    assert '#user = "root:video"\nno-cgroups = true\n\n[nvidia-container-runtime]\n' in text
    assert text.endswith('[nvidia-ctk]\npath = "nvidia-ctk"\n\n[features]\nx = true\n')


def test_the_change_shows_what_it_does_and_keeps_mode_and_owner() -> None:
    wanted = ConfigToml({MODE: "legacy", NO_CGROUPS: False})
    change = wanted.change(file(PACKAGED), Planned())
    assert change is not None
    assert (change.resource, change.action) == (f"file:{CONFIG_TOML}", "update")
    assert change.summary == f"set {MODE} in {CONFIG_TOML}"
    assert '-mode = "auto"\n+mode = "legacy"\n' in change.diff
    assert "0640 root:root" in change.done
    assert "holds" in change.guard
    after = file(with_keys(PACKAGED, {MODE: "legacy"}))
    assert wanted.change(after, Planned()) is None


def test_a_link_that_points_to_nothing_is_not_written_through() -> None:
    state = file(None, DANGLING)
    assert ConfigToml({MODE: "auto", NO_CGROUPS: False}).change(state, Planned()) is None
    with pytest.raises(Refusal, match="there is a dangling link"):
        ConfigToml({MODE: "legacy", NO_CGROUPS: False}).change(state, Planned())


@pytest.mark.parametrize("state", [ABSENT, file(b"")])
def test_without_a_file_only_what_is_no_default_is_written(state: Any) -> None:
    assert ConfigToml({MODE: "auto", NO_CGROUPS: False}).change(state, Planned()) is None
    change = ConfigToml({MODE: "legacy", NO_CGROUPS: False}).change(state, Planned())
    assert change is not None
    assert '+[nvidia-container-runtime]\n+mode = "legacy"\n' in change.diff
    assert "no-cgroups" not in change.diff


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (file(b'a = 1\nmode = "auto\n'), f"{CONFIG_TOML}:2: not TOML"),
        (file(b"a = 1\na = 2\n"), "not TOML: Cannot overwrite a value"),
        (file(b"a = ["), "not TOML"),
        (file(b"\xef\xbb\xbfa = 1\n"), f"{CONFIG_TOML}:1: not TOML"),
        (file(b"a = 1\nb = '\xff'\n"), f"{CONFIG_TOML}:2: not UTF-8"),
        (file(b"nvidia-container-runtime = 5\n"), f"{MODE} cannot be set: a table above it is the value 5"),
        (file(b"[nvidia-container-runtime.mode]\n# why\n"), f"{MODE} is a table, not a value"),
        (file(None), "is too large"),
        (file(None, "directory"), "is a directory"),
    ],
)
def test_files_that_cannot_be_read_are_refused(state: FileState, says: str) -> None:
    with pytest.raises(Refusal, match=CONFIG_TOML) as caught:
        ConfigToml({MODE: "legacy"}).change(state, Planned())
    assert says in caught.value.message
    assert "by hand" in str(caught.value.hint)


# --- anybody's file -------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [*{part for key in DEFAULTS for part in key.split(".")}, "mine", "of the user", 'with "quotes"']
)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3), lambda v: st.dictionaries(NAMES, v, max_size=4), max_leaves=10
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=5)
COMMENTS = st.lists(TEXTS, min_size=1, max_size=3)
WANTED = st.dictionaries(st.sampled_from(list(DEFAULTS)), st.none(), max_size=4).flatmap(
    lambda keys: st.fixed_dictionaries({key: _of_type(default(key)) for key in keys})
)


def _of_type(like: Value) -> st.SearchStrategy[Value]:
    if isinstance(like, bool):
        return st.booleans()
    return st.lists(TEXTS, max_size=2) if isinstance(like, list) else TEXTS


def merged(document: dict[str, Any], changes: dict[str, Value]) -> dict[str, Any]:
    for key, value in changes.items():
        *tables, name = key.split(".")
        at = document
        for table in tables:
            at = at.setdefault(table, {})
        at[name] = value
    return document


@settings(max_examples=150, deadline=None)
@given(document=DOCUMENTS, comments=COMMENTS, wanted=WANTED)
def test_nothing_of_the_users_is_lost(document: Any, comments: list[str], wanted: dict[str, Value]) -> None:
    lines = tomlkit.dumps(document).splitlines()
    content = "\n".join([f"# {comments[0]}", *lines, *(f"# {text}" for text in comments[1:])]).encode()
    try:
        changes = differing(read(content), wanted)
    except Refusal:
        return  # a table and a value stand in each other's place
    text = with_keys(content, changes)
    assert tomllib.loads(text.decode()) == merged(tomllib.loads(content.decode()), dict(changes))
    for comment in comments:
        assert f"# {comment}" in text.decode()
    assert differing(read(text), wanted) == {}
    assert with_keys(text, {}) == text
