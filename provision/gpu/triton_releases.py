"""What a tag of NVIDIA's tritonserver image stands for."""

from __future__ import annotations

import re

SERVER_VERSIONS = {
    "24.03": "2.44.0",
    "24.04": "2.45.0",
    "24.05": "2.46.0",
    "24.06": "2.47.0",
    "24.07": "2.48.0",
    "24.08": "2.49.0",
    "24.09": "2.50.0",
    "24.10": "2.51.0",
    "25.06": "2.59.0",
    "26.07": "2.71.0",
}
"""Release of the container (YY.MM) to version of the server, from Triton's release notes."""

FIRST_WITHOUT_2025_RCE = "25.07"
"""First release without the unauthenticated code execution of August 2025 (CVE-2025-23319 and others)."""


def release_of(image: str) -> str | None:
    """The release (``24.07``) in the tag of an image reference, or None if the tag is not NVIDIA's kind."""
    tag = re.search(r":(\d\d\.\d\d)(?:-[\w.-]+)?(?:@|$)", image)
    return tag.group(1) if tag else None


def server_version(image: str) -> str | None:
    """The version that ``/v2`` of this image must report, or None if the table does not know it."""
    return SERVER_VERSIONS.get(release_of(image) or "")


def has_known_rce(image: str) -> bool:
    """Whether the image is of a release that anybody who reaches its ports can take over."""
    release = release_of(image)
    return release is not None and release < FIRST_WITHOUT_2025_RCE
