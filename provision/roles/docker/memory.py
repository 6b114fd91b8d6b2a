"""What we remember on a host of the keys that we set in daemon.json, as a root-only file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import simplejson

from provision.errors import Refusal
from provision.resource import ABSENT, Missing
from provision.resources.file import FileState, checksum
from provision.roles.docker.merge import Setting
from provision.roles.docker.text import DAEMON_JSON, Number
from provision.shell import constant

MEMORY = constant("docker/daemon_json.sh", "docker_memory")
"""The keys that we set, and what was there before."""

PENDING = f"{MEMORY}.new"
"""The same for a daemon.json that is about to be put in place; it becomes MEMORY when that is done."""

SCHEMA = 1


@dataclass(frozen=True)
class Memory:
    """What is remembered of a host.

    :ivar settled: whether the file that says it has its final name.
    """

    settings: tuple[Setting, ...] = ()
    settled: bool = True


def as_memory(settings: Sequence[Setting], content: bytes) -> bytes:
    """The text of MEMORY for a daemon.json with ``content``."""
    rows = [
        {"path": list(s.path), "ours": s.ours} | ({} if s.before is ABSENT else {"before": s.before})
        for s in settings
    ]
    document = {"schema": SCHEMA, "daemon.json": checksum(content), "settings": rows}
    return f"{simplejson.dumps(document, indent=1)}\n".encode()


def recall(content: bytes | None, memory: FileState | Missing, pending: FileState | Missing) -> Memory:
    """What was set, from the content of daemon.json and the files as they are.

    A run that ended after it wrote daemon.json and before the memory had its name left the new memory as
    PENDING, which counts only if it is about the very file that is there.

    :raises Refusal: if MEMORY is not as we write it.
    """
    if content is not None and pending is not ABSENT:
        about, settings = _read(pending, PENDING)
        if about == checksum(content):
            return Memory(settings, settled=False)
    return Memory(() if isinstance(memory, Missing) else _read(memory, MEMORY)[1])


def _read(state: FileState | Missing, path: str) -> tuple[str, tuple[Setting, ...]]:
    try:
        content = state.content if isinstance(state, FileState) else None
        document: Any = simplejson.loads((content or b"").decode(), parse_int=Number, parse_float=Number)
        if document["schema"] != Number(str(SCHEMA)):
            raise ValueError(f"schema {document['schema']!r}")
        rows = document["settings"]
        return document["daemon.json"], tuple(
            Setting(tuple(row["path"]), row["ours"], row.get("before", ABSENT)) for row in rows
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Refusal(
            f"{path} is not as it was written: {error}",
            hint=f"on the host: mv {path} {path}.damaged; the keys of {DAEMON_JSON} that were set earlier"
            " then count as your own",
        ) from error
