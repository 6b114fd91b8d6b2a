"""One lab host: a real Debian with systemd as PID 1, on an overlay over a bare root file system."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import gpus, network
from lab.cgroup import Cgroup, lab_group
from lab.execute import execute
from lab.layout import ADMIN, Layout
from provision.errors import ProvisionError

WATCH = Path(__file__).parent / "watch.sh"
BOOT_SECONDS = 60
"""How long a host may take until sshd lets its administrator in; it takes 1 to 3."""

NSPAWN_ENVIRONMENT = {
    # Docker writes to /proc/sys, and wants the control groups of version 2 whatever this machine has.
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
}
INSIDE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True)
class LabHost:
    """A host of a lab. The object is a handle: what the host is doing now is asked, not remembered.

    :param layout: the lab that it belongs to.
    :param number: its place in the lab, from 1.
    :param suite: its Debian release.
    :param base: the bare root file system below its disk.
    :param gpu_count: how many H100 its PCI bus shows.
    :param sudo_password: what its sudo asks for; None where it asks for nothing.
    """

    layout: Layout
    number: int
    suite: str
    base: Path
    gpu_count: int = 2
    sudo_password: str | None = None

    @property
    def name(self) -> str:
        return self.layout.host_name(self.number)

    @property
    def address(self) -> str:
        return self.layout.host_address(self.number)

    @property
    def port(self) -> int:
        return 22

    @property
    def folder(self) -> Path:
        return self.layout.state / "hosts" / self.name

    @property
    def root(self) -> Path:
        """The host's whole file system as it is now; mounted from its creation to ``lab.down``."""
        return self.folder / "root"

    @property
    def gpu_folder(self) -> Path:
        """What the host sees at ``/usr/share/lab-gpu``."""
        return self.folder / "gpu"

    @property
    def log(self) -> Path:
        return self.layout.logs / f"{self.name}.log"

    @property
    def host_key(self) -> str:
        """The host's public ed25519 key: ``ssh-ed25519 AAAA…``."""
        text = (self.folder / "ssh" / "ssh_host_ed25519_key.pub").read_text(encoding="ascii")
        return " ".join(text.split()[:2])

    @property
    def _refusal(self) -> Path:
        return self.folder / "refuse-boot"

    @property
    def _machine(self) -> str:
        return f"{self.layout.name}-{self.name}"

    @property
    def _cgroup(self) -> Cgroup:
        return lab_group(self.layout.name).child(self.name)

    # Power

    def boot(self, *, wait: bool = True) -> None:
        """Switch the host on if it is off, and wait until its administrator can log in.

        :raises ProvisionError: nobody can log in after :data:`BOOT_SECONDS`.
        """
        if not self.running():
            self._cgroup.end()
            self.mount()
            self._cgroup.child("watch").spawn(
                [
                    "sh",
                    str(WATCH),
                    str(self._cgroup.path),
                    self._machine,
                    network.link_of(self._machine),
                    str(self._refusal),
                    *self._nspawn(),
                ],
                self.log,
                NSPAWN_ENVIRONMENT,
            )
        if wait:
            self.wait()

    def kill(self) -> None:
        """Cut the power: nothing on the host gets a chance to finish."""
        self._cgroup.end()

    def stop(self, seconds: float = 90) -> None:
        """Shut the host down in order, as its power button does."""
        with contextlib.suppress(ProcessLookupError):
            for pid in self._cgroup.child("boot/supervisor").pids():
                os.kill(pid, signal.SIGTERM)
        _until(lambda: not self.running(), seconds, f"{self.name} does not shut down; see {self.log}")
        self._cgroup.end()

    def running(self) -> bool:
        """Whether the host is on, or about to be again after a reboot."""
        return bool(self._cgroup.child("watch").pids())

    def wait(self, *, after: str | None = None, seconds: float = BOOT_SECONDS) -> None:
        """Wait until the host's administrator can log in.

        :param after: a boot id; wait for a later boot than that one.
        """

        def ready() -> bool:
            if not self.running():
                raise ProvisionError(f"{self.name} went off while it booted; see {self.log}")
            return self.boot_id() not in (None, after) and self.answers()

        _until(ready, seconds, f"nobody can log in on {self.name} after {seconds:.0f} s; see {self.log}")

    def boot_id(self) -> str | None:
        """The kernel's id of the present boot, as the host sees it; None while it is off."""
        if (pid := self._init()) is None:
            return None
        with contextlib.suppress(OSError):
            text = (
                Path(f"/proc/{pid}/root/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            )
            # Until the host has its own, the file shows this machine's.
            own = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            return None if text == own else text
        return None

    # Disk

    def create(self) -> None:
        """Give the host an identity and an empty disk; it stays off."""
        # An interrupted try may have left something.
        self.kill()
        self._unmount()
        shutil.rmtree(self.folder, ignore_errors=True)
        keys = self.folder / "ssh"
        keys.mkdir(parents=True)
        for kind in ("ed25519", "ecdsa", "rsa"):
            file = keys / f"ssh_host_{kind}_key"
            execute("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{self.name}", "-f", str(file))
        gpus.write_hardware(self.gpu_folder, self.name, self.gpu_count)
        self._wipe()

    def reset(self) -> None:
        """Make the host bare again: an empty disk, an empty ``/var/lib/docker``, all GPUs, a new boot."""
        self.kill()
        self.refuse_boot(False)
        gpus.write_hardware(self.gpu_folder, self.name, self.gpu_count)
        self._wipe()
        self.boot()

    def snapshot(self, label: str) -> None:
        """Keep the disk as it is now under a name; the host is shut down for it and booted again."""
        place = self.folder / "snapshots" / label
        self.stop()
        self._unmount()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for part in ("upper", "docker"):
            execute("cp", "--archive", "--reflink=auto", str(self.folder / part), str(place / part))
        self.boot()

    def has_snapshot(self, label: str) -> bool:
        return (self.folder / "snapshots" / label).is_dir()

    def restore(self, label: str) -> None:
        """Go back to a kept disk, and boot from it.

        :raises ProvisionError: there is none of that name.
        """
        place = self.folder / "snapshots" / label
        if not self.has_snapshot(label):
            raise ProvisionError(f"{self.name} has no snapshot {label!r}")
        self.kill()
        self.refuse_boot(False)
        self._erase()
        gpus.write_hardware(self.gpu_folder, self.name, self.gpu_count)
        for part in ("upper", "docker"):
            execute("cp", "--archive", "--reflink=auto", str(place / part), str(self.folder / part))
        self.boot()

    # Inside

    def run(
        self, argv: Sequence[str], *, given: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host as root, past the network and sshd, to cause a fault or to look.

        :raises ProvisionError: the host is off.
        :raises subprocess.TimeoutExpired: the program ran longer than ``seconds``.
        """
        pid = self._init()
        if pid is None:
            raise ProvisionError(f"{self.name} is off")
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        return subprocess.run(
            ["nsenter", f"--target={pid}", *namespaces, "--", *argv],
            input=given,
            env=INSIDE,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Pull the network cable, and plug it in again at the end: packets are lost, nothing is told."""
        network.set_link(self._machine, up=False)
        try:
            yield
        finally:
            network.set_link(self._machine, up=True)

    def break_gpus(self, *faults: str, fields: Mapping[str, object] | None = None) -> None:
        """Tell the stand-ins what is broken on this host; without names, nothing is.

        :param fields: what nvidia-smi answers for these fields of every GPU. Takes effect when the module is
            loaded or told to look again.
        """
        gpus.write_description(self.gpu_folder, self.name, self.gpu_count, faults, fields=fields)

    def add_nvswitches(self, count: int) -> None:
        """Put NVSwitches on the PCI bus; a reset or a restore takes them away."""
        gpus.write_hardware(self.gpu_folder, self.name, self.gpu_count, count)

    def refuse_boot(self, refused: bool = True) -> None:
        """Let the host go down at its next reboot and stay down, until this is taken back."""
        if refused:
            self._refusal.touch()
        else:
            self._refusal.unlink(missing_ok=True)

    def remove_gpus(self, left: int) -> None:
        """Take GPUs out of the PCI bus until so many are left; a reset or a restore puts them back."""
        gpus.write_hardware(self.gpu_folder, self.name, left)

    # How

    def _nspawn(self) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--settings=no",
            f"--machine={self._machine}",
            f"--hostname={self.name}",
            f"--uuid={self._machine_id}",
            f"--directory={self.root}",
            f"--network-bridge={self.layout.bridge}",
            "--capability=all",
            "--system-call-filter=add_key keyctl bpf",
            f"--bind={self.folder / 'docker'}:/var/lib/docker",
            f"--bind-ro={self.gpu_folder}:/usr/share/lab-gpu",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=pipe",
        ]

    @property
    def _machine_id(self) -> str:
        return uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self.layout.name}.lab").hex

    def _init(self) -> int | None:
        """The host's PID 1 as this machine counts."""
        with contextlib.suppress(OSError, IndexError):
            procs = self._cgroup.child("boot/payload/init.scope").path / "cgroup.procs"
            return int(procs.read_text(encoding="ascii").split()[0])
        return None

    def answers(self) -> bool:
        """Whether sshd answers, and lets others than root in: nologin(5) is gone once the host is up."""
        pid = self._init()
        if pid is None or Path(f"/proc/{pid}/root/run/nologin").exists():
            return False
        try:
            with socket.create_connection((self.address, self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def mount(self) -> None:
        """Have its file system at :attr:`root`."""
        if self.root.is_mount():
            return
        for part in ("upper", "work", "root", "docker"):
            (self.folder / part).mkdir(exist_ok=True)
        layers = f"lowerdir={self.base},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        execute("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))

    def _unmount(self) -> None:
        if self.root.is_mount():
            execute("umount", str(self.root))

    def _erase(self) -> None:
        """Put the disk aside, and remove it while the host goes on: that takes seconds."""
        self._unmount()
        aside = self.layout.state / "erased" / secrets.token_hex(8)
        aside.mkdir(parents=True)
        for part in ("upper", "work", "docker"):
            with contextlib.suppress(FileNotFoundError):
                (self.folder / part).rename(aside / part)
        eraser = lab_group(self.layout.name).child("erasers")
        eraser.spawn(["nice", "rm", "-rf", str(aside)], self.log)

    def _wipe(self) -> None:
        self._erase()
        self.mount()
        self._settle_in()

    def _settle_in(self) -> None:
        """Write what makes the bare system this host: names, address, keys, its mirror, who may use sudo."""
        etc = self.root / "etc"
        _write(etc / "hostname", f"{self.name}\n")
        _write(etc / "hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n::1 localhost ip6-localhost\n")
        _write(etc / "machine-id", f"{self._machine_id}\n")
        network_file = etc / "systemd/network/10-uplink.network"
        _write(
            network_file,
            f"[Match]\nName=host0\n[Network]\nAddress={self.address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
        )
        self._install_kernel()
        for key in (self.folder / "ssh").iterdir():
            shutil.copy(key, etc / "ssh" / key.name)
        self._trust_mirror(etc)
        self._admit(etc)

    def _install_kernel(self) -> None:
        """Put down what tells that the running kernel is installed; it is the machine's own."""
        release = platform.release()
        _write(self.root / "boot" / f"vmlinuz-{release}", "the kernel of the machine that holds the lab\n")
        for name in ("modules.builtin", "modules.order"):
            _write(self.root / "lib/modules" / release / name, "")

    def _trust_mirror(self, etc: Path) -> None:
        keyring = Path("usr/share/keyrings/mirror-archive-keyring.asc")
        shutil.copy(self.layout.keys / "debian.asc", self.root / keyring)
        _write(
            etc / "apt/sources.list.d/debian.sources",
            f"Types: deb\nURIs: {self.layout.apt_url}/debian/\nSuites: {self.suite}\nComponents: main\n"
            f"Signed-By: /{keyring}\n",
        )

    def _admit(self, etc: Path) -> None:
        keys = self.root / "home" / ADMIN / ".ssh/authorized_keys"
        public = self.layout.ssh_key.with_suffix(".pub")
        keys.write_text(public.read_text(encoding="ascii"), encoding="ascii")
        shutil.copystat(keys.parent, keys)
        keys.chmod(0o600)
        about = keys.parent.stat()
        os.chown(keys, about.st_uid, about.st_gid)
        if self.sudo_password is None:
            _write(etc / "sudoers.d" / ADMIN, f"{ADMIN} ALL=(ALL:ALL) NOPASSWD: ALL\n", mode=0o440)
        else:
            # Members of the group sudo are asked for their password: Debian's own rule.
            line = f"{ADMIN}:{self.sudo_password}\n"
            execute("chroot", str(self.root), "chpasswd", "--crypt-method", "SHA512", given=line)


def new_password() -> str:
    return secrets.token_urlsafe(12)


def _write(file: Path, text: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


def _until(ready: Callable[[], bool], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ProvisionError(complaint)
        time.sleep(0.1)
