"""Objects whose Pods cannot be judged: a kind misspelt, no spec, a List without a list. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from provision.inventory.values import Item
from provision.kubernetes.asking import shown
from provision.kubernetes.fault import Fault, error
from provision.kubernetes.objects import LISTS, POD_OF, at, entries, text

_GROUPS = ("", "apps", "batch", "extensions")
"""API groups of Kubernetes' own kinds with Pods; others have kinds of the same names and another shape."""

_CLOSE = 0.85
"""Part that two words must have in common, of 1."""


def shape_faults(item: Item) -> Iterator[Fault]:
    """What is wrong with an object so that its Pods cannot be judged."""
    group, slash, _ = text(at(item, "apiVersion")).rpartition("/")
    kind = text(at(item, "kind"))
    if slash and group not in _GROUPS:
        return
    if kind == "List" or (kind.removesuffix("List") in POD_OF and kind.endswith("List")):
        yield from _of_list(item, kind)
    elif kind in POD_OF:
        yield from _of_spec(item, kind)
    elif right := _meant(kind, (*POD_OF, "List")):
        where = at(item, "kind") or item
        yield error(where, f"{kind!r} is not a kind of Kubernetes; its Pods are not judged", _did(right))


def _of_list(item: Item, kind: str) -> Iterator[Fault]:
    found = at(item, "items")
    if found is None:
        yield _missing(item, kind, "items", "a list", ())
    elif not isinstance(found.value, list):
        yield error(found, f"{kind}: items must be a list, and is {shown(found.value)}", "items: [OBJECT, …]")


def _of_spec(item: Item, kind: str) -> Iterator[Fault]:
    subject = f"{kind} {text(at(item, 'metadata', 'name')) or '?'}"
    above, path = item, ""
    for step in POD_OF[kind]:
        path = f"{path}.{step}".lstrip(".")
        found = at(above, step)
        if found is None:
            yield _missing(above, subject, path, "a mapping", ())
            return
        if not isinstance(found.value, Mapping):
            message = f"{subject}: {path} must be a mapping, and is {shown(found.value)}"
            yield error(found, message, f"{'.'.join(POD_OF[kind])}: {{containers: […]}}")
            return
        above = found
    containers = at(above, "containers")
    if containers is None:
        yield _missing(above, subject, f"{path}.containers", "a list", LISTS)
    elif not isinstance(containers.value, list):
        message = f"{subject}: {path}.containers must be a list, and is {shown(containers.value)}"
        yield error(containers, message, "containers: [{name: NAME, image: IMAGE}]")
    elif not containers.value:
        message = f"{subject}: {path}.containers is empty, which the API refuses"
        yield error(containers, message, "containers: [{name: NAME, image: IMAGE}]")


def _missing(above: Item, subject: str, path: str, wanted: str, others: Iterable[str]) -> Fault:
    """The fault where a key is missing: at the key that misspells it, or else at what it belongs to."""
    name = path.rpartition(".")[2]
    below = entries(above)
    for key, item in below.items():
        if key not in others and _meant(key, [name]):
            return error(item, f"{subject}: {path} is missing, and {key!r} does nothing", _did(name))
    hint = f"{path} must be {wanted}; of a patch, judge what kustomize build prints"
    return error(above, f"{subject}: {path} is missing", hint)


def _did(right: str) -> str:
    return f"did you mean {right}?"


def _meant(word: str, names: Iterable[str]) -> str:
    """The name that a word misspells; empty if it misspells none."""
    plain = word.lower()
    for name in names:
        right = name.lower()
        ratio = difflib.SequenceMatcher(None, plain, right).ratio() if len(plain) < 2 * len(right) else 0
        if sorted(plain) == sorted(right) or (abs(len(plain) - len(right)) <= 1 and ratio >= _CLOSE):
            return name
    return ""
