"""Repositories and sets of packages, for the package manager that a host has."""

from __future__ import annotations

import base64
import functools
import re
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import Url

from provision.errors import Refusal
from provision.facts import SUPPORTED, Facts, Family
from provision.resource import AnyResource, Change, Missing, Signal
from provision.resources.file import FILES, File, FileState
from provision.resources.packages.deb import APT, Packages
from provision.resources.packages.fetched_key import FetchedKey
from provision.resources.packages.openpgp import fingerprints
from provision.resources.packages.other_sources import APT_SOURCES, DNF_SOURCES, OtherSources
from provision.resources.packages.rpm import DNF, RpmPackages
from provision.resources.packages.sets import MajorVersion, Package
from provision.role import ImpossibleError, Settings

ADDRESS = r"^(https?|file|mirror\+file)://?[!-~]+$"
"""Pattern of an address that apt and dnf take: printable ASCII without blanks."""

KEY_EXAMPLE = "-----BEGIN PGP PUBLIC KEY BLOCK----- …"
FINGERPRINT_EXAMPLE = "EB693B3035CD5710E231E123A4B469963BF863CC"


class SignedRepo(Settings):
    """A repository of packages, for apt or for dnf, and which key must have signed it."""

    uri: str = Field(pattern=ADDRESS, examples=["https://mirror.example.com/packages"])
    """Address of the repository."""
    suite: str = Field(default="/", pattern=r"^\S+$")
    """Suite, or ``/`` for a flat repository, which every one for dnf is."""
    components: list[Annotated[str, StringConstraints(pattern=r"^\S+$")]] = Field(default=[])
    """Components; none for a flat repository."""
    signed: Literal["both", "packages", "metadata"] = "both"
    """What the key has signed in a repository for dnf. For apt it is always the metadata."""
    fingerprint: str = Field(examples=[FINGERPRINT_EXAMPLE])
    """Fingerprint of the signing key; blanks are ignored. The key is refused if it has another one."""

    @model_validator(mode="after")
    def _address_can_be_one(self) -> Self:
        check_address(self.uri)
        if (self.suite == "/") == bool(self.components):
            raise ImpossibleError(
                f"suite {self.suite} with {len(self.components)} components",
                hint="a flat repository (suite /) has no components, any other has at least one",
            )
        return self

    @property
    def slug(self) -> str:
        """A name for its files, the same for the same address, suite and components."""
        place = re.sub(r"^\w+(\+\w+)?:/+", "", " ".join([self.uri, self.suite, *self.components]))
        return "provision-" + re.sub(r"[^a-z0-9]+", "-", place.lower()).strip("-")

    @property
    def key_name(self) -> str:
        """A name for the file of its key."""
        return f"provision-{_bare(self.fingerprint)}"

    @abstractmethod
    def key_at(self, path: str) -> File | FetchedKey:
        """The file of its key."""


class Repo(SignedRepo):
    """A repository of packages, for apt or for dnf, and the key that must have signed it."""

    key: str = Field(examples=[KEY_EXAMPLE])
    """The signing key, ASCII-armoured."""

    @model_validator(mode="after")
    def _key_is_the_one_expected(self) -> Self:
        check_key(self.key, self.fingerprint)
        return self

    def key_at(self, path: str) -> File:
        return KeyFile(path, f"{self.key.strip()}\n".encode())


class RepoWithFetchedKey(SignedRepo):
    """A public repository whose key the host fetches from its publisher, or from the site's mirror."""

    key_address: str = Field(pattern=ADDRESS)
    """Address of the file with the key."""

    def key_at(self, path: str) -> FetchedKey:
        return FetchedKey(path, self.key_address, _bare(self.fingerprint))


def check_address(address: str) -> None:
    """Refuse what is no folder's address, and a password in it: files with it can be read by everybody.

    :raises ImpossibleError: saying what is right.
    """
    try:
        parts = Url(address)
    except ValueError:
        parts = None
    if parts.username or parts.password if parts else "@" in address:
        raise ImpossibleError(
            "the address names a user or a password",
            hint="put user and password into a file of /etc/apt/auth.conf.d on the hosts (apt_auth.conf(5)); "
            "for dnf take a mirror that asks for none",
        )
    if parts is None or parts.query or parts.fragment or ".." in address.split("/"):
        raise ImpossibleError(
            f"{address.partition('?')[0]} is not the address of a folder",
            hint="write it as https://mirror.example.com/folder",
        )


@functools.cache
def check_key(key: str, fingerprint: str) -> None:
    """Refuse a key with another fingerprint.

    :raises ImpossibleError: naming both.
    """
    expected, actual = _bare(fingerprint), fingerprints(key)
    if actual != [expected]:
        raise ImpossibleError(
            f"the key has fingerprint {', '.join(actual)}, expected {expected}",
            hint="check where the key comes from before you trust it",
        )


def _bare(fingerprint: str) -> str:
    """A fingerprint in capitals and without blanks."""
    return re.sub(r"\s", "", fingerprint).upper()


@dataclass(frozen=True)
class KeyFile(File):
    """The file of a repository's key."""

    first: ClassVar[bool] = True


@dataclass(frozen=True)
class RepositoryFile(File):
    """The file that names a repository. It is written once the package manager has read the repository.

    So an address that gives nothing, or what another key signed, ends this step with the old file in place,
    and not the next installation of a package, which may be months away.

    :ivar manager: ``apt`` or ``dnf``.
    """

    manager: str = "apt"
    shell: tuple[str, ...] = (FILES, "shell/apt.sh")
    first: ClassVar[bool] = True

    def write(self, state: FileState | Missing, action: str, reason: str) -> Change:
        """Read the repository first."""
        change = super().write(state, action, reason)
        name = self.path.rpartition("/")[2]
        content = base64.encodebytes(self.content).decode("ascii")
        return replace(
            change, script=f"{self.manager}_reads {name} <<'END' &&\n{content}END\n{change.script}"
        )


def package_source(repo: SignedRepo, facts: Facts) -> tuple[File | FetchedKey, RepositoryFile]:
    """The files that make the host's package manager use ``repo``, and trust its key there and only there.

    :raises Refusal: where the host's kind of package manager has no such repository.
    """
    rhel = facts.family == "rhel"
    key, source, lines = _dnf_source(repo, facts) if rhel else _apt_source(repo, facts)
    content = "".join(f"{line}\n" for line in lines).encode()
    manager = "dnf" if rhel else "apt"
    shell = (FILES, f"shell/{manager}.sh")
    return repo.key_at(key), RepositoryFile(source, content, manager=manager, shell=shell)


def repository(repo: SignedRepo, facts: Facts, moved: tuple[str, ...] = ()) -> list[AnyResource]:
    """``repo`` for the host's package manager, in place of what others have written for the same repository.

    What is there goes when the new one has been read, and before any package is installed: files of NVIDIA's
    and Docker's own instructions name other keys than ours, at which apt stops.

    :param moved: see :class:`OtherSources`.
    :raises Refusal: see :func:`package_source`.
    """
    files = package_source(repo, facts)
    if facts.family != "debian":
        return list(files)
    own = tuple(file.path for file in files)
    others = OtherSources(repo.slug, facts.family, repo.uri, repo.suite, facts.architecture, own, moved=moved)
    return [*files, others]


def _apt_source(repo: SignedRepo, facts: Facts) -> tuple[str, str, list[str]]:
    """Where apt has the key and the source, and the lines of the source, which bind it to that key."""
    key = f"/etc/apt/keyrings/{repo.key_name}.asc"
    lines = [
        "Types: deb",
        f"URIs: {repo.uri}",
        f"Suites: {repo.suite}",
        *([f"Components: {' '.join(repo.components)}"] if repo.components else []),
        f"Architectures: {facts.architecture}",
        f"Signed-By: {key}",
    ]
    return key, f"{APT_SOURCES}/{repo.slug}.sources", lines


def _dnf_source(repo: SignedRepo, facts: Facts) -> tuple[str, str, list[str]]:
    """As :func:`_apt_source`, for dnf."""
    if repo.suite != "/":
        raise Refusal(
            f"{repo.uri} has a suite, and {facts.system} has dnf, which knows none",
            hint="give the address of the folder that has repodata/, without suite and components",
        )
    key = f"/etc/pki/rpm-gpg/{repo.key_name}"
    lines = [
        f"[{repo.slug}]",
        f"name={repo.slug}",
        f"baseurl={repo.uri}",
        "enabled=1",
        f"gpgcheck={int(repo.signed != 'metadata')}",
        f"repo_gpgcheck={int(repo.signed != 'packages')}",
        f"gpgkey=file://{key}",
    ]
    return key, f"{DNF_SOURCES}/{repo.slug}.repo", lines


def package_resource(
    facts: Facts,
    name: str,
    packages: tuple[Package, ...],
    *,
    hold: bool = True,
    stream: str | None = None,
    major: MajorVersion | None = None,
    why: str = "",
    remarks: tuple[str, ...] = (),
    proof: str = "",
    signals: tuple[tuple[str, Signal], ...] = (),
    along: tuple[str, ...] = (),
    replaces: tuple[str, ...] = (),
    shell: tuple[str, ...] = (),
) -> Packages | RpmPackages:
    """Packages that are installed together, by the host's package manager.

    :param stream: ``MODULE:STREAM`` for dnf; apt has no such thing.
    :param major: see :class:`provision.resources.packages.sets.PackageSet`, and what follows likewise.
    :param shell: files with the functions that ``proof`` calls.
    """
    both = (name, packages, hold, major, why, remarks, proof, signals, along, replaces)
    if facts.family == "rhel":
        return RpmPackages(*both, stream or "", (DNF, *shell))
    return Packages(*both, (APT, *shell))


def require_family(facts: Facts, role: str) -> Family:
    """Whose packages a host has.

    :raises Refusal: naming the system, if its packages are neither for apt nor for dnf.
    """
    if facts.family is None:
        raise Refusal(f"role {role} does not know {facts.system}", hint=SUPPORTED)
    return facts.family
