"""Virtual machines, with a kernel of their own, whose power can be cut; and those that stand for a lab host.

A container's files are this machine's: killing it is a crash, after which everything is on the disk that was
written. A virtual machine has its own page cache, which is lost with it, as on a server that loses power.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.cgroup import Cgroup, lab_group
from lab.execute import execute
from lab.host import LabHost
from lab.layout import Layout
from provision.errors import ProvisionError

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "cpio": "cpio",
}
"""Program → the Debian package that has it."""

KERNEL = "linux-image-cloud-amd64"
SHELL = "busybox-static"
"""Package of the first program that runs; the one of this machine may need libraries."""

DISK = "12G"
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
"""What the disk and the network need before the root file system is there."""

BOOT_SECONDS = 600
"""Emulated; 12 s where nothing else runs."""

KERNEL_LINE = "console=ttyS0 net.ifnames=0 panic=1 quiet systemd.mask=serial-getty@ttyS0.service"
"""A lab host has no udev, and the serial console's login would be waited for."""

EMULATED = ("-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048")
"""Processor and memory (MiB) of a virtual machine."""

POWER = 'while "$@" -no-reboot; do :; done'
"""A machine that reboots gets a new process.

In the old one QEMU still has the code that it translated before the reboot, and looks there for each byte
that the boot loader writes over it: GRUB took more than 15 minutes to load a kernel. QEMU's exit code is 0
after a reboot and after a power-off, so a machine that powers itself off comes up again.
"""

INIT = """\
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in MODULES; do busybox modprobe "$module"; done
while ! busybox mount -t ext4 /dev/vda /root; do busybox sleep 1; done
busybox umount /proc /sys
busybox mount --move /dev /root/dev
exec busybox switch_root /root /sbin/init
"""

UPLINK = """\
[Match]
Name=eth0
[Network]
Address={address}/24
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


def missing(programs: Mapping[str, str]) -> list[str]:
    """Debian packages of programs that are not here."""
    return sorted(package for program, package in programs.items() if shutil.which(program) is None)


def missing_programs() -> list[str]:
    """Debian packages of programs that are not here."""
    return missing(PROGRAMS)


@dataclass(frozen=True)
class Vm:
    """A virtual machine on a lab's bridge, emulated, as KVM does not start it on all machines.

    :param layout: of the lab.
    :param address: its own, on the lab's bridge.
    :param folder: where its disk is.
    :param name: of its group of processes, and of its cable with the lab's name behind it.
    """

    layout: Layout
    address: str
    folder: Path
    name: str = field(default="vm", kw_only=True)

    @property
    def log(self) -> Path:
        """What it prints on its serial console."""
        return self.folder / "console.log"

    @property
    def _cgroup(self) -> Cgroup:
        return lab_group(self.layout.name).child(self.name)

    @property
    def _tap(self) -> str:
        return f"{self.name}-{self.layout.name}"

    def _options(self) -> list[str]:
        """Of QEMU: processors, disks and what it boots."""
        raise NotImplementedError

    def _console(self) -> list[str]:
        """Of QEMU: where its serial console is."""
        return ["-nographic"]

    def power_on(self) -> None:
        """Switch it on, and wait for nothing."""
        self._unplug()
        execute("ip", "tuntap", "add", self._tap, "mode", "tap")
        execute("ip", "link", "set", self._tap, "master", self.layout.bridge, "up")
        network = (
            *("-netdev", f"tap,id=n,ifname={self._tap},script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=n,romfile="),
        )
        options = (*self._console(), *self._options(), *network)
        self._cgroup.spawn(["sh", "-c", POWER, "power", "qemu-system-x86_64", *options], self.log)

    def boot(self) -> None:
        """Switch it on, and :meth:`await_login`.

        :raises ProvisionError: nobody can after :data:`BOOT_SECONDS`.
        """
        self.power_on()
        self.await_login()

    def running(self) -> bool:
        """Whether it is on."""
        return bool(self._cgroup.pids())

    def await_login(self) -> None:
        """Wait until its administrator can log in.

        :raises ProvisionError: as :meth:`boot`.
        """
        deadline = time.monotonic() + BOOT_SECONDS
        while self.run("test ! -e /run/nologin", check=False) != "":
            if time.monotonic() > deadline:
                raise ProvisionError(f"nobody can log in on the virtual machine; see {self.log}")
            time.sleep(1)

    def cut(self) -> None:
        """Cut the power."""
        self._cgroup.end()
        self._unplug()

    def _unplug(self) -> None:
        with contextlib.suppress(ProvisionError):
            execute("ip", "link", "delete", self._tap)

    def run(self, script: str, *, check: bool = True) -> str | None:
        """Run a script as root over ssh and return what it printed; without ``check``, None if it failed.

        :raises ProvisionError: it failed.
        """
        done = execute(
            *("ssh", "-q", "-i", str(self.layout.ssh_key)),
            *("-o", f"UserKnownHostsFile={self.layout.known_hosts}"),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=5", f"admin@{self.address}"),
            "sudo sh",
            given=script,
            check=check,
        )
        return None if done.returncode else done.stdout


@dataclass(frozen=True)
class HostVm(Vm):
    """A virtual machine in the place of a lab host that is off, with its disk, address and keys.

    :param host: that host.
    """

    host: LabHost

    @classmethod
    def of(cls, host: LabHost) -> HostVm:
        """The one of a host."""
        return cls(host.layout, host.address, host.layout.state / "vm", host)

    def create(self) -> None:
        """Switch the host off and copy its disk, which :meth:`reset` goes back to."""
        self.host.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        root = self.folder / "root"
        self.folder.mkdir(parents=True)
        self.host.mount()
        execute("cp", "--archive", str(self.host.root), str(root))
        execute("cp", "--archive", f"{self.host.gpu_folder}/.", str(root / "usr/share/lab-gpu"))
        release = self._add_kernel(root)
        (root / "etc/systemd/network/10-uplink.network").write_text(
            UPLINK.format(address=self.host.address), "ascii"
        )
        execute("truncate", f"--size={DISK}", str(self.folder / "bare.raw"))
        execute("mkfs.ext4", "-q", "-d", str(root), str(self.folder / "bare.raw"))
        self._make_initrd(root, release)
        shutil.rmtree(root)
        self.reset()

    def _add_kernel(self, root: Path) -> str:
        depends = execute("apt-cache", "depends", KERNEL).stdout.split()
        package = next(word for word in depends if word.startswith("linux-image-") and word != KERNEL)
        execute("sh", "-c", 'cd "$0" && apt-get -q download "$@"', str(self.folder), package, SHELL)
        for archive in self.folder.glob("*.deb"):
            execute("dpkg-deb", "--extract", str(archive), str(self.folder / "kernel"))
        release = package.removeprefix("linux-image-")
        shutil.copy(self.folder / "kernel/boot" / f"vmlinuz-{release}", self.folder / "vmlinuz")
        for part in (f"boot/vmlinuz-{release}", f"lib/modules/{release}"):
            execute("cp", "--archive", str(self.folder / "kernel" / part), str((root / part).parent))
        execute("chroot", str(root), "depmod", release)
        return release

    def _make_initrd(self, root: Path, release: str) -> None:
        tree = self.folder / "initrd"
        for name in ("bin", "proc", "sys", "dev", "root"):
            (tree / name).mkdir(parents=True)
        shutil.copy(self.folder / "kernel/bin/busybox", tree / "bin/busybox")
        (tree / "init").write_text(INIT.replace("MODULES", " ".join(MODULES)), "ascii")
        (tree / "init").chmod(0o755)
        listed = execute("chroot", str(root), "modprobe", "-S", release, "--show-depends", "--all", *MODULES)
        modules = [word for word in listed.stdout.split() if word.endswith(".ko")]
        for file in dict.fromkeys([*modules, f"/lib/modules/{release}/modules.dep"]):
            place = tree / file.removeprefix("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / file.removeprefix("/"), place)
        pack = 'cd "$0" && find . | cpio --quiet -o -H newc | gzip >"$1"'
        execute("sh", "-c", pack, str(tree), str(self.folder / "initrd.gz"))

    def reset(self) -> None:
        """Go back to the bare disk; the machine is off then."""
        self.cut()
        disk, bare = self.folder / "disk.qcow2", self.folder / "bare.raw"
        execute("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(bare), str(disk))

    def _options(self) -> list[str]:
        return [
            *EMULATED,
            *("-smp", "2"),
            *("-kernel", str(self.folder / "vmlinuz")),
            *("-initrd", str(self.folder / "initrd.gz")),
            *("-append", KERNEL_LINE),
            # What the guest's kernel has sent to the disk is there; what it still held is lost.
            *("-drive", f"file={self.folder / 'disk.qcow2'},format=qcow2,if=virtio,cache=writeback"),
        ]
