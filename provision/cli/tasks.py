"""The product's tasks. Each reads its arguments, calls the product, prints, and exits.

Imports are inside the tasks, so that listing tasks does not load SSH.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from invoke.collection import Collection

from provision.cli.options import HELP, Options, task

if TYPE_CHECKING:
    from provision.cli.progress import Progress
    from provision.errors import RefusedError
    from provision.plan.plan import Plan
    from provision.plan.saved import SavedPlans
    from provision.run.fleet import Rollout, Show


@task(
    "hosts inventory roles forks reboot allow_branch_change enroll accept_new ask_become_pass json",
    check="only plan; exit code 3 if changes are pending",
    diff="show what changes inside files",
    yes="do not ask before applying",
    serial="sizes of batches; the last repeats: 1,10%,50%",
    max_failed="start no other host after more failures: 2 or 5%",
    plan="apply this saved plan to the hosts that it still fits",
)
def provision(
    options: Options,
    *,
    check: bool = False,
    diff: bool = False,
    yes: bool = False,
    serial: str = "",
    max_failed: str = "",
    plan: str = "",
) -> None:
    """Take hosts to what the inventory says: plan, ask, apply.

    inv provision --hosts gpu-nodes --serial 1,10% --yes
    """
    from provision.cli import saved_plans
    from provision.run.fleet import Rollout

    approved = saved_plans.load(plan) if plan else None
    rollout = Rollout(options.forks, tuple(serial.split(",")) if serial else (), max_failed)
    _carry_out(options, rollout, approved, check=check, diff=diff, yes=yes)


@task(
    "hosts inventory roles forks enroll accept_new ask_become_pass json",
    check="only plan; exit code 3 if changes are pending",
    yes="do not ask before applying",
    serial="sizes of batches; the last repeats: 1,10%,50%",
    max_failed="start no other host after more failures: 2 or 5%",
)
def remove(
    options: Options, *, check: bool = False, yes: bool = False, serial: str = "", max_failed: str = ""
) -> None:
    """Take what roles have left off hosts: plan, ask, apply. Packages and images stay.

    inv remove --roles triton --hosts gpu-07
    """
    from provision.run.fleet import Rollout

    rollout = Rollout(options.forks, tuple(serial.split(",")) if serial else (), max_failed)
    _carry_out(options, rollout, check=check, diff=True, yes=yes, remove=True)


def _carry_out(
    options: Options,
    rollout: Rollout,
    approved: SavedPlans | None = None,
    *,
    check: bool,
    diff: bool,
    yes: bool,
    remove: bool = False,
) -> None:
    """Plan all hosts, ask, apply, print what became of them, and exit."""
    from provision.cli import arguments, saved_plans, terminal
    from provision.plan import report
    from provision.run import fleet

    refused: Mapping[str, RefusedError] = {}
    run = arguments.run_id()
    asks = not (yes or check)
    whole = asks or approved is not None
    with arguments.open_fleet(options, rollout, approved, remove=remove) as (all_hosts, progress):
        show = _shown(progress, terminal.log if options.json else terminal.write_data, diff=diff)
        show_early = fleet.unseen if whole or options.json else show
        if check or whole:
            with progress:
                plans = all_hosts.survey(show_early)
            if approved:
                refused = all_hosts.restrict_to(approved, saved_plans.key())
            pending = [name for name, found in plans.items() if found.changes and name not in refused]
            asked = pending and asks
            if whole and plans and (asked or not options.json):
                show(plans)
            for error in refused.values():
                terminal.log(str(error))
            question = f"Apply this to {report.counted(len(pending), 'host')}?"
            if asked and not terminal.confirmed(question, "--yes"):
                terminal.log("nothing was changed")
                raise SystemExit(3)
        if check:
            all_hosts.planned()
        else:
            with progress:
                all_hosts.apply(run, show_early)
        results = all_hosts.in_order()
    if options.json:
        terminal.write_json(report.document(results, run, diff=diff))
    else:
        terminal.write_data("\n" + report.recap(results, "" if check else run))
    raise SystemExit(2 if refused and len(refused) == len(results) else fleet.exit_code(results, check=check))


@task(
    "hosts inventory roles forks reboot allow_branch_change enroll accept_new ask_become_pass json",
    out="save the plan, without scripts and secrets, for provision --plan",
)
def plan(options: Options, *, out: str = "") -> None:
    """Show what provision would do, with diffs. Exit code 3 if changes are pending.

    inv plan --hosts 'gpu-nodes:!canary' --out tonight.plan
    """
    from provision.cli import arguments, saved_plans, terminal
    from provision.plan import report
    from provision.run import fleet

    with arguments.open_fleet(options, fleet.Rollout(options.forks)) as (all_hosts, progress):
        show = _shown(progress, terminal.write_data, diff=True)
        with progress:
            plans = all_hosts.survey(fleet.unseen if options.json else show)
        all_hosts.planned()
        results = all_hosts.in_order()
    if out:
        saved_plans.save(out, plans, {target.name: target.settings for target in all_hosts.targets})
    if options.json:
        terminal.write_json(report.document(results, arguments.run_id(), diff=True))
    else:
        failures = [text for text in map(report.failure, results) if text]
        if failures:
            terminal.write_data(("\n" if plans else "") + "\n\n".join(failures))
    raise SystemExit(fleet.exit_code(results, check=True))


def _shown(progress: Progress, write: Callable[[str], None], *, diff: bool) -> Show:
    """Writes plans, beside the view of the progress."""
    from provision.plan import report

    plans = report.Plans(diff)

    def show(found: Mapping[str, Plan]) -> None:
        with progress.aside():
            write(plans.text(found))

    return show


@task(
    "hosts inventory roles forks enroll accept_new ask_become_pass json",
    tests="your own tests instead of ours: DIR,FILE.py",
    quick="start no containers: seconds instead of minutes",
    k="only checks whose name matches: 'triton and not gpu-02'",
    lf="only the checks that failed the last time",
    x="end at the first check that fails",
    list="name the checks, and ask no host",
    junit="write a JUnit report here",
)
def verify(
    options: Options,
    *,
    tests: str = "",
    quick: bool = False,
    k: str = "",
    lf: bool = False,
    x: bool = False,
    list: bool = False,
    junit: str = "",
) -> None:
    """Prove that hosts serve: driver to inference. Exit code 3 if a check fails.

    inv verify --hosts gpu-nodes --junit report.xml
    """
    from pathlib import Path

    from provision.cli import arguments, terminal
    from provision.cli.progress import Progress
    from provision.plan.report import counted
    from provision.run.fleet import Rollout
    from provision.verify import suite

    Rollout(options.forks)
    choice = suite.Choice(
        suites=tuple(arguments.own_suites(tests) or arguments.suites_for(options.inventory)),
        expression=k,
        quick=quick,
        last_failed=lf,
        first=x,
        junit=Path(junit) if junit else None,
    )
    roles = arguments.roles_for(options.inventory)
    if list:
        names = suite.listed(arguments.targets(options, bare=bool(tests))[0], choice, roles)
        if options.json:
            checks = [{"name": name, "hosts": on} for name, on in names.items()]
            terminal.write_json({"schema": 1, "checks": checks})
            return
        terminal.write_data("".join(f"{name} ({counted(len(on), 'host')})\n" for name, on in names.items()))
        return
    targets = arguments.reachable(options, bare=bool(tests))
    progress = Progress([target.name for target in targets])
    with progress:
        found = suite.verify(
            targets,
            choice,
            roles=roles,
            forks=options.forks,
            view=suite.View(progress.on_event, progress.refresh),
        )
    if options.json:
        terminal.write_json(found.document())
    else:
        terminal.write_data(found.text())
    raise SystemExit(found.exit_code)


@task("hosts inventory forks enroll accept_new json")
def facts(options: Options) -> None:
    """Show what hosts are: system, kernel, GPUs on the bus.

    inv facts --hosts all --json
    """
    from dataclasses import asdict

    from provision.cli import arguments, terminal
    from provision.run.fleet import gather_facts, logins

    ways = logins(arguments.select(options))
    arguments.enroll_hosts(options, ways)
    found, errors = gather_facts(ways, options.forks)
    if options.json:
        document = {name: asdict(value) for name, value in found.items()}
        failed = {name: {"error": error.message, "hint": error.hint} for name, error in errors.items()}
        terminal.write_json({"schema": 1, "hosts": document | failed})
    else:
        for name, value in found.items():
            generations = [gpu.architecture.name.title() if gpu.architecture else "?" for gpu in value.gpus]
            gpus = ", ".join(sorted(set(generations))) or "none"
            more = ", NVSwitch" if value.has_nvswitch else ""
            more += ", Secure Boot" if value.secure_boot else ""
            terminal.write_data(
                f"{name}: {value.system} ({value.machine}), kernel {value.kernel}, "
                f"{value.virtualization}, GPUs: {len(value.gpus)} ({gpus}){more}"
            )
        terminal.log_errors(errors)
    raise SystemExit(1 if errors else 0)


@task(
    "hosts inventory forks enroll accept_new ask_become_pass json",
    run="its id; without one, show what runs",
    now="cut the step that runs, too; never a package operation",
    yes="do not ask",
)
def stop(options: Options, *, run: str = "", now: bool = False, yes: bool = False) -> None:
    """End a run on its hosts, before its next step. Without an id, show what runs.

    inv stop 20260102T030405Z-abcdef --hosts gpu-nodes
    """
    from provision.cli import arguments, terminal
    from provision.cli.progress import Progress
    from provision.plan.report import by_text, counted
    from provision.run import stop as ending
    from provision.run.fleet import on_each

    ending.require_id(run)
    ways = arguments.logins(options)
    found, errors = on_each(ways, lambda connection: ending.underway(connection, run), options.forks)
    outcomes = {name: one.outcome(run) for name, one in found.items()}
    affected = [way for way in ways if way.host in found and found[way.host].is_of(run)]
    if affected:
        terminal.log("\n".join(by_text({way.host: found[way.host].text for way in affected})))
        cut = ", and cut the step that runs" if now else ""
        question = f"End this on {counted(len(affected), 'host')}{cut}?"
        if not yes and not terminal.confirmed(question, "--yes"):
            terminal.log("nothing was stopped")
            raise SystemExit(3)
        with Progress([way.host for way in affected]) as progress:
            runs = {way.host: found[way.host].run for way in affected}
            stopped = ending.Stop(runs, arguments.operator(), now, progress.on_event)
            ended, failed = on_each(affected, stopped.on, options.forks, progress.refresh)
        outcomes, errors = outcomes | ended, errors | failed
    if options.json:
        terminal.write_json(ending.document(found, outcomes, errors))
    else:
        if outcomes:
            terminal.write_data("\n".join(by_text({name: one.message for name, one in outcomes.items()})))
        terminal.log_errors(errors)
    raise SystemExit(ending.exit_code(outcomes, errors))


@task(
    "inventory json",
    hosts=HELP["hosts"],
    host="one host's groups, variables and settings, with file and line",
    graph="print groups and hosts as a tree",
    show_secrets="show passwords, tokens and environments too",
)
def inventory(
    options: Options, *, hosts: str = "all", host: str = "", graph: bool = False, show_secrets: bool = False
) -> None:
    """Show hosts and groups, or what one host has and where it stands.

    inv inventory --host gpu-01
    """
    from provision.cli import arguments, reference, terminal

    loaded = arguments.load_inventory(options.inventory)
    selected = loaded.select(host or hosts)
    if host and not options.json:
        roles = arguments.roles_for(options.inventory)
        terminal.write_data(
            "\n\n".join(reference.origins(one, roles, secrets=show_secrets) for one in selected)
        )
    elif graph:
        terminal.write_data(loaded.graph())
    elif options.json:
        terminal.write_json(loaded.document(selected, secrets=show_secrets))
    else:
        for one in selected:
            terminal.write_data(f"{one.name}  [{', '.join(one.groups)}]")


@task(
    "inventory json",
    role="only those of this role",
    schema="print the JSON schema of a host's variables, for editors",
)
def settings(options: Options, *, schema: bool = False, role: str = "") -> None:
    """Show the settings of roles: type, default, meaning, example.

    inv settings triton
    """
    import shutil
    from dataclasses import asdict

    from provision.cli import arguments, reference, terminal
    from provision.roles import choose

    roles = choose(arguments.roles_for(options.inventory), [role] if role else [])
    roles = roles if role else (*roles, *reference.OF_HOSTS)
    found = [setting for one in roles for setting in reference.settings(one)]
    if schema:
        terminal.write_json(reference.schema(roles))
    elif options.json:
        terminal.write_json({"schema": 1, "settings": [asdict(setting) for setting in found]})
    else:
        width = shutil.get_terminal_size().columns
        terminal.write_data("\n\n".join(setting.text(width) for setting in found))


@task(
    "hosts inventory roles",
    out="write them below this folder, one folder a host",
    system="for this system: debian:12, ubuntu:24.04, rhel:9",
)
def render(options: Options, *, out: str = "", system: str = "debian:12") -> None:
    """Render the files that would land on hosts, without the hosts.

    inv render --hosts gpu-01 --system ubuntu:24.04 --out files
    """
    from pathlib import Path

    from provision.cli import arguments, terminal
    from provision.cli.rendered import assumed, rendered

    for target in arguments.targets(options)[0]:
        for file in rendered(target, assumed(system)):
            if file.origin:
                place = f"{target.name}:{file.path}"
                terminal.log(f"not rendered: {place}, which the host fetches from {file.origin}")
            elif out:
                arguments.write_below(Path(out, target.name), file)
            else:
                private = file.mode.endswith("00")
                text = "(not shown; see --out)\n" if private else file.content.decode("utf-8", "replace")
                terminal.write_data(f"# {target.name}:{file.path} ({file.mode})\n{text}")
    if out:
        terminal.log(f"written below {out}")


@task(
    "inventory",
    update_golden="write each role's golden.txt, its plans of bare hosts",
)
def check_roles(options: Options, *, update_golden: bool = False) -> None:
    """Hold the site's own roles to the tests of ours.

    They lie in the folder roles beside the inventory.

    inv check-roles --inventory fleet
    """
    from provision.cli import check_roles as checks

    raise SystemExit(checks.check_roles(options.inventory, update_golden))


COLLECTION = Collection(
    provision, plan, remove, stop, verify, facts, inventory, settings, render, check_roles
)
"""What a new task of the product is added to."""
