"""``inv test --real``: takes a machine that does not serve yet to serving, breaks it, repairs it, reports.

What an operator types is typed here: ``plan``, ``provision`` and ``verify`` are run as commands. What else is
tried on the host goes over a connection of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from pydantic import TypeAdapter

from provision.causes.known_messages import cause
from provision.cli import arguments, terminal
from provision.cli.options import Options
from provision.connection import Connection
from provision.errors import HostError, UsageError
from provision.plan.report import counted
from provision.probe import Output
from provision.roles.docker.containers import plain_run, steps
from provision.roles.triton.role import TritonSettings
from provision.run.fleet import on_each
from provision.run.target import Target
from tests.real.machine import MODEL, NO_GPU, SIZE, Machine, Served
from tests.real.report import Row, Verdict, document, exit_code, table

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3
"""How often the unit and a plain ``docker run`` are timed, in turn."""


@dataclass(frozen=True)
class Break:
    """One thing that goes wrong; see ``breaks.yml``."""

    breaks: str
    check: str
    resource: str
    role: str = "triton"

    def of(self, served: Served) -> Break:
        """The same for this instance."""
        named = {
            key: getattr(self, key).replace("UNIT", served.unit).replace("NAME", served.name)
            for key in ("breaks", "check", "resource")
        }
        return Break(**named, role=self.role)


BREAKS = TypeAdapter(dict[str, Break]).validate_python(
    yaml.safe_load(Path(__file__).with_name("breaks.yml").read_text("utf-8"))
)


@dataclass(frozen=True)
class Commands:
    """The product's commands for one host of the inventory."""

    inventory: str
    host: str

    def run(self, task: str, *more: str, shown: bool = False) -> tuple[int, dict[str, Any]]:
        """Exit code and document of a command.

        :param shown: its progress is shown.
        """
        argv = [sys.executable, str(ROOT / "tasks.py"), task, "--inventory", self.inventory]
        ran = subprocess.run(
            [*argv, "--hosts", self.host, "--json", *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE,
            text=True,
            check=False,
        )
        try:
            return ran.returncode, json.loads(ran.stdout)["hosts"][self.host]
        except (ValueError, LookupError):
            return ran.returncode, {
                "error": {"message": (ran.stderr or "").strip() or f"exit {ran.returncode}"}
            }


def run(inventory: str, hosts: str, *, yes: bool, as_json: bool) -> int:
    """Try out the hosts one after the other; the exit code.

    :raises UsageError: for anything that is refused, before a host is touched.
    """
    if not inventory:
        raise UsageError("--real: which machines?", hint="inv test --real -i INVENTORY --hosts HOST")
    options = Options(hosts=hosts, inventory=inventory)
    targets = arguments.reachable(options)
    _refuse_what_serves(targets)
    terminal.log(_what_happens([target.name for target in targets]))
    _show_plans(inventory, hosts)
    question = f"Provision {counted(len(targets), 'host')}, and break and repair them?"
    if not yes and not terminal.confirmed(question, "--yes"):
        terminal.log("nothing was changed")
        return 3
    rows: list[Row] = []
    for target in targets:
        with Connection(target.login) as connection:
            commands = Commands(inventory, target.name)
            rows += Acceptance(commands, target, Machine(connection), terminal.log).rows()
    if as_json:
        terminal.write_json(document(rows))
    else:
        terminal.write_data(table(rows))
    return exit_code(rows)


def _what_happens(names: list[str]) -> str:
    return (
        f"{', '.join(names)}: provisioned; for each instance a model is placed that takes {SIZE >> 20} MiB of"
        f" each GPU; then it is verified, its servers are restarted {2 * ROUNDS} times and killed once, and"
        f" {counted(len(BREAKS), 'thing')} are broken one by one and provisioned again. It ends serving."
    )


def _refuse_what_serves(targets: list[Target]) -> None:
    """Refuse machines where something runs, and those that no instance is declared for.

    :raises UsageError: naming the host.
    """
    for target in targets:
        if not any(isinstance(found, TritonSettings) and found.servers for found in target.settings.values()):
            raise UsageError(f"{target.name} has no instance of Triton", hint="triton: {instances: …}")
    ways = [target.login for target in targets]
    found, errors = on_each(ways, lambda connection: Machine(connection).what_runs(), len(ways))
    if errors:
        raise UsageError("\n".join(str(error) for error in errors.values()), hint="inv facts --hosts HOST")
    if busy := [f"{name}: {line}" for name, lines in found.items() for line in lines]:
        raise UsageError(
            "\n  ".join(["a machine that is in use is not broken; nothing was changed", *busy]),
            hint="take a machine that does not serve yet, or stop what runs there;"
            " ours: inv remove --roles triton --hosts HOST",
        )


def _show_plans(inventory: str, hosts: str) -> None:
    """Show what would change, on standard error.

    :raises UsageError: if that cannot be planned.
    """
    argv = [sys.executable, str(ROOT / "tasks.py"), "plan", "--inventory", inventory, "--hosts", hosts]
    code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
    if code not in (0, 3):
        raise UsageError(
            f"there is no plan (exit code {code})", hint="inv plan --hosts HOST until it has one"
        )


@dataclass(frozen=True)
class Acceptance:
    """Everything that is tried on one host.

    :ivar say: is told what is being done.
    """

    inv: Commands
    target: Target
    machine: Machine
    say: Callable[[str], None]

    def rows(self) -> list[Row]:
        """What was found; it ends early where the host does not come to serving."""
        found: list[Row] = []
        try:
            for row in self._all():
                found.append(row)
                self.say(f"{row.verdict}  {row.instance or row.host}: {row.what}  {row.said}")
        except HostError as error:
            found.append(self._row("the acceptance goes on", "fail", f"{error.message}; {error.hint or ''}"))
        return found

    def _all(self) -> Iterator[Row]:
        serves = yield from self._provision()
        if not serves:
            return
        with_model = [served for served in self._instances() if not served.without_cuda()]
        try:
            for served in with_model:
                served.place_model()
                served.load_model()
            yield from self._tried()
        finally:
            for served in with_model:
                self.say(f"{MODEL} is taken away")
                served.remove_model()

    def _tried(self) -> Iterator[Row]:
        """A host that serves, with the model where it can be."""
        yield self._verified("verify passes")
        for served in self._instances():
            yield from self._container(served)
            yield from self._gpus(served)
            yield self._killed(served)
        first = self._instances()[0]
        for title, its in BREAKS.items():
            yield from self._broken(title, its.of(first))

    def _row(
        self, what: str, verdict: Verdict, said: str = "", instance: str = "", seconds: float | None = None
    ) -> Row:
        return Row(self.target.name, what, verdict, said, instance, seconds)

    def _instances(self) -> list[Served]:
        settings = next(s for s in self.target.settings.values() if isinstance(s, TritonSettings))
        return [Served(self.machine, name, instance) for name, instance in settings.servers.items()]

    # ── 1 to 3: to serving ──────────────────────────────────────────────────────────────────────────────

    def _provision(self) -> Generator[Row, None, bool]:
        """Provision it, twice; whether it serves."""
        self.say("provision")
        before = self.machine.told("served_since ''")
        self.machine.connection.close()  # it may reboot
        code, found = self.inv.run("provision", "--yes", shown=True)
        done = counted(len(found.get("changes", ())), "change")
        yield self._row(
            "provision", "fail" if code else "pass", _why(found) or done, seconds=found.get("seconds")
        )
        if code:
            return False
        for served in self._instances():
            since = served.serving_since(before)
            said = "" if since is not None else "the host was rebooted on the way"
            yield self._row(
                "serves, from the start of the run", "pass" if since else "skip", said, served.name, since
            )
        code, found = self.inv.run("provision", "--yes")
        changes = [change["resource"] for change in found.get("changes", ())]
        good = not code and not changes and found.get("status") == "ok"
        said = _why(found) or ", ".join(changes) or "nothing to do"
        yield self._row("provision again", "pass" if good else "fail", said, seconds=found.get("seconds"))
        return True

    def _verified(self, what: str) -> Row:
        code, found = self.inv.run("verify")
        checks = found.get("checks", ())
        passed = sum(check["verdict"] in ("pass", "warn") for check in checks)
        said = [_why(found)] if code else [f"{passed} of {len(checks)} checks"]
        said += [
            f"failed {_title(check)}: {check['message']}" for check in checks if check["verdict"] == "fail"
        ]
        said += [
            f"warned {_title(check)}: {check['message']}" for check in checks if check["verdict"] == "warn"
        ]
        said += [
            f"skipped {_title(check)}: {check['message']}" for check in checks if check["verdict"] == "skip"
        ]
        return self._row(
            what, "fail" if code else "pass", "; ".join(filter(None, said)), seconds=found.get("seconds")
        )

    # ── 4: the driver in containers ─────────────────────────────────────────────────────────────────────

    def _container(self, served: Served) -> Iterator[Row]:
        """What a container of its image has of the driver, with NVIDIA's runtime and without it."""
        with_it, without = "NVML starts in a plain container", "without NVIDIA's runtime the cause is named"
        runtime = self.machine.default_runtime()
        if served.instance.gpus == "none" or runtime != "nvidia":
            why = NO_GPU if served.instance.gpus == "none" else f"the default runtime is {runtime}"
            yield self._row(with_it, "skip", why, served.name)
            yield self._row(without, "skip", why, served.name)
            return
        script, limit = plain_run(served.instance.image)
        good = self._steps(script, limit)
        bad = self._steps(script.replace("docker run ", "docker run --runtime=runc ", 1), limit)
        if good["nvml"].exit_code == 127:
            yield self._row(with_it, "skip", "the image has no python3", served.name)
            return
        failed = [f"{name}: {cause(step)[0]}" for name, step in good.items() if not step.ok]
        yield self._row(
            with_it, "fail" if failed else "pass", "; ".join(failed) or ", ".join(good), served.name
        )
        last = bad["tensorrt_llm"] if "tensorrt_llm" in bad else bad["nvml"]
        yield self._row(without, "fail" if last.ok else "pass", cause(last)[0], served.name)

    def _steps(self, script: str, limit: int) -> dict[str, Output]:
        return {"nvml": Output(1), **steps(self.machine.ask(script, limit))}

    # ── 5: GPUs ─────────────────────────────────────────────────────────────────────────────────────────

    def _gpus(self, served: Served) -> Iterator[Row]:
        """A model on its GPUs, what metrics say of it, and the times of starts, all with this model."""
        why = served.without_cuda()
        if why:
            for what in ("a model on the GPU answers", "metrics show the GPU's memory"):
                yield self._row(what, "skip", why, served.name)
        else:
            yield from self._inferred(served)
        yield self._timed(served)

    def _inferred(self, served: Served) -> Iterator[Row]:
        wanted = self.machine.gpus_of(served.instance)
        gpu = served.infer()
        verdict: Verdict = "pass" if gpu in wanted else "fail"
        yield self._row("a model on the GPU answers", verdict, gpu, served.name)
        used = served.used_memory(wanted)
        said = ", ".join(f"{gpu}: {value >> 20} MiB" for gpu, value in used.items()) or "no GPU metrics"
        if not used and any("metrics" in arg for arg in served.instance.args):
            yield self._row("metrics show the GPU's memory", "skip", "args turn metrics off", served.name)
            return
        good = set(used) == wanted and min(used.values()) >= SIZE
        yield self._row("metrics show the GPU's memory", "pass" if good else "fail", said, served.name)

    def _timed(self, served: Served) -> Row:
        """Start to ready, the unit's beside a plain ``docker run``'s, in turn."""
        command = served.bare_command()
        bare, ready, active = [], [], []
        for _ in range(ROUNDS):
            self.say(f"{served.name}: starts are timed")
            bare.append(served.time_bare(command))
            one, other = served.time_unit()
            ready.append(one)
            active.append(other)
        said = "; ".join(
            f"{what} {', '.join(f'{one:.2f}' for one in times)}"
            for what, times in (("unit ready", ready), ("unit active", active), ("docker run ready", bare))
        )
        return self._row("start to ready", "pass", said, served.name, median(ready))

    # ── 6: killed ───────────────────────────────────────────────────────────────────────────────────────

    def _killed(self, served: Served) -> Row:
        if served.instance.restart == "no":
            return self._row("killed, it serves again", "skip", "restart is no", served.name)
        seconds = served.time_recovery()
        served.restart()  # verify warns of units that restarted by themselves
        return self._row("killed, it serves again", "pass", "kill -9 of the server", served.name, seconds)

    # ── 7: broken ───────────────────────────────────────────────────────────────────────────────────────

    def _broken(self, title: str, its: Break) -> Iterator[Row]:
        """Break one thing, see that verify and plan name it, and repair it."""
        what = f"broken: {title}"
        if its.role not in [role.name for role in self.target.settings]:
            yield self._row(what, "skip", f"the inventory has no {its.role} for this host")
            return
        self.say(what)
        self.machine.ask(its.breaks, 600)
        began = time.monotonic()
        code, found = self.inv.run("verify")
        failed = [_title(check) for check in found.get("checks", ()) if check["verdict"] == "fail"]
        named = code == 3 and its.check in failed
        said = f"verify: {', '.join(failed) or 'nothing'}"
        code, found = self.inv.run("plan")
        planned = [change["resource"] for change in found.get("changes", ())]
        shown = code == 3 and any(resource.startswith(its.resource) for resource in planned)
        said += f"; plan: {', '.join(planned) or 'nothing'}"
        looked = time.monotonic() - began
        yield self._row(what, "pass" if named and shown else "fail", said, seconds=looked)
        code, found = self.inv.run("provision", "--yes")
        yield self._row("  repaired", "fail" if code else "pass", _why(found), seconds=found.get("seconds"))
        yield self._verified("  verify passes")


def _title(check: dict[str, Any]) -> str:
    role = f"{check['role']} {check['instance']}" if check["instance"] else check["role"]
    return f"{role}: {check['name']}" if role else str(check["name"])


def _why(found: dict[str, Any]) -> str:
    """The error in a host's document, with its hint."""
    error = found.get("error") or {}
    return "; hint: ".join(str(error[key]) for key in ("message", "hint") if error.get(key))
