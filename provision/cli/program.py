"""The program: Invoke's, with our version, help and sentences. ``./inv`` and the installed command run it."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import io
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from invoke.collection import Collection
from invoke.config import Config
from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.program import Program as InvokeProgram

import provision
from provision import interrupts
from provision.cli import COMMAND, program_name, tasks, terminal
from provision.data import CLONE

NEED_THE_CLONE = ("lab.up", "lab.down", "lab.status", "demo", "test", "check", "bench")
"""Tasks of ``tasks.py`` at the clone's top level."""

OPTIONAL = {"settings": "--role", "stop": "--run"}
"""Tasks that take a word without an option, and the option that it stands for."""

SEVERAL = {"lint-manifest": "--file"}
"""Tasks that take any number of words, and the option that each stands for."""

GROUPS = (
    ("Bare metal", ("bare.seed", "bare.enroll", "bare.bootstrap")),
    ("Change hosts", ("provision", "plan", "remove", "stop")),
    ("Look at hosts", ("verify", "facts")),
    ("Look up", ("compat",)),
    ("Look at the inventory", ("inventory", "settings", "render", "check-roles")),
    ("Kubernetes", ("lint-manifest",)),
    ("Try it on this machine", ("demo", "lab.up", "lab.status", "lab.down")),
    ("Develop", ("test", "check", "bench")),
)
"""The tasks by what they are for."""


class Program(InvokeProgram):
    """Tasks and their options, without Invoke's own: nothing here runs through its ``Context``."""

    def core_args(self) -> list[Argument]:
        """The options that need no task."""
        return [
            Argument(names=("help", "h"), optional=True, help="Show this help, or the help of a task"),
            Argument(names=("list", "l"), kind=bool, default=False, help="List the tasks"),
            Argument(names=("version", "V"), kind=bool, default=False, help="Show the version"),
            Argument(names=("print-completion-script",), help="Print completions for bash, zsh or fish"),
            Argument(names=("complete",), kind=bool, default=False, help="Print what may come next"),
        ]

    def create_config(self) -> None:
        """Set Invoke's defaults: its files and variables on this machine are not ours."""
        self.config = Config(lazy=True)
        self.config.merge()

    def update_config(self, merge: bool = True) -> None:
        """Leave the configuration alone: we have no options for it."""

    def parse_core_args(self) -> None:
        """Parse our options; those that only Invoke's own program has keep their defaults."""
        super().parse_core_args()
        for argument in super().core_args():
            if argument.name not in self.args:
                self.core[0].add_arg(argument)

    def parse_core(self, argv: Sequence[str] | None) -> None:
        """Parse what stands before the first task."""
        caching = sys.dont_write_bytecode
        with self._usage_errors():
            super().parse_core(argv)  # type: ignore[arg-type]
        sys.dont_write_bytecode = caching

    def parse_tasks(self) -> None:
        """Parse tasks with their options. Invoke's positional arguments cannot be left out; these can."""
        words = self.core.unparsed
        for before, word in itertools.pairwise(("", *words)):
            # A script's empty variable would mean what leaving the option out does.
            if (not word and before.startswith("--")) or re.fullmatch(r"--[\w-]+=", word):
                empty = (word or before).rstrip("=")
                raise Exit(f"error: {empty} needs a value\nhint: {self._help_of(words[0])}", code=2)
        if valued := self._with_needless_value(words):
            raise Exit(f"error: {valued} takes no value\nhint: {self._help_of(words[0])}", code=2)
        if bare := self._without_value(words):
            raise Exit(f"error: {bare} needs a value\nhint: {self._help_of(words[0])}", code=2)
        if twice := self._given_twice(words):
            raise Exit(f"error: {twice} is given twice\nhint: {self._help_of(words[0])}", code=2)
        if option := SEVERAL.get(words[0]) if words else None:
            words[1:] = [part for word in _words(words[1:], option) for part in word]
        option = OPTIONAL.get(words[0], "") if words else ""
        for at in range(1, len(words) if option else 0):
            if not words[at].startswith("-") and words[at - 1] not in (
                "--inventory",
                "--hosts",
                "--forks",
                option,
            ):
                words.insert(at, option)
                break
        with self._usage_errors():
            super().parse_tasks()

        if len(self.tasks) > 1:
            names = " and ".join(task.name or "" for task in self.tasks)
            raise Exit(f"error: two tasks in one call: {names}\nhint: call {self.binary} for each", code=2)

    def _flags_of(self, words: Sequence[str]) -> dict[str, Argument]:
        """The options of the task that the words begin with."""
        known = self._make_parser().contexts
        return dict(known[words[0]].flags) if words and words[0] in known else {}

    def _without_value(self, words: Sequence[str]) -> str | None:
        """An option of which there may be several, and that has no value; Invoke takes it for none."""
        lists = {name for name, flag in self._flags_of(words).items() if flag.kind is list}
        following = itertools.pairwise((*words, "--"))
        return next((w for w, then in following if w in lists and then.startswith("-") and then != "-"), None)

    def _with_needless_value(self, words: Sequence[str]) -> str | None:
        """An option that is on where it is given, and has a value all the same."""
        flags = self._flags_of(words)
        named = (word.partition("=")[0] for word in words if "=" in word)
        return next((name for name in named if name in flags and not flags[name].takes_value), None)

    def _given_twice(self, words: Sequence[str]) -> str | None:
        """An option that is given twice and takes one value; Invoke calls the second a task."""
        tasks_known, flags = self._make_parser().contexts, self._flags_of(words)
        takes = {name for name, flag in flags.items() if flag.takes_value}
        once = {name for name in takes if flags[name].kind is not list}
        seen: set[str] = set()
        for before, word in itertools.pairwise(words):
            name = word.partition("=")[0]
            if before in takes:
                continue
            if name in tasks_known:
                return None
            if name in seen:
                return name
            seen |= {name} & once
        return None

    def parse_cleanup(self) -> None:
        """Answer ``--help`` and ``--list``."""
        with self._usage_errors():
            super().parse_cleanup()

    def execute(self) -> None:
        """Run the tasks; exit code 130 if they are interrupted."""
        try:
            with interrupts.raised():
                super().execute()
        except KeyboardInterrupt:
            raise Exit(code=130) from None

    def print_help(self) -> None:
        """Print how the program is used, its tasks and its options."""
        print(f"Usage: {self.binary} TASK [OPTIONS]\n\n{provision.__doc__}\n")
        self.list_tasks()
        print(f"{self.binary} --help TASK shows an example. Options:\n")
        self.print_columns([pair for pair in self.initial_context.help_tuples() if pair[0] != "--complete"])

    def list_tasks(self) -> None:
        """Print the tasks in groups, each with the first sentence of its documentation."""
        texts = {name: inspect.getdoc(self.collection[name]) or "" for name in self.collection.task_names}
        grouped = [name for _, names in GROUPS for name in names]
        others = ("Others", tuple(name for name in texts if name not in grouped))
        for heading, names in (*GROUPS, others):
            rows = [(name, re.split(r"\.(?:\s|$)", texts[name])[0]) for name in names if name in texts]
            if rows:
                print("\n".join([heading, *(f"  {name:<14} {text}" for name, text in rows), ""]))

    def print_task_help(self, name: str) -> None:
        """Print what a task does and its options."""
        text = terminal.named(inspect.getdoc(self.collection[name]) or "")
        print(f"Usage: {self.binary} {name} [OPTIONS]\n\n{text}\n")
        if options := self.parser.contexts[name].help_tuples():
            print("Options:")
            self.print_columns(options)

    @contextlib.contextmanager
    def _usage_errors(self) -> Iterator[None]:
        """Turn what the parser refuses into a sentence and a hint, exit code 2."""
        try:
            yield
        except ParseError as error:
            task = error.context.name if error.context else None
            message, hint = self._explained(str(error), task or "")
        except ValueError as error:
            value = str(error).rpartition(": ")[2].strip("'")
            words = self.core.unparsed
            pairs = (
                (w.partition("=")[0], w.partition("=")[2] or then)
                for w, then in itertools.pairwise((*words, ""))
            )
            option = next((f"{name}: " for name, given in pairs if given == value and name[:1] == "-"), "")
            message, hint = f"{option}{value!r} is not a whole number", self._help_of("".join(words[:1]))
        else:
            return
        raise Exit(f"error: {message}\nhint: {hint}", code=2)

    def _explained(self, said: str, task: str) -> tuple[str, str]:
        """What is wrong and what to do, for what Invoke's parser says."""
        if unknown := re.fullmatch(r"No idea what '(.*)' is!", said, re.DOTALL):
            return self._unknown(unknown[1], task)
        if flag := re.fullmatch(r"Flag <Argument: ([\w-]+).*> needed value and was not given one!", said):
            return f"{'-' if len(flag[1]) == 1 else '--'}{flag[1]} needs a value", self._help_of(task)
        return said.rstrip("!."), self._help_of(task)

    def _unknown(self, word: str, task: str) -> tuple[str, str]:
        names = list(self.collection.task_names)
        if word in NEED_THE_CLONE and word not in names:
            return f"{word} needs a clone of the project", f"in the clone: ./inv {word}"
        before = next((w for w, then in itertools.pairwise(self.core.unparsed) if then == word), "")
        if before.endswith(","):
            return f"{before} {word} is two words", f"a list has no blanks: {before}{word}"
        if not word.startswith("-"):
            close = difflib.get_close_matches(word, names, n=1, cutoff=0.7)
            hint = f"did you mean {close[0]}?" if close else self._help_of("")
            if task and not close and "--hosts" in self.parser.contexts[task].flags:
                hint = f"hosts are named by an option: {self.binary} {task} --hosts {word}"
            return f"there is no task {word}", hint
        context = self.parser.contexts[task] if task else self.initial_context
        close = difflib.get_close_matches(word, list(context.flags), n=1, cutoff=0.7)
        has = f"{task} has" if task else "there is"
        return f"{has} no option {word}", f"did you mean {close[0]}?" if close else self._help_of(task)

    def _help_of(self, task: str) -> str:
        return f"{self.binary} --help {task}".rstrip()


def _words(words: Sequence[str], option: str) -> Iterator[tuple[str, ...]]:
    """Words of a command line, each that is no option behind ``option``."""
    for before, word in zip(("", *words), words, strict=False):
        yield (word,) if before == option or (word.startswith("-") and word != "-") else (option, word)


def _require_streams() -> None:
    """End where standard output is closed: no command is without something to print.

    What else is closed becomes /dev/null. A file that is opened later would take its place.
    """
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115  # to the end of the process
    if sys.stdout is None:
        print(
            "error: standard output is closed\nhint: >/dev/null drops what is printed",
            file=sys.stderr or sys.stdout,
        )
        raise SystemExit(2)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def main(namespace: Collection | None = None) -> None:
    """Run the command line with these tasks; without any: the product's, in a clone the developers' too."""
    _require_streams()
    if namespace is None and CLONE is not None:
        sys.path.insert(0, str(CLONE))
        namespace = importlib.import_module("tasks").ns
    namespace = namespace or tasks.COLLECTION
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that has no "…" is no reason to stop
    try:
        Program(provision.__version__, namespace, name=COMMAND, binary=program_name()).run()
        sys.stdout.flush()
    except BrokenPipeError:
        terminal.reader_is_gone()
