"""How the hosts of an inventory are reached; what is refused of that has its place in the inventory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from provision.connection import ssh_config
from provision.connection.client_config import SshConfig
from provision.connection.login import Login
from provision.errors import InventoryError
from provision.inventory import Host

OPTIONS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
"""Variables that hold options of ssh(1), of which messages name the option."""


def way_in(host: Host, config: SshConfig) -> Login:
    """How a host is reached.

    :raises InventoryError: for a connection variable that is refused, with file and line.
    """
    try:
        login = Login.of(host.name, host.vars, config)
    except InventoryError as error:
        if error.where:  # in ssh_config
            raise
        words = set(re.findall(r"\w+", error.message.removeprefix(f"{host.name}: ")))
        named = [name for name in host.vars if name in words]
        named += [name for name in OPTIONS if words & set(re.findall(r"\w{4,}", str(host.vars.get(name))))]
        where = next(filter(None, (host.where(name) for name in named)), None)
        raise InventoryError(error.message, where=where, hint=error.hint) from None
    layers = ({name: item.value for name, item in layer.items()} for layer in host.layers)
    return replace(login, variables=(host.vars, *layers))


def logins(hosts: Iterable[Host]) -> list[Login]:
    """How each host is reached.

    :raises InventoryError: as :func:`way_in`.
    """
    config = ssh_config()
    return [way_in(host, config) for host in hosts]
