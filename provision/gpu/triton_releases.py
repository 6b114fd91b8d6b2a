"""What a tag of NVIDIA's tritonserver image stands for: its release, its variant, and what they hold."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from provision.data import table

RELEASES = "gpu/triton_releases.tsv"
"""The table, a line a cell: each has its certainty and its source."""

Variant = Literal["py3", "trtllm", "vllm"]
Certainty = Literal["read", "inferred", "memory"]

TAGS: Mapping[Variant, str] = {"py3": "py3", "trtllm": "trtllm-python-py3", "vllm": "vllm-python-py3"}
"""What follows the release in the tag of a variant."""

_REFERENCE = re.compile(
    r"(?:(?P<name>[^\s@]+?):)?(?P<release>\d\d\.(?:0[1-9]|1[0-2]))(?P<rest>-[\w.-]+)?(?:@sha256:[0-9a-f]{6,64})?",
    re.ASCII,
)
_WORD = r"|(py3|python|sdk|min|trtllm|vllm|pyt|tf2|igpu|cu(da)?[\d.]+)"
_CUDA = re.compile(r"-cu(?:da)?(\d\d)(?:\.?\d)?(?=-|$)", re.ASCII)


@dataclass(frozen=True)
class Tag:
    """A tag of NVIDIA's image, read.

    :ivar name: of the image, with its registry; empty where only the tag was given.
    :ivar release: ``24.07``.
    :ivar rest: what follows it, without the hyphen: ``trtllm-python-py3``; may be empty.
    """

    name: str
    release: str
    rest: str

    def __str__(self) -> str:
        return f"{self.release}-{self.rest}" if self.rest else self.release

    @property
    def variant(self) -> Variant:
        """Whose CUDA it has: images without a framework have that of py3."""
        return next((name for name in ("trtllm", "vllm") if name in self.rest), "py3")

    @property
    def is_of_a_known_variant(self) -> bool:
        """Whether what follows the release is made of words that NVIDIA's tags have; nothing may follow."""
        return all(re.fullmatch(_WORD, word) for word in self.rest.split("-"))

    @property
    def cuda_major(self) -> int | None:
        """The CUDA major that the tag itself names (``-cu13``), or None."""
        found = _CUDA.search(f"-{self.rest}")
        return int(found[1]) if found else None

    @property
    def is_for_jetson(self) -> bool:
        """Whether it is for integrated GPUs, which have no driver of their own version."""
        return "igpu" in self.rest

    @property
    def is_nvidias(self) -> bool:
        """Whether it is called as NVIDIA's: copies in other registries keep the last part of the name."""
        return self.name.rpartition("/")[2] in ("", "tritonserver")


@dataclass(frozen=True)
class Cell:
    """One value of the table.

    :ivar certainty: read in the source, inferred from it, or from memory.
    """

    value: str
    certainty: Certainty
    source: str


@dataclass(frozen=True)
class Release:
    """A release of the container.

    :ivar server: the version of the server.
    :ivar capability: the lowest compute capability of a GPU that it uses.
    :ivar cuda: the CUDA version of each variant that is known; some are known by their major alone.
    """

    name: str
    server: Cell
    capability: Cell
    cuda: Mapping[Variant, Cell]


@functools.cache
def releases() -> Mapping[str, Release]:
    """All releases by name, oldest first."""
    cells: dict[str, dict[str, Cell]] = {}
    for row in table(RELEASES):
        cell = Cell(row["value"], cast(Certainty, row["certainty"]), row["source"])
        cells.setdefault(row["release"], {})[row["property"]] = cell
    return {
        name: Release(name, of["server"], of["capability"], {v: of[v] for v in get_args(Variant) if v in of})
        for name, of in sorted(cells.items())
    }


def read_tag(image: str) -> Tag | None:
    """Read a tag, or a whole reference with registry and digest; None if it is not of NVIDIA's kind."""
    found = _REFERENCE.fullmatch(image)
    return Tag(found["name"] or "", found["release"], (found["rest"] or "")[1:]) if found else None


def release_of(image: str) -> str | None:
    """The release (``24.07``) in the tag of an image reference, or None if the tag is not NVIDIA's kind."""
    tag = read_tag(image)
    return tag.release if tag else None


def server_version(image: str) -> str | None:
    """The version that ``/v2`` of this image must report, or None if it is not known for certain."""
    release = releases().get(release_of(image) or "")
    return release.server.value if release and release.server.certainty == "read" else None
