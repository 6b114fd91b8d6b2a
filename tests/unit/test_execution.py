"""One exec read to its end, whatever the order in which things arrive."""

from __future__ import annotations

import threading
from typing import cast

import paramiko

from provision.connection.execution import Execution
from provision.connection.login import Login


class LateChannel:
    """A channel whose last output and end arrive between two looks at it."""

    closed = False
    eof_received = True

    def __init__(self) -> None:
        self.data = b""
        self.looks = 0
        self.status_event = threading.Event()
        self.status_event.set()

    def recv_ready(self) -> bool:
        self.looks += 1
        return self.looks > 1 and bool(self.data)

    def recv(self, _size: int) -> bytes:
        data, self.data = self.data, b""
        return data

    def recv_stderr_ready(self) -> bool:
        return False

    def send_ready(self) -> bool:
        return False


def test_output_that_arrives_with_the_end_is_not_lost() -> None:
    execution = Execution(Login("gpu-01", "127.0.0.1"), 5.0, "a script", None)
    channel = LateChannel()
    channel.data = execution.frame.mark + b"in\n"
    execution._converse(cast("paramiko.Channel", channel))
    assert execution.stdout.data == b"in\n"
