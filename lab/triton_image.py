"""The lab's container images: real tritonservers under NVIDIA's name, in a Debian root.

The servers and their python backend are those that PyPI's ``nvidia-pytriton`` carries. What only NVIDIA's
images have (CUDA, TensorRT-LLM, other backends) is missing; layout, environment, entrypoint and user are as
there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.execute import execute
from lab.rootfs import apt_sources
from lab.standins.cached import made_once

SOURCES = Path(__file__).parent / "triton"

LIBRARIES = ("numpy==1.26.4", "nvidia-ml-py==12.560.30")
"""The python backend needs numpy 1; nvidia-ml-py is the module ``pynvml``."""

DEBIAN = ("python3", "libpython3.11", "libstdc++6", "ca-certificates")


@dataclass(frozen=True)
class Release:
    """A release of Triton.

    :ivar name: as in the tags of NVIDIA's images.
    :ivar server: version of tritonserver.
    :ivar wheel: what carries that (pytriton's CHANGELOG).
    :ivar folder: of the image in the cache.
    :ivar tensorrt_llm: version of the library.
    :ivar cuda: CUDA and the driver that both flavours were built with, the plain one first (compatibility.md
        of triton-inference-server/server).
    :ivar packages: of Debian, beyond those that each has.
    """

    name: str
    server: str
    wheel: str
    folder: str
    tensorrt_llm: str
    cuda: tuple[tuple[str, str], tuple[str, str]]
    packages: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, str]:
        """The plain flavour, and that with TensorRT-LLM."""
        return f"{self.name}-py3", f"{self.name}-trtllm-python-py3"


USUAL = Release(
    "24.07",
    server="2.48.0",
    wheel="nvidia-pytriton==0.5.10",
    folder="image",
    tensorrt_llm="0.11.0",
    cuda=(("12.5.1", "555.42.06"), ("12.4.1", "550.54.15")),
)
"""What every lab has."""

NEWER = Release(
    "24.10",
    server="2.51.0",
    wheel="nvidia-pytriton==0.7.0",
    folder="image-24.10",
    tensorrt_llm="0.14.0",
    cuda=(("12.6.2", "560.35.03"), ("12.5.1", "555.42.06")),
    packages=("openmpi-bin",),
)
"""Only in labs whose tests want it (``Lab.offer``): to upgrade to, and with an mpirun that starts ranks."""

ENVIRONMENT = {
    "PATH": "/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LD_LIBRARY_PATH": "/opt/tritonserver/lib",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility,video",
    "NVIDIA_REQUIRE_CUDA": "cuda>=9.0",
    "NVIDIA_PRODUCT_NAME": "Triton Server",
    "TRITON_SERVER_USER": "triton-server",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}

SITE = "usr/local/lib/python3.11/dist-packages"
"""Where Debian's python3 looks; the python backend's stub ignores PYTHONPATH."""


def build_image(cache: Path, release: Release = USUAL) -> Path:
    """Make the image of a release, or find it in the cache when its recipe is unchanged.

    :param cache: the layout lands in a folder there.
    :returns: an OCI layout with the tags of the release.
    :raises ProvisionError: a step failed, most likely a download.
    """
    return made_once(cache / release.folder, _digest(), lambda work: _build(work, release))


def _build(work: Path, release: Release) -> Path:
    wheels = _download(work, release)
    root = _root(work, release)
    _install(root, wheels)
    layout = work / "layout"
    _pack(layout, root, work, release)
    return layout


def _digest() -> str:
    files = [Path(__file__), *sorted(SOURCES.iterdir())]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _download(work: Path, release: Release) -> Path:
    """Wheels for the image's Python, which need not be this one's."""
    wheels = work / "wheels"
    platforms = ("manylinux_2_35_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
    execute(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--python-version", "3.11", "--implementation", "cp", "--dest", str(wheels)),
        *(f"--platform={name}" for name in platforms),
        *(release.wheel, *LIBRARIES),
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return wheels


def _root(work: Path, release: Release) -> Path:
    """A minimal Debian with Python, without documentation and package lists."""
    root = work / "root"
    sources, packages = work / "sources.list", ",".join((*DEBIAN, *release.packages))
    sources.write_text("".join(f"{line}\n" for line in apt_sources("bookworm")), encoding="utf-8")
    execute(
        *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={packages}"),
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


def _pack(layout: Path, root: Path, work: Path, release: Release) -> None:
    """Two tags: the TensorRT-LLM one is the plain one and one more layer."""
    plain, tensorrt = (f"{layout}:{tag}" for tag in release.tags)
    names = {"NVIDIA_TRITON_SERVER_VERSION": release.name, "TRITON_SERVER_VERSION": release.server}
    execute("umoci", "init", "--layout", str(layout))
    execute("umoci", "new", "--image", plain)
    execute("umoci", "insert", "--image", plain, str(root), "/")
    execute(
        *("umoci", "config", "--image", plain, "--config.workingdir=/opt/tritonserver"),
        "--config.entrypoint=/opt/nvidia/nvidia_entrypoint.sh",
        "--config.label=org.opencontainers.image.description=lab image, not NVIDIA's",
        *_environment(ENVIRONMENT | names | _cuda(*release.cuda[0])),
    )
    execute("umoci", "tag", "--image", plain, release.tags[1])
    module = work / "tensorrt_llm"
    module.mkdir()
    text = (SOURCES / "tensorrt_llm.py").read_text(encoding="utf-8")
    (module / "__init__.py").write_text(text.replace("VERSION", release.tensorrt_llm), encoding="utf-8")
    execute("umoci", "insert", "--image", tensorrt, str(module), f"/{SITE}/tensorrt_llm")
    execute("umoci", "config", "--image", tensorrt, *_environment(_cuda(*release.cuda[1])))
    execute("umoci", "gc", "--layout", str(layout))


def _cuda(version: str, driver: str) -> dict[str, str]:
    return {"CUDA_VERSION": version, "CUDA_DRIVER_VERSION": driver}


def _environment(variables: Mapping[str, str]) -> list[str]:
    return [f"--config.env={name}={value}" for name, value in variables.items()]
