"""Files of a host that role host shares with their owner, and those that have to go with their effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from provision.probe import quote, words
from provision.resource import Change, Missing, Planned, Resource, unified
from provision.resources.file import File, FileState, OfPaths, PathResource, as_seen, content_of, gone
from provision.resources.service import Service, UnitState

HOSTS = "/etc/hosts"
MARK = "# by provision"
"""What ends our line of the hosts file."""


@dataclass(frozen=True)
class SharedFile(File):
    """A file that a host has in any case: it stays when nobody declares it any more."""

    @property
    def leaves(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class NoFile(PathResource):
    """A file of ours is not there; its going is a signal, as what it brought about has to go, too."""

    path: str
    kind: ClassVar[str] = "no-file"

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Take it into the backups, if we wrote it."""
        if isinstance(state, Missing) or not (state.content or b"").startswith(b"# Written by provision"):
            return None
        text = (state.content or b"").decode("utf-8", "backslashreplace")
        return Change(
            resource=self.id,
            action="remove",
            summary=f"remove {self.path} (kept in the backups)",
            reason="the settings no longer name it",
            sign="-",
            diff=unified(text, "", self.path),
            guard=as_seen(self.path, state),
            script=words("remove_file", self.path),
            done=f"[ ! -e {quote(self.path)} ]",
            signals=(gone(self.path),),
            reloads_systemd=False,
        )


@dataclass(frozen=True)
class HostsEntry(OfPaths[FileState | Missing]):
    """The host finds its own name: in a line of its owner, or in one of ours.

    :ivar name: with or without a domain; empty: no line of ours is there.
    """

    name: str = ""
    kind: ClassVar[str] = "hosts-entry"
    shell = ("shell/files.sh",)

    @property
    def id(self) -> str:
        return self.kind

    @property
    def paths(self) -> tuple[str, ...]:
        return (HOSTS,)

    @property
    def leaves(self) -> tuple[str, ...]:
        return (f"keys:{HOSTS}",) if self.name else ()

    def seen(self, found: Mapping[str, FileState | Missing]) -> FileState | Missing:
        return found[HOSTS]

    def bare(self) -> FileState | Missing:
        return FileState("file", "0644", "root", "root", b"127.0.0.1\tlocalhost\n")

    @property
    def line(self) -> str:
        """Our line: 127.0.1.1, as Debian's installer has it; name and alias."""
        short = self.name.partition(".")[0]
        names = self.name if short == self.name else f"{self.name} {short}"
        return f"127.0.1.1\t{names}\t{MARK}\n"

    def wanted(self, text: str) -> str:
        """The content of the file with our line, if it needs one."""
        lines = text.splitlines(keepends=True)
        others = [line for line in lines if not line.rstrip().endswith(MARK)]
        named = [line.partition("#")[0].split()[1:] for line in others]
        if not self.name or any(self.name in names for names in named):
            return "".join(others)
        ours = next((at for at, line in enumerate(lines) if line not in others), len(others))
        if ours == len(others) and others and not others[-1].endswith("\n"):
            others[-1] += "\n"
        return "".join([*others[:ours], self.line, *others[ours:]])

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:
        """Write our line, or take it away.

        :raises Refusal: if the file cannot be edited.
        """
        there = content_of(HOSTS, state)
        text = (there or b"").decode("utf-8", "surrogateescape")
        wanted = self.wanted(text)
        if wanted == text:
            return None
        write = File.edited(HOSTS, wanted.encode("utf-8", "surrogateescape"), state).change(state, planned)
        assert write is not None
        reason = "our line in it differs" if MARK in text else f"{self.name} is not in it"
        reason = reason if self.name else "the settings no longer name it"
        verb = f"with a line for {self.name}" if self.name else "without our line"
        return replace(write, resource=self.id, summary=f"write {HOSTS} {verb}", reason=reason)


@dataclass(frozen=True)
class NoService(Service):
    """A unit that must not run, nor start at boot; one that is not there is right."""

    kind: ClassVar[str] = "no-service"
    shell = ("host/steps.sh",)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.unit}"

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return Service

    def change(self, state: UnitState | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Stop and disable it."""
        if isinstance(state, Missing) or (
            state.active in ("inactive", "failed") and state.enabled != "enabled"
        ):
            return None
        return Change(
            resource=self.id,
            action="stop",
            summary=f"stop and disable {self.unit}",
            reason="a host has one time daemon, and the settings ask for chrony",
            sign="-",
            script=words("retire_service", self.unit),
            done=f"! systemctl is-active --quiet -- {quote(self.unit)}",
            reloads_systemd=True,
        )
