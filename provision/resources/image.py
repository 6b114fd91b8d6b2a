"""Container images that are on a host."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from provision.probe import quote
from provision.resource import ABSENT, UNKNOWN, Change, Missing, Planned
from provision.resources.dockerd import OfDockerd, Told
from provision.resources.signals import DOCKER_STORE_MOVED
from provision.role import Settings

PULL = "shell/pull.sh"

Archives = Annotated[
    str,
    StringConstraints(pattern=r"^(/[^\x00:]*|https?://[^\s@?#]+)$"),
    AfterValidator(lambda s: s.rstrip("/")),
]
"""Where archives of images are: a folder of the host, or an address. Everybody would see a login in it."""

_ODD = re.compile(rb"[^A-Za-z0-9/:@._-]")
"""Bytes that no name of an image holds; a path of HTTP holds them only as codes."""


class RegistryLogin(Settings):
    """A user of a registry. Only the pull has it, in a file that is gone when the pull ends."""

    user: str = Field(pattern=r"^[^:\x00-\x1f]+$", examples=["$oauthtoken"])
    """Name of the user."""
    password: str = Field(min_length=1, repr=False, examples=["nvapi-…"])
    """Password, or a token in its place."""

    def client_configuration(self, registry: str) -> str:
        """A configuration of Docker's client with this login (``docker login`` writes the same)."""
        server = "https://index.docker.io/v1/" if registry == "docker.io" else registry
        login = f"{self.user}:{self.password}".encode()
        return json.dumps({"auths": {server: {"auth": base64.b64encode(login).decode()}}})


def registry_of(ref: str) -> str:
    """The registry of an image, as Docker reads the reference (distribution, reference/normalize.go)."""
    first, slash, _ = ref.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else "docker.io"


def archive_of(ref: str, archives: str | None) -> str:
    """Where the archive of an image may be: ``ARCHIVES/NAME-TAG.tar``, with the last part of its name.

    Empty for an image with a digest: dockerd does not tell the digests of what it loads.
    """
    name, _, tag = ref.rpartition("/")[2].partition(":")
    return f"{archives}/{name}-{tag}.tar" if archives and "@" not in ref else ""


@dataclass(frozen=True)
class Image(OfDockerd[bool | Missing]):
    """A container image that is on the host, so that no unit start waits for a download.

    :ivar ref: ``NAME:TAG``, ``NAME@DIGEST`` or both.
    :ivar login: who pulls it; without one, root as the host's own Docker client has it.
    :ivar archive: path or address of an archive from which it is loaded if that is there, also with ``.gz``
        or ``.zst``.
    """

    ref: str
    login: RegistryLogin | None = None
    archive: str = ""
    kind: ClassVar[str] = "image"
    shell = (PULL,)

    @property
    def id(self) -> str:
        return f"image:{self.ref}"

    @property
    def leaves(self) -> tuple[str, ...]:
        return (self.id,)

    @property
    def place(self) -> str:
        """What dockerd is asked for."""
        return f"/images/{_ODD.sub(lambda byte: b'%%%02X' % ord(byte[0]), self.ref.encode()).decode()}/json"

    @property
    def places(self) -> tuple[str, ...]:
        return (self.place,)

    def seen(self, *told: Told) -> bool | Missing:
        """True for an image that is there, ABSENT, or UNKNOWN while no dockerd answers."""
        if told[0].status not in (200, 404):
            return UNKNOWN
        names = told[0].strings("RepoTags") | told[0].strings("RepoDigests")
        return True if _familiar(self.ref) in map(_familiar, names) else ABSENT

    def bare(self) -> Missing:
        """Nobody can tell before Docker is there."""
        return UNKNOWN

    def change(self, state: bool | Missing, planned: Planned) -> Change | None:
        """Pull the image if it is not there, or if nobody can tell yet."""
        lost = planned.positions((DOCKER_STORE_MOVED.name,))
        if state is True and not lost:
            return None
        return Change(
            resource=self.id,
            action="pull",
            summary=f"load {self.ref} from {self.archive}[.gz|.zst], or pull it"
            if self.archive
            else f"pull {self.ref}",
            reason="Docker's store is another one then"
            if lost
            else "it is not on the host"
            if state is ABSENT
            else "Docker cannot be asked yet (assumed absent)",
            sign="+",
            done=f"timeout -k 5 60 docker image inspect {quote(self.ref)} >/dev/null 2>&1",
            script=self._pull(),
        )

    def _pull(self) -> str:
        archive = f"archive={quote(self.archive)}; " if self.archive else ""
        if self.login is None:
            return f"{archive}pull_image {quote(self.ref)}"
        configuration = base64.encodebytes(self.login.client_configuration(registry_of(self.ref)).encode())
        return f"{archive}pull_as {quote(self.ref)} <<'END'\n{configuration.decode()}END"


def _familiar(ref: str) -> str:
    """The short form that Docker prints: without its default registry, and by digest where there is one."""
    name, at, digest = ref.partition("@")
    if at:
        head, slash, tail = name.rpartition("/")
        name = f"{head}{slash}{tail.partition(':')[0]}"
    return name.removeprefix("docker.io/").removeprefix("library/") + at + digest
