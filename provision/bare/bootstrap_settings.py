"""Settings of the first login: whom a machine lets in before it is ours, and what it lets in afterwards."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from provision.bare.public_keys import PublicKey
from provision.role import ImpossibleError, Settings

BOOTSTRAP = "bootstrap"
"""The host's variable with its :class:`Bootstrap`."""

USER = r"^[a-z_][a-z0-9._-]{0,31}$"
"""Pattern of accounts: their names become a part of sudoers."""

User = Annotated[str, StringConstraints(pattern=USER)]


def _one_line(secret: SecretStr) -> SecretStr:
    # sshd and passwd would read a part of it; and a pattern of pydantic's would show what does not match.
    if not secret.get_secret_value().isprintable():
        raise ImpossibleError(
            "the password is not one line of printable characters", "write it on one line, in quotes"
        )
    return secret


Password = Annotated[SecretStr, Field(min_length=1), AfterValidator(_one_line)]


class Bootstrap(Settings):
    """Settings under ``bootstrap:``, of ``inv bare.bootstrap``."""

    user: User = "root"
    """The account that takes the first login, such as root, or ubuntu of a cloud image."""
    password: Password | None = Field(default=None, examples=["…"])
    """Its password, for sshd and for its sudo; --ask-pass asks for it instead."""
    key: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    """File of the private key that it takes. Without key and password that is the key of ansible_user."""
    new_password: Password | None = Field(default=None, examples=["…"])
    """What its password becomes where the host lets nobody in before it is changed."""
    authorized_keys: tuple[PublicKey, ...] = ()
    """Further public keys that ansible_user gets, beside the one that the inventory logs in with."""
    lock_passwords: bool = True
    """Whether sshd takes keys only from then on. Passwords stay valid on the console."""
    lock_root: bool = True
    """Whether sshd refuses root from then on; where ansible_user is root, it refuses root's password."""

    @model_validator(mode="after")
    def _fits(self) -> Bootstrap:
        if self.new_password is not None and self.new_password == self.password:
            hint = "a host that asks for a new password refuses the old one"
            raise ImpossibleError("new_password must be another one than password", hint, ("new_password",))
        return self
