"""The signing key of a public repository, of which only the address and the fingerprint are known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from provision.probe import words
from provision.resource import Change, Missing, RenderedFile
from provision.resources.file import FileState, RegularFile, as_seen
from provision.resources.packages.openpgp import fingerprints


@dataclass(frozen=True)
class FetchedKey(RegularFile):
    """A file that holds the key with this fingerprint and nothing else; the host fetches it from an address.

    A fingerprint tells which key it is, so it does not matter who serves the file.
    """

    path: str
    address: str
    fingerprint: str
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    kind: ClassVar[str] = "key"
    first: ClassVar[bool] = True
    shell = ("shell/keys.sh",)

    def fault(self, content: bytes | None) -> str:
        if content is None:
            return "it is too large for a key"
        try:
            found = fingerprints(content.decode("utf-8", "replace"))
        except ValueError as error:
            return str(error)
        return "" if found == [self.fingerprint] else f"it holds the key {', '.join(found)}"

    def write(self, state: FileState | Missing, action: str, reason: str) -> Change:
        owned = f"{self.mode} {self.owner}:{self.group}"
        return Change(
            resource=self.id,
            action=action,
            summary=f"fetch {self.path} from {self.address} ({owned})",
            reason=reason,
            sign="+" if action == "create" else "~",
            diff=f"+the key with fingerprint {self.fingerprint} and nothing else, or the step fails\n",
            guard=as_seen(self.path, state),
            done=f"holds_key {words(self.path, self.fingerprint)} && owned {words(self.path, owned)}",
            script="fetch_key "
            + words(self.address, self.fingerprint, self.path, self.mode, f"{self.owner}:{self.group}"),
        )

    def rendered(self) -> RenderedFile:
        return RenderedFile(self.path, b"", self.mode, origin=self.address)
