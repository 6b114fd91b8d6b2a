"""The tasks of bare metal: ``bare.NAME``."""

from __future__ import annotations

from invoke.collection import Collection

from provision.cli.first_login import bootstrap

COLLECTION = Collection("bare", bootstrap)
