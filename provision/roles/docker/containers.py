"""Containers that verification starts, and how dockerd's answers read. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from provision.probe import Output, words
from provision.shell import constant, text_of

INFO = "timeout -k 5 30 docker info --format '{{json .}}'"

INSIDE = "docker/inside.sh"

IMPORT_TIMEOUT = int(constant(INSIDE, "import_patience"))
"""Seconds that importing tensorrt_llm may take."""

_SECTION = re.compile(r"^== (\w+)$\n(.*?)^== exit (\d+)$", re.MULTILINE | re.DOTALL)


def loaded(answer: Output) -> dict[str, Any] | None:
    """What the running engine says of itself in its answer to :data:`INFO`.

    None without an answer of dockerd: the client alone answers, too.
    """
    try:
        found = json.loads(answer.out)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("ServerVersion") else None


def plain_run(image: str) -> tuple[str, int]:
    """What runs a container of ``image`` as anybody would, without ``--gpus``, and tries out what it got; and
    the seconds that it may take.

    ``--init`` makes it end with its client when that is out of time; ``--pull=never`` because verification
    downloads nothing.
    """
    if "trtllm" in image:
        return _run(150 + IMPORT_TIMEOUT, image, "try_gpus; try_tensorrt_llm")
    return _run(150, image, "try_gpus")


def none_run(image: str) -> tuple[str, int]:
    """The same for a container of ``image`` that is to see no GPU."""
    return _run(90, image, "list_gpus; exit 0", "--env=NVIDIA_VISIBLE_DEVICES=none")


def _run(limit: int, image: str, call: str, *options: str) -> tuple[str, int]:
    inside = f"{text_of(INSIDE)}{call}"
    command = words("docker", "run", "--rm", "--init", "--pull=never", *options, image, "sh", "-c", inside)
    return f"timeout -k 20 {limit} {command}", limit + 30


def steps(answer: Output) -> dict[str, Output]:
    """The steps inside a container by name, with their exit codes; what an entry point prints is left out."""
    return {
        name: Output(int(code), body.encode())
        for name, body, code in _SECTION.findall(answer.out.replace("\r\n", "\n"))
    }
