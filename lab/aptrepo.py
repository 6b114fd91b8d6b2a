"""The lab's signed apt repositories: a partial mirror of Debian, and NVIDIA's stand-ins.

Each has a key of its own, so that a wrong key is a thing that can happen here too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.execute import execute
from lab.layout import STATE_ROOT
from lab.rootfs import Rootfs

FLAT = {"Origin": "NVIDIA", "Label": "NVIDIA"}
"""What the Release file of the flat repository says of itself."""


@dataclass(frozen=True)
class SigningKey:
    """A repository's key.

    :param home: the GnuPG home with the secret half.
    :param fingerprint: 40 hexadecimal digits.
    :param armoured: the public half, as a ``.asc`` file holds it.
    """

    home: Path
    fingerprint: str
    armoured: str


def signing_key(cache: Path, name: str) -> SigningKey:
    """The key called ``name`` ("debian" or "nvidia"), made at first use."""
    home = cache / "gnupg" / name
    armoured = home / "public.asc"
    if not armoured.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, mode=0o700)
        _gpg(
            home,
            "--passphrase",
            "",
            "--quick-generate-key",
            f"Lab {name} archive",
            "rsa3072",
            "sign",
            "never",
        )
        armoured.write_text(_gpg(home, "--armor", "--export"), encoding="ascii")
    listing = _gpg(home, "--with-colons", "--list-keys")
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    return SigningKey(home, fingerprint, armoured.read_text(encoding="ascii"))


def _gpg(home: Path, *arguments: str) -> str:
    try:
        return execute("gpg", "--homedir", str(home), "--batch", "--quiet", *arguments).stdout
    finally:
        # gpg leaves its agent running.
        execute("gpgconf", "--homedir", str(home), "--kill", "all", check=False)


def debian_mirror(cache: Path, systems: Sequence[Rootfs], key: SigningKey, name: str = "debian") -> Path:
    """A repository with one suite for each system, holding that system's packages in Debian's components.

    :param name: what it is called in the cache; the older ones of a name go.
    :returns: the folder to serve; the same one as long as nothing changes.
    """
    packages = {system.suite: sorted(system.debs.glob("*.deb")) for system in systems}
    place = _place(cache, name, key, packages)
    if place.exists():
        return place
    fresh = _fresh(cache, name)
    architecture = execute("dpkg", "--print-architecture").stdout.strip()
    for suite, debs in packages.items():
        folder = fresh / "dists" / suite
        components = _by_component(debs)
        for component, its in components.items():
            pool = f"pool/{suite}/{component}"
            _link(its, fresh / pool)
            _write_index(fresh, pool, folder / f"{component}/binary-{architecture}/Packages")
        fields = {
            "Origin": "Debian",
            "Label": "Debian",
            "Suite": suite,
            "Codename": suite,
            "Components": " ".join(components),
            "Architectures": architecture,
        }
        _sign(folder, fields, key)
    fresh.rename(place)
    _prune(place)
    return place


def _by_component(debs: Iterable[Path]) -> dict[str, list[Path]]:
    """Packages by the component that their section names: ``non-free/kernel``, and ``net`` in main."""
    found: dict[str, list[Path]] = {"main": []}
    for deb in debs:
        section = execute("dpkg-deb", "--field", str(deb), "Section").stdout.strip()
        found.setdefault(section.rpartition("/")[0] or "main", []).append(deb)
    return found


def flat_repository(cache: Path, name: str, debs: Iterable[Path], key: SigningKey) -> Path:
    """A repository without suites (``deb URI /``), as NVIDIA's are."""
    packages = {"": sorted(debs)}
    place = _place(cache, name, key, packages)
    if place.exists():
        return place
    fresh = _fresh(cache, name)
    _link(packages[""], fresh)
    _write_index(fresh, ".", fresh / "Packages")
    _sign(fresh, FLAT, key)
    fresh.rename(place)
    _prune(place)
    return place


def corrupted(repository: Path, deb: str, folder: Path) -> Path:
    """A copy of a flat repository in which one package (a glob) has other bytes than its index says."""
    copy = _copy(repository, folder)
    (victim,) = copy.glob(deb)
    # The copy is made of hard links: only a new file leaves the original alone.
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.unlink()
    victim.write_bytes(data)
    return copy


def signed_by(repository: Path, key: SigningKey, folder: Path) -> Path:
    """A copy of a flat repository that somebody else has signed."""
    copy = _copy(repository, folder)
    for name in ("Release", "InRelease", "Release.gpg"):
        (copy / name).unlink()
    _sign(copy, FLAT, key)
    return copy


def _copy(repository: Path, folder: Path) -> Path:
    execute("cp", "--archive", f"{repository.resolve()}/.", str(folder))
    return folder


def _place(cache: Path, name: str, key: SigningKey, packages: Mapping[str, Sequence[Path]]) -> Path:
    seen = hashlib.sha256(key.fingerprint.encode())
    for suite, debs in packages.items():
        for deb in debs:
            about = deb.stat()
            seen.update(f"{suite}/{deb.name}/{about.st_size}/{about.st_mtime_ns}\n".encode())
    return cache / "apt" / f"{name}-{seen.hexdigest()[:12]}"


def _fresh(cache: Path, name: str) -> Path:
    fresh = cache / "apt" / f".{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh


def _prune(kept: Path) -> None:
    """Remove older repositories of the same name that no lab serves."""
    name = kept.name.rpartition("-")[0]
    served = {link.readlink() for link in STATE_ROOT.glob(f"*/www/{name}")}
    for old in kept.parent.glob(f"{name}-*"):
        if old != kept and old not in served:
            shutil.rmtree(old)


def _link(debs: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        os.link(deb, folder / deb.name)


def _write_index(top: Path, pool: str, index: Path) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    text = execute("env", f"--chdir={top}", "apt-ftparchive", "packages", pool).stdout
    index.write_text(text, encoding="utf-8")


def _sign(folder: Path, fields: Mapping[str, str], key: SigningKey) -> None:
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
    release = folder / "Release"
    release.write_text(execute("apt-ftparchive", *options, "release", str(folder)).stdout, encoding="utf-8")
    _gpg(key.home, "--clearsign", "--output", str(folder / "InRelease"), str(release))
    _gpg(key.home, "--armor", "--detach-sign", "--output", str(folder / "Release.gpg"), str(release))
