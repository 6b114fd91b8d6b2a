"""The task of a machine's first login."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from provision.cli.options import Options, task

if TYPE_CHECKING:
    from provision.cli.progress import Progress
    from provision.run.fleet import Fleet


@task(
    "hosts inventory forks enroll accept_new ask_become_pass json",
    check="only plan; exit code 3 if changes are pending",
    diff="show what changes inside files",
    yes="do not ask before applying",
    ask_pass="ask for the password of the first login",  # noqa: S106
    k="the same",
)
def bootstrap(
    options: Options,
    *,
    check: bool = False,
    diff: bool = False,
    yes: bool = False,
    ask_pass: bool = False,
    k: bool = False,
) -> None:
    """Take machines from a first login to the inventory's account.

    inv bare.bootstrap --hosts rack-07 --ask-pass --diff
    """
    from provision.cli.changing import carry_out

    carry_out(options, _opened(options, asks=ask_pass or k), check=check, diff=diff, yes=yes)


@contextlib.contextmanager
def _opened(options: Options, *, asks: bool) -> Iterator[tuple[Fleet, Progress]]:
    """A fleet of the selected hosts before their first login, and the view of its progress."""
    from provision.bare.first_login import FirstLogin, newcomers
    from provision.cli import arguments
    from provision.cli.progress import Progress
    from provision.run import fleet, ways_in

    hosts = arguments.select(options)
    ways = arguments.ready(options, {host.name: host for host in hosts}, ways_in.logins(hosts))
    password = arguments.asked("--ask-pass", "password: ", "bootstrap: {password: …}") if asks else None
    found = newcomers(hosts, ways, password)
    progress = Progress([target.name for target in found])
    rollout = fleet.Rollout(options.forks)
    with fleet.Fleet(found, rollout, progress.on_event, progress.refresh, begin=FirstLogin.of) as all_hosts:
        yield all_hosts, progress
