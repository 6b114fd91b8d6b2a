"""A role is three files: that of ``docs/add-a-role.md``, in a copy of the project and beside an inventory."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ClusterShell.NodeSet import NodeSet

ROOT = Path(__file__).parent.parent.parent

if (ROOT / "provision/roles/chrony").exists():
    pytest.skip("the role of the page is in the project already", allow_module_level=True)
PAGE = ROOT / "docs/add-a-role.md"
SYSTEMS = ("debian:12", "debian:13", "ubuntu:22.04", "ubuntu:24.04")


def files_of_the_page() -> dict[str, str]:
    """Path and content of the three files that the page shows."""
    block = re.compile(r"^`([\w/.]+)` .*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return dict(block.findall(PAGE.read_text("utf-8")))


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run Python there, with the packages of these tests."""
    return subprocess.run(
        [sys.executable, *argv], cwd=folder, capture_output=True, text=True, check=False, timeout=1500
    )


def pytest_in(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "pytest", "-q", *argv)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the role in it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("project")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for name, text in files_of_the_page().items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, "utf-8")
    for argv in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *argv], cwd=copy, check=True)
    return copy


def test_the_page_shows_three_files() -> None:
    assert sorted(files_of_the_page()) == [
        "provision/roles/chrony/role.py",
        "templates/chrony/chrony.conf.j2",
        "tests/verify/test_chrony.py",
    ]


def test_a_role_is_three_files(project: Path) -> None:
    of_the_role = ("tests/unit/test_roles.py", "-k", "chrony")
    golden = project / "tests/golden/roles/chrony.txt"
    before = pytest_in(project, *of_the_role)
    assert "there is no golden file" in before.stdout, before.stdout
    assert before.stdout.strip().splitlines()[-1].startswith("1 failed"), before.stdout
    written = pytest_in(project, *of_the_role, "--update-golden")
    assert written.returncode == 0, written.stdout
    assert "+ install chrony" in golden.read_text("utf-8")
    after = pytest_in(project, *of_the_role)
    assert after.returncode == 0, after.stdout


@pytest.mark.campaign("role", only=True)
def test_the_whole_suite_passes_with_one_more_role(project: Path) -> None:
    written = pytest_in(project, "tests/unit/test_roles.py", "--update-golden")
    assert written.returncode == 0, written.stdout
    ran = pytest_in(project, "tests/unit", "--ignore=tests/unit/test_add_a_role.py")
    assert ran.returncode == 0, ran.stdout


# --- beside an inventory --------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's folder with an inventory and the role."""
    (tmp_path / "hosts.yml").write_text(
        "all:\n  hosts:\n    h1:\n      ansible_host: 192.0.2.1\n      chrony: {servers: [ntp.example.org]}\n"
    )
    folder = tmp_path / "roles/chrony"
    folder.mkdir(parents=True)
    for name, text in files_of_the_page().items():
        (folder / Path(name).name).write_text(text, "utf-8")
    return tmp_path


def command(site: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """The product's command, from the site's folder."""
    return run(site, str(ROOT / "tasks.py"), *argv, "--inventory", "hosts.yml")


def test_a_role_beside_the_inventory_is_found(site: Path) -> None:
    found = command(site, "render", "--hosts", "h1", "--system", "ubuntu:24.04")
    assert (found.returncode, found.stderr) == (0, "")
    assert (
        "# h1:/etc/chrony/chrony.conf (0644)\n# Written by provision.\nserver ntp.example.org iburst\n"
        in (found.stdout)
    )
    refused = command(site, "render", "--hosts", "h1", "--roles", "crony")
    assert (refused.returncode, "roles: host, driver, toolkit, docker, triton, chrony" in refused.stderr) == (
        2,
        True,
    )


def test_its_settings_are_refused_with_file_and_line(site: Path) -> None:
    (site / "hosts.yml").write_text("all:\n  hosts:\n    h1:\n      chrony: {server: [x]}\n")
    found = command(site, "render", "--hosts", "h1")
    assert found.returncode == 2
    assert "hosts.yml:4" in found.stderr


def test_check_roles_holds_it_to_the_tests_of_ours(site: Path) -> None:
    golden = site / "roles/chrony/golden.txt"
    before = command(site, "check-roles")
    assert (before.returncode, "there is no golden file" in before.stdout) == (3, True), before.stdout
    assert command(site, "check-roles", "--update-golden").returncode == 0
    heads = [line for line in golden.read_text("utf-8").splitlines() if line[:1].strip()]
    planned = [system for head in heads for system in NodeSet(head.partition(": ")[0])]
    assert set(SYSTEMS) <= set(planned)
    after = command(site, "check-roles")
    assert after.returncode == 0, after.stdout
    golden.write_text("another plan\n")
    changed = command(site, "check-roles")
    assert (changed.returncode, "--update-golden" in changed.stdout) == (3, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "import nothing_like_it\n",
            "roles/chrony/role.py:1: the role cannot be loaded: ModuleNotFoundError",
        ),
        ("\n\nx = 1 / 0\n", "roles/chrony/role.py:3: the role cannot be loaded: ZeroDivisionError"),
        ("def f(:\n", "roles/chrony/role.py:1: the role cannot be loaded: SyntaxError"),
        ("ROLE = 7\n", "roles/chrony/role.py: there is no ROLE in it"),
        ("import sys\nsys.exit(0)\n", "roles/chrony/role.py:2: the role cannot be loaded: SystemExit"),
        (
            "from provision.role import Role\nROLE = Role('chrony', dict, list)\n",
            "roles/chrony/role.py: the role's settings must be a class",
        ),
    ],
)
def test_a_role_that_cannot_be_loaded_is_named_with_its_line(site: Path, text: str, says: str) -> None:
    (site / "roles/chrony/role.py").write_text(text)
    for argv in (("render", "--hosts", "h1"), ("check-roles",)):
        found = command(site, *argv)
        assert (found.returncode, found.stdout) == (2, "")
        assert says in found.stderr
        assert "Traceback" not in found.stderr


def test_a_role_with_a_name_of_ours_is_refused(site: Path) -> None:
    (site / "roles/chrony").rename(site / "roles/docker")
    text = (site / "roles/docker/role.py").read_text("utf-8")
    (site / "roles/docker/role.py").write_text(text.replace('Role("chrony"', 'Role("docker"'))
    found = command(site, "render", "--hosts", "h1")
    assert (found.returncode, "the name 'docker' is taken" in found.stderr) == (2, True)


def test_without_roles_there_is_nothing_to_check(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  hosts:\n    h1:\n")
    found = command(tmp_path, "check-roles")
    assert (found.returncode, "docs/add-a-role.md" in found.stderr) == (2, True)
