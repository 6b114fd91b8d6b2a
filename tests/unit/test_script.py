"""The script of a plan, carried out by a real sh: what it changes, proves, refuses and tells."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.plan.backups import Backups
from provision.plan.plan import Plan
from provision.plan.script import (
    ACTIVE,
    GONE,
    NOT_FOLLOWED,
    NOT_STARTED,
    Event,
    follow,
    launch,
    parse_event,
    script_of,
)
from provision.probe import Output, quote, words
from provision.resource import Change, Handler
from provision.resources.file import Directory, File
from provision.run.stop import DESCRIBED, STOP
from provision.shell import assembled
from tests.unit.examples import script_of as script_text
from tests.unit.sandbox import RUN, SHELLS, Sandbox, kinds


@pytest.fixture(params=SHELLS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    """A sandbox for each shell that may be a host's /bin/sh."""
    return Sandbox.make(tmp_path, request.param)


def step(
    script: str, done: str = "false", owes: tuple[str, ...] = (), settles: tuple[str, ...] = ()
) -> Change:
    return Change("step", "run", "a step", script, done, owes=owes, settles=settles)


def test_files_are_written_with_content_mode_and_owner(box: Sandbox, tmp_path: Path) -> None:
    old, new = tmp_path / "old file", tmp_path / "deep/er/new"
    old.write_bytes(b"before")
    wanted = (
        File(str(old), b"after\n", mode="0600"),
        File(str(new), b"\0\xff", mode="0755"),
        Directory(str(tmp_path / "folder/below"), mode="0710"),
    )
    assert kinds(box.apply(box.plan(*wanted))) == ["ok 0", "ok 1", "ok 2", "end ok"]
    assert (old.read_bytes(), oct(old.stat().st_mode & 0o7777)) == (b"after\n", "0o600")
    assert (new.read_bytes(), oct(new.stat().st_mode & 0o7777)) == (b"\0\xff", "0o755")
    assert oct((tmp_path / "folder/below").stat().st_mode & 0o7777) == "0o710"
    for folder in (tmp_path / "deep", tmp_path / "folder"):
        assert oct(folder.stat().st_mode & 0o7777) == "0o755", "folders on the way are for everybody"
    assert box.plan(*wanted).changes == (), "a fresh plan is empty"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("state", ["stopping", "degraded"])
def test_a_step_that_fails_while_the_host_goes_down_says_so(shell: str, state: str) -> None:
    text = f"{assembled('shell/steps.sh')}systemctl() {{ echo {state}; false; }}\ntell_shutdown"
    ran = subprocess.run([shell, "-c", text], capture_output=True, text=True, check=True)
    told = "the host is being shut down or rebooted\n"
    assert ran.stdout == (told if state == "stopping" else "")


def test_what_is_replaced_is_kept(box: Sandbox, tmp_path: Path) -> None:
    replaced, new = tmp_path / "replaced", tmp_path / "new"
    replaced.write_bytes(b"one")
    replaced.chmod(0o640)
    box.apply(box.plan(File(str(replaced), b"x"), File(str(new), b"x")))
    assert box.backup_of(replaced).read_bytes() == b"one"
    assert oct(box.backup_of(replaced).stat().st_mode & 0o7777) == "0o640"
    assert not box.backup_of(new).exists()
    assert oct((tmp_path / "backups/provision").stat().st_mode & 0o7777) == "0o700"


def test_a_link_stays_and_what_it_points_to_is_replaced(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real/file", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to("real/file")
    (tmp_path / "real/.provision.K7d1Qz").write_bytes(b"of a run that was cut while it wrote this file")
    wanted = File(str(link), b"new", follows=True)
    assert kinds(box.apply(box.plan(wanted)))[-1] == "end ok"
    assert (str(link.readlink()), target.read_bytes()) == ("real/file", b"new")
    assert box.plan(wanted).changes == ()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"], "nothing is left over"


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=300) | st.text().map(str.encode), min_size=5, max_size=12))
def test_any_bytes_arrive(
    shell: str, contents: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    box = Sandbox.make(folder, shell)
    wanted = [File(str(folder / f"{n}.file"), content) for n, content in enumerate(contents)]
    wanted.append(File(str(folder / "lines"), b"END\nEND-" + RUN.encode() + b"\n$HOME `id` \\\n'\n" * 99))
    assert kinds(box.apply(box.plan(*wanted)))[-1] == "end ok"
    assert [Path(file.path).read_bytes() for file in wanted] == [file.content for file in wanted]


def test_a_file_that_changed_since_the_plan_is_not_touched(box: Sandbox, tmp_path: Path) -> None:
    changed, appeared = tmp_path / "changed", tmp_path / "appeared"
    changed.write_bytes(b"as planned")
    for resource, path in ((File(str(changed), b"new"), changed), (File(str(appeared), b"new"), appeared)):
        found = box.plan(resource, Directory(str(tmp_path / "after")))
        path.write_bytes(b"somebody else's")
        assert kinds(box.apply(found)) == ["fail 0 guard", "end failed"]
        assert path.read_bytes() == b"somebody else's"
        assert not (tmp_path / "after").exists()
        (box.spool / "events").unlink()


def test_what_is_done_already_is_skipped(box: Sandbox, tmp_path: Path) -> None:
    file = File(str(tmp_path / "file"), b"new")
    found = box.plan(file)
    (tmp_path / "file").write_bytes(b"new")
    (tmp_path / "file").chmod(0o644)
    assert kinds(box.apply(found)) == ["skip 0", "end ok"]
    assert not box.backup_of(tmp_path / "file").exists()


def test_a_step_that_fails_ends_the_run_and_tells_why(box: Sandbox, tmp_path: Path) -> None:
    script = f"touch {tmp_path}/ran; echo to stdout; seq 30; echo caf\u00e9 >&2; exit 7"
    events = box.apply(Plan("h", (step("true", "true"), step(script), step(f"touch {tmp_path}/after"))))
    assert kinds(events) == ["skip 0", "fail 1 7", "end failed"]
    failed = next(event for event in events if event.kind == "fail")
    lines = failed.output.splitlines()
    assert (len(lines), lines[-1]) == (20, "caf\u00e9")
    assert (tmp_path / "ran").exists()
    assert not (tmp_path / "after").exists()
    assert "to stdout" in (box.spool / "1.log").read_text()


def test_a_step_whose_outcome_is_not_there_has_failed(box: Sandbox) -> None:
    events = box.apply(Plan("h", (step("echo did it", "fail 'it is not so'; false"),)))
    assert kinds(events) == ["fail 0 unproven", "end failed"]
    assert events[1].output.splitlines() == ["did it", "it is not so"]


def test_a_step_cannot_harm_the_run(box: Sandbox, tmp_path: Path) -> None:
    """Each part of a step runs in a shell of its own: exit, cd, variables and standard input stay there."""
    mark = quote(str(tmp_path / "mark"))
    awkward = "cd /tmp; run=/nowhere; owed=/nowhere; began=x; cat; trap - EXIT; touch " + mark + "; exit 0"
    events = box.apply(Plan("h", (step(awkward, f"[ -e {mark} ]"), step("pwd", "[ -s $run/1.log ]"))))
    assert kinds(events) == ["ok 0", "ok 1", "end ok"]
    assert (box.spool / "1.log").read_text() == "/\n"


def test_how_long_a_step_took(box: Sandbox, tmp_path: Path) -> None:
    mark = quote(str(tmp_path / "mark"))
    events = box.apply(Plan("h", (step(f"sleep 0.2; touch {mark}", f"[ -e {mark} ]"),)))
    assert events[0] == Event("start", 0, resource="step")
    assert 200 <= events[1].milliseconds < 5000


def test_debts_are_noted_before_the_change_and_gone_after_the_handler(box: Sandbox, tmp_path: Path) -> None:
    mark = quote(str(tmp_path / "mark"))
    cause = step(f"touch {mark}", f"[ -e {mark} ]", owes=("one", "two"))
    pay = step("true", "not_owed one", settles=("one",))
    assert kinds(box.apply(Plan("h", (cause, pay)))) == ["ok 0", "ok 1", "end ok"]
    assert box.owed == {"two"}


def test_what_is_done_already_is_not_skipped_where_it_does_the_work_of_an_owed_handler(box: Sandbox) -> None:
    cut = step("exit 3", owes=("one",))
    covers = step("true", done="true", settles=("one",))
    assert kinds(box.apply(Plan("h", (cut,)))) == ["fail 0 3", "end failed"]
    assert kinds(box.apply(Plan("h", (covers,))))[-2:] == ["ok 0", "end ok"]
    assert box.owed == set()


@pytest.mark.parametrize("ending", ["exit 3", "kill -TERM $$; sleep 0.2", "kill -KILL $$; sleep 0.2"])
def test_a_run_that_ends_early_leaves_its_debts(box: Sandbox, ending: str, tmp_path: Path) -> None:
    handler = Handler("note it", on=(f"file:{tmp_path}/file",), script="true")
    file = File(f"{tmp_path}/file", b"x")
    found = box.plan(file, handler)
    assert [change.owes for change in found.changes] == [("note-it",), ()]
    cut = Plan("h", (found.changes[0], step(ending), *found.changes[1:]))
    box.run(cut)
    assert box.owed == {"note-it"}
    again = box.plan(file, handler)
    assert [(change.resource, change.reason) for change in again.changes] == [
        ("handler:note it", "an earlier run ended before it")
    ]
    (box.spool / "events").unlink()
    assert kinds(box.apply(again)) == ["ok 0", "end ok"]
    assert box.owed == set()
    assert box.plan(file, handler).changes == ()


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
def test_an_interrupted_run_says_so_and_unlocks_the_host(box: Sandbox, name: str) -> None:
    # Whoever runs the tests under nohup passes an ignored HUP on, which no shell can trap.
    before = signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_DFL)
    try:
        box.run(Plan("h", (step(f"kill -{name} $$; sleep 0.1"),)))
    finally:
        signal.signal(signal.Signals[f"SIG{name}"], before)
    assert box.events()[-1] == Event("end", status="interrupted")
    assert (box.folder / "run/provision/lock").read_text() == ""
    assert not (box.spool / "script").exists(), "it may hold secrets"


def test_a_finished_run_leaves_its_log_and_neither_lock_nor_script(box: Sandbox, tmp_path: Path) -> None:
    box.apply(box.plan(File(str(tmp_path / "a"), b"x", sensitive=True)))
    assert sorted(path.name for path in box.spool.iterdir()) == ["0.log", "events", "pid"]
    assert (tmp_path / "run/provision/lock").read_text() == ""
    for path in box.spool.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


BACKED_UP = {
    # how long ago, the end of the run's name and the file → whether it is still there with 2 and 30 days
    (500, "a", "etc/once, with blanks"): True,
    (1, "a", "etc/a"): True,
    (29, "a", "etc/a"): True,
    (1, "a", "etc/b"): True,
    (31, "a", "etc/b"): False,
    (1, "a-1", "etc/c"): True,  # after a reboot of the same run
    (1, "a", "etc/c"): True,
    (2, "a", "etc/c"): False,
    (3, "a", "etc/c"): False,
    (40, "a", "etc/d"): True,
    (41, "a", "etc/d"): False,
}


def test_a_run_removes_old_backups_and_never_the_newest_of_a_file(box: Sandbox) -> None:
    folder, now = box.folder / "backups/provision", datetime.now(UTC)
    files = {
        folder / f"{now - timedelta(days=days):%Y%m%dT%H%M%SZ}-{end}" / path: stays
        for (days, end, path), stays in BACKED_UP.items()
    } | {folder / "mine/etc/c": True}
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    box.apply(Plan("h", ()), Backups(newest=2, days=30))
    assert {file: file.exists() for file in files} == files
    assert [path for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())] == []


# --- the text that starts and follows a run ---------------------------------------------------------


def launched(box: Sandbox, plan: Plan, run: str = RUN) -> list[str]:
    output = box.sh(launch(plan, run))
    assert (output.exit_code, output.err) == (0, ""), output
    return output.out.splitlines()


def test_times_of_a_host_whose_clock_is_set_or_fails_are_told_as_none(box: Sandbox) -> None:
    fails = step("mount --bind /bin/false /bin/date", done="! date")
    events = box.apply(Plan("h", (fails, step("touch /run/mark", done="[ -e /run/mark ]"))))
    assert [(event.kind, event.milliseconds) for event in events if event.kind == "ok"] == [("ok", 0)] * 2


def test_nothing_is_changed_where_no_space_is_left_for_what_is_owed(box: Sandbox) -> None:
    owed = "/var/lib/provision/owed"
    full = step(f"mount -t tmpfs -o nr_inodes=1 none {owed}", done=f"mountpoint {owed}")
    box.run(Plan("h", (full, step("touch /run/mark", owes=("later",)))))
    *_, failed, end = box.events()
    assert (failed.kind, failed.index, end.status) == ("fail", 1, "failed")
    assert "No space left on device" in failed.output
    assert not (box.folder / "run/mark").exists()


def test_a_run_is_started_detached_and_followed_to_its_end(box: Sandbox, tmp_path: Path) -> None:
    plan = box.plan(File(str(tmp_path / "a"), b"$x `y` \\ 'z'\nEND\n"), Directory(str(tmp_path / "b")))
    events = [parse_event(line) for line in launched(box, plan)]
    assert [event.kind for event in events] == ["start", "ok", "start", "ok", "end"]
    assert (tmp_path / "a").read_bytes() == b"$x `y` \\ 'z'\nEND\n"
    assert (tmp_path / "run/provision").stat().st_mode & 0o077 == 0


def test_a_run_can_be_followed_from_any_offset(box: Sandbox, tmp_path: Path) -> None:
    launched(box, box.plan(Directory(str(tmp_path / "b"))))
    whole = (box.spool / "events").read_text()
    for offset in (0, 5, whole.index("\n") + 1, len(whole)):
        assert box.sh(follow(RUN, offset)).out == whole[offset:]


def test_a_second_run_is_told_which_one_is_under_way(box: Sandbox, tmp_path: Path) -> None:
    slow = Plan(
        "h", (step("until [ -e /run/go ]; do sleep 0.05; done; touch /run/slow", "[ -e /run/slow ]"),)
    )
    script = f"""({launch(slow, "first")}) >/run/first 2>&1 &
until [ -s /run/provision/first/pid ]; do sleep 0.05; done
( {launch(Plan("h", (step("touch /run/second"),)), "second")}
)
({script_text(ACTIVE)})
: >/run/go
wait"""
    output = box.sh(script)
    assert output.out.splitlines() == ["busy first", "first"], output.err
    assert not (tmp_path / "run/second").exists()
    assert (tmp_path / "run/first").read_text().splitlines()[-1] == "end ok"
    assert box.sh(script_text(ACTIVE)).out == ""


def test_whoever_follows_a_run_can_be_stopped_and_the_run_goes_on(box: Sandbox, tmp_path: Path) -> None:
    """Nothing stops the start of a run; afterwards a lost connection must not leave its followers behind."""
    waits = "n=0; until [ -e /run/go ] || [ $n -ge 40 ]; do sleep 0.05; n=$((n + 1)); done; : >/run/done"
    plan = Plan("h", (step(waits, "[ -e /run/done ]"),))
    # Whoever runs the tests may ignore HUP, which no shell can undo; Python restores PIPE for its children.
    script = f"""({launch(plan, RUN)}) >/run/followed 2>&1 &
follower=$!
until grep -q start /run/followed; do sleep 0.05; done
kill -PIPE $follower
wait $follower
echo $?
: >/run/go
n=0
until grep -q end /run/provision/{RUN}/events || [ $n -ge 100 ]; do sleep 0.05; n=$((n + 1)); done"""
    assert box.sh(script).out == f"{128 + signal.SIGPIPE}\n"
    assert kinds(box.events()) == ["ok 0", "end ok"]


LOCKS = {
    "of a run that died": "echo dead >lock; mkdir dead; echo $$ >dead/pid",
    "dated in the future": "echo dead >lock; touch -d '+1 day' lock",
    "without a run": ": >lock",
    "with no id": "printf '\\0\\377; reboot\\n\\n' >lock",
    "a folder": "mkdir -p lock/run",
    "a folder of a run": "mkdir lock; echo dead >lock/run; mkdir dead; echo $$ >dead/pid",
    "a pipe": "mkfifo lock",
    "a link to nowhere": "ln -s /nowhere/at/all lock",
}


@pytest.mark.parametrize("left", LOCKS.values(), ids=LOCKS)
def test_a_lock_that_no_process_holds_is_taken_over_at_once(box: Sandbox, left: str) -> None:
    began = time.monotonic()
    output = box.sh(f"mkdir -p /run/provision; cd /run/provision\n{left}\n{launch(Plan('h'), RUN)}")
    assert (output.out.splitlines(), output.err) == (["end ok"], "")
    assert time.monotonic() - began < 10
    assert box.sh(script_text(ACTIVE)) == Output(0)


@pytest.mark.parametrize("left", LOCKS.values(), ids=LOCKS)
def test_a_lock_that_no_process_holds_is_of_no_run(box: Sandbox, left: str) -> None:
    began = time.monotonic()
    assert box.sh(f"mkdir -p /run/provision; cd /run/provision\n{left}\n{script_text(ACTIVE)}").exit_code == 0
    assert time.monotonic() - began < 10


SLOW = Plan("h", (step("until [ -e /run/go ]; do sleep 0.05; done; touch /run/slow", "[ -e /run/slow ]"),))


def test_events_are_told_while_the_run_works(box: Sandbox) -> None:
    script = f"""({launch(SLOW, RUN)}) >/run/followed 2>&1 &
n=0; until grep -q start /run/followed || [ $n -ge 200 ]; do sleep 0.05; n=$((n + 1)); done
cat /run/followed
: >/run/go
wait"""
    assert box.sh(script).out == "start 0 c3RlcA==\n"
    assert kinds(box.events()) == ["ok 0", "end ok"]


def test_what_follows_a_run_may_be_killed_and_the_run_is_followed_again(box: Sandbox) -> None:
    script = f"""({launch(SLOW, RUN)}) >/run/followed 2>&1 &
until grep -q start /run/followed; do sleep 0.05; done
pkill -KILL -P $! -x tail
wait $!
echo $?
: >/run/go
({follow(RUN, 0)})"""
    code, *events = box.sh(script).out.splitlines()
    assert int(code) == NOT_FOLLOWED
    assert kinds([parse_event(line) for line in events if not line.startswith("out ")]) == ["ok 0", "end ok"]


def test_a_run_that_was_killed_holds_nothing_though_another_process_has_its_pid(box: Sandbox) -> None:
    script = f"""({launch(SLOW, "first")}) >/run/first 2>/run/said &
follower=$!
until [ -s /run/provision/first/events ]; do sleep 0.05; done
kill -KILL "$(cat /run/provision/first/pid)"
wait $follower
echo $$ >/run/provision/first/pid
({script_text(ACTIVE)})
({follow("first", 0)})
: >/run/go
({launch(Plan("h"), "second")})"""
    began = time.monotonic()
    output = box.sh(script)
    told = [parse_event(line) for line in output.out.splitlines()]
    assert [event.kind for event in told] == ["start", "end"], (
        "followed to what it told, and the second one ran"
    )
    assert output.err == "its script was killed\n"
    assert (box.folder / "run/said").read_text() == "its script was killed\n"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("other_works_on", [False, True])
def test_a_run_whose_script_begins_late_gives_way_to_one_that_was_started_since(
    box: Sandbox, other_works_on: bool
) -> None:
    waits = "sh -c 'until [ -s /run/provision/other/pid ]; do sleep 0.05; done; exec \"$@\"' sh"
    late = launch(Plan("h", (step("touch /run/late"),)), "late").replace("(setsid", f"({waits} setsid")
    assert waits in late
    script = f"""({late}) >/run/told 2>&1 &
late=$!
until [ -e /run/provision/late/script ] && flock -n /run/provision/lock true; do sleep 0.02; done
({launch(SLOW, "other")}) >/run/other 2>&1 &
other=$!
until [ -s /run/provision/other/pid ]; do sleep 0.02; done
{"sleep 2; echo lock=$(cat /run/provision/lock)" if other_works_on else "echo lock=other"}
: >/run/go
wait $late $other"""
    output = box.sh(script)
    assert output == Output(0, b"lock=other\n")
    told = (box.folder / "run/told").read_text()
    assert told == "end overtaken b3RoZXIK\n" or (told == "end overtaken \n" and not other_works_on)
    assert (box.folder / "run/other").read_text().splitlines()[-1] == "end ok"
    assert not (box.folder / "run/late").exists()
    assert not (box.folder / "run/provision/late/script").exists(), "it may hold secrets"
    assert (box.folder / "run/provision/lock").read_text() == ""


def test_a_run_gives_whoever_has_just_the_lock_a_moment_to_name_itself(box: Sandbox) -> None:
    script = f"""mkdir -p /run/provision; cd /run/provision
(exec 9>>lock; flock 9; sleep 2; echo other >lock; sleep 2) &
until ! flock -n lock true; do sleep 0.02; done
({launch(Plan("h"), RUN)})
wait"""
    assert box.sh(script).out == "busy other\n"


STOPPED = """n=0; until [ -s /run/provision/{0}/events ] || [ $n -ge 200 ]; do sleep 0.05; n=$((n + 1)); done
"""


def stopping(run: str, *more: str) -> str:
    """The text that asks a run to end before its next step."""
    return f"({assembled(STOP)}{words('stop_before_step', run, *more)})"


def test_a_run_that_is_to_stop_ends_its_step_and_begins_no_other(box: Sandbox) -> None:
    plan = Plan("h", (*SLOW.changes, step("touch /run/later", "[ -e /run/later ]", owes=("note",))))
    script = f"""({launch(plan, RUN)}) >/run/followed 2>&1 &
{STOPPED.format(RUN)}
{stopping(RUN, "ann@desk; id")}
({script_text(DESCRIBED)}) >/run/described
: >/run/go
wait
{stopping(RUN, "bob")}
echo $?
({script_text(DESCRIBED)})"""
    assert box.sh(script).out == f"{GONE}\n"
    assert re.fullmatch(
        rf"{RUN} \d{{4}}-\d\d-\d\dT[\d:]+Z 0 c3RlcA==\n", (box.folder / "run/described").read_text()
    )
    assert kinds(box.events()) == ["ok 0", "end stopped"]
    assert box.events()[-1].output == "ann@desk; id"
    assert (box.folder / "run/followed").read_text().splitlines()[-1].startswith("end stopped ")
    assert not (box.folder / "run/later").exists()
    assert box.owed == set()
    assert (box.folder / "run/provision/lock").read_text() == ""
    assert launched(box, Plan("h"), "second") == ["end ok"]


def test_a_run_that_is_asked_to_stop_in_its_last_step_ends_as_it_would(box: Sandbox) -> None:
    script = f"""({launch(SLOW, RUN)}) >/run/followed 2>&1 &
{STOPPED.format(RUN)}
{stopping(RUN, "ann")}
: >/run/go
wait"""
    box.sh(script)
    assert kinds(box.events()) == ["ok 0", "end ok"]


def test_a_run_that_was_to_stop_and_is_killed_was_stopped(box: Sandbox) -> None:
    script = f"""({launch(SLOW, RUN)}) >/run/followed 2>/dev/null &
{STOPPED.format(RUN)}
{stopping(RUN, "ann")}
kill -KILL "$(cat /run/provision/{RUN}/pid)"
wait
({script_text(DESCRIBED)})
({follow(RUN, 0)}) 2>/dev/null
: >/run/go"""
    told = box.sh(script).out
    assert [parse_event(line).kind for line in told.splitlines()] == ["start", "end"]
    assert (box.folder / "run/followed").read_text() == told
    assert parse_event(told.splitlines()[-1]) == Event("end", status="stopped", output="ann")


def test_a_package_operation_is_under_way_until_it_ends(box: Sandbox) -> None:
    """What ends a run at once waits for this lock, which no process has that a package leaves behind."""
    works = "uncut sh -c 'sleep 30 & until [ -e /run/go ]; do sleep 0.05; done'; touch /run/slow"
    change = replace(step(works, "[ -e /run/slow ]"), shell=("shell/packages.sh",))
    script = f"""({launch(Plan("h", (change,)), RUN)}) >/run/followed 2>&1 &
{STOPPED.format(RUN)}
cd /run/provision/{RUN}
n=0; while flock -n pid true && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
flock -n pid true; echo $?
: >/run/go
flock pid echo free
wait"""
    assert box.sh(script).out == "1\nfree\n"


def test_a_daemon_that_a_step_starts_does_not_hold_the_lock(box: Sandbox) -> None:
    daemon = step("setsid sleep 30 >/dev/null 2>&1 & touch /run/started", "[ -e /run/started ]")
    began = time.monotonic()
    assert launched(box, Plan("h", (daemon,)))[-1] == "end ok"
    assert launched(box, Plan("h"), "second") == ["end ok"]
    assert time.monotonic() - began < 20


def test_a_run_is_ended_after_its_time(box: Sandbox) -> None:
    script = launch(Plan("h", (step("sleep 60"),)), RUN)
    short = script.replace("longest_run=14400", "longest_run=1")
    assert short != script
    lines = box.sh(short).out.splitlines()
    assert [line for line in lines if not line.startswith("out ")][1:] == ["end interrupted"]
    assert launched(box, Plan("h"), "second") == ["end ok"]


@pytest.mark.parametrize("kilobytes", [4, 256, 280, 1000, 1280, 1300, 1340, 1600])
def test_a_run_in_little_space_is_not_started_or_tells_every_event(box: Sandbox, kilobytes: int) -> None:
    """Whatever the space: no script that is cut short, no event that is lost, no lock that stays."""
    steps = [step(f"touch /run/mark{n}; : {'x' * 2000}", f"[ -e /run/mark{n} ]") for n in range(20)]
    script = launch(Plan("h", tuple(steps)), RUN)
    small = "mkdir -p /run/provision; mount -t tmpfs -o size={}k none /run/provision\n"
    check = "\ncode=$?; [ -s /run/provision/lock ] && echo held; exit $code"
    output = box.sh(f"{small.format(kilobytes)}({script})\n{check}")
    marks = len(list((box.folder / "run").glob("mark*")))
    if output.exit_code == NOT_STARTED:
        assert (output.out, marks) == ("", 0)
        assert "No space left on device" in output.err or "Permission" in output.err
    else:
        events = [parse_event(line) for line in output.out.splitlines()]
        assert kinds(events)[-1] == "end ok"
        assert (marks, len(events)) == (20, 41)
    if not 1280 < kilobytes < 1600:
        assert (output.exit_code == NOT_STARTED) == (kilobytes <= 1280)


def test_a_machine_with_two_names_does_a_run_once_and_keeps_what_it_told(box: Sandbox) -> None:
    script = launch(Plan("h", (step("touch /run/mark", "[ -e /run/mark ]"),)), RUN)
    assert box.sh(script).out.splitlines()[-1] == "end ok"
    told = box.events()
    output = box.sh(script)
    assert (output.exit_code, output.out) == (NOT_STARTED, "")
    assert "for another name" in output.err
    assert box.events() == told
    assert launched(box, Plan("h"), "second") == ["end ok"], "the lock is free again"


def test_old_spools_are_removed(box: Sandbox, tmp_path: Path) -> None:
    spools = tmp_path / "run/provision"
    for number in range(14):
        (spools / f"2025-{number:02}").mkdir(parents=True)
        os.utime(spools / f"2025-{number:02}", (number, number))
    launched(box, Plan("h", ()))
    kept = sorted(path.name for path in spools.iterdir())
    assert kept == [*(f"2025-{n:02}" for n in range(5, 14)), RUN, "lock"]


# --- the text itself ------------------------------------------------------------------------------

EVERYTHING = Plan(
    "h",
    (
        step("true", owes=("a", "b"), settles=("c",)),
        Change("file:/a'b \"c", "create", "s", "cat <<'END'\nx\nEND\n", "true", guard="true"),
        step("", "true"),
    ),
)
TEXTS = {
    "script": script_of(EVERYTHING, RUN),
    "launch": launch(EVERYTHING, RUN),
    "follow": follow(RUN, 12),
    "active": script_text(ACTIVE),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_shells_can_read_it(shell: str, text: str) -> None:
    ran = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_shellcheck_finds_nothing(text: str) -> None:
    # 2154, 2317: steps are called by number, and use variables of the head; 2016: what they print;
    # 2010: the names that ls prints are those of runs; 3013: every sh that we meet knows -nt.
    argv = ["shellcheck", "--shell=sh", "--exclude=SC2154,SC2317,SC2016,SC2010,SC3013", "-"]
    ran = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert ran.stdout == ""


# --- events ---------------------------------------------------------------------------------------


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (f"start 3 {encoded('file:/a b')}", Event("start", 3, resource="file:/a b")),
        ("skip 3", Event("skip", 3)),
        ("ok 3 1250", Event("ok", 3, milliseconds=1250)),
        (
            f"fail 3 100 12 {encoded('E: no')}",
            Event("fail", 3, status="100", milliseconds=12, output="E: no"),
        ),
        ("fail 3 guard 0 ", Event("fail", 3, status="guard")),
        ("fail 3 unproven 4", Event("fail", 3, status="unproven", milliseconds=4)),
        ("end interrupted", Event("end", status="interrupted")),
    ],
)
def test_events(line: str, event: Event) -> None:
    assert parse_event(line) == event


@pytest.mark.parametrize(
    "line", ["", "ok", "ok x 1", "start 1", "hi 1", "end", "start 1 x y", "fail 1 2 3 *"]
)
def test_what_is_no_event(line: str) -> None:
    with pytest.raises(ValueError):  # every reason has its own words
        parse_event(line)
