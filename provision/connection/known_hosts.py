"""known_hosts files, parsed and looked up by name. Pure; sshd(8) has the format."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from provision.errors import Location


@dataclass(frozen=True)
class HostKey:
    """A public key of a host: its type and the key itself, in base64 as files have it."""

    kind: str
    base64: str

    @property
    def fingerprint(self) -> str:
        """The SHA256 fingerprint, as ``ssh-keygen -l`` prints it."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> HostKey:
        """Return the key of ``TYPE BASE64``.

        :raises ValueError: where that is not what ``text`` holds.
        """
        kind, _, rest = text.partition(" ")
        try:
            blob = base64.b64decode(rest.split()[0], validate=True)
        except (IndexError, binascii.Error):
            raise ValueError(f"not a public key: {text[:60]!r}") from None
        fields = _fields(blob)
        if len(fields) < 2:
            raise ValueError(f"the key is cut short: {text[:60]!r}")
        if fields[0] != kind.encode():
            raise ValueError(f"the key does not have the type it claims, {kind}")
        return cls(kind, rest.split()[0])


def _fields(blob: bytes) -> list[bytes]:
    """The fields of a key, each behind its length in four bytes (RFC 4251); none of one that is cut short."""
    found = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < end:
            return []
        found.append(blob[4:end])
        blob = blob[end:]
    return found


@dataclass
class KnownHosts:
    """The trusted and the revoked keys of one or more files, indexed by name.

    Plain names are found in a table. Hashed names need one HMAC each, and patterns one match each; both are
    tried only after the table. ``@cert-authority`` lines are left out: host certificates are not verified.

    :ivar revoked: the revoked keys, whichever host shows one, each with the place that says so.
    """

    names: dict[str, list[HostKey]] = field(default_factory=dict)
    hashed: list[tuple[bytes, bytes, HostKey]] = field(default_factory=list)
    patterns: list[tuple[tuple[str, ...], HostKey]] = field(default_factory=list)
    revoked: dict[HostKey, Location] = field(default_factory=dict)
    _revoked: KnownHosts | None = None

    def add(self, text: str, path: str) -> None:
        """Take in the lines of a file; lines that make no sense are skipped, as ssh(1) skips them."""
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split(None, 4)
            if len(fields) < 3 or line.startswith("#"):
                continue
            if fields[0] == "@revoked" and len(fields) > 3:
                key = HostKey(fields[2], fields[3])
                self.revoked.setdefault(key, Location(path, number))
                self._revoked = self._revoked or KnownHosts()
                self._revoked._add(fields[1], key)
            elif not fields[0].startswith("@"):
                self._add(fields[0], HostKey(fields[1], fields[2]))

    def keys_of(self, name: str, *, patterns: bool = True) -> tuple[HostKey, ...]:
        """Return the keys trusted for ``name``, which is ``address`` or ``[address]:port``, in lower case.

        :param patterns: whether lines with patterns count.
        """
        found = list(self.names.get(name, ()))
        text = name.encode()
        found += [key for salt, digest, key in self.hashed if hmac.digest(salt, text, "sha1") == digest]
        if patterns:
            found += [key for globs, key in self.patterns if _matches(name, globs)]
        return tuple(dict.fromkeys(found))

    def names_of(self, key: HostKey) -> tuple[str, ...]:
        """Return the names that have a key; hashed names cannot be read."""
        return tuple(name for name, keys in self.names.items() if key in keys)

    def revoked_for(self, name: str) -> tuple[HostKey, ...]:
        """Return the keys of the lines that revoke a key and have this name, not a pattern."""
        return self._revoked.keys_of(name, patterns=False) if self._revoked else ()

    def _add(self, names: str, key: HostKey) -> None:
        if names.startswith("|1|"):
            salt, _, digest = names[3:].partition("|")
            try:
                self.hashed.append((base64.b64decode(salt), base64.b64decode(digest), key))
            except binascii.Error:
                return
        elif any(character in names for character in "*?!"):
            self.patterns.append((tuple(names.lower().split(",")), key))
        else:
            for name in names.lower().split(","):
                self.names.setdefault(name, []).append(key)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches and no negated one does."""
    # fnmatch knows sets as well; in known_hosts brackets stand for themselves: [address]:port
    globs = {pattern: pattern.removeprefix("!").replace("[", "[[]") for pattern in patterns}
    hits = [pattern for pattern, glob in globs.items() if fnmatch.fnmatchcase(name, glob)]
    return bool(hits) and not any(pattern.startswith("!") for pattern in hits)
