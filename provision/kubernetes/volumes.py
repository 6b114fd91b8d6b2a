"""The volumes of an instance: models, shared memory, and mounts as Docker's ``--volume`` takes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from provision.errors import UsageError

_UNITS = {"": "", "b": "", "k": "Ki", "m": "Mi", "g": "Gi"}
"""Docker's units of memory, all of them powers of 1024, as Kubernetes writes them."""

_KNOWN_OPTIONS = {"rw", "ro", "z", "Z"}
"""Of ``--volume``; the last two are for SELinux, which the kubelet labels for by itself."""


def volumes_of(
    name: str, models: str, shm_size: str, mounts: Sequence[str], *, read_only: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The volumes of a Pod, and where its container has them.

    :param name: of the instance, for messages.
    :param models: folder of the node with the model repository.
    :param read_only: whether the image is; then /tmp is a writable folder in memory, as Docker's is.
    :raises UsageError: for a mount that Kubernetes has nothing for.
    """
    volumes: list[dict[str, Any]] = [
        {"name": "models", "hostPath": {"path": models, "type": "Directory"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": memory(shm_size)}},
    ]
    places: list[dict[str, Any]] = [
        {"name": "models", "mountPath": "/models", "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # a path in the container
    ]
    if read_only:
        volumes.append({"name": "tmp", "emptyDir": {"medium": "Memory"}})
        places.append({"name": "tmp", "mountPath": "/tmp"})  # noqa: S108  # a path in the container
    for number, mount in enumerate(mounts, 1):
        source, target, only_read = _parts(name, mount)
        volumes.append({"name": f"mount-{number}", "hostPath": {"path": source}})
        place = {"name": f"mount-{number}", "mountPath": target}
        places.append({**place, "readOnly": True} if only_read else place)
    return volumes, places


def memory(size: str) -> str:
    """A size as Docker takes it (``512m``) as a quantity of Kubernetes (``512Mi``)."""
    number, unit = re.fullmatch(r"([0-9]+)([bkmg]?)", size, re.ASCII).groups()  # type: ignore[union-attr]
    return f"{int(number)}{_UNITS[unit]}"


def _parts(name: str, mount: str) -> tuple[str, str, bool]:
    source, _, rest = mount.partition(":")
    target, _, given = rest.partition(":")
    chosen = {option for option in given.split(",") if option}
    if not (source.startswith("/") and target.startswith("/")):
        raise UsageError(
            f"triton instance {name}: the mount {mount!r} is a volume of Docker, which Kubernetes has not",
            hint="mounts: /FOLDER/OF/THE/HOST:/FOLDER/IN/THE/CONTAINER, with :ro to only read it",
        )
    if strange := sorted(chosen - _KNOWN_OPTIONS):
        raise UsageError(
            f"triton instance {name}: mount {mount!r} has an option that Kubernetes has not: {strange[0]}",
            hint=f"options that it has: {', '.join(sorted(_KNOWN_OPTIONS))}",
        )
    return source, target, "ro" in chosen
