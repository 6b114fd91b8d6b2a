"""Opening and closing: the socket, the handshake, and what its failures mean."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import time
from collections.abc import Sequence
from typing import Any

import fabric
import paramiko
from paramiko.packet import Packetizer

from provision.connection.dial import dial
from provision.connection.host_key_check import Pinned, expected_keys
from provision.connection.identities import Offer
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.errors import HostError, UnreachableError

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
MACS = tuple(f"hmac-sha2-{bits}{kind}" for kind in ("-etm@openssh.com", "") for bits in (256, 512))
"""Checksums of packets, for ciphers that have none of their own."""
LARGEST_PACKET = 1 << 18
"""Bytes of a packet that sshd may send (OpenSSH, packet.h: PACKET_MAX_SIZE)."""
LONGEST_BANNER = 1 << 16
"""Bytes before the handshake, the lines in front of the banner included."""
SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Host key algorithms of a key type, where they have other names than the type (RFC 8332)."""
ATTEMPTS = 6
"""How often a connection is tried that sshd drops before its banner."""
PATIENCE = 30.0
"""Seconds for what PAM on the host may do: a login, a channel, sudo. Its modules may ask other machines."""
ENDING = 5.0
"""Seconds for a transport's thread to notice that its socket has ended."""


def opened(login: Login, gateways: Sequence[fabric.Connection]) -> fabric.Connection:
    """Return an open session; tried again, ever more slowly, while sshd drops us before its banner."""
    expected = expected_keys(login)
    for attempt in range(1, ATTEMPTS + 1):
        session = _session(login, expected, _socket(login, gateways))
        started = time.monotonic()
        try:
            session.open()
        except HostError:
            close(session)
            raise
        except Exception as error:  # noqa: BLE001  # of any kind, if what the host sent makes no sense
            transport = session.client.get_transport()
            close(session)
            if (
                transport is None
                or transport.remote_version
                or _is_no_ssh(error)
                or time.monotonic() - started > login.connect_timeout / 2
            ):
                raise _handshake_error(login, transport, error) from None
        except BaseException:
            close(session)
            raise
        else:
            session.transport.set_keepalive(max(1, int(login.keepalive)))
            return session
        if attempt < ATTEMPTS:
            time.sleep(random.uniform(0.5, 1.0) * min(0.2 * 2**attempt, 5.0))  # noqa: S311 - no secret in it
    hint = (
        "it limits logins (MaxStartups, PerSourcePenalties in sshd_config): fewer --forks, or a higher limit"
    )
    where = f"{login.address} port {login.port}"
    message = f"{where} closed {ATTEMPTS} connections in a row without an SSH banner"
    raise UnreachableError(login.host, message, hint=hint)


def _session(login: Login, expected: Sequence[HostKey], sock: Any) -> fabric.Connection:
    """Return a Fabric connection that has our socket, keys and limits, ready to open.

    Its configuration reads no files and no environment, and is shared with nobody: Fabric writes into it.
    """
    session = fabric.Connection(
        login.address,
        user=login.user,
        port=login.port,
        config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
        connect_kwargs={
            "sock": sock,
            "transport_factory": functools.partial(_transport, login, expected),
            "timeout": login.connect_timeout,
            "banner_timeout": login.connect_timeout,
            "auth_timeout": max(login.connect_timeout, PATIENCE),
            "channel_timeout": max(login.connect_timeout, PATIENCE),
            "auth_strategy": Offer(login),
        },
    )
    session.client.set_missing_host_key_policy(Pinned(login, expected))
    return session


NO_BANNER = f"no SSH banner in {LONGEST_BANNER >> 10} KiB"


class _Packets(Packetizer):
    """Packets that are no larger than sshd sends them; paramiko would read up to 4 GiB into memory."""

    before_handshake = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > LARGEST_PACKET:
            raise paramiko.SSHException(f"the host sent a packet of {n} bytes")
        data: bytes = super().read_all(n, check_rekey)
        return data

    def _read_timeout(self, timeout: float) -> bytes:
        """Part of a line before the handshake; paramiko would wait for the end of the line without limit."""
        data: bytes = super()._read_timeout(timeout)  # type: ignore[misc]
        self.before_handshake += len(data)
        if self.before_handshake > LONGEST_BANNER:
            raise paramiko.SSHException(NO_BANNER)
        return data


class _Transport(paramiko.Transport):
    """A transport that looks up once a second, not ten times: 100 idle sessions cost 6 % of a core there."""

    _active_check_timeout = 1.0


def _transport(
    login: Login, expected: Sequence[HostKey], sock: Any, disabled_algorithms: Any = None
) -> paramiko.Transport:
    transport = _Transport(sock, disabled_algorithms=disabled_algorithms, packetizer_class=_Packets)
    transport.banner_timeout = transport.handshake_timeout = login.connect_timeout
    options = transport.get_security_options()
    options.ciphers, options.digests = CIPHERS, MACS
    kinds = {kind for key in expected for kind in SIGNATURES.get(key.kind, (key.kind,))}
    options.key_types = tuple(sorted(options.key_types, key=lambda kind: kind not in kinds))
    return transport


def close(session: fabric.Connection) -> None:
    """End a session and wait for its thread."""
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
        transport.join(ENDING)
    transport.close()
    transport.sock.close()


def _socket(login: Login, gateways: Sequence[fabric.Connection]) -> Any:
    """Return a connected socket to the host: a TCP one, or a channel of the last jump host."""
    where = f"{login.address} port {login.port}"
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
        message = f"{where} does not answer within {login.connect_timeout:g} s"
        hint = "is it up, and does a firewall drop packets?"
        raise UnreachableError(login.host, message, hint=hint) from None
    except Exception as error:  # noqa: BLE001  # a jump host may send anything
        via = f" through {login.jump[-1].address}" if login.jump else ""
        message = f"{where} cannot be connected to{via}: {reason(error)}"
        hint = "is sshd running there, and is the port right?"
        raise UnreachableError(login.host, message, hint=hint) from None


def reason(error: BaseException) -> str:
    """Say what an exception of paramiko or the socket means, in words for an operator."""
    if isinstance(error, paramiko.ChannelException):
        return error.text or f"channel refused ({error.code})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).strip() or type(error).__name__


def _is_no_ssh(error: BaseException) -> bool:
    """Whether paramiko read lines, and none of them was a banner."""
    return any(
        said in str(error) for said in (NO_BANNER, "Indecipherable protocol version", "codec can't decode")
    )


def _handshake_error(login: Login, transport: paramiko.Transport, error: BaseException) -> UnreachableError:
    """Return what paramiko's error means to an operator."""
    where = f"{login.address} port {login.port}"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        hint = "on the host, sshd -T shows what it offers: widen its sshd_config, or install a newer sshd"
        return UnreachableError(login.host, f"{where}: no algorithm in common: {error}", hint=hint)
    if _is_no_ssh(error):
        message = f"{where} sends something else than an SSH banner"
        return UnreachableError(login.host, message, hint="is that sshd, and is the port right?")
    if not transport.remote_version:
        message = f"{where} is connected but shows no SSH banner within {login.connect_timeout:g} s"
        return UnreachableError(login.host, message, hint="is that sshd, and is the host overloaded?")
    # paramiko calls its own limit the end of the connection.
    if "No existing session" in str(error) or transport.packetizer.handshake_timed_out():
        message = f"{where} does not answer: no SSH handshake within {login.connect_timeout:g} s"
        return UnreachableError(login.host, message, hint="is the host overloaded?")
    if isinstance(error, EOFError) or not str(error):
        return UnreachableError(login.host, f"{where} closed the connection during the handshake")
    return UnreachableError(login.host, f"{where}: the handshake failed: {reason(error)}")


def fetch_host_key(login: Login) -> HostKey:
    """Return the public key that a host shows, trusted or not, without logging in.

    Of a known host, it is one of a type that is trusted where it has such a key.

    :raises UnreachableError: where it shows none, or a jump host in front of it cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        gateways: list[fabric.Connection] = []
        for hop in login.jump:
            gateways.append(opened(hop, gateways))
            stack.callback(close, gateways[-1])
        transport = _transport(login, expected_keys(login), _socket(login, gateways))
        stack.callback(_stop, transport)
        try:
            transport.start_client(timeout=login.connect_timeout)
            key = transport.get_remote_server_key()
        except Exception as error:  # noqa: BLE001  # of any kind, if what the host sent makes no sense
            raise _handshake_error(login, transport, error) from None
    return HostKey(key.get_name(), key.get_base64())
