"""YAML that every reader understands alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z/][\w/.-]*(?:[:=][\w/.-]+)*", re.ASCII)
_WORDS = re.compile(r"y|yes|n|no|on|off|true|false|null|nan|inf", re.IGNORECASE)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 could take for another type, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and not _WORDS.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def dumped(documents: Iterable[Any]) -> str:
    """Documents as YAML, keys in the order given."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=110, allow_unicode=True
    )
