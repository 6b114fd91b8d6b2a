"""Plans and results as text for people and as documents for programs. Pure: nothing here prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from provision.errors import visible
from provision.inventory.folding import folded
from provision.plan.plan import Plan
from provision.plan.result import Result, Status
from provision.plan.script import SPOOL
from provision.resource import Change

SCHEMA = 1


def by_text(texts: Mapping[str, str]) -> list[str]:
    """The texts of hosts with their names in front; hosts with the same text are shown once."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(text, []).append(name)
    return [f"{folded(names)}: {text}" for text, names in groups.items()]


def counted(number: int, noun: str) -> str:
    """A number with its noun, which agree."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass
class Plans:
    """Plans of a fleet as text, group by group. A plan that was shown before is named, not shown again.

    :ivar diff: whether the changes inside files are shown.
    """

    diff: bool
    _shown: dict[str, str] = field(default_factory=dict)

    def text(self, found: Mapping[str, Plan]) -> str:
        """The plans of one more group; hosts whose plans read the same are shown once."""
        texts = {name: "\n".join(_lines(plan, diff=self.diff)) for name, plan in found.items()}
        shown = {name: self._short(text) for name, text in texts.items()}
        blank = "\n" if self._shown else ""
        for name, text in texts.items():
            self._shown.setdefault(text, name)
        return blank + "\n\n".join(by_text(shown)) + "\n"

    def _short(self, text: str) -> str:
        head, newline, _ = text.partition("\n")
        return f"{head}, as shown for {self._shown[text]}" if newline and text in self._shown else text


def plans(found: Mapping[str, Plan], *, diff: bool) -> str:
    """All plans of a fleet."""
    return Plans(diff).text(found)


def _lines(plan: Plan, *, diff: bool) -> Iterable[str]:
    yield counted(len(plan.changes), "change") if plan.changes else "nothing to do"
    yield from (f"  note: {visible(note)}" for note in plan.notes)
    yield from _changes(plan, diff=diff)


def _changes(plan: Plan, *, diff: bool) -> Iterable[str]:
    role = ""
    for change in plan.changes:
        if change.role != role:
            role = change.role
            yield f"  {role}"
        why = f"  ({visible(change.reason)})" if change.reason else ""
        yield f"    {change.sign} {visible(change.summary)}{why}"
        if change.needs and plan.lacks(change):
            yield f"        not allowed yet: {change.needs.how}"
        yield from (f"        ! {visible(line)}" for line in change.impact)
        if change.simulation:
            yield from (f"        | {line}" for line in change.simulation.rstrip("\n").split("\n"))
        if diff and change.diff:
            yield from (f"        {line}" for line in change.diff.rstrip("\n").split("\n"))


def failure(result: Result) -> str:
    """Everything that is known about what went wrong on a host."""
    error = result.error
    if error is None:
        return ""
    lines = [f"{result.host}: {result.status}: {error.message}"]
    stderr = getattr(error, "stderr", "")
    lines += [f"    {line}" for line in stderr.splitlines()[-12:]]
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    return "\n".join(lines)


def recap(results: Sequence[Result], run: str) -> str:
    """One line a host, in Ansible's words (``ok`` counts ``changed`` too), their sum, and the failures.

    Steps of a plan that never ran are told where there are any.

    :param run: id of the run, whose logs are named if it changed or tried to change something; empty where
        hosts were only planned.
    """
    width = max((len(result.host) for result in results), default=0)
    lines = ["RECAP"]
    for result in results:
        counts = {
            "ok": result.right + len(result.changes),
            "changed": len(result.changes),
            "unreachable": int(result.status == "unreachable"),
            "failed": int(result.status == "failed"),
            "skipped": int(result.status == "skipped"),
        }
        if result.not_run:
            counts["not run"] = result.not_run
        numbers = "  ".join(f"{word}={count:<3}" for word, count in counts.items())
        lines.append(f"{result.host:<{width}} : {numbers} {result.seconds:6.1f} s")
    statuses = Counter(result.status for result in results)
    sums = ", ".join(f"{statuses[status]} {status}" for status in get_args(Status) if statuses[status])
    changes = sum(len(result.changes) for result in results)
    seconds = max((result.seconds for result in results), default=0.0)
    made = "made" if run else "pending"
    total = f"{counted(changes, 'change')} {made}, the longest took {seconds:.1f} s"
    lines.append(f"{counted(len(results), 'host')}: {sums or 'none'}; {total}")
    if run and any(result.changes or getattr(result.error, "exit_code", None) for result in results):
        lines.append(
            f"run {run}; what each step printed: {SPOOL}/{run}*/ on its host, for 10 runs, until it reboots"
        )
    if statuses["skipped"]:
        lines.append(
            "skipped hosts were not started, because others had failed; --max-failed says how many may"
        )
    failures = [failure(result) for result in results if result.error]
    return "\n".join(lines) + "\n" + "".join(f"\n{text}\n" for text in failures)


def document(results: Sequence[Result], run: str, *, diff: bool) -> dict[str, Any]:
    """The document of ``--json`` for plan and provision."""
    hosts = {result.host: _host(result, diff=diff) for result in results}
    statuses = Counter(result.status for result in results)
    summary = {status: statuses[status] for status in get_args(Status)}
    return {"schema": SCHEMA, "run": run, "hosts": hosts, "summary": summary}


def _host(result: Result, *, diff: bool) -> dict[str, Any]:
    return {
        "status": result.status,
        "changes": [change_row(change, diff=diff) for change in result.changes],
        "notes": list(result.notes),
        "not_run": result.not_run,
        "error": _error(result),
        "seconds": round(result.seconds, 3),
        "reboots": result.reboots,
        "connects": result.connects,
        "execs": result.execs,
    }


def change_row(change: Change, *, diff: bool) -> dict[str, Any]:
    """A change as ``--json`` shows it."""
    row: dict[str, Any] = {
        "role": change.role,
        "resource": change.resource,
        "action": change.action,
        "summary": change.summary,
        "reason": change.reason,
        "needs": change.needs.name if change.needs else None,
        "impact": list(change.impact),
    }
    return {**row, "diff": change.diff, "simulation": change.simulation} if diff else row


def _error(result: Result) -> dict[str, Any] | None:
    error = result.error
    if error is None:
        return None
    return {
        "resource": getattr(error, "resource", None),
        "message": error.message,
        "hint": error.hint,
        "exit_code": getattr(error, "exit_code", None),
        "stderr": getattr(error, "stderr", ""),
    }
