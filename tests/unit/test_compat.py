"""``inv compat``: the table, a verdict, and what cannot be read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provision.cli.compat import answer, document, driver_of, gpu_of, table, tag_of
from provision.errors import UsageError
from provision.gpu.models import find
from provision.gpu.triton_releases import releases

ROOT = Path(__file__).resolve().parents[2]


def inv(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "tasks.py"), "compat", *arguments]
    return subprocess.run(argv, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("driver", "gpu"), [("", ""), ("535", "t4"), ("545", "rtx 4090"), ("580", ""), ("", "v100")]
)
def test_the_table_fits_80_columns(driver: str, gpu: str) -> None:
    lines = table(driver_of(driver), gpu_of(gpu)).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:47]] == list(releases())[::-1]


def test_a_row_of_the_table() -> None:
    rows = {line.split()[0]: line for line in table(None, None).splitlines() if line[:2].isdigit()}
    assert re.split(r"  +", rows["26.07"]) == [
        "26.07",
        "2.71.0",
        "13.3 (610)",
        "13.1 (590)",
        "13.3 (610)",
        "0",
    ]
    assert re.split(r"  +", rows["25.07"])[2:] == ["12.9? (575)", "12.9 (575)", "12.9 (575)", "38, worst 9.8"]
    assert re.split(r"  +", rows["23.10"])[2:5] == ["12.2 (535)", "12~", "-"]


def test_a_row_with_verdicts() -> None:
    text = table(driver_of("535"), find("rtx 4090"))
    row = next(line for line in text.splitlines() if line.startswith("25.10"))
    assert re.split(r"  +", row) == ["25.10", "13.0 fail", "12.9 minor-version", "13.0 fail", "31"]


def test_the_verdict_on_an_image_as_text() -> None:
    found = answer(tag_of("24.07-trtllm-python-py3"), driver_of("535.261.03"), gpu_of("NVIDIA L40S"))
    text = " ".join(found.text().split())
    assert text.startswith("24.07-trtllm-python-py3: minor-version driver 535.261.03 runs CUDA 12.4 of")
    assert "hint: driver.branch: 580 has all of it" in text
    assert "server 2.48.0, CUDA 12.4 (read: docs/introduction/compatibility.md" in text
    assert "release 24.07 has 57 known vulnerabilities, fixed in 26.06" in text
    assert "driver 535.261.03 has 18 known vulnerabilities, fixed in 535.309.01" in text
    assert "driver branch 535 gets no fixes any more" in text
    assert max(map(len, found.text().splitlines())) <= 80


def test_documents() -> None:
    whole = document(driver_of("535"), None)
    assert (whole["schema"], len(whole["releases"])) == (1, len(releases()))
    row = whole["releases"][-4]
    assert row["release"] == "26.07"
    assert row["cuda"]["trtllm-python-py3"]["certainty"] == "read"
    assert row["cuda"]["trtllm-python-py3"]["verdict"]["kind"] == "unknown"
    one = answer(tag_of("26.12-py3"), driver_of("580"), None).document()
    assert (one["server"], one["cuda"], one["verdict"]["kind"]) == (None, None, "unknown")
    assert one["driver_gets_fixes"] is True
    foo = answer(tag_of("24.07-foo"), driver_of("580"), None).document()
    assert (foo["variant"], foo["cuda"], foo["verdict"]["kind"]) == (None, None, "unknown")
    json.dumps([whole, one, foo])


@pytest.mark.parametrize(
    ("read", "text", "message", "hint"),
    [
        (tag_of, "24.7-py3", "'24.7-py3' is not a tag", "as 24.07-trtllm-python-py3"),
        (tag_of, "nvcr.io/nvidia/pytorch:24.07-py3", "is not a tag of NVIDIA's", "as 24.07"),
        (tag_of, "\n", "is not a tag", "as 24.07"),
        (driver_of, "58", "'58' is not a version", "as 580.159.04"),
        (driver_of, "580.159.04.1", "'580.159.04.1' is not a version", "as 580.159.04"),
        (gpu_of, "h10", "there is no GPU 'h10'", "did you mean H100?"),
        (gpu_of, "8.8", "there is no GPU '8.8'", "did you mean 8.9?"),
        (gpu_of, "RTX 6000", "there is no GPU 'RTX 6000'", "did you mean Quadro RTX 6000 or RTX 6000 Ada?"),
        (gpu_of, "mi300x", "there is no GPU 'mi300x'", "a model such as H100"),
        (gpu_of, "banana", "there is no GPU 'banana'", "a model such as H100, or a compute capability: 8.9"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_usage_error(read: object, text: str, message: str, hint: str) -> None:
    assert callable(read)
    with pytest.raises(UsageError) as caught:
        read(text)
    assert message in caught.value.message
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (("--image", "24.07-py3", "--driver", "580"), 0, "24.07-py3: ok\n", ""),
        (("--image", "24.12-py3", "--gpu", "v100"), 3, "24.12-py3: fail\n", ""),
        (("--image", "24.13-py3"), 2, "", "error: '24.13-py3' is not a tag"),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, out: str, err: str) -> None:
    done = inv(*arguments)
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert done.stderr.startswith(err)
