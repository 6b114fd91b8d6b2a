"""How a container asks for GPUs, and what is wrong with the way it does. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from provision.inventory.values import Item, Value
from provision.kubernetes.fault import Fault, error, warning
from provision.kubernetes.objects import at, elements, entries
from provision.kubernetes.quantities import GPU, QuantityError, count, is_gpu, is_mig, meant

ASK = f"resources: {{limits: {{{GPU}: 1}}}}"


@dataclass(frozen=True)
class Asked:
    """The GPUs that a container asks for.

    :ivar gpus: how many limits name; what a claim brings counts as one.
    :ivar tried: whether it asks at all, in whatever way.
    :ivar claims: whether it has resource claims, which name devices by themselves.
    :ivar faults: what is wrong with the way, without the container's name.
    """

    gpus: int
    tried: bool
    claims: bool
    faults: tuple[Fault, ...]


def asked(container: Item) -> Asked:
    """Read the resources of a container."""
    resources = at(container, "resources")
    limits, requests = (entries(at(resources, key)) for key in ("limits", "requests"))
    numbers = {name: _count(item.value) for name, item in limits.items() if is_gpu(name)}
    claims = any(True for _ in elements(at(resources, "claims")))
    found = [*_shape(resources), *_names(limits), *_names(requests), *_stray(container, resources)]
    found += [*_quantities(limits), *_quantities(requests), *_both(limits, requests), *_mig(limits)]
    tried = claims or bool(found) or any(map(is_gpu, (*limits, *requests)))
    return Asked(sum(numbers.values()) + claims, tried, claims, tuple(found))


def shown(value: Value) -> str:
    """A value in few words."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:40]}…")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of many digits"  # Python refuses to write those of thousands
    if isinstance(value, int | float):
        return str(value)
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "this"


def _count(value: Value) -> int:
    try:
        return count(value)
    except QuantityError:
        return 0


def _shape(resources: Item | None) -> Iterator[Fault]:
    """Resources of another type than the API reads."""
    below = [(key, at(resources, key)) for key in ("limits", "requests")]
    for name, item in [("resources", resources), *((f"resources.{key}", item) for key, item in below)]:
        if item is not None and item.value is not None and not isinstance(item.value, Mapping):
            yield error(item, f"{name} must be a mapping, and is {shown(item.value)}", ASK)


def _names(given: Mapping[str, Item]) -> Iterator[Fault]:
    for name, item in given.items():
        if (right := meant(name)) == GPU:
            message = f"{name!r} is not the name of GPUs; no node has what it names"
            yield error(item, message, f"{GPU}: {_number(item)}")
        elif right:
            message = f"{name!r} is not the name of MIG devices, which have their profile in it"
            yield error(item, message, f"such as {right}; kubectl describe node NODE shows what it has")


def _number(item: Item) -> int:
    return max(1, _count(item.value))


def _stray(container: Item, resources: Item | None) -> Iterator[Fault]:
    """Resources above their place: in ``resources`` itself, or in the container."""
    strays = [("resources", resources), ("the container", container)]
    for place, item in strays:
        for name, value in entries(item).items():
            if is_gpu(name):
                message = f"{name} does nothing in {place}; its place is resources.limits"
                yield error(value, message, f"resources: {{limits: {{{name}: {_number(value)}}}}}")


def _quantities(given: Mapping[str, Item]) -> Iterator[Fault]:
    for name, item in given.items():
        if not is_gpu(name):
            continue
        try:
            number = count(item.value)
        except QuantityError as problem:
            yield error(item, f"{name}: {shown(item.value)} {problem}", f"a whole number: {name}: 1")
        else:
            if number == 0:
                yield warning(item, f"{name}: 0 asks for no GPU", f"{name}: 1, or take the line out")


def _both(limits: Mapping[str, Item], requests: Mapping[str, Item]) -> Iterator[Fault]:
    for name, item in requests.items():
        if not is_gpu(name):
            continue
        if name not in limits:
            message = f"{name} is in requests alone; the API refuses it without the same limit"
            yield error(item, message, f"resources: {{limits: {{{name}: {_number(item)}}}}}")
            continue
        try:
            asks, most = count(item.value), count(limits[name].value)
        except QuantityError:
            continue
        if asks != most:
            message = f"{name}: requests have {asks} and limits have {most}; the API refuses two numbers"
            yield error(item, message, "take it out of requests: limits are enough")


def _mig(limits: Mapping[str, Item]) -> Iterator[Fault]:
    """CUDA's user guide of MIG, "CUDA device enumeration": a process sees one device."""
    devices = {name: item for name, item in limits.items() if is_mig(name)}
    if sum(_count(item.value) for item in devices.values()) > 1:
        (*_, last) = devices.values()
        message = "a CUDA process sees one MIG device, and the container asks for several"
        yield warning(last, message, "one device a container; or one process for each, named by its UUID")
