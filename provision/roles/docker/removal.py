"""daemon.json as its owner has it: without the keys that we set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from provision.probe import Output, Probe, quote
from provision.resource import ABSENT, Change, Planned, unified
from provision.resources.file import File, as_seen, content_of
from provision.roles.docker.daemon_json import DaemonJson, DaemonJsonState, fed, in_turn
from provision.roles.docker.memory import MEMORY, PENDING, recall
from provision.roles.docker.merge import differences, without
from provision.roles.docker.text import DAEMON_JSON, as_text, parse


@dataclass(frozen=True)
class OwnersDaemonJson(DaemonJson):
    """daemon.json without our keys: each has what its owner had, and a file with nothing in it goes."""

    declared: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kind: ClassVar[str] = "owners-daemon-json"
    shell = ("docker/remove.sh",)

    @property
    def leaves(self) -> tuple[str, ...]:
        return ()

    def change(self, state: DaemonJsonState, planned: Planned) -> Change | None:
        """Take our keys out, as far as their owner has not changed them since.

        :raises Refusal: if the file cannot be read as one JSON object.
        """
        if state.memory is ABSENT and state.pending is ABSENT:
            return None
        there = content_of(DAEMON_JSON, state.file)
        memory = recall(there, state.memory, state.pending)
        existing = {} if there is None else parse(there)
        owners = without(existing, memory.settings)
        changed, gone = differences(existing, owners)
        forgotten = f"[ ! -e {quote(MEMORY)} ] && [ ! -e {quote(PENDING)} ]"
        if not changed and not gone:
            return Change(
                resource=self.id,
                action="forget",
                summary=f"forget which keys of {DAEMON_JSON} were ours",
                reason="the role is removed",
                sign="-",
                done=forgotten,
                script="forget_daemon_json",
            )
        content = as_text(owners, there or b"")
        write = File.edited(DAEMON_JSON, content, state.file).change(state.file, planned)
        assert write is not None
        verbs = [f"remove {', '.join(gone)}"] * bool(gone) + [f"put back {', '.join(changed)}"] * bool(
            changed
        )
        put = [fed("validate_daemon_json", content), write.script.strip()]
        return replace(
            write,
            resource=self.id,
            action="remove",
            summary=f"{' and '.join(verbs)} in {DAEMON_JSON}"
            + ("" if owners else ", which has no others and goes"),
            diff=write.diff
            if owners
            else unified((there or b"").decode("utf-8", "replace"), "", DAEMON_JSON),
            reason="the role is removed; what was there before us stays",
            sign="-",
            guard=as_seen(DAEMON_JSON, state.file),
            script=in_turn([*(put if owners else [f"remove_file {DAEMON_JSON}"]), "forget_daemon_json"]),
            done=f"{write.done if owners else f'[ ! -e {DAEMON_JSON} ]'} && {forgotten}",
            signals=(),
            impact=("dockerd runs with these keys until it starts the next time: no container stops now",),
            preview=Probe("", "made_with_runtimes", ("docker/remove.sh",)),
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Name the containers that need the runtime of the toolkit."""
        lines = [line.removeprefix("/") for line in answer.out.splitlines()]
        found = tuple(f"container {name} was made with runtime nvidia: re-create it" for name in lines)
        return replace(change, impact=(*change.impact, *found))
