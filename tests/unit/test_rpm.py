"""RPM packages: what rpm and dnf say, and what is planned for it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Change, Permission, Planned
from provision.resources.file import File
from provision.resources.packages.repository import package_resource, package_source, require_family
from provision.resources.packages.rpm import PLUGIN, Installed, RpmPackages, RpmState, streams
from provision.resources.packages.sets import MajorVersion, Package, Simulation
from provision.shell import assembled
from tests.unit.examples import FINGERPRINT, H100, KEY, repo, script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

ROCKY = replace(H100, os="rocky", version="9.4", codename="", architecture="")

BRANCH = MajorVersion("branch", 580, ("kmod-nvidia-[0-9]*",), Permission("branch-change", "", ""))
DRIVER = RpmPackages(
    "driver",
    (Package("nvidia-driver-cuda", "580.*"), Package("kmod-nvidia", "580.20-1.el9")),
    stream="nvidia-driver:580-open",
    major=BRANCH,
)

ANSWER = b"""\
machine x86_64
ours kmod-nvidia
lock # Added lock on Sun Nov 22 18:49:09 2026
lock
lock !nvidia-driver-3:590*
lock kmod-nvidia-3:580.20-1.el9.*
module [nvidia-driver]
module name=nvidia-driver
module stream=580-open
module profiles=
module state=enabled
rpm kernel-devel\t0\t5.14.0\t427.el9\tx86_64
rpm kernel-devel\t0\t5.14.0\t503.el9\tx86_64
rpm kmod-nvidia\t3\t580.20\t1.el9\tx86_64
rpm nvidia-driver-cuda\t3\t470.1\t1.el9\ti686
rpm python3-dnf-plugin-versionlock\t0\t4.3.0\t13.el9\tnoarch
"""
"""Of a host with a package of another architecture, which does not count."""


def one(version: str, release: str = "1.el9") -> tuple[Installed, ...]:
    return (Installed("3", version, release),)


THERE = {PLUGIN: (Installed("0", "4.3.0", "13.el9"),)}
RIGHT = RpmState(
    {**THERE, "nvidia-driver-cuda": one("580.20"), "kmod-nvidia": one("580.20")},
    ("nvidia-driver-cuda-3:580.20-1.el9.*", "kmod-nvidia-3:580.20-1.el9.*"),
    frozenset({"nvidia-driver-cuda", "kmod-nvidia"}),
    "580-open",
)


def planned(state: RpmState, wanted: RpmPackages = DRIVER) -> Change:
    change = wanted.change(state, Planned())
    assert change is not None
    return change


def test_the_answer_of_rpm_and_dnf() -> None:
    headers = RpmPackages("headers", (Package("kernel-devel"),), hold=False)
    found = RpmPackages.states([DRIVER, headers], Output(0, ANSWER))
    assert found["packages:driver"] == RpmState(
        {**THERE, "kmod-nvidia": one("580.20")},
        ("kmod-nvidia-3:580.20-1.el9.*",),
        frozenset({"kmod-nvidia"}),
        "580-open",
    )
    kernels = found["packages:headers"].installed["kernel-devel"]
    assert [kernel.text for kernel in kernels] == ["5.14.0-427.el9", "5.14.0-503.el9"]


def test_an_rpm_that_fails_is_no_answer() -> None:
    with pytest.raises(ValueError, match="exit 1: rpmdb: damaged"):
        RpmPackages.states([DRIVER], Output(1, b"", b"rpmdb: damaged\n"))


def test_a_set_that_is_right_needs_nothing() -> None:
    assert DRIVER.change(RIGHT, Planned()) is None


@pytest.mark.parametrize(
    ("changes", "action", "needs", "reason"),
    [
        ({"locks": RIGHT.locks[:1]}, "hold", None, "not locked"),
        ({"locks": ("kmod-nvidia-3:570.1-1.el9.*", *RIGHT.locks[:1])}, "hold", None, "not locked"),
        ({"stream": ""}, "switch", None, "module nvidia-driver: stream none → nvidia-driver:580-open"),
        (
            {"stream": "570-open"},
            "switch",
            None,
            "module nvidia-driver: stream 570-open → nvidia-driver:580-open",
        ),
        (
            {"installed": {**RIGHT.installed, "kmod-nvidia": one("570.1")}},
            "upgrade",
            BRANCH.permission,
            "branch 570 → 580; kmod-nvidia: upgrade from 570.1-1.el9",
        ),
        (
            {"installed": {**RIGHT.installed, "kmod-nvidia": one("590.1")}},
            "downgrade",
            BRANCH.permission,
            "branch 590 → 580; kmod-nvidia: downgrade from 590.1-1.el9",
        ),
        (
            {"installed": {**RIGHT.installed, "kmod-nvidia": one("580.20", "3.el9")}},
            "downgrade",
            None,
            "kmod-nvidia: downgrade from 580.20-3.el9",
        ),
        (
            {"installed": {**RIGHT.installed, "kmod-nvidia": one("580.20") + one("580.9")}},
            "repair",
            None,
            "kmod-nvidia: repair, 580.20-1.el9 and 580.9-1.el9 are installed",
        ),
        (
            {"installed": {**THERE, "kmod-nvidia": one("580.20")}},
            "install",
            None,
            "nvidia-driver-cuda: install, it is not installed",
        ),
    ],
)
def test_a_set_that_is_not_right(
    changes: dict[str, object], action: str, needs: Permission | None, reason: str
) -> None:
    change = planned(replace(RIGHT, **changes))  # type: ignore[arg-type]
    assert (change.action, change.needs, change.reason) == (action, needs, reason)
    assert change.resource == "packages:driver"
    assert change.done == (
        "stream_is nvidia-driver 580-open && rpm_is nvidia-driver-cuda '580.*'"
        " && rpm_is kmod-nvidia 580.20-1.el9 && rpm_locked nvidia-driver-cuda && rpm_locked kmod-nvidia"
    )
    assert change.script.endswith("lock_rpms nvidia-driver-cuda kmod-nvidia")
    assert ("dnf_install" in change.script) == bool(change.preview) == (action not in ("hold", "switch"))


def test_the_plugin_that_heeds_locks_is_installed_along() -> None:
    bare = RpmState({})
    change = planned(bare)
    assert change.script == (
        f"dnf_install nvidia-driver:580-open 'nvidia-driver-cuda kmod-nvidia' {PLUGIN}"
        " 'nvidia-driver-cuda-580.*' kmod-nvidia-580.20-1.el9 && lock_rpms nvidia-driver-cuda kmod-nvidia"
    )
    assert PLUGIN not in planned(bare, replace(DRIVER, hold=False)).script


def test_only_packages_that_move_are_named_to_dnf() -> None:
    change = planned(replace(RIGHT, installed={**RIGHT.installed, "kmod-nvidia": one("580.9")}))
    assert "'nvidia-driver-cuda kmod-nvidia' kmod-nvidia-580.20-1.el9 && " in change.script
    assert change.signals == ("package:kmod-nvidia:upgrade",)
    assert change.diff == "-kmod-nvidia 580.9-1.el9\n+kmod-nvidia 580.20-1.el9\n"


@pytest.mark.parametrize("lock", ["kmod-nvidia-3:570.1-1.el9.*", "kmod-nvidia-570*", "*nvidia*570*"])
def test_what_somebody_else_locks_is_left_alone(lock: str) -> None:
    installed = {**RIGHT.installed, "kmod-nvidia": one("570.1")}
    with pytest.raises(
        Refusal, match=r"kmod-nvidia is held at .* by somebody, wanted 580\.20-1\.el9"
    ) as refused:
        planned(replace(RIGHT, installed=installed, locks=(lock,), ours=frozenset()))
    assert refused.value.hint == "dnf versionlock delete kmod-nvidia"


@pytest.mark.parametrize(
    ("wanted", "right"),
    [
        (None, True),
        ("580.*", True),
        ("580.20", True),
        ("580.20-1.el9", True),
        ("3:580.20", True),
        ("3:580.20-1.el9", True),
        ("580.2", False),
        ("580.20-2.el9", False),
        ("1:580.20", False),
    ],
)
def test_versions(wanted: str | None, right: bool) -> None:
    assert Installed("3", "580.20", "1.el9").matches(Package("p", wanted)) is right


TABLE = """\
Last metadata expiration check: 0:00:01 ago on Sun Nov 22 18:49:25 2026.
Dependencies resolved.
====================================================================================================
 Package                                                            Arch    Version        Repo
                                                                                                Size
====================================================================================================
Installing:
 successor                                                          noarch  2-1.el9        x   5.5 k
     replacing  old-tool.noarch 1-1.el9
Upgrading:
 nvidia-driver-cuda                                                 noarch  3:580.20-1.el9 x   5.5 k
Installing dependencies:
 a-package-with-a-name-for-which-there-is-no-room-in-the-table-of-dnf-at-all
                                                                    noarch  1-1.el9        x   5.5 k
Removing dependent packages:
 nvidia-fabricmanager                                               noarch  3:570.10-1.el9 @x    0

Transaction Summary
====================================================================================================
Install  2 Packages

Operation aborted.
"""


def test_exactly_the_removals_that_are_shown_are_approved() -> None:
    moved = planned(replace(RIGHT, installed={**RIGHT.installed, "kmod-nvidia": one("580.9")}))
    change = DRIVER.refine(moved, Output(1, TABLE.encode()))
    assert change.simulation.splitlines() == [
        "remove old-tool 1-1.el9",
        "remove nvidia-fabricmanager 3:570.10-1.el9",
        "install successor 2-1.el9",
        "upgrade nvidia-driver-cuda 3:580.20-1.el9",
        "install a-package-with-a-name-for-which-there-is-no-room-in-the-table-of-dnf-at-all 1-1.el9",
    ]
    assert change.script == f"may_remove='old-tool nvidia-fabricmanager'\n{moved.script}"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Error: Unable to find a match: nvidia-driver-cuda-580.*\n", "known after apply\n"),
        ('Error: There are no enabled repositories in "/etc/yum.repos.d".\n', "known after apply\n"),
        ("unshare: unshare failed: Operation not permitted\n", "known after apply\n"),
        (
            "Error: \n Problem: cannot install both a-1 and a-2\n  - conflicting requests\n(try to)\n",
            "known after apply\ndnf now says: Problem: cannot install both a-1 and a-2\n"
            "dnf now says: - conflicting requests\n",
        ),
    ],
)
def test_a_simulation_that_cannot_be_had_yet_approves_nothing(said: str, text: str) -> None:
    assert DRIVER.read_preview(Output(1, said.encode())) == Simulation(text=text)


def test_streams_of_modules() -> None:
    lines = [
        "[a]",
        "stream = 1",
        "state=enabled",
        "[b]",
        "stream=2",
        "state=disabled",
        "[c]",
        "state=enabled",
    ]
    assert streams(lines) == {"a": "1", "c": ""}


def test_a_repository_for_dnf() -> None:
    key, source = package_source(repo(), ROCKY)
    assert isinstance(key, File)
    name = "provision-packages-example-org-nvidia"
    assert (key.path, key.content.decode().strip()) == (
        f"/etc/pki/rpm-gpg/provision-{FINGERPRINT}",
        KEY.strip(),
    )
    assert source.path == f"/etc/yum.repos.d/{name}.repo"
    assert source.content.decode().splitlines() == [
        f"[{name}]",
        f"name={name}",
        "baseurl=https://packages.example.org/nvidia",
        "enabled=1",
        "gpgcheck=1",
        "repo_gpgcheck=1",
        f"gpgkey=file://{key.path}",
    ]


@pytest.mark.parametrize(("signed", "packages", "metadata"), [("packages", 1, 0), ("metadata", 0, 1)])
def test_what_of_a_repository_is_signed(signed: str, packages: int, metadata: int) -> None:
    _, source = package_source(repo(signed=signed), ROCKY)
    assert f"\ngpgcheck={packages}\nrepo_gpgcheck={metadata}\n" in source.content.decode()


def test_a_repository_for_apt_is_refused_for_dnf() -> None:
    with pytest.raises(Refusal, match=r"has a suite, and rocky 9\.4 has dnf"):
        package_source(repo(suite="bookworm", components=["main"]), ROCKY)


def test_each_family_has_its_packages() -> None:
    wanted = (Package("a", "1"),)
    rpms = package_resource(ROCKY, "x", wanted, stream="m:s", major=BRANCH)
    assert rpms == RpmPackages("x", wanted, stream="m:s", major=BRANCH)
    assert package_resource(H100, "x", wanted, stream="m:s", major=BRANCH).kind == "packages"
    assert package_resource(H100, "x", wanted).id == rpms.id
    with pytest.raises(Refusal, match="role driver does not know alpine"):
        require_family(replace(ROCKY, os="alpine"), "driver")


@pytest.mark.parametrize("shell", SHELLS)
def test_rpm_and_dnfs_files_are_asked(shell: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    lines = ANSWER.decode().splitlines(keepends=True)
    for path, word in (
        ("/var/lib/provision/held", "ours"),
        ("/etc/dnf/plugins/versionlock.list", "lock"),
        ("/etc/dnf/modules.d/nvidia-driver.module", "module"),
        ("/rows", "rpm"),
    ):
        mine = [line for line in lines if line.split()[0] == word]
        root.write(path, "".join(line.partition(" ")[2] or "\n" for line in mine))
    root.program("uname", "echo x86_64")
    root.program("rpm", f"sed 's/^/rpm /' {root.folder}/rows")
    answer = root.sh(script_of(RpmPackages.probe([DRIVER])))
    assert RpmPackages.states([DRIVER], answer) == RpmPackages.states([DRIVER], Output(0, ANSWER))
    assert answer.err == ""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_what_runs_in_the_namespace_of_dnfs_preview_is_checked(tmp_path: Path) -> None:
    file = "shell/dnf_preview.sh"
    text = FakeRoot(tmp_path).sh(f'{assembled(file)}printf %s "$preview_in_namespace"').stdout
    assert b"exec dnf --assumeno" in text
    ran = subprocess.run(["shellcheck", "--shell=sh", "-"], input=text, capture_output=True, check=False)
    assert ran.stdout == b""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("stream", ["", "nvidia-driver:580-open"])
def test_dnf_is_asked_without_our_locks_and_with_the_stream(shell: str, stream: str, tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    root.write("/var/lib/provision/held", "kmod-nvidia\n")
    root.write("/etc/dnf/plugins/versionlock.list", "kmod-nvidia-3:1-1.*\nkernel-0:5-1.*\n")
    root.write("/etc/dnf/modules.d/a.module", "[a]\n")
    root.write("/mnt/.keep")
    root.program("unshare", f'shift; cd {root.folder}; shell=$1; shift; exec $shell "$@"')
    root.program("mount", '[ "$1" != --bind ] || { rm -r "$3"; cp -r "$2" "$3"; }')
    root.program("umount")
    root.program("dnf", f"cd {root.folder}/etc/dnf; cat plugins/versionlock.list modules.d/*")
    preview = DRIVER.preview(["kmod-nvidia-580.*"], stream, Planned())
    answer = root.sh(script_of(preview).replace("/mnt", f"{root.folder}/mnt"))
    enabled = "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n"
    assert answer.out == "kernel-0:5-1.*\n[a]\n" + (enabled if stream else "")
    options = "--assumeno --color=never --setopt=install_weak_deps=False"
    assert root.calls[-1] == f"dnf {options} install --allowerasing kmod-nvidia-580.*"
