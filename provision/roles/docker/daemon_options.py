"""The keys of daemon.json: which kinds of value they take, and what makes a running dockerd take them over.

From dockerd's reference, "Daemon configuration file" and "Configuration reload behavior", and from what
its reload does with each key (moby, daemon/reload.go and reload_unix.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provision.roles.docker.merge import differences
from provision.roles.docker.text import equal

RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "cluster-advertise",
        "cluster-store",
        "cluster-store-opts",
        "debug",
        "default-runtime",
        "default-shm-size",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)
"""Keys that a running dockerd takes over at SIGHUP."""

RESET_BY_RELOAD = frozenset(
    {"features", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"}
)
"""Those of them that go back to their default when the key is gone; the others keep the value they had."""

LIVE_FEATURES = frozenset({"buildkit"})
"""Features that are read whenever they are asked for; cdi and the image store are set up at start."""

STORE = frozenset({"data-root", "graph", "storage-driver", "userns-remap"})
"""Keys with another value of which dockerd has other images and containers."""

_KEYS = {
    "text": """api-cors-header bip bip6 bridge cgroup-parent cluster-advertise cluster-store containerd
        containerd-namespace containerd-plugin-namespace data-root default-cgroupns-mode default-gateway
        default-gateway-v6 default-ipc-mode default-runtime exec-root firewall-backend fixed-cidr
        fixed-cidr-v6 graph group host-gateway-ip http-proxy https-proxy init-path ip log-driver log-format
        log-level metrics-addr min-api-version no-proxy pidfile seccomp-profile storage-driver
        swarm-default-advertise-addr tlscacert tlscert tlskey userland-proxy-path userns-remap""",
    "true or false": """allow-direct-routing debug experimental icc init ip-forward ip-forward-no-drop ip-masq
        ip6tables iptables ipv6 live-restore no-new-privileges raw-logs selinux-enabled tls tlsverify
        userland-proxy""",
    "a whole number": """cpu-rt-period cpu-rt-runtime max-concurrent-downloads max-concurrent-uploads
        max-download-attempts mtu network-control-plane-mtu network-diagnostic-port oom-score-adjust
        shutdown-timeout""",
    "a list": """allow-nondistributable-artifacts authorization-plugins cdi-spec-dirs default-address-pools
        dns dns-opts dns-search exec-opts hosts insecure-registries labels node-generic-resources
        registry-mirrors storage-opts""",
    "a mapping": """builder cluster-store-opts default-network-opts default-ulimits features log-opts proxies
        runtimes""",
    "text or a whole number": "default-shm-size",
}
KINDS = {key: kind for kind, keys in _KEYS.items() for key in keys.split()}
"""What dockerd wants as the value of the keys that it documents. Newer versions know more keys, so another
one is no mistake; ``dockerd --validate`` tells."""

_INTEGER = (-(2**63), 2**63 - 1)
_RANGES = {
    **dict.fromkeys(("max-concurrent-downloads", "max-concurrent-uploads"), (0, _INTEGER[1])),
    "max-download-attempts": (1, _INTEGER[1]),
    **dict.fromkeys(("mtu", "network-control-plane-mtu", "network-diagnostic-port"), (0, 65535)),
    "oom-score-adjust": (-1000, 1000),
}
"""What dockerd or Linux takes of whole numbers, the ends included; of all others Go's integers."""

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "true or false": (bool,),
    "a whole number": (int,),
    "a list": (list, tuple),
    "a mapping": (dict,),
    "text or a whole number": (str, int),
}


def problem(key: str, value: Any) -> str:
    """What is wrong with a key or its value for every dockerd, or nothing."""
    plain = key.strip().lower().replace("_", "-")
    if key not in KINDS and plain in KINDS:
        return f"dockerd spells it {plain!r}"
    kind = KINDS.get(key)
    if kind is None or value is None:
        return ""
    fits = isinstance(value, _TYPES[kind]) and (not isinstance(value, bool) or kind == "true or false")
    if not fits:
        return f"dockerd wants {kind}"
    least, most = _RANGES.get(key, _INTEGER)
    if isinstance(value, int) and not least <= value <= most:
        return f"must be from {least} to {most}"
    return ""


def needs_restart(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a reload is not enough to make dockerd go from one document to the other."""
    changed, gone = differences(old, new)
    return not (
        RELOADABLE.issuperset(changed)
        and RESET_BY_RELOAD.issuperset(gone)
        and _features_are_live(old.get("features"), new.get("features"))
    )


def moves_the_store(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether dockerd does not know its images and containers any more when it goes from one to the other."""
    changed, gone = differences(old, new)
    before, after = (_features(document).get("containerd-snapshotter") for document in (old, new))
    return not STORE.isdisjoint((*changed, *gone)) or bool(before) != bool(after)


def _features(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found = document.get("features")
    return found if isinstance(found, Mapping) else {}


def _features_are_live(old: Any, new: Any) -> bool:
    before, after = (value if isinstance(value, Mapping) else {} for value in (old, new))
    changed = {k for k in before.keys() | after.keys() if not equal(before.get(k), after.get(k))}
    return changed <= LIVE_FEATURES
