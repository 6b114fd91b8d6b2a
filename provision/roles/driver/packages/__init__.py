"""Which packages make up the driver of a host: the table, and how a host's row is found."""

from provision.roles.driver.packages.choose import (
    DriverPackages,
    Source,
    package_set,
    refuse_foreign_repository,
    system_of,
)
from provision.roles.driver.packages.flavour import Flavour, choose_flavour, unknown_gpus
from provision.roles.driver.packages.table import FAMILY, PINNED, TABLE

__all__ = [
    "FAMILY",
    "PINNED",
    "TABLE",
    "DriverPackages",
    "Flavour",
    "Source",
    "choose_flavour",
    "package_set",
    "refuse_foreign_repository",
    "system_of",
    "unknown_gpus",
]
