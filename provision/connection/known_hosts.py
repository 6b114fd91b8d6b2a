"""known_hosts files, parsed and looked up by name. Pure; sshd(8) has the format."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field


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
        length = int.from_bytes(blob[:4], "big")
        if blob[4 : 4 + length] != kind.encode():
            raise ValueError(f"the key does not have the type it claims, {kind}")
        return cls(kind, rest.split()[0])


@dataclass
class KnownHosts:
    """The trusted and the revoked keys of one or more files, indexed by name.

    Plain names are found in a table. Hashed names need one HMAC each, and patterns one match each; both are
    tried only after the table. ``@cert-authority`` lines are left out: host certificates are not verified.
    """

    names: dict[str, list[HostKey]] = field(default_factory=dict)
    hashed: list[tuple[bytes, bytes, HostKey]] = field(default_factory=list)
    patterns: list[tuple[tuple[str, ...], HostKey]] = field(default_factory=list)
    revoked: set[HostKey] = field(default_factory=set)

    def add(self, text: str) -> None:
        """Take in the lines of a file; lines that make no sense are skipped, as ssh(1) skips them."""
        for line in text.splitlines():
            fields = line.split(None, 4)
            if len(fields) < 3 or line.startswith("#"):
                continue
            if fields[0] == "@revoked" and len(fields) > 3:
                self.revoked.add(HostKey(fields[2], fields[3]))
            elif not fields[0].startswith("@"):
                self._add(fields[0], HostKey(fields[1], fields[2]))

    def keys_of(self, name: str) -> tuple[HostKey, ...]:
        """Return the keys trusted for ``name``, which is ``address`` or ``[address]:port``, in lower case."""
        found = list(self.names.get(name, ()))
        text = name.encode()
        found += [key for salt, digest, key in self.hashed if hmac.digest(salt, text, "sha1") == digest]
        found += [key for patterns, key in self.patterns if _matches(name, patterns)]
        return tuple(dict.fromkeys(found))

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
