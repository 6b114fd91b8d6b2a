"""Probes → outputs: all questions to a host in one script, one exec, one answer.

On the host each probe runs in a subshell of its own, with its output in files of a directory that only it and
root can read. At the end one `wc` and one `cat` send everything: lengths first, so that sections may hold any
bytes. Beyond what the probes themselves start, a host forks once for each probe and four times in all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from provision.connection import Connection, DeadlineError, UnfinishedError
from provision.errors import ProbeError
from provision.probe import Output, Probe, quote
from provision.shell import assembled

GATHER = "shell/gather.sh"

_AT = re.compile(rb"^probe (\d+)$", re.MULTILINE)


def script_of(probes: Sequence[Probe]) -> str:
    """Return the POSIX sh script that asks all ``probes``; its standard output is for :func:`parse`.

    :raises ValueError: where two probes have one name, or a script holds NUL.
    """
    names = [probe.name for probe in probes]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"several probes are called {', '.join(twice)}")
    files = dict.fromkeys(file for probe in probes for file in probe.shell)
    asked = "".join(f"ask {index} {quote(probe.script)}\n" for index, probe in enumerate(probes))
    outputs = " ".join(f"{index}.{stream}" for index in range(len(probes)) for stream in ("out", "err"))
    return f"{assembled(GATHER, *files)}begin_gathering\n{asked}send_answers {outputs}\n"


def parse(blob: bytes, probes: Sequence[Probe]) -> dict[str, Output]:
    """Return the output of each probe by name, from what the script of the same probes printed.

    :raises ValueError: where ``blob`` is not that.
    """
    lines = 2 * len(probes) + 2  # the exit codes, one line for each file, their total
    *head, data = blob.split(b"\n", lines)
    if len(head) != lines:
        raise ValueError("the answer is cut short: its list of sizes is not complete")
    codes = [int(word) for word in head[0].split()]
    sizes = [int(line.split(None, 1)[0]) for line in head[1:-1]]
    if len(codes) != len(probes) or sum(sizes) != len(data):
        raise ValueError(f"the answer holds {len(data)} bytes and should hold {sum(sizes)}")
    ends = list(itertools.accumulate(sizes, initial=0))
    sections = [data[start:end] for start, end in itertools.pairwise(ends)]
    answers = zip(probes, codes, sections[::2], sections[1::2], strict=True)
    return {probe.name: Output(code, out, err) for probe, code, out, err in answers}


def gather(connection: Connection, probes: Sequence[Probe], timeout: float = 60) -> dict[str, Output]:
    """Ask a host all ``probes`` with one exec and return their outputs by name.

    :param timeout: seconds for all of them together.
    :raises ProbeError: where a probe hangs (it is named), or the answer makes no sense.
    :raises HostError: where the host cannot be reached or the script not be started.
    """
    if not probes:
        return {}
    host = connection.login.host
    try:
        output = connection.run(script_of(probes), timeout=timeout, what=f"{len(probes)} probes")
        return parse(output.stdout, probes)
    except DeadlineError as error:
        begun = _AT.findall(error.partial.stderr)
        name = probes[int(begun[-1])].name if begun else "(unknown: the host's shell does not answer)"
        hint = "run it by hand on the host; a GPU driver that hangs shows up like this (see dmesg)"
        raise ProbeError(host, f"probe {name} did not end within {timeout:g} s", hint=hint) from None
    except UnfinishedError as error:
        raise ProbeError(host, error.message, hint=error.hint) from None
    except ValueError as error:
        said = output.err.strip().rpartition("\n")[2]
        message = f"the answer to {len(probes)} probes cannot be read (exit code {output.exit_code}): {error}"
        raise ProbeError(host, f"{message}: {said}", hint="is there space in /run and /tmp?") from None
