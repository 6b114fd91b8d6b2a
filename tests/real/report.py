"""What the acceptance found, as rows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Verdict = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Row:
    """One thing that was tried on a host.

    :ivar what: what was tried.
    :ivar instance: of which instance; empty: of the host.
    :ivar said: what was seen, or why it was skipped.
    :ivar seconds: that it took, where that says something.
    """

    host: str
    what: str
    verdict: Verdict
    said: str = ""
    instance: str = ""
    seconds: float | None = None


def exit_code(rows: Sequence[Row]) -> int:
    """0 where something was tried and nothing failed."""
    verdicts = {row.verdict for row in rows}
    return 0 if "pass" in verdicts and "fail" not in verdicts else 1


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """The document of ``--json``."""
    hosts = dict.fromkeys(row.host for row in rows)
    return {
        "schema": 1,
        "hosts": {host: [_plain(row) for row in rows if row.host == host] for host in hosts},
        "summary": _counts(rows),
    }


def _plain(row: Row) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "host"}


def table(rows: Sequence[Row]) -> str:
    """A table of each host, and the counts."""
    lines = []
    for host in dict.fromkeys(row.host for row in rows):
        its = [row for row in rows if row.host == host]
        titles = [f"{row.instance}: {row.what}" if row.instance else row.what for row in its]
        width = max(map(len, titles))
        lines += ["", host]
        for row, title in zip(its, titles, strict=True):
            seconds = "" if row.seconds is None else f"{row.seconds:.2f} s"
            lines.append(f"  {row.verdict}  {title:<{width}}  {seconds:>9}  {row.said}".rstrip())
    counts = ", ".join(f"{count} {verdict}" for verdict, count in _counts(rows).items())
    return "\n".join([*lines, "", counts]).lstrip("\n")


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    found = Counter(row.verdict for row in rows)
    return {verdict: found[verdict] for verdict in get_args(Verdict)}
