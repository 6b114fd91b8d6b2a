"""A row of the table of known messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """A message that programs print.

    :ivar pattern: regular expression that is searched in the output.
    :ivar hint: what to do; each command that it names exists, on the host or as ``inv COMMAND``. ``{host}``
        stands for the host.
    :ivar cause: why the program failed, in a few words; empty where the message itself says it.
    """

    pattern: str
    hint: str
    cause: str = ""
