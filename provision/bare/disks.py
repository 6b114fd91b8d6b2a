"""Names of disks that an installer may wipe. Pure."""

from __future__ import annotations

import re

BY_ID = "/dev/disk/by-id/"

_DISK = r"(sd|vd|xvd|hd)[a-z]+|(nvme\d+n|mmcblk|pmem|md)\d+"
"""The kernel's names of disks."""

_PARTITION = re.compile(r"(/dev/(?:[svh]d|xvd)[a-z]+)\d+|(/dev/\w*\d)p\d+|(/dev/disk/by-id/.+)-part\d+")
"""Names of partitions; the one group that matches is the disk's."""

_MAPPED_PARTITION = re.compile(r"(/dev/disk/by-id/dm-uuid-)part\d+-(mpath-.+)")

_NO_DISK = re.compile(r"\.\.?|lvm-pv-uuid-.*|dm-uuid-(LVM|CRYPT)-.*")
"""What is below /dev/disk/by-id and no disk: volumes of LVM, and what is encrypted."""

_GIVEN_BY_OTHERS = re.compile(r"(dm-name|md-name|virtio|google)-.*|scsi-0(QEMU|Google)_.*")
"""What is below /dev/disk/by-id and not called after a serial number: many machines may have the same."""


def serial(path: str) -> str | None:
    """The name of a disk that only one disk has; None where several machines may have one of this name."""
    name = path.removeprefix(BY_ID)
    return None if name == path or _GIVEN_BY_OTHERS.fullmatch(name) else name


def objection(path: str) -> tuple[str, str] | None:
    """Why ``path`` is not the name of a whole disk, and a hint; None where it may be one."""
    if found := _PARTITION.fullmatch(path):
        return f"{path} is a partition", _whole(next(filter(None, found.groups())))
    if found := _MAPPED_PARTITION.fullmatch(path):
        return f"{path} is a partition", _whole(f"{found[1]}{found[2]}")
    if re.fullmatch(r"/dev/nvme\d+", path):
        return f"{path} is a controller, and no disk", _whole(f"{path}n1")
    name = path.removeprefix(BY_ID)
    if _NO_DISK.fullmatch(name) if name != path else not re.fullmatch(f"/dev/({_DISK})", path):
        return f"{path} is not the name of a disk", f"ls -l {BY_ID} shows disks by model and serial number"
    return None


def _whole(disk: str) -> str:
    return f"disk: {disk}; all that it holds is lost"
