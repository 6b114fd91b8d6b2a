"""The lab's network: one bridge with this machine's address on it, routed nowhere."""

from __future__ import annotations

from pathlib import Path

from lab.execute import execute
from lab.layout import Layout
from provision.errors import UsageError


def exists(layout: Layout) -> bool:
    return Path("/sys/class/net", layout.bridge).exists()


def ensure_free(layout: Layout) -> None:
    """Check that the lab's addresses lead nowhere else.

    :raises UsageError: another interface of this machine has an address among them.
    """
    for line in execute("ip", "-4", "-oneline", "address").stdout.splitlines():
        _, interface, _, address, *_ = line.split()
        if address.startswith(f"{layout.prefix}."):
            raise UsageError(
                f"the lab's network {layout.prefix}.0/24 is in use on this machine, by {interface}",
                hint=f"ip address show {interface}",
            )


def raise_bridge(layout: Layout) -> None:
    """Make the bridge and give it the gateway's address.

    Hosts get no default route, and the bridge carries one /24; other networks stay as they are.
    """
    execute("ip", "link", "add", layout.bridge, "type", "bridge")
    # Without this the bridge would have a link-local IPv6 address that hosts could reach services on.
    execute("ip", "link", "set", layout.bridge, "addrgenmode", "none")
    execute("ip", "address", "add", f"{layout.gateway}/24", "dev", layout.bridge)
    execute("ip", "link", "set", layout.bridge, "up")


def remove_bridge(layout: Layout) -> None:
    """Remove the bridge, and the cables of virtual machines in it, which outlive these."""
    for link in Path("/sys/class/net").iterdir():
        if (link / "tun_flags").exists() and (link / "master").resolve().name == layout.bridge:
            execute("ip", "link", "delete", link.name)
    if exists(layout):
        execute("ip", "link", "delete", layout.bridge)


def link_of(machine: str) -> str:
    """The interface on this machine that is the other end of a host's cable (named by systemd-nspawn)."""
    return f"vb-{machine}"


def set_link(machine: str, *, up: bool) -> None:
    execute("ip", "link", "set", link_of(machine), "up" if up else "down")
