"""Settings of a seed: what an installer, or an image with cloud-init, is told about a machine."""

from __future__ import annotations

import difflib
import functools
import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from provision.bare import disks
from provision.bare.disks import BY_ID
from provision.bare.public_keys import PublicKey
from provision.role import ImpossibleError, Settings

SEED = "seed"
"""The host's variable with its :class:`Seed`."""

_64 = "[./A-Za-z0-9]"
_SHA = rf"\$(rounds=[1-9][0-9]+\$)?{_64}{{1,16}}\$"
CRYPT = "|".join(
    (
        rf"\$5{_SHA}{_64}{{43}}",
        rf"\$6{_SHA}{_64}{{86}}",
        rf"\$g?y\${_64}+\${_64}{{0,86}}\${_64}{{43}}",
        rf"\$7\${_64}{{11,97}}\${_64}{{43}}",
        rf"\$2[aby]\$[0-9]{{2}}\${_64}{{53}}",
    )
)
"""Pattern of whole crypt hashes: sha256, sha512, yescrypt, gost-yescrypt, scrypt, bcrypt (crypt(5))."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"^({_LABEL}\.)*{_LABEL}$"
"""Pattern of names of machines (RFC 1123)."""

LONGEST_NAME = 64
"""Characters of the name that Linux takes (HOST_NAME_MAX)."""

_NO_MACHINES = [ipaddress.ip_network(text) for text in ("0.0.0.0/8", "240.0.0.0/4", "::/128")]
"""Networks that no machine is in (RFC 6890)."""

ACCOUNT = "^[a-z][a-z0-9_-]{0,31}$"
"""Pattern of accounts that every installer makes; root is none of them."""


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_machine_name(text: str) -> bool:
    """Whether a machine can be called ``text``, and be reached by it."""
    last = text.rpartition(".")[2]
    numeric = re.fullmatch("[0-9]+|0[xX][0-9A-Fa-f]*", last)  # 10.7 is read as the address 10.0.0.7
    own = text.lower().partition(".")[0] != "localhost"
    return len(text) <= LONGEST_NAME and bool(re.fullmatch(HOSTNAME, text)) and own and not numeric


def _machine_name(text: str) -> str:
    if not is_machine_name(text):
        hint = f"as gpu-01.example.com: {LONGEST_NAME} characters at most, no number behind the last dot"
        raise ImpossibleError(f"{text} is not a name that a machine can have", hint)
    return text


_timezones = functools.cache(available_timezones)


def _timezone(text: str) -> str:
    known = _timezones()  # none on a machine without tzdata, which cannot tell
    if known and text not in known:
        close = difflib.get_close_matches(text, known, 1, 0.8)
        hint = f"did you mean {close[0]}?" if close else "a name such as Europe/Berlin or Etc/UTC"
        raise ImpossibleError(f"tzdata of this machine has no time zone {text}", hint)
    return text


def _mirror(text: str) -> str:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or not (is_address(parts.hostname or "") or re.fullmatch(HOSTNAME, parts.hostname or "")):
        raise ImpossibleError(f"{text} names no host that can be", "as in http://mirror.example.com/ubuntu")
    return text


def _address(text: str) -> str:
    if not is_address(text):
        raise ImpossibleError(f"{text!r} is not an IP address", "an address, such as 192.0.2.1")
    return text


def _hosts_address(text: str) -> str:
    found = ipaddress.ip_address(_address(text))
    if found.is_loopback or found.is_multicast or any(found in network for network in _NO_MACHINES):
        raise ImpossibleError(
            f"{text} is not an address at which a network has a machine", "such as 192.0.2.1"
        )
    return text


def _interface_address(text: str) -> str:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        text = ""
    address, _, prefix = text.partition("/")
    if not prefix.isdigit() or int(prefix) == 0 or "%" in text:  # a mask is read by some installers only
        raise ImpossibleError("not an address with its prefix", "as in 192.0.2.11/24")
    _hosts_address(address)
    return text


def _mac(text: str) -> str:
    if int(text[:2], 16) & 1 or not int(text.replace(":", ""), 16):
        hint = "ip link shows it on the machine, and its BMC: 0c:42:a1:00:00:01"
        raise ImpossibleError(f"{text} is not the hardware address of one interface", hint)
    return text


def _interface(text: str) -> str:
    if text == "lo":
        raise ImpossibleError("lo leads to no network", "interface: eno1")
    return text


def _disk(text: str) -> str:
    if found := disks.objection(text):
        raise ImpossibleError(*found)
    return text


def _refuse_no_host(
    own: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    setting: str,
) -> None:
    """Refuse addresses that no machine of a network has; a network of 1 or 2 addresses has none."""
    network = own.network
    if network.num_addresses <= 2:
        return
    if address == network.network_address:
        what = "subnet-router" if address.version == 6 else "network"
    elif address.version == 4 and address == network.broadcast_address:
        what = "broadcast"
    else:
        return
    message = f"{address} is the {what} address of {network}, and no machine's"
    raise ImpossibleError(message, "is the prefix of the address right?", (setting,))


def _crypt(secret: SecretStr) -> SecretStr:
    # A pattern of pydantic's would show what does not match.
    if not re.fullmatch(CRYPT, secret.get_secret_value()):
        hint = "openssl passwd -6 asks for a password and prints its hash: $6$…"
        raise ImpossibleError("the password is not a whole crypt hash of a strong method", hint)
    return secret


Hostname = Annotated[str, StringConstraints(pattern=HOSTNAME, max_length=253)]
Address = Annotated[str, AfterValidator(_hosts_address)]


class Network(Settings):
    """The network of one interface; without ``address`` it is DHCP's."""

    interface: (
        Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,14}$"), AfterValidator(_interface)]
        | None
    ) = Field(None, examples=["eno1"])
    """The interface by its name."""
    mac: (
        Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"), AfterValidator(_mac)]
        | None
    ) = Field(None, examples=["0c:42:a1:00:00:01"])
    """The interface by its hardware address, in lower case. Debian's installer takes names only."""
    address: Annotated[str, AfterValidator(_interface_address)] | None = Field(
        None, examples=["192.0.2.11/24"]
    )
    """The address with its prefix; DHCP without it."""
    gateway: Address | None = Field(None, examples=["192.0.2.1"])
    """The default gateway of a static address."""
    nameservers: tuple[Address, ...] = Field((), examples=[["192.0.2.53"]])
    """Name servers of a static address."""

    @model_validator(mode="after")
    def _fits(self) -> Network:
        if (self.interface is None) == (self.mac is None):
            raise ImpossibleError("one of interface and mac must be given", "interface: eno1")
        if self.address is None:
            if self.gateway or self.nameservers:
                raise ImpossibleError("gateway and nameservers need an address", "address: 192.0.2.11/24")
            return self
        own = ipaddress.ip_interface(self.address)
        _refuse_no_host(own, own.ip, "address")
        if self.gateway:
            gateway = ipaddress.ip_address(self.gateway)
            if gateway not in own.network:
                message = f"the gateway {self.gateway} is not in the network {own.network}"
                raise ImpossibleError(message, "is the prefix of the address right?", ("gateway",))
            if gateway == own.ip:
                message = f"{self.gateway} is the machine's own address"
                raise ImpossibleError(message, "the address of the router", ("gateway",))
            _refuse_no_host(own, gateway, "gateway")
        if any(ipaddress.ip_address(server).version != own.version for server in self.nameservers):
            raise ImpossibleError(
                f"must be of IPv{own.version}, as the address is", "name others", ("nameservers",)
            )
        return self


class Seed(Settings):
    """Settings under ``seed:``, of ``inv bare.seed``."""

    system: Literal["ubuntu", "debian", "rhel"] = Field(examples=["ubuntu"])
    """What is installed. rhel is for Rocky and AlmaLinux, too."""
    method: Literal["installer", "image"] = "installer"
    """Whether the system's installer reads the seed, or cloud-init in a ready image does."""
    account: Annotated[str, StringConstraints(pattern=ACCOUNT)] | None = Field(None, examples=["ops"])
    """The account that is made, with sudo that asks for nothing; the inventory's ansible_user without it."""
    authorized_keys: tuple[PublicKey, ...] = Field(
        min_length=1,
        examples=[
            ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F ops@desk"]
        ],
    )
    """The public keys that it takes."""
    password: Annotated[SecretStr, AfterValidator(_crypt)] | None = Field(None, examples=["$6$…"])
    """The crypt hash of its password, for the console; without it, it has none. sshd takes keys only."""
    hostname: Annotated[str, StringConstraints(pattern=HOSTNAME), AfterValidator(_machine_name)] | None = (
        Field(None, examples=["gpu-01.example.com"])
    )
    """The name that the machine gives itself; the inventory's without it."""
    network: Network | None = None
    """Its network. Without it the installer takes DHCP on the interface that it finds."""
    disk: (
        Annotated[
            str,
            StringConstraints(pattern=rf"^/dev/({BY_ID[5:]})?[A-Za-z0-9._:+=@-]+$"),
            AfterValidator(_disk),
        ]
        | None
    ) = Field(None, examples=["/dev/disk/by-id/nvme-SAMSUNG_MZQL2960HCJR_S64FNE0R123456"])
    """The disk that the installer wipes, a whole one; it must be named."""
    root_gib: int = Field(100, ge=20, le=16384)
    """GiB of the root file system. /var, which has Docker's images, gets the rest of the disk."""
    timezone: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"), AfterValidator(_timezone)
    ] = "Etc/UTC"
    """The time zone."""
    time_servers: tuple[Hostname | Address, ...] = Field((), examples=[["ntp1.example.com"]])
    """Time servers of chrony, beside the distribution's own on Debian and Ubuntu, instead of them on RHEL."""
    serial: Annotated[str, StringConstraints(pattern=r"^tty[A-Z]+[0-9]+(,[0-9]+([noe][78]?)?)?$")] = (
        "ttyS0,115200n8"
    )
    """The serial console, as the kernel's option console= has it."""
    mirror: (
        Annotated[
            str,
            StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$"),
            AfterValidator(_mirror),
        ]
        | None
    ) = Field(None, examples=["http://mirror.example.com/ubuntu"])
    """A mirror of the distribution. Without it Ubuntu and Debian take their own, and RHEL the medium."""

    @model_validator(mode="after")
    def _fits(self) -> Seed:
        if self.method == "image":
            if self.network is None:
                raise ImpossibleError("an image needs the network", "network: {interface: eno1}")
            return self
        if self.disk is None:
            hint = f"disk: {BY_ID}nvme-…, as ls {BY_ID} has it; all that it holds is lost"
            raise ImpossibleError("the installer needs a disk", hint)
        if self.system == "debian" and self.network and self.network.mac:
            hint = "interface: eno1"
            raise ImpossibleError(
                "Debian's installer knows interfaces by name only", hint, ("network", "mac")
            )
        if self.system == "ubuntu" and re.search(rf"^{BY_ID}(wwn-|nvme-eui\.)", self.disk):
            hint = "take the name with the model and the serial number: nvme-SAMSUNG_…"
            raise ImpossibleError("Ubuntu's installer cannot look for this name", hint, ("disk",))
        return self
