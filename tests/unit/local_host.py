"""This machine as a host: a connection that runs scripts in a shell here, with no SSH between."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from provision.connection import Connection, DeadlineError
from provision.connection.login import Login
from provision.errors import UnreachableError
from provision.probe import Output


def _end(session: int) -> None:
    """Kill everything that was started in a session: timeout(1) makes groups of its own."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                os.kill(pid, signal.SIGKILL)


class LocalHost(Connection):
    """Runs what a host would run; the programs and files are those of this machine.

    :ivar scripts: what it was given to run, in order.
    :ivar dies: after how many scripts the connection is lost; never for -1.
    :ivar patience: seconds of any script, in place of those that it is given.
    """

    def __init__(self, login: Login) -> None:
        super().__init__(login)
        self.scripts: list[str] = []
        self.dies = -1
        self.patience: float | None = None

    @property
    def is_open(self) -> bool:
        return len(self.scripts) != self.dies

    def open(self) -> None:
        self.connects = 1

    def close(self) -> None:
        """There is no session."""

    def run(
        self,
        script: str,
        *,
        timeout: float,
        on_line: Callable[[bytes], None] | None = None,  # noqa: ARG002
        stdin: bytes = b"",
        what: str = "a script",
        then: Callable[[Output], str] | None = None,
    ) -> Output:
        assert then is None, "checks have no second script"
        self.open()
        if len(self.scripts) == self.dies:
            raise UnreachableError(self.login.host, f"the connection was lost in {what}")
        self.execs += 1
        self.scripts.append(script)
        process = subprocess.Popen(
            ["/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            out, err = process.communicate(stdin, timeout=self.patience or timeout)
        except subprocess.TimeoutExpired:
            _end(process.pid)
            out, err = process.communicate()
            raise DeadlineError(
                self.login.host, f"{what} did not end in time", partial=Output(124, out, err)
            ) from None
        code = process.returncode
        return Output(code if code >= 0 else 128 - code, out, err)
