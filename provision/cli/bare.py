"""Tasks of bare metal: seeds for installers, and host keys. Another module has the first login."""

from __future__ import annotations

from invoke.collection import Collection

from provision.cli.options import Options, task


@task(
    "hosts inventory json",
    out="the folder of all seeds; each host has one below it",
    yes="overwrite files of seeds, and record host keys, without asking",
)
def seed(options: Options, *, out: str = "", yes: bool = False) -> None:
    """Write what installers read: account, host key, disk, network.

    The settings are in seed: of the inventory; the host keys are new, or
    those of an earlier run. Their public part is recorded in known_hosts.

    inv bare.seed --hosts gpu-nodes --out seeds
    """
    from provision.cli import seeds

    seeds.write(options, out, yes=yes)


@task(
    "hosts inventory json",
    from_console="a log with the keys that cloud-init prints: FILE or HOST=FILE",
    yes="record the keys without asking",
)
def enroll(options: Options, *, from_console: list[str], yes: bool = False) -> None:
    """Show the keys of hosts side by side, and record new ones.

    Exit code 1 if a key contradicts a known one, or a host shows none.

    inv bare.enroll --hosts gpu-nodes --from-console sol.log
    """
    from provision.cli import enrolling

    enrolling.enroll(options, from_console, yes=yes)


COLLECTION = Collection("bare", seed, enroll)
"""What a new task of bare metal is added to."""
