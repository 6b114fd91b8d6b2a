"""Lab hosts as an installer or a provider hands them over, and the ways in that they take."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.host import LabHost
from provision.bare.bootstrap_resources import SHELL
from provision.bare.first_login import FirstLogin, newcomers
from provision.connection import Connection
from provision.inventory import sources
from provision.run.ways_in import logins
from provision.shell import assembled
from tests.lab.cli import Answer, inv, lab_inventory, write_inventory

OPS = "ops"
"""The account that the inventory names, and no host has yet."""

PASSWORD = "f1rst '\"pass $x"
DROP_IN = "/etc/ssh/sshd_config.d/00-provision.conf"
UNLOCK = "/var/lib/provision/unlock.sh"

AS_BEFORE = f"""
systemctl stop provision-unlock.timer 2>/dev/null
pkill -9 -u {OPS}
for user in {OPS} ubuntu; do userdel --remove --force $user; done 2>/dev/null
passwd -l root >/dev/null
rm -rf {DROP_IN} {UNLOCK}* /etc/sudoers.d/provision /etc/sudoers.d/ubuntu /root/.ssh
rm -rf /var/lib/provision/owed /run/provision
[ ! -e /root/10-server.conf ] || mv /root/10-server.conf /etc/ssh/sshd_config.d/10-server.conf
sed -i '/^AllowUsers/d' /etc/ssh/sshd_config
"""
FRESH_SSHD = "systemctl reset-failed ssh; systemctl restart ssh\n"  # which forgets PerSourcePenalties, too
HANDED_OVER = """
cp /etc/ssh/sshd_config.d/10-server.conf /root/
printf 'PermitRootLogin yes\\nPasswordAuthentication yes\\n' >/etc/ssh/sshd_config.d/10-server.conf
"""


def as_before(host: LabHost) -> None:
    """Take away what these tests leave."""
    ended = host.run(["sh", "-c", AS_BEFORE + FRESH_SSHD])
    assert ended.returncode == 0, ended.stderr


def hand_over(host: LabHost, more: str = "") -> None:
    """sshd takes root and passwords, root has one, and ``more`` was done."""
    root = "chpasswd <<'END'\nroot:" + PASSWORD + "\nEND\n"
    ended = host.run(["sh", "-c", AS_BEFORE + HANDED_OVER + root + more + FRESH_SSHD])
    assert ended.returncode == 0, ended.stderr


def image_user(public: str, password: str = "", expired: bool = False) -> str:
    """Sh text that makes the account ubuntu of an image, with a key or a password."""
    script = "useradd --create-home --shell /bin/bash --groups sudo ubuntu\n"
    if password:
        script += "chpasswd <<'END'\nubuntu:" + password + "\nEND\n"
    else:
        script += "usermod -p '*' ubuntu; install -d -o ubuntu -m 700 /home/ubuntu/.ssh\n"
        script += f"echo '{public}' >/home/ubuntu/.ssh/authorized_keys\n"
        script += "echo 'ubuntu ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ubuntu\n"
    return script + ("chage -d 0 ubuntu\n" if expired else "")


@dataclass
class Fleet:
    """An inventory whose hosts have the account :data:`OPS`.

    :ivar changed: variables of single hosts that differ.
    """

    folder: Path
    bootstrap: Mapping[str, Any]
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    more: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        """The inventory, written anew."""
        document = lab_inventory()
        everyone = document["_meta"]["hostvars"]
        for name, found in self.more.items():
            everyone[name] = {**next(iter(everyone.values())), **found}
            document["gpu-nodes"]["hosts"].append(name)
        for name, found in everyone.items():
            found.pop("ansible_become_password", None)
            found |= {"ansible_user": OPS, "bootstrap": self.bootstrap, **self.changed.get(name, {})}
        return write_inventory(self.folder, document)

    def bootstrap_of(self, pattern: str, *options: str) -> Answer:
        """Run ``inv bare.bootstrap``."""
        answer = inv("bare.bootstrap", "--hosts", pattern, "--json", *options, inventory=self.inventory)
        assert PASSWORD not in answer.out + answer.err
        return answer

    def run_of(self, name: str) -> FirstLogin:
        """The run of one host, in this process."""
        (host,) = sources.load([str(self.inventory)]).select(name)
        (target,) = newcomers([host], logins([host]), None)
        return FirstLogin.of(target, Connection(target.login))


def gets_in(host: LabHost, user: str, folder: Path, *, password: str = "", key: Path | None = None) -> bool:
    """Whether OpenSSH's client logs in with a password or a key, and sudo (or root) runs a command."""
    ask = folder / "ask"
    ask.write_text(f"#!/bin/sh\ncat <<'END'\n{password}\nEND\n")
    ask.chmod(0o700)
    options = {
        "UserKnownHostsFile": str(host.layout.known_hosts),
        "StrictHostKeyChecking": "yes",
        "NumberOfPasswordPrompts": "1",
        "IdentitiesOnly": "yes",
        "PreferredAuthentications": "password,keyboard-interactive" if password else "publickey",
    }
    argv = ["ssh", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    argv += ["-i", str(key or host.layout.ssh_key), f"{user}@{host.address}"]
    ran = subprocess.run(
        [*argv, "id -u" if user == "root" or password else "sudo -n id -u"],
        env={**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "IDENTIFICATION HAS CHANGED" not in ran.stderr
    return ran.returncode == 0


def told(host: LabHost, script: str) -> str:
    """What a script prints that root runs on the host."""
    return host.run(["sh", "-c", script]).stdout.strip()


def undo_lock(host: LabHost) -> None:
    """What the host does by itself when the time is over."""
    start = "systemctl start provision-unlock.service"
    script = f'before=$(sshd_began); {start}; wait_until 30 sshd_began_after "$before"'
    ran = host.run(["sh", "-c", f"{assembled(SHELL)}fail() {{ return 1; }}\n{script}"])
    assert ran.returncode == 0, ran.stderr
