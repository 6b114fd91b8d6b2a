"""The stand-in packages as data: names, relations, and the fields that nvidia-smi answers."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

import pytest

from lab.standins.build import SOURCES, control_text, digest, fields_header
from lab.standins.packages import DRIVERS, TOOLKITS, Package, all_packages, driver_packages

CAPTURED = SOURCES / "captured"
"""From nvidia-smi 580.159.04 on an H100: the names of --help-query-gpu, the header of a query of them all."""

PACKAGES = list(all_packages())


def fields() -> list[list[str]]:
    """Rows of fields.tsv: name, aliases, unit, value."""
    lines = (SOURCES / "driver" / "fields.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def names(relations: tuple[str, ...]) -> set[str]:
    """Package names in a relation field, alternatives included."""
    return {re.split(r"[ (]", alternative.strip())[0] for one in relations for alternative in one.split("|")}


@pytest.mark.parametrize("version", DRIVERS)
def test_driver_packages_depend_on_exactly_their_own_version(version: str) -> None:
    own = {package.name for package in driver_packages(version)} - {"nvidia-driver-pinning-580"}
    for package in driver_packages(version):
        for relation in package.depends:
            for alternative in relation.split(" | "):
                if alternative.split(" ")[0] in own:
                    assert alternative.endswith(f"(= {version})"), f"{package.name}: {relation}"


def test_every_dependency_is_a_stand_in_or_in_every_debian() -> None:
    known = {package.name for package in PACKAGES} | {"kmod", "libc6", "passwd"}
    for package in PACKAGES:
        assert names(package.depends) <= known, package.name


def test_no_two_packages_share_a_file_unless_they_exclude_each_other() -> None:
    owners: dict[str, list[Package]] = {}
    for package in PACKAGES:
        for path in package.files:
            owners.setdefault(path, []).append(package)
    for path, packages in owners.items():
        for one, other in itertools.combinations(packages, 2):
            assert one.name == other.name or other.name in one.conflicts or one.name in other.conflicts, path


def test_every_source_is_there() -> None:
    for package in PACKAGES:
        for entry in package.files.values():
            if entry.source.partition(":")[0] not in {"link", "text"} and not entry.source.startswith(
                "built/"
            ):
                assert (SOURCES / entry.source).is_file(), entry.source
        for script in package.scripts.values():
            assert (SOURCES / "debian" / script).is_file(), script


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: f"{package.name}-{package.version}")
def test_every_package_says_that_it_is_a_stand_in(package: Package) -> None:
    text = control_text(package)
    assert "Description: stand-in for " in text
    assert f"Package: {package.name}\nVersion: {package.version}\n" in text


def test_the_four_toolkit_packages_exist_in_every_version() -> None:
    for version in TOOLKITS:
        found = {package.name for package in PACKAGES if package.version == version}
        assert found == {
            "nvidia-container-toolkit",
            "nvidia-container-toolkit-base",
            "libnvidia-container-tools",
            "libnvidia-container1",
        }


def test_nvidia_smi_knows_every_field_that_the_real_one_lists() -> None:
    real = set((CAPTURED / "query_gpu_names.txt").read_text(encoding="utf-8").split())
    ours = {name for row in fields() for name in (row[0], *row[1].split(",")) if name}
    assert ours == real


def test_fields_carry_the_units_of_the_real_ones() -> None:
    with (CAPTURED / "query_gpu_header.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file, skipinitialspace=True))
    real = {name.partition(" [")[0]: name.partition(" [")[2].rstrip("]") for name in header}
    assert {row[0]: row[2] for row in fields()} == real


def test_the_header_holds_every_field_once() -> None:
    assert fields_header().count('    {"') == len(fields()) == len({row[0] for row in fields()})


def test_the_digest_follows_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a;")
    monkeypatch.setattr("lab.standins.build.SOURCES", tmp_path)
    before = digest()
    (tmp_path / "README.md").write_text("not a source")
    assert digest() == before
    (tmp_path / "a.c").write_text("int b;")
    assert digest() != before
