"""An nvidia-smi that hangs in the kernel: said, and not joined by another with every run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.shell import assembled
from tests.unit.sandbox import SHELLS

IN_THE_KERNEL = """
import ctypes
libc = ctypes.CDLL(None)
libc.prctl(15, b"nvidia-smi", 0, 0, 0)
if libc.vfork() == 0:  # until its child ends, the parent waits in the kernel (vfork(2)), in state D
    libc.pause()
"""
AT_WORK = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'nvidia-smi', 0, 0, 0)\ntime.sleep(60)"


@contextlib.contextmanager
def process(program: str) -> Iterator[int]:
    """A process with the name nvidia-smi."""
    started = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    try:
        comm = Path(f"/proc/{started.pid}/comm")
        until = time.monotonic() + 20
        while comm.read_text().strip() != "nvidia-smi" and time.monotonic() < until:
            time.sleep(0.02)
        yield started.pid
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def smi(folder: Path, shell: str, patience: int) -> subprocess.CompletedProcess[str]:
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0\n")
    (folder / "nvidia-smi").chmod(0o755)
    text = f"{assembled('shell/nvidia_smi.sh')}\nPATH={folder}:$PATH smi_patience={patience}\nsmi -L\n"
    return subprocess.run([shell, "-c", text], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_no_other_is_started_beside_one_that_has_hung(shell: str, tmp_path: Path) -> None:
    with process(IN_THE_KERNEL) as pid:
        ran = smi(tmp_path, shell, 0)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == f"nvidia-smi (process {pid}) has hung in the kernel, so no other is started\n"
        assert smi(tmp_path, shell, 60).stdout == "GPU 0\n", "it may still answer"


@pytest.mark.parametrize("shell", SHELLS)
def test_one_that_is_at_work_hinders_nothing(shell: str, tmp_path: Path) -> None:
    with process(AT_WORK):
        assert smi(tmp_path, shell, 0).stdout == "GPU 0\n"
    assert smi(tmp_path, shell, 0).stdout == "GPU 0\n"
