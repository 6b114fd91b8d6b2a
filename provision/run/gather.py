"""Probes → outputs: all questions to a host in one script, one exec, one answer.

On the host each probe prints straight to the streams of the exec. After each one comes a mark on both, a
word that no output holds because it is made at random for every script; so sections may hold any bytes, and
a host writes nothing to disk. Beyond what the probes themselves start, it forks once for each probe, and not
at all for those that run in place.

Probes that depend on the answers to others have no exec of their own: login shell and sudo cost a host as
much as a dozen probes.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import TypeVar

from provision.causes.known_messages import hint_for
from provision.connection import Connection, DeadlineError, UnfinishedError
from provision.errors import ProbeError
from provision.probe import Output, Probe, quote
from provision.shell import assembled

GATHER = "shell/gather.sh"

T = TypeVar("T")

Answers = dict[str, Output]
"""Outputs by the names of their probes."""


def new_mark() -> str:
    """A word for one script that no output holds."""
    return secrets.token_hex(12)


def script_of(probes: Sequence[Probe], mark: str) -> str:
    """Return the POSIX sh script that asks all ``probes``; what it prints is for :func:`parse`.

    :param mark: a word that no output of the probes holds.
    :raises ValueError: where two probes have one name, or a script holds NUL.
    """
    names = [probe.name for probe in probes]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"several probes are called {', '.join(twice)}")
    files = dict.fromkeys(file for probe in probes for file in probe.shell)
    asked = "".join(
        f"{'ask_in_place' if probe.in_place else 'ask'} {quote(probe.script)}\n" for probe in probes
    )
    return f"{assembled(GATHER, *files)}gather_mark={quote(mark)}\n{asked}"


def parse(answer: Output, probes: Sequence[Probe], mark: str) -> Answers:
    """Return the output of each probe by name, from what the script of the same probes and mark printed.

    :raises ValueError: where ``answer`` is not that.
    """
    told, errors, rest = _sections(answer, mark)
    ended = min(len(told), len(errors))
    if ended < len(probes):
        raise ValueError(f"the answer ends in probe {probes[ended].name}")
    if ended > len(probes) or len(told) != len(errors) or rest:
        raise ValueError(f"the answer goes on after its {len(probes)} probes")
    return answered(answer, probes, mark)


def answered(answer: Output, probes: Sequence[Probe], mark: str) -> Answers:
    """Return the output of each probe that had ended, by name, where the script may have been cut."""
    told, errors, _ = _sections(answer, mark)
    # The last one may have ended on one stream only.
    return {
        probe.name: Output(code, out, err)
        for probe, (out, code), err in zip(probes, told, errors, strict=False)
    }


def _sections(answer: Output, mark: str) -> tuple[list[tuple[bytes, int]], list[bytes], bytes]:
    """Standard output and exit code of each section, its standard error, and what follows the last one."""
    *told, rest = re.split(rb"%s (\d+)\n" % re.escape(mark.encode()), answer.stdout)
    *errors, _ = answer.stderr.split(f"{mark}\n".encode())
    return [(out, int(code)) for out, code in zip(told[::2], told[1::2], strict=True)], errors, rest


def gather(connection: Connection, probes: Sequence[Probe], timeout: float = 60) -> Answers:
    """Ask a host all ``probes`` with one exec and return their outputs by name.

    :param timeout: seconds for all of them together.
    :raises ProbeError: where a probe hangs (it is named), or the answer makes no sense.
    :raises HostError: where the host cannot be reached or the script not be started.
    """
    if not probes:
        return {}
    gathering = _Gathering(connection, probes, timeout)
    return gathering.read(gathering.run())


def gather_both(
    connection: Connection,
    probes: Sequence[Probe],
    then: Callable[[Answers], tuple[T, Sequence[Probe]]],
    timeout: float = 60,
) -> tuple[T, Answers]:
    """Ask a host all ``probes``, and with the same exec those that depend on their outputs.

    :param then: makes the second probes of the outputs of the first, and what else is to be returned.
    :param timeout: seconds for all of them together.
    :raises HostError: as :func:`gather`; and what ``then`` raises.
    """
    gathering = _Gathering(connection, probes, timeout)
    made: list[T] = []

    def second(output: Output) -> str:
        value, gathering.probes = then(gathering.read(output))
        made.append(value)
        return gathering.script()

    output = gathering.run(second)
    answers = gathering.read(output)
    if not made:
        raise gathering.unreadable(output, "it ends after the last of them")
    return made[0], answers


class _Gathering:
    """One exec, and the probes that the host is answering."""

    def __init__(self, connection: Connection, probes: Sequence[Probe], timeout: float) -> None:
        self.connection, self.probes, self.timeout = connection, probes, timeout
        self.mark = new_mark()

    def script(self) -> str:
        return script_of(self.probes, self.mark)

    def run(self, then: Callable[[Output], str] | None = None) -> Output:
        what = f"{len(self.probes)} probes"
        try:
            return self.connection.run(self.script(), timeout=self.timeout, what=what, then=then)
        except UnfinishedError as error:
            raise self.unfinished(error) from None

    def read(self, output: Output) -> Answers:
        try:
            return parse(output, self.probes, self.mark)
        except ValueError as error:
            raise self.unreadable(output, str(error)) from None

    def unreadable(self, output: Output, why: str) -> ProbeError:
        said = output.err.strip().rpartition("\n")[2]
        message = f"the answer to {len(self.probes)} probes cannot be read (exit code {output.exit_code})"
        return ProbeError(self.connection.login.host, f"{message}: {why}: {said}", hint=hint_for(said))

    def unfinished(self, error: UnfinishedError) -> ProbeError:
        """The probe that was running; after the last one, that one; the error itself if there was none."""
        host, ended = self.connection.login.host, error.partial.stderr.count(self.mark.encode())
        if not self.probes:
            return ProbeError(host, error.message, hint=error.hint)
        name = self.probes[min(ended, len(self.probes) - 1)].name
        if isinstance(error, DeadlineError):
            hint = (
                "look on the host what it waits for, as a GPU driver or a file system that hangs (dmesg);"
                " or which program prints without end (top)"
            )
            return ProbeError(host, f"probe {name} did not end within {self.timeout:g} s", hint=hint)
        return ProbeError(host, f"{error.message}, in probe {name}", hint=error.hint)
