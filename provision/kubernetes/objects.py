"""Pods and containers in the documents of manifests, each with the place where it stands. Pure.

Nothing here judges, and nothing trusts a type: what is not of the kind that it has to be is not there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from provision.errors import Location
from provision.inventory.values import Item

_TEMPLATE = ("spec", "template", "spec")
POD_OF: Mapping[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "PodTemplate": ("template", "spec"),
    "Deployment": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
    "DaemonSet": _TEMPLATE,
    "ReplicaSet": _TEMPLATE,
    "ReplicationController": _TEMPLATE,
    "Job": _TEMPLATE,
    "CronJob": ("spec", "jobTemplate", *_TEMPLATE),
}
"""Where an object of a kind has the spec of its Pods."""

LISTS = {
    "containers": "container",
    "initContainers": "init container",
    "ephemeralContainers": "ephemeral container",
}
"""Lists of containers in the spec of a Pod, and what one of them is called."""


@dataclass(frozen=True)
class Container:
    """A container of a Pod.

    :ivar item: the whole of it.
    :ivar kind: container, init container or ephemeral container.
    """

    item: Item
    kind: str

    @functools.cached_property
    def name(self) -> str:
        """Its name; a question mark where there is none."""
        return text(at(self.item, "name")) or "?"

    @functools.cached_property
    def image(self) -> str:
        """Its image; empty where there is none."""
        return text(at(self.item, "image"))

    @functools.cached_property
    def env(self) -> Mapping[str, Item]:
        """Its environment variables; the value of one that comes from elsewhere is no text."""
        found = {}
        for entry in elements(at(self.item, "env")):
            if name := text(at(entry, "name")):
                found[name] = entry
        return found

    @functools.cached_property
    def words(self) -> tuple[Item, ...]:
        """The words of its command and its arguments."""
        return tuple(word for key in ("command", "args") for word in elements(at(self.item, key)))

    @property
    def where(self) -> Location:
        """Where its image stands, or else the container."""
        found = at(self.item, "image") or at(self.item, "name") or self.item
        return found.where


@dataclass(frozen=True)
class Pod:
    """The Pods of an object.

    :ivar subject: kind and name of the object.
    """

    subject: str
    spec: Item

    @functools.cached_property
    def containers(self) -> tuple[Container, ...]:
        """Its containers of all kinds; a sidecar is an init container."""
        return tuple(
            Container(one, kind)
            for key, kind in LISTS.items()
            for one in elements(at(self.spec, key))
            if isinstance(one.value, Mapping)
        )


def objects(document: Item) -> Iterator[Item]:
    """The object of a document; of a List, also all objects in it."""
    yield document
    if text(at(document, "kind")).endswith("List"):
        for item in elements(at(document, "items")):
            yield from objects(item)


def pods(document: Item) -> Iterator[Pod]:
    """The Pods of a document; a List has those of all objects in it."""
    for item in objects(document):
        kind = text(at(item, "kind"))
        spec = at(item, *POD_OF[kind]) if kind in POD_OF else None
        if spec is not None and isinstance(spec.value, Mapping):
            yield Pod(f"{kind} {text(at(item, 'metadata', 'name')) or '?'}", spec)


def at(item: Item | None, *path: str) -> Item | None:
    """What stands at ``path``; None where nothing does."""
    for step in path:
        item = item.get(step) if item is not None else None
    return item


def entries(item: Item | None) -> dict[str, Item]:
    """The entries of a mapping; none of any other value."""
    return dict(item.items()) if item is not None else {}


def elements(item: Item | None) -> Iterator[Item]:
    """The elements of a list; none of any other value."""
    return item.elements() if item is not None else iter(())


def text(item: Item | None) -> str:
    """A string; empty for any other value."""
    return str(item.value) if item is not None and isinstance(item.value, str) else ""
