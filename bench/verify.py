"""The same plain testinfra tests over our connections and over testinfra's own backends.

All ways run in turn, in rounds, so that the machine's noise hits all of them; the ratio of the medians is
what counts. testinfra's ``ssh://`` runs as shipped, which is one login a command; ``paramiko://`` keeps its
session.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.lab import Lab
from provision.connection.login import Login
from provision.errors import ProvisionError
from provision.inventory import sources
from provision.run.ways_in import logins

ROUNDS = 3
ROOT = Path(__file__).resolve().parents[1]
SUITE = ROOT / "tests/data/suites/plain"
BACKENDS = ("paramiko", "ssh")


def run(out: Callable[[str], None], inventory: Path, pattern: str = "gpu-nodes", rounds: int = ROUNDS) -> int:
    """Measure on all hosts of ``pattern`` and print each way's median and ratio.

    :raises ProvisionError: if a way does not have the outcomes of the others.
    """
    hosts = logins(sources.load([inventory]).select(pattern))
    names = ",".join(login.host for login in hosts)
    walls: dict[str, list[float]] = {way: [] for way in ("ours", *BACKENDS)}
    summary: Mapping[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, no_sudo_passwords(hosts):
        config = write_ssh_config(Path(folder), hosts)
        for _ in range(rounds):
            began = time.perf_counter()
            summary = ours(names, inventory=inventory)["summary"]
            walls["ours"].append(time.perf_counter() - began)
            for backend in BACKENDS:
                began = time.perf_counter()
                stock(backend, names, config)
                walls[backend].append(time.perf_counter() - began)
    ours_median = statistics.median(walls["ours"])
    out(f"{len(hosts)} hosts, {summary['checks']} checks, medians of {rounds} rounds, start-up included")
    out(f"ours: {summary['rounds']} rounds, {summary['execs']} execs")
    for way, times in walls.items():
        median = statistics.median(times)
        out(f"{way:<9} {median:8.2f} s  {median / ours_median:6.1f} × ours")
    return 0


@contextlib.contextmanager
def no_sudo_passwords(hosts: Sequence[Login]) -> Iterator[None]:
    """Lab hosts ask for no sudo password meanwhile: testinfra's backends cannot give one."""
    file, lab = "/etc/sudoers.d/zz-bench", Lab.named()
    asking = [lab.host(login.host) for login in hosts if login.become_password is not None]
    for host, login in zip(
        asking, [login for login in hosts if login.become_password is not None], strict=True
    ):
        host.run(["sh", "-c", f"echo '{login.user} ALL=(ALL) NOPASSWD: ALL' >{file} && chmod 440 {file}"])
    try:
        yield
    finally:
        for host in asking:
            host.run(["rm", "-f", file])


def ours(names: str, suite: Path = SUITE, inventory: Path | None = None) -> dict[str, Any]:
    """The document of ``inv verify`` with a suite of one's own.

    :raises ProvisionError: if a host could not be asked.
    """
    argv = [
        *(
            sys.executable,
            str(ROOT / "tasks.py"),
            "verify",
            "--hosts",
            names,
            "--tests",
            str(suite),
            "--json",
        ),
        *(("--inventory", str(inventory)) if inventory else ()),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise ProvisionError(f"inv verify failed: {done.stderr[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stock(backend: str, names: str, config: Path, suite: Path = SUITE) -> dict[str, str]:
    """The outcome of each test, by pytest's name, over one of testinfra's backends."""
    report = config.with_name(f"{backend}.json.txt")
    argv = [
        *(
            sys.executable,
            "-m",
            "pytest",
            "-c",
            os.devnull,
            f"--rootdir={suite}",
            "-p",
            "no:cacheprovider",
            "-rA",
        ),
        *(
            "--tb=no",
            "--sudo",
            f"--ssh-config={config}",
            f"--connection={backend}",
            f"--hosts={names}",
            str(suite),
        ),
    ]
    with report.open("w") as file:
        subprocess.run(argv, stdout=file, stderr=subprocess.STDOUT, check=False)
    found: dict[str, str] = {}
    for line in report.read_text(errors="replace").splitlines():
        word, _, rest = line.partition(" ")
        if word in ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL", "XPASS"):
            found[rest.partition(" - ")[0].rpartition("::")[2]] = word
    if not found:
        raise ProvisionError(f"testinfra over {backend} failed: {report.read_text()[-600:]}")
    return found


def write_ssh_config(folder: Path, hosts: list[Login]) -> Path:
    """An ssh_config(5) with which testinfra's backends reach the hosts."""
    file = folder / "ssh_config"
    blocks = [
        f"Host {login.host}\n  HostName {login.address}\n  Port {login.port}\n  User {login.user}\n"
        f"  IdentityFile {login.key_files[0]}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n"
        "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        for login in hosts
    ]
    file.write_text("".join(blocks))
    return file
