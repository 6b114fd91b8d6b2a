"""What can go wrong, as one tree.

::

    ProvisionError                  a sentence for the operator, with a hint where one is known
    ├── UsageError                  the command line, a saved plan or this machine is at fault (exit 2)
    │   ├── InventoryError          an inventory source cannot be read or means nothing (exit 2)
    │   ├── SettingsError           a role's settings are refused (exit 2)
    │   └── RenderError             a template needs a value that nobody gave (in a plan: exit 1)
    ├── Refusal                     settings, facts and state do not go together (becomes RefusedError)
    └── HostError                   one host is at fault; the others go on (exit 1)
        ├── UnreachableError        no session could be opened, or it was lost
        │   └── LoginRefusedError   the host takes none of the keys and passwords that it was offered
        ├── ProbeError              a probe's answer cannot be understood
        ├── RefusedError            the plan refuses to touch this host, and says why
        └── ChangeError             a change failed on the host
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provision.secrecy import without_secrets

LONGEST = 2000
"""Characters of a sentence about a host; it may quote what the host said."""


def visible(text: str) -> str:
    """``text`` in one line that steers no terminal: what is not printed becomes an escape, line ends too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ProvisionError(Exception):
    """A failure that an operator can read: what is wrong, where, and what to try.

    :param message: one sentence, without a final full stop.
    :param hint: what to do about it, where that is known.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ProvisionError):
    """The run cannot start: arguments, files or this machine are at fault."""


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file that a user wrote; ``line`` and ``column`` count from 1."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


class InventoryError(UsageError):
    """An inventory source cannot be read, or what it says makes no sense.

    :param where: the place in the source, printed in front of the message.
    """

    def __init__(self, message: str, *, where: Location | None = None, hint: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.where = where


class SettingsError(InventoryError):
    """A role's settings are refused: unknown key, wrong type, or an impossible combination."""


class RenderError(UsageError):
    """A template cannot be rendered from the values it was given."""


class Refusal(ProvisionError):  # noqa: N818  # a refusal is a decision, not an accident
    """What is wanted cannot or must not be done on a host in its state. The plan adds the host's name."""


class HostError(ProvisionError):
    """One host is at fault. Its message is one line, whatever it quotes.

    :param host: the inventory name of the host, which stands for ``{host}`` in its hint.
    """

    def __init__(self, host: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(visible(without_secrets(message)[:LONGEST]))
        self.host = host
        self.advise(hint)

    def advise(self, hint: str | None) -> None:
        """Give it another hint."""
        name = self.host.partition(" ")[0]  # behind it may stand which jump host of its way it is
        self.hint = hint and visible(hint[:LONGEST]).replace("{host}", name)

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Put ``hide(text)`` in the place of each of its texts."""
        self.message = hide(self.message)
        self.hint = self.hint and hide(self.hint)

    def __str__(self) -> str:
        return f"{self.host}: {self.message}"


class UnreachableError(HostError):
    """No session could be opened on the host, or it was lost."""


class LoginRefusedError(UnreachableError):
    """The host answers, shows the right key, and takes none of the keys and passwords that it was offered."""


class ProbeError(HostError):
    """A probe could not run, or its answer cannot be understood."""


class RefusedError(HostError):
    """The plan refuses to touch the host; nothing was changed."""


class ChangeError(HostError):
    """A change failed on the host.

    :param resource: id of the resource that was being changed.
    :param exit_code: what the command returned.
    :param stderr: the last lines that it printed.
    """

    def __init__(
        self,
        host: str,
        message: str,
        *,
        resource: str,
        exit_code: int | None = None,
        stderr: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(host, message, hint=hint)
        self.resource = resource
        self.exit_code = exit_code
        self.stderr = stderr

    def conceal(self, hide: Callable[[str], str]) -> None:
        """As of any error of a host, and of what the command printed."""
        super().conceal(hide)
        self.stderr = hide(self.stderr)
