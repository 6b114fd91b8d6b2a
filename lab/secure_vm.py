"""A virtual machine as a provider hands it over: Secure Boot, signed loaders, cloud-init."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from lab.execute import execute
from lab.rootfs import apt_sources, own_proxies
from lab.standins.cached import made_once
from lab.vm import EMULATED, Vm, missing

HERE = Path(__file__).parent

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "sfdisk": "fdisk",
    "mmdebstrap": "mmdebstrap",
}
"""Program → the Debian package that has it."""

FIRMWARE = "ovmf"
BOOT_PACKAGES = ("shim-signed", "grub-efi-amd64-signed")
KERNELS = re.compile(r"linux-image-(\d+\.\d+\.\d+-(\d+)-cloud-amd64)")

BASE = (
    *("ca-certificates", "cloud-init", "dbus", "fdisk", "initramfs-tools", "iproute2", "kmod", "less"),
    *("libpam-systemd", "mokutil", "netbase", "openssh-server", "procps", "python3", "sudo", "systemd"),
    *("systemd-sysv", "udev", "grub-common", "grub2-common", "grub-efi-amd64-bin", *BOOT_PACKAGES),
    *("systemd-timesyncd", "openssl", "sbsigntool", "dkms", "zstd"),
)

DISK, BOOT = 6 << 30, 64 << 20
"""Bytes of the root file system and of the boot partition."""
GAP = 1 << 20

ESP_MENU = """\
search.fs_uuid {system} root
set prefix=($root)'/boot/grub'
configfile $prefix/grub.cfg
"""

PARTITIONS = """\
label: gpt
start={boot_start}, size={boot_size}, type=U, name=boot
start={system_start}, size={system_size}, type=L, name=system
"""


def missing_programs() -> list[str]:
    """Debian packages of programs that are not here."""
    return missing(PROGRAMS)


def kernels() -> list[str]:
    """Releases of Debian's kernels for clouds that this machine's sources offer, the oldest first."""
    names = execute("apt-cache", "pkgnames", "linux-image-").stdout.split()
    found = sorted((int(match[2]), match[1]) for match in map(KERNELS.fullmatch, names) if match)
    return [release for _, release in found]


@dataclass(frozen=True)
class SecureVm(Vm):
    """A machine that reads a seed at its first boot."""

    cache: Path

    @property
    def _variables(self) -> Path:
        return self.folder / "variables.fd"

    def create(self, seed: Path) -> None:
        """Make its disk, its firmware's memory and the disk of a seed; the machine is off.

        :param seed: folder with ``user-data``, ``meta-data`` and ``network-config``.
        """
        self.cut()
        made = self._image()
        # The folder gets its name last: one that is there is a whole machine, whatever was stopped.
        folder = self.folder.with_name(f"{self.folder.name}.new")
        for one in (self.folder, folder):
            shutil.rmtree(one, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(made / "OVMF_VARS_4M.ms.fd", folder / self._variables.name)
        disk = str(folder / "disk.qcow2")
        execute("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(made / "disk.raw"), disk)
        _fat(folder / "seed.img", 8 << 20, "CIDATA", {file.name: file for file in seed.iterdir()})
        folder.rename(self.folder)

    @property
    def _monitor(self) -> Path:
        return self.folder / "monitor.sock"

    def press(self, *keys: str) -> None:
        """Press keys of its keyboard, by QEMU's names for them (``ret``, ``down``, ``a``)."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._monitor))
            for key in keys:
                monitor.sendall(f"sendkey {key}\n".encode("ascii"))
                time.sleep(0.5)

    def _console(self) -> list[str]:
        monitor = f"unix:{self._monitor},server=on,wait=off"
        # A socket would lose what is printed while nobody is connected.
        log = f"file,id=console,path={self.log},append=on"
        return ["-display", "none", "-monitor", monitor, "-chardev", log, "-serial", "chardev:console"]

    def _options(self) -> list[str]:
        made = self._image()
        return [
            # One processor: two have not been tried since a reboot takes a new process.
            *("-machine", "q35,smm=on", *EMULATED, "-smp", "1"),
            *("-global", "driver=cfi.pflash01,property=secure,value=on"),
            *("-global", "ICH9-LPC.disable_s3=1"),
            *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={made / 'OVMF_CODE_4M.secboot.fd'}"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={self._variables}"),
            *("-drive", f"id=disk,if=none,format=qcow2,file={self.folder / 'disk.qcow2'},cache=writeback"),
            *("-device", "virtio-blk-pci,drive=disk,bootindex=0"),
            *("-drive", f"if=virtio,format=raw,readonly=on,file={self.folder / 'seed.img'}"),
        ]

    def _image(self) -> Path:
        seen = hashlib.sha256(repr((BASE, DISK, BOOT, ESP_MENU, PARTITIONS, kernels())).encode())
        seen.update((HERE / "secure_vm.sh").read_bytes())
        return made_once(self.cache / "secure-vm", seen.hexdigest()[:12], _make_image)


def _make_image(folder: Path) -> Path:
    """The disk and the firmware, in a folder."""
    made = folder / "made"
    made.mkdir()
    system, serial = str(uuid.uuid4()), uuid.uuid4().hex[:8].upper()
    older, newer = kernels()[0], kernels()[-1]
    packages = [f"linux-image-{older}", f"linux-headers-{older}", *BASE]
    newest = [f"linux-image-{newer}", f"linux-headers-{newer}"]
    common = f"linux-headers-{newer.replace('cloud-amd64', 'common')}"
    hook = ["sh", str(HERE / "secure_vm.sh")]
    arguments = [system, f"{serial[:4]}-{serial[4:]}", *newest, common]
    (folder / "sources.list").write_text("".join(f"{line}\n" for line in apt_sources("bookworm")), "utf-8")
    execute(
        "mmdebstrap",
        *("--variant=minbase", "--mode=root", f"--include={','.join(packages)}"),
        *('--aptopt=Acquire::Languages "none"', *own_proxies()),
        f'--customize-hook={" ".join(hook)} "$1" {" ".join(arguments)}',
        *("bookworm", str(folder / "root"), str(folder / "sources.list")),
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
    )
    _partitions(folder, made / "disk.raw", system, serial)
    execute("sh", "-c", 'cd "$0" && apt-get -q download "$1"', str(folder), FIRMWARE)
    execute("dpkg-deb", "--extract", str(next(folder.glob("*.deb"))), str(folder / "firmware"))
    for name in ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"):
        shutil.copy(folder / "firmware/usr/share/OVMF" / name, made)
    return made


def _partitions(folder: Path, disk: Path, system: str, serial: str) -> None:
    """A boot partition with the signed boot loaders, and the root file system, on a disk."""
    root = folder / "root"
    loaders, menu = root / "usr/lib", folder / "grub.cfg"
    menu.write_text(ESP_MENU.format(system=system), "ascii")
    boot, whole = folder / "boot.img", folder / "system.img"
    files = {
        "EFI/BOOT/BOOTX64.EFI": loaders / "shim/shimx64.efi.signed",
        "EFI/BOOT/mmx64.efi": loaders / "shim/mmx64.efi.signed",
        "EFI/BOOT/grubx64.efi": loaders / "grub/x86_64-efi-signed/grubx64.efi.signed",
        "EFI/debian/grub.cfg": menu,
    }
    _fat(boot, BOOT, "BOOT", files, serial)
    execute("truncate", f"--size={DISK}", str(whole))
    execute("mkfs.ext4", "-q", "-U", system, "-d", str(root), str(whole))
    sectors = {"boot_start": GAP, "boot_size": BOOT, "system_start": GAP + BOOT, "system_size": DISK}
    execute("truncate", f"--size={GAP + BOOT + DISK + GAP}", str(disk))
    table = PARTITIONS.format(**{name: number // 512 for name, number in sectors.items()})
    execute("sfdisk", "--quiet", str(disk), given=table)
    for image, start in ((boot, GAP), (whole, GAP + BOOT)):
        execute(
            *("dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={start >> 20}", "conv=notrunc,sparse"),
            "status=none",
        )


def _fat(image: Path, size: int, label: str, files: dict[str, Path], serial: str = "12345678") -> None:
    """A FAT file system with these files."""
    execute("truncate", f"--size={size}", str(image))
    execute("mkfs.vfat", "-n", label, "-i", serial, str(image))
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    for name in sorted(folders):
        execute("mmd", "-i", str(image), f"::{name}")
    for name, file in files.items():
        execute("mcopy", "-i", str(image), str(file), f"::{name}")
