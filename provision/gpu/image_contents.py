"""What an image of Triton needs of a driver and a GPU: by its tag, or by its own configuration."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provision.gpu.models import Capability
from provision.gpu.triton_releases import TAGS, Certainty, Tag, Variant, releases
from provision.gpu.verdict import Verdict


@dataclass(frozen=True)
class Contents:
    """What an image holds that a driver and a GPU have to run.

    :ivar name: what it is called in sentences: ``24.07-py3``.
    :ivar major: of its CUDA.
    :ivar minor: likewise; None where only the major is known.
    :ivar capability: the lowest compute capability that its server uses.
    :ivar certainty: of the CUDA version, as the table of releases has it.
    :ivar variant: for hints that name another release; None where there is none to name.
    :ivar accepts: branches of older majors that the image itself accepts on data centre GPUs.
    """

    name: str
    major: int
    minor: int | None
    capability: Capability
    certainty: Certainty = "read"
    source: str = ""
    variant: Variant | None = None
    accepts: tuple[int, ...] = ()

    @property
    def cuda(self) -> str:
        """``12.4``, or the major alone where the minor is not known."""
        return f"{self.major}" if self.minor is None else f"{self.major}.{self.minor}"


def contents_of(tag: Tag) -> Contents | Verdict:
    """What an image of NVIDIA's holds by its tag; a verdict where that is not known."""
    if tag.is_for_jetson:
        said = f"{tag} is for integrated GPUs (Jetson), whose drivers have versions of their own"
        return Verdict("unknown", said)
    release = releases().get(tag.release)
    if release is None:
        return _of_no_known_release(tag)
    if not tag.is_of_a_known_variant:
        near = difflib.get_close_matches(tag.rest.lower(), TAGS.values(), n=1, cutoff=0.7)
        hint = f"did you mean {tag.release}-{near[0]}?" if near else f"NVIDIA has {', '.join(TAGS.values())}"
        return Verdict("unknown", f"{tag} is no tag of NVIDIA's that is known here", hint)
    capability, cell = pair(release.capability.value), release.cuda.get(tag.variant)
    named = tag.cuda_major
    if cell and named in (None, int(cell.value.partition(".")[0])):
        major, *minor = map(int, cell.value.split(".")[:2])
        return Contents(
            str(tag),
            major,
            minor[0] if minor else None,
            capability,
            cell.certainty,
            cell.source,
            tag.variant,
        )
    if named:
        return Contents(str(tag), named, None, capability, "inferred", "the tag", tag.variant)
    return Verdict(
        "unknown",
        f"no {TAGS[tag.variant]} of release {tag.release} is known here",
        f"take {tag.release}-py3, or a later release",
    )


def contents_in(config: Mapping[str, Any], name: str, capability: Capability = (0, 0)) -> Contents | None:
    """What an image holds by its own configuration, ``Config`` of ``docker image inspect``.

    :param name: what to call it.
    :param capability: the lowest that its server uses, where that is known.
    :returns: None if it does not tell its CUDA version.
    """
    variables, labels = config.get("Env"), config.get("Labels")
    pairs = (str(one).partition("=") for one in variables) if isinstance(variables, list) else ()
    env = {key: value for key, _, value in pairs}
    label = labels.get("com.nvidia.cuda.version") if isinstance(labels, Mapping) else ""
    told = re.match(r"(\d{1,2})\.(\d{1,2})(?!\d)", env.get("CUDA_VERSION") or str(label or ""), re.ASCII)
    if not told:
        return None
    return Contents(
        name,
        int(told[1]),
        int(told[2]),
        capability,
        source="the image's own configuration",
        accepts=_accepted(env.get("NVIDIA_REQUIRE_CUDA", "")),
    )


def pair(text: str) -> Capability:
    """``7.5`` as two numbers."""
    major, minor = text.split(".")
    return int(major), int(minor)


def _of_no_known_release(tag: Tag) -> Verdict:
    first, last = min(releases()), max(releases())
    known = f"than the releases that are known here ({first} to {last})"
    if tag.release < first:
        return Verdict("unknown", f"{tag} is older {known}", f"take a release from {first} on")
    return Verdict(
        "unknown",
        f"{tag} is newer {known}",
        "once the image is on the host, inv verify judges it by the CUDA version that it names itself",
    )


def _accepted(required: str) -> tuple[int, ...]:
    """The branches in NVIDIA_REQUIRE_CUDA, whose alternatives are divided by blanks.

    Such a one is ``brand=tesla,driver>=470,driver<471``.
    """
    found = re.findall(r"brand=tesla,driver>=(\d{3}),driver<\d{3}(?=\s|$)", required, re.ASCII)
    return tuple(dict.fromkeys(map(int, found)))
