"""Bad input at the command line: one line that says what, where and what to do; exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TRITON = """
gpu-nodes:
  hosts:
    gpu-01:
  vars:
    triton:
      instances:
        main:
          image: registry.example.com/tritonserver:24.07-py3
"""

CASES: dict[str, tuple[str, list[str], str]] = {
    "yaml syntax": ("all:\n  hosts: [a\n", ["--hosts", "all"], "hosts.yml:"),
    "duplicate key": ("all:\n  hosts:\n    a:\n    a:\n", ["--hosts", "all"], "hosts.yml:4: "),
    "unknown setting": (
        TRITON.replace("image:", "gpu: all\n          image:"),
        ["--hosts", "all"],
        "hosts.yml:9: ",
    ),
    "wrong type": (
        TRITON + "          http_port: eight\n",
        ["--hosts", "all"],
        "hosts.yml:10: ",
    ),
    "no tag": (TRITON.replace(":24.07-py3", ""), ["--hosts", "all"], "hosts.yml:9: "),
    "one port twice": (
        TRITON + "        other:\n          image: registry.example.com/tritonserver:24.07-py3\n",
        ["--hosts", "all"],
        "port 8000 is both main.http_port and other.http_port",
    ),
    "impossible range": ("all:\n  hosts:\n    gpu[9:1]:\n", ["--hosts", "all"], "hosts.yml:3: "),
    "unknown pattern": (TRITON, ["--hosts", "gpu-nodse"], "gpu-nodse"),
    "cyclic groups": (
        "a:\n  children:\n    b:\nb:\n  children:\n    a:\n",
        ["--hosts", "all"],
        "hosts.yml:",
    ),
    "empty inventory": ("", ["--hosts", "gpu-nodes"], "hosts.yml: the inventory is empty"),
    "no hosts": (TRITON, [], "no hosts are named"),
    "unknown role": (TRITON, ["--hosts", "all", "--roles", "tritn"], "tritn"),
    "unknown host key": (
        TRITON.replace("gpu-01:", "gpu-01: {ansible_ssh_common_args: -o UserKnownHostsFile=/nonexistent}"),
        ["--hosts", "all"],
        "hosts.yml:4: the SSH host key of gpu-01 is not known",
    ),
    "no settings": ("all:\n  hosts:\n    a:\n", ["--hosts", "all"], "hosts.yml:3: "),
    "bad serial": (TRITON, ["--hosts", "all", "--serial", "half"], "--serial half"),
    "no saved plan": (TRITON, ["--hosts", "all", "--plan", "/nonexistent/plan"], "/nonexistent/plan"),
}


def run(folder: Path, text: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """``inv provision`` on an inventory that holds ``text``."""
    source = folder / "hosts.yml"
    source.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "invoke", "provision", "--inventory", str(source), *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_with_a_hint(tmp_path: Path, name: str) -> None:
    text, arguments, expected = CASES[name]
    done = run(tmp_path, text, arguments)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert "did you mean" in lines[0] or lines[1].startswith("hint: ")
    assert len(lines) <= 2, lines


def test_a_template_that_lacks_a_variable_is_named(tmp_path: Path) -> None:
    from provision import render
    from provision.errors import RenderError

    with pytest.raises(RenderError, match=r"templates/triton-canary\.pbtxt\.j2:1: 'name' is undefined"):
        render.render("triton-canary.pbtxt.j2")
