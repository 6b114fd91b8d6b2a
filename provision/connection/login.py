"""How a host is logged in to: inventory variables and ``ssh_config`` → Login. No I/O.

The variables are Ansible's, and so is their precedence: what the inventory says wins over ``ssh_config``
(ansible-core, plugins/connection/ssh.py). What cannot be honoured is refused, never ignored.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from provision.connection.client_config import SshConfig
from provision.connection.variables import Given, flag_of, port_of, seconds_of, unchecked
from provision.data import at_home
from provision.errors import InventoryError
from provision.secrecy import SHORTEST, KnownSecrets, secret_values

DEFAULT_PORT = 22
CONNECT_TIMEOUT = 10.0
KEEPALIVE = 15.0
DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
LONGEST_JUMP = 8


@dataclass(frozen=True)
class Login:
    """Everything needed to open a session on one host.

    :ivar host: the inventory's name of the host; errors speak of this name.
    :ivar address: DNS name or IP address that the socket is opened to.
    :ivar key_files: private keys named by the inventory (then exactly one) or ``ssh_config``; empty means
        the user's default keys and agent.
    :ivar host_key: the host's public keys, ``TYPE BASE64``; where given, known_hosts files are asked for
        revoked keys only.
    :ivar host_key_alias: the name to look for in known_hosts files instead of the address.
    :ivar jump: the hosts to go through, first hop first.
    :ivar is_jump_host: whether it is one of them; their keys are recorded by ssh alone.
    :ivar connect_timeout: seconds for each of: the TCP connect, the banner, the login.
    :ivar keepalive: seconds between signs of life on an idle session.
    :ivar variables: the host's, as each of its groups and it itself give them, for :attr:`secrets`.
    """

    host: str
    address: str
    port: int = DEFAULT_PORT
    user: str = "root"
    key_files: tuple[str, ...] = ()
    identities_only: bool = False
    password: str | None = field(default=None, repr=False)
    become: bool = False
    become_user: str = "root"
    become_password: str | None = field(default=None, repr=False)
    host_key: tuple[str, ...] = ()
    host_key_alias: str | None = None
    known_hosts: tuple[str, ...] = DEFAULT_KNOWN_HOSTS
    jump: tuple[Login, ...] = ()
    is_jump_host: bool = False
    connect_timeout: float = CONNECT_TIMEOUT
    keepalive: float = KEEPALIVE
    variables: tuple[Mapping[str, object], ...] = field(default=(), repr=False, compare=False)

    @property
    def known_as(self) -> str:
        """The name under which known_hosts files know this host: ``[address]:port`` off port 22 (sshd(8))."""
        name = (self.host_key_alias or self.address).lower()
        return name if self.port == DEFAULT_PORT or self.host_key_alias else f"[{name}]:{self.port}"

    @property
    def needs_sudo(self) -> bool:
        """Whether commands run through sudo; a user that already is the wanted one needs none."""
        return self.become and self.become_user != self.user

    @functools.cached_property
    def secrets(self) -> KnownSecrets:
        """Hides what this command knows to be secret of the host in what programs print there."""
        passwords = (self.password, self.become_password)
        found = frozenset(secret_values(self.variables))
        return KnownSecrets(found.union(word for word in passwords if word and len(word) >= SHORTEST))

    @classmethod
    def of(cls, name: str, vars: Mapping[str, object], ssh_config: SshConfig) -> Login:
        """Return the login of the inventory host ``name``.

        :param vars: the host's merged inventory variables; those that are not about connecting are ignored.
        :param ssh_config: the parsed client configuration; looked up by the address, as Ansible does.
        :raises InventoryError: for a value of the wrong kind, or one that cannot be honoured.
        """
        given = Given(name, vars)
        given.refuse_what_we_do_not_do()
        address = given.text("ansible_host", "ansible_ssh_host") or name
        options = _Options(name, _arguments(given), ssh_config, address)
        login = _direct(address, given, options)
        return replace(login, jump=_jump(login, options))


class _Options:
    """SSH options of one host: those on the inventory's command line, then those of ``ssh_config``."""

    def __init__(self, host: str, arguments: Mapping[str, str], file: SshConfig, name: str) -> None:
        self.host = host
        self.arguments = arguments
        self.file = file
        self.name = name
        self.config = _looked_up(host, file, name)

    @property
    def way(self) -> str:
        """The option that names the hosts to go through."""
        return "proxyjump" if self.text("proxyjump") else "proxycommand"

    @contextlib.contextmanager
    def placed(self, key: str) -> Iterator[None]:
        """What is wrong with a value of ``ssh_config`` is told with file and line."""
        try:
            yield
        except InventoryError as error:
            where = None if self.arguments.get(key) else self.file.place(self.name, key)
            raise InventoryError(error.message, where=where, hint=error.hint) from None

    def text(self, key: str) -> str | None:
        value = self.arguments.get(key) or self.config.get(key)
        return None if value is None else str(value)

    def port(self) -> int:
        text = self.text("port")
        with self.placed("port"):
            return DEFAULT_PORT if text is None else port_of(self.host, "Port", text)

    def seconds(self, name: str) -> float | None:
        text = self.text(name.lower())
        with self.placed(name.lower()):
            return None if text is None or text.lower() == "none" else seconds_of(self.host, name, text)

    def flag(self, name: str) -> bool:
        text = self.text(name.lower())
        with self.placed(name.lower()):
            return text is not None and flag_of(self.host, name, text)

    def key_files(self, given: str | None) -> tuple[str, ...]:
        """Return the one that the inventory gives, as a variable or an argument; else ``ssh_config``'s."""
        named = given or self.arguments.get("identityfile")
        files = self.config.get("identityfile", [])
        assert isinstance(files, list)
        files = [named] if named else [file for file in files if file.lower() != "none"]
        return tuple(str(at_home(file)) for file in files)

    def known_hosts(self) -> tuple[str, ...]:
        user = self.text("userknownhostsfile")
        system = self.text("globalknownhostsfile")
        users = DEFAULT_KNOWN_HOSTS[:2] if user is None else tuple(user.split())
        return (*users, *(DEFAULT_KNOWN_HOSTS[2:] if system is None else tuple(system.split())))


def _direct(
    address: str, given: Given, options: _Options, *, user: str | None = None, port: int | None = None
) -> Login:
    """Return the login without jump hosts; ``user`` and ``port`` are those that a ProxyJump names."""
    return Login(
        host=given.host,
        address=options.text("hostname") or address,
        port=port or given.port("ansible_port", "ansible_ssh_port") or options.port(),
        user=(
            user
            or given.text("ansible_user", "ansible_ssh_user")
            or options.text("user")
            or getpass.getuser()
        ),
        key_files=options.key_files(given.text("ansible_ssh_private_key_file", "ansible_private_key_file")),
        identities_only=options.flag("IdentitiesOnly"),
        password=given.text("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
        become=given.flag("ansible_become", "ansible_sudo"),
        become_user=given.text("ansible_become_user", "ansible_sudo_user") or "root",
        become_password=given.text("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"),
        host_key=given.host_keys(),
        host_key_alias=options.text("hostkeyalias"),
        known_hosts=options.known_hosts(),
        connect_timeout=(
            given.seconds("ansible_timeout", "ansible_ssh_timeout")
            or options.seconds("ConnectTimeout")
            or CONNECT_TIMEOUT
        ),
        keepalive=options.seconds("ServerAliveInterval") or KEEPALIVE,
    )


_SHORT = {"J": "proxyjump", "i": "identityfile", "p": "port", "l": "user"}
_HONOURED = {
    "hostname", "port", "user", "identityfile", "identitiesonly", "proxyjump", "proxycommand",
    "connecttimeout", "userknownhostsfile", "globalknownhostsfile", "hostkeyalias",
    "serveraliveinterval",
}  # fmt: skip
_HARMLESS = {
    "controlmaster", "controlpersist", "controlpath", "serveralivecountmax", "tcpkeepalive",
    "compression", "loglevel", "batchmode", "preferredauthentications", "pubkeyauthentication",
    "passwordauthentication", "kbdinteractiveauthentication", "gssapiauthentication",
    "gssapidelegatecredentials", "numberofpasswordprompts", "connectionattempts", "requesttty",
    "checkhostip", "updatehostkeys", "visualhostkey", "hashknownhosts", "escapechar",
    "stricthostkeychecking",
}  # fmt: skip


def _arguments(given: Given) -> dict[str, str]:
    """Return the options in the inventory's arguments for ``ssh``; the first value of each wins."""
    found: dict[str, str] = {}
    for name in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
        text = given.text(name)
        for key, value in _parsed(given.host, name, text) if text else ():
            _check_option(given.host, name, key, value)
            found.setdefault(key, value)
    return found


def _parsed(host: str, name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield option and value, keys in lower case, from the command line words in ``text``."""
    try:
        words = iter(shlex.split(text))
    except ValueError as error:
        raise InventoryError(f"{host}: {name}: {error}") from None
    for word in words:
        if set(word[1:]) <= set("46CqTtvxakn") and word[:1] == "-" and word[1:]:
            continue
        letter, value = word[1:2], word[2:]
        if word[:1] != "-" or (letter != "o" and letter not in _SHORT):
            hint = "honoured are -o, -J, -i, -p and -l"
            raise InventoryError(f"{host}: {name}: {word!r} is not supported", hint=hint)
        value = value or next(words, "")
        if letter == "o":
            key, _, value = value.strip().replace("=", " ", 1).partition(" ")
            yield key.lower(), value.strip().strip('"')
        else:
            yield _SHORT[letter], value


def _check_option(host: str, name: str, key: str, value: str) -> None:
    if key == "stricthostkeychecking" and value.lower() in {"no", "off", "false"}:
        raise unchecked(host, f"{name}: StrictHostKeyChecking={value}")
    if key not in _HONOURED | _HARMLESS and (key, value.lower()) != ("forwardagent", "no"):
        hint = "honoured are: " + ", ".join(sorted(_HONOURED))
        raise InventoryError(f"{host}: {name}: the option {key!r} is not supported", hint=hint)
    if not value:
        raise InventoryError(f"{host}: {name}: the option {key!r} has no value")


def _looked_up(host: str, ssh_config: SshConfig, name: str) -> Mapping[str, object]:
    try:
        found: Mapping[str, object] = ssh_config.lookup(name)
    except Exception as error:  # noqa: BLE001  # paramiko has no kind of its own for values that make no sense
        said = f"{host}: ssh_config cannot be applied to {name}: {error or type(error).__name__}"
        raise InventoryError(said, hint=f"see what OpenSSH makes of it: ssh -G {name}") from None
    return found


def _jump(login: Login, options: _Options) -> tuple[Login, ...]:
    """Return the hops in front of ``login``, first hop first, each with its own ``ssh_config`` options."""
    host = login.host
    hops: list[Login] = []
    specs, naming = _hops(host, options), options
    seen = {(login.address, login.port)}
    while specs:
        with naming.placed(naming.way):
            user, name, port = _split(host, specs.pop())
        options = _Options(host, {}, options.file, name)
        hop = _direct(name, Given(host, {}), options, user=user, port=port)
        if (hop.address, hop.port) in seen:
            if specs and not hops:
                hint = "name only the hosts on the way to it; ProxyJump none reaches it directly"
                with naming.placed(naming.way):
                    raise InventoryError(
                        f"{host}: ProxyJump leads through the host itself, {name}", hint=hint
                    )
            break  # `Host *` with a ProxyJump matches the jump host itself, which ssh(1) reaches directly
        seen.add((hop.address, hop.port))
        hops.insert(0, replace(hop, host=f"{host} (jump host {name})", is_jump_host=True))
        if len(hops) > LONGEST_JUMP:
            with naming.placed(naming.way):
                raise InventoryError(f"{host}: more than {LONGEST_JUMP} jump hosts in a row")
        if not specs:
            specs, naming = _hops(host, options), options
    return tuple(hops)


def _hops(host: str, options: _Options) -> list[str]:
    if jump := options.text("proxyjump"):
        return [] if jump.lower() == "none" else [hop.strip() for hop in jump.split(",")]
    command = options.text("proxycommand") or "none"
    with options.placed("proxycommand"):
        return [] if command.lower() == "none" else [_hop_of_command(host, command)]


def _hop_of_command(host: str, command: str) -> str:
    """Return the jump host of ``ssh -W %h:%p [-q] [-p N] [-l U] HOST``, as used before ProxyJump."""
    try:
        words = iter(shlex.split(command))
    except ValueError as error:
        hint = "use ProxyJump (ansible_ssh_common_args: -J HOST)"
        raise InventoryError(f"{host}: ProxyCommand {command}: {error}", hint=hint) from None
    found = {"": "", "W": "", "p": "", "l": ""}
    usable = next(words, "").rpartition("/")[2] == "ssh"
    for word in words:
        letter = word[1:2]
        if word[:1] != "-":
            usable = usable and not found[""]
            found[""] = word
        elif letter in {"W", "p", "l"}:
            found[letter] = word[2:] or next(words, "")
        elif not set(word[1:]) <= set("qTxCA46"):
            usable = False
    if not usable or not found["W"] or not found[""]:
        hint = "use ProxyJump (ansible_ssh_common_args: -J HOST)"
        program = command.split(" ", maxsplit=1)[0]  # its arguments may hold a password
        raise InventoryError(f"{host}: this ProxyCommand is not supported: {program} …", hint=hint)
    user = f"{found['l']}@" if found["l"] else ""
    return user + found[""] + (f":{found['p']}" if found["p"] else "")


def _split(host: str, spec: str) -> tuple[str | None, str, int | None]:
    """Return user, name and port of ``[user@]name[:port]``, ``ssh://`` and ``[v6]:port`` included."""
    text = spec.removeprefix("ssh://").rstrip("/")
    user, _, text = text.rpartition("@")
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
    else:
        name, port = text, ""
    if not name:
        raise InventoryError(f"{host}: {spec!r} is not a jump host")
    return user or None, name, port_of(host, "ProxyJump", port) if port else None
