"""The options that several tasks have, and how a task is made with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter, Signature, signature
from typing import Any

from invoke.context import Context
from invoke.tasks import Task

Function = Callable[..., None]

HELP = {
    "accept_new": "record the keys of unknown hosts without asking",
    "allow_branch_change": "allow another driver branch than the installed one",
    "ask_become_pass": "ask for sudo's password",
    "enroll": "show the keys of unknown hosts, ask, and record them",
    "forks": "hosts at the same time (50)",
    "hosts": "pattern: group, host, a:b, a:&b, a:!b, web*, ~regex",
    "inventory": "file, folder or script; or $PROVISION_INVENTORY",
    "json": "print one JSON document on standard output",
    "reboot": "allow a reboot where one is needed",
    "roles": "only these roles: driver,docker",
}


@dataclass(frozen=True)
class Options:
    """The options that several tasks have; those that a task does not have keep their defaults."""

    hosts: str = ""
    inventory: str = ""
    roles: str = ""
    forks: int = 50
    reboot: bool = False
    allow_branch_change: bool = False
    enroll: bool = False
    accept_new: bool = False
    ask_become_pass: bool = False
    json: bool = False


def task(shared: str, **own: str) -> Callable[[Function], Task[Function]]:
    """Make an Invoke task of a function that gets :class:`Options` and, by name, the options of its own.

    Our errors end it with a sentence and an exit code.

    :param shared: names of the fields of :class:`Options` that are options of the task.
    :param own: help of the other options.
    """
    names = shared.split()
    common = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default)
        for field in fields(Options)
        if field.name in names
    ]

    def made(function: Function) -> Task[Function]:
        @functools.wraps(function)
        def run(context: Context, **values: Any) -> None:
            from provision.cli.terminal import error_boundary, given
            from provision.errors import UsageError

            options = Options(**{name: values.pop(name) for name in names})
            given(inventory=options.inventory, hosts=options.hosts or str(values.get("hosts", "")))
            with error_boundary(starts_runs="serial" in own and not values.get("check")):
                if context.config.run.dry:
                    raise UsageError(
                        "invoke's --dry is not for these tasks, which run no commands of this machine",
                        hint="inv provision --check only plans",
                    )
                try:
                    function(options, **values)
                except SystemExit as ended:
                    if ended.code:  # otherwise Invoke's own program runs the next task of the call
                        raise

        # Invoke reads from the signature which options there are, and drops its first parameter, the context.
        first, *others = signature(function).parameters.values()
        vars(run)["__signature__"] = Signature([first, *common, *others])
        lists = [name for name, of in signature(function).parameters.items() if of.annotation == "list[str]"]
        # Invoke's letters for options would mean another thing in every task.
        shown = {name: HELP[name] for name in names} | own
        return Task(run, help=shown, iterable=lists, auto_shortflags=False)

    return made
