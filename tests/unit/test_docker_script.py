"""The words that start, restart and reload dockerd, run for real among programs that play their part."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from provision.plan.plan import STEPS
from provision.probe import Output, quote
from provision.resource import Planned
from provision.resources.file import FileState
from provision.resources.gpus_in_containers import GPUS
from provision.roles.docker.daemon_json import DaemonJson, DaemonJsonState
from provision.roles.docker.restart import DAEMON
from provision.shell import assembled
from tests.unit.sandbox import SHELLS, Sandbox

OLD, NEW = '{"debug": true}\n', '{"debug": "of course"}\n'

PROGRAMS = r"""
# dockerd runs with a file that has no "of course" in it; $broken keeps it down whatever it reads.
systemctl() {
  echo "systemctl $*" >>/run/calls
  case "$1 $*" in
    "is-active "*triton*) echo "${triton-active}"; return 0 ;;
    "is-active "*) [ -e /run/up ] ;;
    "show "*ConsistsOf*) echo "docker.socket ${part-triton@a.service}" ;;
    "restart "* | "start "*docker.service)
      rm -f /run/up
      if [ -n "$broken" ] || grep -q "of course" "$daemon_json" 2>/dev/null; then return 1; fi
      : >/run/up ;;
    "reload "*) if grep -q "of course" "$daemon_json"; then echo 'level=error msg="conflict label"' >/run/said
      else echo 'level=info msg="Reloaded configuration: {}"' >/run/said; fi ;;
  esac
}
journalctl() {
  case "$*" in
    *show-cursor*) echo "-- cursor: s=1"; rm -f /run/said ;;
    *after-cursor*) cat /run/said ;;
    *) echo "failed to start daemon: it reads $daemon_json" ;;
  esac
}
docker() {
  [ -e /run/up ] || return 1
  case "$*" in
    *DefaultRuntime*) echo "nvidia nvidia runc insecure=reg:5000 mirror=https://m.example/ debug=false" ;;
    *LiveRestoreEnabled*) cat /run/live 2>/dev/null || echo false ;;
    *Server.Version*) echo 20.10.24 ;;
    "ps "*) cat /run/names 2>/dev/null ;;
    "exec blind"*) return 255 ;;
    "exec stopped"*) echo "Error response from daemon: Container stopped is not running" >&2; return 1 ;;
    "exec plain nvidia-smi"*) return 127 ;;
    "exec plain sh"*) echo "sh: can't open /dev/nvidiactl: Operation not permitted"; return 2 ;;
    "exec tiny"*) return 127 ;;
    "inspect --format "*State.Running*) cat /run/returned ;;
    "inspect --format "*RestartPolicy*) echo "c1 always"; echo "c2 no"; echo "c3 unless-stopped" ;;
    "start "*) echo "docker $*" >>/run/calls; return "${starts-0}" ;;
    "inspect "*) for name; do :; done; echo "/$name (image:1)" ;;
  esac
}
dockerd() { case $1 in --version) echo "Docker version ${installed:-20.10.24}, build 297e128" ;; esac; }
timeout() { shift 3; "$@"; }
sleep() { :; }
"""


@pytest.fixture(params=SHELLS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return Sandbox.make(tmp_path, request.param)


def play(box: Sandbox, script: str) -> Output:
    """Run ``script`` with all words, the programs above, and daemon.json in the sandbox."""
    head = assembled(STEPS, DAEMON, GPUS)
    begin = "run=/run/provision/r1; mkdir -p $run /var/lib/provision/owed /var/lib/provision/docker\n"
    return box.sh(f"{begin}{head}\ndaemon_json={quote(str(daemon_json(box)))}\n{PROGRAMS}\n{script}\n")


def daemon_json(box: Sandbox) -> Path:
    return box.folder / "etc" / "daemon.json"


def change(box: Sandbox, before: str | None, after: str = NEW) -> None:
    """A step that wrote ``after`` where ``before`` was, as far as dockerd is not told yet."""
    daemon_json(box).parent.mkdir()
    (box.folder / "lib/provision/docker").mkdir(parents=True)
    (box.folder / "lib/provision/owed").mkdir()
    memory = box.folder / "lib/provision/docker/daemon.json.ours"
    if before is not None:
        daemon_json(box).write_text(before)
        memory.write_text("old memory")
    answer = play(box, "keep_working_daemon_json")
    assert answer.ok, answer
    daemon_json(box).write_text(after)
    memory.write_text("new memory")
    for note in ("restart-docker.service", "reload-docker.service", "wait-for-triton@a.service"):
        (box.folder / "lib/provision/owed" / note).touch()
    (box.folder / "run" / "up").touch()


def calls(box: Sandbox) -> list[str]:
    return (box.folder / "run" / "calls").read_text().splitlines()


def pending(box: Sandbox) -> bool:
    return (box.folder / "lib/provision/docker/before").exists()


def memory(box: Sandbox) -> str | None:
    path = box.folder / "lib/provision/docker/daemon.json.ours"
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize("verb", ["restart_docker", "start_docker"])
@pytest.mark.parametrize("before", [OLD, None])
def test_a_file_that_dockerd_does_not_start_with_goes_back(
    box: Sandbox, verb: str, before: str | None
) -> None:
    change(box, before)
    answer = play(box, f"allowed=yes outlive=no\n{verb} nvidia nvidia")
    assert answer.exit_code == 1
    assert (daemon_json(box).read_text() if daemon_json(box).exists() else None) == before
    assert memory(box) == (None if before is None else "old memory")
    assert (box.folder / "run" / "up").exists()
    assert not pending(box)
    assert box.owed == {"wait-for-triton@a.service"}
    text = answer.out + answer.err
    assert "failed to start daemon" in text
    back = "the previous one is back, and docker runs with it"
    assert text.strip().endswith(back if before else "it is taken away again, and docker runs without one")
    refused = box.folder / f"backups/provision/r1{daemon_json(box)}.refused"
    assert refused.read_text() == NEW
    assert refused.stat().st_mode & 0o777 == 0o600, "it may hold a proxy's password"
    assert "systemctl start --no-block -- triton@a.service" in calls(box)


@pytest.mark.parametrize(
    ("state", "again"), [("activating", True), ("deactivating", True), ("inactive", False), ("failed", False)]
)
def test_an_instance_that_is_still_loading_is_started_again_too(
    box: Sandbox, state: str, again: bool
) -> None:
    change(box, OLD)
    assert not play(box, f"triton={state}\nallowed=yes outlive=no\nrestart_docker nvidia nvidia").ok
    assert ("systemctl start --no-block -- triton@a.service" in calls(box)) is again


@pytest.mark.parametrize(
    ("returned", "starts", "called", "said"),
    [
        ("true /web", 0, False, ""),
        ("false /web", 0, True, ""),
        ("false /web", 1, True, "container c1 did not come back: docker logs c1"),
        ("Error: No such object: c1", 0, False, "container c1 is not known to Docker any more"),
    ],
)
def test_containers_that_docker_starts_again_are_there_afterwards_or_named(
    box: Sandbox, returned: str, starts: int, called: bool, said: str
) -> None:
    (box.folder / "run/up").touch()
    (box.folder / "run/returned").write_text(f"{returned}\n")
    answer = play(
        box,
        f'xargs() {{ shift; cat >/dev/null; "$@"; }}\nstarts={starts}\nbring_up_docker restart nvidia nvidia',
    )
    assert answer.ok, answer
    assert ("docker start c1" in calls(box)) is called
    assert ("docker start c3" in calls(box)) is called
    assert "docker start c2" not in calls(box)
    assert said in answer.out


def test_a_start_that_is_wanted_does_not_count_against_the_limit(box: Sandbox) -> None:
    """Three restarts within a minute and dockerd stays down; its daemon.json is not the cause."""
    assert play(box, "bring_up_docker restart nvidia nvidia").ok
    said = calls(box)
    assert said.index("systemctl reset-failed -- docker.service") < said.index(
        "systemctl restart -- docker.service"
    )
    assert "systemctl reset-failed docker.socket" in said


def test_dockerd_that_does_not_come_up_with_either(box: Sandbox) -> None:
    change(box, OLD)
    answer = play(box, "broken=yes allowed=yes outlive=no\nrestart_docker nvidia nvidia")
    assert answer.exit_code == 1
    assert "nor as before: the previous one is back" in answer.err
    assert daemon_json(box).read_text() == OLD
    assert "restart-docker.service" in box.owed


def test_a_failure_without_a_new_file_puts_nothing_back(box: Sandbox) -> None:
    change(box, OLD, OLD)
    play(box, "rm -rf /var/lib/provision/docker/before")
    answer = play(box, "broken=yes allowed=yes outlive=no\nrestart_docker nvidia nvidia")
    assert answer.exit_code == 1
    assert "its daemon.json is the one that it ran with before" in answer.err
    assert memory(box) == "new memory"


@pytest.mark.parametrize("word", ["restart_docker", "start_docker", "reload_docker"])
def test_a_file_that_dockerd_runs_with_is_proven(box: Sandbox, word: str) -> None:
    change(box, OLD, '{"debug": false}\n')
    assert pending(box)
    answer = play(box, f"allowed=yes outlive=no\n{word} nvidia nvidia")
    assert answer.ok, answer
    assert not pending(box)
    assert memory(box) == "new memory"
    assert play(box, "daemon_json_is_proven").ok


def test_a_reload_that_dockerd_refuses_goes_back(box: Sandbox) -> None:
    change(box, OLD)
    answer = play(box, "reload_docker nvidia nvidia")
    assert answer.exit_code == 1
    assert "conflict label" in answer.out
    assert daemon_json(box).read_text() == OLD
    assert box.owed == {"restart-docker.service", "wait-for-triton@a.service"}
    assert not any(call.startswith(("systemctl restart", "systemctl start")) for call in calls(box))


def test_what_is_kept_is_what_worked(box: Sandbox) -> None:
    """A second file that is written before the first is proven does not take its place."""
    change(box, OLD)
    assert play(box, "keep_working_daemon_json").ok
    daemon_json(box).write_text('{"other": "of course"}\n')
    assert not play(box, "allowed=yes outlive=no\nrestart_docker nvidia nvidia").ok
    assert daemon_json(box).read_text() == OLD


def test_a_start_by_hand_proves_the_file(box: Sandbox) -> None:
    """What is kept from before is not put back months later, when dockerd fails for another reason."""
    change(box, OLD, '{"debug": false}\n')
    pid = box.folder / "run" / "docker.pid"
    pid.write_text("17")
    os.utime(pid, (time.time() + 60, time.time() + 60))
    assert not play(box, "broken=yes allowed=yes outlive=no\nrestart_docker nvidia nvidia").ok
    assert daemon_json(box).read_text() == '{"debug": false}\n'
    assert memory(box) == "new memory"


def test_an_older_dockerd_proves_nothing(box: Sandbox) -> None:
    change(box, OLD)
    pid = box.folder / "run" / "docker.pid"
    pid.write_text("17")
    os.utime(pid, (1, 1))
    assert not play(box, "allowed=yes outlive=no\nrestart_docker nvidia nvidia").ok
    assert daemon_json(box).read_text() == OLD


def test_containers_outlive_dockerd_by_a_reload_before_the_restart(box: Sandbox) -> None:
    change(box, OLD, "{}\n")
    (box.folder / "run" / "live").write_text("true\n")
    assert play(box, "allowed=yes outlive=yes\nrestart_docker nvidia nvidia").ok
    assert not any("reload" in call for call in calls(box)), "it is in force already"
    (box.folder / "run" / "live").unlink()
    (box.folder / "run" / "calls").unlink()
    script = (
        "docker() { case $* in *DefaultRuntime*) echo nvidia nvidia ;;"
        " *) [ ! -e /run/said ] || echo true ;; esac; }"
    )
    assert play(box, f"{script}\nallowed=yes outlive=yes\nrestart_docker nvidia nvidia").ok
    verbs = [call.split()[1] for call in calls(box)]
    assert verbs.index("reload") < verbs.index("restart")


def test_without_live_restore_there_is_no_restart(box: Sandbox) -> None:
    """It was to be enabled so that containers go on: if dockerd does not do it, they are not stopped."""
    change(box, OLD)
    answer = play(box, "allowed=yes outlive=yes\nrestart_docker nvidia nvidia")
    assert answer.exit_code == 1
    assert not any(call.startswith("systemctl restart") for call in calls(box))
    assert daemon_json(box).read_text() == OLD


@pytest.mark.parametrize(
    ("installed", "restarts"), [("20.10.24", False), ("26.1.5+dfsg1", True), ("20.10.2", True)]
)
def test_a_new_engine_is_run_once(box: Sandbox, installed: str, restarts: bool) -> None:
    change(box, OLD, OLD)
    answer = play(box, f"installed={installed} allowed=yes outlive=no\nadopt_docker nvidia nvidia")
    assert answer.ok, answer
    assert (box.folder / "run" / "calls").exists() == restarts


def test_a_link_stays_a_link(box: Sandbox) -> None:
    daemon_json(box).parent.mkdir()
    real = box.folder / "etc" / "real.json"
    real.write_text(OLD)
    daemon_json(box).symlink_to("real.json")
    assert play(box, "keep_working_daemon_json").ok
    real.write_text(NEW)
    (box.folder / "run" / "up").touch()
    assert not play(box, "allowed=yes outlive=no\nrestart_docker nvidia nvidia").ok
    assert daemon_json(box).is_symlink()
    assert real.read_text() == OLD


def containers(box: Sandbox, *names: str) -> None:
    """Running containers with NVIDIA's devices."""
    (box.folder / "gpu/root/dev").mkdir(parents=True)
    (box.folder / "gpu/root/dev/nvidiactl").touch()
    for name in names:
        task = box.folder / "run/containerd/io.containerd.runtime.v2.task/moby" / name
        task.mkdir(parents=True)
        # In place of a process id, the way to a folder that looks like one. containerd writes no newline.
        (task / "init.pid").write_text("1" if name == "cpu" else f"..{box.folder}/gpu")
    (box.folder / "run" / "up").touch()


@pytest.mark.parametrize(
    ("names", "exempt", "lost"),
    [
        (("good", "tiny"), "", ""),
        (("good", "blind"), "", "blind (image:1)"),
        (("blind", "plain"), "", "blind (image:1) plain (image:1)"),
        (("good", "blind"), "blind", ""),
        (("good", "stopped"), "", ""),
        (("cpu",), "", ""),
        ((), "", ""),
    ],
)
def test_containers_that_lost_their_gpus_are_named(
    box: Sandbox, names: tuple[str, ...], exempt: str, lost: str
) -> None:
    containers(box, *names)
    answer = play(box, f"gpus_are_still_seen {exempt}")
    assert answer.ok == (not lost), answer
    if lost:
        assert f"containers that no longer see their GPUs: {lost}; re-create them" in answer.err


def test_a_whole_step_writes_both_files(box: Sandbox) -> None:
    """The script of a change as it is, but for the place of the files."""
    content = b'{"log-driver": "local"}'
    state = DaemonJsonState(FileState("file", "0644", "root", "root", content))
    planned = DaemonJson({"debug": True}).change(state, Planned())
    assert planned is not None
    daemon_json(box).parent.mkdir()
    daemon_json(box).write_bytes(content)
    here = str(daemon_json(box))
    guard, script, done = (
        text.replace("/etc/docker/daemon.json", here)
        for text in (planned.guard, planned.script, planned.done)
    )
    answer = play(box, f"{guard} || exit 3\n{script}\ncode=$?\n[ $code -eq 0 ] || exit $code\n{done}")
    assert answer.ok, answer
    assert b'"debug": true' in daemon_json(box).read_bytes()
    assert (box.folder / "lib/provision/docker/daemon.json.ours").stat().st_mode & 0o777 == 0o600
    assert pending(box)
    again = play(box, f"{guard} || exit 3")
    assert again.exit_code == 3


def test_what_dockerd_does_not_validate_is_not_put_in_place(box: Sandbox) -> None:
    planned = DaemonJson({"debug": True}).change(DaemonJsonState(), Planned())
    assert planned is not None
    script = planned.script.replace("/etc/docker/daemon.json", str(daemon_json(box)))
    refuse = (
        'dockerd() { case $1 in --help) echo "  --validate" ;; *) echo "bad: $*" >&2; return 1 ;; esac; }'
    )
    answer = play(box, f"{refuse}\n{script}")
    assert answer.exit_code == 1
    assert "bad: --validate --config-file" in answer.err
    assert not daemon_json(box).exists()
    assert not pending(box)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_unit_that_had_failed_before_dockers_start_is_named_if_it_is_failed_still(shell: str) -> None:
    systemctl = """systemctl() {
      case "$*" in
        "show -p ConsistsOf --value docker.service") echo "a.service b.service c.service docker.socket" ;;
        "is-active -- c.service") echo active ;;
        "is-active -- "*) echo failed ;;
        "is-failed --quiet -- a.service") ;;
        *) false ;;
      esac
    }
    say() { echo "$1"; }
    """
    ran = subprocess.run(
        [shell, "-c", f'{assembled("docker/daemon.sh")}{systemctl}name_failed "$(failed_with_docker)"'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "a.service had failed before, and is not started: journalctl -u a.service\n"
