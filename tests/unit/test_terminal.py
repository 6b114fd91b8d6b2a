"""What people see and are asked: on a real terminal, in programs of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from provision.cli import tasks, terminal
from provision.cli.terminal import error_boundary, printable, write_data
from provision.errors import HostError, UsageError

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from provision.cli import terminal
"""


def at_a_terminal(program: str, terminal: int, *, new_session: bool = False) -> subprocess.Popen[str]:
    """Python text that can ask somebody at this terminal, in a session of its own where that is wanted."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{PROGRAM}{program}"],
        cwd=ROOT,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        start_new_session=new_session,
    )


def read_until(terminal: int, text: str) -> str:
    """What a program prints at a terminal, up to ``text``."""
    shown = ""
    while not shown.endswith(text):
        shown += os.read(terminal, 1).decode()
    return shown


def test_only_a_yes_is_a_yes() -> None:
    answers = {"y": True, "yes": True, " YES ": True, "": False, "n": False, "yep": False, "x": False}
    asking = f"for _ in range({len(answers)}): print(terminal.confirmed('Go?', '--yes'), flush=True)"
    ours, theirs = pty.openpty()
    with at_a_terminal(asking, theirs) as program:
        os.close(theirs)
        assert program.stdout is not None
        for answer, meant in answers.items():
            read_until(ours, "Go? [y/N] ")
            os.write(ours, f"{answer}\n".encode())
            assert program.stdout.readline() == f"{meant}\n"
    os.close(ours)


def test_what_was_typed_before_the_question_is_no_answer() -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    with at_a_terminal("print(terminal.confirmed('Go?', '--yes'))", theirs) as program:
        os.close(theirs)
        read_until(ours, "Go? [y/N] ")
        os.write(ours, b"n\n")
        assert program.communicate()[0] == "False\n"
    os.close(ours)


def test_the_end_of_the_input_is_no_yes() -> None:
    ours, theirs = pty.openpty()
    with at_a_terminal("print(terminal.confirmed('Go?', '--yes'))", theirs) as program:
        os.close(theirs)
        read_until(ours, "Go? [y/N] ")
        os.write(ours, b"\x04")
        assert program.communicate()[0] == "False\n"
    os.close(ours)


@pytest.mark.parametrize("stdin", ["/dev/null", None])
def test_where_nobody_can_be_asked_nothing_is_agreed_to(stdin: str | None) -> None:
    program = f"{PROGRAM}\nwith terminal.error_boundary():\n    terminal.confirmed('Go?', '--yes')\n"
    argv = [sys.executable, "-c", program]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *argv]
    with Path(stdin or "/dev/null").open() as given:
        ran = subprocess.run(
            argv if stdin else closed, cwd=ROOT, stdin=given, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 2
    assert ran.stderr == (
        "error: Go? Nobody can be asked here, so nothing was changed\nhint: --yes says yes; a terminal asks\n"
    )


def test_hints_name_the_program_that_runs(tmp_path: Path) -> None:
    program = tmp_path / "gpu-provision"
    program.write_text(
        PROGRAM
        + "terminal.log('hint: plan again: inv plan --out FILE')\n"
        + "terminal.log('  ./inv plan stays as it is')\n"
        + "terminal.write_data('  hint: inv plan\\n+ inv plan')\n"
    )
    ran = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == "hint: plan again: gpu-provision plan --out FILE\n  ./inv plan stays as it is\n"
    assert ran.stdout == "  hint: gpu-provision plan\n+ inv plan\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such file", hint="name another"), 2, "error: no such file\nhint: name another\n"),
        (HostError("h1", "disk full"), 1, "error: h1: disk full\n"),
        (UsageError("a\x1b[2Jb"), 2, "error: a\\x1b[2Jb\n"),
    ],
)
def test_an_error_is_a_sentence_a_hint_and_an_exit_code(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, error_boundary():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("starts_runs=True", "interrupted: what had started on a host goes on there; the next provision"),
        ("", "interrupted\n"),
    ],
)
def test_an_interrupt_ends_at_once_and_says_that_runs_continue(arguments: str, says: str) -> None:
    program = f"{PROGRAM}with terminal.error_boundary({arguments}): raise KeyboardInterrupt"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (130, "")
    assert ran.stderr.startswith(says)


def test_data_is_neither_wrapped_nor_coloured_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "    + write " + "x" * 300 + " [bold]"
    write_data(f"{line}\n\x1b[31m\n")
    assert capsys.readouterr().out == f"{line}\n\\x1b[31m\n"


def test_what_would_steer_a_terminal_is_escaped() -> None:
    assert printable("caf\u00e9\n\t\x1b[2J\u202e\x00") == "caf\u00e9\n\t\\x1b[2J\\u202e\\x00"


@pytest.mark.parametrize(
    "asking",
    ["terminal.confirmed('Go? [y/N] '[:3], '--yes')", "asked('--ask-pass', 'Go? [y/N] ', 'x')"],
)
def test_an_interrupt_at_the_question_changes_nothing_and_says_so(asking: str) -> None:
    """Typed at the terminal that controls the program."""
    taking = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    program = (
        f"from provision.cli.arguments import asked\nwith terminal.error_boundary(starts_runs=True): {asking}"
    )
    ours, theirs = pty.openpty()
    with at_a_terminal(f"{taking}{program}", theirs, new_session=True) as ran:
        os.close(theirs)
        read_until(ours, "Go? [y/N] ")
        os.write(ours, b"\x03")
        said = read_until(ours, "changed\r\n")
        assert ran.wait(20) == 130
    os.close(ours)
    assert said.splitlines()[-1] == "interrupted at the question: nothing was changed"


def test_commands_in_hints_have_what_the_running_one_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_GIVEN", {"inventory": "my fleet", "hosts": "all:!x"})
    monkeypatch.setattr(terminal, "program_name", lambda: "./inv")
    more = "--inventory 'my fleet' --hosts 'all:!x'"
    for text, pasted in {
        "look: inv plan": f"look: ./inv plan {more}",
        "plan again: inv plan --out FILE": f"plan again: ./inv plan {more} --out FILE",
        "inv stop --hosts PATTERN shows what runs": f"./inv stop {more} shows what runs",
        "inv provision --hosts h1 --roles docker; then": (
            "./inv provision --inventory 'my fleet' --hosts h1 --roles docker; then"
        ),
        "inv inventory --graph shows": "./inv inventory --inventory 'my fleet' --graph shows",
        "inv lint-manifest FILE": "./inv lint-manifest FILE",
    }.items():
        assert terminal.named(text) == pasted


def test_what_is_given_is_known_of_the_tasks_that_take_it() -> None:
    takes: dict[str, set[str]] = {"--hosts": set(), "--inventory": set()}
    for name in tasks.COLLECTION.task_names:
        options = {argument.name for argument in tasks.COLLECTION[name].get_arguments()}
        for option, takers in takes.items():
            takers.update({name} if option.removeprefix("--") in options else ())
    assert takes["--hosts"] - {"inventory"} == terminal.TAKE_HOSTS
    assert takes["--inventory"] == terminal.TAKE_HOSTS | terminal.TAKE_INVENTORY


def test_hints_in_documents_can_be_pasted_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_GIVEN", {"inventory": "f", "hosts": ""})
    monkeypatch.setattr(terminal, "program_name", lambda: "./inv")
    terminal.write_json({"error": {"hint": "inv plan", "message": "inv plan"}, "notes": ["inv plan"]})
    assert json.loads(capsys.readouterr().out) == {
        "error": {"hint": "./inv plan --inventory f", "message": "inv plan"},
        "notes": ["./inv plan --inventory f"],
    }
