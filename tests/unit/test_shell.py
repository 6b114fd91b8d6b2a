"""Shell text has one home: files below ``templates/``, checked in the form in which they run."""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provision import render as rendering
from provision.data import data
from provision.errors import Refusal, RenderError
from provision.facts import PROBES, Facts
from provision.plan.declared import Declared
from provision.plan.plan import STEPS, plan, previews, probes
from provision.plan.script import ACTIVE, script_of
from provision.probe import Output, Probe
from provision.roles import all_roles
from provision.run import gather
from provision.shell import assembled, constants, text_of, with_needs
from tests.unit.examples import H100, REPO, bare, settings_of
from tests.unit.recordings import facts_of
from tests.unit.sandbox import SHELLS

TEMPLATES = data("templates")
ROOT = TEMPLATES.parent
FILES = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.glob("*/*.sh"))
PYTHON = sorted([*(ROOT / "provision").rglob("*.py"), *(ROOT / "tests/verify").glob("*.py")])
SYSTEMS = ("debian-12", "ubuntu-24.04", "rocky-9")

EXCLUDED = "--exclude=SC2016,SC2317,SC2329"
"""2016: quoted text for another program; 2317 and 2329: functions that this script does not call."""

needs_shellcheck = pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed"
)


def shellcheck(text: str) -> str:
    """What shellcheck says of a script."""
    argv = ["shellcheck", "--shell=sh", EXCLUDED, "-"]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False).stdout


def declared(facts: Facts) -> list[Declared]:
    """What all roles that take the host declare for it."""
    found = []
    for role in all_roles():
        changes = (
            {"source": "docker", "repo": REPO} if facts.family == "rhel" and role.name == "docker" else {}
        )
        if role.name == "driver" and facts.os == "debian":
            changes = {"repo": {**REPO, "uri": "https://packages.example.org/debian12"}}
        try:
            resources = role.resources(settings_of(role.name, **changes), facts)
        except Refusal:
            continue
        found += [Declared(role.name, resource) for resource in resources]
    return found


def of(system: str) -> Facts:
    """A host of a system with an H100, switches and Secure Boot, so that every kind has a resource."""
    return replace(facts_of(system), gpus=H100.gpus, nvswitches=4, secure_boot=False)


@pytest.mark.parametrize("file", FILES)
@needs_shellcheck
def test_every_file_is_clean_where_it_runs(file: str) -> None:
    assert shellcheck(f"run=/run/provision/x\n{assembled(STEPS, file)}begin\n") == ""


@pytest.mark.parametrize("system", SYSTEMS)
@needs_shellcheck
def test_scripts_of_plans_are_clean(system: str) -> None:
    items = declared(of(system))
    found = plan("h", items, bare(items))
    assert len(found.changes) > 10
    assert shellcheck(script_of(found, "r")) == ""


@pytest.mark.parametrize("system", SYSTEMS)
@needs_shellcheck
def test_probes_and_previews_are_clean(system: str) -> None:
    items = declared(of(system))
    asked = [*PROBES, ACTIVE, *probes(items), *previews(plan("h", items, bare(items)))]
    calls = "".join(f"probe_{n}() {{\n{probe.script}\n}}\n" for n, probe in enumerate(asked))
    files = dict.fromkeys(file for probe in asked for file in probe.shell)
    assert shellcheck(assembled(gather.GATHER, *files) + calls) == ""


@pytest.mark.parametrize("file", FILES)
def test_what_takes_the_place_of_a_file_is_on_the_disk_first(file: str) -> None:
    """A file that is only written and renamed can be empty when power fails (ext4, delayed allocation)."""
    text = text_of(file)
    renamed = r"mv (?:-[a-zA-Z]+ )*(?:-- )?(\S*?\.(?:new|provision)\S*|\S*\$new\S*) (?!stop)"
    for found in re.finditer(renamed, text):
        before = text[max(found.start() - 600, 0) : found.start()]
        name = re.escape(found[1].strip('"'))
        assert re.search(f"sync .*{name}", before), found[0]


def test_functions_and_constants_have_one_home() -> None:
    functions = Counter(
        name for file in FILES for name in re.findall(r"^([a-z0-9_]+)\(\)", text_of(file), re.MULTILINE)
    )
    assert [name for name, count in functions.items() if count > 1] == []
    names = Counter(name for file in FILES for name in constants(file) if name != "explainers")
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("file", FILES)
def test_what_a_file_calls_is_at_hand(file: str) -> None:
    """A function of another file is called only where that file is needed, or comes with every step."""
    homes = {
        name: other
        for other in FILES
        for name in re.findall(r"^([a-z0-9_]+)\(\)", text_of(other), re.MULTILINE)
    }
    text = re.sub(r"'[^']*'|^\s*#.*$", "", text_of(file), flags=re.MULTILINE)
    called = {word for word in re.findall(r"(?<![\w$/.-])[a-z0-9_]+(?![\w=.-]|\(\))", text) if word in homes}
    there = {*with_needs(file), *with_needs(STEPS)}
    variables = set(re.findall(r"\$\{?([a-z0-9_]+)", text)) | set(re.findall(r"\bfor (\w+)", text))
    assert {word: homes[word] for word in called - variables if homes[word] not in there} == {}


def test_paths_are_written_once() -> None:
    """A constant that is a path stands in its file and nowhere else; Python reads it there."""
    paths = {
        value: (file, name) for file in FILES for name, value in constants(file).items() if value[0:1] == "/"
    }
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in PYTHON}
    texts |= {f"templates/{file}": text_of(file) for file in FILES}
    again: list[str] = []
    for value, (file, name) in paths.items():
        pattern = re.compile(re.escape(value) + r"(?![\w./-])")
        for where, text in texts.items():
            bare_text = (
                re.sub(rf"^{name}=.*$", "", text, flags=re.MULTILINE) if where.endswith(file) else text
            )
            if pattern.search(_code(where, bare_text)):
                again.append(f"{where}: {value} is {name} of {file}")
    assert again == []


@functools.cache
def _code(where: str, text: str) -> str:
    """The text without docstrings and comments, which may name a path for people."""
    if not where.endswith(".py"):
        return re.sub(r"#.*$", "", text, flags=re.MULTILINE)
    tree = ast.parse(text)
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return "\n".join(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    )


SHELL = re.compile(r"(^|[\n;]) *(if|for|while|until|case|done|fi|esac)\b|\$\(|\|\| |&& ")


def scripts(path: Path) -> Iterator[str]:
    """Texts of a Python file that are sh of more than a line; docstrings are none."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            text = node.value
        else:
            continue
        if "\n" in text.strip("\n") and SHELL.search(text):
            yield f"{path.name}:{node.lineno}: {text.strip().splitlines()[0]}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_holds_no_script(path: Path) -> None:
    assert list(scripts(path)) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_probe_is_one_line(system: str) -> None:
    asked: list[Probe] = [*PROBES, ACTIVE, *probes(declared(of(system)))]
    assert [probe.name for probe in asked if "\n" in probe.script] == []


STATE_OF_A_SHELL = 'pwd; umask; trap; export -p; printf "%s|" "$-" "$#" "$PATH" "$IFS" "$gather_mark"'


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_probe_in_place_leaves_the_shell_as_it_is(shell: str, system: str) -> None:
    asked = [probe for probe in (*PROBES, ACTIVE, *probes(declared(of(system)))) if probe.in_place]
    assert len(asked) > 20
    state = Probe("before", STATE_OF_A_SHELL, in_place=True)
    told = [state, *(item for p in asked for item in (p, replace(state, name=f"after {p.name}")))]
    script = gather.script_of(told, "a-mark")
    ran = subprocess.run([shell, "-s", "one", "two"], input=script.encode(), capture_output=True, check=False)
    answers = gather.parse(Output(ran.returncode, ran.stdout, ran.stderr), told, "a-mark")
    before = answers["before"]
    assert before.out.count("|") == 5
    assert {p.name for p in asked if answers[f"after {p.name}"] != before} == set()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's folder with shell files, found in this test alone."""
    monkeypatch.setattr(rendering, "_FOLDERS", [])
    rendering.add_folder(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.sh").write_text("# needs: mine/b.sh\na() { :; }\n")
    (tmp_path / "mine/b.sh").write_text("b() { :; }\n")
    text_of.cache_clear()
    return tmp_path


def test_what_a_file_needs_comes_before_it(site: Path) -> None:
    assert assembled("mine/a.sh", "mine/b.sh") == "b() { :; }\na() { :; }\n"


def test_files_that_need_each_other_are_named(site: Path) -> None:
    (site / "mine/b.sh").write_text("# needs: mine/a.sh\n")
    with pytest.raises(RenderError, match=r"mine/a\.sh → mine/b\.sh → mine/a\.sh"):
        assembled("mine/a.sh")


def test_a_function_has_one_home_in_a_script(site: Path) -> None:
    """A site's file cannot take the place of a function that the product's steps call."""
    (site / "mine/b.sh").write_text("write_file() { :; }\n")
    with pytest.raises(RenderError, match=r"write_file is in shell/files\.sh already"):
        assembled(STEPS, "mine/a.sh")


def test_a_file_that_is_not_there_is_named(site: Path) -> None:
    with pytest.raises(RenderError, match=r"there is no template mine/c\.sh"):
        assembled("mine/c.sh")
