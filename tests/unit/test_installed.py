"""The distribution in an environment of its own: every product task runs from any folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import provision

ROOT = Path(__file__).resolve().parents[2]
HOSTS = "gpu-nodes:\n  hosts:\n    gpu-01:\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the source distribution; it borrows this one's dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, *built.glob("*.tar.gz")], check=True, capture_output=True, cwd="/")
    return folder


def run(environment: Path, *arguments: str, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    """The installed command, from a folder."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PROVISION_", "PYTHON"))}
    return subprocess.run(
        [environment / "bin" / "gpu-provision", *arguments],
        check=False,
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_the_wheel_has_what_runs_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
        sources = {name: wheel.read(name).decode() for name in names if name.endswith(".py")}
    assert {name.partition("/")[0] for name in names} == {"provision"}
    tables = {f"provision/gpu/{path.name}" for path in (ROOT / "provision/gpu").glob("*.tsv")}
    assert tables == {name for name in names if name.endswith(".tsv")}
    for ours, theirs in (("templates", "templates"), ("tests/verify", "suite")):
        files = {str(path.relative_to(ROOT / ours)) for path in (ROOT / ours).rglob("*") if path.is_file()}
        files = {name for name in files if "__pycache__" not in name}
        assert files == {n.removeprefix(f"provision/{theirs}/") for n in names if f"/{theirs}/" in n}
    lines = {line for text in sources.values() for line in text.splitlines()}
    assert [
        line for line in lines if line.lstrip().startswith(("from tests", "from lab", "import lab"))
    ] == []


def test_version_and_tasks(environment: Path) -> None:
    assert run(environment, "--version").stdout == f"gpu-provision {provision.__version__}\n"
    listed = run(environment, "--list")
    assert listed.returncode == 0
    names = {
        line.split()[0] for line in listed.stdout.splitlines() if line.startswith("  ") and line[2] != " "
    }
    assert names == {
        "bare.bootstrap",
        "bare.enroll",
        "bare.seed",
        "check-roles",
        "compat",
        "facts",
        "inventory",
        "lint-manifest",
        "plan",
        "provision",
        "remove",
        "render",
        "settings",
        "stop",
        "verify",
    }


def test_the_tables_are_read_from_the_package(environment: Path) -> None:
    done = run(environment, "compat", "--image", "24.07-py3", "--driver", "580")
    assert (done.returncode, done.stderr) == (0, "")
    assert "release 24.07 has 57 known vulnerabilities" in done.stdout


def test_the_module_is_a_command_too(environment: Path) -> None:
    argv = [str(environment / "bin/python"), "-m", "provision", "nosuch"]
    done = subprocess.run(argv, cwd="/", check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: there is no task nosuch\nhint: python -m provision --help\n",
    )


def test_relative_paths_are_the_callers(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    done = run(environment, "inventory", "--inventory", "hosts.yml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "gpu-01  [gpu-nodes]\n"), done.stderr


def test_files_are_rendered(environment: Path, tmp_path: Path) -> None:
    example = str(ROOT / "inventories/example")
    arguments = ["--inventory", example, "--hosts", "all[0]", "--system", "debian:12", "--out", "files"]
    done = run(environment, "render", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("files/*/etc/systemd/system/triton@*.service"))


def test_the_suite_is_found(environment: Path) -> None:
    code = "from provision.verify.suite import SUITE; print(*sorted(p.name for p in SUITE.glob('test_*.py')))"
    argv = [str(environment / "bin/python"), "-c", code]
    done = subprocess.run(argv, cwd="/", check=True, capture_output=True, text=True)
    assert done.stdout.split() == sorted(path.name for path in (ROOT / "tests/verify").glob("test_*.py"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plann"], "error: there is no task plann\nhint: did you mean plan?\n"),
        (["lab.up"], "error: lab.up needs a clone of the project\nhint: in the clone: ./inv lab.up\n"),
        (
            ["plan", "--hosts", "all"],
            "error: no inventory is named\nhint: --inventory PATH, or set $PROVISION_INVENTORY\n",
        ),
        (
            ["plan", "--inventory", "gpu-01,"],
            "error: no hosts are named\n"
            "hint: --hosts PATTERN;"
            " gpu-provision inventory --inventory gpu-01, --graph shows what there is\n",
        ),
    ],
    ids=["unknown task", "needs the clone", "no inventory", "no hosts"],
)
def test_usage_errors(environment: Path, arguments: list[str], expected: str) -> None:
    done = run(environment, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
