"""The initramfs of the kernels that count: when it is rebuilt, and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision.probe import Output, Probe
from provision.resource import Change, Planned
from provision.resources.initramfs import Initramfs
from tests.unit.examples import script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

OLD, NEW = "6.1.0-9-amd64", "6.1.0-32-amd64"
BLACKLIST = "/etc/modprobe.d/provision-nouveau.conf"
WANTED = Initramfs(BLACKLIST)


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """A host with two kernels that runs the older."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/proc/sys/kernel/osrelease", f"{OLD}\n")
    for release in (OLD, NEW):
        made.write(f"/boot/vmlinuz-{release}")
        made.write(f"/lib/modules/{release}/kernel/x.ko")
    return made


def aged(root: FakeRoot, path: str, hours: int) -> None:
    """A file that was written so many hours ago."""
    os.utime(root.write(path), (1_700_000_000 - 3600 * hours,) * 2)


def asked(root: FakeRoot) -> list[str]:
    found = Initramfs.states([WANTED], root.sh(script_of(Initramfs.probe([WANTED]))))
    return [image.removeprefix(str(root.folder)) for image in found[f"initramfs:{BLACKLIST}"]]


@pytest.mark.parametrize(
    ("ages", "stale"),
    [
        ({BLACKLIST: 5}, []),
        ({BLACKLIST: 5, f"/boot/initrd.img-{OLD}": 4, f"/boot/initrd.img-{NEW}": 3}, []),
        (
            {BLACKLIST: 5, f"/boot/initrd.img-{OLD}": 6, f"/boot/initrd.img-{NEW}": 3},
            [f"/boot/initrd.img-{OLD}"],
        ),
        (
            {BLACKLIST: 5, f"/boot/initrd.img-{OLD}": 6, f"/boot/initrd.img-{NEW}": 7},
            [f"/boot/initrd.img-{OLD}", f"/boot/initrd.img-{NEW}"],
        ),
        ({BLACKLIST: 5, f"/boot/initramfs-{NEW}.img": 6}, [f"/boot/initramfs-{NEW}.img"]),
        ({BLACKLIST: 5, "/boot/initrd.img-5.10.0-1-amd64": 9, "/boot/initramfs-0-rescue-0123.img": 9}, []),
        ({f"/boot/initrd.img-{OLD}": 6}, []),
    ],
)
def test_images_older_than_the_file_are_stale(root: FakeRoot, ages: dict[str, int], stale: list[str]) -> None:
    for path, hours in ages.items():
        aged(root, path, hours)
    assert asked(root) == stale


def test_one_image_is_named_once(root: FakeRoot) -> None:
    root.write("/proc/sys/kernel/osrelease", f"{NEW}\n")
    aged(root, BLACKLIST, 1)
    aged(root, f"/boot/initrd.img-{NEW}", 2)
    assert asked(root) == [f"/boot/initrd.img-{NEW}"]


FILE = Change(f"file:{BLACKLIST}", "create", "", "", "")


@pytest.mark.parametrize(
    ("stale", "planned", "reason"),
    [
        ((), (), None),
        ((), (FILE,), f"after file:{BLACKLIST}"),
        (("/boot/initrd.img-1",), (), f"/boot/initrd.img-1 is older than {BLACKLIST}"),
    ],
)
def test_when_it_is_rebuilt(stale: tuple[str, ...], planned: tuple[Change, ...], reason: str | None) -> None:
    change = WANTED.change(stale, Planned(planned))
    assert (change.reason if change else None) == reason


def test_half_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="0 answers for 1 files"):
        Initramfs.states([WANTED], Output(0))


@pytest.mark.parametrize(
    ("program", "image", "call"),
    [
        ("update-initramfs", f"/boot/initrd.img-{NEW}", "update-initramfs -u -k all"),
        ("dracut", f"/boot/initramfs-{NEW}.img", "dracut --force --regenerate-all"),
    ],
)
def test_all_kernels_get_theirs(root: FakeRoot, program: str, image: str, call: str) -> None:
    """The one that boots next may be another than the one that runs."""
    aged(root, BLACKLIST, 1)
    aged(root, image, 2)
    root.program(program, f"touch {image}")
    change = WANTED.change((), Planned((FILE,)))
    assert change
    assert f"{image} is older than" in root.words(change.done).err
    assert root.words(change.script).ok
    assert root.words(change.done).ok
    assert root.calls == [call]


def test_a_host_without_initramfs_has_nothing_to_rebuild(root: FakeRoot) -> None:
    root.write(BLACKLIST)
    change = WANTED.change((), Planned((FILE,)))
    assert change
    assert root.words(change.done).ok


@pytest.mark.parametrize("program", ["lsinitramfs", "lsinitrd"])
def test_what_is_in_an_image_is_verified(root: FakeRoot, program: str) -> None:
    """An image that cannot be read says nothing."""
    for release, text in ((OLD, "etc/modprobe.d/provision-nouveau.conf\n"), (NEW, "etc/modprobe.d/x.conf\n")):
        root.write(f"/boot/initrd.img-{release}", f"init\n{text}")
    root.write(f"/boot/initramfs-{OLD}.img", "unreadable")
    root.program(program, 'grep -q -v unreadable "$1" && cat "$1"')
    probe = Probe("", f"images_without {BLACKLIST.lstrip('/')}", ("driver/verify.sh",))
    assert root.sh(script_of(probe)).out.split() == [f"{root.folder}/boot/initrd.img-{NEW}"]
