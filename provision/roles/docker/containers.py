"""What Docker is asked by several test modules, and how its answers read. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from provision.probe import Output, Probe, quote, words
from provision.verify.evidence import Evidence

INFO = Probe("docker info", "timeout -k 5 30 docker info --format '{{json .}}'")

IMPORT_TIMEOUT = 300
"""Seconds that importing tensorrt_llm may take; it loads gigabytes of libraries."""

NVML = (
    "import ctypes, sys; code = ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2(); "
    "sys.exit(code and f'NVML error {code}')"
)
TENSORRT_LLM = "import tensorrt_llm"

_SECTION = re.compile(r"^== (\w+)$\n(.*?)^== exit (\d+)$", re.MULTILINE | re.DOTALL)
_INSIDE = """step() { echo "== $1"; shift; timeout -k 5 "$@" 2>&1; code=$?; echo; echo "== exit $code"; }
"""


def loaded(evidence: Evidence) -> dict[str, Any] | None:
    """What the running engine says of itself; None without an answer (the client alone answers, too)."""
    try:
        found = json.loads(evidence[INFO.name].out)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("ServerVersion") else None


def plain_run(image: str, *, tensorrt_llm: bool) -> Probe:
    """Run a container of ``image`` as anybody would, without ``--gpus``, and try out what it got.

    ``--init`` makes it end with its client when that is out of time; ``--pull=never`` because verification
    downloads nothing.
    """
    inside = _INSIDE + f"step nvml 60 python3 -c {quote(NVML)}\nstep gpus 60 nvidia-smi -L\n"
    limit = 150
    if tensorrt_llm:
        inside += f"step tensorrt_llm {IMPORT_TIMEOUT} python3 -c {quote(TENSORRT_LLM)}\n"
        limit += IMPORT_TIMEOUT
    return Probe(plain_run_name(image), _run(limit, image, inside))


def plain_run_name(image: str) -> str:
    """Name of the probe :func:`plain_run`."""
    return f"docker run {image}"


def none_run(image: str) -> Probe:
    """Run a container of ``image`` that is to see no GPU."""
    inside = "nvidia-smi -L; ls /dev | grep -E '^nvidia[0-9]+$' | sed 's/^/device node /'; exit 0"
    return Probe(none_run_name(image), _run(90, image, inside, "--env=NVIDIA_VISIBLE_DEVICES=none"))


def none_run_name(image: str) -> str:
    """Name of the probe :func:`none_run`."""
    return f"docker run {image} without GPUs"


def _run(limit: int, image: str, inside: str, *options: str) -> str:
    command = words("docker", "run", "--rm", "--init", "--pull=never", *options, image, "sh", "-c", inside)
    return f"timeout -k 20 {limit} {command}"


def steps(answer: Output) -> dict[str, Output]:
    """The steps inside a container by name, with their exit codes; what an entry point prints is left out."""
    return {
        name: Output(int(code), body.encode())
        for name, body, code in _SECTION.findall(answer.out.replace("\r\n", "\n"))
    }
