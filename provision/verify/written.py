"""Files as provisioning writes them, compared with those of a host."""

from __future__ import annotations

from collections.abc import Iterable

from testinfra.host import Host

from provision.finding import fail
from provision.probe import Output, Probe
from provision.resource import AnyResource, Handler
from provision.resource import Missing as Unknown
from provision.resources.file import File, parse_paths, read_paths
from provision.shell import assembled


def _ask(host: Host, probe: Probe) -> Output:
    result = host.run(f"{assembled(*probe.shell)}{probe.script}", own=False)
    return Output(result.rc, result.stdout_bytes, result.stderr_bytes)


def require_settled(host: Host, declared: Iterable[AnyResource]) -> None:
    """See that no earlier run of a role ended before a restart or reload that it owes.

    What a run that is under way owes, it may still do.
    """
    handlers = [resource for resource in declared if isinstance(resource, Handler)]
    owed = []
    for kind in dict.fromkeys(handler.asked_by() for handler in handlers):
        members = [handler for handler in handlers if handler.asked_by() is kind]
        notes = _ask(host, kind.probe(members)).out.splitlines()
        owed += [handler.name for handler in members if handler.note in notes]
    if owed and not host.backend.memory.run:
        fail(f"an earlier run ended before it could {', '.join(owed)}", "inv provision --hosts {host}")


def differing(host: Host, declared: Iterable[AnyResource]) -> list[str]:
    """What is wrong with each file that a role writes and nobody else, in words."""
    files = {file.path: file for file in declared if isinstance(file, File)}
    probe = read_paths("files", list(files))
    found = parse_paths(list(files), _ask(host, probe))
    wrong = []
    for path, file in files.items():
        now = found[path]
        if isinstance(now, Unknown):
            wrong.append(f"{path} is not there")
        elif now.content != file.content:
            wrong.append(f"{path} is not what the settings ask for")
        elif (now.mode, now.owner, now.group) != (file.mode, file.owner, file.group):
            wrong.append(
                f"{path} is {now.mode} {now.owner}:{now.group}, wanted {file.mode} {file.owner}:{file.group}"
            )
    return wrong
