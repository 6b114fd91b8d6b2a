#!/usr/bin/env python3
"""The lab's hosts as an Ansible inventory: ``hosts.py --list`` prints JSON.

``PROVISION_LAB`` names the lab, "lab" where it is unset. Needs Python 3.11 and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/provision-lab")


def settings(lab: dict[str, Any]) -> dict[str, Any]:
    """What the roles are told for every host of the lab."""
    registry = lab["registry"]
    return {
        # Copies of NVIDIA's repositories with stand-ins for its packages, which the lab signs itself.
        "mirror": lab["mirror"],
        "driver": {"branch": 580},
        "toolkit": {},
        # The lab's registry speaks plain HTTP.
        "docker": {"daemon": {"insecure-registries": [registry]}},
        "triton": {
            "instances": {
                "main": {
                    "image": f"{registry}/nvidia/tritonserver:24.07-trtllm-python-py3",
                    # The lab's machine may not raise limits (no CAP_SYS_RESOURCE), so Docker's own stay.
                    "ulimits": {},
                    # The stand-ins have no CUDA, so there is nothing that the server could measure.
                    "args": ["--allow-gpu-metrics=false"],
                    # It serves the canary alone.
                    "expect": [],
                },
            },
        },
    }


def host_vars(lab: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """How one host is reached, and the key that it must show."""
    found = {
        "ansible_host": host["address"],
        "ansible_port": host["port"],
        "ansible_user": lab["user"],
        "ansible_ssh_private_key_file": lab["private_key"],
        "ansible_become": True,
        "host_key": host["host_key"],
    }
    if host["sudo_password"] is not None:
        found["ansible_become_password"] = host["sudo_password"]
    if host["suite"] == "trixie":
        # NVIDIA's repository for Debian 13 begins with this branch.
        found["driver"] = {"branch": 590}
    return found


def machine_vars(lab: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """How one virtual machine is reached, and the seed that makes it."""
    network = {"interface": "eth0", "address": f"{machine['address']}/24"}
    public = Path(f"{lab['private_key']}.pub").read_text("ascii").strip()
    return {
        "ansible_host": machine["address"],
        "ansible_user": lab["user"],
        "ansible_ssh_private_key_file": lab["private_key"],
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={STATE / lab['name'] / 'known_hosts'}",
        "ansible_become": True,
        "seed": {"system": "debian", "method": "image", "authorized_keys": [public], "network": network},
    }


def inventory(lab: dict[str, Any]) -> dict[str, Any]:
    """The document that Ansible expects from ``--list``."""
    hosts, machines = lab["hosts"], lab.get("machines", {})
    found: dict[str, Any] = {
        "_meta": {"hostvars": {name: host_vars(lab, host) for name, host in hosts.items()}},
        "all": {"children": ["ungrouped", "gpu-nodes"]},
        "gpu-nodes": {"hosts": list(hosts), "vars": settings(lab)},
    }
    if machines:
        found["_meta"]["hostvars"] |= {name: machine_vars(lab, one) for name, one in machines.items()}
        found["all"]["children"].append("racks")
        found["racks"] = {"hosts": list(machines), "vars": {"mirror": lab["mirror"]}}
    return found


def main(arguments: list[str]) -> int:
    """Print what is asked for; 1 where the lab is not up."""
    name = os.environ.get("PROVISION_LAB") or "lab"
    try:
        lab = json.loads((STATE / name / "state.json").read_text(encoding="utf-8"))
    except PermissionError:
        sys.stderr.write(f"the lab {name!r} is root's: run as root\n")
        return 1
    except FileNotFoundError:
        lab = {}
    if not lab.get("hosts"):
        sys.stderr.write("the lab is not up: inv lab.up starts it; for hosts of your own: --inventory PATH\n")
        return 1
    document = inventory(lab)
    if arguments[:1] == ["--host"]:
        document = document["_meta"]["hostvars"].get("".join(arguments[1:2]), {})
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
