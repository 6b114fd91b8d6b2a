"""The command line as an operator has it, against the hosts of the test lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.layout import TESTS

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "lab"
LAB = TESTS[os.environ.get("PYTEST_XDIST_WORKER") == "gw1"]
"""The lab of this process: two run tests side by side, and each has its own."""


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def host(self, name: str) -> dict[str, Any]:
        """What the document says of one host."""
        found: dict[str, Any] = self.document["hosts"][name]
        return found

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def start(*arguments: str, inventory: Path = INVENTORY) -> subprocess.Popen[str]:
    """Start ``inv ARGUMENTS``; the caller waits for it or kills it."""
    return subprocess.Popen(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=ROOT,
        env={**os.environ, "PROVISION_LAB": LAB, "PROVISION_INVENTORY": str(inventory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def inv(*arguments: str, inventory: Path = INVENTORY, timeout: float = 600) -> Answer:
    """Run ``inv ARGUMENTS`` to its end."""
    process = start(*arguments, inventory=inventory)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"inv {' '.join(arguments)} took over {timeout} s\n{out}\n{err}") from None
    return Answer(process.returncode, out, err)


def lab_inventory(lab: str = LAB) -> dict[str, Any]:
    """The dynamic inventory of a lab as a document, to be changed for a test."""
    listed = subprocess.run(
        [INVENTORY / "hosts.py", "--list"],
        env={**os.environ, "PROVISION_LAB": lab},
        check=True,
        capture_output=True,
    )
    found: dict[str, Any] = json.loads(listed.stdout)
    return found


def write_inventory(folder: Path, document: dict[str, Any]) -> Path:
    """An executable inventory source that prints ``document``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.json.txt").write_text(json.dumps(document))
    source = folder / "hosts"
    source.write_text(f"#!/bin/sh\ncat '{folder}/hosts.json.txt'\n")
    source.chmod(0o755)
    return source
