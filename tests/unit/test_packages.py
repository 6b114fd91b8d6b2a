"""Packages: what dpkg-query says, and what is planned for it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import ABSENT, Change, Missing, Permission, Planned, Signal
from provision.resources.file import File
from provision.resources.packages.deb import Packages, PackageState
from provision.resources.packages.repository import package_source
from provision.resources.packages.rpm import RpmPackages
from provision.resources.packages.sets import MajorVersion, Package, moves_of
from tests.unit.examples import H100, repo, script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

ANSWER = b"""\
libnvidia-container1
nvidia-driver-cuda

dpkg\tamd64\t1.21.22\tinstalled\tinstall
docker.io\tamd64\t20.10.24+dfsg1-1+deb12u1\tinstalled\tinstall
libnvidia-container1:amd64\tamd64\t1.20.0-1\tinstalled\thold
nvidia-container-toolkit\tamd64\t1.17.8-1\tconfig-files\tdeinstall
nvidia-driver-cuda\tamd64\t580.159.04-1\thalf-configured\thold
nvidia-kernel-open-dkms\tall\t580.159.04-1\tinstalled\thold
nvidia-smi:i386\ti386\t470.1-1\tinstalled\tinstall
tini\t\t\tnot-installed\tunknown
"""
"""What we hold, and what dpkg-query 1.21 prints, of which only what is of dpkg's own architecture counts; a
name that it never heard of is an error and exit code 1."""

ONE = Package("nvidia-driver-cuda", "580.159.04-1")
DRIVER = Packages("driver", (ONE, Package("nvidia-kernel-open-dkms", "580.*")))
State = PackageState | Missing

BRANCH = MajorVersion("branch", 580, ("a-[0-9]*",), Permission("branch-change", "", ""))


def installed(version: str, *, held: bool = True, status: str = "installed") -> PackageState:
    return PackageState(version, status, held)


def test_the_answer_of_dpkg_query() -> None:
    names = [
        "docker.io",
        "libnvidia-container1",
        "nvidia-container-toolkit",
        "nvidia-driver-cuda",
        "nvidia-smi",
        "tini",
        "curl",
    ]
    sets = [Packages("a", tuple(map(Package, names[:3]))), Packages("b", tuple(map(Package, names[3:])))]
    found = Packages.states(sets, Output(1, ANSWER, b"dpkg-query: no packages found matching curl\n"))
    assert found == {
        "packages:a": {
            "docker.io": PackageState("20.10.24+dfsg1-1+deb12u1", "installed", held=False, ours=False),
            "libnvidia-container1": PackageState("1.20.0-1", "installed", held=True),
            "nvidia-container-toolkit": ABSENT,
        },
        "packages:b": {
            "nvidia-driver-cuda": PackageState("580.159.04-1", "half-configured", held=True),
            "nvidia-smi": ABSENT,
            "tini": ABSENT,
            "curl": ABSENT,
        },
    }


@pytest.mark.skipif(
    shutil.which("dpkg-query") is None, reason="dpkg-query is not installed (not Debian's kind)"
)
def test_the_probe_asks_a_real_dpkg() -> None:
    sets = [Packages("base", (Package("dpkg"), Package("no-such-package")))]
    ran = subprocess.run(["sh", "-c", script_of(Packages.probe(sets))], capture_output=True, check=False)
    found = Packages.states(sets, Output(ran.returncode, ran.stdout, ran.stderr))["packages:base"]
    assert found["no-such-package"] is ABSENT
    dpkg = found["dpkg"]
    assert isinstance(dpkg, PackageState)
    assert dpkg.status == "installed"


def test_a_dpkg_that_does_not_know_itself_is_no_answer() -> None:
    with pytest.raises(ValueError, match="does not know dpkg: no database"):
        Packages.states([DRIVER], Output(1, b"\n", b"no database\n"))


@pytest.mark.parametrize("exit_code", [2, 127])
def test_a_dpkg_that_fails_is_no_answer(exit_code: int) -> None:
    with pytest.raises(ValueError, match=f"exit {exit_code}: database is locked"):
        Packages.states([DRIVER], Output(exit_code, b"", b"database is locked\n"))


RIGHT = installed("580.159.04-1")


@pytest.mark.parametrize(
    ("first", "second", "action", "reason"),
    [
        (
            ABSENT,
            ABSENT,
            "install",
            "nvidia-driver-cuda: install, it is not installed; "
            "nvidia-kernel-open-dkms: install, it is not installed",
        ),
        (RIGHT, ABSENT, "install", "nvidia-kernel-open-dkms: install, it is not installed"),
        (installed("580.95.05-1"), RIGHT, "upgrade", "nvidia-driver-cuda: upgrade from 580.95.05-1"),
        (installed("590.10-1"), RIGHT, "downgrade", "nvidia-driver-cuda: downgrade from 590.10-1"),
        (RIGHT, installed("575.57.08-1"), "upgrade", "nvidia-kernel-open-dkms: upgrade from 575.57.08-1"),
        (RIGHT, installed("590.10-1"), "downgrade", "nvidia-kernel-open-dkms: downgrade from 590.10-1"),
        (
            installed("580.159.04-1", status="half-configured"),
            RIGHT,
            "repair",
            "nvidia-driver-cuda: repair, dpkg left it half-configured",
        ),
        (
            ABSENT,
            installed("590.10-1"),
            "downgrade",
            "nvidia-driver-cuda: install, it is not installed; "
            "nvidia-kernel-open-dkms: downgrade from 590.10-1",
        ),
        (installed("580.159.04-1", held=False), RIGHT, "hold", "not held"),
    ],
)
def test_a_set_that_is_not_right(first: State, second: State, action: str, reason: str) -> None:
    found = {"nvidia-driver-cuda": first, "nvidia-kernel-open-dkms": second}
    change = DRIVER.change(found, Planned())
    assert change is not None
    assert (change.resource, change.action, change.reason) == ("packages:driver", action, reason)
    assert change.summary.startswith(f"{action} nvidia-")
    assert change.done == (
        "package_is nvidia-driver-cuda 580.159.04-1 && package_is nvidia-kernel-open-dkms '580.*'"
        " && package_held nvidia-driver-cuda && package_held nvidia-kernel-open-dkms"
    )
    assert ("--allow-downgrades" in change.script) == (action == "downgrade")
    assert ("apt_install" in change.script) == (action != "hold")
    assert "hold_packages nvidia-driver-cuda nvidia-kernel-open-dkms" in change.script
    assert bool(change.preview) == (action != "hold")


def test_a_set_that_is_right_needs_nothing() -> None:
    assert DRIVER.change({"nvidia-driver-cuda": RIGHT, "nvidia-kernel-open-dkms": RIGHT}, Planned()) is None


def test_only_packages_that_move_are_named_to_apt() -> None:
    change = DRIVER.change({"nvidia-driver-cuda": ABSENT, "nvidia-kernel-open-dkms": RIGHT}, Planned())
    assert change is not None
    assert change.script.startswith("apt_install -- nvidia-driver-cuda=580.159.04-1 && ")
    assert change.diff == "+nvidia-driver-cuda 580.159.04-1\n"
    assert change.signals == ("package:nvidia-driver-cuda:install",)


def test_each_package_that_moves_is_a_signal_of_its_own() -> None:
    found: dict[str, State] = {
        "nvidia-driver-cuda": ABSENT,
        "nvidia-kernel-open-dkms": installed("575.1-1"),
    }
    change = DRIVER.change(found, Planned())
    assert change is not None
    assert change.action == "upgrade"
    assert change.signals == ("package:nvidia-driver-cuda:install", "package:nvidia-kernel-open-dkms:upgrade")
    assert change.diff.splitlines()[1:] == [
        "-nvidia-kernel-open-dkms 575.1-1",
        "+nvidia-kernel-open-dkms 580.*",
    ]


def test_any_version_will_do_and_nothing_is_held() -> None:
    engine = Packages("docker", (Package("docker.io"),), hold=False)
    assert engine.change({"docker.io": installed("20.10", held=False)}, Planned()) is None
    change = engine.change({"docker.io": ABSENT}, Planned())
    assert change is not None
    assert (change.script, change.done) == ("apt_install -- docker.io", "package_is docker.io '*'")


@pytest.mark.parametrize(
    ("wanted", "version", "right"),
    [
        (None, "1", True),
        ("1.20.0-1", "1.20.0-1", True),
        ("1.20.0-1", "1.20.0-1+b1", False),
        ("580.*", "580.159.04-1", True),
        ("580.*", "5800.1", False),
        ("5:20.10.*", "5:20.10.24~3-0~debian-bookworm", True),
    ],
)
def test_versions(wanted: str | None, version: str, right: bool) -> None:
    assert Package("p", wanted).accepts(version) is right


FOREIGN = PackageState("570.10-1", "installed", held=True, ours=False)


def test_what_somebody_else_holds_is_left_alone() -> None:
    with pytest.raises(
        Refusal, match=r"nvidia-driver-cuda is held at 570.10-1 by somebody, wanted 580"
    ) as refused:
        DRIVER.change({"nvidia-driver-cuda": FOREIGN, "nvidia-kernel-open-dkms": RIGHT}, Planned())
    assert refused.value.hint == "apt-mark unhold nvidia-driver-cuda"


def test_a_hold_of_somebody_else_at_the_right_version_is_fine() -> None:
    right = PackageState("580.159.04-1", "installed", held=True, ours=False)
    assert DRIVER.change({"nvidia-driver-cuda": right, "nvidia-kernel-open-dkms": RIGHT}, Planned()) is None


@pytest.mark.parametrize(
    ("state", "needs", "reason"),
    [
        ({}, None, "a-580: install, it is not installed"),
        (
            {"a-570": installed("570.9-1")},
            BRANCH.permission,
            "branch 570 → 580; a-580: install, it is not installed",
        ),
        (
            {"a-590": installed("1:590.9-1")},
            BRANCH.permission,
            "branch 590 → 580; a-580: install, it is not installed",
        ),
        ({"a-580": installed("580.1-1")}, None, "a-580: upgrade from 580.1-1"),
        ({"a-580": installed("570.1-1")}, BRANCH.permission, "branch 570 → 580; a-580: upgrade from 570.1-1"),
        ({"modules": installed("6.8.0-90")}, None, "a-580: install, it is not installed"),
    ],
)
def test_a_change_of_branch_needs_permission(
    state: dict[str, State], needs: Permission | None, reason: str
) -> None:
    packages = (Package("a-580", "580.9-1"), Package("modules"))
    driver = Packages("driver", packages, major=BRANCH)
    change = driver.change({"a-580": ABSENT, "modules": installed("6.8.0-90"), **state}, Planned())
    assert change is not None
    assert (change.needs, change.reason) == (needs, reason)


def test_packages_of_other_branches_are_asked_for() -> None:
    driver = Packages("driver", (Package("a-580", "580.*"),), major=BRANCH)
    assert "a-580" in Packages.probe([driver]).script
    assert "'a-[0-9]*'" in Packages.probe([driver]).script
    rows = ["dpkg\tamd64\t1.21\tinstalled\tinstall", "a-570\tamd64\t570.1\tinstalled\thold"]
    answer = "\n".join(["", *rows, "other\tamd64\t1\tinstalled\tinstall", ""]).encode()
    found = Packages.states([driver], Output(0, answer))["packages:driver"]
    assert found == {"a-570": PackageState("570.1", "installed", held=True, ours=False), "a-580": ABSENT}


def test_one_repository_for_two_roles() -> None:
    """With different components the files of one address stand beside each other."""
    repos = [repo(suite="stable", components=[name]) for name in ("main", "contrib")]
    files = {file.path for one in repos for file in package_source(one, H100)}
    assert len(files) == 3


SIMULATED = b"""\
ours nvidia-driver-cuda
Reading package lists...
The following packages will be REMOVED:
  nvidia-utils-570
The following held packages will be changed:
  nvidia-driver-cuda
The following packages will be upgraded:
  nvidia-driver-cuda
Remv nvidia-utils-570 [570.1-1]
Inst nvidia-driver-cuda [575.1-1] (580.159.04-1 NVIDIA:now [amd64]) [nvidia-kernel-open-dkms:amd64 ]
Inst libnvidia-ml1 [590.1-1] (580.159.04-1 NVIDIA:now [amd64])
Inst nvidia-persistenced (580.159.04-1 NVIDIA:now [amd64])
Inst broken [1.0] (1.0 NVIDIA:now [amd64])
Conf nvidia-driver-cuda (580.159.04-1 NVIDIA:now [amd64])
"""


def upgrade() -> Change:
    state = {"nvidia-driver-cuda": installed("580.1-1"), "nvidia-kernel-open-dkms": RIGHT}
    change = DRIVER.change(state, Planned())
    assert change is not None
    return change


def test_exactly_the_removals_that_are_shown_are_approved() -> None:
    change = DRIVER.refine(upgrade(), Output(0, SIMULATED))
    assert change.simulation.splitlines() == [
        "remove nvidia-utils-570 570.1-1",
        "upgrade nvidia-driver-cuda 575.1-1 → 580.159.04-1",
        "downgrade libnvidia-ml1 590.1-1 → 580.159.04-1",
        "install nvidia-persistenced 580.159.04-1",
        "reinstall broken 1.0",
    ]
    assert change.script == f"may_remove=nvidia-utils-570\n{upgrade().script}"


def test_what_somebody_else_holds_does_not_move_along() -> None:
    answer = SIMULATED.replace(
        b"changed:\n  nvidia-driver-cuda", b"changed:\n  nvidia-driver-cuda libnvidia-ml1"
    )
    with pytest.raises(Refusal, match="libnvidia-ml1: held by somebody, and apt would change it"):
        DRIVER.refine(upgrade(), Output(0, answer))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("E: Unable to locate package nvidia-driver-cuda", "known after apply\n"),
        ("E: Version '580.159.04-1' for 'nvidia-driver-cuda' was not found", "known after apply\n"),
        (
            "Reading package lists...\nE: Unmet dependencies. Try 'apt --fix-broken install'",
            "known after apply\napt-get now says: E: Unmet dependencies. Try 'apt --fix-broken install'\n",
        ),
        ("sh: apt-get: not found", "known after apply\napt-get now says: sh: apt-get: not found\n"),
    ],
)
def test_a_simulation_that_cannot_be_had_yet_approves_nothing(said: str, text: str) -> None:
    change = DRIVER.refine(upgrade(), Output(100, said.encode()))
    assert (change.simulation, change.script) == (text, upgrade().script)


def test_what_cannot_be_beside_a_package_may_go_unseen() -> None:
    """As long as nobody has asked the mirror, no simulation shows it."""
    chrony = Packages("chrony", (Package("chrony"),), hold=False, replaces=("ntp", "ntpsec"))
    change = chrony.change(chrony.bare(), Planned())
    assert change is not None
    assert change.script.startswith("may_remove='ntp ntpsec'\n")
    unseen = chrony.refine(change, Output(100, b"", b"E: Unable to locate package chrony\n"))
    assert unseen.script == change.script
    seen = chrony.refine(change, Output(0, b"Remv ntpsec [1]\nRemv old [1]\nInst chrony (4 Debian)\n"))
    assert seen.script == change.script.replace("'ntp ntpsec'", "'ntp ntpsec old'")


def test_a_simulation_that_has_no_space_for_planned_files_says_so() -> None:
    said = b"cp: error writing '/tmp/tmp.x/apt.conf': No space left on device\n"
    change = DRIVER.refine(upgrade(), Output(1, b"", said))
    assert change.simulation == f"known after apply\n{said.decode()}"


def test_names_of_moves() -> None:
    assert moves_of(("a", "b"), ("install", "upgrade")) == (
        "package:a:install",
        "package:a:upgrade",
        "package:b:install",
        "package:b:upgrade",
    )
    assert {name.rpartition(":")[2] for name in moves_of(("a",))} == {
        "install",
        "upgrade",
        "downgrade",
        "repair",
    }


def test_signals_by_verb_and_for_every_change() -> None:
    every, moved = Signal("every change"), Signal("upgraded")
    told = Packages("a", (Package("a", "2"),), signals=(("", every), ("upgrade", moved)))
    signals = {
        version: change.signals
        for version in ("1", "3", "2")
        if (change := told.change({"a": installed(version, held=False)}, Planned()))
    }
    assert signals == {
        "1": ("package:a:upgrade", "every change", "upgraded"),
        "3": ("package:a:downgrade", "every change"),
        "2": ("every change",),
    }


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("planned", [(), ("preferences.d/pin",)])
def test_apt_is_asked_with_its_files_as_planned(shell: str, planned: tuple[str, ...], tmp_path: Path) -> None:
    root = FakeRoot(tmp_path, shell)
    root.write("/var/lib/provision/held", "nvidia-driver-cuda\n")
    root.write("/etc/apt/sources.list.d/old.list", "deb x\n")
    see = f"cd {root.folder}/etc/apt; for o; do case $o in Dir::Etc=*) cd ${{o#*=}} || exit ;; esac; done"
    root.program("apt-get", f"{see}; cat */*")
    files = [File(f"/etc/apt/{name}", b"planned\n").change(ABSENT, Planned()) for name in planned]
    state: dict[str, State] = {"nvidia-driver-cuda": ABSENT, "nvidia-kernel-open-dkms": RIGHT}
    change = DRIVER.change(state, Planned(tuple(file for file in files if file)))
    assert change is not None
    assert change.preview is not None
    answer = root.sh(script_of(change.preview))
    assert (answer.out, answer.err) == (
        "ours nvidia-driver-cuda\n" + "planned\n" * len(planned) + "deb x\n",
        "",
    )
    (call,) = root.calls
    assert call.endswith(
        " install --no-install-recommends --allow-change-held-packages -- nvidia-driver-cuda=580.159.04-1"
    )
    assert ("Dir::Cache::pkgcache= " in call) == bool(planned)
    assert not (root.folder / "etc/apt/preferences.d").exists()


DAMAGED = (
    ANSWER.replace(
        b"\n\ndpkg",
        b"\n\ndamaged\tnvidia-driver-cuda:amd64\t/usr/bin/a\ndamaged\tnvidia-driver-cuda\t/usr/bin/b\n"
        b"damaged\tlibnvidia-ml1\t/usr/lib/l\ndamaged\tlibnvidia-ml1:i386\t/usr/lib/i\n"
        b"damaged\tlibnvidia-container1\t/usr/lib/c\ndpkg",
    ).replace(b"half-configured", b"installed")
    + b"libnvidia-ml1\tamd64\t580.159.04-1\tinstalled\tinstall\n"
)
ALONG = Packages("driver", (ONE,), along=("libnvidia-*",))
TOOLKIT = Packages("toolkit", (Package("libnvidia-container1", "1.20.0-1"),))


def test_packages_whose_files_are_damaged_are_installed_once_more() -> None:
    """At their versions; what comes along with a set is repaired with it, what another declares is not."""
    state = Packages.states([ALONG, TOOLKIT], Output(1, DAMAGED))[ALONG.id]
    change = ALONG.change(state, Planned())
    assert change is not None
    assert change.action == "repair"
    assert change.reason == (
        "nvidia-driver-cuda: repair, /usr/bin/a and 1 more of its files are not as they came;"
        " libnvidia-ml1: repair, /usr/lib/l is not as it came"
    )
    again = "--reinstall -- nvidia-driver-cuda=580.159.04-1 libnvidia-ml1=580.159.04-1"
    assert f"apt_install {again}" in change.script
    assert change.done.endswith("packages_are_whole nvidia-driver-cuda libnvidia-ml1")
    assert "package:nvidia-driver-cuda:repair" in change.signals


def test_a_version_that_changes_brings_new_files() -> None:
    state = Packages.states([ALONG], Output(1, DAMAGED))[ALONG.id]
    newer = Packages("driver", (Package(ONE.name, "580.200-1"),), along=ALONG.along)
    change = newer.change(state, Planned())
    assert change is not None
    assert (change.action, "libnvidia-ml1" in change.script) == ("upgrade", False)
    assert "packages_are_whole" not in change.done


def test_a_package_that_comes_along_tells_no_branch() -> None:
    beside = Packages("driver", (Package("a-580", "580.1-1"),), major=BRANCH, along=("libnvidia-*",))
    state = {
        "a-580": PackageState("580.1-1", "installed", True),
        "libnvidia-egl1": PackageState("1.1.10-1", "installed", False, damaged=("/usr/lib/e",)),
    }
    change = beside.change(state, Planned())
    assert change is not None
    assert change.needs is None


def test_a_hold_of_somebody_else_does_not_keep_a_package_from_repair() -> None:
    held = {ONE.name: PackageState("580.159.04-1", "installed", True, ours=False, damaged=("/usr/bin/a",))}
    assert Packages("driver", (ONE,)).change(held, Planned()) is not None


@pytest.mark.parametrize("shell", SHELLS)
def test_damaged_files_are_found_with_one_program(shell: str, tmp_path: Path) -> None:
    info, root = tmp_path / "info", tmp_path / "root"
    sums = {
        "whole": b"w",
        "gone": None,
        "changed": b"x",
        "touched": b"t",
        "share/doc": None,
        "diverted": None,
    }
    info.mkdir()
    lines = []
    for name, now in sums.items():
        came = b"came" if now == b"x" else now or b"g"
        lines.append(f"{hashlib.md5(came, usedforsecurity=False).hexdigest()}  {str(root)[1:]}/{name}\n")
        if now is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(now)
            os.utime(root / name, (100, 100) if name == "whole" else (300, 300))
    for package in ("a", "b:amd64"):
        (info / f"{package}.md5sums").write_text("".join(lines))
        (info / f"{package}.list").write_text(f"{root}/lib/link\n{root}/lib/lost\n{root}/whole\n")
        os.utime(info / f"{package}.list", (200, 200))
    (root / "lib").mkdir()
    (root / "lib/link").symlink_to("nothing")
    (tmp_path / "diversions").write_text(f"{root}/diverted\n{root}/diverted.real\nother\n")
    script = (
        script_of(Packages.probe([DRIVER]))
        .replace("/var/lib/dpkg/info", str(info))
        .replace("/var/lib/dpkg/diversions", str(tmp_path / "diversions"))
        .replace("usr/share/", f"{str(root)[1:]}/share/")
        .replace("(usr/)?(bin|sbin|lib)/", f"{str(root)[1:]}/lib/")
    )
    head = script[: script.rindex("deb_states ")]
    known = (
        "a\tall\t1\tinstalled\tinstall\nb:amd64\tamd64\t1\tinstalled\tinstall\nc\t\t\tnot-installed\tunknown"
    )
    ran = subprocess.run([shell, "-c", f"{head}damaged_of '{known}'"], capture_output=True, check=True)
    assert ran.stderr == b""
    found = sorted(set(ran.stdout.decode().splitlines()))
    assert found == [
        f"damaged\t{package}\t{root}/{name}"
        for package in ("a", "b:amd64")
        for name in ("changed", "gone", "lib/lost")
    ]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/grep").symlink_to(str(shutil.which("grep")))
    quiet = f"{head}PATH={tmp_path}/bin\nmd5sum() {{ echo x; }}\ndamaged_of a >/dev/null"
    assert subprocess.run([shell, "-c", quiet], capture_output=True, check=True).stderr == b""


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_dpkg_query_that_prints_without_end_is_named(shell: str, tmp_path: Path) -> None:
    (tmp_path / "dpkg-query").write_text("#!/bin/sh\nexec yes\n")
    (tmp_path / "dpkg-query").chmod(0o755)
    script = f"PATH={tmp_path}:$PATH\n{script_of(Packages.probe([DRIVER]))}"
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=False, timeout=120)
    assert len(ran.stdout) < 1000
    with pytest.raises(Refusal, match="dpkg-query prints too much") as caught:
        Packages.states([DRIVER], Output(ran.returncode, ran.stdout, ran.stderr))
    assert "type -a dpkg-query" in str(caught.value.hint)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("content", [b"\xdc\xc4\x7f\0\x85", b"a\n\n\xff\n", b'{"a": 1}', b"a b"])
def test_a_damaged_list_of_holds_is_named(shell: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "held").write_bytes(content)
    for kind in (Packages, RpmPackages):
        script = script_of(kind.probe([])).replace("/var/lib/provision/held", str(tmp_path / "held"))
        ran = subprocess.run([shell, "-c", script], capture_output=True, check=False)
        with pytest.raises(Refusal, match="/var/lib/provision/held is not as provision writes it") as caught:
            kind.states([], Output(ran.returncode, ran.stdout, ran.stderr))
        assert str(caught.value.hint).startswith("on the host: mv /var/lib/provision/held ")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_list_of_holds_is_read_to_its_last_line(shell: str, tmp_path: Path) -> None:
    (tmp_path / "held").write_text("nvidia-driver-cuda\n\nlibc6:amd64\ng++-12")
    script = script_of(Packages.probe([])).replace("/var/lib/provision/held", str(tmp_path / "held"))
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=False, text=True)
    assert ran.stdout.startswith("nvidia-driver-cuda\nlibc6:amd64\ng++-12\n\n")
