"""What became of the checks, as values, as text for people and as a document for programs. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from provision.errors import HostError, UnreachableError, UsageError
from provision.inventory.folding import folded
from provision.plan.report import counted

SCHEMA = 1
Verdict = Literal["pass", "fail", "warn", "skip"]
VERDICTS: tuple[Verdict, ...] = ("pass", "fail", "warn", "skip")
Status = Literal["ok", "failed", "unreachable", "unverified"]

WORST: tuple[Status, ...] = ("unreachable", "failed", "unverified", "ok")
"""What hosts can be, the worst first."""

HOST = "{host}"
"""In a message or a hint: the hosts that it is about."""

ALL_NAMED = 10
"""Up to so many hosts are all named where :data:`HOST` stands."""

LIVE_NAMED = 3
"""How many checks that asked their hosts themselves are named; the others are counted."""


@dataclass(frozen=True)
class Check:
    """One check of one host. In its message and hint :data:`HOST` stands for the host.

    :ivar role: the role that it is about; empty for a check of every host.
    :ivar instance: the role's instance that it is about, if it is about one.
    :ivar message: what was found; empty for a pass.
    """

    name: str
    role: str
    instance: str | None
    verdict: Verdict
    message: str = ""
    hint: str | None = None
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """Role, instance and name in one line."""
        role = f"{self.role} {self.instance}" if self.instance else self.role
        return f"{role}: {self.name}" if role else self.name


@dataclass(frozen=True)
class HostResult:
    """What became of a host.

    :ivar address: where it was asked, which errors may name; empty if that is not known.
    :ivar error: why it could not be asked, or not to the end.
    :ivar run: a run that was under way there meanwhile; "" without one.
    :ivar connects: sessions that were opened.
    :ivar execs: commands that were run over them.
    """

    host: str
    checks: tuple[Check, ...] = ()
    error: HostError | None = None
    run: str = ""
    seconds: float = 0.0
    connects: int = 0
    execs: int = 0
    address: str = ""

    @property
    def status(self) -> Status:
        """``ok`` if no check failed; ``unverified`` if no check ran."""
        if self.error:
            return "unreachable" if isinstance(self.error, UnreachableError) else "failed"
        if not self.checks:
            return "unverified"
        return "failed" if self.count("fail") else "ok"

    @property
    def notes(self) -> tuple[str, ...]:
        """What calls for no change."""
        return (f"run {self.run} was under way; findings may be of that moment",) if self.run else ()

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(check.verdict == verdict for check in self.checks)


@dataclass(frozen=True)
class VerifyResult:
    """What became of all hosts, in the order of the inventory.

    :ivar rounds: how often questions were collected and sent to all hosts.
    :ivar live: the checks that asked their host themselves, with the reason.
    :ivar stopped: the run ended early, and checks are missing.
    :ivar interrupted: by Ctrl-C or a signal.
    :ivar unwritten: why the report could not be written.
    """

    hosts: tuple[HostResult, ...]
    seconds: float = 0.0
    rounds: int = 0
    live: tuple[str, ...] = ()
    stopped: bool = False
    interrupted: bool = False
    unwritten: UsageError | None = None

    @property
    def exit_code(self) -> int:
        """0 no check failed, 3 a check failed, 1 a host could not be asked, or no check ran without -x."""
        statuses = {host.status for host in self.hosts}
        if any(host.error for host in self.hosts) or ("unverified" in statuses and not self.stopped):
            return 1
        return 0 if statuses <= {"ok"} and not self.stopped else 3

    def document(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "schema": SCHEMA,
            "hosts": {host.host: _host(host) for host in self.hosts},
            "summary": {
                **self._statuses(),
                "checks": {verdict: sum(host.count(verdict) for host in self.hosts) for verdict in VERDICTS},
                "seconds": round(self.seconds, 3),
                "rounds": self.rounds,
                "execs": self._execs(),
                "live": list(self.live),
                "stopped": self.stopped,
            },
        }

    def text(self) -> str:
        """Each finding once, the worst first; then a line for hosts with the same counts, and the sum."""
        blocks = [*_errors(self.hosts), *_findings(self.hosts, "fail"), *_findings(self.hosts, "warn")]
        blocks += _notes(self.hosts)
        skips = "\n".join(_skips(self.hosts))
        sums = "\n".join([*_counts(self.hosts), *_live(self.live), *self._sum()])
        return "\n\n".join([*blocks, *([skips] if skips else []), sums]) + "\n"

    def _sum(self) -> Iterator[str]:
        if self.stopped:
            yield 'the run was ended early: checks are missing, and "ok" means so far'
        statuses = ", ".join(f"{count} {status}" for status, count in self._statuses().items() if count)
        rounds = f"{counted(self.rounds, 'round')}, " if self.rounds else ""
        work = rounds + counted(self._execs(), "exec")
        yield f"{counted(len(self.hosts), 'host')} in {self.seconds:.1f} s: {statuses}; {work}"

    def _statuses(self) -> dict[Status, int]:
        statuses = Counter(host.status for host in self.hosts)
        return {status: statuses[status] for status in get_args(Status)}

    def _execs(self) -> int:
        return sum(host.execs for host in self.hosts)


def naming(text: str, hosts: Sequence[str]) -> str:
    """``text`` with the names of the hosts that it is about: all of them, or of many the first one."""
    if HOST not in text:
        return text
    if len(hosts) <= ALL_NAMED:
        return text.replace(HOST, ",".join(hosts))
    return _of_first(text.replace(HOST, hosts[0]), hosts)


def _of_first(text: str, hosts: Sequence[str]) -> str:
    return f"{text} ({hosts[0]} is the first of {len(hosts)})"


# ── what was found ───────────────────────────────────────────────────────────────────────────────────────


def _errors(hosts: Iterable[HostResult]) -> Iterator[str]:
    """Hosts that could not be asked, or not to the end."""
    groups: dict[tuple[bool, str, str], list[tuple[str, HostError]]] = {}
    for host in hosts:
        if host.error:
            message, hint = (_anonymous(text, host) for text in (host.error.message, host.error.hint or ""))
            key = host.status != "unreachable", message, hint
            groups.setdefault(key, []).append((host.host, host.error))
    for (reachable, *_), group in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        names = [name for name, _ in group]
        message = _one([error.message for _, error in group], names)
        hint = _one([error.hint or "" for _, error in group], names)
        yield _block("ERROR" if reachable else "UNREACHABLE", names, message, hint)


def _anonymous(text: str, host: HostResult) -> str:
    """``text`` without the host's own name and address, by which equal errors of two hosts differ."""
    own = "|".join(re.escape(name) for name in (host.address, host.host) if name)
    return re.sub(rf"(?<!\w)(?:{own})(?!\w)", HOST, text)


def _one(texts: Sequence[str], hosts: Sequence[str]) -> str:
    """One text for all hosts."""
    return texts[0] if len(set(texts)) == 1 else _of_first(texts[0], hosts)


def _findings(hosts: Iterable[HostResult], verdict: Verdict) -> Iterator[str]:
    found = _grouped(hosts, verdict)
    for (title, message, hint), names in sorted(found.items(), key=lambda item: -len(item[1])):
        yield _block(f"{verdict.upper()} {title}:", names, message, hint)


def _notes(hosts: Iterable[HostResult]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for host in hosts:
        for note in host.notes:
            groups.setdefault(note, []).append(host.host)
    yield from (_block("NOTE", names, note, "") for note, names in groups.items())


def _skips(hosts: Iterable[HostResult]) -> Iterator[str]:
    """Checks that were skipped; those of the same hosts for the same reason are counted."""
    groups: dict[tuple[tuple[str, ...], str, str], list[str]] = {}
    for (title, message, hint), names in _grouped(hosts, "skip").items():
        groups.setdefault((names, message, hint), []).append(title)
    for (names, message, hint), titles in sorted(groups.items(), key=lambda item: -len(item[0][0])):
        what = titles[0] if len(titles) == 1 else counted(len(titles), "check")
        yield _block(f"SKIP {what}:", names, message, hint)


def _grouped(hosts: Iterable[HostResult], verdict: Verdict) -> Mapping[tuple[str, str, str], tuple[str, ...]]:
    """Title, message and hint of every check that ended so, with the hosts where it did."""
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    for host in hosts:
        for check in host.checks:
            if check.verdict == verdict:
                groups.setdefault((check.title, check.message, check.hint or ""), {})[host.host] = None
    return {key: tuple(names) for key, names in groups.items()}


def _block(what: str, hosts: Sequence[str], message: str, hint: str) -> str:
    many = f" ({len(hosts)} hosts)" if len(hosts) > 1 else ""
    lines = [f"{what} {folded(hosts)}{many}"]
    lines += [f"  {line}" for line in naming(message, hosts).splitlines()]
    return "\n".join([*lines, f"  hint: {naming(hint, hosts)}"] if hint else lines)


# ── the sum ──────────────────────────────────────────────────────────────────────────────────────────────


def _counts(hosts: Iterable[HostResult]) -> Iterator[str]:
    """A line for all hosts with the same counts, the worst first."""
    groups: dict[tuple[tuple[int, ...], str], list[str]] = {}
    for host in hosts:
        rank = WORST.index(host.status), not host.error, -host.count("fail"), -host.count("warn")
        groups.setdefault((rank, _count(host)), []).append(host.host)
    for (_, text), names in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        yield f"{folded(names)}: {text}"


def _count(host: HostResult) -> str:
    words: dict[Verdict, str] = {
        "fail": "failed",
        "warn": "with a warning",
        "pass": "passed",
        "skip": "skipped",
    }
    counts = {verdict: host.count(verdict) for verdict in words}
    parts = [
        f"{counts[verdict]} {word}" for verdict, word in words.items() if counts[verdict] or verdict == "pass"
    ]
    if not host.checks:
        return f"{host.status}: no check ran" if host.status == "unverified" else host.status
    return f"{host.status}; before that {', '.join(parts)}" if host.error else ", ".join(parts)


def _live(checks: Sequence[str]) -> Iterator[str]:
    if checks:
        themselves = "its host itself" if len(checks) == 1 else "their hosts themselves"
        yield f"{counted(len(checks), 'check')} asked {themselves}:"
        yield from (f"  {check}" for check in checks[:LIVE_NAMED])
    if len(checks) > LIVE_NAMED:
        yield f"  and {len(checks) - LIVE_NAMED} more"


def _host(host: HostResult) -> dict[str, Any]:
    error = host.error
    return {
        "status": host.status,
        "checks": [_check(check, host.host) for check in host.checks],
        "notes": list(host.notes),
        "error": _said(error.message, error.hint, host.host) if error else None,
        "seconds": round(host.seconds, 3),
        "connects": host.connects,
        "execs": host.execs,
    }


def _check(check: Check, host: str) -> dict[str, Any]:
    return {
        **asdict(check),
        **_said(check.message, check.hint, host),
        "seconds": round(check.seconds, 3),
    }


def _said(message: str, hint: str | None, host: str) -> dict[str, str | None]:
    return {"message": naming(message, [host]), "hint": naming(hint, [host]) if hint else hint}
