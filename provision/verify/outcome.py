"""What became of the checks, as values, as text for people and as a document for programs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from provision.errors import HostError, UnreachableError
from provision.plan.report import by_text, counted

SCHEMA = 1
Verdict = Literal["pass", "fail", "warn", "skip"]
VERDICTS: tuple[Verdict, ...] = ("pass", "fail", "warn", "skip")
Status = Literal["ok", "failed", "unreachable"]


@dataclass(frozen=True)
class Check:
    """One check of one host; ``--json`` has its fields as they are.

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

    :ivar error: why it could not be asked, or not to the end.
    :ivar connects: sessions that were opened.
    :ivar execs: commands that were run over them.
    """

    host: str
    checks: tuple[Check, ...] = ()
    error: HostError | None = None
    seconds: float = 0.0
    connects: int = 0
    execs: int = 0

    @property
    def status(self) -> Status:
        """``ok`` if no check failed; a host without an answer is never ok."""
        if self.error:
            return "unreachable" if isinstance(self.error, UnreachableError) else "failed"
        return "failed" if self.count("fail") else "ok"

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(check.verdict == verdict for check in self.checks)


@dataclass(frozen=True)
class VerifyResult:
    """What became of all hosts, in the order of the inventory."""

    hosts: tuple[HostResult, ...]
    seconds: float = 0.0
    rounds: int = 0
    live: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def exit_code(self) -> int:
        """0 all checks passed, 3 a check failed, 1 a host could not be asked."""
        if any(host.error for host in self.hosts):
            return 1
        return 3 if any(host.status == "failed" for host in self.hosts) else 0

    def document(self) -> dict[str, Any]:
        """The document of ``--json``."""
        statuses = Counter(host.status for host in self.hosts)
        return {
            "schema": SCHEMA,
            "hosts": {host.host: _host(host) for host in self.hosts},
            "summary": {
                **{status: statuses[status] for status in ("ok", "failed", "unreachable")},
                "checks": {verdict: sum(host.count(verdict) for host in self.hosts) for verdict in VERDICTS},
                "seconds": round(self.seconds, 3),
            },
        }

    def text(self) -> str:
        """Hosts with the same outcome are shown once; then one line that sums up."""
        blocks = by_text({host.host: "\n".join(_lines(host)) for host in self.hosts})
        return "\n\n".join([*blocks, self._sum()]) + "\n"

    def _sum(self) -> str:
        summary = self.document()["summary"]
        statuses = [f"{summary[word]} {word}" for word in ("ok", "failed", "unreachable") if summary[word]]
        return f"{counted(len(self.hosts), 'host')} in {self.seconds:.1f} s: {', '.join(statuses)}"


def _lines(host: HostResult) -> Iterator[str]:
    """The outcome of a host without its name, so that equal ones can be told."""
    if host.error:
        yield f"{host.status}: {host.error.message}"
        if host.error.hint:
            yield f"  hint: {host.error.hint}"
        return
    parts = [f"{counted(host.count('pass'), 'check')} passed"]
    words: tuple[tuple[Verdict, str], ...] = (
        ("fail", "failed"),
        ("warn", "with a warning"),
        ("skip", "skipped"),
    )
    parts += [f"{host.count(verdict)} {word}" for verdict, word in words if host.count(verdict)]
    yield f"{host.status}: {', '.join(parts)}"
    for verdict, _ in words:
        yield from _found(verdict.upper(), [check for check in host.checks if check.verdict == verdict])


def _found(word: str, checks: Sequence[Check]) -> Iterator[str]:
    for check in checks:
        yield f"  {word} {check.title}: {check.message}"
        if check.hint:
            yield f"       hint: {check.hint}"


def _host(host: HostResult) -> dict[str, Any]:
    return {
        "status": host.status,
        "checks": [{**asdict(check), "seconds": round(check.seconds, 3)} for check in host.checks],
        "error": {"message": host.error.message, "hint": host.error.hint} if host.error else None,
        "seconds": round(host.seconds, 3),
        "connects": host.connects,
        "execs": host.execs,
    }
