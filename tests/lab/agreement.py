"""Single faults on lab hosts: what plan and verify say of each, and what a run makes of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lab.host import LabHost
from tests.lab.cli import inv
from tests.lab.verify_faults import FAULTS, Fault


def break_host(machine: LabHost, fault: Fault) -> None:
    """Make a fault on a healthy host."""
    if fault.gpus and fault.gpus.left is not None:
        machine.remove_gpus(fault.gpus.left)
    elif fault.gpus:
        machine.break_gpus(*fault.gpus.faults, fields=fault.gpus.fields)
    shell(machine, fault.breaks)


def whole_gpus(machine: LabHost, fault: Fault) -> None:
    """All GPUs are there and right again, as far as the fault was theirs."""
    if fault.gpus:
        machine.break_gpus()
        machine.remove_gpus(machine.gpu_count)


def shell(machine: LabHost, script: str) -> str:
    """Run a script as root on a host, out of band; its output."""
    done = machine.run(["sh", "-c", script])
    assert done.returncode == 0, f"{script}: {done.stdout} {done.stderr}"
    return str(done.stdout)


def wait_for_serving(machine: LabHost) -> None:
    """A unit that was started again needs some seconds."""
    for _ in range(60):
        if machine.run(["systemctl", "is-active", "--quiet", "triton@main.service"]).returncode == 0:
            return
        time.sleep(1)


Say = Callable[..., Mapping[str, Any]]


def disagreements(machines: Sequence[LabHost], names: Sequence[str], *look: str) -> dict[str, list[str]]:
    """One fault on each host; what is not as it should be, by fault, in words.

    A fault that a run cannot mend is mended by its own script.

    :param look: further options of verify.
    """
    tried = {name: (machine, FAULTS[name]) for name, machine in zip(names, machines, strict=False)}
    pattern = ",".join(machine.name for machine, _ in tried.values())

    def ask(command: str, *options: str) -> dict[str, dict[str, Any]]:
        answer = inv(command, "--hosts", pattern, "--json", *options)
        return {name: answer.host(machine.name) for name, (machine, _) in tried.items()}

    for machine, fault in tried.values():
        break_host(machine, fault)
    plans = ask("plan")
    for machine, fault in tried.values():
        if fault.fleeting:
            break_host(machine, fault)
    looks = ask("verify", *look)
    wrong = {name: _wrong(fault, plans[name], looks[name]) for name, (_, fault) in tried.items()}
    for machine, fault in tried.values():
        whole_gpus(machine, fault)
        if not fault.plan or fault.by_hand:
            shell(machine, fault.mends)
            wait_for_serving(machine)
    runs = ask("provision", "--yes")
    plans, looks = ask("plan"), ask("verify", *look)
    for name in tried:
        left = [f"after provision, plan: {line}" for line in planned(plans[name])]
        left += [f"after provision, verify: {line}" for line in findings(looks[name])]
        if runs[name]["error"]:
            left.append(f"provision: {runs[name]['error']['message']}")
        wrong[name] += left
    return {name: lines for name, lines in wrong.items() if lines}


def planned(host: Mapping[str, Any]) -> list[str]:
    """The changes of a plan, and its refusal."""
    changes = [f"{c['resource']}: {c['action']}: {c['summary']}" for c in host["changes"]]
    return [*changes, *([host["error"]["message"]] if host["error"] else [])]


def findings(host: Mapping[str, Any]) -> list[str]:
    """The checks that failed or warn."""
    return [
        f"{check['role']}{' ' + check['instance'] if check['instance'] else ''}:"
        f" {check['name']}: {check['message']}"
        for check in host["checks"]
        if check["verdict"] in ("fail", "warn")
    ]


def _wrong(fault: Fault, plan: Mapping[str, Any], look: Mapping[str, Any]) -> list[str]:
    """Where plan or verify does not say what it should of a fault."""
    wrong, told, found = [], planned(plan), findings(look)
    if fault.plan and not any(re.search(fault.plan, line) for line in told):
        wrong.append(f"plan does not say {fault.plan!r}, but {told}")
    if not fault.plan and told:
        wrong.append(f"plan is to be silent and says {told}")
    if not any(line.startswith(f"{fault.check}: ") and re.search(fault.says, line) for line in found):
        wrong.append(f"verify does not say {fault.says!r}, but {found}")
    return wrong


AGREEMENT = {name: fault for name, fault in FAULTS.items() if fault.plan or fault.alone}
"""The faults that stay until somebody mends them."""
