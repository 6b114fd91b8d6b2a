"""Settings of the first login: whom a machine lets in before it is ours, and what it lets in afterwards."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from provision.bare.public_keys import PublicKey
from provision.role import Settings

BOOTSTRAP = "bootstrap"
"""The host's variable with its :class:`Bootstrap`."""

USER = r"^[a-z_][a-z0-9._-]{0,31}$"
"""Pattern of accounts: their names become a part of sudoers."""

User = Annotated[str, StringConstraints(pattern=USER)]
Password = Annotated[SecretStr, Field(min_length=1)]


class Bootstrap(Settings):
    """Settings under ``bootstrap:``, of ``inv bare.bootstrap``."""

    user: User = "root"
    """The account that takes the first login, such as root, or ubuntu of a cloud image."""
    password: Password | None = Field(default=None, examples=["…"])
    """Its password, for sshd and for its sudo; --ask-pass asks for it instead."""
    key: str = ""
    """File of the private key that it takes. Without key and password that is the key of ansible_user."""
    new_password: Password | None = Field(default=None, examples=["…"])
    """What its password becomes where the host lets nobody in before it is changed."""
    authorized_keys: tuple[PublicKey, ...] = ()
    """Further public keys that ansible_user gets, beside the one that the inventory logs in with."""
    lock_passwords: bool = True
    """Whether sshd takes keys only from then on. Passwords stay valid on the console."""
    lock_root: bool = True
    """Whether sshd refuses root from then on; where ansible_user is root, it refuses root's password."""
