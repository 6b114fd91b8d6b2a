"""How long hosts keep what runs have replaced: the one setting that belongs to no role."""

from __future__ import annotations

from pydantic import Field

from provision.role import Settings
from provision.shell import constant

FILES = "shell/files.sh"

BACKUPS = "provision_backups"
"""The host's variable with its :class:`Backups`."""


class Backups(Settings):
    """How long a host keeps what runs have replaced or removed. Each run removes what is beyond that."""

    newest: int = Field(default=int(constant(FILES, "kept_backups")), ge=1, le=10_000)
    """How many backups of one file are kept."""
    days: int = Field(default=int(constant(FILES, "backup_days")), ge=1, le=36500)
    """Days after which a backup goes, unless it is the newest of its file."""


KEPT = Backups()
"""What holds where the host's settings say nothing."""
