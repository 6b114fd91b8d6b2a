"""What people see while a command runs: progress on standard error, questions, and errors in one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from provision.cli import program_name
from provision.errors import HostError, ProvisionError, UsageError, visible

STYLES = {"+": "green", "-": "red", "~": "yellow"}

TAKE_INVENTORY = frozenset({"inventory", "settings", "check-roles"})
TAKE_HOSTS = frozenset(
    {"provision", "plan", "remove", "stop", "verify", "facts", "render"}
    | {"bare.seed", "bare.enroll", "bare.bootstrap"}
)
"""Tasks with ``--hosts``, which they cannot do without; they take ``--inventory``, too."""

_GIVEN = {"inventory": "", "hosts": ""}
"""What the running command was given, as the commands in its hints need it."""

_COMMAND = re.compile(r"(?<![\w./-])inv ([a-z][\w.-]*)((?: --[\w-]+(?:[ =](?!-)[^\s;:()]+)?)*)")


def given(*, inventory: str, hosts: str) -> None:
    """Remember the inventory and the hosts of the running command."""
    _GIVEN.update(inventory=inventory, hosts=hosts)


def named(text: str) -> str:
    """``text`` with the commands in it (``inv plan …``) as they can be pasted.

    They have the running program's name, and the inventory and the hosts that it was given, where the text
    names no others.
    """
    return _COMMAND.sub(_pasted, text)


def _pasted(command: re.Match[str]) -> str:
    task, options = command[1], command[2]
    if _GIVEN["hosts"]:
        options = options.replace(" --hosts PATTERN", "")
    fitting = {"inventory": TAKE_INVENTORY | TAKE_HOSTS, "hosts": TAKE_HOSTS}
    more = "".join(
        f" --{option} {shlex.quote(_GIVEN[option])}"
        for option, tasks in fitting.items()
        if task in tasks and _GIVEN[option] and not re.search(rf" --{option}\b", options)
    )
    return f"{program_name()} {task}{more}{options}"


def printable(text: str) -> str:
    """``text``, of several lines of ours, without what would steer the terminal."""
    return re.sub(r"[^\n\t]+", lambda part: visible(part[0]), text)


def write_data(text: str) -> None:
    """Print data: to standard output, coloured on terminals only, never wrapped."""
    file = io.StringIO()
    colours = sys.stdout.isatty()
    console = Console(file=file, force_terminal=colours, highlight=False, soft_wrap=True, markup=False)
    for line in printable(text).rstrip("\n").split("\n"):
        sign = line.strip()[:1]
        shown = named(line) if line.lstrip().startswith(("hint: ", "note: ")) else line
        styled = line.startswith("    ") and sign in STYLES
        console.print(Text(shown, style=STYLES.get(sign, "") if styled else ""))
    _write(file.getvalue())


def write_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output. JSON's own escapes stand for what is not printed."""
    lines = json.dumps(_advised(document), indent=2, ensure_ascii=False).split("\n")
    _write("".join(f"{_escaped(line)}\n" for line in lines))


def _advised(value: Any, key: str = "") -> Any:
    """A document with the commands in its hints and notes as they can be pasted."""
    if isinstance(value, Mapping):
        return {name: _advised(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_advised(inner, key) for inner in value]
    return named(value) if isinstance(value, str) and key in ("hint", "notes") else value


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _write(text: str) -> None:
    """Write to standard output.

    :raises ProvisionError: if it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ProvisionError(f"standard output cannot be written: {error.strerror}") from error


def log(text: str) -> None:
    """Print a remark: to standard error. What nobody can read is no reason to stop."""
    with contextlib.suppress(OSError):
        print(printable(named(text)), file=sys.stderr, flush=True)  # noqa: T201


def log_errors(errors: Mapping[str, HostError]) -> None:
    """Print the errors of hosts, each with its hint."""
    for name, error in errors.items():
        log(f"{name}: {error.message}" + (f"\n  hint: {error.hint}" if error.hint else ""))


@contextlib.contextmanager
def error_boundary(*, starts_runs: bool = False) -> Iterator[None]:
    """Turn our errors into one sentence, a hint and an exit code; interrupts and signals end at once.

    :param starts_runs: whether runs may be under way on hosts, which go on there.
    """
    ended_by = [signal.SIGINT]

    def interrupt(number: int, _: object) -> None:
        ended_by[0] = signal.Signals(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        more = ": what had started on a host goes on there; the next provision attaches to a run"
        log("interrupted" + more * starts_runs)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # Threads may wait for hosts for minutes; nothing here needs their end.
        os._exit(128 + ended_by[0])
    except ProvisionError as error:
        log(f"error: {error}")
        if error.hint:
            log(f"hint: {error.hint}")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    except BrokenPipeError:
        reader_is_gone()
    except OSError as error:
        if error.filename is None:
            raise
        log(f"error: {error.filename}: {error.strerror}\nhint: check its path, owner and mode, and the disk")
        raise SystemExit(2) from None


def reader_is_gone() -> NoReturn:
    """End as other programs do when whoever reads standard output has left, such as ``head``."""
    os._exit(141)  # threads may wait for hosts for minutes


@contextlib.contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """Gives a function that says what is being done: with its seconds on a terminal, in lines elsewhere."""
    if not sys.stderr.isatty():
        yield log
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)

        def say(text: str) -> None:
            shown.reset(task, description=printable(named(text)))

        yield say


def confirmed(question: str, instead: str) -> bool:
    """Ask whether something may be written. All that writes on hosts or records their keys asks here.

    :param instead: the option that says yes where nobody can be asked.
    :raises UsageError: where nobody can be asked.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{question} Nobody can be asked here, so nothing was changed",
            hint=f"{instead} says yes; a terminal asks",
        )
    with at_a_question():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the question answers nothing
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
        return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextlib.contextmanager
def at_a_question() -> Iterator[None]:
    """An interrupt ends the command with exit code 130, and says that nothing was changed."""
    try:
        yield
    except KeyboardInterrupt:
        log("\ninterrupted at the question: nothing was changed")
        raise SystemExit(130) from None
