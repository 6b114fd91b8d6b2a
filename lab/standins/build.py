"""Builds the stand-ins' Debian packages from the sources next to this file."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.execute import execute
from lab.standins.cached import made_once
from lab.standins.packages import DRIVERS, MODULES, TOOLKITS, Entry, Package, all_packages
from provision.errors import ProvisionError

SOURCES = Path(__file__).parent

BUILD_DEPENDENCIES = {
    "gcc": "gcc",
    "g++": "g++",
    "dpkg-deb": "dpkg-dev",
    "/usr/include/nlohmann/json.hpp": "nlohmann-json3-dev",
    "/usr/include/linux/bpf.h": "linux-libc-dev",
}
"""Program or file → the Debian package that has it."""

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-format-truncation")
C = ("gcc", "-std=gnu11", "-O2", *WARNINGS)
CXX = ("g++", "-std=c++17", "-O1", *WARNINGS)
CXX_LINK = ("g++", "-static-libstdc++", "-static-libgcc", "-s")


def build_packages(cache: Path) -> list[Path]:
    """Build all stand-in packages, or find them in the cache when their sources are unchanged.

    :param cache: packages land in ``cache/standins/DIGEST/``.
    :returns: the .deb files, sorted.
    :raises ProvisionError: a compiler failed, or build dependencies are missing and cannot be installed.
    """
    return sorted(made_once(cache / "standins", digest(), _build).glob("*.deb"))


def _build(work: Path) -> Path:
    install_build_dependencies()
    compile_all(work / "built")
    packages = work / "packages"
    packages.mkdir()
    for package in all_packages():
        build_package(package, work, packages)
    return packages


def digest() -> str:
    """A name for the present state of the sources."""
    total = hashlib.sha256(platform.release().encode())
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        if {"__pycache__", "captured"} & set(path.parts) or path.suffix == ".md":
            continue
        total.update(str(path.relative_to(SOURCES)).encode() + b"\0")
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def install_build_dependencies() -> None:
    """Install compilers and headers with the machine's own apt sources, when any is missing."""
    missing = [
        package
        for wanted, package in BUILD_DEPENDENCIES.items()
        if not (Path(wanted).exists() if wanted.startswith("/") else shutil.which(wanted))
    ]
    if not missing:
        return
    if os.geteuid() != 0:
        raise ProvisionError(
            f"the stand-ins cannot be built: {', '.join(missing)} missing",
            hint=f"apt-get install {' '.join(missing)}",
        )
    execute("apt-get", "update", "-qq")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    execute("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)


# ---- compiling


def compile_all(built: Path) -> None:
    """Compile every program and library of every version, as many at a time as there are processors."""
    built.mkdir()
    (built / "fields.h").write_text(fields_header(), encoding="utf-8")
    settings = (SOURCES / "files" / "config.toml").read_text(encoding="utf-8")
    (built / "default_settings.h").write_text(
        f'const char *const kDefaultSettings = R"TOML({settings})TOML";\n', encoding="utf-8"
    )
    commands = [command for version in DRIVERS for command in driver_commands(built, version)]
    commands += list(toolkit_objects(built))
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(lambda command: execute(*command), commands))
    shared = sorted(str(path) for path in built.glob("*.o") if not path.name.startswith("main-"))
    for version in TOOLKITS:
        upstream = version.rpartition("-")[0]
        folder = built / f"toolkit-{upstream}"
        folder.mkdir()
        execute(*CXX_LINK, "-o", str(folder / "toolkit"), str(built / f"main-{upstream}.o"), *shared)


def fields_header() -> str:
    """``fields.tsv`` as a C table."""
    lines = (SOURCES / "driver" / "fields.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    body = "".join("    {" + ", ".join(f'"{cell}"' for cell in (*row, "", "")[:4]) + "},\n" for row in rows)
    return (
        "struct field { const char *name, *aliases, *unit, *value; };\n"
        f"static const struct field fields[] = {{\n{body}}};\n"
    )


def driver_commands(built: Path, version: str) -> Iterator[tuple[str, ...]]:
    """One compiler call for each product of a driver version."""
    upstream = version.rpartition("-")[0]
    out = built / f"driver-{upstream}"
    for flavour in ("open", "proprietary"):
        (out / flavour).mkdir(parents=True)
    defines = (
        f'-DDRIVER_VERSION="{upstream}"',
        f'-DNVML_VERSION="{upstream.rpartition(".")[0]}"',
        f"-DCUDA_VERSION={DRIVERS[version]}",
        f"-I{built}",
    )
    source = SOURCES / "driver"
    shared = ("-fPIC", "-shared", "-fvisibility=hidden", "-s")
    yield (
        *C,
        *defines,
        *shared,
        "-Wl,-soname,libnvidia-ml.so.1",
        "-o",
        f"{out}/libnvidia-ml.so",
        f"{source}/nvml.c",
    )
    yield (*C, *defines, *shared, "-Wl,-soname,libcuda.so.1", "-o", f"{out}/libcuda.so", f"{source}/cuda.c")
    for name in ("nvidia-smi", "nvidia-modprobe", "nvidia-persistenced"):
        yield (*C, *defines, "-s", "-o", f"{out}/{name}", f"{source}/{name.replace('-', '_')}.c")
    yield (*CXX, *defines, *CXX_LINK[1:], "-o", f"{out}/module", f"{source}/module.cpp")
    for flavour, license_text in (("open", "Dual MIT/GPL"), ("proprietary", "NVIDIA")):
        for module in MODULES:
            depends = () if module == "nvidia" else ('-DMODULE_DEPENDS="nvidia"',)
            naming = (f'-DMODULE_LICENSE="{license_text}"', f'-DMODULE_NAME="{module.replace("-", "_")}"')
            target = f"{out}/{flavour}/{module}.ko"
            yield (*C, *defines, *naming, *depends, "-c", "-o", target, f"{source}/nvidia_ko.c")


def toolkit_objects(built: Path) -> Iterator[tuple[str, ...]]:
    """One compiler call for each source of the toolkit; only ``main.cpp`` knows its version."""
    for source in sorted((SOURCES / "toolkit").glob("*.cpp")):
        if source.stem != "main":
            yield (*CXX, f"-I{built}", "-c", "-o", f"{built}/{source.stem}.o", str(source))
            continue
        for version in TOOLKITS:
            upstream = version.rpartition("-")[0]
            define = f'-DTOOLKIT_VERSION="{upstream}"'
            yield (*CXX, define, f"-I{built}", "-c", "-o", f"{built}/main-{upstream}.o", str(source))


# ---- packing


def build_package(package: Package, work: Path, target: Path) -> None:
    """Lay a package's files out and pack them."""
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    root.chmod(0o755)
    for path, entry in package.files.items():
        place(entry, root / path.lstrip("/"), work)
    (control / "control").write_text(control_text(package), encoding="utf-8")
    if package.conffiles:
        (control / "conffiles").write_text("".join(f"{path}\n" for path in package.conffiles))
    if any(control.parent.glob("usr/lib/*/*.so.*")):
        # As dh_makeshlibs does for every library: without it the new library is in no cache.
        (control / "triggers").write_text("activate-noawait ldconfig\n", encoding="utf-8")
    for script, source in package.scripts.items():
        text = (SOURCES / "debian" / source).read_text(encoding="utf-8")
        text = text.replace("@UPSTREAM@", package.upstream).replace("@KERNEL@", package.kernel)
        (control / script).write_text(text, encoding="utf-8")
        (control / script).chmod(0o755)
    execute("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(root), str(target))


def place(entry: Entry, path: Path, work: Path) -> None:
    """Put one file where the package has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, _, rest = entry.source.partition(":")
    if kind == "link":
        path.symlink_to(rest)
        return
    if kind == "text":
        path.write_text(rest, encoding="utf-8")
    else:
        origin = work if entry.source.startswith("built/") else SOURCES
        shutil.copyfile(origin / entry.source, path)
    if entry.upstream:
        path.write_text(
            path.read_text(encoding="utf-8").replace("@UPSTREAM@", entry.upstream), encoding="utf-8"
        )
    path.chmod(entry.mode)


def control_text(package: Package) -> str:
    """The control file; the description says first that it is a stand-in."""
    relations = {
        "Depends": package.depends,
        "Conflicts": package.conflicts,
        "Provides": package.provides,
    }
    lines = [
        f"Package: {package.name}",
        f"Version: {package.version}",
        "Architecture: amd64",
        "Multi-Arch: same"
        if package.name.startswith("lib") and package.name.endswith("1")
        else "Multi-Arch: foreign",
        "Section: misc",
        "Priority: optional",
        "Maintainer: provision lab <lab@localhost>",
    ]
    lines += [f"{name}: {', '.join(values)}" for name, values in relations.items() if values]
    lines += [
        f"Description: stand-in for {package.summary}",
        " Takes the place of NVIDIA's package on lab hosts without a GPU. It holds nothing of NVIDIA's.",
    ]
    return "\n".join(lines) + "\n"
