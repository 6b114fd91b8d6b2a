"""Public repositories of packages, and a site's mirror of all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from provision.render import template_path
from provision.resources.packages.repository import (
    ADDRESS,
    FINGERPRINT_EXAMPLE,
    KEY_EXAMPLE,
    Repo,
    RepoWithFetchedKey,
    check_address,
    check_key,
)
from provision.role import ImpossibleError, Settings


class Mirror(Settings):
    """Settings under ``mirror:``, a variable of the host that all roles share; or under one role's key."""

    base: str = Field(pattern=ADDRESS, examples=["https://mirror.example.com"])
    """Address that holds each public repository below its own host's name, as apt-mirror lays them out:
    ``BASE/developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/``."""
    key: str | None = Field(default=None, examples=[KEY_EXAMPLE])
    """Key of a mirror that re-signs its copies, ASCII-armoured; null: copies signed by their publishers."""
    fingerprint: str | None = Field(default=None, examples=[FINGERPRINT_EXAMPLE])
    """Fingerprint of that key."""

    @model_validator(mode="after")
    def _key_and_fingerprint(self) -> Mirror:
        if (self.key is None) != (self.fingerprint is None):
            raise ImpossibleError(
                "key and fingerprint go together",
                hint="give both for a mirror that re-signs its copies, and neither for a plain copy",
            )
        check_address(self.base)
        if self.key is not None and self.fingerprint is not None:
            check_key(self.key, self.fingerprint)
        return self

    def address(self, public: str) -> str:
        """Where the mirror has the repository that is at ``public`` on the internet."""
        return f"{self.base.rstrip('/')}/{public.partition('://')[2]}"


def public_repository(
    address: str,
    key: str,
    fingerprint: str,
    mirror: Mirror | None,
    *,
    suite: str = "/",
    components: tuple[str, ...] = (),
    signed: Literal["both", "packages", "metadata"] = "both",
) -> Repo:
    """The repository at ``address``, from the site's mirror where there is one.

    :param key: template with its publisher's key.
    :param fingerprint: of that key.
    :param signed: see :class:`Repo`.
    """
    return Repo(
        uri=mirror.address(address) if mirror else address,
        suite=suite,
        components=list(components),
        signed=signed,
        key=(mirror and mirror.key) or template_path(key).read_text("ascii"),
        fingerprint=(mirror and mirror.fingerprint) or fingerprint,
    )


def public_rpm_repository(
    address: str, key: str, fingerprint: str, mirror: Mirror | None
) -> Repo | RepoWithFetchedKey:
    """The repository for dnf at ``address``, from the site's mirror where there is one.

    A mirror that re-signs its copies signs packages and metadata. Of the publishers' signatures those of the
    packages count, as in the source files that they offer.

    :param key: address of the file with its publisher's key, which is not part of this program.
    :param fingerprint: of that key.
    """
    uri = mirror.address(address) if mirror else address
    if mirror and mirror.key and mirror.fingerprint:
        return Repo(uri=uri, key=mirror.key, fingerprint=mirror.fingerprint)
    key_address = mirror.address(key) if mirror else key
    return RepoWithFetchedKey(uri=uri, signed="packages", key_address=key_address, fingerprint=fingerprint)
