"""Sources on a host that say the same as ours, or that bring the same packages.

Two sources of one repository with different keys stop apt for the whole host ("Conflicting values set for
option Signed-By"), and a second repository of the same packages mixes releases. They are found by what they
say, since their files have any name.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from debian.deb822 import Deb822

from provision.errors import Refusal
from provision.facts import Family
from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Resource, unified
from provision.resources.file import checksum, gone, parse_contents
from provision.shell import constant

SOURCES = "shell/sources_state.sh"

APT_SOURCES = constant(SOURCES, "apt_sources")
DNF_SOURCES = constant(SOURCES, "dnf_sources")
"""Folders with files of sources."""


@dataclass(frozen=True)
class Source:
    """One active entry of a file of sources.

    :ivar line: where it begins, counted from 1.
    :ivar suite: of a Debian repository; empty for RPM.
    """

    line: int
    uri: str
    suite: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A file of sources with its text."""

    path: str
    content: bytes

    @property
    def text(self) -> str:
        """The content as text; bytes that are not UTF-8 are kept as escapes."""
        return self.content.decode("utf-8", "backslashreplace")

    @property
    def entries(self) -> tuple[Source, ...]:
        """What is active in it."""
        if self.path.endswith(".sources"):
            return tuple(_paragraphs(self.text))
        if self.path.endswith(".repo"):
            return tuple(_sections(self.text))
        return tuple(_one_a_line(self.text))

    @property
    def stem(self) -> str:
        """The name of the file without folder and ending."""
        return self.path.rpartition("/")[2].rpartition(".")[0]


@dataclass(frozen=True)
class OtherSources(Resource[tuple[SourceFile, ...]]):
    """No other source of what a repository of ours brings.

    A file that holds nothing else is moved into the backups. One that holds other sources too, or apt's
    main file, is not touched: the plan refuses, with the line.

    :ivar name: tells it from others on the host.
    :ivar family: whose packages they are.
    :ivar uri: address of our repository.
    :ivar suite: its suite.
    :ivar architecture: what ``$(ARCH)`` in addresses stands for.
    :ivar own: the files that we write.
    :ivar parts: folders in the addresses of further repositories of the same packages.
    :ivar moved: folders in the addresses of our repository, wherever a mirror has it; they count in files
        that an earlier run wrote.
    :ivar files: names of files, without ending, that hold such repositories, whatever their address.
    """

    name: str
    family: Family
    uri: str
    suite: str
    architecture: str
    own: tuple[str, ...]
    parts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    kind: ClassVar[str] = "other-sources"
    first: ClassVar[bool] = True
    shell = ("shell/sources.sh",)

    @property
    def id(self) -> str:
        return f"other-sources:{self.name}"

    @classmethod
    def probe(cls, resources: Sequence[OtherSources]) -> Probe:
        """Print the files that name such a repository, or are named like one."""
        names = " ".join(sorted({name for r in resources for name in r.files}))
        texts = sorted({text for r in resources for text in r._texts()})
        script = words("other_sources", resources[0].family, names, *texts)
        return Probe("other-sources", script, (SOURCES,), in_place=True)

    def _texts(self) -> Iterator[str]:
        """What a file must hold to be looked at."""
        # An address can have a variable where ours has the architecture.
        yield _bare(self.uri).partition(f"/{self.architecture}")[0]
        yield from (f"/{part}" for part in (*self.parts, *self.moved))

    @classmethod
    def states(
        cls, resources: Sequence[OtherSources], answer: Output
    ) -> Mapping[str, tuple[SourceFile, ...]]:
        """The files that count for each resource; its own are not among them.

        :raises ValueError: if a file could not be read.
        """
        if not answer.ok:
            raise ValueError(answer.err.strip())
        files = [SourceFile(path, text) for path, text in sorted(parse_contents(answer.stdout).items())]
        return {r.id: tuple(file for file in files if file.path not in r.own) for r in resources}

    def bare(self) -> tuple[SourceFile, ...]:
        return ()

    def change(self, state: tuple[SourceFile, ...], planned: Planned) -> Change | None:
        """Move away the files that hold nothing else and that no earlier change moves away.

        :raises Refusal: if a source stands among others.
        """
        left = [file for file in state if not planned.positions((gone(file.path),))]
        files = [file for file in left if self._may_go(file)]
        if not files:
            return None
        paths = [file.path for file in files]
        return Change(
            resource=self.id,
            action="remove",
            summary=f"remove {', '.join(paths)} (kept in the backups)",
            reason="other sources of the same packages, at which apt can stop or take other releases"
            if self.family == "debian"
            else "other sources of the same packages",
            sign="-",
            diff="".join(unified(file.text, "", file.path) for file in files),
            guard=" && ".join(f"holds {quote(file.path)} {checksum(file.content)}" for file in files),
            done=" && ".join(f"[ ! -e {quote(path)} ]" for path in paths),
            script=f"remove_sources {words(*paths)}",
            signals=tuple(map(gone, paths)),
        )

    def _may_go(self, file: SourceFile) -> bool:
        """Whether a file is one to remove; False if nothing in it counts."""
        entries = file.entries
        parts = (*self.parts, *(self.moved if file.stem.startswith("provision-") else ()))
        ours = [entry for entry in entries if file.stem in self.files or self._is_the_same(entry, parts)]
        if not ours:
            return False
        if len(ours) == len(entries) and file.path.startswith((f"{APT_SOURCES}/", f"{DNF_SOURCES}/")):
            return True
        raise Refusal(
            f"{file.path}:{ours[0].line}: {ours[0].uri} is a source of the same packages as ours,"
            " and stands among sources that are not ours to touch",
            hint="remove this entry by hand: with two keys for one repository apt stops for all of them",
        )

    def _is_the_same(self, entry: Source, parts: Sequence[str]) -> bool:
        """Whether it is our repository once more, or another one of the same packages."""
        uri = entry.uri.replace("$(ARCH)", self.architecture).replace("$basearch", self.architecture)
        same = _bare(uri) == _bare(self.uri) and entry.suite in ("", self.suite)
        return same or any(f"/{part}/" in f"{uri}/" for part in parts)


def _bare(uri: str) -> str:
    """An address without what makes no difference."""
    return uri.strip().rstrip("/")


def _one_a_line(text: str) -> Iterator[Source]:
    """Entries of sources.list(5), "one-line-style format"."""
    for number, line in enumerate(text.splitlines(), 1):
        active = line.partition("#")[0]
        if entry := re.match(r"\s*deb(?:-src)?\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", active):
            yield Source(number, entry.group(1), entry.group(2))


def _paragraphs(text: str) -> Iterator[Source]:
    """Entries of sources.list(5), "deb822-style format"."""
    lines = text.splitlines()
    starts = [n for n, line in enumerate(lines) if line.strip() and (n == 0 or not lines[n - 1].strip())]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        paragraph = Deb822([line for line in lines[start:end] if not line.startswith("#")])
        if paragraph.get("Enabled", "yes").strip().lower() in ("no", "false", "0", "off", "without"):
            continue
        for uri in paragraph.get("URIs", "").split():
            for suite in paragraph.get("Suites", "").split():
                yield Source(start + 1, uri, suite)


def _sections(text: str) -> Iterator[Source]:
    """Entries of a .repo file of dnf."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    lines = text.splitlines()
    for name in parser.sections():
        if parser[name].get("enabled", "1").strip() in ("0", "false", "no"):
            continue
        line = next((n for n, at in enumerate(lines, 1) if at.strip() == f"[{name}]"), 1)
        yield from (Source(line, uri) for uri in (parser[name].get("baseurl") or "").split())
