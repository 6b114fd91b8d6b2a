"""The files that ``lint-manifest`` reads, and what it prints of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.data import content
from provision.errors import InventoryError, UsageError
from provision.inventory.document import parse_all
from provision.inventory.values import Document
from provision.kubernetes.fault import ERROR, Fault
from provision.kubernetes.lint import faults
from provision.kubernetes.objects import pods
from provision.plan.report import counted

ENDINGS = (".yaml", ".yml", ".json")
STDIN = "-"

_HELM = re.compile(r"\{\{-?\s*[^{}]*\.(Values|Release|Chart|Capabilities)\b")
"""What only a template of Helm has; other programs have ``{{`` in texts of manifests."""


@dataclass(frozen=True)
class Judged:
    """What there is to say about files.

    :ivar unreadable: errors of the files that could not be judged.
    :ivar pods: how many objects with Pods were judged.
    """

    faults: tuple[Fault, ...]
    unreadable: tuple[UsageError, ...]
    files: int
    pods: int

    @property
    def exit_code(self) -> int:
        """2 if a file could not be read, 3 if there are errors, else 0."""
        return 2 if self.unreadable else 3 if self._errors else 0

    @property
    def _errors(self) -> int:
        return sum(fault.severity == ERROR for fault in self.faults)

    @property
    def summary(self) -> str:
        """The last line."""
        warnings = len(self.faults) - self._errors
        said = f"{counted(self._errors, 'error')}, {counted(warnings, 'warning')}"
        return f"{said} in {counted(self.files, 'file')}, {counted(self.pods, 'object')} with Pods"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": 1,
            "findings": [fault.document() for fault in self.faults],
            "unreadable": [{"message": one.message, "hint": one.hint} for one in self.unreadable],
            "files": self.files,
            "objects": self.pods,
        }


def judge(names: Sequence[str]) -> Judged:
    """Read and judge files, those of folders, and standard input for ``-``.

    :raises UsageError: if nothing is named.
    """
    if not names:
        raise UsageError(
            "no manifests are named", hint="inv lint-manifest FILE…; a folder, or - for standard input"
        )
    found: list[Fault] = []
    unreadable: list[UsageError] = []
    files = objects = 0
    for name in names:
        documents: list[Document] = []
        wrong: list[UsageError] = []
        try:
            paths = _files(name)
            for path in paths:
                try:
                    documents += read(path)
                except UsageError as error:
                    wrong.append(error)
            if not wrong:
                _refuse_nothing(documents, name)
        except UsageError as error:
            unreadable.append(error)
            continue
        unreadable += wrong
        files += len(paths) - len(wrong)
        found += faults(documents)
        objects += sum(1 for document in documents for _ in pods(document.root))
    return Judged(tuple(found), tuple(unreadable), files, objects)


def _files(name: str) -> list[str]:
    if not name:
        raise UsageError("a manifest is named by an empty word", hint="inv lint-manifest FILE…")
    try:
        if name == STDIN or not Path(name).is_dir():
            return [name]
        found = [Path(inside, file) for inside, _, files in os.walk(name, onerror=_raise) for file in files]
        below = [path for path in found if path.suffix in ENDINGS and path.is_file()]
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}", hint="inv lint-manifest FILE…") from error
    paths = sorted(map(str, below))
    if not paths:
        raise UsageError(
            f"{name}: the folder holds no manifest", hint=f"files that end in {', '.join(ENDINGS)}"
        )
    return paths


def _raise(error: OSError) -> None:
    raise error


def _refuse_nothing(documents: Sequence[Document], name: str) -> None:
    if any(document.root.get("kind") for document in documents):
        return
    shown = "standard input" if name == STDIN else name
    hint = "see whether the command before it failed" if name == STDIN else "name a file with objects in it"
    raise UsageError(f"{shown}: it holds no object of Kubernetes", hint=hint)


def read(name: str) -> list[Document]:
    """The documents of a file, or of standard input for ``-``.

    :raises UsageError: if it cannot be read, is not YAML, or is a template of Helm.
    """
    shown = "standard input" if name == STDIN else name
    try:
        data = sys.stdin.buffer.read() if name == STDIN else content(Path(name))
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{shown}: it is not UTF-8", hint="save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{shown}: {error.strerror}", hint="inv lint-manifest FILE…") from error
    if _HELM.search(text):
        raise _template(shown)
    try:
        return parse_all(text, shown)
    except InventoryError:
        if "{{" in text:
            raise _template(shown) from None
        raise


def _template(shown: str) -> UsageError:
    return UsageError(
        f"{shown}: it is a template of Helm",
        hint=f"render it first: helm template CHART | inv lint-manifest {STDIN}",
    )
