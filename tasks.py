"""The tasks of the clone: the product's, and the developers': the lab, tests, linters and measurements."""

from __future__ import annotations

from provision import interrupts

if __name__ == "__main__":
    interrupts.end_quietly()  # while modules are loaded

import subprocess
import sys
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from provision.cli import tasks as product
from provision.cli.program import main

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"


@task(
    help={
        "count": "number of hosts",
        "suite": "Debian release of new hosts, bookworm or trixie; given more than once: in turn",
        "vm": "number of virtual machines with UEFI Secure Boot, made with seeds (emulated, minutes)",
    },
    iterable=["suite"],
)
def lab_up(c: Context, suite: list[str], count: int = 2, vm: int = 0) -> None:
    """Start the lab: bare hosts, package repositories, a registry.

    inv lab.up --count 3 --suite bookworm --suite trixie
    """
    from lab.lab import Lab
    from provision.cli import terminal

    with terminal.error_boundary():
        lab = Lab.named()
        with terminal.working() as say:
            lab.up(count=count, say=say, suites=suite or ("bookworm",), machines=vm)
        terminal.log(
            f"lab {lab.layout.name!r}: {len(lab.hosts)} hosts are up; next: inv plan --hosts gpu-nodes"
        )


@task
def lab_down(c: Context) -> None:
    """Stop the lab and remove all but its cache.

    inv lab.down
    """
    from lab.lab import Lab
    from provision.cli import terminal

    with terminal.error_boundary():
        Lab.named().down(say=terminal.log)


@task
def lab_status(c: Context) -> None:
    """Show the hosts of the lab.

    inv lab.status
    """
    from lab.lab import Lab
    from provision.cli import terminal

    with terminal.error_boundary():
        rows = Lab.named().status()
        terminal.write_data(
            "\n".join(str(row) for row in rows)
            or terminal.named("the lab is not up; start it with: inv lab.up")
        )


@task
def demo(c: Context) -> None:
    """Take two bare lab hosts to serving, and prove it.

    inv demo
    """
    from lab.demo import run
    from provision.cli import terminal

    with terminal.error_boundary():
        _end(run(terminal.log))


@task(
    help={
        "unit": "only the tests that need no lab",
        "lab": "only the tests on lab hosts",
        "slow": "only the faults on lab hosts, tests of the lab itself, and other long tests",
        "campaign": "all of agreement, archive, backends, bringup, checks, cuts, full, instances, lab, power,"
        " real, role, verify or vm",
        "seed": "which sample of the campaigns is taken",
        "k": "only tests whose name matches, as pytest's -k",
        "real": "instead: provision machines that do not serve yet, break them, repair them, report",
        "inventory": "with --real: where the machines stand",
        "hosts": "with --real: which of them, a pattern (all)",
        "yes": "with --real: do not ask",
        "json": "with --real: print one JSON document on standard output",
    }
)
def test(
    c: Context,
    unit: bool = False,
    lab: bool = False,
    slow: bool = False,
    campaign: str = "",
    seed: str = "",
    k: str = "",
    real: bool = False,
    inventory: str = "",
    hosts: str = "all",
    yes: bool = False,
    json: bool = False,
) -> None:
    """Run the tests. Lab hosts need root on Debian; their tests are skipped elsewhere.

    inv test --unit -k inventory
    inv test --real -i fleet/hosts.yml --hosts gpu-01
    """
    from lab import test_root
    from provision.cli import terminal

    if real:
        from tests.real.acceptance import run

        with terminal.error_boundary():
            _end(run(inventory, hosts, yes=yes, as_json=json))
            return
    paths = ["tests/lab"] if lab else ["tests/unit"] if unit else []
    chosen = ["-m", "campaign" if campaign else "slow" if slow else "not slow"]
    for option, value in (("--campaign", campaign), ("--seed", seed), ("-k", k)):
        chosen += [f"{option}={value}"] if value else []
    if not (k or campaign):
        # There are labs for two processes. Groups (loadgroup) do nothing with pytest 9.2 and xdist 3.8.
        chosen += ["-n2", "--dist=loadfile", "--no-loadscope-reorder"]
    _install_developers_tools()
    pytest = [sys.executable, "-m", "pytest", *paths, *chosen]
    with terminal.error_boundary():
        argv = test_root.command(pytest, [ROOT], terminal.log)
    tests = subprocess.Popen(argv, cwd=ROOT)
    try:
        code = tests.wait()
    except KeyboardInterrupt:  # they have it as well, and end
        code = tests.wait() or 130
        if not unit:
            _take_down_test_labs()
    _end(code)


def _take_down_test_labs() -> None:
    """Tests that were interrupted may have left theirs."""
    from lab.lab import Lab
    from lab.layout import TESTS
    from lab.prerequisites import unfit

    for name in TESTS if unfit() is None else ():
        Lab(name).down(lambda _: None)


@task
def check(c: Context) -> None:
    """Run linters, the type checker and the import contracts.

    inv check
    """
    from tests.linters import LINTERS

    _install_developers_tools()
    codes = [_run(*argv) for argv in LINTERS.values()]
    _end(1 if any(codes) else 0)


@task(
    help={
        "round-trip": "milliseconds that a round trip to the hosts takes longer than it does",
        "rounds": "rounds of each measurement; unset: each one's own number",
    }
)
def bench(c: Context, round_trip: int = 0, rounds: int = 0) -> None:
    """Measure against Fabric, pyinfra, testinfra; a host's CPU time.

    inv bench --round-trip 50
    """
    from bench import far, nothing_to_do, on_the_host, pyinfra, verify
    from lab.lab import Lab
    from provision.cli import terminal

    out = terminal.write_data
    asked = {"rounds": rounds} if rounds else {}
    with terminal.error_boundary(), far.inventory(round_trip / 1000) as inventory:
        on_the_host.run(out, Lab.named())
        _end(max(way.run(out, inventory, **asked) for way in (nothing_to_do, pyinfra, verify)))


def _end(code: int) -> None:
    """End the call with this exit code; after a success Invoke runs the next task of the call."""
    if code:
        raise SystemExit(code)


def _run(program: str, *arguments: str) -> int:
    """Run a program of the virtual environment at the clone's top level; return its exit code."""
    argv = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(argv, cwd=ROOT, check=False).returncode


def _install_developers_tools() -> None:
    """Install requirements-dev.lock into the .venv that ./inv made; other environments are left alone."""
    lock, stamp = ROOT / "requirements-dev.lock", VENV / ".lock-dev"
    if Path(sys.prefix) != VENV or (stamp.exists() and stamp.read_bytes() == lock.read_bytes()):
        return
    from provision.cli import terminal

    locks = ("-r", "requirements.lock", "-r", lock.name)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes"]
    with terminal.working() as say:
        say(f"installing {lock.name} into {VENV}")
        done = subprocess.run([*pip, *locks], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        terminal.log(done.stdout + done.stderr)
        raise SystemExit(2)
    stamp.write_bytes(lock.read_bytes())


ns = Collection(*product.COLLECTION.tasks.values(), demo, test, check, bench)
for rooms in product.COLLECTION.collections.values():
    ns.add_collection(rooms)
ns.add_collection(Collection("lab", up=lab_up, down=lab_down, status=lab_status))

if __name__ == "__main__":
    main(ns)
