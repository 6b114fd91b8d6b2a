"""All that a host tells of itself, for people."""

from __future__ import annotations

from dataclasses import dataclass

from provision.connection import Connection
from provision.facts import PROBES, VIRTUALIZATION, Facts
from provision.hardware import HARDWARE, SOFTWARE, Hardware, Software, hardware_of, software_of
from provision.run.asker import require_root
from provision.run.gather import gather
from provision.run.host import facts_of


@dataclass(frozen=True)
class Inspection:
    """What a host is, and which parts of NVIDIA's it has."""

    facts: Facts
    hardware: Hardware
    software: Software


def ask_all(connection: Connection) -> Inspection:
    """Inspect a host, with one exec.

    :raises HostError: if it cannot be reached, is not a system that we can read, or root is not asking.
    """
    answers = gather(connection, (*PROBES, VIRTUALIZATION, HARDWARE, SOFTWARE))
    facts = facts_of(connection.login.host, answers)
    require_root(connection.login, facts.user)
    return Inspection(
        facts,
        hardware_of(answers[HARDWARE.name]),
        software_of(answers[SOFTWARE.name]),
    )
