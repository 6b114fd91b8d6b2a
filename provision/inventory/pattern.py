"""Host patterns: the hosts that ``--hosts 'gpu:&paris:!canary'`` names, by ansible-core's rules and order.

One difference is on purpose: an unknown plain name is an error, and there is no implicit
localhost. Ansible goes on with a warning, and ``all:!canray`` changes the very hosts one wanted to spare.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from provision.errors import UsageError
from provision.inventory.addresses import split_port

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]+)|([0-9]+)([:-])([0-9]*))\]")
_TERM = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_GLOB = frozenset("?*[")

Members: TypeAlias = Mapping[str, Sequence[str]]
"""Group → names of its hosts and of those of all groups below it."""


def select(pattern: str, hosts: Collection[str], members: Members) -> list[str]:
    """Return the names of the hosts that ``pattern`` names, each once.

    Unions come first, then every ``&``, then every ``!``, wherever they stand.

    :raises UsageError: the pattern is malformed, has an unknown name, or leaves no host.
    """
    terms = _split(pattern)
    if not terms:
        raise UsageError(f"the host pattern {pattern!r} names nothing", hint="'all' names every host")
    names: list[str] = []
    union = [term for term in terms if term[0] not in "&!"]
    for term in union or ["all"]:
        names += [term] if term in hosts else _match(term, hosts, members)
    for term in (term for term in terms if term[0] == "&"):
        wanted = set(_match(term[1:], hosts, members))
        names = [name for name in names if name in wanted]
    for term in (term for term in terms if term[0] == "!"):
        spared = set(_match(term[1:], hosts, members))
        names = [name for name in names if name not in spared]
    if not names:
        raise UsageError(
            f"no host matches the pattern {pattern!r}",
            hint="inv inventory --graph shows groups and hosts" if hosts else "the inventory has no hosts",
        )
    return list(dict.fromkeys(names))


def _split(pattern: str) -> list[str]:
    """Cut a pattern at commas or, where it has none and is no address, at colons outside of brackets."""
    if "," in pattern:
        terms = pattern.split(",")
    elif split_port(pattern):
        terms = [pattern]
    else:
        if set(_TERM.sub("", pattern)) & set("[]"):
            hint = "a comma anywhere in the pattern keeps it from being cut at colons and brackets"
            raise UsageError(f"the brackets of the host pattern {pattern!r} do not match", hint=hint)
        terms = _TERM.findall(pattern)
    return [term.strip() for term in terms if term.strip()]


def _match(term: str, hosts: Collection[str], members: Members) -> list[str]:
    """Return the host names of one term without its ``&`` or ``!``; a name can come up more than once."""
    if term in {"", "~"}:
        raise UsageError(
            "a host pattern has '&', '!' or '~' without a name", hint="write all:&gpu or all:!canary"
        )
    subscript = None if term[0] == "~" else _SUBSCRIPT.fullmatch(term)
    if subscript is None:
        return _enumerate(term, hosts, members)
    expression, index, first, separator, last = subscript.groups()
    if separator == "-":
        raise UsageError(
            f"{term!r} is not a slice", hint=f"write {expression}[{first}:{last}], both ends included"
        )
    names = _enumerate(expression, hosts, members)
    if not names:
        return []
    if index is None:
        end = int(last) + 1 if last else len(names)
        # ansible-core takes an end of 0 for "no end given", and then for the single index in front of it.
        return names[int(first) : end] if end > 1 else [names[int(first)]] if int(first) < len(names) else []
    try:
        return [names[int(index)]]
    except IndexError:
        raise UsageError(
            f"{term!r} is out of range", hint=f"{expression!r} has {len(names)} hosts, counted from 0"
        ) from None


def _enumerate(expression: str, hosts: Collection[str], members: Members) -> list[str]:
    """Return the hosts of all groups that ``expression`` matches, and matching hosts where Ansible does."""
    matcher = _matcher(expression)
    groups = [name for name in members if matcher.match(name)]
    names = [host for group in groups for host in members[group]]
    loose = expression[0] == "~" or any(mark in expression for mark in ".?*[")
    if not groups or loose:
        names += [name for name in hosts if matcher.match(name)]
    if not names and not groups and expression[0] != "~" and not _GLOB & set(expression):
        raise _unknown(expression, [*members, *hosts])
    return names


def _matcher(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression[1:] if expression[0] == "~" else fnmatch.translate(expression))
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(
            f"{expression!r} is not a valid pattern: {error}", hint="what follows ~ is a regex"
        ) from None


def _unknown(name: str, known: list[str]) -> UsageError:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    if close:
        hint = f"did you mean {' or '.join(repr(match) for match in close)}?"
    else:
        hint = "inv inventory --graph shows groups and hosts"
    return UsageError(f"no host or group is called {name!r}", hint=hint)
