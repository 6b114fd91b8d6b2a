"""The tasks that change hosts, or show what would change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from provision.cli.options import Options, task

if TYPE_CHECKING:
    from provision.cli.progress import Progress
    from provision.errors import RefusedError
    from provision.plan.plan import Plan
    from provision.plan.saved import SavedPlans
    from provision.run.fleet import Fleet, Show


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
    from provision.cli import arguments, saved_plans
    from provision.run.fleet import Rollout

    approved = saved_plans.load(plan) if plan else None
    rollout = Rollout(options.forks, tuple(serial.split(",")) if serial else (), max_failed)
    opened = arguments.open_fleet(options, rollout, approved)
    carry_out(options, opened, approved, check=check, diff=diff, yes=yes)


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
    from provision.cli import arguments
    from provision.run.fleet import Rollout

    rollout = Rollout(options.forks, tuple(serial.split(",")) if serial else (), max_failed)
    opened = arguments.open_fleet(options, rollout, remove=True)
    carry_out(options, opened, check=check, diff=True, yes=yes)


def carry_out(
    options: Options,
    opened: AbstractContextManager[tuple[Fleet, Progress]],
    approved: SavedPlans | None = None,
    *,
    check: bool,
    diff: bool,
    yes: bool,
) -> None:
    """Plan all hosts, ask, apply, print what became of them, and exit.

    :param opened: the fleet, and the view of its progress.
    """
    from provision.cli import arguments, saved_plans, terminal
    from provision.plan import report
    from provision.run import fleet

    refused: Mapping[str, RefusedError] = {}
    run = arguments.run_id()
    asks = not (yes or check)
    whole = asks or approved is not None
    with opened as (all_hosts, progress):
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

    if out:
        saved_plans.require_room(out)
    with arguments.open_fleet(options, fleet.Rollout(options.forks)) as (all_hosts, progress):
        show = _shown(progress, terminal.write_data, diff=True)
        with progress:
            plans = all_hosts.survey(fleet.unseen if options.json else show)
        all_hosts.planned()
        results = all_hosts.in_order()
    if out:
        settings = {target.name: target.settings for target in all_hosts.targets}
        saved_plans.save(out, plans, settings, options.inventory)
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
