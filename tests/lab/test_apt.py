"""Debian packages with the real apt and dpkg: stand-ins from a signed repository, in a throw-away root."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab import prerequisites
from lab.aptrepo import SigningKey, flat_repository, signing_key
from lab.execute import execute
from lab.layout import cache_root
from lab.rootfs import build_rootfs
from provision.errors import RefusedError
from provision.plan.plan import Plan
from provision.resource import AnyResource, Permission
from provision.resources.file import File
from provision.resources.packages.deb import Packages, left_alone
from provision.resources.packages.repository import Repo, package_source
from provision.resources.packages.sets import MajorVersion, Package
from tests.lab.throwaway import SHARED, Root, failure
from tests.unit.examples import H100

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PERMISSION = Permission("branch-change", "the branch changes", "allow it")


def deb(folder: Path, name: str, version: str, *fields: str, architecture: str = "all") -> None:
    """Build a package with nothing in it."""
    tree = folder / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    about = [f"Package: {name}", f"Version: {version}", f"Architecture: {architecture}", *fields]
    about += ["Maintainer: nobody <nobody@example.org>", "Description: stand-in"]
    (tree / "DEBIAN/control").write_text("".join(f"{line}\n" for line in about), "utf-8")
    execute("dpkg-deb", "--build", "--root-owner-group", str(tree), str(folder))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    if (reason := prerequisites.unfit()) is not None:
        pytest.skip(reason)
    return signing_key(tmp_path_factory.mktemp("keys"), "nvidia")


@pytest.fixture(scope="module")
def repository(key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two branches of a driver: a branchless name, and one with the branch in its name."""
    folder = tmp_path_factory.mktemp("debs")
    for version in ("570.10-1", "580.20-1"):
        branch = version[:3]
        deb(folder, "nvidia-driver-cuda", version, f"Depends: libnvidia-ml1 (= {version})")
        deb(folder, "libnvidia-ml1", version, architecture=H100.architecture)
        deb(folder, f"nvidia-utils-{branch}", version, "Provides: nv-utils", "Conflicts: nv-utils")
    deb(folder, "nvidia-smi", "470.1-1", architecture="i386")
    deb(folder, "nvidia-smi", "580.20-1", architecture="amd64")
    deb(folder, "needs-the-old", "1", "Depends: nvidia-utils-570")
    return flat_repository(tmp_path_factory.mktemp("cache"), "nvidia", folder.glob("*.deb"), key)


@pytest.fixture(params=["here", "trixie"])
def root(repository: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Root:
    """A root whose only source is the repository, once it is set up: this machine's, and one with apt 3."""
    here = request.param == "here"
    lower = Path("/") if here else build_rootfs(request.param, cache_root(), lambda _: None).root
    root = Root.make(tmp_path / "root", lower)
    execute("cp", "--recursive", f"{repository}/.", str(root.shared / "apt"))
    execute("chmod", "--recursive", "a+rX", str(root.shared))
    root.must("rm -rf /etc/apt/sources.list /etc/apt/*.d/* /etc/apt/preferences /var/lib/apt/lists/*")
    return root


def source(key: SigningKey) -> tuple[AnyResource, ...]:
    repo = Repo(uri=f"file://{SHARED}/apt", key=key.armoured, fingerprint=key.fingerprint)
    return package_source(repo, H100)


def driver(key: SigningKey, version: str) -> list[AnyResource]:
    """The driver at one version: its source, its pin, its packages."""
    pin = f"Package: nvidia-* libnvidia-*\nPin: version {version}\nPin-Priority: 1000\n"
    names = ("nvidia-driver-cuda", f"nvidia-utils-{version[:3]}")
    return [
        *source(key),
        File("/etc/apt/preferences.d/provision-driver", pin.encode()),
        Packages(
            "driver",
            tuple(Package(name, version) for name in names),
            major=MajorVersion("branch", int(version[:3]), ("nvidia-utils-[0-9]*",), PERMISSION),
        ),
    ]


def installed(root: Root) -> dict[str, str]:
    """Version and selection of what is there of NVIDIA."""
    form = r"${binary:Package} ${Version} ${db:Status-Want}\n"
    listed = root.must(f"dpkg-query -W -f '{form}' '*nvidia*' | grep -v unknown")
    return dict(line.split(" ", 1) for line in listed.splitlines())


def the_packages(plan: Plan) -> str:
    return next(change.simulation for change in plan.changes if change.resource == "packages:driver")


def test_the_way_up_and_back_down(root: Root, key: SigningKey) -> None:
    bare = root.converge(*driver(key, "570.10-1"))
    assert the_packages(bare) == "known after apply\n"
    assert installed(root) == {
        "libnvidia-ml1": "570.10-1 install",
        "nvidia-driver-cuda": "570.10-1 hold",
        "nvidia-utils-570": "570.10-1 hold",
    }
    assert root.must("cat /var/lib/provision/held") == "nvidia-driver-cuda\nnvidia-utils-570\n"
    up = root.converge(*driver(key, "580.20-1"))
    assert (up.changes[-1].needs, up.changes[-1].reason.split(";")[0]) == (
        PERMISSION,
        "branch 570 → 580",
    )
    assert the_packages(up).splitlines() == [
        "remove nvidia-utils-570 570.10-1",
        "upgrade nvidia-driver-cuda 570.10-1 → 580.20-1",
        "upgrade libnvidia-ml1 570.10-1 → 580.20-1",
        "install nvidia-utils-580 580.20-1",
    ]
    down = root.converge(*driver(key, "570.10-1"))
    assert "downgrade libnvidia-ml1 580.20-1 → 570.10-1" in the_packages(down)
    assert "nvidia-utils-580" not in installed(root)


def test_what_the_plan_did_not_show_is_not_removed(root: Root, key: SigningKey) -> None:
    root.converge(*driver(key, "570.10-1"))
    root.must("apt-get -q -y install needs-the-old; rm -rf /var/lib/apt/lists/*")
    planned = root.plan(*driver(key, "580.20-1"))
    assert the_packages(planned) == "known after apply\n"
    said = failure(root.apply(planned))
    assert "apt would remove needs-the-old, which the plan did not show: plan again" in said
    assert "nvidia-utils-580" not in installed(root)
    again = root.converge(*driver(key, "580.20-1"))
    assert "remove needs-the-old 1" in the_packages(again)


def test_holds_of_others_are_left_alone(root: Root, key: SigningKey) -> None:
    root.converge(*driver(key, "570.10-1"))
    root.must("apt-mark hold libnvidia-ml1")
    with pytest.raises(RefusedError, match="libnvidia-ml1: held by somebody, and apt would change it"):
        root.plan(*driver(key, "580.20-1"))
    root.must("apt-mark unhold libnvidia-ml1; rm /var/lib/provision/held")
    with pytest.raises(
        RefusedError, match=r"nvidia-driver-cuda is held at 570\.10-1 by somebody, wanted 580"
    ):
        root.plan(*driver(key, "580.20-1"))


def test_a_hold_that_the_plan_could_not_see_is_left_alone_too(root: Root, key: SigningKey) -> None:
    root.converge(*driver(key, "570.10-1"))
    planned = root.plan(*driver(key, "580.20-1"))
    root.must("apt-mark hold libnvidia-ml1")
    said = failure(root.apply(planned))
    assert "libnvidia-ml1 is held by somebody, and apt would change it" in said


def test_a_package_of_another_architecture_is_another_package(root: Root, key: SigningKey) -> None:
    root.must(f"dpkg --add-architecture i386; dpkg -i {SHARED}/apt/nvidia-smi_470.1-1_i386.deb 2>/dev/null")
    tools: list[AnyResource] = [
        *source(key),
        Packages("tools", (Package("nvidia-smi", "580.20-1"),)),
    ]
    planned = root.plan(*tools)
    assert planned.changes[-1].reason == "nvidia-smi: install, it is not installed"
    said = failure(root.apply(planned))
    assert "apt would remove nvidia-smi:i386, which the plan did not show" in said
    root.converge(*tools)
    assert "580.20-1 hold" in installed(root).values()


def test_what_dpkg_left_undone_is_mended(root: Root, key: SigningKey) -> None:
    root.must(f"cd {SHARED}/apt; dpkg --unpack nvidia-driver-cuda_580.20-1_all.deb 2>/dev/null")
    planned = root.converge(*driver(key, "580.20-1"))
    assert planned.changes[-1].action == "repair"
    assert "nvidia-driver-cuda: repair, dpkg left it unpacked" in planned.changes[-1].reason


def test_what_was_cut_while_it_was_unpacked_is_installed_again(root: Root, key: SigningKey) -> None:
    root.converge(*driver(key, "580.20-1"))
    root.must(
        'awk \'$1 == "Package:" { name = $2 }'
        ' $1 == "Status:" && name == "nvidia-driver-cuda" { $0 = "Status: hold reinstreq half-installed" }'
        ' $1 == "Status:" && name == "libnvidia-ml1" { $0 = "Status: install reinstreq half-installed" }'
        " { print }' /var/lib/dpkg/status >/status && mv /status /var/lib/dpkg/status"
    )
    planned = root.converge(*driver(key, "580.20-1"))
    assert planned.changes[-1].reason == "nvidia-driver-cuda: repair, dpkg left it half-installed"
    assert root.must("dpkg --audit") == ""


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"])
def test_a_lock_is_waited_for_and_its_holder_named(root: Root, key: SigningKey, lock: str) -> None:
    (root.shared / "hold.pl").write_text(
        "use Fcntl; open(my $file, '>>', $ARGV[0]) or die;"
        " my $lock = pack('s s x4 q q l x4', F_WRLCK, 0, 0, 0, 0);"
        " fcntl($file, F_SETLK, $lock) or die; sleep 5;",
        "utf-8",
    )
    wanted = driver(key, "580.20-1")
    planned = root.plan(*wanted)
    began = time.monotonic()
    events = root.apply(planned, before=f"perl {SHARED}/hold.pl {lock} & sleep 1\n")
    assert failure(events) == ""
    assert any("waiting for another package operation" in e.output for e in events if e.kind == "say")
    assert time.monotonic() - began > 4
    assert f"perl {SHARED}/hold.pl {lock}" in "".join(root.log(n) for n in range(len(planned.changes)))
    assert root.plan(*wanted).changes == ()


def test_unattended_upgrades_reads_its_file(root: Root) -> None:
    root.converge(left_alone("driver", ("nvidia-", "libnvidia-", "libstdc++")))
    dump = root.must("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert 'Unattended-Upgrade::Package-Blacklist:: "nvidia-";' in dump
    assert '"libstdc[+][+]";' in dump
