"""The lab's container image: the real tritonserver of release 24.07, under NVIDIA's name, in a Debian root.

The server and its python backend are those that PyPI's ``nvidia-pytriton`` carries. What only NVIDIA's images
have (CUDA, TensorRT-LLM, other backends) is missing; layout, environment, entrypoint and user are as there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

from lab.execute import execute
from lab.rootfs import apt_sources
from lab.standins.cached import made_once

SOURCES = Path(__file__).parent / "triton"

PLAIN = "24.07-py3"
TENSORRT = "24.07-trtllm-python-py3"
TAGS = (TENSORRT, PLAIN)

SERVER = "nvidia-pytriton==0.5.10"
"""Carries tritonserver 2.48.0, which is release 24.07 (pytriton's CHANGELOG)."""

LIBRARIES = ("numpy==1.26.4", "nvidia-ml-py==12.560.30")
"""The python backend needs numpy 1; nvidia-ml-py is the module ``pynvml``."""

DEBIAN = ("python3", "libpython3.11", "libstdc++6", "ca-certificates")

ENVIRONMENT = {
    "PATH": "/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LD_LIBRARY_PATH": "/opt/tritonserver/lib",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility,video",
    "NVIDIA_REQUIRE_CUDA": "cuda>=9.0",
    "NVIDIA_PRODUCT_NAME": "Triton Server",
    "NVIDIA_TRITON_SERVER_VERSION": "24.07",
    "TRITON_SERVER_VERSION": "2.48.0",
    "TRITON_SERVER_USER": "triton-server",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}

CUDA = {
    PLAIN: {"CUDA_VERSION": "12.5.1", "CUDA_DRIVER_VERSION": "555.42.06"},
    TENSORRT: {"CUDA_VERSION": "12.4.1", "CUDA_DRIVER_VERSION": "550.54.15"},
}
"""What each flavour of 24.07 was built with (compatibility.md of triton-inference-server/server)."""

SITE = "usr/local/lib/python3.11/dist-packages"
"""Where Debian's python3 looks; the python backend's stub ignores PYTHONPATH."""


def build_image(cache: Path) -> Path:
    """Make the image, or find it in the cache when its recipe is unchanged.

    :param cache: the layout lands in ``cache/image/DIGEST/``.
    :returns: an OCI layout with the tags of :data:`TAGS`.
    :raises ProvisionError: a step failed, most likely a download.
    """
    return made_once(cache / "image", _digest(), _build)


def _build(work: Path) -> Path:
    wheels = _download(work)
    root = _root(work)
    _install(root, wheels)
    layout = work / "layout"
    _pack(layout, root, work)
    return layout


def _digest() -> str:
    files = [Path(__file__), *sorted(SOURCES.iterdir())]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _download(work: Path) -> Path:
    """Wheels for the image's Python, which need not be this one's."""
    wheels = work / "wheels"
    platforms = ("manylinux_2_35_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
    execute(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--python-version", "3.11", "--implementation", "cp", "--dest", str(wheels)),
        *(f"--platform={name}" for name in platforms),
        *(SERVER, *LIBRARIES),
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return wheels


def _root(work: Path) -> Path:
    """A minimal Debian with Python, without documentation and package lists."""
    root = work / "root"
    sources = work / "sources.list"
    sources.write_text("".join(f"{line}\n" for line in apt_sources("bookworm")), encoding="utf-8")
    execute(
        *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(DEBIAN)}"),
        *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
        *("--dpkgopt=path-exclude=/usr/share/locale/*", '--aptopt=Acquire::Languages "none"'),
        '--customize-hook=chroot "$1" useradd --uid 1000 --user-group --create-home triton-server',
        '--customize-hook=rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*_*',
        *("bookworm", str(root), str(sources)),
    )
    return root


def _install(root: Path, wheels: Path) -> None:
    """Put server, backend and Python modules where NVIDIA's image has them."""
    unpacked = wheels / "unpacked"
    for wheel in wheels.glob("*.whl"):
        target = unpacked if wheel.name.startswith("nvidia_pytriton") else root / SITE
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    server, home = unpacked / "pytriton" / "tritonserver", root / "opt" / "tritonserver"
    shutil.copytree(unpacked / "nvidia_pytriton.libs", home / "lib")
    for part in ("bin", "backends", "caches"):
        shutil.copytree(server / part, home / part)
    stub = home / "backends" / "python" / "triton_python_backend_stub"
    shutil.copyfile(server / "python_backend_stubs" / "3.11" / stub.name, stub)
    for program in (home / "bin" / "tritonserver", stub):
        program.chmod(0o755)
    (root / "opt" / "nvidia").mkdir()
    entrypoint = root / "opt" / "nvidia" / "nvidia_entrypoint.sh"
    shutil.copyfile(SOURCES / entrypoint.name, entrypoint)
    entrypoint.chmod(0o755)
    (root / "workspace").mkdir()


def _pack(layout: Path, root: Path, work: Path) -> None:
    """Two tags: the TensorRT-LLM one is the plain one and one more layer."""
    plain, tensorrt = f"{layout}:{PLAIN}", f"{layout}:{TENSORRT}"
    execute("umoci", "init", "--layout", str(layout))
    execute("umoci", "new", "--image", plain)
    execute("umoci", "insert", "--image", plain, str(root), "/")
    execute(
        *("umoci", "config", "--image", plain, "--config.workingdir=/opt/tritonserver"),
        "--config.entrypoint=/opt/nvidia/nvidia_entrypoint.sh",
        "--config.label=org.opencontainers.image.description=lab image, not NVIDIA's",
        *(f"--config.env={name}={value}" for name, value in (ENVIRONMENT | CUDA[PLAIN]).items()),
    )
    execute("umoci", "tag", "--image", plain, TENSORRT)
    module = work / "tensorrt_llm"
    module.mkdir()
    shutil.copyfile(SOURCES / "tensorrt_llm.py", module / "__init__.py")
    execute("umoci", "insert", "--image", tensorrt, str(module), f"/{SITE}/tensorrt_llm")
    environment = (f"--config.env={name}={value}" for name, value in CUDA[TENSORRT].items())
    execute("umoci", "config", "--image", tensorrt, *environment)
    execute("umoci", "gc", "--layout", str(layout))


def image_environment(layout: Path, tag: str) -> list[str]:
    """The environment in the configuration of a tag, as ``docker image inspect`` shows it."""
    shown = execute("skopeo", "inspect", "--config", f"oci:{layout}:{tag}").stdout
    environment = json.loads(shown)["config"]["Env"]
    return [str(one) for one in environment]
