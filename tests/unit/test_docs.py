"""The commands of the pages: their tasks and options exist, and those of the seeds run as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.exceptions import Exit

import provision
from provision.cli.program import Program
from tests.unit.test_cli import ROOT, clone_tasks

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
RACKS = ROOT / "docs/from-racks-to-serving.md"

OURS = r"(?:\$ )?(?:(?:\./)?inv|gpu-provision) "
"""How a command of ours begins."""


def lines_of(page: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of blocks of code, fenced or indented by four columns; continued ones are whole."""
    fenced, begun = False, ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            whole = begun + line.strip()
            begun = f"{whole[:-1]} " if whole.endswith("\\") else ""
            if not begun:
                yield number, whole


def commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each command of ours, without the program and what the shell takes."""
    for number, line in lines_of(page):
        if found := re.match(OURS, line):
            words = shlex.split(line[found.end() :], comments=True)
            yield number, [word for word in words if not word.startswith(">")]


def mentions(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The same of commands within sentences, of which some are not whole."""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        for text in re.findall(rf"`{OURS}([^`]*)`", line):
            yield number, [word.strip("[]") for word in text.replace("\\|", "|").split()]


def program(words: list[str]) -> Program:
    """The program of the clone, which has read what stands before the task."""
    found = Program(provision.__version__, clone_tasks().ns, name="inv", binary="inv")
    found.create_config()
    found.parse_core(["inv", *words])
    found.parse_collection()
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    wrong = []
    for number, words in commands(page):
        if words[0].startswith("-"):
            continue
        try:
            program(words).parse_tasks()
        except Exit as error:
            wrong.append(f"{page.name}:{number}: {' '.join(words)}: {error.message}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_have_tasks_and_options_that_exist(page: Path) -> None:
    contexts = program(["settings"])._make_parser().contexts
    wrong = []
    for number, words in mentions(page):
        task, *rest = words
        if task == "TASK" or task.startswith("-"):
            continue
        named = [word.partition("=")[0] for word in rest if word.startswith("-")]
        if task not in contexts or not all(name in contexts[task].flags for name in named):
            wrong.append(f"{page.name}:{number}: {' '.join(words)}")
    assert wrong == []


def test_the_pages_have_commands() -> None:
    """So that a page that is written otherwise does not escape."""
    assert len(list(commands(RACKS))) >= 16
    assert sum(1 for page in PAGES for _ in commands(page)) >= 40
    assert sum(1 for page in PAGES for _ in mentions(page)) >= 60


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the first inventory of the page, and no other."""
    inventory = re.findall(r"```yaml\n(.*?)```", RACKS.read_text("utf-8"), re.DOTALL)[0]
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/hosts.yml").write_text(inventory)
    return tmp_path


def ran(site: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command of the page, as if it were typed in this folder; ``sh`` finds its programs."""
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(site),
        "PROVISION_INVENTORY": "fleet/hosts.yml",
    }
    argv = [sys.executable, str(ROOT / "tasks.py"), *words]
    return subprocess.run(
        argv, cwd=site, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_the_seeds_of_the_page_are_written(site: Path) -> None:
    (seed,) = (words for _, words in commands(RACKS) if words[0] == "bare.seed")
    asked = ran(site, seed)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True), asked.stderr
    done = ran(site, [*seed, "--yes"])
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (site / "fleet/seeds/gpu-01.example.com").iterdir()}
    copied = {
        word.rpartition("/")[2] for _, line in lines_of(RACKS) if "mcopy" in line for word in line.split()
    }
    assert {"user-data", "meta-data", "network-config"} <= files & copied
    assert (site / "fleet/seeds/gpu-02.example.com/preseed.cfg").exists()
    assert (site / "fleet/seeds/gpu-03.example.com/ks.cfg").exists()
    assert len((site / "fleet/known_hosts").read_text().splitlines()) == 3


def test_the_logs_of_the_page_are_read(site: Path) -> None:
    """All that they lack is a key."""
    for name in ("sol.log", "gpu-01.log", "gpu-02.log"):
        (site / name).write_text("gpu-01 login:\n")
    enrolled = [words for _, words in commands(RACKS) if "--from-console" in words]
    assert len(enrolled) == 2
    for words in enrolled:
        done = ran(site, words)
        assert (done.returncode, "no host keys of cloud-init are in it" in done.stderr) == (1, True), (
            done.stderr
        )
