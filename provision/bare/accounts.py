"""Names that a seed's account cannot have, since its system has a user or a group of that name. Pure."""

from __future__ import annotations

from provision.bare.seed_settings import Seed


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EVERYWHERE = _names(
    "root daemon bin sys sync games man lp mail nobody adm tty disk kmem dialout cdrom floppy tape audio"
    " operator utmp video users input kvm render sshd"
)

_STATIC = _EVERYWHERE | _names(
    "news uucp proxy www-data backup list irc gnats fax voice sudo dip src shadow sasl plugdev staff"
    " nogroup messagebus crontab syslog netdev"
)
"""Users and groups of base-passwd, and of packages that Debian and Ubuntu Server have."""

_RESERVED = _STATIC | _names(
    "admin netplan ftn mysql tac-plus alias qmail qmaild qmails qmailr qmailq qmaill qmailp asterisk"
    " vpopmail vchkpw slurm hacluster haclient grsec-tpe grsec-sock-all grsec-sock-clt grsec-sock-srv"
    " grsec-proc ceph opensrf libvirt-qemu bind cupsys dcc dhcp dictd dnsmasq dovecot fetchmail firebird"
    " ftp fuse gdm haldaemon hplilp identd jwhois klog lpadmin mythtv powerdev radvd saned sbuild scanner"
    " slocate ssh ssl-cert sslwrap statd telnetd tftpd"
)
"""Of Debian's installer: at these its part user-setup stops with a question (its file reserved-usernames)."""

_DEBIAN = _STATIC | _names("sgx polkitd tss uuidd tcpdump landscape lxd pollinate dhcpcd")
"""With those of packages that images of Debian or Ubuntu Server may have."""

_RHEL = _EVERYWHERE | _names(
    "sgx shutdown halt ftp mem wheel lock utempter ssh_keys dbus polkitd tss chrony sssd rpc rpcuser"
)
"""Of the package setup, and of packages that installations of RHEL may have."""


def unfit(seed: Seed, account: str) -> str | None:
    """Why an account of a seed would not be made under this name; None where it is."""
    installer = seed.method == "installer"
    if seed.system == "debian" and installer and account in _RESERVED:
        return f"Debian's installer reserves the name {account}, and would stop to ask for another one"
    if account in (_RHEL if seed.system == "rhel" else _DEBIAN) or account.startswith("systemd-"):
        return f"{account} is a user or a group that the system may have itself"
    return None
