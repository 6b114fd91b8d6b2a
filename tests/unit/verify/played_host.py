"""A host that is played for the checks: it answers what testinfra's modules and ours ask, no more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from provision.connection import Connection
from provision.connection.login import Login
from provision.expectation.settings import Expect
from provision.facts import PROBES
from provision.plan.script import ACTIVE
from provision.probe import Output
from provision.role import Role, Settings
from provision.run.target import Target
from provision.verify.outcome import Check, HostResult
from provision.verify.suite import Choice, verify

Answer = Output | Callable[[str], Output]


def said(text: str | bytes = "", code: int = 0, err: str = "") -> Output:
    """An answer."""
    return Output(code, text if isinstance(text, bytes) else text.encode(), err.encode())


@dataclass(frozen=True)
class There:
    """A file or folder of the host."""

    text: str | bytes = ""
    mode: int = 0o644
    user: str = "root"
    group: str = "root"
    folder: bool = False


@dataclass(frozen=True)
class Unit:
    """A unit of the host, as ``systemctl`` tells of it.

    :ivar properties: what ``systemctl show`` says beside ActiveState and UnitFileState.
    """

    active: str = "active"
    enabled: str = "enabled"
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Played:
    """What a host is and answers; ``with_`` makes another one of it.

    :ivar facts: answers to the probes of facts, by their names.
    :ivar packages: version by name of each installed package.
    :ivar held: packages that are held.
    :ivar answers: answer by a regular expression that is searched in the command; the last that fits counts.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    units: Mapping[str, Unit] = field(default_factory=dict)
    files: Mapping[str, There] = field(default_factory=dict)
    answers: Mapping[str, Answer] = field(default_factory=dict)

    def with_(
        self,
        answers: Mapping[str, Answer] | None = None,
        *,
        facts: Mapping[str, str] | None = None,
        packages: Mapping[str, str | None] | None = None,
        units: Mapping[str, Unit] | None = None,
        files: Mapping[str, There | None] | None = None,
        held: Iterable[str] | None = None,
    ) -> Played:
        """This host with something changed; None takes a package or a file away."""
        there = {k: v for k, v in {**self.packages, **(packages or {})}.items() if v is not None}
        kept = {k: v for k, v in {**self.files, **(files or {})}.items() if v is not None}
        return replace(
            self,
            facts={**self.facts, **(facts or {})},
            packages=there,
            held=self.held if held is None else frozenset(held),
            units={**self.units, **(units or {})},
            files=kept,
            answers={**self.answers, **(answers or {})},
        )

    def answer(self, line: str) -> Output:
        """The answer to one command.

        :raises AssertionError: if the host does not know it.
        """
        for pattern, found in reversed(list(self.answers.items())):
            if re.search(pattern, line):
                return found(line) if callable(found) else found
        fact = next((probe.name for probe in (*PROBES, ACTIVE) if line.endswith(probe.script)), None)
        if fact is not None:
            return said(self.facts.get(fact, ""))
        known = (
            self._system(line)
            or self._package(line)
            or self._unit(line)
            or self._path_states(line)
            or self._file(line)
        )
        assert known is not None, f"the played host has no answer to: {line}"
        return known

    def _system(self, line: str) -> Output | None:
        fixed = {
            "uname -s": "Linux\n",
            "uname -m": "x86_64\n",
            "id -u": self.facts.get("user", "0\n"),
            "cat /etc/os-release": self.facts.get("os-release", ""),
            "test -d /run/systemd/system/": "",
        }
        if line.startswith("command -v "):
            return said(f"/usr/bin/{line.rsplit(maxsplit=1)[-1]}\n")
        return said(fixed[line]) if line in fixed else None

    def _package(self, line: str) -> Output | None:
        found = re.fullmatch(r"dpkg-query -f '(.*)' -W (\S+)", line)
        if not found:
            return None
        form, name = found.groups()
        if name not in self.packages:
            return said(code=1, err=f"dpkg-query: no packages found matching {name}\n")
        status = f"{'hold' if name in self.held else 'install'} ok installed"
        return said(form.replace("${Status}", status).replace("${Version}", self.packages[name]))

    def _unit(self, line: str) -> Output | None:
        words = shlex.split(line) if line.startswith("systemctl ") else []
        if len(words) < 3:
            return None
        name = words[-1] if words[-1] in self.units else f"{words[-1]}.service"
        unit = self.units.get(name, Unit("inactive", "not-found"))
        if words[1] == "is-active":
            return said(f"{unit.active}\n", 0 if unit.active == "active" else 3)
        if words[1] == "is-enabled":
            return said(f"{unit.enabled}\n", 0 if unit.enabled in ("enabled", "static", "alias") else 1)
        if words[1] == "show" and len(words) == 3:
            known = {"ActiveState": unit.active, "UnitFileState": unit.enabled, **unit.properties}
            return said("".join(f"{key}={value}\n" for key, value in known.items()))
        return None

    def _file(self, line: str) -> Output | None:
        try:
            words = shlex.split(line)
        except ValueError:
            return None
        there = self.files.get(words[-1].rstrip("/") or "/") if words else None
        if words[:1] == ["test"] and len(words) == 3:
            kinds = {"-e": there, "-f": there and not there.folder, "-d": there and there.folder}
            kinds["-x"] = there and bool(there.mode & 0o111)
            return said(code=int(not kinds.get(words[1]))) if words[1] in (*kinds, "-L") else None
        if words[:2] == ["cat", "--"]:
            return said(there.text) if there else said(code=1, err=f"cat: {words[-1]}: No such file\n")
        if words[:1] == ["stat"] and words[1].startswith("-Lc"):
            if not there:
                return said(code=1, err=f"stat: cannot statx '{words[-1]}': No such file or directory\n")
            told = {"%a": f"{there.mode:o}", "%U": there.user, "%G": there.group}
            return said(f"{told[words[2]]}\n")
        return None

    def _path_states(self, line: str) -> Output | None:
        """What the function ``path_states`` prints of files."""
        asked = re.search(r"^path_states (.*)\Z", line, re.MULTILINE)
        if not asked:
            return None
        paths = shlex.split(asked[1])
        found = {path: there for path in paths if (there := self.files.get(path))}
        texts = {path: t.text.encode() if isinstance(t.text, str) else t.text for path, t in found.items()}
        lines = ["".join("r" if path in found else "a" for path in paths)]
        lines += [
            f"regular file|{there.mode:o}|{there.user}|{there.group}|{len(texts[path])}"
            for path, there in found.items()
        ]
        contents = b"\n".join(b"==> %s <==\n%s" % (path.encode(), text) for path, text in texts.items())
        return said("".join(f"{line}\n" for line in lines).encode() + contents)


class PlayedHost(Connection):
    """The connection to a played host."""

    def __init__(self, login: Login, played: Played) -> None:
        super().__init__(login)
        self.played = played
        self.asked: list[str] = []

    @property
    def is_open(self) -> bool:
        return True

    def open(self) -> None:
        self.connects = 1

    def close(self) -> None:
        """There is no session."""

    def run(
        self,
        script: str,
        *,
        timeout: float,  # noqa: ARG002
        on_line: Callable[[bytes], None] | None = None,  # noqa: ARG002
        stdin: bytes = b"",  # noqa: ARG002
        what: str = "a script",  # noqa: ARG002
        then: Callable[[Output], str] | None = None,
    ) -> Output:
        assert then is None, "checks have no second script"
        self.open()
        self.execs += 1
        found = re.search(r"^gather_mark=(\w+)\n", script, re.MULTILINE)
        if found is None:
            return self._answer(script)
        words = shlex.split(script[found.end() :])
        questions = [line for word, line in zip(words[::2], words[1::2], strict=True) if word == "ask"]
        answers = [self._answer(question) for question in questions]
        mark = found[1].encode()
        out = b"".join(a.stdout + mark + b" %d\n" % a.exit_code for a in answers)
        return Output(0, out, b"".join(a.stderr + mark + b"\n" for a in answers))

    def _answer(self, script: str) -> Output:
        limited = re.match(r"timeout -k \S+ \S+ /bin/sh -c ", script)
        line = shlex.split(script[limited.end() :])[0] if limited else script
        self.asked.append(line)
        return self.played.answer(line)


def look(
    played: Played,
    settings: Mapping[Role, Settings],
    choice: Choice | None = None,
    expect: Expect | None = None,
) -> tuple[HostResult, PlayedHost]:
    """Verify a played host with the product's checks."""
    target = Target("gpu-01", Login("gpu-01", "127.0.0.1", 22, "root"), settings, expect=expect)
    hosts: list[PlayedHost] = []

    def connect(login: Login) -> PlayedHost:
        hosts.append(PlayedHost(login, played))
        return hosts[-1]

    found = verify([target], choice or Choice(), connect=connect)
    return found.hosts[0], hosts[0]


def verdicts(result: HostResult, *wanted: str) -> dict[str, Check]:
    """The checks of a host that ended so, by title."""
    return {check.title: check for check in result.checks if check.verdict in wanted}
