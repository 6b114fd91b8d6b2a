"""Seeds on this machine: a folder for each host, with its host key and what its installer reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from provision.bare.seed import FILES, KeyPair
from provision.connection.known_hosts import HostKey
from provision.data import beside, content
from provision.errors import UsageError

KEY = "ssh_host_ed25519_key"
"""File of the private host key in a seed; the public one is beside it, with the suffix ``.pub``."""


def key_of(folder: Path) -> tuple[KeyPair, bool]:
    """The host key of a seed, and whether it is new: made now, and not written yet.

    :raises UsageError: if there is a file that holds no such key.
    """
    file = folder / KEY
    try:
        text = content(file).decode("ascii")
        private = load_ssh_private_key(text.encode("ascii"), None)
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate()
        made = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        return KeyPair(_public(private), made.decode("ascii")), True
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="name another folder: --out DIR") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(file) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(file)
    return KeyPair(_public(private), text), False


def _no_key(file: Path) -> UsageError:
    return UsageError(
        f"{file}: not a private key of the type ed25519 without a passphrase",
        hint="take it away for a new one, if no machine has it yet",
    )


def _public(private: Ed25519PrivateKey) -> HostKey:
    text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return HostKey.of(text.decode("ascii"))


def _others_read(file: Path) -> bool:
    """Whether accounts of this machine beside its owner and root can read a file of a folder."""
    modes = file.stat().st_mode, *(folder.stat().st_mode for folder in file.absolute().parents)
    reading, *entering = modes
    return any(
        reading & read and all(mode & enter for mode in entering)
        for read, enter in ((0o40, 0o11), (0o4, 0o1))
    )


@dataclass(frozen=True)
class Writing:
    """The files of one host's seed that are not there as they should be.

    What an earlier seed had and this one has not would be read all the same: the network, another installer.

    :ivar files: name → text, of all files.
    :ivar new: names of those that are not there.
    :ivar changed: names of those that are there with another text.
    :ivar stale: names of those that are there, and no part of this seed.
    :ivar shown: whether others could read its host key.
    """

    folder: Path
    files: Mapping[str, str]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    stale: tuple[str, ...] = ()
    shown: bool = False

    @classmethod
    def of(cls, folder: Path, files: Mapping[str, str]) -> Writing:
        """What has to be written below ``folder``.

        :raises UsageError: if what is there cannot be read.
        """
        there: dict[str, bytes | None] = {}
        for name in files:
            try:
                there[name] = content(folder / name)
            except FileNotFoundError:
                there[name] = None
            except OSError as error:
                hint = "name another folder: --out DIR"
                raise UsageError(f"{folder / name}: {error.strerror}", hint=hint) from error
        new = tuple(name for name, text in there.items() if text is None)
        changed = tuple(
            name for name, text in files.items() if name not in new and there[name] != text.encode()
        )
        stale = tuple(name for name in FILES if name not in files and (folder / name).is_file())
        return cls(folder, files, new, changed, stale, KEY not in new and _others_read(folder / KEY))

    def write(self) -> None:
        """Write them, for their owner only; each is replaced as a whole, or stays.

        :raises UsageError: if one cannot be written.
        """
        try:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            for name in self.files:
                file = self.folder / name
                if name in self.new or name in self.changed:
                    beside(file, self.files[name].encode()).rename(file)
                file.chmod(0o600)
            for name in self.stale:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            where = error.filename or self.folder
            raise UsageError(f"{where}: {error.strerror}", hint="name another folder: --out DIR") from error
