"""OpenPGP keys that the real gpg makes."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

KINDS = ["rsa2048", "ed25519"]


@dataclass(frozen=True)
class Keyring:
    """Keys that gpg made: their fingerprints, as gpg says them, by kind."""

    home: Path
    fingerprints: dict[str, str]

    @staticmethod
    def make(home: Path) -> Keyring:
        """A keyring with one key of each kind; the second one has a subkey, too."""
        if shutil.which("gpg") is None:
            pytest.skip("gpg is not installed")
        home.chmod(0o700)
        keyring = Keyring(home, {})
        for kind in KINDS:
            keyring.gpg("--quick-generate-key", f"{kind} <{kind}@example.org>", kind, "sign", "never")
            rows = keyring.gpg("--with-colons", "--list-keys", f"{kind}@example.org").splitlines()
            keyring.fingerprints[kind] = next(row.split(":")[9] for row in rows if row.startswith("fpr:"))
        keyring.gpg("--quick-add-key", keyring.fingerprints["ed25519"], "cv25519", "encr", "never")
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
        return keyring

    def gpg(self, *arguments: str) -> str:
        """Run gpg on this keyring."""
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def export(self, *kinds: str) -> str:
        """The public keys of kinds, in one ASCII-armoured block."""
        return self.gpg("--armor", "--export", *(self.fingerprints[kind] for kind in kinds))
