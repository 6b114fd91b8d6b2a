"""Restarts of dockerd: when, whom they stop, and who has to allow it; GPUs of running containers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provision.errors import Refusal
from provision.probe import Output
from provision.resource import ABSENT, OWED, Change, Handler, Missing, Planned
from provision.resources.gpus_in_containers import GpusInContainers
from provision.resources.service import UnitState
from provision.resources.signals import TOOLKIT_INSTALLED
from provision.roles.docker.containerd import ContainerdService
from provision.roles.docker.restart import DOCKER_RESTART, PID, DockerRestart, DockerService, DockerSocket
from provision.roles.docker.role import DockerSettings, resources
from tests.unit.examples import H100, script_of, settings_of

FILE = "file:/etc/docker/daemon.json"
RESTART = DockerRestart(
    "restart docker.service",
    on=(TOOLKIT_INSTALLED, "docker:restart"),
    script="restart_docker nvidia nvidia",
    covered_by=("service:docker.service:start",),
    holds_back=(FILE,),
    reloads_systemd=True,
)
TOOLKIT = Change(
    "packages:toolkit",
    "install",
    "",
    "",
    "",
    signals=(TOOLKIT_INSTALLED.name,),
    reloads_systemd=True,
)


def written(*signals: str) -> Change:
    return Change(FILE, "update", "", "", "", signals=signals)


def change(*earlier: Change, owed: bool = False) -> Change:
    found = RESTART.change(owed, Planned(earlier))
    assert found is not None
    return found


ACTIVE = "active\n"
IDLE = "outlive as now\n" + ACTIVE + "live-restore false\n"
OTHER = "container /other busybox:1 no \n"
ALWAYS = "container /web nginx:1 always \n"
TRITON = "unit triton@main.service\ncontainer /triton-main triton:1 no main\n"
STOPS = "container other (busybox:1) stops, and stays stopped"
KEEPS = "container other (busybox:1) keeps running (live-restore)"
OF_TRITON = "container triton-main (triton:1) stops, and triton@main.service starts it again"


@pytest.mark.parametrize(
    ("answer", "impact", "needs"),
    [
        ("outlive as now\n", (), False),
        (IDLE, (), False),
        (IDLE + OTHER, (STOPS,), True),
        (IDLE + ALWAYS, ("container web (nginx:1) stops, and Docker starts it again",), True),
        (IDLE + TRITON, (OF_TRITON,), True),
        ("outlive as now\n" + ACTIVE + "live-restore true\n" + OTHER, (KEEPS,), False),
        ("outlive yes\n" + ACTIVE + "live-restore false\n" + OTHER, (KEEPS,), False),
        ("outlive no\n" + ACTIVE + "live-restore true\n" + OTHER, (STOPS,), True),
        (
            "outlive yes\n" + ACTIVE + "live-restore false\n" + OTHER + TRITON,
            (OF_TRITON, KEEPS),
            True,
        ),
        (
            IDLE + "unit nvidia-dcgm-exporter.service\n",
            ("nvidia-dcgm-exporter.service is restarted, as it is part of docker.service",),
            True,
        ),
        (
            "outlive as now\nlost\n" + ACTIVE + "live-restore true\n" + ALWAYS,
            ("container web (nginx:1) stops, and Docker does not know it any more",),
            True,
        ),
        (
            "outlive as now\nactive\nunknown 0123456789abcdef\n",
            ("container 0123456789ab stops (dockerd does not answer)",),
            True,
        ),
    ],
)
def test_what_a_restart_stops(answer: str, impact: tuple[str, ...], needs: bool) -> None:
    found = RESTART.refine(change(TOOLKIT), Output(0, answer.encode()))
    assert found.impact == impact
    assert (found.needs.name if found.needs else None) == (DOCKER_RESTART.name if needs else None)


ALLOWED = "docker.restart: allowed"


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (IDLE + OTHER, f"{ALLOWED}; or stop these containers, or docker.daemon: {{live-restore: true}}"),
        (IDLE + TRITON, ALLOWED),
        (IDLE + OTHER + TRITON, ALLOWED),
        ("outlive yes\n" + ACTIVE + "live-restore false\n" + OTHER + TRITON, ALLOWED),
        (
            "outlive as now\nlost\n" + ACTIVE + "live-restore true\n" + ALWAYS,
            f"{ALLOWED}; or stop these containers",
        ),
        ("outlive as now\nactive\nunknown 0123456789abcdef\n", ALLOWED),
    ],
)
def test_only_what_helps_is_advised(answer: str, how: str) -> None:
    found = RESTART.refine(change(TOOLKIT), Output(0, answer.encode()))
    assert found.needs is not None
    assert found.needs.how == how


def test_with_permission_it_still_tells() -> None:
    allowed = DockerRestart("r", on=(TOOLKIT.resource,), script="", allowed=True)
    found = allowed.change(False, Planned((TOOLKIT,)))
    assert found is not None
    told = allowed.refine(found, Output(0, (IDLE + OTHER).encode()))
    assert (told.impact, told.needs) == ((STOPS,), None)


@pytest.mark.parametrize(
    ("earlier", "outlive"),
    [
        ([TOOLKIT], "as now"),
        ([written("docker:restart")], "no"),
        ([written("docker:restart", "docker:live-restore")], "yes"),
        ([written("docker:reload"), TOOLKIT], "no"),
    ],
)
def test_whether_containers_outlive_it(earlier: list[Change], outlive: str) -> None:
    found = change(*earlier)
    quoted = f"'{outlive}'" if " " in outlive else outlive
    assert found.script == f"outlive={quoted}; restart_docker nvidia nvidia"
    assert found.varying == "allowed=no"
    assert found.preview is not None
    assert found.preview.script == f"restart_preview {quoted}"


def test_a_file_that_takes_a_restart_is_not_written_without_it() -> None:
    assert change(written("docker:restart"), TOOLKIT).causes == (FILE,)
    assert change(written("docker:reload"), TOOLKIT).causes == ()
    assert change(owed=True).causes == ()


@pytest.mark.parametrize(
    ("note", "started", "owed"),
    [(100, 200, False), (200, 100, True), (100, None, True), (None, 100, False), (None, None, False)],
)
def test_a_start_of_dockerd_settles_older_debts(
    tmp_path: Path, note: int | None, started: int | None, owed: bool
) -> None:
    """By a reboot or by hand: what was owed is done."""
    script = (
        script_of(DockerRestart.probe([RESTART]))
        .replace(OWED, f"{tmp_path}/owed")
        .replace(PID, f"{tmp_path}/pid")
    )
    for name, time in (("owed/restart-docker.service", note), ("owed/other", 300), ("pid", started)):
        if time is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (time, time))
    ran = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert ran.stderr == b""
    assert DockerRestart.states([RESTART], Output(0, ran.stdout)) == {RESTART.id: owed}


def test_a_host_whose_docker_is_only_started_is_asked_nothing() -> None:
    start = Change("service:docker.service", "start", "", "", "")
    assert RESTART.change(True, Planned((TOOLKIT, start))) is None


UP = UnitState("active", "running", "enabled")
STARTED = "unit_is_up docker.service && not_owed restart-docker.service && counts_no_restarts docker.service"
CONTAINERD = ContainerdService()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (UnitState("active", "running", "enabled"), ""),
        (UnitState("activating", "start", "enabled"), ""),
        (UnitState("inactive", "dead", "masked", load="masked"), ""),
        (ABSENT, ""),
        (UnitState("inactive", "dead", "enabled"), "it is inactive (dead)"),
        (UnitState("failed", "failed", "disabled"), "it is failed (failed)"),
    ],
)
def test_containerd_is_started_where_it_was_stopped(state: UnitState | Missing, reason: str) -> None:
    """What runs goes on without it, and does not start again once it is stopped."""
    change = CONTAINERD.change(state, Planned())
    assert (change is not None) == bool(reason)
    if change:
        assert change.summary == "start containerd.service"
        assert change.reason.startswith(reason)
        docker = SERVICE.change(ABSENT, Planned())
        assert docker is not None
        assert CONTAINERD.change(state, Planned((docker,))) is None


def test_containerd_is_asked_for_with_the_other_units() -> None:
    assert ContainerdService.asked_by() is DockerService.asked_by()


SERVICE = DockerService(runtimes=("nvidia", "nvidia", "kata"))


@pytest.mark.parametrize(
    ("state", "script", "done"),
    [
        (UP, None, ""),
        (
            UnitState("active", "running", "disabled"),
            "enable_unit docker.service",
            "unit_is_up docker.service",
        ),
        (
            UnitState("active", "running", "enabled", stale=True),
            "systemctl daemon-reload",
            '[ "$(systemctl show -p NeedDaemonReload --value -- docker.service)" = no ]',
        ),
        (
            UnitState("inactive", "dead", "enabled"),
            "enable_unit docker.service && start_docker nvidia nvidia kata",
            f"{STARTED} && daemon_json_is_proven",
        ),
        (
            ABSENT,
            "enable_unit docker.service && start_docker nvidia nvidia kata",
            f"{STARTED} && daemon_json_is_proven",
        ),
    ],
)
def test_a_start_proves_daemon_json(state: UnitState | Missing, script: str | None, done: str) -> None:
    found = SERVICE.change(state, Planned())
    assert (found.script if found else None, found.done if found else "") == (script, done)
    assert SERVICE.id == "service:docker.service"


def test_a_moved_engine_waits_for_permission_with_its_packages() -> None:
    settings = settings_of("docker")
    assert isinstance(settings, DockerSettings)
    adopt = next(r for r in resources(settings, H100) if r.id == "handler:run the new Docker Engine")
    assert isinstance(adopt, DockerRestart)

    def after(action: str, package: str) -> Change | None:
        signals = (f"package:{package}:{action}",)
        moved = Change("packages:docker", action, "", "", "", signals=signals)
        return adopt.change(False, Planned((moved,)))

    found = after("upgrade", "docker.io")
    assert found is not None
    assert found.causes == ("packages:docker",)
    assert after("install", "docker.io") is None
    assert after("repair", "tini") is None


def test_a_reload_does_not_wait_for_permission_to_restart() -> None:
    """A toolkit that is new to a busy host: what was written to daemon.json is loaded all the same."""
    settings = settings_of("docker")
    assert isinstance(settings, DockerSettings)
    earlier = [TOOLKIT, written("docker:reload")]
    for handler in (r for r in resources(settings, H100) if isinstance(r, Handler)):
        found = handler.change(False, Planned(tuple(earlier)))
        earlier += [found] if found else []
    assert [c.resource for c in earlier[2:]] == [
        "handler:reload docker.service",
        "handler:restart docker.service",
    ]


# --- GPUs of running containers -------------------------------------------------------------------

RESTARTS = change(TOOLKIT)
CHECK = GpusInContainers("docker")
LATER = GpusInContainers("triton")
RELOAD = Change("handler:reload systemd", "run", "", "", "", reloads_systemd=True)
IDS = ("0a" * 32, "0b" * 32)


@pytest.mark.parametrize(
    ("state", "earlier", "checks"),
    [
        ((), [RELOAD], False),
        (IDS, [], False),
        (IDS, [Change("file:/etc/docker/daemon.json", "update", "", "", "")], False),
        (IDS, [RELOAD], True),
        (IDS, [TOOLKIT], True),
        (
            IDS,
            [Change("file:/etc/systemd/system/x.service", "create", "", "", "", reloads_systemd=True)],
            True,
        ),
        (IDS, [RESTARTS], True),
    ],
)
def test_when_containers_are_asked_for_their_gpus(
    state: tuple[str, ...], earlier: list[Change], checks: bool
) -> None:
    assert (CHECK.change(state, Planned(tuple(earlier))) is not None) == checks


def test_one_check_is_enough_until_systemd_reloads_again() -> None:
    first = CHECK.change(IDS, Planned((TOOLKIT,)))
    assert first is not None
    assert LATER.change(IDS, Planned((TOOLKIT, first))) is None
    second = LATER.change(IDS, Planned((TOOLKIT, first, RELOAD)))
    assert second is not None
    assert LATER.refine(second, Output(0, f"told\n{IDS[0]} lost yes /leg img:1\n".encode())).impact == ()


def test_the_plan_warns_of_containers_that_lose_their_gpus() -> None:
    planned = CHECK.change(IDS, Planned((RELOAD,)))
    assert planned is not None
    answer = f"{IDS[0]} lost yes /leg img:1\n{IDS[1]} lost no /blind img:2\n{'0c' * 32} kept yes /cdi img:3\n"
    found = CHECK.refine(planned, Output(0, answer.encode()))
    assert found.impact == (
        "container leg (img:1) loses its GPUs when systemd reloads its units (legacy hook):"
        " re-create it with --runtime=nvidia",
        "container blind (img:2) does not see its GPUs even now: re-create it",
    )
    assert f"gpus_are_still_seen {IDS[1]} && " in found.script
    assert planned.script.startswith("gpus_are_still_seen && ")


def test_containers_with_gpus_by_their_ids() -> None:
    assert CHECK.states([CHECK, LATER], Output(0, "\n".join(IDS).encode())) == {CHECK.id: IDS, LATER.id: IDS}
    assert "docker " not in CHECK.probe([CHECK]).script, "a run with nothing to do starts no process for this"


@pytest.mark.parametrize(
    ("load", "enabled"), [("masked", "masked"), ("masked", "masked-runtime"), ("loaded", "masked")]
)
def test_a_masked_socket_is_told_before_docker_is_to_start(load: str, enabled: str) -> None:
    with pytest.raises(Refusal, match=r"docker\.socket is masked on the host") as caught:
        DockerSocket().change(UnitState("inactive", "dead", enabled, load), Planned())
    assert caught.value.hint == "if Docker may run again: systemctl unmask docker.socket docker.service"


@pytest.mark.parametrize("state", [ABSENT, UnitState("active", "running", "enabled")])
def test_a_socket_that_is_not_masked_is_left_alone(state: UnitState | Missing) -> None:
    assert DockerSocket().change(state, Planned()) is None
