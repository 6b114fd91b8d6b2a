"""RPM packages with the real dnf and rpm: signed stand-ins with module streams, in a throw-away root.

The lab has no host of RHEL's kind. But Debian has dnf, rpm and createrepo_c, so what our scripts say to them
is said to the real ones; only the system around them is not RHEL's.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lab import prerequisites
from lab.aptrepo import SigningKey, signing_key
from lab.execute import execute
from provision.causes.known_messages import hint_for
from provision.errors import RefusedError
from provision.plan.plan import Plan
from provision.resource import AnyResource, Permission
from provision.resources.packages.repository import (
    Repo,
    RepoWithFetchedKey,
    package_resource,
    package_source,
)
from provision.resources.packages.rpm import RpmPackages
from provision.resources.packages.sets import MajorVersion, Package
from tests.lab.throwaway import SHARED, Root, failure
from tests.unit.examples import H100

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PERMISSION = Permission("branch-change", "the branch changes", "allow it")

PROGRAMS = {
    "dnf": "dnf",
    "rpmbuild": "rpm",
    "rpmsign": "rpm",
    "createrepo_c": "createrepo-c",
    "/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py": "dnf-plugins-core",
}
"""Program or file → the Debian package that has it."""

ROCKY = replace(H100, os="rocky", version="9.4", codename="", architecture="", kernel="5.14.0-427.el9.x86_64")

Keys = tuple[SigningKey, SigningKey]

MODULES = """\
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "{branch}-open"
  version: {branch}
  context: "0a0b0c0d"
  arch: noarch
  summary: stand-in
  description: stand-in
  license: {{module: [MIT]}}
  dependencies: [{{}}]
  artifacts:
    rpms:
{rpms}...
"""

LONG = "needs-the-old-and-has-a-name-for-which-the-table-has-no-room"

DRIVER = ("nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-smi-{branch}")


def rpm(folder: Path, name: str, version: str, *fields: str, epoch: int = 0, signer: SigningKey) -> None:
    """Build and sign a package with nothing in it."""
    spec = folder / f"{name}-{version}.spec"
    about = [f"Name: {name}", f"Epoch: {epoch}", f"Version: {version}", "Release: 1.el9", "BuildArch: noarch"]
    about += ["Summary: stand-in", "License: none", *fields, "%description", "stand-in", "%files"]
    spec.write_text("".join(f"{line}\n" for line in about), "utf-8")
    defined = ["--define", f"_topdir {folder}/top", "--define", f"_rpmdir {folder}/repo"]
    execute("rpmbuild", "-bb", "--quiet", *defined, str(spec))
    sign(folder / "repo" / "noarch" / f"{name}-{version}-1.el9.noarch.rpm", signer)


def sign(package: Path, signer: SigningKey) -> None:
    """Sign a package; a signature that it has is replaced."""
    macros = {"__gpg": "/usr/bin/gpg", "_gpg_name": signer.fingerprint, "_gpg_path": str(signer.home)}
    defined = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    execute("rpmsign", *defined, "--resign", str(package))


def index(folder: Path, signer: SigningKey) -> None:
    """Make the metadata of a repository, module streams among them, and sign them."""
    text = ""
    for branch, version in (("570", "570.10"), ("580", "580.20")):
        names = [name.format(branch=branch) for name in DRIVER]
        rpms = "".join(f"    - {name}-3:{version}-1.el9.noarch\n" for name in names)
        text += "---\n" + MODULES.format(branch=branch, rpms=rpms)
    (folder / "modules.yaml").write_text(text, "utf-8")
    execute("createrepo_c", "--quiet", str(folder))
    execute("modifyrepo_c", "--mdtype=modules", str(folder / "modules.yaml"), str(folder / "repodata"))
    gpg = ["gpg", "--homedir", str(signer.home), "--batch", "--yes", "--armor", "--detach-sign"]
    execute(*gpg, str(folder / "repodata/repomd.xml"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The repository's key and a stranger's."""
    if (reason := prerequisites.unfit()) is not None:
        pytest.skip(reason)
    absent = {p for program, p in PROGRAMS.items() if not (shutil.which(program) or Path(program).exists())}
    if absent:
        pytest.skip(f"not installed: {' '.join(sorted(absent))}")
    cache = tmp_path_factory.mktemp("keys")
    return signing_key(cache, "nvidia"), signing_key(cache, "stranger")


@pytest.fixture(scope="module")
def repository(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two branches of a driver in two streams, and what else is needed."""
    folder = tmp_path_factory.mktemp("rpms")
    key, _ = keys
    for version in ("570.10", "580.20"):
        branch = version[:3]
        rpm(
            folder,
            "nvidia-driver-cuda",
            version,
            f"Requires: nvidia-driver-cuda-libs = 3:{version}",
            epoch=3,
            signer=key,
        )
        rpm(folder, "nvidia-driver-cuda-libs", version, epoch=3, signer=key)
        rpm(folder, f"nvidia-smi-{branch}", version, "Provides: smi", "Conflicts: smi", epoch=3, signer=key)
    rpm(
        folder,
        LONG,
        "1",
        "Requires: nvidia-smi-570",
        signer=key,
    )
    rpm(folder, "nvidia-tool", "1.1", signer=key)
    rpm(folder, "nvidia-tool", "1.2", signer=key)
    rpm(folder, "successor", "2", "Obsoletes: old-tool < 2", signer=key)
    rpm(folder, "old-tool", "1", signer=key)
    rpm(folder, "kernel-devel", "5.14.0", "Provides: installonlypkg(kernel)", signer=key)
    rpm(folder, "kernel-devel", "6.1", "Provides: installonlypkg(kernel)", signer=key)
    rpm(folder, "python3-dnf-plugin-versionlock", "4.3.0", signer=key)
    index(folder / "repo", key)
    return folder / "repo"


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Root:
    """A root that looks like RHEL to dnf, with an empty rpm database and no repositories."""
    root = Root.make(tmp_path / "root")
    execute("cp", "--recursive", f"{repository}/.", str(root.shared / "rpm"))
    execute("chmod", "--recursive", "a+rX", str(root.shared))
    root.must(
        "rm -rf /var/lib/rpm /var/lib/dnf /var/cache/dnf /etc/yum.repos.d /etc/dnf/modules.d\n"
        "rm -f /etc/os-release\n"
        "mkdir -p /etc/yum.repos.d\n"
        "printf 'ID=rocky\\nVERSION_ID=9.4\\nPLATFORM_ID=platform:el9\\n' >/etc/os-release\n"
        # Only versionlock is on RHEL unasked.
        "for plugin in local copr debuginfo-install post-transaction-actions; do\n"
        "  printf '[main]\\nenabled=0\\n' >/etc/dnf/plugins/$plugin.conf\n"
        "done\n"
        ": >/etc/dnf/plugins/versionlock.list\n"
        "rpm --initdb\n"
    )
    return root


def source(key: SigningKey) -> tuple[AnyResource, ...]:
    repo = Repo(uri=f"file://{SHARED}/rpm", key=key.armoured, fingerprint=key.fingerprint)
    return package_source(repo, ROCKY)


def driver(key: SigningKey, version: str) -> list[AnyResource]:
    """The driver at one version: its source, its stream, its packages."""
    branch = version[:3]
    packages = package_resource(
        ROCKY,
        "driver",
        tuple(Package(name, version) for name in ("nvidia-driver-cuda", f"nvidia-smi-{branch}")),
        stream=f"nvidia-driver:{branch}-open",
        major=MajorVersion("branch", int(branch), ("nvidia-smi-[0-9]*",), PERMISSION),
    )
    return [*source(key), packages]


def tool(key: SigningKey, *versions: str, name: str = "nvidia-tool") -> list[AnyResource]:
    return [*source(key), RpmPackages("tool", tuple(Package(name, version) for version in versions))]


def installed(root: Root) -> set[str]:
    return set(root.must("rpm -qa --qf '%{NAME}-%{VERSION}\\n'").split())


def locks(root: Root) -> list[str]:
    """The lines of dnf's list of locks."""
    lines = root.must("cat /etc/dnf/plugins/versionlock.list").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def last(plan: Plan) -> str:
    return plan.changes[-1].simulation


def test_the_way_up_and_back_down(root: Root, keys: Keys) -> None:
    key, _ = keys
    bare = root.converge(*driver(key, "570.10"))
    assert bare.changes[-1].reason.startswith("module nvidia-driver: stream none → nvidia-driver:570-open; ")
    assert {"nvidia-driver-cuda-570.10", "nvidia-smi-570-570.10"} <= installed(root)
    assert locks(root) == ["nvidia-driver-cuda-3:570.10-1.el9.*", "nvidia-smi-570-3:570.10-1.el9.*"]
    up = root.converge(*driver(key, "580.20"))
    assert (up.changes[-1].action, up.changes[-1].needs) == ("upgrade", PERMISSION)
    assert up.changes[-1].reason.startswith("branch 570 → 580; module nvidia-driver: stream 570-open → ")
    assert last(up).splitlines() == [
        "remove nvidia-smi-570 3:570.10-1.el9",
        "install nvidia-smi-580 3:580.20-1.el9",
        "upgrade nvidia-driver-cuda 3:580.20-1.el9",
        "upgrade nvidia-driver-cuda-libs 3:580.20-1.el9",
    ]
    assert locks(root) == ["nvidia-driver-cuda-3:580.20-1.el9.*", "nvidia-smi-580-3:580.20-1.el9.*"]
    down = root.converge(*driver(key, "570.10"))
    assert down.changes[-1].action == "downgrade"
    assert "downgrade nvidia-driver-cuda-libs 3:570.10-1.el9" in last(down)
    assert "nvidia-smi-580-580.20" not in installed(root)
    root.must("dnf -y upgrade --refresh")
    assert root.plan(*driver(key, "570.10")).changes == ()


def test_what_the_plan_did_not_show_is_not_removed(root: Root, keys: Keys) -> None:
    key, _ = keys
    root.converge(*driver(key, "570.10"))
    planned = root.plan(*driver(key, "580.20"))
    root.must(f"dnf -y install {LONG}")
    before = installed(root), locks(root)
    said = failure(root.apply(planned))
    assert f"dnf would remove {LONG}, which the plan did not show: plan again" in said
    assert (installed(root), locks(root)) == before
    assert "stream=570-open" in root.must("cat /etc/dnf/modules.d/nvidia-driver.module")
    again = root.converge(*driver(key, "580.20"))
    assert f"remove {LONG} 1-1.el9" in last(again)


def test_locks_of_others_are_left_alone(root: Root, keys: Keys) -> None:
    key, _ = keys
    root.converge(*tool(key, "1.1"))
    root.must("rm /var/lib/provision/held")
    with pytest.raises(
        RefusedError, match=r"nvidia-tool is held at 0:1\.1-1\.el9\.\* by somebody, wanted 1\.2"
    ):
        root.plan(*tool(key, "1.2"))
    root.must("dnf -y versionlock delete nvidia-tool; dnf -y versionlock add nvidia-tool-1.1")
    with pytest.raises(RefusedError, match="nvidia-tool is held at"):
        root.plan(*tool(key, "1.2"))
    assert root.plan(*tool(key, "1.1")).changes == ()


def test_a_lock_on_a_dependency_is_in_the_way(root: Root, keys: Keys) -> None:
    key, _ = keys
    root.converge(*driver(key, "570.10"))
    root.must("echo 'nvidia-driver-cuda-libs-3:570.10-1.el9.*' >>/etc/dnf/plugins/versionlock.list")
    planned = root.plan(*driver(key, "580.20"))
    assert "dnf now says: " in last(planned)
    assert "nvidia-driver-cuda-libs" in last(planned)
    said = failure(root.apply(planned))
    assert "nvidia-driver-cuda-libs" in said
    assert hint_for(said)
    assert "nvidia-driver-cuda-570.10" in installed(root)
    assert len(locks(root)) == 3


def test_a_package_that_another_makes_obsolete_is_shown(root: Root, keys: Keys) -> None:
    key, _ = keys
    root.converge(*tool(key, "1", name="old-tool"))
    planned = root.plan(*tool(key, "2", name="successor"))
    assert last(planned).splitlines()[0] == "remove old-tool 1-1.el9"
    root.converge(*tool(key, "2", name="successor"))
    assert "old-tool-1" not in installed(root)


def test_a_package_that_is_not_there(root: Root, keys: Keys) -> None:
    key, _ = keys
    planned = root.plan(*tool(key, "9"))
    assert last(planned) == "known after apply\n"
    said = failure(root.apply(planned))
    assert "No match for argument: nvidia-tool-9" in said
    assert hint_for(said) == "no configured repository has this package: check repo in the settings"


@pytest.mark.parametrize("what", ["metadata", "packages"])
def test_what_another_key_has_signed_is_refused(root: Root, keys: Keys, what: str, repository: Path) -> None:
    key, stranger = keys
    folder = root.shared / "rpm"
    if what == "packages":
        for package in folder.glob("noarch/nvidia-tool-*"):
            sign(package, stranger)
    index(folder, stranger if what == "metadata" else key)
    said = failure(root.apply(root.plan(*tool(key, "1.1"))))
    assert hint_for(said) == (
        "the repository is signed by another key than the one in the settings: check key and fingerprint"
    ), said
    assert "nvidia-tool-1.1" not in installed(root)
    assert not locks(root)


def fetched(expected: SigningKey, *versions: str) -> list[AnyResource]:
    """The tool from the repository, whose key is fetched and must be this one."""
    repo = RepoWithFetchedKey(
        uri=f"file://{SHARED}/rpm",
        signed="packages",
        key_address=f"file://{SHARED}/KEY.pub",
        fingerprint=expected.fingerprint,
    )
    packages = tuple(Package("nvidia-tool", version) for version in versions)
    return [*package_source(repo, ROCKY), RpmPackages("tool", packages)]


def test_a_key_is_fetched_and_packages_are_checked_with_it(root: Root, keys: Keys) -> None:
    key, stranger = keys
    (root.shared / "KEY.pub").write_text(key.armoured)
    planned = root.converge(*fetched(key, "1.1"))
    assert planned.changes[0].action == "create"
    assert "nvidia-tool-1.1" in installed(root)
    sign(next((root.shared / "rpm/noarch").glob("nvidia-tool-1.2-*")), stranger)
    index(root.shared / "rpm", key)
    said = failure(root.apply(root.plan(*fetched(key, "1.2"))))
    assert "the repository is signed by another key" in str(hint_for(said)), said
    assert "nvidia-tool-1.1" in installed(root)


def test_dnf_never_sees_another_key_than_the_expected_one(root: Root, keys: Keys) -> None:
    key, stranger = keys
    (root.shared / "KEY.pub").write_text(stranger.armoured)
    said = failure(root.apply(root.plan(*fetched(key, "1.1"))))
    assert f"has fingerprint {stranger.fingerprint}, expected {key.fingerprint}" in said
    assert not root.must("ls /etc/pki/rpm-gpg 2>/dev/null || true")
    assert not root.must("ls /etc/yum.repos.d")


def test_a_repository_that_is_gone(root: Root, keys: Keys) -> None:
    key, _ = keys
    shutil.rmtree(root.shared / "rpm")
    said = failure(root.apply(root.plan(*tool(key, "1.1"))))
    assert "Failed to download metadata for repo" in said
    assert hint_for(said)


def test_kernel_packages_stand_beside_each_other(root: Root, keys: Keys) -> None:
    key, _ = keys
    headers = [RpmPackages("headers", (Package("kernel-devel", "5.14.0-1.el9"),), hold=False)]
    root.converge(*source(key), *headers)
    newer = [RpmPackages("headers", (Package("kernel-devel", "6.1-1.el9"),), hold=False)]
    planned = root.converge(*newer)
    assert planned.changes[0].reason == "kernel-devel: install, beside 5.14.0-1.el9"
    assert {"kernel-devel-5.14.0", "kernel-devel-6.1"} <= installed(root)
    assert root.plan(*headers).changes == ()


def test_another_dnf_is_waited_for(root: Root, keys: Keys) -> None:
    key, _ = keys
    planned = root.plan(*tool(key, "1.1"))
    busy = (
        "mkdir -p /var/cache/dnf; python3 -c 'import time; time.sleep(8)' & "
        "for f in /var/cache/dnf/metadata_lock.pid /var/lib/dnf/rpmdb_lock.pid; do "
        "mkdir -p ${f%/*}; printf %s $! >$f; done\n"
    )
    events = root.apply(planned, before=busy)
    assert failure(events) == ""
    said = [event.output for event in events if event.kind == "say"]
    assert len(said) == 1
    assert "waiting for another package operation: process " in said[0]
    assert "time.sleep(8)" in said[0]
