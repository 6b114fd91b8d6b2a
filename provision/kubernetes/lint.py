"""Manifests, judged for how their containers ask for GPUs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from provision.inventory.values import Document, Item
from provision.kubernetes.asking import ASK, Asked, asked
from provision.kubernetes.fault import ERROR, WARNING, Fault, error, warning
from provision.kubernetes.images import imports_tensorrt_llm, is_infrastructure, needs_gpu
from provision.kubernetes.objects import Container, Pod, at, elements, entries, objects, pods, text
from provision.kubernetes.quantities import is_gpu, meant
from provision.kubernetes.shape import shape_faults

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
_NO_GPU = {VISIBLE: ("void", "none", ""), "CUDA_VISIBLE_DEVICES": ("-1", "", "NoDevFiles")}
"""Values that say that a container shall have no GPU."""
_CUDA = (VISIBLE, "CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_CUDA")

_FOR_CPU = f"if it shall have none: env: [{{name: {VISIBLE}, value: void}}]"
_SHM = "a volume emptyDir: {medium: Memory, sizeLimit: 2Gi}, mounted at /dev/shm"
_CLASS = "runtimeClassName: nvidia, in the spec of the Pod"
_DOCKERS = {
    "runtime": _CLASS,
    "runtimeClass": _CLASS,
    "gpus": ASK,
    "device_requests": ASK,
    "deploy": ASK,
    "shm_size": _SHM,
    "shmSize": _SHM,
    "ipc": f"hostIPC: true in the spec of the Pod, or {_SHM}",
}
"""Words of Docker and Compose, with what Kubernetes has in their place."""

_DOCKERS_OPTION = re.compile(r"(?:^|\s)(--gpus|--runtime[= ]nvidia|--shm-size)(?:[=\s]|$)")

_OF_THE_DRIVER = re.compile(
    r"/dev/nvidia.*|(/[\w.-]+)*/(lib|lib64|x86_64-linux-gnu|aarch64-linux-gnu)/lib(nvidia|cuda\.|nvcuvid).*"
    r"|/usr/local/nvidia(/.*)?|/usr/lib/nvidia[^/]*(/.*)?|/usr/bin/nvidia-smi|/home/kubernetes/bin/nvidia(/.*)?",
    re.DOTALL,
)
"""Paths of a node that the container runtime gives to containers with GPUs, in the driver's version."""


def faults(documents: Iterable[Document]) -> list[Fault]:
    """What there is to say about all objects of documents, in the order of places."""
    return sorted({fault for document in documents for fault in _of_document(document.root)})


def _of_document(root: Item) -> Iterator[Fault]:
    for item in objects(root):
        yield from shape_faults(item)
    for pod in pods(root):
        yield from _of_pod(pod)


def _of_pod(pod: Pod) -> Iterator[Fault]:
    yield from _of_docker(pod.subject, pod.spec)
    for name, item in _pod_resources(pod):
        message = f"{pod.subject}: {name} does nothing in resources of the Pod; only containers have GPUs"
        yield error(item, message, f"in the container: {ASK}")
    for container in pod.containers:
        yield from _of_container(pod, container)
    if not any(is_infrastructure(container.image) for container in pod.containers):
        yield from _driver_volumes(pod)


def _pod_resources(pod: Pod) -> Iterator[tuple[str, Item]]:
    for key in ("limits", "requests"):
        for name, item in entries(at(pod.spec, "resources", key)).items():
            if is_gpu(name) or meant(name):
                yield name, item


def _driver_volumes(pod: Pod) -> Iterator[Fault]:
    for volume in elements(at(pod.spec, "volumes")):
        path = at(volume, "hostPath", "path")
        if path is not None and _OF_THE_DRIVER.fullmatch(text(path)):
            message = f"{pod.subject}: {text(path)} is a part of the node's driver, which its runtime brings"
            yield warning(path, message, f"take the volume out; {ASK} brings it in the right version")


def _of_docker(subject: str, item: Item) -> Iterator[Fault]:
    for key, value in entries(item).items():
        if key in _DOCKERS:
            yield error(value, f"{subject}: {key} does nothing in Kubernetes", _DOCKERS[key])


def _of_container(pod: Pod, container: Container) -> Iterator[Fault]:
    subject = f"{pod.subject}, {container.kind} {container.name}"
    found = asked(container.item)
    for fault in found.faults:
        yield replace(fault, message=f"{subject}: {fault.message}")
    yield from _of_docker(subject, container.item)
    for word in container.words:
        if option := _DOCKERS_OPTION.search(text(word)):
            message = f"{subject}: {option[1]} is an option of docker run, and is given to the program here"
            yield warning(word, message, _SHM if option[1] == "--shm-size" else ASK)
    if container.kind == "ephemeral container" and at(container.item, "resources"):
        message = f"{subject}: an ephemeral container cannot ask for resources; the API refuses them"
        yield Fault(container.where, ERROR, message, "kubectl exec into a container that has the GPUs")
    if is_infrastructure(container.image):
        return
    if found.tried:
        yield from _of_asking(pod, container, subject, found)
    else:
        yield from _without(pod, container, subject)


def _of_asking(pod: Pod, container: Container, subject: str, found: Asked) -> Iterator[Fault]:
    """What a container needs beside the GPUs that it asks for."""
    if found.gpus == 0:
        if _wants_gpu(container) and not any(fault.severity == ERROR for fault in found.faults):
            yield Fault(container.where, ERROR, f"{subject}: {_fate(container)}", ASK)
        return
    if not text(at(pod.spec, "runtimeClassName")) and not found.claims:
        message = f"{subject}: it asks for GPUs, and the Pod has no runtime class"
        hint = "runtimeClassName: nvidia, unless nvidia is the default runtime of the nodes, or CDI is in use"
        yield Fault(container.where, WARNING, message, hint)
    if VISIBLE in container.env:
        away = "keep away the GPUs" if _says_none(container, VISIBLE) else "give it other GPUs than those"
        message = f"{subject}: {VISIBLE} may {away} that were scheduled"
        yield warning(container.env[VISIBLE], message, f"take {VISIBLE} out: the device plugin sets it")
    if found.gpus > 1 and imports_tensorrt_llm(container.image):
        yield from _shared_memory(pod, container, subject, found.gpus)


def _without(pod: Pod, container: Container, subject: str) -> Iterator[Fault]:
    """A container that asks for no GPU in any way."""
    if not _wants_gpu(container):
        return
    hint = f"{ASK}; {_FOR_CPU}"
    if imports_tensorrt_llm(container.image):
        hint = f"{ASK}, and {_CLASS}"
    if container.kind == "ephemeral container":
        hint = "kubectl exec into a container that has the GPUs; an ephemeral one cannot ask for them"
    if VISIBLE in container.env and not _says_none(container, VISIBLE):
        message = f"{subject}: {VISIBLE} takes GPUs past the scheduler, which may give them to others"
        yield error(container.env[VISIBLE], message, f"{ASK} in its place")
    elif _gets_all(pod, container) and needs_gpu(container.image):
        message = f"{subject}: without a limit, the runtime gives it all GPUs of the node, past the scheduler"
        yield Fault(container.where, ERROR, message, hint)
    else:
        yield Fault(container.where, ERROR, f"{subject}: {_fate(container)}", hint)


def _gets_all(pod: Pod, container: Container) -> bool:
    """Whether the runtime gives all GPUs of the node to a container that asks for none."""
    return "nvidia" in text(at(pod.spec, "runtimeClassName")) and not _says_none(container, VISIBLE)


def _fate(container: Container) -> str:
    """What becomes of a container that needs a GPU and has none."""
    image = container.image
    if imports_tensorrt_llm(image):
        return f"{image} without a GPU: import tensorrt_llm ends in NVML Shared Library Not Found"
    if "tritonserver" in image and "vllm" not in image and needs_gpu(image):
        return f"{image} without a GPU serves on the CPU, and says that it is ready"
    if needs_gpu(image):
        return f"{image} needs a GPU, and the container asks for none"
    names = [name for name in _CUDA if name in container.env and not _says_none(container, name)]
    return f"{', '.join(names)} is for a container with a GPU, and it asks for none"


def _wants_gpu(container: Container) -> bool:
    if imports_tensorrt_llm(container.image) and needs_gpu(container.image):
        return True
    if any(_says_none(container, name) for name in _NO_GPU):
        return False
    return needs_gpu(container.image) or any(name in container.env for name in _CUDA)


def _says_none(container: Container, name: str) -> bool:
    """Whether an environment variable keeps all GPUs away."""
    entry = container.env.get(name)
    if entry is None or at(entry, "valueFrom") is not None:
        return False
    return text(at(entry, "value")) in _NO_GPU.get(name, ())


def _shared_memory(pod: Pod, container: Container, subject: str, gpus: int) -> Iterator[Fault]:
    """TensorRT-LLM's processes share memory; Kubernetes gives a container 64 MB of it."""
    mounts = [
        mount
        for mount in elements(at(container.item, "volumeMounts"))
        if text(at(mount, "mountPath")).rstrip("/") == "/dev/shm"  # noqa: S108  # a path in containers
    ]
    host = at(pod.spec, "hostIPC")
    if host is not None and host.value is True:
        return
    if not mounts:
        message = f"{subject}: TensorRT-LLM on {gpus} GPUs has 64 MB of shared memory, and NCCL needs more"
        yield Fault(container.where, WARNING, message, _SHM)
        return
    volume = text(at(mounts[0], "name"))
    for one in elements(at(pod.spec, "volumes")):
        folder = at(one, "emptyDir")
        if text(at(one, "name")) == volume and folder and text(at(folder, "medium")) != "Memory":
            message = f"{subject}: /dev/shm is on the node's disk: its emptyDir has no medium Memory"
            yield warning(folder, message, _SHM)
