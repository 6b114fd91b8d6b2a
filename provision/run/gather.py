"""Probes → outputs: all questions to a host in one script, one exec, one answer.

On the host each probe prints straight to the streams of the exec. After each one comes a mark on both, a
word that no output holds because it is made at random for every script; so sections may hold any bytes, and
a host writes nothing to disk. Beyond what the probes themselves start, it forks once for each probe, and not
at all for those that run in place.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from provision.connection import Connection, DeadlineError, UnfinishedError
from provision.errors import ProbeError
from provision.probe import Output, Probe, quote
from provision.shell import assembled

GATHER = "shell/gather.sh"


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


def parse(answer: Output, probes: Sequence[Probe], mark: str) -> dict[str, Output]:
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


def answered(answer: Output, probes: Sequence[Probe], mark: str) -> dict[str, Output]:
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


def gather(connection: Connection, probes: Sequence[Probe], timeout: float = 60) -> dict[str, Output]:
    """Ask a host all ``probes`` with one exec and return their outputs by name.

    :param timeout: seconds for all of them together.
    :raises ProbeError: where a probe hangs (it is named), or the answer makes no sense.
    :raises HostError: where the host cannot be reached or the script not be started.
    """
    if not probes:
        return {}
    host, mark = connection.login.host, new_mark()
    try:
        output = connection.run(script_of(probes, mark), timeout=timeout, what=f"{len(probes)} probes")
        return parse(output, probes, mark)
    except UnfinishedError as error:
        name = probes[min(error.partial.stderr.count(mark.encode()), len(probes) - 1)].name
        if isinstance(error, DeadlineError):
            hint = "run it by hand on the host; a GPU driver that hangs shows up like this (see dmesg)"
            raise ProbeError(host, f"probe {name} did not end within {timeout:g} s", hint=hint) from None
        raise ProbeError(host, f"{error.message}, in probe {name}", hint=error.hint) from None
    except ValueError as error:
        said = output.err.strip().rpartition("\n")[2]
        message = f"the answer to {len(probes)} probes cannot be read (exit code {output.exit_code}): {error}"
        raise ProbeError(host, f"{message}: {said}") from None
