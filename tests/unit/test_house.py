"""The rules of the house: linters, types, import directions, sizes, documentation, unwanted words."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.linters import LINTERS

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(sys.executable).parent
PRODUCT = sorted((ROOT / "provision").rglob("*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# Written in two parts, so that this file names none either.
REGISTRIES = [
    f"{host}.{end}"
    for host, end in (
        ("deb.debian", "org"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("security.debian", "org"),
        ("archive.ubuntu", "com"),
    )
]


def run(*argv: str) -> None:
    """Run a program of the virtual environment; fail with what it prints."""
    program = PROGRAMS / argv[0]
    if not program.exists():
        pytest.skip(f"{argv[0]} is not installed: pip install -e '.[dev]'")
    ran = subprocess.run([program, *argv[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", LINTERS)
def test_linters_find_nothing(name: str) -> None:
    run(*LINTERS[name])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["inv", ".ci/run", "lab/watch.sh", "lab/bare.sh", "lab/download.sh"])
def test_shellcheck_finds_nothing(name: str) -> None:
    argv = ["shellcheck", name]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout == ""


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods with their names; what a class overrides is documented there."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef) and not node.bases:
                yield from public(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    assert [name for name, node in public(tree.body) if not ast.get_docstring(node)] == []


def tracked() -> list[Path]:
    """Files that git keeps."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in names.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_package_registry_is_named() -> None:
    """Where packages come from is the machine's own configuration."""
    pattern = re.compile("|".join(map(re.escape, REGISTRIES)).encode())
    named = {str(path.relative_to(ROOT)) for path in tracked() if pattern.search(path.read_bytes())}
    assert named == set()


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b".replace("TODO", "TO" + "DO"))
    left = {
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix in {".py", ".sh", ".j2", ".md", ".toml"} and path != Path(__file__)
        if words.search(path.read_text("utf-8"))
    }
    assert left == set()


def test_every_time_limit_on_hosts_ends_what_ignores_its_signal() -> None:
    """``timeout`` alone sends SIGTERM, and waits for ever for a process that ignores it."""
    call = re.compile(r"(?<![\w-])timeout (?!-k \d)(?=-|\d|\"?\$|\{)")
    texts = [*PRODUCT, *(path for path in (ROOT / "templates").rglob("*") if path.is_file())]
    without = {
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if call.search(line) and not line.lstrip().startswith("#")
    }
    assert without == set()


def test_the_lock_files_have_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for name, declared in (
        ("requirements.lock", project["dependencies"]),
        ("requirements-dev.lock", project["optional-dependencies"]["dev"]),
    ):
        names = {re.split(r"[<>=\[; ]", line)[0].lower() for line in declared}
        lock = (ROOT / name).read_text("utf-8").lower()
        assert {n for n in names if not re.search(rf"^{re.escape(n)}==", lock, re.MULTILINE)} == set(), name
