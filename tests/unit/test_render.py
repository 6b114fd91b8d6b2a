"""Templates: values quoted for where they land, and faults named by file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision import render as rendering
from provision.data import data
from provision.errors import RenderError
from provision.render import environment_value, render, systemd_text, systemd_word


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("plain", '"plain"'),
        ("", '""'),
        (8000, '"8000"'),
        ("two words", '"two words"'),
        ('say "hi"', r'"say \"hi\""'),
        ("C:\\dir", r'"C:\\dir"'),
        ("100%", '"100%%"'),
        ("$HOME ${X}", '"$$HOME $${X}"'),
        ("a\nb\tc\rd", r'"a\nb\tc\rd"'),
        ("\x01\x7f", r'"\x01\x7f"'),
        ("\u2028\u00a0", r'"\xe2\x80\xa8\xc2\xa0"'),
        ("é🙂", '"é🙂"'),
        (";", '";"'),
        ("-n", '"-n"'),
        ("'", '"\'"'),
    ],
)
def test_words_of_a_command_line(value: object, word: str) -> None:
    assert systemd_word(value) == word


@pytest.mark.parametrize(
    ("value", "text"),
    [("two  words\n", "two words"), ("50%", "50%%"), ("ends with \\", "ends with "), ("a\\\nb=c", "a\\ b=c")],
)
def test_text_of_a_setting_is_one_line(value: str, text: str) -> None:
    assert systemd_text(value) == text


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ('"$x" `y` \\', r'"\"\$x\" \`y\` \\"'),
        ("# no comment; 100%", '"# no comment; 100%"'),
        ("two\nlines", '"two\nlines"'),
        (1.5, '"1.5"'),
    ],
)
def test_values_of_an_environment_file(value: object, quoted: str) -> None:
    assert environment_value(value) == quoted


@pytest.mark.parametrize("quoting", [systemd_word, systemd_text, environment_value])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a\0b", "NUL"),
        ("\ud800", r"U\+D800 is no character"),
        ("\ufffe", r"U\+FFFE"),
        ("a\ufdd0", r"U\+FDD0"),
    ],
)
def test_what_cannot_be_written_is_refused(quoting: object, value: str, says: str) -> None:
    assert callable(quoting)
    with pytest.raises(RenderError, match=says):
        quoting(value)


def test_a_value_that_nobody_gave() -> None:
    with pytest.raises(RenderError, match=r"templates/triton/env\.j2:2: 'env' is undefined$"):
        render("triton/env.j2")


def test_a_template_that_is_not_there() -> None:
    with pytest.raises(RenderError, match=r"there is no template triton/no\.j2"):
        render("triton/no.j2")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's folder of roles, whose templates are found in this test alone."""
    monkeypatch.setattr(rendering, "_FOLDERS", [])
    rendering.add_folder(tmp_path)
    (tmp_path / "mine").mkdir()
    return tmp_path


def test_a_template_that_is_none(site: Path) -> None:
    (site / "mine/x.j2").write_text("one\n{% for %}\n")
    with pytest.raises(RenderError, match=r"mine/x\.j2:2: "):
        render("mine/x.j2")


def test_templates_of_a_site_are_found_after_ours(site: Path) -> None:
    (site / "mine/x.j2").write_text("{{ word }}\n")
    (site / "triton").mkdir()
    (site / "triton/env.j2").write_text("a site's\n")
    assert render("mine/x.j2", word="hello") == "hello\n"
    assert "a site's" not in render("triton/env.j2", env={})


RIGHT = {
    ".service.j2": ("word", "text"),
    ".sh.j2": ("sh",),
    "ks.cfg.j2": ("sh", "line"),
    "env.j2": ("value",),
}
"""The filters that are right in templates whose names end so: a word of Exec lines or a setting's text for
systemd, words for sh and kickstart, values of environment files; elsewhere nothing is quoted (``line``).
JSON, YAML and Kubernetes' manifests have no templates: they are written by their own libraries."""

NOT_FILTERED = {
    "bare/ks.cfg.j2": {"script"},  # sh text, whose own template quotes
    "driver/preferences.j2": {'packages | join(" ")', "version"},
    "driver/provision-nvidia-nodes.service.j2": {"minor"},
    "host/provision-governor.service.j2": {"governor"},
    "triton/canary.pbtxt.j2": {"name"},
    "triton/env.j2": {"key"},
    "triton/triton@.service.j2": {
        *("asks", "canary.timeout", "container", "environment", "gate", "instance.http_port"),
        *("instance.ready_timeout", "instance.restart", "instance.shm_size", "instance.user", "label"),
        *("limit", "mounts_gate", "name", "ready", "start_timeout", "stop_timeout", "unit_stop_timeout"),
        "value",
    },
}
"""Names and numbers that settings restrict, by template."""


@pytest.mark.parametrize("path", sorted(data("templates").glob("*/*.j2")), ids=lambda path: str(path.name))
def test_templates_quote_what_they_print_for_where_it_lands(path: Path) -> None:
    right = next((filters for end, filters in RIGHT.items() if path.name.endswith(end)), ("line",))
    text = path.read_text("utf-8")
    expressions = {part.split("}}")[0].strip(" -") for part in text.split("{{")[1:]}
    others = {one for one in expressions if not one.endswith(tuple(f"| {name}" for name in right))}
    assert others == NOT_FILTERED.get(f"{path.parent.name}/{path.name}", set())


def test_an_exec_line_has_words_only() -> None:
    """Text of a setting is not quoted, so it is no argument."""
    for path in data("templates").glob("*/*.service.j2"):
        unit = path.read_text("utf-8").replace("\\\n", " ")
        lines = [line for line in unit.splitlines() if line.startswith("Exec")]
        assert [line for line in lines if re.search(r"\| text *-?}}", line)] == [], path.name


def test_no_template_is_of_a_kind_that_a_library_writes() -> None:
    endings = (".json.j2", ".yaml.j2", ".yml.j2", ".toml.j2")
    assert [path for path in data("templates").rglob("*.j2") if path.name.endswith(endings)] == []
