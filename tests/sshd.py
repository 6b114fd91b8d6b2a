"""A private, real sshd on 127.0.0.1, for tests: own keys, own configuration, gone with its context."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from provision.connection.login import Login

SSHD = Path("/usr/sbin/sshd")
PASSWORD = "correct horse, battery staple"


@dataclass(frozen=True)
class Sshd:
    """A running sshd: where it listens, how to log in, and where its files are."""

    port: int
    folder: Path
    user: str

    @property
    def key(self) -> Path:
        """The client's private key, which is authorized."""
        return self.folder / "client"

    @property
    def host_key(self) -> str:
        """The public host key, ``TYPE BASE64``."""
        return " ".join((self.folder / "host_ed25519.pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        """What sshd logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def login(self, **changes: object) -> Login:
        """Return a login that works, with ``changes``."""
        login = Login(
            host="node1",
            address="127.0.0.1",
            port=self.port,
            user=self.user,
            key_files=(str(self.key),),
            host_key=(self.host_key,),
            connect_timeout=5.0,
        )
        return replace(login, **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def sshd(*options: str, user: str | None = None) -> Iterator[Sshd]:
    """Run an sshd as the current user.

    :param options: lines of sshd_config(5), which win over our own.
    :param user: whom the client's key lets in; the current user where not given.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="sshd-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        for name, kind in (("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("client", "ed25519")):
            command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "client.pub", folder / "authorized_keys")
        server = Sshd(_free_port(), folder, user or pwd.getpwuid(os.getuid()).pw_name)
        (folder / "config").write_text("\n".join([*options, *_config(server)]) + "\n")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [str(SSHD), "-D", "-f", str(folder / "config"), "-E", str(folder / "log")]
        process = subprocess.Popen(command, start_new_session=True)
        stack.callback(_stop, process)
        _await_port(server, process)
        yield server


def _config(server: Sshd) -> list[str]:
    return [
        f"Port {server.port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {server.folder}/host_ed25519",
        f"HostKey {server.folder}/host_ecdsa",
        f"AuthorizedKeysFile {server.folder}/authorized_keys",
        f"PidFile {server.folder}/pid",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin yes",
        "MaxStartups 200",
        "MaxSessions 100",
        "LogLevel VERBOSE",
    ]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _await_port(server: Sshd, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError(f"sshd does not start: {server.log}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not listen: {server.log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End sshd and the sessions it still serves; they are its children, in sessions of their own."""
    children = _children(process.pid)
    process.terminate()
    process.wait(10)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 15)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it may end while we look
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found


@contextlib.contextmanager
def system_user(name: str, *, sudoers: str = "", shell: str = "/bin/bash", bashrc: str = "") -> Iterator[str]:
    """Make a user of this machine, with PASSWORD, for the length of a context. Needs root.

    :param sudoers: the rest of a sudoers line after the name, as ``ALL=(ALL) ALL``; empty: none.
    :param bashrc: the content of ``~/.bashrc``.
    """
    rule = Path("/etc/sudoers.d") / f"test-{name}"
    _remove(name, rule)
    home = tempfile.mkdtemp(prefix=f"home-{name}-")
    try:
        subprocess.run(
            ["useradd", "--no-create-home", "--home-dir", home, "--shell", shell, name], check=True
        )
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}\n", text=True, check=True)
        (Path(home) / ".bashrc").write_text(bashrc)
        shutil.chown(home, name)
        if sudoers:
            rule.write_text(f"{name} {sudoers}\n")
            rule.chmod(0o440)
        yield name
    finally:
        _remove(name, rule)
        shutil.rmtree(home, ignore_errors=True)


def _remove(name: str, rule: Path) -> None:
    rule.unlink(missing_ok=True)
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
