"""Which images need a GPU, by their names. Pure.

The names are those of NVIDIA's registry, nvcr.io, and of its organisation ``nvidia`` in others.
"""

from __future__ import annotations

import re

_OF_NVIDIA = re.compile(
    r"cuda|cuda-samples?|cuda-quantum|tensorrt|pytorch|tensorflow|jax|nemo|nccl-tests|hpc-benchmarks|rapidsai|dali"
    r"|tritonserver|dynamo|vllm(-runtime)?|sglang(-runtime)?"
)
"""Programs of NVIDIA's organisation; others have images of the same names."""

_ANYWHERE = re.compile(r"tritonserver|trt-?llm|tensorrt[-_]?llm|vllm-openai|cuda-vector-?add|cuda-sample")
"""Parts of names that mean a GPU in any registry: images built upon NVIDIA's keep them."""

_TRTLLM = re.compile(r"trt-?llm|tensorrt[-_]?llm")

_WITHOUT = re.compile(r"(^|[._-])(sdk|cpu(-?only)?|cpuonly)($|[._-])")
"""Tags of variants that need none: client programs, builds for the CPU."""

_INFRASTRUCTURE = re.compile(
    r"k8s-device-plugin|gpu-feature-discovery|gpu-operator(-validator)?|dcgm(-exporter)?|container-toolkit|driver"
    r"|k8s-driver-manager|k8s-mig-manager|vgpu-device-manager|k8s-dra-driver(-gpu)?|mig-parted|nim-operator"
    r"|k8s-nim-operator|nvidia-smi-exporter|nvidia-fs"
)
"""What gives GPUs to others, or watches them. It sees all GPUs of a node, and must ask for none."""


def needs_gpu(image: str) -> bool:
    """Whether a container of this image is of no use without a GPU."""
    path, last, tag = _parts(image)
    if is_infrastructure(image) or _WITHOUT.search(tag) or _WITHOUT.search(last):
        return False
    if any(map(_ANYWHERE.search, (*path[1:], last))) or "nim" in path:
        return True
    return bool({"nvidia", "nvcr.io"} & set(path)) and _OF_NVIDIA.fullmatch(last) is not None


def imports_tensorrt_llm(image: str) -> bool:
    """Whether the image's programs import ``tensorrt_llm``, which loads NVML as it is imported."""
    path, last, tag = _parts(image)
    return any(map(_TRTLLM.search, (*path[1:], last, tag)))


def is_infrastructure(image: str) -> bool:
    """Whether the image is a part of NVIDIA's software for clusters."""
    return _INFRASTRUCTURE.fullmatch(_parts(image)[1]) is not None


def _parts(image: str) -> tuple[tuple[str, ...], str, str]:
    """The path before the name, the name, and the tag of a reference, in lower case."""
    name, _, _ = image.lower().partition("@")
    *path, last = name.split("/")
    last, _, tag = last.partition(":")
    return tuple(path), last, tag
