"""Modules for the running and the newest kernel: what DKMS left behind, what is planned, and building.

The trees are as dkms 3.0.10 leaves them: a folder for each version and kernel, and a link to the version that
is installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.probe import Output
from provision.resource import Change, Planned
from provision.roles.driver.modules_on_disk import DriverModules, KernelModules
from tests.unit.examples import script_of
from tests.unit.fake_root import FakeRoot
from tests.unit.sandbox import SHELLS

OLD, NEW = "6.1.0-9-amd64", "6.1.0-32-amd64"
V = "580.159.04"
WANTED = DriverModules("580.*", ("nvidia-kernel-open-dkms",))
READY = DriverModules("580.*", ("nvidia-driver",), prebuilt="linux-modules-nvidia-580-server-open")
INSTALL = Change(
    "packages:driver", "install", "", "", "", signals=("package:nvidia-kernel-open-dkms:install",)
)
HEADERS = Change("kernel-headers", "install", "", "", "")


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> FakeRoot:
    """A host with two kernels and their headers that runs the older; a module holds but its version."""
    made = FakeRoot(tmp_path, request.param)
    made.write("/proc/sys/kernel/osrelease", f"{OLD}\n")
    for release in (OLD, NEW):
        made.write(f"/boot/vmlinuz-{release}")
        made.write(f"/lib/modules/{release}/build/Makefile")
    made.program("modinfo", 'cat "$3"')
    (tmp_path / "var/lib/dkms").mkdir(parents=True)
    return made


def module(root: FakeRoot, kernel: str, version: str = V) -> None:
    root.write(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko", version)


def built(root: FakeRoot, kernel: str, version: str = V, name: str = "nvidia") -> None:
    root.write(f"/var/lib/dkms/{name}/{version}/{kernel}/x86_64/module/nvidia.ko", version)


def active(root: FakeRoot, kernel: str, version: str = V, name: str = "nvidia") -> None:
    link = root.folder / f"var/lib/dkms/{name}/kernel-{kernel}-x86_64"
    link.symlink_to(f"{version}/{kernel}/x86_64")


def asked(root: FakeRoot) -> tuple[KernelModules, ...]:
    return DriverModules.states([WANTED], root.sh(script_of(DriverModules.probe([WANTED]))))["driver-modules"]


# --- what is there --------------------------------------------------------------------------------


def test_the_version_that_is_installed_is_told_from_others_that_are_built(root: FakeRoot) -> None:
    for version in ("580.95.05", V):
        built(root, OLD, version)
    active(root, OLD)
    module(root, OLD)
    built(root, NEW, "580.95.05", "nvidia-fs")
    assert asked(root) == (
        KernelModules(OLD, V, True, (f"nvidia/{V}",)),
        KernelModules(NEW, "", True),
    )
    assert [call.split()[0] for call in root.calls] == ["modinfo"]


def test_all_names_under_which_packages_add_the_driver(root: FakeRoot) -> None:
    (root.folder / f"boot/vmlinuz-{NEW}").unlink()
    for name in ("nvidia", "nvidia-current", "nvidia-open", "nvidia-srv", "nvidia-fs", "nvidia-peermem"):
        built(root, OLD, V, name)
    (found,) = asked(root)
    assert sorted(name.partition("/")[0] for name in found.built) == [
        "nvidia",
        "nvidia-current",
        "nvidia-open",
        "nvidia-srv",
    ]


def test_a_module_that_tells_no_version(root: FakeRoot) -> None:
    module(root, OLD, "")
    assert asked(root)[0] == KernelModules(OLD, "?", True)


@pytest.mark.parametrize("builtin", [True, False])
def test_a_driver_that_is_built_into_the_kernel(root: FakeRoot, builtin: bool) -> None:
    """A module that is loaded from nowhere would be gone after a reboot; what is in the kernel is not."""
    root.write("/sys/module/nvidia/version", f"{V}\n")
    if not builtin:
        root.write("/sys/module/nvidia/refcnt", "0\n")
    assert asked(root)[0] == KernelModules(OLD, V if builtin else "", True)
    assert (
        root.words(f"find_driver_module() {{ driver_file=; }}; module_is_there {OLD} '580.*'").ok == builtin
    )


def test_half_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="one or two kernels: find: not found"):
        DriverModules.states([WANTED], Output(0, b"", b"find: not found\n"))


# --- what is planned ------------------------------------------------------------------------------

RIGHT = KernelModules(OLD, V, True, (f"nvidia/{V}",))
RIGHT_NEW = KernelModules(NEW, V, True, (f"nvidia/{V}",))
NONE = KernelModules(OLD, "")
NONE_NEW = KernelModules(NEW, "")
BEHIND = KernelModules(OLD, "", False)


@pytest.mark.parametrize(
    ("wanted", "state", "planned", "said", "reason"),
    [
        (WANTED, (RIGHT,), (), "", ""),
        (WANTED, (RIGHT, RIGHT_NEW), (), "", ""),
        (WANTED, (KernelModules(OLD, V),), (), "", ""),
        (WANTED, (KernelModules(OLD, "?"),), (), "", ""),
        (WANTED, (NONE,), (), OLD, f"kernel {OLD} has no module of the driver"),
        (WANTED, (RIGHT, NONE_NEW), (), NEW, f"kernel {NEW} has no module of the driver"),
        (
            WANTED,
            (KernelModules(OLD, "575.57.08", True, (f"nvidia/{V}",)),),
            (),
            OLD,
            f"kernel {OLD} has the driver's module 575.57.08 (dkms: nvidia/{V})",
        ),
        (
            WANTED,
            (KernelModules(OLD, "?", True, ("nvidia/575.57.08",)),),
            (),
            OLD,
            f"kernel {OLD} has the driver's module ? (dkms: nvidia/575.57.08)",
        ),
        (WANTED, (RIGHT, RIGHT_NEW), (INSTALL,), f"{OLD} and {NEW}", "its packages change"),
        (WANTED, (NONE, NONE_NEW), (INSTALL,), f"{OLD} and {NEW}", "its packages change"),
        # Nothing can be built for a kernel without headers, unless they come or there is no other.
        (WANTED, (BEHIND, RIGHT_NEW), (), "", ""),
        (WANTED, (BEHIND, RIGHT_NEW), (HEADERS,), OLD, f"kernel {OLD} has no module of the driver"),
        (WANTED, (BEHIND,), (), OLD, f"kernel {OLD} has no module of the driver"),
        (READY, (BEHIND, RIGHT_NEW), (), OLD, f"kernel {OLD} has no module of the driver"),
    ],
)
def test_what_is_planned(
    wanted: DriverModules,
    state: tuple[KernelModules, ...],
    planned: tuple[Change, ...],
    said: str,
    reason: str,
) -> None:
    change = wanted.change(state, Planned(planned))
    assert (change.reason if change else "") == reason
    if change:
        how = wanted.prebuilt or "dkms"
        kernels = " ".join(kernel.kernel for kernel in state)
        assert change.summary.startswith(f"kernel modules 580.* for {said}")
        assert change.script.endswith(f"build_modules {how} '580.*' {kernels}")
        assert change.done.endswith(f"modules_are_there {how} '580.*' {kernels}")


def test_what_cannot_be_built_is_noted() -> None:
    assert WANTED.notes((BEHIND, RIGHT_NEW), Planned()) == (f"kernel {OLD} has no module of the driver",)
    assert WANTED.notes((NONE,), Planned()) == ()
    assert WANTED.notes((RIGHT,), Planned()) == ()


# --- building -------------------------------------------------------------------------------------

DKMS = """case $1 in
status) cat "$root/status" 2>/dev/null ;;
autoinstall | install)
  for k in "$@"; do :; done
  case $k in --force) k=$4 ;; esac
  if [ -e "$root/broken" ]; then
    mkdir -p /var/lib/dkms/nvidia/580.159.04/build/
    cp "$root/broken" /var/lib/dkms/nvidia/580.159.04/build/make.log
    echo "Error! Bad return status for module build on kernel: $k (x86_64)" >&2
    exit 10
  fi
  mkdir -p "/lib/modules/$k/updates/dkms/"
  echo 580.159.04 >"/lib/modules/$k/updates/dkms/nvidia.ko"
  echo "nvidia/580.159.04, $k, x86_64: installed" >"$root/status" ;;
esac"""


def carried_out(root: FakeRoot, change: Change | None) -> Output:
    """The step as a run does it: nothing if it is done already, then the change, then the proof."""
    assert change
    return root.words(
        f"done_0() {{\n{change.done}\n}}\ndo_0() {{\n{change.script}\n}}\n"
        "(done_0) >/dev/null 2>&1 || { (do_0) && (done_0); }"
    )


def test_what_the_packages_built_is_only_proven(root: FakeRoot) -> None:
    module(root, OLD)
    module(root, NEW)
    root.program("dkms", DKMS)
    assert carried_out(root, WANTED.change((NONE, NONE_NEW), Planned((INSTALL,)))).ok
    calls = [call for call in root.calls if call.startswith("dkms")]
    assert calls == [f"dkms status -k {OLD}", f"dkms status -k {NEW}"]


@pytest.mark.parametrize(
    ("added", "there", "call"),
    [
        ("/var/lib/dkms/nvidia/{V}/source/dkms.conf", "", f"dkms install nvidia/{V} -k {NEW}"),
        (
            "/var/lib/dkms/nvidia/{V}/source/dkms.conf",
            "575.57.08",
            f"dkms install nvidia/{V} -k {NEW} --force",
        ),
        ("/usr/src/nvidia-current-{V}/dkms.conf", "", f"dkms install nvidia-current/{V} -k {NEW}"),
        ("", "", f"dkms autoinstall -k {NEW}"),
    ],
)
def test_what_is_missing_is_built(root: FakeRoot, added: str, there: str, call: str) -> None:
    """Without --force dkms would keep a module of another version."""
    module(root, OLD)
    if added:
        root.write(added.replace("{V}", V))
        root.write(f"/var/lib/dkms/nvidia-fs/{V}/source/dkms.conf")
        root.write(f"/usr/src/nvidia-fs-{V}/dkms.conf")
    if there:
        module(root, NEW, there)
    root.program("dkms", DKMS)
    output = carried_out(root, WANTED.change(asked(root), Planned()))
    assert output.ok, output
    assert [c for c in root.calls if "install" in c] == [call]


def test_a_compiler_that_fails_is_quoted(root: FakeRoot) -> None:
    module(root, OLD)
    root.program("dkms", DKMS)
    (root.folder / "broken").write_text(
        "DKMS make.log for nvidia-580.159.04\n  CC [M]  nv.o\n"
        "nv-dma.c:7:9: error: too few arguments to function 'dma_map'\n"
        + "make[2]: still going\n" * 30
        + "make: *** [Makefile:234: modules] Error 2\n"
    )
    output = carried_out(root, WANTED.change(asked(root), Planned()))
    assert not output.ok
    assert "nv-dma.c:7:9: error: too few arguments to function 'dma_map'" in output.out
    assert "still going" not in output.out
    assert "Bad return status for module build on kernel: 6.1.0-32-amd64" in output.err


def test_logs_of_earlier_runs_are_not_quoted(root: FakeRoot) -> None:
    root.write("/var/lib/dkms/nvidia/575.57.08/build/make.log", "old.c:1: error: long ago\n")
    output = root.words("touch -d '1 hour' \"$run/pid\"; build_errors")
    assert (output.exit_code, output.out) == (1, "")


def test_a_kernel_that_is_left_behind_is_left_as_it_is(root: FakeRoot) -> None:
    (root.folder / f"lib/modules/{OLD}/build/Makefile").unlink()
    root.program("dkms", DKMS)
    output = carried_out(root, WANTED.change((NONE, NONE_NEW), Planned((INSTALL,))))
    assert output.ok, output
    assert f"the driver cannot be had for kernel {OLD} any more" in output.out
    assert [c for c in root.calls if "install" in c] == [f"dkms autoinstall -k {NEW}"]


def test_the_newest_kernel_needs_headers(root: FakeRoot) -> None:
    module(root, OLD)
    (root.folder / f"lib/modules/{NEW}/build/Makefile").unlink()
    root.program("dkms", DKMS)
    output = carried_out(root, WANTED.change((NONE, NONE_NEW), Planned((INSTALL,))))
    assert not output.ok
    assert f"the headers of kernel {NEW} are missing" in output.err


@pytest.mark.parametrize(
    ("status", "right"),
    [
        (f"nvidia/{V}, {OLD}, x86_64: installed", True),
        (f"nvidia/{V}, {OLD}, x86_64: installed (original_module exists)", True),
        (f"nvidia, {V}, {OLD}, x86_64: installed", True),
        (f"nvidia-current/{V}, {OLD}, x86_64: installed\nnvidia-fs/2.24.2, {OLD}, x86_64: installed", True),
        (f"nvidia/575.57.08, {OLD}, x86_64: installed\nnvidia/{V}, {OLD}, x86_64: built", False),
        ("", True),
    ],
)
def test_what_dkms_says_is_the_proof(root: FakeRoot, status: str, right: bool) -> None:
    """Of a module that is there; modules of packages are not in its books."""
    module(root, OLD)
    (root.folder / "status").write_text(f"{status}\n")
    root.program("dkms", DKMS)
    change = WANTED.change((NONE,), Planned())
    assert change
    assert root.words(change.done).ok == right


PACKAGE = f"{READY.prebuilt}-{OLD}"


@pytest.mark.parametrize(
    ("candidate", "installs", "done"),
    [("  Candidate: 6.1.0-9.9+1", True, False), ("  Candidate: (none)", False, True), ("", False, True)],
)
def test_ready_modules_for_the_running_kernel(
    root: FakeRoot, candidate: str, installs: bool, done: bool
) -> None:
    """Where they are gone from the repositories, the newest kernel's have to do."""
    root.write(f"/lib/modules/{NEW}/kernel/nvidia-580srv-open/nvidia.ko", V)
    root.program("apt-cache", f"echo '{candidate}'")
    change = READY.change(asked(root), Planned())
    assert change
    output = root.words(f'apt_install() {{ echo "apt $*"; }}\n{change.script}')
    assert output.ok
    assert (output.out == f"apt {PACKAGE} -- {PACKAGE}\n") == installs
    assert root.words(change.done).ok == done


def test_a_kernel_that_came_with_its_modules_in_this_run_has_to_be_booted(root: FakeRoot) -> None:
    root.write(f"/lib/modules/{NEW}/kernel/nvidia-580srv-open/nvidia.ko", V)
    change = READY.change((NONE,), Planned())
    assert change
    output = root.words(f"apt_install() {{ return 100; }}\n{change.script}")
    assert not output.ok
    assert f"reboot needed: {PACKAGE} cannot be installed, but kernel {NEW} has the driver" in output.err


def test_a_build_that_fails_in_apt_is_quoted_too(root: FakeRoot) -> None:
    """The package's own script calls dkms, so its failure is one of apt's."""
    root.program("dpkg")
    root.program(
        "apt-get",
        f"""case $* in *" -s "* | "-s "*) exit ;; esac
mkdir -p /var/lib/dkms/nvidia/{V}/build/
echo "nv.c:3:1: error: unknown type name" >/var/lib/dkms/nvidia/{V}/build/make.log
exit 100""",
    )
    output = root.words(': >"$run/apt-is-fresh"; apt_install "" -- nvidia-kernel-open-dkms')
    assert output.exit_code == 100
    assert "nv.c:3:1: error: unknown type name" in output.out
