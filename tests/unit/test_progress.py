"""What people see while hosts are worked on: the live view at two widths; few lines without a terminal."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from provision.cli.progress import FEW, HEARTBEAT, Progress
from provision.plan.result import Doing
from provision.plan.script import Event

GOLDEN = Path(__file__).parents[1] / "golden/screens"
INSTALL = "packages:driver"


@dataclass
class Screen:
    """A view of hosts with a clock of its own, and what it wrote."""

    count: int
    width: int = 80
    terminal: bool = True
    seconds: float = 0.0
    file: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        console = Console(
            file=self.file, force_terminal=self.terminal, width=self.width, height=30, color_system=None
        )
        self.names = [f"gpu-{number:02d}" for number in range(1, self.count + 1)]
        self.progress = Progress(self.names, console, lambda: self.seconds)

    def all(self, event: Event | Doing | str, first: int = 0, last: int | None = None) -> None:
        """The same event for several hosts."""
        for name in self.names[first:last]:
            self.progress.on_event(name, event)

    def shown(self) -> str:
        """The live view as text."""
        console = Console(file=io.StringIO(), width=self.width, height=30, color_system=None)
        with console.capture() as capture:
            console.print(self.progress.view())
        return capture.get()


def install(screen: Screen) -> None:
    """Hosts some of which are done, failed, out of reach, and the others in the middle of a step."""
    half = screen.count // 2
    screen.all(Doing("planning"))
    screen.seconds = 2
    screen.all(Doing("planned"))
    screen.all(Doing("applying", 33))
    screen.all(Event("start", 0, resource="file:/etc/modprobe.d/provision-nouveau.conf"))
    screen.all(Event("ok", 0, milliseconds=20))
    screen.all(Event("start", 6, resource=INSTALL))
    screen.seconds = 40
    screen.all(
        Event("out", output="Unpacking nvidia-kernel-open-dkms (580.159.04-1) over a long line" * 3 + "\n")
    )
    screen.all(Event("ok", 6, milliseconds=38000), 0, half)
    screen.all(Doing("changed", 33), 0, max(half - 2, 0))
    screen.all(Event("start", 7, resource="reboot:driver"), half - 1, half)
    screen.all(Doing("rebooting"), half - 1, half)
    screen.all(Event("fail", 6, status="100", milliseconds=1000, output="E: no"), half, half + 1)
    screen.all(Doing("failed"), half, half + 1)
    screen.seconds = 64.4


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_live_view_is_golden(count: int, width: int, update_golden: bool) -> None:
    screen = Screen(count, width)
    install(screen)
    shown = screen.shown()
    assert max(map(len, shown.splitlines())) <= width
    assert len(shown.splitlines()) <= 16
    file = GOLDEN / f"{count}-hosts-{width}-columns.txt"
    if update_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(shown, "utf-8")
    assert file.read_text("utf-8") == shown


def lines(work: Callable[[Screen], None], count: int) -> list[str]:
    """What is written without a terminal."""
    screen = Screen(count, terminal=False)
    with screen.progress:
        work(screen)
    return screen.file.getvalue().splitlines()


def test_few_hosts_have_a_line_for_each_step_without_a_terminal() -> None:
    assert lines(install, 2) == [
        "gpu-01    1/33 changed: file:/etc/modprobe.d/provision-nouveau.conf",
        "gpu-02    1/33 changed: file:/etc/modprobe.d/provision-nouveau.conf",
        "gpu-01    7/33 changed: packages:driver (38.0 s)",
        "gpu-02    7/33 FAILED: packages:driver (1.0 s)",
        "gpu-02 failed",
    ]


def test_an_end_has_one_line_however_often_it_is_told() -> None:
    def work(screen: Screen) -> None:
        for _ in range(3):
            screen.all(Doing("answering"))
            screen.all(Doing("failed"))

    assert lines(work, 1) == ["gpu-01 failed"]


def test_fifty_hosts_and_ten_minutes_are_few_lines() -> None:
    def work(screen: Screen) -> None:
        screen.all(Doing("applying", 33))
        for second in range(600):
            screen.seconds = second
            screen.progress.refresh()
            if second % 20 == 0:
                screen.all(Event("start", second // 20, resource=f"step {second // 20}"))
                screen.all(Event("out", output=f"line {second}"))
                screen.all(Event("ok", second // 20, milliseconds=500))
        screen.all(Doing("changed", 33))

    found = lines(work, 50)
    assert len(found) == 50 + 19
    assert found[0].startswith("0 of 50 hosts done, 50 running; 30 s; slowest: gpu-01, applying")
    assert found[-1] == "gpu-50 changed: 33 changes"


@pytest.mark.parametrize(("says", "told"), [("", ""), ("3 of 7 layers", ": 3 of 7 layers")])
def test_a_step_that_takes_long_is_named_without_a_terminal(says: str, told: str) -> None:
    def work(screen: Screen) -> None:
        screen.all(Doing("applying", 33))
        screen.all(Event("start", 6, resource=INSTALL))
        screen.all(Event("out", output=says))
        screen.seconds = 31
        screen.progress.refresh()

    assert lines(work, 1) == [
        f"0 of 1 host done, 1 running; 31 s; slowest: gpu-01, 7/33 packages:driver, 31 s{told}"
    ]


@pytest.mark.parametrize(("count", "told"), [(FEW, FEW), (FEW + 1, 0)])
def test_steps_of_many_hosts_have_no_lines_of_their_own(count: int, told: int) -> None:
    def work(screen: Screen) -> None:
        screen.all(Doing("applying", 1))
        screen.all(Event("start", 0, resource="a"))
        screen.all(Event("ok", 0))
        screen.all(Doing("ok"))

    assert len(lines(work, count)) == told


def test_remarks_of_a_host_have_lines_of_their_own() -> None:
    def work(screen: Screen) -> None:
        screen.all(Event("say", output="waiting for another package operation"))
        screen.all("run r is under way here", 49)
        screen.all(Event("skip", 0), 0, 1)
        screen.all(Event("end", status="ok"))

    found = lines(work, 50)
    assert len(found) == 51
    assert found[0] == "gpu-01 waiting for another package operation"
    assert found[-1] == "gpu-50 run r is under way here"


def test_the_slowest_host_is_the_one_whose_step_began_first() -> None:
    def work(screen: Screen) -> None:
        for second, name in enumerate(reversed(screen.names)):
            screen.seconds = second
            screen.progress.on_event(name, Doing("planning"))
        screen.seconds = HEARTBEAT
        screen.progress.refresh()
        screen.progress.refresh()

    (line,) = lines(work, 3)
    assert line.endswith("; slowest: gpu-03, planning, 30 s")


def test_hosts_that_wait_are_counted_and_have_no_row() -> None:
    screen = Screen(3)
    screen.all(Doing("planning"))
    screen.all(Doing("planned"), 1)
    assert (
        screen.shown().splitlines()[0] == "0 of 3 hosts done, 1 running, 2 planned, waiting for gpu-01; 0 s"
    )
    assert len(screen.shown().splitlines()) == 2


def test_the_hosts_that_planned_ones_wait_for_are_named_where_they_are_few() -> None:
    screen = Screen(50)
    screen.all(Doing("planning"))
    assert "waiting for" not in screen.shown()
    screen.all(Doing("planned"), FEW + 1)
    assert "waiting for" not in screen.shown()
    screen.all(Doing("planned"), 2)
    screen.seconds = 12
    assert [line.rstrip() for line in screen.shown().splitlines()] == [
        "0 of 50 hosts done, 2 running, 48 planned, waiting for gpu-01 and gpu-02; 12 s",
        "gpu-01    12 s  planning",
        "gpu-02    12 s  planning",
    ]


def test_a_line_that_comes_late_is_not_that_of_the_next_step() -> None:
    screen = Screen(1)
    screen.all(Doing("applying", 2))
    screen.all(Event("start", 0, resource="a"))
    screen.all(Event("ok", 0))
    screen.all(Event("out", output="of the first"))
    screen.all(Event("start", 1, resource="b"))
    assert "of the first" not in screen.shown()


def test_after_a_reboot_the_numbers_are_those_of_the_new_plan() -> None:
    def work(screen: Screen) -> None:
        for steps in (8, 3):
            screen.all(Doing("applying", steps))
            screen.all(Event("start", steps - 1, resource="a"))
            screen.all(Event("ok", steps - 1))
        screen.all(Doing("planning"))
        screen.all(Event("start", 4, resource="of somebody else's run"))
        screen.all(Event("ok", 4))

    assert [line.split()[1] for line in lines(work, 1)] == ["8/8", "3/3", "5"]


def test_what_hosts_print_does_not_steer_the_terminal() -> None:
    screen = Screen(1)
    screen.all(Doing("applying", 1))
    screen.all(Event("start", 0, resource="a"))
    screen.all(Event("out", output="\x1b[2Jgone\u202e"))
    assert "\\x1b[2Jgone\\u202e" in screen.shown()
    screen.progress.on_event("gpu-01", "\x1b]0;title\x07")
    assert "\\x1b]0;title\\x07" in screen.file.getvalue()


def test_the_live_view_goes_and_the_lines_above_it_stay() -> None:
    screen = Screen(1)
    with screen.progress:
        screen.all(Doing("applying", 1))
        screen.all("a remark")
    written = screen.file.getvalue()
    assert "gpu-01 a remark" in written
    assert "\x1b[?25h" in written, "the cursor is hidden"


def test_the_live_view_makes_room_for_what_is_printed_beside_it() -> None:
    screen = Screen(1)
    with screen.progress:
        screen.all(Doing("planning"))
        screen.all("before")
        with screen.progress.aside():
            screen.file.write("THE PLAN\n")
        screen.all("after")
    before, _, after = screen.file.getvalue().partition("THE PLAN\n")
    up = "\x1b[1A\x1b[2K"
    assert before.endswith(f"\x1b[?25h\r{up}{up}"), "the view of two lines is still there"
    assert up not in after.partition("gpu-01 after")[0], "the next view goes over the plan"
    with Screen(1, terminal=False).progress as progress, progress.aside():
        pass


def test_the_live_view_and_lines_above_it_never_wait_for_each_other() -> None:
    """The view's own thread renders under its lock, while hosts' threads print."""
    screen = Screen(1)

    def say() -> None:
        for number in range(300):
            screen.all(f"line {number}")

    def show() -> None:
        threads = [threading.Thread(target=say, daemon=True) for _ in range(2)]
        with screen.progress:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                with screen.progress.aside():
                    time.sleep(0.001)

    showing = threading.Thread(target=show, daemon=True)
    showing.start()
    showing.join(30)
    assert not showing.is_alive()
    assert screen.file.getvalue().count("line 299") == 2
