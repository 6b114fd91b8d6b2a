"""Arguments of tritonserver that settings give, and those that its unit sets. Pure."""

from __future__ import annotations

import re
from itertools import pairwise

PORTS_INSIDE = {"http_port": 8000, "grpc_port": 8001, "metrics_port": 8002}
"""Ports in the container, which are Triton's own defaults, by the setting of the host's."""


def options(args: list[str]) -> list[tuple[str, str]]:
    """Options of tritonserver with their values, whether these are words of their own or not."""
    words = [
        word for arg in args for word in (re.split(r"[=\s]+", arg, maxsplit=1) if arg[:2] == "--" else [arg])
    ]
    return [(word, following) for word, following in pairwise([*words, ""]) if word.startswith("--")]


def unit_sets(option: str, value: str) -> tuple[str, str] | None:
    """Why an instance cannot have an option of tritonserver, and what to do; None if it can."""
    name = option.removeprefix("--").replace("-", "_")
    if name in PORTS_INSIDE:
        return f"the unit publishes port {PORTS_INSIDE[name]} of the container", f"use {name}"
    if name in ("http_address", "grpc_address", "metrics_address"):
        return "Docker publishes the ports of all addresses of the container", "use address"
    if name == "allow_http" and value.lower() not in ("true", "1", "on"):
        return "the unit asks over HTTP whether the server is ready", "take it out"
    return None
