"""Files and directories with their content, mode and owner."""

from __future__ import annotations

import base64
import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, Change, Missing, Planned, RenderedFile, Resource, State, unified
from provision.shell import constant

FILES = "shell/files.sh"
FILE_STATE = "shell/file_state.sh"

LARGEST = int(constant(FILE_STATE, "largest_file"))
"""Bytes of a file that are read for comparing and diffing; what we manage is far smaller."""

DANGLING = "dangling link"
"""Type of a symbolic link that points to nothing."""


@dataclass(frozen=True)
class FileState:
    """What a path is on the host, links followed.

    :ivar content: None for a directory and for a file over LARGEST.
    :ivar linked: whether it is a link to a regular file.
    """

    type: str
    mode: str
    owner: str
    group: str
    content: bytes | None = None
    linked: bool = False


def read_paths(name: str, paths: Sequence[str]) -> Probe:
    """A probe that tells type, mode, owner and content of every path, links followed."""
    return Probe(name, words("path_states", *paths), (FILE_STATE,), in_place=True)


def parse_paths(paths: Sequence[str], answer: Output) -> dict[str, FileState | Missing]:
    """Read the answer of :func:`read_paths`.

    :raises ValueError: if it is not about these paths, or a file changed between two looks at it.
    """
    letters, _, rest = answer.stdout.partition(b"\n")
    if not answer.ok or len(letters) != len(paths):
        raise ValueError(f"{len(letters)} of {len(paths)} paths are told: {answer.err[-200:]}")
    told = dict(zip(paths, letters.decode("ascii"), strict=True))
    there = [path for path, letter in told.items() if letter in "rlo"]
    *lines, data = rest.split(b"\n", len(there))
    if len(lines) != len(there):
        raise ValueError(f"{len(lines)} of {len(there)} paths are told: {answer.err[-200:]}")
    rows = dict(zip(there, (line.decode("ascii").rsplit("|", 4) for line in lines), strict=True))
    sizes = {path: int(rows[path][-1]) for path, letter in told.items() if letter in "rl"}
    contents = _contents(sizes, data)
    return {path: _path_state(told[path], rows.get(path), contents.get(path)) for path in paths}


def _contents(sizes: Mapping[str, int], data: bytes) -> dict[str, bytes | None]:
    """The contents of files of these sizes from what head prints of them; None for a file over LARGEST."""
    found: dict[str, bytes | None] = {}
    at = 0
    for path, size in sizes.items():
        head = b"%s==> %s <==\n" % (b"\n" if found else b"", path.encode("utf-8", "surrogateescape"))
        start = at + len(head)
        at = start + min(size, LARGEST)
        if data[start - len(head) : start] != head or len(data) < at:
            raise ValueError(f"{path} or one before it changed while it was read")
        found[path] = data[start:at] if size <= LARGEST else None
    if at != len(data):
        raise ValueError("a file changed while it was read")
    return found


def parse_contents(data: bytes) -> dict[str, bytes]:
    """Files by path, from what ``contents`` of the shell file prints: LARGEST bytes of each at most."""
    parts = re.split(rb"^==> (/.+) <==\n", data, flags=re.MULTILINE)
    last = len(parts) - 1
    texts = (text if at == last else text[:-1] for at, text in enumerate(parts) if at and at % 2 == 0)
    paths = (path.decode("utf-8", "surrogateescape") for path in parts[1::2])
    return dict(zip(paths, texts, strict=True))


def _path_state(letter: str, row: Sequence[str] | None, content: bytes | None) -> FileState | Missing:
    if letter == "a":
        return ABSENT
    if row is None:
        return FileState(DANGLING, "0777", "root", "root")
    type_, mode, owner, group, _ = row
    kind = "file" if letter in "rl" else type_
    return FileState(kind, mode.zfill(4), owner, group, content, linked=letter == "l")


def checksum(content: bytes) -> str:
    """SHA-256 of ``content`` in hexadecimal, as sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()


def content_of(path: str, state: FileState | Missing) -> bytes | None:
    """The content of a file that is to be edited; None where there is no file.

    :raises Refusal: if something else has its place, or it is over LARGEST.
    """
    if isinstance(state, Missing) or state.type == DANGLING:
        return None
    if state.content is None:
        size = "too large" if state.type == "file" else f"a {state.type}"
        raise Refusal(f"{path} is {size}", hint="repair it by hand or move it away")
    return state.content


def as_seen(path: str, state: FileState | Missing) -> str:
    """Sh text that succeeds if ``path`` is as it was seen: absent, or with the content that was read."""
    if isinstance(state, Missing):
        return f"[ ! -e {quote(path)} ]"
    if state.content is None:
        return f"[ -f {quote(path)} ]"
    return f"holds {quote(path)} {checksum(state.content)}"


def gone(path: str) -> str:
    """The signal of a change that takes a file away."""
    return f"gone:{path}"


def _in_the_way(path: str, state: FileState) -> Refusal:
    return Refusal(
        f"there is a {state.type} at {path}", hint=f"look what {path} is for, and move it away by hand"
    )


class OfPaths(Resource[State]):
    """What all kinds share whose state is what paths are: one question for all of them."""

    kind: ClassVar[str] = "paths"

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """The paths that count for it."""

    @abstractmethod
    def seen(self, found: Mapping[str, FileState | Missing]) -> State:
        """Its state, from what its paths are."""

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return OfPaths

    @classmethod
    def probe(cls, resources: Sequence[Self]) -> Probe:
        """Read all paths at once."""
        return read_paths("paths", _all_paths(resources))

    @classmethod
    def states(cls, resources: Sequence[Self], answer: Output) -> Mapping[str, State]:
        """State by id.

        :raises ValueError: as :func:`parse_paths`.
        """
        found = parse_paths(_all_paths(resources), answer)
        return {r.id: r.seen(found) for r in resources}


def _all_paths(resources: Iterable[OfPaths[Any]]) -> list[str]:
    return list(dict.fromkeys(path for r in resources for path in r.paths))


class PathResource(OfPaths[FileState | Missing]):
    """What all kinds share that are a path."""

    path: str
    shell: tuple[str, ...] = (FILES,)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.path}"

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def seen(self, found: Mapping[str, FileState | Missing]) -> FileState | Missing:
        return found[self.path]

    def bare(self) -> Missing:
        return ABSENT


class RegularFile(PathResource):
    """What all kinds share that are a regular file with a mode and an owner."""

    mode: str
    owner: str
    group: str

    @property
    def leaves(self) -> tuple[str, ...]:
        return (f"file:{self.path}",)

    @abstractmethod
    def fault(self, content: bytes | None) -> str:
        """What is wrong with its content on the host; empty if it is right."""

    @abstractmethod
    def write(self, state: FileState | Missing, action: str, reason: str) -> Change:
        """The change that makes it right."""

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Write the file if content, mode or owner differ.

        :raises Refusal: if something else than a file has its place.
        """
        if isinstance(state, Missing):
            return self.write(state, "create", "it does not exist")
        if state.type != "file":
            raise _in_the_way(self.path, state)
        wrong = [fault] if (fault := self.fault(state.content)) else []
        if state.mode != self.mode:
            wrong.append(f"mode is {state.mode}, wanted {self.mode}")
        if (state.owner, state.group) != (self.owner, self.group):
            wrong.append(f"owner is {state.owner}:{state.group}, wanted {self.owner}:{self.group}")
        return self.write(state, "update", "; ".join(wrong)) if wrong else None


@dataclass(frozen=True)
class File(RegularFile):
    """A regular file with exactly this content, mode (four octal digits) and owner.

    A symbolic link to a file that is right stays. What it points to may be anything and is not written, but
    for a file of the owner's of which a part is ours, which ``follows`` links. A link that points to nothing
    is refused: where it points may be a file system that is not mounted.
    ``sensitive`` content is never shown, and never readable by others while it is written.
    """

    path: str
    content: bytes
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    sensitive: bool = False
    follows: bool = False
    kind: ClassVar[str] = "file"

    @classmethod
    def edited(cls, path: str, content: bytes, state: FileState | Missing, mode: str = "0644") -> File:
        """The file with another content, and with the mode and group that somebody gave it.

        It is root's, and nobody else may write it: what root's programs do is in it.
        """
        if isinstance(state, Missing) or "UNKNOWN" in (state.owner, state.group):
            return cls(path, content, mode=mode, follows=True)
        mode = f"{int(state.mode, 8) & ~0o022:04o}"
        return cls(path, content, mode=mode, group=state.group, follows=True)

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:
        """Write the file if it differs.

        :raises Refusal: as any regular file; or if another file would be written, through a link.
        """
        change = super().change(state, planned)
        if change and isinstance(state, FileState) and state.linked and not self.follows:
            raise Refusal(
                f"{self.path} is a link to another file, and {change.reason}",
                hint=f"on the host, readlink -f {self.path} shows it: move the link away, or mend that file",
            )
        return change

    def fault(self, content: bytes | None) -> str:
        return "" if content == self.content else "its content differs"

    def write(self, state: FileState | Missing, action: str, reason: str) -> Change:
        size = f"{len(self.content)} bytes, {self.mode} {self.owner}:{self.group}"
        return Change(
            resource=self.id,
            action=action,
            summary=f"write {self.path} ({size})",
            reason=reason,
            sign="+" if action == "create" else "~",
            diff=self._diff(None if isinstance(state, Missing) else state.content),
            guard=as_seen(self.path, state),
            done=f"holds {quote(self.path)} {checksum(self.content)}"
            f" && owned {quote(self.path)} {quote(f'{self.mode} {self.owner}:{self.group}')}",
            script=f"write_file {words(self.path, self.mode, f'{self.owner}:{self.group}')} <<'END'\n"
            f"{base64.encodebytes(self.content).decode('ascii')}END\n",
            reloads_systemd=self.path.startswith("/etc/systemd/"),
        )

    def rendered(self) -> RenderedFile:
        return RenderedFile(self.path, self.content, self.mode)

    def _diff(self, old: bytes | None) -> str:
        if self.sensitive:
            return "(content is not shown)\n"
        before = (old or b"").decode("utf-8", "backslashreplace")
        return unified(before, self.content.decode("utf-8", "backslashreplace"), self.path)


@dataclass(frozen=True)
class Directory(PathResource):
    """A directory with this mode and owner; what is in it is not looked at.

    With ``keep_mode`` an existing directory keeps the mode and owner that somebody gave it.
    """

    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"
    keep_mode: bool = False
    kind: ClassVar[str] = "directory"

    def change(self, state: FileState | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Make the directory, or set its mode and owner.

        :raises Refusal: if something else has its place.
        """
        want = f"{self.mode} {self.owner}:{self.group}"
        done = f"[ -d {quote(self.path)} ]"
        if not self.keep_mode:
            done += f" && owned {quote(self.path)} {quote(want)}"
        if isinstance(state, Missing):
            action, reason = "create", "it does not exist"
        elif state.type != "directory":
            raise _in_the_way(self.path, state)
        elif self.keep_mode or f"{state.mode} {state.owner}:{state.group}" == want:
            return None
        else:
            action, reason = "update", f"it is {state.mode} {state.owner}:{state.group}"
        return Change(
            resource=self.id,
            action=action,
            summary=f"directory {self.path} ({want})",
            reason=reason,
            sign="+" if action == "create" else "~",
            done=done,
            script=f"make_directory {words(self.path, self.mode, f'{self.owner}:{self.group}')}",
        )
