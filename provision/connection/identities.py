"""Logging in: which keys and passwords are offered, and why one cannot be."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
from paramiko.auth_strategy import AuthResult, AuthSource, AuthStrategy

from provision.connection.login import Login
from provision.data import at_home, content, require_end
from provision.errors import LoginRefusedError, UnreachableError

OFFERED = 3
"""How many default keys are offered where none is named: sshd counts failures (MaxAuthTries)."""

Agent = Callable[[], dict[str, paramiko.PKey]]
"""Asks the user's ssh-agent for its keys, by their public part in base64; called only where needed."""


class Offer(AuthStrategy):
    """Offers what the login names, in order, until the host is satisfied: a key, a password, or both."""

    def __init__(self, login: Login) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self.login = login

    def get_sources(self) -> Iterator[AuthSource]:
        """Yield nothing: which key is next depends on what the host said to the last."""
        yield from ()

    def authenticate(self, transport: paramiko.Transport) -> AuthResult:
        user = self.login.user
        refused = []
        with _keys(self.login) as keys:
            for label, key in keys:
                try:
                    if not transport.auth_publickey(user, key):
                        return AuthResult(strategy=self)
                except paramiko.BadAuthenticationType as error:
                    refused.append(f"{label} (it takes {', '.join(error.allowed_types)} only)")
                except paramiko.AuthenticationException as error:
                    self._refuse_silence(error, transport)
                    refused.append(label)
        if self.login.password is not None:
            try:
                if not transport.auth_password(user, self.login.password):
                    return AuthResult(strategy=self)
            except paramiko.AuthenticationException as error:
                self._refuse_silence(error, transport)
                refused.append(f"the password{_no_passwords(error)}")
        tried = f"refused: {'; '.join(refused)}" if refused else "there is no key to offer"
        hint = f"is the public key in ~{user}/.ssh/authorized_keys, and are ansible_user and the key right?"
        if not refused:
            hint = "set ansible_ssh_private_key_file, or load a key into ssh-agent"
        raise LoginRefusedError(self.login.host, f"cannot log in as {user}: {tried}", hint=hint)

    def _refuse_silence(self, error: paramiko.AuthenticationException, transport: paramiko.Transport) -> None:
        """A host that does not answer refuses nothing."""
        if "Authentication timeout" in str(error):
            where, limit = f"{self.login.address} port {self.login.port}", transport.auth_timeout
            message = f"{where} does not answer the login within {limit:g} s"
            hint = "what its PAM asks, such as LDAP, may not answer: see the host's console"
            raise UnreachableError(self.login.host, message, hint=hint)


def _no_passwords(error: paramiko.AuthenticationException) -> str:
    """What to add where a host takes no passwords at all, neither as such nor as an answer to a question."""
    taken = error.allowed_types if isinstance(error, paramiko.BadAuthenticationType) else ["password"]
    if {"password", "keyboard-interactive"} & set(taken):
        return ""
    return f" (the host takes no passwords: {', '.join(taken)} only)"


def public_key(login: Login) -> str:
    """The public part of the key that a login names, ``TYPE BASE64``.

    :raises UnreachableError: where it names none, or that cannot be read.
    """
    if not login.key_files:
        hint = "set ansible_ssh_private_key_file: the account gets this key"
        raise UnreachableError(login.host, f"no key is named for {login.user}", hint=hint)
    with _keys(login) as keys:
        ((_, key),) = keys
        return f"{key.get_name()} {key.get_base64()}"


@contextlib.contextmanager
def _keys(login: Login) -> Iterator[list[tuple[str, paramiko.PKey]]]:
    """Yield the keys to offer: the named one, from its file or the agent; else a few of the user's own."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def agent() -> dict[str, paramiko.PKey]:
            held = paramiko.Agent()
            stack.callback(held.close)
            return {key.get_base64(): key for key in held.get_keys()}

        if login.key_files:
            files = [Path(file) for file in login.key_files]
            present = [file for file in files if _is_there(file) or _is_there(_public(file))]
            yield [_named(login, (present or files)[0], agent)]
        elif login.password is not None:
            yield []  # as sshpass is used: the password is the answer, and guesses would count as failures
        else:
            yield _own(login, agent)


def _own(login: Login, agent: Agent) -> list[tuple[str, paramiko.PKey]]:
    found = (
        {}
        if login.identities_only
        else {text: (f"agent key {text[-8:]}", key) for text, key in agent().items()}
    )
    for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
        file = at_home("~/.ssh") / name
        if _is_there(file):
            with contextlib.suppress(UnreachableError):
                label, key = _named(login, file, agent)
                found.setdefault(key.get_base64(), (label, key))
    return list(found.values())[:OFFERED]


def _named(login: Login, file: Path, agent: Agent) -> tuple[str, paramiko.PKey]:
    """Return the key of ``file``; where that is missing or encrypted, the agent's copy of it."""
    label = f"key {file}"
    problem = _loaded(file)
    if isinstance(problem, paramiko.PKey):
        return label, problem
    with contextlib.suppress(OSError, IndexError):
        public = content(_public(file)).decode(errors="replace").split()[1]
        if public in agent():
            return f"{label} (agent)", agent()[public]
    message, hint = problem
    raise UnreachableError(login.host, f"the private key {file} {message}", hint=hint)


def _is_there(file: Path) -> bool:
    """Whether there is a file, or a folder before it may not be entered, as :func:`_loaded` then says."""
    try:
        return file.exists()
    except OSError:
        return True


def _public(file: Path) -> Path:
    return file if file.suffix == ".pub" else file.with_name(file.name + ".pub")


def _loaded(file: Path) -> paramiko.PKey | tuple[str, str]:
    """Return the private key in ``file``, or what is wrong with it and what to do."""
    try:
        require_end(file)
        status = file.stat()
        others = status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077
        if others and b"PRIVATE KEY" in file.read_bytes()[:200]:
            return f"can be read by others (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod 600 {file}"
        return _parsed_key(str(file), status.st_mtime_ns)
    except FileNotFoundError:
        return "does not exist", "check ansible_ssh_private_key_file, or IdentityFile in ssh_config"
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}", "check its path, owner and mode"
    except (paramiko.PasswordRequiredException, TypeError):
        return "is encrypted, and no ssh-agent holds it", f"ssh-add {file}"
    except (paramiko.SSHException, ValueError):
        return "is not a private key that we can read", "ssh-keygen -y -f FILE shows whether it is one"


@functools.lru_cache(maxsize=16)
def _parsed_key(path: str, changed: int) -> paramiko.PKey:  # noqa: ARG001 - a part of the cache's key
    return paramiko.PKey.from_path(path)
