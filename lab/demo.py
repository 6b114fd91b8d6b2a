"""The demonstration: bare lab hosts to Triton serving, with the commands that an operator would type."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab.lab import Lab
from provision import roles
from provision.cli import terminal
from provision.connection import Connection
from provision.errors import HostError
from provision.inventory import sources
from provision.roles.triton import http
from provision.roles.triton.instance import Instance
from provision.roles.triton.role import unit_of
from provision.run import fleet
from provision.shell import assembled

ROOT = Path(__file__).resolve().parents[1]
PATTERN = "gpu-nodes"


def run(say: Callable[[str], None]) -> int:
    """Show the whole way; return the exit code of the first command that did not do what it should."""
    began = time.monotonic()
    say("== Two bare hosts: systemd, sshd, sudo; no Docker, no driver, nothing of ours (inv lab.up)")
    with terminal.working() as doing:
        Lab.named().up(count=2, say=doing)
    for title, arguments in (
        ("From bare to serving", ["provision", "--hosts", PATTERN, "--yes"]),
        ("Again: nothing to do", ["provision", "--hosts", PATTERN, "--yes"]),
        ("Proof, host by host", ["verify", "--hosts", PATTERN]),
    ):
        say(f"\n== {title} (inv {' '.join(arguments)})")
        code = subprocess.run([sys.executable, "tasks.py", *arguments], cwd=ROOT, check=False).returncode
        if code:
            say(f"the demo ends here: exit code {code}")
            return code
    say("\n== One inference through Triton's HTTP API")
    _show_inference(say)
    say(
        f"""
Done in {time.monotonic() - began:.0f} s. The GPUs, the driver and the toolkit of the lab are stand-ins;
systemd, apt, Docker, the registry and tritonserver are real. What to try next:
  ./inv plan --hosts gpu-nodes              nothing to do, as it should be
  ./inv provision --hosts gpu-01 --check    the same, for one host
  ./inv facts --hosts all                   what the hosts are
  ./inv render --hosts gpu-01 --out /tmp/x  the files that land on a host
  ./inv lab.down                            stop the hosts
"""
    )
    return 0


def _show_inference(say: Callable[[str], None]) -> None:
    host = sources.load([ROOT / "inventories/lab"]).select(PATTERN)[0]
    target = fleet.targets([host], roles.choose(roles.all_roles(), ["triton"]))[0][0]
    settings = next(iter(target.settings.values()))
    name, instance = next(iter(settings.servers.items()))  # type: ignore[attr-defined]
    with Connection(target.login) as connection:
        answer = inference(connection, name, instance)
    for key, value in answer.items():
        say(f"{key}: {value}")


def inference(
    connection: Connection, name: str, instance: Instance, text: str = http.CANARY_TEXT
) -> dict[str, str]:
    """Ask the canary of an instance one question; return request, answer and the GPUs that its process sees.

    :raises HostError: if the host cannot be reached, or the instance does not answer.
    """
    host = connection.login.host
    if not instance.canary:
        raise HostError(host, f"triton instance {name} serves no canary", hint="canary: true")
    body = http.canary_request(text)
    probe = http.probe("inference", instance.address, instance.http_port, http.CANARY_PATH, body)
    output = connection.run(
        assembled(*probe.shell) + probe.script,
        timeout=http.TIMEOUT + 5,
        what="an inference",
    )
    answer = http.parse(output)
    if answer.status != 200:
        raise HostError(
            host,
            f"triton instance {name} does not infer: {answer.text or f'status {answer.status}'}",
            hint=f"journalctl -u {unit_of(name)} -n 50",
        )
    try:
        found = http.outputs(answer)
    except ValueError as error:
        raise HostError(host, str(error)) from error
    address = http.reachable(instance.address)
    return {
        "host": host,
        "request": f"POST http://{address}:{instance.http_port}{http.CANARY_PATH} {json.dumps(body)}",
        "answer": answer.text,
        "GPUs that served it": ", ".join(found.get("GPUS", [])) or "none",
    }
