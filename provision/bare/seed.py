"""A machine's seed: the files that its installer, or cloud-init in its image, reads. Pure."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

from provision.bare.disks import BY_ID
from provision.bare.seed_settings import Seed
from provision.connection.known_hosts import HostKey
from provision.render import render
from provision.resource import RenderedFile
from provision.resources.packages.deb import left_alone
from provision.roles.driver.role import BLACKLIST, LEFT_ALONE

SUDOERS = "/etc/sudoers.d/provision"

PINNED = (*LEFT_ALONE, "cuda-", "nvidia-container", "docker", "containerd", "runc")
"""Beginnings of names of packages that nothing but a run updates."""

NO_NOUVEAU = "rd.driver.blacklist=nouveau modprobe.blacklist=nouveau"
"""Boot options where modprobe.d alone comes too late."""

BOOT_MIB, ESP_MIB = 2048, 1024

FILES = ("user-data", "meta-data", "network-config", "preseed.cfg", "ks.cfg")
"""Names of the files that a seed may have."""


@dataclass(frozen=True)
class KeyPair:
    """A host key, ed25519, made before the host: the private part as OpenSSH's files have it."""

    public: HostKey
    private: str = field(repr=False)


@dataclass(frozen=True)
class Machine:
    """What a seed is made of.

    :ivar name: the inventory's name.
    """

    name: str
    hostname: str
    account: str
    seed: Seed
    key: KeyPair

    @property
    def family(self) -> str:
        """Of the system: debian or rhel."""
        return "rhel" if self.seed.system == "rhel" else "debian"

    @property
    def password(self) -> str | None:
        """The crypt hash of the account's password."""
        return self.seed.password.get_secret_value() if self.seed.password else None

    @property
    def console(self) -> str:
        """The boot options of the consoles; the last one is /dev/console."""
        return f"console=tty0 console={self.seed.serial}"


def files(machine: Machine) -> dict[str, str]:
    """The files of the seed by name."""
    if machine.seed.method == "image":
        return _no_cloud(machine, _cloud_config(machine, image=True))
    return _INSTALLERS[machine.seed.system](machine)


def script(machine: Machine, *, keys: bool = False, image: bool = False) -> str:
    """What root does once on the new system.

    :param keys: write the host key, and the keys that the account takes.
    :param image: the system runs, and has its boot options from somebody else.
    """
    seed = machine.seed
    return render(
        "bare/first.sh.j2",
        files=_host_files(machine),
        account=machine.account if keys else None,
        authorized_keys=seed.authorized_keys,
        key={"private": machine.key.private, "public": _public(machine)} if keys else None,
        family=machine.family,
        time_servers=seed.time_servers,
        boot_options=f"{machine.console} {NO_NOUVEAU}" if image else "",
        restart_chrony=image,
        chrony="chrony" if machine.family == "debian" else "chronyd",
    )


def _public(machine: Machine) -> str:
    key = machine.key.public
    return f"{key.kind} {key.base64} root@{machine.hostname}"


def _host_files(machine: Machine) -> list[RenderedFile]:
    """The files of a new system, whoever installs it; bare.bootstrap and roles have some of them, too."""
    found = {
        SUDOERS: f"# Written by provision.\n{machine.account} ALL=(ALL:ALL) NOPASSWD: ALL\n",
        "/etc/ssh/sshd_config.d/50-provision-seed.conf": render("bare/sshd.conf.j2"),
        BLACKLIST: render("driver/nouveau.conf.j2"),
    }
    if machine.family == "debian":
        updates = left_alone("seed", PINNED)
        found[updates.path] = updates.content.decode()
        found["/etc/default/grub.d/50-provision-console.cfg"] = (
            f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {machine.console}"\n'
        )
        if machine.seed.time_servers:
            servers = "".join(f"server {server} iburst\n" for server in machine.seed.time_servers)
            found["/etc/chrony/sources.d/provision.sources"] = servers
    modes = {SUDOERS: "0440"}
    return [RenderedFile(path, text.encode(), modes.get(path, "0644")) for path, text in found.items()]


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and texts of several lines as blocks, which people read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _no_cloud(machine: Machine, config: Mapping[str, Any]) -> dict[str, str]:
    """The files of cloud-init's data source NoCloud."""
    about = {"instance-id": f"provision-{machine.name}", "local-hostname": machine.hostname}
    found = {"user-data": f"#cloud-config\n{_yaml(config)}", "meta-data": _yaml(about)}
    if network := _netplan(machine):
        found["network-config"] = _yaml(network)
    return found


def _cloud_config(machine: Machine, *, image: bool) -> dict[str, Any]:
    """What cloud-init does at the first start: the account, the host key; of an image all the rest, too."""
    seed = machine.seed
    user: dict[str, Any] = {
        "name": machine.account,
        "shell": "/bin/bash",
        "lock_passwd": machine.password is None,
        "ssh_authorized_keys": list(seed.authorized_keys),
    }
    if machine.password:
        user["passwd"] = machine.password
    config: dict[str, Any] = {
        "hostname": machine.hostname.partition(".")[0],
        "fqdn": machine.hostname,
        "users": [user],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": machine.key.private, "ed25519_public": f"{_public(machine)}\n"},
    }
    if image:
        config["timezone"] = seed.timezone
        config["packages"] = ["chrony"]
        config["runcmd"] = [["sh", "-c", script(machine, image=True)]]
    return config


def _netplan(machine: Machine) -> dict[str, Any] | None:
    """The network in netplan's words, which are cloud-init's version 2; None where nothing is given."""
    network = machine.seed.network
    if network is None:
        return None
    link: dict[str, Any] = {}
    if network.mac:
        link["match"] = {"macaddress": network.mac}
    if network.address is None:
        link["dhcp4"] = True
    else:
        link["addresses"] = [network.address]
    if network.gateway:
        link["routes"] = [{"to": "::/0" if ":" in network.gateway else "0.0.0.0/0", "via": network.gateway}]
    if network.nameservers:
        link["nameservers"] = {"addresses": list(network.nameservers)}
    return {"version": 2, "ethernets": {network.interface or "primary": link}}


def _autoinstall(machine: Machine) -> dict[str, str]:
    """Ubuntu: what the server's installer reads as cloud-init's user data."""
    seed = machine.seed
    config: dict[str, Any] = {
        "version": 1,
        "locale": "en_US.UTF-8",
        "keyboard": {"layout": "us"},
        "timezone": seed.timezone,
        "ssh": {"install-server": True, "allow-pw": False},
        "packages": ["chrony"],
        "drivers": {"install": False},
        "updates": "security",
        "storage": _curtin(seed),
        "user-data": _cloud_config(machine, image=False),
        "late-commands": [["curtin", "in-target", "--", "sh", "-c", script(machine)]],
    }
    if seed.mirror:
        config["apt"] = {"mirror-selection": {"primary": [{"uri": seed.mirror}]}, "geoip": False}
    if network := _netplan(machine):
        config["network"] = network
    return _no_cloud(machine, {"autoinstall": config})


def _curtin(seed: Seed) -> dict[str, Any]:
    """ESP, /boot, and a volume group: / and, of all that is left, /var."""
    disk = seed.disk or ""
    # The name of a link is the bus and what udev calls the disk's serial number, which has the model in it.
    serial = disk.removeprefix(BY_ID).partition("-")[2]
    match = {"serial": serial} if disk.startswith(BY_ID) else {"path": disk}

    def file_system(volume: str, path: str, kind: str) -> list[dict[str, Any]]:
        return [
            {"type": "format", "id": f"{volume}-format", "volume": volume, "fstype": kind},
            {"type": "mount", "id": f"{volume}-mount", "device": f"{volume}-format", "path": path},
        ]

    def partition(name: str, number: int, size: int | str, **more: Any) -> dict[str, Any]:
        where = {"type": "partition", "id": name, "device": "disk", "number": number, "size": size}
        return where | more

    def volume(name: str, size: int | str) -> dict[str, Any]:
        return {"type": "lvm_partition", "id": name, "volgroup": "system", "name": name, "size": size}

    config = [
        {"type": "disk", "id": "disk", "match": match, "ptable": "gpt", "wipe": "superblock-recursive"},
        partition("esp", 1, f"{ESP_MIB}M", flag="boot", grub_device=True),
        partition("boot", 2, f"{BOOT_MIB}M"),
        partition("pv", 3, -1),
        {"type": "lvm_volgroup", "id": "system", "name": "system", "devices": ["pv"]},
        volume("root", f"{seed.root_gib}G"),
        volume("var", -1),
    ]
    for mount in (("boot", "/boot"), ("root", "/"), ("var", "/var")):
        config += file_system(*mount, "ext4")
    return {"swap": {"size": 0}, "config": config + file_system("esp", "/boot/efi", "fat32")}


def _values(machine: Machine) -> dict[str, Any]:
    """What the templates of Debian's and RHEL's installers have in common."""
    seed = machine.seed
    label, _, domain = machine.hostname.partition(".")
    network = seed.network
    return {
        "name": machine.name,
        "hostname": machine.hostname,
        "label": label,
        "domain": domain,
        "account": machine.account,
        "password": machine.password,
        "disk": seed.disk,
        "timezone": seed.timezone,
        "interface": network and (network.interface or network.mac),
        "address": ipaddress.ip_interface(network.address) if network and network.address else None,
        "gateway": network and network.gateway,
        "nameservers": network.nameservers if network else (),
    }


def _preseed(machine: Machine) -> dict[str, str]:
    seed = machine.seed
    late = base64.b64encode(script(machine, keys=True).encode()).decode()
    values = {
        "mirror": urlsplit(seed.mirror) if seed.mirror else None,
        "root_mb": seed.root_gib * 1074,
        "time_servers": seed.time_servers,
        "script": late,
    }
    return {"preseed.cfg": render("bare/preseed.cfg.j2", **_values(machine), **values)}


def _kickstart(machine: Machine) -> dict[str, str]:
    seed = machine.seed
    values = {
        "mirror": seed.mirror,
        "root_mib": seed.root_gib * 1024,
        "boot_options": f"{machine.console} {NO_NOUVEAU}",
        "script": script(machine, keys=True),
    }
    return {"ks.cfg": render("bare/ks.cfg.j2", **_values(machine), **values)}


_INSTALLERS: Mapping[str, Callable[[Machine], dict[str, str]]] = {
    "ubuntu": _autoinstall,
    "debian": _preseed,
    "rhel": _kickstart,
}
