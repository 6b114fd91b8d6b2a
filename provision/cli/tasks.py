"""The product's tasks. Each reads its arguments, calls the product, prints, and exits.

Those that change hosts are in :mod:`provision.cli.changing`. Imports are inside the tasks, so that
listing tasks does not load SSH.
"""

from __future__ import annotations

from invoke.collection import Collection

from provision.cli import bare
from provision.cli.changing import plan, provision, remove, stop
from provision.cli.options import HELP, Options, task


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
    if found.unwritten:
        raise found.unwritten
    if found.interrupted:
        raise KeyboardInterrupt
    raise SystemExit(found.exit_code)


@task("hosts inventory forks enroll accept_new json")
def facts(options: Options) -> None:
    """Show what hosts are: system, GPUs, hardware, versions.

    inv facts --hosts all --json
    """
    from provision.cli import arguments, terminal
    from provision.cli import facts as shown
    from provision.run.fleet import inspect
    from provision.run.ways_in import logins

    ways = logins(arguments.select(options))
    arguments.enroll_hosts(options, ways)
    found, errors = inspect(ways, options.forks)
    if options.json:
        document = {name: shown.document(value) for name, value in found.items()}
        failed = {name: {"error": error.message, "hint": error.hint} for name, error in errors.items()}
        terminal.write_json({"schema": 1, "hosts": document | failed})
    else:
        for name, value in found.items():
            terminal.write_data(f"{name}: {shown.text(value)}")
        terminal.log_errors(errors)
    raise SystemExit(1 if errors else 0)


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
    from provision.errors import UsageError

    if host and graph:
        raise UsageError("--graph prints all groups and hosts, and --host one host: give one of them")
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
    role="only those of this role, or of expect, provision_backups",
    schema="print the JSON schema of a host's variables, for editors",
)
def settings(options: Options, *, schema: bool = False, role: str = "") -> None:
    """Show all settings: type, default, meaning, example.

    inv settings triton
    """
    import shutil
    from dataclasses import asdict

    from provision.cli import arguments, reference, terminal
    from provision.roles import choose

    known = (*arguments.roles_for(options.inventory), *reference.OF_HOSTS)
    roles = choose(known, [role] if role else [])
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
    kubernetes="Triton's instances as manifests of Kubernetes instead",
    gpus="with --kubernetes: how many gpus: all is",
    monitoring="targets for Prometheus' file_sd instead",
)
def render(
    options: Options,
    *,
    out: str = "",
    system: str = "debian:12",
    kubernetes: bool = False,
    gpus: str = "",
    monitoring: bool = False,
) -> None:
    """Render the files that would land on hosts, without the hosts.

    inv render --hosts gpu-01 --system ubuntu:24.04 --out files
    """
    from pathlib import Path

    from provision.cli import arguments, terminal
    from provision.cli.rendered import assumed, rendered

    if kubernetes or monitoring or gpus:
        from provision.cli.exported import export

        export(options, out, kubernetes=kubernetes, monitoring=monitoring, gpus=gpus)
        return
    found = arguments.targets(options)[0]
    written: set[Path] = set()
    for target in found:
        for file in rendered(target, assumed(system)):
            if file.origin:
                place = f"{target.name}:{file.path}"
                terminal.log(f"not rendered: {place}, which the host fetches from {file.origin}")
            elif out:
                written.add(arguments.write_below(Path(out, target.name), file))
            else:
                private = file.mode.endswith("00")
                text = "(not shown; see --out)\n" if private else file.content.decode("utf-8", "replace")
                terminal.write_data(f"# {target.name}:{file.path} ({file.mode})\n{text}")
    if out:
        terminal.log(f"written below {out}")
        for path in (path for target in found for path in sorted(Path(out, target.name).rglob("*"))):
            if path.is_file() and path not in written:
                terminal.log(f"not of this rendering, and left: {path}")


@task("json", file="a manifest or a folder of them, or - for standard input")
def lint_manifest(options: Options, *, file: list[str]) -> None:
    """Judge how Kubernetes' manifests ask for GPUs. Exit code 3 if there are errors.

    inv lint-manifest deploy/ extra.yaml
    """
    from provision.cli import terminal
    from provision.cli.manifests import judge

    found = judge(file)
    if options.json:
        terminal.write_json(found.document())
    else:
        if found.faults:
            terminal.write_data("\n".join(fault.text for fault in found.faults))
        for error in found.unreadable:
            terminal.log(f"error: {error}\nhint: {error.hint}")
        terminal.log(found.summary)
    raise SystemExit(found.exit_code)


@task(
    "json",
    image="a tag, or a whole name: 24.07-trtllm-python-py3",
    driver="a version or a branch: 580.159.04, 580",
    gpu="a model or a compute capability: h100, 8.9",
)
def compat(options: Options, *, image: str = "", driver: str = "", gpu: str = "") -> None:
    """Show which drivers and GPUs run which Triton.

    With --image the verdict on it, exit code 3 if it does not run there;
    without it the table of all releases.

    inv compat --image 24.07-trtllm-python-py3 --driver 535 --gpu l40s
    """
    from provision.cli import compat as shown
    from provision.cli import terminal

    version, model = shown.driver_of(driver), shown.gpu_of(gpu)
    if image:
        found = shown.answer(shown.tag_of(image), version, model)
        if options.json:
            terminal.write_json(found.document())
        else:
            terminal.write_data(found.text())
        raise SystemExit(found.exit_code)
    if options.json:
        terminal.write_json(shown.document(version, model))
    else:
        terminal.write_data(shown.table(version, model))


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
    *(provision, plan, remove, stop, verify, facts, inventory, settings, render, compat),
    *(check_roles, lint_manifest),
)
"""What a new task of the product is added to."""
COLLECTION.add_collection(bare.COLLECTION)
