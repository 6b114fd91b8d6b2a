"""Ctrl-C while modules are loaded: exit code 130 and no traceback, however the program is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provision import interrupts

ROOT = Path(__file__).resolve().parents[2]

STARTS = {
    "tasks.py": [str(ROOT / "tasks.py")],
    "the package": ["-m", "provision"],
    "the installed command": ["-c", "from provision.__main__ import main; main()"],
}


@pytest.mark.parametrize("loaded", ["invoke.exceptions", "rich.console", "provision.cli.program"])
@pytest.mark.parametrize("start", STARTS)
def test_an_interrupt_while_modules_are_loaded(start: str, loaded: str) -> None:
    argv = [sys.executable, "-X", "importtime", *STARTS[start], "inventory", "--inventory", "a,"]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        assert any(line.rpartition("|")[2].strip() == loaded for line in program.stderr)
        program.send_signal(signal.SIGINT)
        left = [line for line in program.stderr if not line.startswith("import time:")]
    assert (program.returncode, left) in ((130, []), (130, ["interrupted\n"]))


def test_tasks_are_told_of_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        interrupts.end_quietly()
        with pytest.raises(KeyboardInterrupt), interrupts.raised():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is interrupts._end, "until the program has ended"
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.end_quietly()
        with interrupts.raised():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as in the background"
    finally:
        signal.signal(signal.SIGINT, before)
