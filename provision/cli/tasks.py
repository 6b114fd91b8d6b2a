"""The product's tasks. Each reads its arguments, calls the product, prints, and exits.

Imports are inside the tasks, so that listing tasks does not load SSH.
"""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

HOSTS = "host pattern, as Ansible has it: group, host, a:b, a:&b, a:!b, web*, ~regex, group[0:3]"
INVENTORY = "inventory file, folder or script (default: $PROVISION_INVENTORY, else the lab of the clone)"
ROLES = "only these roles, with commas between"
JSON = "print one JSON document on standard output, and nothing else there"
FORKS = "hosts worked on at the same time"
ENROLL = "show the host keys of unknown hosts, and write them to known_hosts"
ASK = "ask for the password of sudo"
REBOOT = "allow reboots where one is needed, as driver.reboot: allowed does"
BRANCH = "allow another driver branch than the one that is installed"


@task(
    help={
        "hosts": HOSTS,
        "inventory": INVENTORY,
        "roles": ROLES,
        "check": "only plan; exit code 3 if changes are pending",
        "diff": "show what changes inside of files",
        "yes": "do not ask before applying",
        "serial": "sizes of batches, the last one repeats: 1,10%,50%",
        "max-failed": "hosts that may fail before no further batch starts: 2 or 5%",
        "forks": FORKS,
        "plan": "apply this saved plan, with its permissions; refused if a host has changed since",
        "reboot": REBOOT,
        "allow-branch-change": BRANCH,
        "enroll": ENROLL,
        "ask-become-pass": ASK,
        "json": JSON,
    }
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

    with terminal.sentences():
        approved = arguments.saved_plans(plan)
        pace = fleet.Pace(forks, tuple(serial.split(",")) if serial else (), max_failed)
        targets = arguments.reachable(hosts, inventory, roles, enroll=enroll, ask_become_pass=ask_become_pass)
        granted = arguments.granted(reboot=reboot, allow_branch_change=allow_branch_change)
        with arguments.open_fleet(targets, pace, granted) as all_hosts:
            plans = all_hosts.survey()
            if approved is not None:
                all_hosts.hold_to(approved)
            pending = {name: found for name, found in plans.items() if found.changes}
            if not json and plans:
                terminal.out(report.plans(plans, diff=diff))
            run = arguments.run_id()
            if check:
                all_hosts.planned()
            elif pending and not yes and not terminal.confirmed(f"Apply this to {len(pending)} host(s)?"):
                terminal.say("nothing was changed")
                raise SystemExit(3)
            else:
                progress = terminal.Progress({name: len(found.changes) for name, found in plans.items()})
                all_hosts.tell, all_hosts.tick = progress.tell, progress.tick
                all_hosts.carry_out(run)
            results = all_hosts.in_order()
        if json:
            terminal.out_json(report.document(results, run, diff=diff))
        else:
            terminal.out("\n" + report.recap(results))
        raise SystemExit(fleet.exit_code(results, check=check))


@task(
    help={
        "hosts": HOSTS,
        "inventory": INVENTORY,
        "roles": ROLES,
        "out": "save the plan here, for provision --plan; it may hold secrets, so only you can read it",
        "forks": FORKS,
        "reboot": REBOOT,
        "allow-branch-change": BRANCH,
        "enroll": ENROLL,
        "ask-become-pass": ASK,
        "json": JSON,
    }
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

    with terminal.sentences():
        targets = arguments.reachable(hosts, inventory, roles, enroll=enroll, ask_become_pass=ask_become_pass)
        granted = arguments.granted(reboot=reboot, allow_branch_change=allow_branch_change)
        with arguments.open_fleet(targets, fleet.Pace(forks), granted) as all_hosts:
            plans = all_hosts.survey()
            all_hosts.planned()
            results = all_hosts.in_order()
        if out:
            arguments.save_plans(out, plans)
        if json:
            terminal.out_json(report.document(results, arguments.run_id(), diff=True))
        else:
            failures = [text for text in map(report.failure, results) if text]
            terminal.out("\n\n".join(([report.plans(plans, diff=True)] if plans else []) + failures))
        raise SystemExit(fleet.exit_code(results, check=True))


@task(
    help={
        "hosts": HOSTS,
        "inventory": INVENTORY,
        "roles": ROLES,
        "k": "only checks whose name matches, as pytest's -k",
        "junit": "write a JUnit report here",
        "forks": FORKS,
        "enroll": ENROLL,
        "ask-become-pass": ASK,
        "json": JSON,
    }
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
    from provision.verify import verify as run_suite

    with terminal.sentences():
        found = run_suite(
            arguments.reachable(hosts, inventory, roles, enroll=enroll, ask_become_pass=ask_become_pass),
            forks=forks,
            expression=k,
            junit=Path(junit) if junit else None,
            say=terminal.say,
        )
        if json:
            terminal.out_json(found.document())
        else:
            terminal.out(found.text())
        raise SystemExit(found.exit_code)


@task(help={"hosts": HOSTS, "inventory": INVENTORY, "forks": FORKS, "enroll": ENROLL, "json": JSON})
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
    from provision.run.fleet import facts_of, logins

    with terminal.sentences():
        ways = logins(arguments.select(hosts, inventory))
        if enroll:
            arguments.enroll_hosts(ways)
        found, errors = facts_of(ways, forks)
        if json:
            document = {name: asdict(value) for name, value in found.items()}
            failed = {name: {"error": error.message, "hint": error.hint} for name, error in errors.items()}
            terminal.out_json({"schema": 1, "hosts": document | failed})
        else:
            for name, value in found.items():
                generations = [
                    gpu.architecture.name.title() if gpu.architecture else "?" for gpu in value.gpus
                ]
                gpus = ", ".join(sorted(set(generations))) or "none"
                more = ", NVSwitch" if value.has_nvswitch else ""
                more += ", Secure Boot" if value.secure_boot else ""
                terminal.out(
                    f"{name}: {value.system} ({value.machine}), kernel {value.kernel}, "
                    f"{value.virtualization}, GPUs: {len(value.gpus)} ({gpus}){more}"
                )
            terminal.say(terminal.host_errors(errors).rstrip("\n")) if errors else None
        raise SystemExit(1 if errors else 0)


@task(
    help={
        "hosts": HOSTS + " (default: all)",
        "inventory": INVENTORY,
        "graph": "print groups and hosts as a tree",
        "json": JSON,
    }
)
def inventory(
    c: Context, hosts: str = "all", inventory: str = "", graph: bool = False, json: bool = False
) -> None:
    """Show what the inventory says: hosts, their groups and merged variables."""
    from provision.cli import arguments, terminal

    with terminal.sentences():
        loaded = arguments.load_inventory(inventory)
        selected = loaded.select(hosts)
        if graph:
            terminal.out(loaded.graph())
        elif json:
            terminal.out_json(loaded.document(selected))
        else:
            for host in selected:
                terminal.out(f"{host.name}  [{', '.join(host.groups)}]")


@task(
    help={
        "hosts": HOSTS,
        "inventory": INVENTORY,
        "roles": ROLES,
        "out": "write the files below this folder, one folder a host (default: print them)",
        "system": "render for this system without asking the hosts, such as debian:12",
    }
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

    with terminal.sentences():
        for target in arguments.targets(hosts, inventory, roles)[0]:
            for path, content, mode in rendered(target, assumed(system)):
                if not out:
                    terminal.out(f"# {target.name}:{path} ({mode})\n{content.decode('utf-8', 'replace')}")
                    continue
                file = Path(out, target.name, path.lstrip("/"))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch(mode=0o600)
                file.write_bytes(content)
        if out:
            terminal.say(f"written below {out}")


COLLECTION = Collection(provision, plan, verify, facts, inventory, render)
"""What a new task of the product is added to."""
