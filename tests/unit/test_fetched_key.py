"""Keys that a host fetches by their fingerprint: with the real curl and gpg, from a server on loopback."""

from __future__ import annotations

import base64
import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.causes.known_messages import hint_for
from provision.errors import RefusedError
from provision.resource import RenderedFile
from provision.resources.packages.fetched_key import FetchedKey
from tests.unit.keyring import Keyring
from tests.unit.sandbox import SHELLS, Sandbox, kinds

OURS, OTHER = "ed25519", "rsa2048"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Publisher:
    """A server that has the file of a key, and where the host puts it."""

    file: Path
    address: str
    key: FetchedKey
    keyring: Keyring

    @property
    def path(self) -> Path:
        return Path(self.key.path)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.make(tmp_path_factory.mktemp("gpg"))


@pytest.fixture
def publisher(keyring: Keyring, tmp_path: Path) -> Iterator[Publisher]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "KEY.pub").write_text(keyring.export(OURS))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/KEY.pub"
    key = FetchedKey(str(tmp_path / "host/provision-key"), address, keyring.fingerprints[OURS])
    yield Publisher(folder / "KEY.pub", address, key, keyring)
    server.shutdown()
    server.server_close()


@pytest.fixture(params=SHELLS)
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return Sandbox.make(tmp_path, request.param)


def refusal(sandbox: Sandbox, key: FetchedKey) -> str:
    """What the step says that fails."""
    events = sandbox.apply(sandbox.plan(key))
    return next(event.output for event in events if event.kind == "fail")


def test_a_key_is_fetched_once(sandbox: Sandbox, publisher: Publisher) -> None:
    planned = sandbox.plan(publisher.key)
    (change,) = planned.changes
    path = publisher.path
    assert (change.action, change.reason) == ("create", "it does not exist")
    assert change.summary == f"fetch {path} from {publisher.address} (0644 root:root)"
    assert publisher.key.fingerprint in change.diff
    assert kinds(sandbox.apply(planned)) == ["ok 0", "end ok"]
    assert path.read_text() == publisher.file.read_text()
    assert (path.stat().st_mode & 0o777, path.owner()) == (0o644, "root")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    publisher.file.unlink()
    assert sandbox.plan(publisher.key).changes == ()
    assert kinds(sandbox.apply(planned))[2:] == ["skip 0", "end ok"]


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ("another", "it holds the key {other}"),
        ("both", "it holds the key {other}, {ours}"),
        ("text", "not an ASCII-armoured public key"),
    ],
)
def test_what_is_another_key_is_replaced(
    sandbox: Sandbox, publisher: Publisher, there: str, reason: str
) -> None:
    keyring = publisher.keyring
    text = {
        "another": keyring.export(OTHER),
        "both": keyring.export(OTHER) + keyring.export(OURS),
        "text": "no key\n",
    }[there]
    publisher.path.parent.mkdir()
    publisher.path.write_text(text)
    publisher.path.chmod(0o644)
    planned = sandbox.plan(publisher.key)
    (change,) = planned.changes
    names = {"other": keyring.fingerprints[OTHER], "ours": keyring.fingerprints[OURS]}
    assert (change.action, change.sign) == ("update", "~")
    assert change.reason.startswith(reason.format(**names))
    assert kinds(sandbox.apply(planned)) == ["ok 0", "end ok"]
    assert publisher.path.read_text() == publisher.file.read_text()
    assert sandbox.backup_of(publisher.path).read_text() == text
    assert sandbox.plan(publisher.key).changes == ()


def test_a_key_that_others_can_write_is_fetched_again(sandbox: Sandbox, publisher: Publisher) -> None:
    publisher.path.parent.mkdir()
    publisher.path.write_text(publisher.file.read_text())
    publisher.path.chmod(0o666)
    planned = sandbox.plan(publisher.key)
    assert planned.changes[0].reason == "mode is 0666, wanted 0644"
    assert kinds(sandbox.apply(planned)) == ["ok 0", "end ok"]
    assert sandbox.plan(publisher.key).changes == ()


def _armour(keyring: Keyring) -> list[str]:
    return keyring.export(OURS).splitlines(keepends=True)


SERVED: dict[str, tuple[Callable[[Keyring], bytes], str]] = {
    "another key": (
        lambda keys: keys.export(OTHER).encode(),
        "the key of {address} has fingerprint {other}, expected {ours}",
    ),
    "two keys in a block": (
        lambda keys: keys.export(OURS, OTHER).encode(),
        "the key of {address} has fingerprint {other} {ours}, expected {ours}",
    ),
    "two blocks": (
        lambda keys: (keys.export(OURS) + keys.export(OTHER)).encode(),
        "the key of {address} has fingerprint {ours} {other}, expected {ours}",
    ),
    "a page": (
        lambda _: b"<html>Please log in</html>\n",
        "there is something else than an ASCII-armoured key in {address}",
    ),
    "text after it": (
        lambda keys: (keys.export(OURS) + "and more\n").encode(),
        "there is something else than an ASCII-armoured key in {address}",
    ),
    "the key, not armoured": (
        lambda keys: base64.b64decode("".join(_armour(keys)[2:-2])),
        "there is something else than an ASCII-armoured key in {address}",
    ),
    "a secret key": (
        lambda keys: keys.gpg("--armor", "--export-secret-keys", keys.fingerprints[OURS]).encode(),
        "there is something else than an ASCII-armoured key in {address}",
    ),
    "half of it": (
        lambda keys: "".join(_armour(keys)[:4]).encode(),
        "there is no whole OpenPGP key in {address}",
    ),
    "a damaged key": (
        lambda keys: "".join([*_armour(keys)[:3], "AAAA\n", *_armour(keys)[3:]]).encode(),
        "there is no whole OpenPGP key in {address}",
    ),
    "nothing": (lambda _: b"", "there is no whole OpenPGP key in {address}"),
}


@pytest.mark.parametrize("served", SERVED)
def test_anything_but_this_key_is_refused(sandbox: Sandbox, publisher: Publisher, served: str) -> None:
    content, says = SERVED[served]
    keyring = publisher.keyring
    publisher.file.write_bytes(content(keyring))
    names = {"other": keyring.fingerprints[OTHER], "ours": keyring.fingerprints[OURS]}
    # gpg tells the keys of its own keyring in any order.
    either = [says.format(address=publisher.address, **names)]
    either.append(either[0].replace(f"{names['other']} {names['ours']}", f"{names['ours']} {names['other']}"))
    said = refusal(sandbox, publisher.key)
    assert said.strip() in either
    assert "the file must be the publisher's" in str(hint_for(said))
    assert not publisher.path.parent.exists()


def test_a_key_that_cannot_be_fetched(sandbox: Sandbox, publisher: Publisher) -> None:
    publisher.path.parent.mkdir()
    publisher.path.write_text("old\n")
    publisher.file.unlink()
    said = refusal(sandbox, publisher.key)
    assert "returned error: 404" in said
    assert f"the host could not fetch the key {publisher.key.fingerprint} from {publisher.address}" in said
    assert "the host must reach this address" in str(hint_for(said))
    assert publisher.path.read_text() == "old\n"


def test_a_folder_in_its_place_is_refused(sandbox: Sandbox, publisher: Publisher) -> None:
    publisher.path.mkdir(parents=True)
    with pytest.raises(RefusedError, match="there is a directory at"):
        sandbox.plan(publisher.key)


def test_what_render_tells() -> None:
    key = FetchedKey("/etc/pki/rpm-gpg/provision-A", "https://x.example/A.pub", "A")
    assert key.rendered() == RenderedFile(key.path, b"", "0644", origin=key.address)
