"""The product's tasks. Each reads its arguments, calls the product, prints, and exits.

Imports are inside the tasks, so that listing tasks does not load SSH.
"""

from __future__ import annotations

import functools

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task as invoke_task

task = functools.partial(invoke_task, auto_shortflags=False)
"""Without Invoke's letters for options, of which one would mean another thing in every task."""

OPTIONS = {
    "allow-branch-change": "allow another driver branch than the one that is installed",
    "ask-become-pass": "ask for the password of sudo",
    "enroll": "show the host keys of unknown hosts, and write them to known_hosts",
    "forks": "hosts worked on at the same time",
    "hosts": "host pattern, as Ansible has it: group, host, a:b, a:&b, a:!b, web*, ~regex, group[0:3]",
    "inventory": "inventory file, folder or script (default: $PROVISION_INVENTORY, else the clone's lab)",
    "json": "print one JSON document on standard output, and nothing else there",
    "reboot": "allow reboots where one is needed, as driver.reboot: allowed does",
    "roles": "only these roles, with commas between",
}
"""The options that several tasks have, with their help."""


def options(names: str, **own: str) -> dict[str, str]:
    """The help of a task's options: those of :data:`OPTIONS` by name, and its own."""
    return {name: OPTIONS[name] for name in names.split()} | {
        name.replace("_", "-"): text for name, text in own.items()
    }


@task(
    help=options(
        "hosts inventory roles forks reboot allow-branch-change enroll ask-become-pass json",
        check="only plan; exit code 3 if changes are pending",
        diff="show what changes inside of files",
        yes="do not ask before applying",
        serial="sizes of batches, the last one repeats: 1,10%,50%",
        max_failed="hosts that may fail before no further batch starts: 2 or 5%",
        plan="apply this saved plan, with its permissions; refused if a host has changed since",
    )
)
def provision(
    c: Context,
    hosts: str = "",
    inventory: str = "",
    roles: str = "",
    check: bool = False,
    diff: bool = False,
    yes: bool = False,
    serial: str = "",
    max_failed: str = "",
    forks: int = 50,
    plan: str = "",
    reboot: bool = False,
    allow_branch_change: bool = False,
    enroll: bool = False,
    ask_become_pass: bool = False,
    json: bool = False,
) -> None:
    """Take hosts to what the inventory says: plan, show, apply, plan again."""
    from provision.cli import arguments, terminal
    from provision.plan import report
    from provision.run import fleet

    with terminal.error_boundary():
        approved = arguments.saved_plans(plan)
        rollout = fleet.Rollout(forks, tuple(serial.split(",")) if serial else (), max_failed)
        targets = arguments.reachable(hosts, inventory, roles, enroll=enroll, ask_become_pass=ask_become_pass)
        granted = arguments.granted(reboot=reboot, allow_branch_change=allow_branch_change)
        with arguments.open_fleet(targets, rollout, granted) as all_hosts:
            plans = all_hosts.survey()
            if approved is not None:
                all_hosts.restrict_to(approved)
            pending = {name: found for name, found in plans.items() if found.changes}
            if not json and plans:
                terminal.write_data(report.plans(plans, diff=diff))
            run = arguments.run_id()
            if check:
                all_hosts.planned()
            elif (
                pending
                and not yes
                and not terminal.confirmed(
                    f"Apply this to {len(pending)} host{'' if len(pending) == 1 else 's'}?"
                )
            ):
                terminal.log("nothing was changed")
                raise SystemExit(3)
            else:
                progress = terminal.Progress({name: len(found.changes) for name, found in plans.items()})
                all_hosts.on_event, all_hosts.refresh = progress.on_event, progress.refresh
                all_hosts.apply(run)
            results = all_hosts.in_order()
        if json:
            terminal.write_json(report.document(results, run, diff=diff))
        else:
            terminal.write_data("\n" + report.recap(results))
        raise SystemExit(fleet.exit_code(results, check=check))


@task(
    help=options(
        "hosts inventory roles forks reboot allow-branch-change enroll ask-become-pass json",
        out="save the plan here, for provision --plan; it may hold secrets, so only you can read it",
    )
)
def plan(
    c: Context,
    hosts: str = "",
    inventory: str = "",
    roles: str = "",
    out: str = "",
    forks: int = 50,
    reboot: bool = False,
    allow_branch_change: bool = False,
    enroll: bool = False,
    ask_become_pass: bool = False,
    json: bool = False,
) -> None:
    """Show what provision would do, with diffs, and change nothing. Exit code 3 if changes are pending."""
    from provision.cli import arguments, terminal
    from provision.plan import report
    from provision.run import fleet

    with terminal.error_boundary():
        targets = arguments.reachable(hosts, inventory, roles, enroll=enroll, ask_become_pass=ask_become_pass)
        granted = arguments.granted(reboot=reboot, allow_branch_change=allow_branch_change)
        with arguments.open_fleet(targets, fleet.Rollout(forks), granted) as all_hosts:
            plans = all_hosts.survey()
            all_hosts.planned()
            results = all_hosts.in_order()
        if out:
            arguments.save_plans(out, plans)
        if json:
            terminal.write_json(report.document(results, arguments.run_id(), diff=True))
        else:
            failures = [text for text in map(report.failure, results) if text]
            terminal.write_data("\n\n".join(([report.plans(plans, diff=True)] if plans else []) + failures))
        raise SystemExit(fleet.exit_code(results, check=True))


@task(
    help=options(
        "hosts inventory roles forks enroll ask-become-pass json",
        k="only checks whose name matches, as pytest's -k",
        junit="write a JUnit report here",
    )
)
def verify(
    c: Context,
    hosts: str = "",
    inventory: str = "",
    roles: str = "",
    k: str = "",
    junit: str = "",
    forks: int = 50,
    enroll: bool = False,
    ask_become_pass: bool = False,
    json: bool = False,
) -> None:
    """Prove that hosts serve: driver, containers, Triton, one inference. Exit code 3 if a check fails."""
    from pathlib import Path

    from provision.cli import arguments, terminal
    from provision.verify import suite

    with terminal.error_boundary():
        targets = arguments.reachable(hosts, inventory, roles, enroll=enroll, ask_become_pass=ask_become_pass)
        with suite.asking(targets, forks, terminal.log) as ask:
            found = suite.verify(
                targets,
                ask,
                expression=k,
                junit=Path(junit) if junit else None,
                roles=arguments.roles_for(inventory),
                suites=arguments.suites_for(inventory),
            )
        if json:
            terminal.write_json(found.document())
        else:
            terminal.write_data(found.text())
        raise SystemExit(found.exit_code)


@task(help=options("hosts inventory forks enroll json"))
def facts(
    c: Context,
    hosts: str = "",
    inventory: str = "",
    forks: int = 50,
    enroll: bool = False,
    json: bool = False,
) -> None:
    """Show what hosts are: system, kernel, GPUs on the bus."""
    from dataclasses import asdict

    from provision.cli import arguments, terminal
    from provision.run.fleet import gather_facts, logins

    with terminal.error_boundary():
        ways = logins(arguments.select(hosts, inventory))
        if enroll:
            arguments.enroll_hosts(ways)
        found, errors = gather_facts(ways, forks)
        if json:
            document = {name: asdict(value) for name, value in found.items()}
            failed = {name: {"error": error.message, "hint": error.hint} for name, error in errors.items()}
            terminal.write_json({"schema": 1, "hosts": document | failed})
        else:
            for name, value in found.items():
                generations = [
                    gpu.architecture.name.title() if gpu.architecture else "?" for gpu in value.gpus
                ]
                gpus = ", ".join(sorted(set(generations))) or "none"
                more = ", NVSwitch" if value.has_nvswitch else ""
                more += ", Secure Boot" if value.secure_boot else ""
                terminal.write_data(
                    f"{name}: {value.system} ({value.machine}), kernel {value.kernel}, "
                    f"{value.virtualization}, GPUs: {len(value.gpus)} ({gpus}){more}"
                )
            terminal.log(terminal.host_errors(errors).rstrip("\n")) if errors else None
        raise SystemExit(1 if errors else 0)


@task(help=options("hosts inventory json", graph="print groups and hosts as a tree"))
def inventory(
    c: Context, hosts: str = "all", inventory: str = "", graph: bool = False, json: bool = False
) -> None:
    """Show what the inventory says: hosts, their groups and merged variables."""
    from provision.cli import arguments, terminal

    with terminal.error_boundary():
        loaded = arguments.load_inventory(inventory)
        selected = loaded.select(hosts)
        if graph:
            terminal.write_data(loaded.graph())
        elif json:
            terminal.write_json(loaded.document(selected))
        else:
            for host in selected:
                terminal.write_data(f"{host.name}  [{', '.join(host.groups)}]")


@task(
    help=options(
        "hosts inventory roles",
        out="write the files below this folder, one folder a host (default: print them)",
        system="render for this system without asking the hosts, such as debian:12",
    )
)
def render(
    c: Context,
    hosts: str = "",
    inventory: str = "",
    roles: str = "",
    out: str = "",
    system: str = "debian:12",
) -> None:
    """Render the files that would be written to hosts, here and without connecting to them."""
    from pathlib import Path

    from provision.cli import arguments, terminal
    from provision.cli.rendered import assumed, rendered

    with terminal.error_boundary():
        for target in arguments.targets(hosts, inventory, roles)[0]:
            for file in rendered(target, assumed(system)):
                if out:
                    arguments.write_below(Path(out, target.name), file)
                    continue
                text = file.content.decode("utf-8", "replace")
                terminal.write_data(f"# {target.name}:{file.path} ({file.mode})\n{text}")
        if out:
            terminal.log(f"written below {out}")


@task(
    help=options(
        "inventory",
        update_golden="write golden.txt of each role, the plans of bare hosts, instead of comparing it",
    )
)
def check_roles(c: Context, inventory: str = "", update_golden: bool = False) -> None:
    """Hold the site's own roles to the tests of ours: roles/NAME/role.py beside the inventory."""
    from provision.cli import check_roles as checks
    from provision.cli import terminal

    with terminal.error_boundary():
        raise SystemExit(checks.check_roles(inventory, update_golden))


COLLECTION = Collection(provision, plan, verify, facts, inventory, render, check_roles)
"""What a new task of the product is added to."""
