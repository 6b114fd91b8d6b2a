"""testinfra over our connections: the same keys, known hosts, jump hosts and sudo as everything else."""

from __future__ import annotations

from typing import Any, ClassVar

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from provision.connection import Connection

TIMEOUT = 120.0
"""Seconds that one command of a test may take."""


class Backend(BaseBackend):  # type: ignore[misc]  # testinfra has no type information
    """Runs testinfra's commands with one exec each; the connection is opened by the first one."""

    NAME: ClassVar[str] = "provision"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.login.host)
        self.connection = connection
        # What we run has a UTF-8 locale; testinfra would spend an exec on asking.
        self._encoding = "utf-8"

    def get_pytest_id(self) -> str:
        """The inventory name, without a scheme."""
        return self.connection.login.host

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:  # noqa: ARG002  # testinfra's signature
        """Run ``command``, its ``%s`` filled with ``args``, each quoted.

        :raises HostError: if the host cannot be reached or the command takes too long.
        """
        line = self.get_command(command, *args)
        output = self.connection.run(line, timeout=TIMEOUT, what="a command of a test")
        return self.result(output.exit_code, line.encode(), output.stdout, output.stderr)

    def decode(self, data: bytes) -> str:
        """Text of an output; bytes that are not UTF-8 are kept as escapes."""
        return data.decode("utf-8", "backslashreplace")


def testinfra_host(connection: Connection) -> Host:
    """testinfra's Host for an open or closed connection."""
    backend = Backend(connection)
    host = Host(backend)
    backend.set_host(host)
    return host
