"""A run with nothing to do, beside plain Fabric on the same hosts in the same minutes.

Three ways go through all hosts, one after the other, in rounds, so that the machine's noise hits all of them:

* ``survey``: what ``inv provision`` does with a converged host: connect, ask facts, ask states, plan;
* ``probe``: plain Fabric with TCP_NODELAY that connects and runs the very same two scripts;
* ``true``: plain Fabric as it comes that connects and runs ``true``.

Times are medians over the rounds; the ratios are what counts. Controller CPU is this process's own.
"""

from __future__ import annotations

import io
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fabric
import paramiko

from provision.connection import Connection
from provision.facts import PROBES
from provision.inventory import sources
from provision.plan import plan as planning
from provision.plan.declared import declare
from provision.plan.script import ACTIVE
from provision.roles import all_roles
from provision.run.fleet import targets
from provision.run.gather import script_of
from provision.run.host import ask_facts, survey
from provision.run.target import Target

ROUNDS = 7


def run(out: Callable[[str], None], inventory: Path, pattern: str = "gpu-nodes", rounds: int = ROUNDS) -> int:
    """Measure on all hosts of ``pattern`` and print one line a way; 1 if a host is not converged."""
    hosts, _ = targets(sources.load([inventory]).select(pattern), all_roles())
    scripts = {target.name: _scripts(target) for target in hosts}
    ways: dict[str, Callable[[Target], int]] = {
        "survey": _survey,
        "probe": lambda target: _plain(target, scripts[target.name], nodelay=True),
        "true": lambda target: _plain(target, ["true"], nodelay=False),
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(len(hosts)) as pool:
                pending = sum(pool.map(way, hosts))
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append((time.process_time() - cpu) / len(hosts))
            if pending:
                out(f"{pending} changes are pending; the hosts are not converged")
                return 1
    out(f"{len(hosts)} hosts, medians of {rounds} rounds")
    for name in ways:
        ratio = statistics.median(a / b for a, b in zip(walls["survey"], walls[name], strict=True))
        out(
            f"{name:<7} {statistics.median(walls[name]) * 1000:7.0f} ms"
            f"  controller CPU {statistics.median(cpus[name]) * 1000:5.1f} ms a host"
            f"  survey/{name} {ratio:4.2f}"
        )
    return 0


def _survey(target: Target) -> int:
    with Connection(target.login) as connection:
        return len(survey(connection, target, lambda *_: None).plan.changes)


def _scripts(target: Target) -> list[str]:
    """The scripts that a survey runs on this host, sudo included."""
    with Connection(target.login) as connection:
        declared = declare(target.name, target.settings, ask_facts(connection)[0])
    return [
        script_of((*PROBES, ACTIVE), "mark"),
        script_of(planning.probes(declared), "mark"),
    ]


def _plain(target: Target, scripts: Sequence[str], *, nodelay: bool) -> int:
    login = target.login
    arguments: dict[str, object] = {
        "key_filename": next(iter(login.key_files), None),
        "look_for_keys": False,
        "allow_agent": False,
    }
    if nodelay:
        sock = socket.create_connection((login.address, login.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments["sock"] = sock
    with fabric.Connection(login.address, user=login.user, port=login.port, connect_kwargs=arguments) as c:
        c.open()
        for script in scripts:
            if script == "true":
                c.run("true", hide=True, in_stream=False)
                continue
            assert _execute(c.transport, script, login.become_password)
    return 0


def _execute(transport: paramiko.Transport, script: str, password: str | None) -> bytes:
    """Run a script through sudo on a raw channel, as the shortest program would that works."""
    channel = transport.open_session()
    sudo = "sudo -S -p ''" if password else "sudo -n"
    channel.exec_command(f"{sudo} sh -s")
    channel.sendall(f"{password}\n{script}\n".encode() if password else f"{script}\n".encode())
    channel.shutdown_write()
    answer = io.BytesIO()
    while block := channel.recv(65536):
        answer.write(block)
    return answer.getvalue()
