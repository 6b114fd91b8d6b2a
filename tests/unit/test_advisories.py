"""Known vulnerabilities, and how their table is made from NVIDIA's bulletins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provision.gpu.advisories import DRIVER, TOOLKIT, TRITON, Component, known, newest_bulletin, warning
from provision.gpu.triton_releases import releases
from provision.roles.toolkit.role import FIRST_SAFE
from tools.refresh_advisories import UnreadableError, main, table

CSAF = Path(__file__).parent.parent / "data" / "csaf"


@pytest.mark.parametrize(
    ("component", "version", "count", "worst", "fixed"),
    [
        (TRITON, "23.01", 63, "CVE-2026-47627", "26.06"),
        (TRITON, "24.07", 57, "CVE-2026-47627", "26.06"),
        (TRITON, "25.07", 38, "CVE-2026-47627", "26.06"),
        (TRITON, "26.05", 5, "CVE-2026-47627", "26.06"),
        (TOOLKIT, "1.17.4-1", 3, "CVE-2025-23266", "1.19.1"),
        (TOOLKIT, "1.17.7-1", 3, "CVE-2025-23266", "1.19.1"),
        (TOOLKIT, "1.19.0-1", 1, "CVE-2026-24260", "1.19.1"),
        (DRIVER, "580.95.05", 13, "CVE-2026-24187", "580.159.03"),
        (DRIVER, "535.261.03-1~deb12u1", 18, "CVE-2026-24187", "535.309.01"),
    ],
)
def test_versions_with_known_vulnerabilities(
    component: Component, version: str, count: int, worst: str, fixed: str
) -> None:
    found = known(component, version)
    assert found is not None
    assert (len(found.found), found.found[0].cve, found.fixed) == (count, worst, fixed)
    assert known(component, found.fixed) is None


@pytest.mark.parametrize(
    ("component", "version"),
    [
        *((TRITON, release) for release in releases() if release >= "26.06"),
        (TOOLKIT, "1.20.0-1"),
        (DRIVER, "580.159.04"),
        (DRIVER, "580.*"),
        (DRIVER, "595.71.05"),
    ],
)
def test_versions_without(component: Component, version: str) -> None:
    assert known(component, version) is None
    assert warning(component, version) == ""


def test_a_vulnerability_of_one_release_is_of_no_other() -> None:
    cves = {
        release: {one.cve for one in found.found}
        for release in releases()
        if (found := known(TRITON, release))
    }
    assert [release for release, names in cves.items() if "CVE-2024-53880" in names] == ["24.11"]


def test_the_least_version_of_the_toolkit_is_the_first_without_any() -> None:
    found = known(TOOLKIT, "1.0")
    assert found is not None
    assert found.fixed == FIRST_SAFE


def test_the_sentence_names_the_worst_and_the_remedy() -> None:
    assert warning(TOOLKIT, "1.19.0") == (
        "nvidia-container-toolkit 1.19.0 has 1 known vulnerability, fixed in 1.19.1:"
        " CVE-2026-24260 (CVSS 8.5, NVIDIA's bulletin 5850)"
    )
    assert warning(DRIVER, "590.44.01") == (
        "nvidia-driver 590.44.01 has 2 known vulnerabilities, fixed in 590.48.01;"
        " the worst is CVE-2025-33219 (CVSS 7.8, NVIDIA's bulletin 5747)"
    )


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────


def rows(text: str) -> list[list[str]]:
    """The rows of a table without its remarks and its line of names."""
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]


def test_bulletins_become_a_table() -> None:
    text = table(CSAF)
    assert "Newest bulletin: 2031-03-04." in text
    assert rows(text) == [
        ["nvidia-container-toolkit", "CVE-2031-2", "", "1.30.2", "8.5", "9002", "2031-03-04",
         "All versions up to and including 1.30.1 (CDI mode only for versions prior to 1.29.5)"],
        ["nvidia-driver", "CVE-2031-3", "580.0", "580.200.03", "7.8", "9002", "2031-03-04",
         "All driver versions prior to 580.200.03"],
        ["tritonserver", "CVE-2030-5", "", "", "5.0", "9001", "2030-01-02", "0.0-30.02"],
        ["tritonserver", "CVE-2030-9", "", "23.11", "7.5", "9001", "2030-01-02",
         "All versions prior to 2.40"],
        ["tritonserver", "CVE-2030-1", "22.09", "30.02", "9.8", "9001", "2030-01-02", "22.09 to 30.01"],
        ["tritonserver", "CVE-2030-4", "30.01", "30.02", "0.0", "9001", "2030-01-02", "30.01"],
    ]  # fmt: skip


def test_our_own_table_is_one_that_the_program_writes() -> None:
    assert newest_bulletin() >= "2026-08-18"


def test_a_bulletin_that_cannot_be_understood_is_named(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads((CSAF / "2030/9001/9001.json").read_text())
    document["product_tree"]["branches"][0]["branches"][0]["branches"][0]["product"]["name"] = "some versions"
    folder = tmp_path / "2030" / "9001"
    folder.mkdir(parents=True)
    (folder / "9001.json").write_text(json.dumps(document))
    with pytest.raises(UnreadableError, match=r"9001\.json: .*affected are 'some versions'"):
        table(tmp_path)


def test_a_folder_without_bulletins_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("usage: python -m tools.refresh_advisories")
