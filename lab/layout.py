"""Where a lab lives: its names, addresses and folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provision.data import base_folder

STATE_ROOT = Path("/var/lib/provision-lab")
"""Disks of hosts; on a real disk, because Docker's overlay2 does not work on top of an overlay."""

APT_PORT = 8081
REGISTRY_PORT = 5000
ADMIN = "admin"
"""The account that a bare host is reached with, as a cloud image has one."""

NETWORKS = {
    "lab": ("plab0", "10.213.77"),
    "test": ("ptest0", "10.213.78"),
    "spare": ("pspare0", "10.213.79"),
    "other": ("pother0", "10.213.81"),
    "real": ("preal0", "10.213.82"),
}
"""Lab name → bridge and the first three numbers of its /24. They can be up at the same time.

A name has at most five letters, as those of network interfaces are short."""

TESTS = ("test", "other")
"""The labs of the two processes that run tests side by side."""


def cache_root() -> Path:
    """What survives ``lab.down``: root file systems, packages, the container image."""
    return base_folder("XDG_CACHE_HOME", "/var/cache") / "provision-lab"


@dataclass(frozen=True)
class Layout:
    """Names, addresses and folders of one lab.

    :param name: a key of :data:`NETWORKS`.
    """

    name: str

    @property
    def bridge(self) -> str:
        return NETWORKS[self.name][0]

    @property
    def prefix(self) -> str:
        return NETWORKS[self.name][1]

    @property
    def gateway(self) -> str:
        """The address of this machine on the lab's bridge; the only one that hosts can reach."""
        return f"{self.prefix}.1"

    @property
    def registry(self) -> str:
        return f"{self.gateway}:{REGISTRY_PORT}"

    @property
    def apt_url(self) -> str:
        return f"http://{self.gateway}:{APT_PORT}"

    def host_name(self, number: int) -> str:
        """``gpu-01`` for number 1."""
        return f"gpu-{number:02d}"

    def host_address(self, number: int) -> str:
        return f"{self.prefix}.{10 + number}"

    @property
    def cache(self) -> Path:
        return cache_root()

    @property
    def images(self) -> Path:
        """What the registry has."""
        return self.cache / "registry"

    @property
    def state(self) -> Path:
        return STATE_ROOT / self.name

    @property
    def state_file(self) -> Path:
        return self.state / "state.json"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def ssh_key(self) -> Path:
        return self.keys / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def www(self) -> Path:
        """What the lab's web server serves: ``debian`` and ``nvidia``."""
        return self.state / "www"

    @property
    def logs(self) -> Path:
        return self.state / "log"
