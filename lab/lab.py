"""The lab: bare hosts, their network, apt repositories and a registry, on one machine.

Nothing that a real host has is imitated where it can be had: systemd, sshd, apt, Docker and the registry are
Debian's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import aptrepo, network, prerequisites, racks, registry
from lab.cgroup import lab_group
from lab.execute import execute
from lab.host import LabHost, new_password
from lab.layout import ADMIN, APT_PORT, NETWORKS, REGISTRY_PORT, STATE_ROOT, Layout
from lab.rootfs import Rootfs, build_rootfs
from lab.secure_vm import SecureVm
from lab.standins.build import build_packages
from lab.triton_image import USUAL, Release, build_image
from provision.errors import ProvisionError, UsageError

Say = Callable[[str], None]

SCHEMA = 1

MIRRORED = (
    "developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64",
    "developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64",
    "nvidia.github.io/libnvidia-container/stable/deb/amd64",
)
"""NVIDIA's repositories, as the lab's mirror of them lays them out."""

AT_ONCE = 4
"""How many hosts boot at the same time."""

MOST_HOSTS = 200
MOST_MACHINES = 9


@dataclass(frozen=True)
class HostStatus:
    """One line of ``lab.status``.

    :param power: "on" or "off".
    :param login: whether sshd answers.
    """

    name: str
    address: str
    suite: str
    power: str
    login: bool

    def __str__(self) -> str:
        login = "answers" if self.login else "no login"
        return f"{self.name:<8} {self.address:<14} {self.suite:<9} {self.power:<4} {login}"


class Lab:
    """A lab by name: "lab" is for people, the others are for tests (``lab/README.md``).

    They share nothing but the cache, and can be up at the same time.

    :raises UsageError: there is no lab of that name.
    """

    def __init__(self, name: str = "lab") -> None:
        if name not in NETWORKS:
            raise UsageError(f"no lab is called {name!r}", hint=f"known: {', '.join(NETWORKS)}")
        self.layout = Layout(name)

    @classmethod
    def named(cls) -> Lab:
        """The lab that ``PROVISION_LAB`` names, "lab" where it is unset, as for the inventory of the lab.

        :raises UsageError: there is no lab of that name.
        """
        return cls(os.environ.get("PROVISION_LAB") or "lab")

    @property
    def hosts(self) -> list[LabHost]:
        """The lab's hosts in order; none where it is not up."""
        return [self._host(about) for about in self._state().get("hosts", {}).values()]

    def host(self, name: str) -> LabHost:
        """The host of that name; StopIteration where there is none."""
        return next(host for host in self.hosts if host.name == name)

    @property
    def machines(self) -> list[SecureVm]:
        """The lab's virtual machines."""
        entries = self._state().get("machines", {})
        return [racks.machine(self.layout, name, about) for name, about in entries.items()]

    def up(
        self, count: int = 2, say: Say = print, suites: Sequence[str] = ("bookworm",), machines: int = 0
    ) -> None:
        """Have ``count`` hosts on, and everything around them. Hosts that are there keep their disks.

        :param suites: Debian releases that new hosts get in turn.
        :param machines: how many virtual machines there are besides.
        :raises UsageError: this machine cannot hold a lab, or the count makes no sense.
        """
        if not 1 <= count <= MOST_HOSTS:
            raise UsageError(f"a lab has 1 to {MOST_HOSTS} hosts, not {count}")
        if not 0 <= machines <= MOST_MACHINES:
            raise UsageError(f"a lab has 0 to {MOST_MACHINES} virtual machines, not {machines}")
        prerequisites.ensure(say)
        with self._alone(self.layout.name):
            self._begin(say)
            with self._alone("cache"):
                systems = self._systems(suites, say)
                self._serve(systems, say)
            self._add_hosts(count, suites, systems)
            self._boot(say)
            if machines:
                entries, state = racks.entries(self.layout, machines), self._state()
                self._save({**state, "machines": {**entries, **state.get("machines", {})}})
                say(f"booting {len(self.machines)} virtual machines, emulated: one to three minutes each")
                racks.switch_on(self.machines)

    def down(self, say: Say = print) -> None:
        """Remove every process, mount, interface and file of the lab; the cache stays."""
        if (reason := prerequisites.unfit()) is not None:
            raise UsageError(reason)
        with self._alone(self.layout.name):
            if self._remove():
                say(f"lab {self.layout.name!r} is down")
            else:
                say(f"lab {self.layout.name!r} was not up")

    def status(self) -> list[HostStatus]:
        """How each host is now; empty where the lab is not up."""
        return [
            HostStatus(
                name=host.name,
                address=host.address,
                suite=host.suite,
                power="on" if host.running() else "off",
                login=host.answers(),
            )
            for host in self.hosts
        ] + [
            HostStatus(
                name=one.name,
                address=one.address,
                suite="bookworm",
                power="on" if one.running() else "off",
                login=_listens(one.address, 22),
            )
            for one in self.machines
        ]

    @contextlib.contextmanager
    def serving(self, name: str, folder: Path) -> Iterator[None]:
        """Serve another folder in place of the repository ``name`` ("debian" or "nvidia") for a while."""
        kept = (self.layout.www / name).readlink()
        self._point(name, folder)
        try:
            yield
        finally:
            self._point(name, kept)

    def offer(self, release: Release, say: Say = print) -> None:
        """Have the images of one more release of Triton in the registry; a minute the first time."""
        with self._alone("cache"):
            image = build_image(self.layout.cache, release)
            registry.push_image(image, release, self.layout.registry, self.layout.images, say)

    # The parts of `up`, in order

    def _begin(self, say: Say) -> None:
        if self._alive():
            return
        if self._remove():
            say("removed what an earlier lab had left")
        network.ensure_free(self.layout)
        layout = self.layout
        layout.state.mkdir(parents=True)
        layout.state.chmod(0o700)
        for folder in (layout.keys, layout.www, layout.logs):
            folder.mkdir()
        execute(
            "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{ADMIN}@lab", "-f", str(layout.ssh_key)
        )
        network.raise_bridge(layout)
        self._save(
            {
                "schema": SCHEMA,
                "name": layout.name,
                "gateway": layout.gateway,
                "registry": layout.registry,
                "apt": layout.apt_url,
                "user": ADMIN,
                "private_key": str(layout.ssh_key),
                "repositories": {},
                "hosts": {},
            }
        )

    def _alive(self) -> bool:
        layout = self.layout
        return (
            layout.state_file.exists()
            and network.exists(layout)
            and all(_listens(layout.gateway, port) for port in (APT_PORT, REGISTRY_PORT))
        )

    def _systems(self, suites: Sequence[str], say: Say) -> list[Rootfs]:
        """The bare systems of new hosts and of those that are there."""
        wanted = dict.fromkeys([*(host.suite for host in self.hosts), *suites])
        return [build_rootfs(suite, self.layout.cache, say) for suite in wanted]

    def _serve(self, systems: Sequence[Rootfs], say: Say) -> None:
        layout, cache = self.layout, self.layout.cache
        say("package repositories: Debian's packages, stand-ins for NVIDIA's")
        debian, nvidia = (aptrepo.signing_key(cache, name) for name in ("debian", "nvidia"))
        self._publish("debian", debian, aptrepo.debian_mirror(cache, systems, debian))
        packages = aptrepo.flat_repository(cache, "nvidia", build_packages(cache), nvidia)
        self._publish("nvidia", nvidia, packages)
        self._publish_mirror(nvidia)
        say("image with the real tritonserver (the first time about a minute)")
        image = build_image(cache)
        storage = layout.images
        storage.mkdir(exist_ok=True)
        if not self._alive():
            self._start_services(storage)
        registry.push_image(image, USUAL, layout.registry, storage, say)

    def _publish(self, name: str, key: aptrepo.SigningKey, folder: Path) -> None:
        """Serve a repository under a name, and put down the key that it is signed with."""
        (self.layout.keys / f"{name}.asc").write_text(key.armoured, encoding="ascii")
        self._point(name, folder)
        state = self._state()
        state["repositories"][name] = {
            "uri": f"{self.layout.apt_url}/{name}",
            "fingerprint": key.fingerprint,
            "key": key.armoured,
        }
        self._save(state)

    def _publish_mirror(self, key: aptrepo.SigningKey) -> None:
        """Serve what "nvidia" is once more, where a mirror of NVIDIA's repositories has them."""
        for place in MIRRORED:
            self._point(f"mirror/{place}", self.layout.www / "nvidia")
        state = self._state()
        state["mirror"] = {
            "base": f"{self.layout.apt_url}/mirror",
            "fingerprint": key.fingerprint,
            "key": key.armoured,
        }
        self._save(state)

    def _point(self, name: str, folder: Path) -> None:
        place = self.layout.www / name
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder)
        fresh.replace(place)

    def _start_services(self, storage: Path) -> None:
        layout = self.layout
        services = lab_group(layout.name).child("services")
        web = [sys.executable, "-I", "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", layout.gateway]
        services.spawn([*web, "--directory", str(layout.www), str(APT_PORT)], layout.logs / "apt.log")
        configuration = layout.state / "registry.json"
        configuration.write_text(registry.configuration(storage, layout.registry), encoding="utf-8")
        program = str(registry.program(layout.cache))
        services.spawn([program, "serve", str(configuration)], layout.logs / "registry.log")
        for port in (APT_PORT, REGISTRY_PORT):
            _await_port(layout.gateway, port, layout.logs)

    def _add_hosts(self, count: int, suites: Sequence[str], systems: Sequence[Rootfs]) -> None:
        state = self._state()
        bases = {system.suite: str(system.root) for system in systems}
        added: list[LabHost] = []
        for number in range(len(state["hosts"]) + 1, count + 1):
            suite = suites[(number - 1) % len(suites)]
            about = {
                "number": number,
                "suite": suite,
                "base": bases[suite],
                "gpus": 2,
                "address": self.layout.host_address(number),
                "port": 22,
                # One host whose sudo asks for a password, as many sites have it.
                "sudo_password": new_password() if number == count else None,
            }
            state["hosts"][self.layout.host_name(number)] = about
            added.append(self._host(about))
        self._each(added, LabHost.create)
        for host in added:
            state["hosts"][host.name]["host_key"] = host.host_key
        self._save(state)
        lines = {host.address: f"{host.address} {host.host_key}\n" for host in self.hosts}
        known = self.layout.known_hosts
        others = known.read_text("ascii").splitlines(keepends=True) if known.exists() else []
        kept = [line for line in others if line.split(" ")[0] not in lines]
        known.write_text("".join([*lines.values(), *kept]), encoding="ascii")

    def _boot(self, say: Say) -> None:
        say(f"booting {len(self.hosts)} hosts")
        self._each(self.hosts, LabHost.boot)

    def _each(self, hosts: Sequence[LabHost], work: Callable[[LabHost], None]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for future in [pool.submit(work, host) for host in hosts]:
                future.result()

    def _remove(self) -> bool:
        """Remove everything; False when there was nothing."""
        group = lab_group(self.layout.name)
        there = group.path.exists() or self.layout.state.exists() or network.exists(self.layout)
        group.end()
        _unmount_below(self.layout.state)
        network.remove_bridge(self.layout)
        for left in Path("/run/systemd/nspawn/propagate").glob(f"{self.layout.name}-gpu-*"):
            shutil.rmtree(left)
        if self.layout.state.exists():
            shutil.rmtree(self.layout.state)
        return there

    # State

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """One process at a time: at a lab, by its name, and at the cache, which labs share."""
        self.layout.cache.mkdir(parents=True, exist_ok=True)
        STATE_ROOT.mkdir(parents=True, exist_ok=True)
        with (self.layout.cache / f"{what}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.layout.state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise UsageError(
                "only root can see the lab", hint=f"{self.layout.state_file} is root's"
            ) from error
        return found

    def _save(self, state: dict[str, Any]) -> None:
        fresh = self.layout.state_file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.layout.state_file)

    def _host(self, about: dict[str, Any]) -> LabHost:
        return LabHost(
            layout=self.layout,
            number=about["number"],
            suite=about["suite"],
            base=Path(about["base"]),
            gpu_count=about["gpus"],
            sudo_password=about["sudo_password"],
        )


def _unmount_below(folder: Path) -> None:
    mounts = [
        line.split(" ")[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    ]
    for mount in reversed(mounts):
        if mount.startswith(f"{folder}{os.sep}"):
            execute("umount", mount)


def _await_port(address: str, port: int, logs: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not _listens(address, port):
        if time.monotonic() > deadline:
            raise ProvisionError(f"nothing answers on {address}:{port}; see {logs}")
        time.sleep(0.05)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
