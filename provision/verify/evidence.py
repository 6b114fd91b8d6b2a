"""What is known of a host when its tests run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from provision.connection import Connection
from provision.errors import HostError
from provision.facts import Facts
from provision.probe import Output, Probe
from provision.role import Role
from provision.run.host import Target


@dataclass(frozen=True)
class Evidence:
    """The answers of one host to all probes that were asked of it."""

    facts: Facts
    answers: Mapping[str, Output]

    def __getitem__(self, probe: str) -> Output:
        """The answer to the probe of this name.

        :raises LookupError: if no module asked it.
        """
        if probe not in self.answers:
            raise LookupError(
                f"no probe is called {probe!r}; probes(settings) of the test module must return it"
            )
        return self.answers[probe]


@dataclass(frozen=True)
class Answered:
    """What asking one host came to: evidence, or the error that prevented it.

    :ivar connection: over which it was asked, for further questions; None without one.
    :ivar seconds: from connecting to the last answer.
    """

    evidence: Evidence | None = None
    error: HostError | None = None
    connection: Connection | None = None
    seconds: float = 0.0


Ask = Callable[[Mapping[str, Sequence[Probe]], frozenset[str]], Mapping[str, Answered]]
"""Asks hosts, by their inventory names, their probes. Those in the set keep their connections open."""


@dataclass(frozen=True)
class Subject:
    """What one test is about: a host, one of its roles, one instance of that.

    :ivar role: None for a test that is for every host.
    :ivar instance: name of the instance, for a test that is repeated for each.
    """

    target: Target
    role: Role | None = None
    instance: str | None = None

    @property
    def id(self) -> str:
        """Its name in pytest's ids, which ``-k`` looks at."""
        return f"{self.target.name}-{self.instance}" if self.instance else self.target.name
