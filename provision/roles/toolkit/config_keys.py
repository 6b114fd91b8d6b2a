"""The keys of the toolkit's config.toml, and what holds where a key is not in the file.

The names, types and defaults are those of NVIDIA Container Toolkit 1.20 (its package ``api/config/v1``):
its programs read the file onto these defaults each time that they start, so a missing key is no fault,
and a changed one needs no restart of Docker.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from provision.roles.toolkit.cdi import FOLDERS, KIND

Value = bool | str | list[str]
"""What a key can hold."""

_OPEN = "features"
"""Table of switches, to which every release adds some: any name is taken."""

DEFAULTS: dict[str, Value] = {
    "accept-nvidia-visible-devices-as-volume-mounts": False,
    "accept-nvidia-visible-devices-envvar-when-unprivileged": True,
    "disable-require": False,
    "supported-driver-capabilities": "compat32,compute,display,graphics,ngx,utility,video",
    "swarm-resource": "",
    "nvidia-container-cli.debug": "",
    "nvidia-container-cli.environment": [],
    "nvidia-container-cli.ldcache": "",
    "nvidia-container-cli.ldconfig": "@/sbin/ldconfig",
    "nvidia-container-cli.load-kmods": True,
    "nvidia-container-cli.no-cgroups": False,
    "nvidia-container-cli.no-pivot": False,
    "nvidia-container-cli.path": "",
    "nvidia-container-cli.root": "",
    "nvidia-container-cli.user": "",
    "nvidia-container-runtime.debug": "/dev/null",
    "nvidia-container-runtime.log-level": "info",
    "nvidia-container-runtime.mode": "auto",
    "nvidia-container-runtime.runtimes": ["runc", "crun"],
    "nvidia-container-runtime.modes.cdi.annotation-prefixes": ["cdi.k8s.io/"],
    "nvidia-container-runtime.modes.cdi.default-kind": KIND,
    "nvidia-container-runtime.modes.cdi.spec-dirs": FOLDERS,
    "nvidia-container-runtime.modes.csv.mount-spec-path": (
        "/etc/nvidia-container-runtime/host-files-for-container.d"
    ),
    "nvidia-container-runtime.modes.csv.compat-container-root": "",
    "nvidia-container-runtime.modes.jit-cdi.nvcdi-feature-flags": [],
    "nvidia-container-runtime.modes.jit-cdi.nvcdi-disable-hooks": [],
    "nvidia-container-runtime.modes.legacy.cuda-compat-mode": "ldconfig",
    "nvidia-container-runtime-hook.path": "nvidia-container-runtime-hook",
    "nvidia-container-runtime-hook.skip-mode-detection": False,
    "nvidia-ctk.path": "nvidia-ctk",
}
"""Every key by its dotted name, with its default."""

CHOICES = {
    "nvidia-container-runtime.mode": ("auto", "cdi", "jit-cdi", "legacy"),
    "nvidia-container-runtime.log-level": ("trace", "debug", "info", "warning", "error"),
    "nvidia-container-runtime.modes.legacy.cuda-compat-mode": ("disabled", "hook", "ldconfig", "mount"),
}
"""Keys whose values are words of a list. Mode ``csv`` is for Tegra boards: elsewhere it gives no GPU."""


def default(key: str) -> Value:
    """What holds where ``key`` is not in the file."""
    return False if key.startswith(f"{_OPEN}.") else DEFAULTS[key]


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by their dotted names; a name with dots is taken as it is.

    :raises ValueError: if a key is given twice, as ``a: {b: …}`` and as ``a.b: …``.
    """
    values: dict[str, Any] = {}
    for name, value in document.items():
        key = f"{prefix}{name}"
        inner = flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
        if twice := sorted(values.keys() & inner.keys()):
            raise ValueError(f"{twice[0]} is given twice")
        values |= inner
    return values


def wrong(key: str, value: object) -> tuple[str, str] | None:
    """What is wrong with a declared value, as a sentence and a hint; None if nothing is."""
    if key not in DEFAULTS and not key.startswith(f"{_OPEN}."):
        close = difflib.get_close_matches(key, DEFAULTS, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(DEFAULTS)}"
        return f"config.toml of the toolkit has no key {key!r}", hint
    like = default(key)
    if isinstance(like, bool) and not isinstance(value, bool):
        return f"{key} must be true or false", "write it without quotes"
    if isinstance(like, str) and not isinstance(value, str):
        return f"{key} must be text", "quote it"
    list_of_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(like, list) and not list_of_texts:
        return f"{key} must be a list of text values", "write each item on a line of its own behind a dash"
    if key in CHOICES and value not in CHOICES[key]:
        hint = f"the toolkit's own choice is {like}"
        if (key, value) == ("nvidia-container-runtime.mode", "csv"):
            hint = "csv is for Tegra boards; on other hosts its containers have no GPU"
        return f"{key}: {value!r} is not one of {', '.join(CHOICES[key])}", hint
    return None
