"""Docker's configuration file: declared keys in it, everything else as its owner wrote it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, Change, Missing, Planned, RenderedFile, Resource, Signal, names_of
from provision.resources.file import FILE_STATE, File, FileState, checksum, content_of, parse_paths
from provision.resources.signals import DOCKER_STORE_MOVED
from provision.roles.docker.daemon_options import moves_the_store, needs_restart
from provision.roles.docker.flags import SHELL as FLAGS
from provision.roles.docker.flags import conflict
from provision.roles.docker.memory import MEMORY, PENDING, Memory, as_memory, recall
from provision.roles.docker.merge import Merged, Path, differences, merge
from provision.roles.docker.text import BOM, DAEMON_JSON, as_text, equal, parse
from provision.secrecy import masked

RESTART = Signal("docker:restart")
"""dockerd takes daemon.json over only when it starts."""

RELOAD = Signal("docker:reload")
"""dockerd takes daemon.json over when it is told to."""

LIVE_RESTORE = Signal("docker:live-restore")
"""Containers outlive dockerd with the new file."""

FILES_BELOW = "== daemon.json"
"""The line between the unit's files and our paths in the answer to the probe."""

PATHS = (DAEMON_JSON, MEMORY, PENDING)


@dataclass(frozen=True)
class DaemonJsonState:
    """daemon.json on the host, and what is remembered of it.

    :ivar unit_files: the files of docker.service, which give dockerd's flags.
    """

    file: FileState | Missing = ABSENT
    memory: FileState | Missing = ABSENT
    pending: FileState | Missing = ABSENT
    unit_files: str = ""


@dataclass(frozen=True)
class DaemonJson(Resource[DaemonJsonState]):
    """Keys that must be in daemon.json; all other keys of the file stay as they are.

    A change signals RESTART or RELOAD, whichever makes dockerd take it over, and LIVE_RESTORE if containers
    are to outlive dockerd with the new file.

    :ivar initial: objects by the way to them, set only where the file has nothing.
    """

    declared: Mapping[str, Any] = field(hash=False)
    initial: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    kind: ClassVar[str] = "daemon-json"
    shell = ("docker/daemon_json.sh",)

    @property
    def id(self) -> str:
        return f"file:{DAEMON_JSON}"

    @property
    def leaves(self) -> tuple[str, ...]:
        return (f"keys:{DAEMON_JSON}",)

    def rendered(self) -> RenderedFile:
        document = merge({}, (), self.declared, self.initial).document
        return RenderedFile(DAEMON_JSON, as_text(document), _mode_of_a_new(document))

    @classmethod
    def probe(cls, resources: Sequence[DaemonJson]) -> Probe:  # noqa: ARG003
        """Read the unit's files, then daemon.json and what is remembered of it."""
        script = f"docker_unit_files; echo {quote(FILES_BELOW)}; {words('path_states', *PATHS)}"
        return Probe("daemon-json", script, (FLAGS, FILE_STATE), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[DaemonJson], answer: Output) -> Mapping[str, DaemonJsonState]:
        """Its state.

        :raises ValueError: as :func:`parse_paths`.
        """
        units, _, files = answer.stdout.partition(f"{FILES_BELOW}\n".encode())
        found = parse_paths(PATHS, replace(answer, stdout=files))
        text = units.decode("utf-8", "backslashreplace")
        file, memory, pending = (found[path] for path in PATHS)
        return {r.id: DaemonJsonState(file, memory, pending, text) for r in resources}

    def bare(self) -> DaemonJsonState:
        return DaemonJsonState()

    def change(self, state: DaemonJsonState, planned: Planned) -> Change | None:
        """Write the merged document if it means something else than the present one.

        :raises Refusal: if the present file cannot be read as one JSON object, or dockerd would not start
            with it: a key is given as a flag, too.
        """
        there = content_of(DAEMON_JSON, state.file)
        existing = {} if there is None else parse(there)
        memory = recall(there, state.memory, state.pending)
        merged = merge(existing, memory.settings, self.declared, self.initial)
        if refusal := conflict(state.unit_files, merged.document):
            raise refusal
        if there and equal(merged.document, existing):
            return self._take_back(there, merged, state) or self._remember(there, memory, merged)
        content = as_text(merged.document, there or b"")
        new = File.edited(DAEMON_JSON, content, state.file, _mode_of_a_new(merged.document))
        write = new.change(state.file, planned)
        return write and self._with_memory(write, content, existing, merged)

    def notes(self, state: DaemonJsonState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """Name a file with secrets that everybody can read: its mode is its owner's."""
        there = content_of(DAEMON_JSON, state.file)
        if there is None or not isinstance(state.file, FileState) or not int(state.file.mode, 8) & 0o004:
            return ()
        document = merge(parse(there), (), self.declared, self.initial).document
        if _mode_of_a_new(document) == "0644":
            return ()
        return (f"{DAEMON_JSON} holds secrets, and everybody can read it: chmod 600 {DAEMON_JSON}",)

    def _with_memory(
        self, write: Change, content: bytes, existing: Mapping[str, Any], merged: Merged
    ) -> Change:
        """The change that writes the file, checked by dockerd before and remembered after it."""
        changed, gone = differences(existing, merged.document)
        verbs = [f"set {', '.join(changed)}"] * bool(changed) + [f"remove {', '.join(gone)}"] * bool(gone)
        memory = as_memory(merged.settings, content)
        signals = [RESTART if needs_restart(existing, merged.document) else RELOAD]
        if moves_the_store(existing, merged.document):
            signals.append(DOCKER_STORE_MOVED)
        if merged.document.get("live-restore") is True:
            signals.append(LIVE_RESTORE)
        steps = [
            fed("validate_daemon_json", content),
            "keep_working_daemon_json",
            fed(f"write_file {words(PENDING, '0600', 'root:root')}", memory),
            write.script.strip(),
            f"mv -f -T -- {words(PENDING, MEMORY)}",
        ]
        return replace(
            write,
            resource=self.id,
            summary=f"{' and '.join(verbs) or 'write an object'} in {DAEMON_JSON}",
            reason="other keys stay as they are" if existing else write.reason,
            script=in_turn(steps),
            done=f"{write.done} && {_remembers(memory)}",
            signals=names_of(signals),
        )

    def _take_back(self, there: bytes, merged: Merged, state: DaemonJsonState) -> Change | None:
        """The file as it is, where others than root may write it, or an engine may stumble over its mark."""
        content = there.removeprefix(BOM)
        write = File.edited(DAEMON_JSON, content, state.file).change(state.file, Planned())
        if write is None:
            return None
        text, keep = as_memory(merged.settings, content), f'touch -d "$read_at" {DAEMON_JSON}'
        steps = [fed(f"write_file {words(MEMORY, '0600', 'root:root')}", text), f"rm -f -- {PENDING}"]
        return replace(
            write,
            diff="",
            # By its time dockerd has read it: what it says is the same.
            script=in_turn([f"read_at=$(stat -c %y {DAEMON_JSON})", write.script.strip(), keep, *steps]),
            done=f"{write.done} && {_remembers(text)}",
        )

    def _remember(self, content: bytes, memory: Memory, merged: Merged) -> Change | None:
        """Where only the memory is behind: after a run that ended too early, or a change by the owner."""
        text = as_memory(merged.settings, content)
        if memory.settled and as_memory(memory.settings, content) == text:
            return None
        return Change(
            resource=self.id,
            action="remember",
            summary=f"note which keys of {DAEMON_JSON} are ours",
            reason="its owner changed one of them" if memory.settled else "an earlier run ended before it",
            script=in_turn(
                [fed(f"write_file {words(MEMORY, '0600', 'root:root')}", text), f"rm -f -- {PENDING}"]
            ),
            done=_remembers(text),
        )


def _mode_of_a_new(document: Mapping[str, Any]) -> str:
    """The mode of a daemon.json that was not there: root's alone if it holds secrets."""
    return "0644" if masked(document) == document else "0600"


def fed(command: str, content: bytes) -> str:
    """A command with ``content`` in base64 on its standard input."""
    return f"{command} <<'END'\n{base64.encodebytes(content).decode('ascii')}END"


def in_turn(steps: Sequence[str]) -> str:
    """Each step only if the one before it succeeded; a here-document's line takes the ``&&``."""
    lines = []
    for number, step in enumerate(steps):
        first, newline, rest = step.partition("\n")
        lines.append(first + (" &&" if number < len(steps) - 1 else "") + newline + rest)
    return "\n".join(lines)


def _remembers(memory: bytes) -> str:
    return f"holds {quote(MEMORY)} {checksum(memory)} && [ ! -e {quote(PENDING)} ]"
