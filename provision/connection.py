"""Sessions on hosts: Fabric made fit for fleets. The only module that imports Fabric and paramiko.

What is set here, and why:

- The socket is ours: TCP_NODELAY (paramiko leaves Nagle's algorithm on, which costs 40 ms an exec on a fast
  network), keepalive and TCP_USER_TIMEOUT (a dead peer is noticed), IPv6 and IPv4 side by side.
- Host keys are checked against the inventory or known_hosts; Fabric accepts any (fabric issue 2071).
- AES-GCM comes first: twice the throughput of paramiko's default at half its CPU.
- Every wait is bounded; paramiko waits an hour for a channel (fabric issue 2197).
- sshd drops connections before its banner when too many log in at once (MaxStartups): tried again later.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import fabric
import paramiko
import paramiko.common
from paramiko.auth_strategy import AuthResult, AuthSource, AuthStrategy

from provision.command import Output
from provision.dial import dial
from provision.errors import HostError, UnreachableError
from provision.frames import KILL_AFTER, Frame, Lines, Unframed
from provision.known_hosts import HostKey, KnownHosts
from provision.login import DEFAULT_PORT, Login
from provision.sudo import refusal

# What paramiko logs for humans we say in our errors, without tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Host key algorithms of a key type, where they have other names than the type (RFC 8332)."""
ATTEMPTS = 6
"""How often a connection is tried that sshd drops before its banner."""
PATIENCE = 30.0
"""Seconds for what PAM on the host may do: a login, a channel, sudo. Its modules may ask other machines."""
GRACE = 5.0
"""Seconds by which the host may be late with ending a script that is out of time."""
QUIET = 5.0
"""Seconds of silence after which an exec with an exit code is over, though something that it left in the
background still holds its output open."""
OFFERED = 3
"""How many default keys are offered where none is named: sshd counts failures (MaxAuthTries)."""
CHUNK = 1 << 15


class UnfinishedError(HostError):
    """A command was ended on the host before it was done: killed, or out of time.

    :param partial: what it had printed until then.
    """

    def __init__(self, host: str, message: str, *, partial: Output, hint: str | None = None) -> None:
        super().__init__(host, message, hint=hint)
        self.partial = partial


class DeadlineError(UnfinishedError):
    """A command did not end in the time it was given."""


def ssh_config(path: str | os.PathLike[str] | None = None) -> paramiko.SSHConfig:
    """Return the parsed client configuration: the file given, else the user's followed by the system's.

    :raises OSError: where ``path`` is given and cannot be read.
    """
    if path is not None:
        return paramiko.SSHConfig.from_path(os.fspath(path))
    texts = []
    for file in (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            texts.append(file.read_text(errors="surrogateescape"))
    return paramiko.SSHConfig.from_text("\nHost *\n".join(texts))


class Connection:
    """One session on one host: a context manager, which also opens by itself at the first command.

    :ivar connects: sessions opened so far; those on jump hosts are not counted.
    :ivar execs: commands started so far.
    :ivar bytes_sent: bytes written to commands.
    :ivar bytes_received: bytes read from commands, noise of the login shell included.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        self.connects = 0
        self.execs = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self._sessions: list[fabric.Connection] = []
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Connection {self.login.host} {self.login.user}@{self.login.address}:{self.login.port}>"

    def __enter__(self) -> Connection:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a session, as far as is known."""
        return len(self._sessions) == 1 + len(self.login.jump) and self._sessions[-1].is_connected

    def open(self) -> None:
        """Open the session, through the login's jump hosts; nothing happens where it is open.

        :raises UnreachableError: where that is not possible, with the reason.
        """
        with self._lock:
            if self.is_open:
                return
            self.close()
            try:
                for login in (*self.login.jump, self.login):
                    self._sessions.append(_opened(login, self._sessions))
            except BaseException:
                self.close()
                raise
            self.connects += 1

    def close(self) -> None:
        """Close the session. Commands that still run on the host lose their output."""
        with self._lock:
            while self._sessions:
                _close(self._sessions.pop())

    def run(
        self,
        script: str,
        *,
        timeout: float,
        on_line: Callable[[bytes], None] | None = None,
        stdin: bytes = b"",
        what: str = "a script",
    ) -> Output:
        """Run POSIX sh text on the host with one exec, through one sudo where the login says so.

        The script runs in ``/`` with a fixed PATH, locale and umask; its standard input is ``stdin``.

        :param timeout: seconds it may take; then the host ends it.
        :param on_line: called with each line of standard output as it comes, without its newline.
        :param what: names the script in errors.
        :raises UnreachableError: where the session cannot be opened, or is lost.
        :raises DeadlineError: where the script takes longer than ``timeout``.
        :raises UnfinishedError: where its shell was killed.
        :raises HostError: where the host does not start it: no shell, no sudo, a wrong password.
        """
        self.open()
        execution = _Execution(self.login, timeout, what, on_line)
        self.execs += 1
        try:
            return execution.run(self._sessions[-1].transport, script, stdin)
        finally:
            self.bytes_sent += execution.sent
            self.bytes_received += execution.received


def enroll(login: Login) -> tuple[str, str, str]:
    """Fetch a host's public key, without trust and without a login: its type, fingerprint, known_hosts line.

    :raises UnreachableError: where the host, or a jump host in front of it, cannot be reached.
    """
    sessions: list[fabric.Connection] = []
    try:
        for hop in login.jump:
            sessions.append(_opened(hop, sessions))
        transport = _transport(login, (), _socket(login, sessions))
        try:
            transport.start_client(timeout=login.connect_timeout)
            key = transport.get_remote_server_key()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise _handshake_error(login, transport, error) from None
        finally:
            _stop(transport)
    finally:
        while sessions:
            _close(sessions.pop())
    found = HostKey(key.get_name(), key.get_base64())
    return found.kind, found.fingerprint, found.line(login.known_as)


# --- opening


@functools.cache
def _config() -> fabric.Config:
    """The one Fabric configuration: no files, no environment; what counts is in the Login."""
    return fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())


def _opened(login: Login, gateways: Sequence[fabric.Connection]) -> fabric.Connection:
    """Return an open session; tried again, ever more slowly, while sshd drops us before its banner."""
    expected = _expected_keys(login)
    for attempt in range(1, ATTEMPTS + 1):
        session = _session(login, expected, _socket(login, gateways))
        started = time.monotonic()
        try:
            session.open()
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport = session.client.get_transport()
            _close(session)
            if transport.remote_version or time.monotonic() - started > login.connect_timeout / 2:
                raise _handshake_error(login, transport, error) from None
        except BaseException:
            _close(session)
            raise
        else:
            session.transport.set_keepalive(max(1, int(login.keepalive)))
            return session
        if attempt < ATTEMPTS:
            time.sleep(random.uniform(0.5, 1.0) * min(0.2 * 2**attempt, 5.0))  # noqa: S311 - no secret in it
    hint = (
        "it limits logins (MaxStartups, PerSourcePenalties in sshd_config): fewer --forks, or a higher limit"
    )
    message = f"port {login.port} closed {ATTEMPTS} connections in a row without an SSH banner"
    raise UnreachableError(login.host, message, hint=hint)


def _session(login: Login, expected: Sequence[HostKey], sock: Any) -> fabric.Connection:
    """Return a Fabric connection that has our socket, keys and limits, ready to open."""
    session = fabric.Connection(
        login.address,
        user=login.user,
        port=login.port,
        config=_config(),
        connect_kwargs={
            "sock": sock,
            "transport_factory": functools.partial(_transport, login, expected),
            "timeout": login.connect_timeout,
            "banner_timeout": login.connect_timeout,
            "auth_timeout": max(login.connect_timeout, PATIENCE),
            "channel_timeout": max(login.connect_timeout, PATIENCE),
            "auth_strategy": _Offer(login),
        },
    )
    session.client.set_missing_host_key_policy(_Pinned(login, expected))
    return session


class _Transport(paramiko.Transport):
    """A transport that looks up once a second, not ten times: 100 idle sessions cost 6 % of a core there."""

    _active_check_timeout = 1.0


def _transport(
    login: Login, expected: Sequence[HostKey], sock: Any, disabled_algorithms: Any = None
) -> paramiko.Transport:
    transport = _Transport(sock, disabled_algorithms=disabled_algorithms)
    transport.banner_timeout = transport.handshake_timeout = login.connect_timeout
    options = transport.get_security_options()
    options.ciphers = CIPHERS
    kinds = {kind for key in expected for kind in SIGNATURES.get(key.kind, (key.kind,))}
    options.key_types = tuple(sorted(options.key_types, key=lambda kind: kind not in kinds))
    return transport


def _close(session: fabric.Connection) -> None:
    transport = session.client.get_transport()
    if transport is not None:
        _stop(transport)
    session.client.close()


def _stop(transport: paramiko.Transport) -> None:
    """End a transport's thread by the end of its socket, then close it.

    paramiko closes the socket under its thread, which may then wait on a descriptor that is somebody else's.
    """
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        transport.sock.shutdown(socket.SHUT_RDWR)
    if transport.is_alive():
        transport.join(GRACE)
    transport.close()
    transport.sock.close()


def _socket(login: Login, gateways: Sequence[fabric.Connection]) -> Any:
    """Return a connected socket to the host: a TCP one, or a channel of the last jump host."""
    try:
        if not gateways:
            return dial(login.address, login.port, login.connect_timeout, login.keepalive)
        return gateways[-1].transport.open_channel(
            "direct-tcpip", (login.address, login.port), ("127.0.0.1", 0), timeout=login.connect_timeout
        )
    except socket.gaierror as error:
        message = f"the name {login.address} cannot be resolved: {error.strerror}"
        hint = "set ansible_host to the address, or HostName in ssh_config"
        raise UnreachableError(login.host, message, hint=hint) from None
    except TimeoutError:
        message = f"{_where(login)} does not answer within {login.connect_timeout:g} s"
        raise UnreachableError(
            login.host, message, hint="is it up, and does a firewall drop packets?"
        ) from None
    except (paramiko.SSHException, OSError, EOFError, UnicodeError) as error:
        via = f" through {login.jump[-1].address}" if login.jump else ""
        message = f"{_where(login)} cannot be connected to{via}: {_reason(error)}"
        hint = "is sshd running there, and is the port right?"
        raise UnreachableError(login.host, message, hint=hint) from None


def _where(login: Login) -> str:
    return f"{login.address} port {login.port}"


def _reason(error: BaseException) -> str:
    if isinstance(error, paramiko.ChannelException):
        return error.text or f"channel refused ({error.code})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).strip() or type(error).__name__


def _handshake_error(login: Login, transport: paramiko.Transport, error: BaseException) -> UnreachableError:
    """Return what paramiko's error means to an operator."""
    where = _where(login)
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        hint = "the host's sshd is very old, or its sshd_config allows too little"
        return UnreachableError(login.host, f"{where}: no algorithm in common: {error}", hint=hint)
    if not transport.remote_version:
        message = f"{where} is connected but shows no SSH banner within {login.connect_timeout:g} s"
        return UnreachableError(login.host, message, hint="is that sshd, and is the host overloaded?")
    if "No existing session" in str(error):
        message = f"{where} does not finish the SSH handshake within {login.connect_timeout:g} s"
        return UnreachableError(login.host, message, hint="is the host overloaded?")
    if isinstance(error, EOFError) or not str(error):
        return UnreachableError(login.host, f"{where} closed the connection during the handshake")
    return UnreachableError(login.host, f"{where}: the handshake failed: {_reason(error)}")


# --- host keys


class _Files:
    """The known_hosts files: parsed once for each state that they are in, shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parsed: dict[tuple[str, ...], tuple[list[tuple[int, int]], KnownHosts]] = {}

    def read(self, paths: tuple[str, ...]) -> KnownHosts:
        files = [Path(path).expanduser() for path in paths]
        stamps = [_stamp(file) for file in files]
        with self._lock:
            seen = self._parsed.get(paths)
            if seen is None or seen[0] != stamps:
                known = KnownHosts()
                for file in files:
                    with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
                        known.add(file.read_text(errors="surrogateescape"))
                seen = self._parsed[paths] = (stamps, known)
        return seen[1]


_files = _Files()


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _expected_keys(login: Login) -> tuple[HostKey, ...]:
    """Return the keys that the host may show: the inventory's, else those of the known_hosts files."""
    if login.host_key:
        try:
            return tuple(HostKey.of(text) for text in login.host_key)
        except ValueError as error:
            raise UnreachableError(login.host, f"host_key in the inventory: {error}") from None
    known = _files.read(login.known_hosts)
    keys = known.keys_of(login.known_as)
    if not keys and login.port != DEFAULT_PORT and not login.host_key_alias:
        keys = known.keys_of(login.address.lower())  # as ssh(1) does for ports that have no entry
    return tuple(key for key in keys if key not in known.revoked)


class _Pinned(paramiko.MissingHostKeyPolicy):
    """Goes on only where the host shows one of the expected keys; paramiko's own store stays empty."""

    def __init__(self, login: Login, expected: Sequence[HostKey]) -> None:
        self.login = login
        self.expected = expected

    def missing_host_key(self, _client: object, _hostname: str, key: paramiko.PKey) -> None:
        shown = HostKey(key.get_name(), key.get_base64())
        if shown in self.expected:
            return
        host, name = self.login.host, self.login.known_as
        fingerprint = f"{shown.kind} {shown.fingerprint}"
        if not self.expected:
            hint = "compare it with `ssh-keygen -lf` on the host's own console, then record it with --enroll"
            raise UnreachableError(host, f"the host key of {name} is not known: {fingerprint}", hint=hint)
        trusted = ", ".join(f"{key.kind} {key.fingerprint}" for key in self.expected)
        source = (
            "host_key in the inventory" if self.login.host_key else f"`ssh-keygen -R '{name}'`, then --enroll"
        )
        raise UnreachableError(
            host,
            f"THE HOST KEY OF {name} HAS CHANGED: it shows {fingerprint}, trusted is {trusted}",
            hint=f"reinstalled? then renew the key ({source}). If not, somebody may be listening in: stop",
        )


# --- logging in


class _Offer(AuthStrategy):
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
                except paramiko.AuthenticationException:
                    refused.append(label)
        if self.login.password is not None:
            try:
                if not transport.auth_password(user, self.login.password):
                    return AuthResult(strategy=self)
            except paramiko.AuthenticationException:
                pass
            refused.append("the password")
        tried = f"refused: {'; '.join(refused)}" if refused else "there is no key to offer"
        hint = f"is the public key in ~{user}/.ssh/authorized_keys, and are ansible_user and the key right?"
        if not refused:
            hint = "set ansible_ssh_private_key_file, or load a key into ssh-agent"
        raise UnreachableError(self.login.host, f"cannot log in as {user}: {tried}", hint=hint)


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
            present = [file for file in files if file.exists() or _public(file).exists()]
            yield [_named(login, (present or files)[0], agent)]
        elif login.password is not None:
            yield []  # as sshpass is used: the password is the answer, and guesses would count as failures
        else:
            yield _own(login, agent)


def _own(login: Login, agent: Callable[[], dict[str, paramiko.PKey]]) -> list[tuple[str, paramiko.PKey]]:
    found = (
        {}
        if login.identities_only
        else {text: (f"agent key {text[-8:]}", key) for text, key in agent().items()}
    )
    for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
        file = Path("~/.ssh").expanduser() / name
        if file.exists():
            with contextlib.suppress(UnreachableError):
                label, key = _named(login, file, agent)
                found.setdefault(key.get_base64(), (label, key))
    return list(found.values())[:OFFERED]


def _named(
    login: Login, file: Path, agent: Callable[[], dict[str, paramiko.PKey]]
) -> tuple[str, paramiko.PKey]:
    """Return the key of ``file``; where that is missing or encrypted, the agent's copy of it."""
    label = f"key {file}"
    problem = _loaded(file)
    if isinstance(problem, paramiko.PKey):
        return label, problem
    with contextlib.suppress(OSError, IndexError):
        public = _public(file).read_text(errors="replace").split()[1]
        if public in agent():
            return f"{label} (agent)", agent()[public]
    message, hint = problem
    raise UnreachableError(login.host, f"the private key {file} {message}", hint=hint)


def _public(file: Path) -> Path:
    return file if file.suffix == ".pub" else file.with_name(file.name + ".pub")


def _loaded(file: Path) -> paramiko.PKey | tuple[str, str]:
    """Return the private key in ``file``, or what is wrong with it and what to do."""
    try:
        status = file.stat()
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077 and file.suffix != ".pub":
            return f"can be read by others (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod 600 {file}"
        return _parsed_key(str(file), status.st_mtime_ns)
    except FileNotFoundError:
        return "does not exist", "check ansible_ssh_private_key_file, or IdentityFile in ssh_config"
    except OSError as error:
        return f"cannot be read: {_reason(error)}", "check its owner and mode"
    except (paramiko.PasswordRequiredException, TypeError):
        return "is encrypted, and no ssh-agent holds it", f"ssh-add {file}"
    except (paramiko.SSHException, ValueError):
        return "is not a private key that we can read", "ssh-keygen -y -f FILE shows whether it is one"


@functools.lru_cache(maxsize=16)
def _parsed_key(path: str, changed: int) -> paramiko.PKey:  # noqa: ARG001 - a part of the cache's key
    return paramiko.PKey.from_path(path)


# --- running


class _Wake(threading.Event):
    """The event of a channel's two buffers: each clears it when it is empty, but the other may not be."""

    def clear(self) -> None:
        """Leave it set: only who has read both buffers may forget."""

    def forget(self) -> None:
        """Clear it, before the buffers are read."""
        super().clear()


class _Execution:
    """One command on its channel: everything is sent and received by the thread that waits for it."""

    def __init__(
        self, login: Login, timeout: float, what: str, on_line: Callable[[bytes], None] | None
    ) -> None:
        self.login, self.timeout, self.what, self.on_line = login, timeout, what, on_line
        self.frame = Frame()
        self.stdout, self.stderr = Unframed(self.frame), Unframed(self.frame)
        self.lines = Lines()
        self.wake = _Wake()
        self.asks = login.needs_sudo and login.become_password is not None
        self.pending = memoryview(b"")
        self.held = b""
        self.closing = False
        self.sent = self.received = 0
        self.started = self.heard = time.monotonic()

    def run(self, transport: paramiko.Transport, script: str, stdin: bytes) -> Output:
        payload = self.frame.script(script, stdin)
        if self.asks:
            assert self.login.become_password is not None
            self.pending = memoryview(self.frame.answer_to_prompt(self.login.become_password))
            self.held = self.frame.after_prompt() + payload
        else:
            self.pending, self.closing = memoryview(payload), True
        channel = self._channel(transport)
        try:
            self._converse(channel)
            return self._answer(channel, transport)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(_reason(error)) from None
        finally:
            channel.close()

    def _channel(self, transport: paramiko.Transport) -> paramiko.Channel:
        """Open a channel and send the command without waiting for its confirmation: one round trip less."""
        try:
            channel = transport.open_session(timeout=max(self.login.connect_timeout, PATIENCE))
        except paramiko.ChannelException as error:
            hint = "is MaxSessions in its sshd_config 0, or the account limited to other uses?"
            raise HostError(self.login.host, f"sshd opens no session: {_reason(error)}", hint=hint) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(_reason(error)) from None
        channel.in_buffer.set_event(self.wake)
        channel.in_stderr_buffer.set_event(self.wake)
        channel.settimeout(0.0)
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(self.frame.command(self.login, self.timeout))
        transport._send_user_message(message)  # type: ignore[attr-defined]
        return channel

    def _converse(self, channel: paramiko.Channel) -> None:
        """Send and receive until both streams have ended, or nothing more is to be expected."""
        while True:
            self.wake.forget()
            busy = self._receive(channel)
            busy |= self._send(channel)
            if busy:
                continue
            if channel.closed or channel.eof_received:
                channel.status_event.wait(GRACE)
                return
            now = time.monotonic()
            if channel.exit_status_ready() and now - self.heard > QUIET:
                return
            self._check_time(now)
            blocked = self.pending and not channel.send_ready()
            self.wake.wait(0.01 if blocked else 0.5)

    def _receive(self, channel: paramiko.Channel) -> bool:
        busy = False
        while channel.recv_ready():
            data = channel.recv(1 << 20)
            self.received += len(data)
            self._deliver(self.stdout.feed(data))
            busy = True
        while channel.recv_stderr_ready():
            data = channel.recv_stderr(1 << 20)
            self.received += len(data)
            self.stderr.feed(data)
            busy = True
        if busy:
            self.heard = time.monotonic()
            self._let_in()
        return busy

    def _deliver(self, data: bytes) -> None:
        if self.on_line is not None and data:
            for line in self.lines.feed(data):
                self.on_line(line)

    def _let_in(self) -> None:
        """Send the script once sudo has started the loader; send no more where sudo asks a second time."""
        if self.held and self.stdout.marked:
            self.pending, self.held, self.closing = memoryview(self.held), b"", True
        elif self.held and self.stderr.noise.count(self.frame.prompt) > 1:
            self.held, self.closing = b"", True

    def _send(self, channel: paramiko.Channel) -> bool:
        busy = False
        while self.pending and channel.send_ready():
            count = channel.send(bytes(self.pending[:CHUNK]))
            if count == 0:
                break
            self.pending = self.pending[count:]
            self.sent += count
            busy = True
        if self.closing and not self.pending:
            self.closing = False
            channel.shutdown_write()
        return busy

    def _check_time(self, now: float) -> None:
        passed = now - self.started
        if self.asks and not self.stdout.marked and passed > PATIENCE:
            raise self._not_started(None, f"sudo let nobody in within {PATIENCE:g} s")
        if passed > self.timeout + KILL_AFTER + GRACE:
            raise self._late(passed)

    def _answer(self, channel: paramiko.Channel, transport: paramiko.Transport) -> Output:
        passed = time.monotonic() - self.started
        if not channel.exit_status_ready() or channel.exit_status == -1:
            transport.join(0.5)  # its thread marks channels as closed before it marks itself as ended
            if not transport.is_active():
                raise self._lost("the session ended")
            raise self._killed(passed)
        if not self.stdout.marked:
            raise self._not_started(channel.exit_status, None)
        if channel.exit_status in {124, 137} and passed >= self.timeout:
            raise self._late(passed)
        if self.on_line is not None and self.lines.rest:
            self.on_line(self.lines.rest)
        return Output(channel.exit_status, self.stdout.data, self.stderr.data)

    def _lost(self, reason: str) -> UnreachableError:
        passed = time.monotonic() - self.started
        message = f"the connection was lost after {passed:.1f} s of {self.what}: {reason}"
        return UnreachableError(self.login.host, message, hint="did the host reboot, or the network change?")

    def _killed(self, passed: float) -> UnfinishedError:
        partial = Output(137, self.stdout.data, self.stderr.data)
        message = f"{self.what} was killed on the host after {passed:.0f} s"
        hint = "out of memory, or somebody's kill? see `journalctl -k` on the host"
        return UnfinishedError(self.login.host, message, partial=partial, hint=hint)

    def _late(self, passed: float) -> DeadlineError:
        partial = Output(124, self.stdout.data, self.stderr.data)
        message = f"{self.what} did not end within {self.timeout:g} s (waited {passed:.0f} s)"
        return DeadlineError(self.login.host, message, partial=partial)

    def _not_started(self, code: int | None, message: str | None) -> HostError:
        """Return why the loader never spoke: sudo, or the login shell."""
        said = self.stderr.noise.replace(self.frame.prompt, b"")
        host = self.login.host
        if self.login.needs_sudo:
            if self.stderr.noise.count(self.frame.prompt) > 1:
                said = b"incorrect password attempt"
            known = refusal(said, self.login.user)
            if known is not None:
                return HostError(host, known[0], hint=known[1])
        words = (said + b"\n" + self.stdout.noise).decode("utf-8", "backslashreplace").split("\n")
        last = next((line.strip() for line in words if line.strip()), "no message")
        message = message or f"the host did not start our command (exit code {code})"
        hint = f"see the login shell and the rc files of {self.login.user} on the host"
        return HostError(host, f"{message}: {last[:200]}", hint=hint)
