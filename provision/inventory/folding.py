"""Names of hosts in one line, folded as ClusterShell does it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
from ClusterShell.RangeSet import RangeSetException


def folded(names: Iterable[str]) -> str:
    """``gpu-[01-46,48],login``: what ``nodeset --expand`` turns back into exactly these names.

    Names that a node set cannot hold, such as ``a[b``, stand behind the others as they are.
    """
    plain: list[str] = []
    odd: list[str] = []
    for name in names:
        (plain if _expanded(name) == [name] else odd).append(name)
    text = str(NodeSet.fromlist(plain, resolver=RESOLVER_NOGROUP))
    return ",".join([text, *odd] if plain else odd)


def _expanded(text: str) -> list[str]:
    """The names of a folded text; none for one that cannot be read."""
    try:
        return list(NodeSet(text, resolver=RESOLVER_NOGROUP))
    except (NodeSetException, RangeSetException):
        return []
