"""Who asks on a host: root, or somebody who sees half of it and whose answers mislead."""

from __future__ import annotations

from provision.connection.login import Login
from provision.errors import RefusedError
from provision.probe import Output, Probe

USER = Probe("user", "id -u")
"""The number of the user who asks."""


def require_root(login: Login, user: int | Output | None) -> None:
    """See that root is asking.

    :param user: its number, or the answer to :data:`USER`; without an answer nothing is said.
    :raises RefusedError: if somebody else is.
    """
    number = user.out.strip() if isinstance(user, Output) else str(user or "")
    if number in ("", "0"):
        return
    account = login.become_user if login.become else login.user
    hint = "set ansible_become: true for the host, or ansible_user: root"
    raise RefusedError(login.host, f"logged in as {account}, who is not root", hint=hint)
