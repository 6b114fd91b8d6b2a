"""An instance whose new version does not get ready serves with the previous one again."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Refusal
from provision.plan.declared import Declared
from provision.plan.plan import STEPS, Plan, plan
from provision.probe import Output
from provision.resource import ABSENT, Planned
from provision.resources.file import FileState
from provision.resources.service import UnitState
from provision.roles.triton.role import TritonSettings, resources
from provision.roles.triton.rollback import EnvironmentFile
from provision.roles.triton.server import SERVE, ServerRestart, UnitFile
from provision.shell import assembled
from tests.unit.examples import H100, IMAGE
from tests.unit.sandbox import SHELLS, Sandbox

UNIT, OTHER = "triton@main.service", "triton@other.service"

SYSTEMCTL = """#!/bin/sh
echo "$*" >>/run/calls
for unit; do :; done
case "$1 $2 $3" in
  "is-active "*)
    if [ -e /run/coming ]; then echo activating; exit 3; fi
    [ -e "/run/up-$unit" ]
    ;;
  "show -p NRestarts") cat /run/coming ;;
  "show -p InvocationID") cat "/run/up-$unit" ;;
  "show -p ExecMainStartTimestampMonotonic") cat /run/began ;;
  "show "*|reset-failed*|is-enabled*|enable*|daemon-reload*|"stop "*) ;;
  *)
    rm -f "/run/up-$unit" /run/coming
    grep -q good "/var/lib/units/$unit" && grep -q good /var/lib/envs/main.env &&
      [ "$(cat /run/tag)" != sha256:bad ] && echo "$$" >"/run/up-$unit"
    ;;
esac
"""
JOURNALCTL = """#!/bin/sh
cat /run/journal 2>/dev/null
"""
DOCKER = """#!/bin/sh
case "$1 $2" in
  "inspect --type") echo "image sha256:old example.org/a:1" ;;
  "image inspect") cat /run/tag ;;
  "tag "*)
    [ ! -e /run/gone ] || { echo "Error response from daemon: No such image: $2" >&2; exit 1; }
    echo "$2" >/run/tag
    ;;
esac
"""
TIMEOUT = '#!/bin/sh\nshift 3\nexec "$@"\n'

WHY = (
    "I0101 loading\n"
    "2026-11-22T14:56:22Z E 270 model_lifecycle.cc:641] \"failed to load 'x' version 1: Internal: no GPU\"\n"
    "error: creating server: Internal - failed to load all models\n"
)
REASON = "failed to load 'x' version 1: Internal: no GPU"


@dataclass
class Host:
    """A host with an instance, whose versions are good or bad by what its files say."""

    box: Sandbox

    def file(self, kind: str, unit: str = UNIT) -> Path:
        """Its unit file or its environment."""
        return self.box.folder / "lib" / (f"units/{unit}" if kind == "unit" else "envs/main.env")

    @property
    def kept(self) -> Path:
        """What it served with."""
        return self.box.folder / "lib/provision/served" / UNIT

    @property
    def serves(self) -> bool:
        """Whether the instance is up."""
        return (self.box.folder / f"run/up-{UNIT}").exists()

    def sh(self, *calls: str) -> Output:
        """Run steps."""
        head = assembled(STEPS, SERVE).replace("/etc/systemd/system", "/var/lib/units")
        head = head.replace("/etc/triton", "/var/lib/envs")
        head = head.replace("/usr/local/lib/provision/", "/var/lib/gates/").replace(
            r"\/usr\/local\/lib\/provision\/", r"\/var\/lib\/gates\/"
        )
        text = f"run=/run/provision/r1; mkdir -p $run\n{head}\nPATH=/run/bin:$PATH; mkdir -p $owed\n"
        return self.box.sh(text + "\n".join(calls))


def write(kind: str, text: str, before: str = "await_version") -> str:
    path = f"/var/lib/units/{UNIT}" if kind == "unit" else "/var/lib/envs/main.env"
    content = base64.b64encode(text.encode()).decode()
    mode = "0644" if kind == "unit" else "0600"
    return f"{before} {UNIT} && echo {content} | write_file {path} {mode} root:root || exit 9"


RESTART = f"serve restart_or_go_back {UNIT} 9 8000"


@pytest.fixture(params=SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    box = Sandbox.make(tmp_path, request.param)
    programs = {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL, "docker": DOCKER, "timeout": TIMEOUT}
    (tmp_path / "run/bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "run/bin" / name).write_text(text)
        (tmp_path / "run/bin" / name).chmod(0o755)
    found = Host(box)
    for kind in ("unit", "environment"):
        found.file(kind).parent.mkdir()
        found.file(kind).write_text("good 1\nTimeoutStartSec=330\n")
        found.file(kind).chmod(0o644 if kind == "unit" else 0o600)
    (tmp_path / f"run/up-{UNIT}").write_text("1")
    (tmp_path / "run/tag").write_text("sha256:old\n")
    (tmp_path / "run/journal").write_text(WHY)
    yield found


def test_a_new_version_that_starts_stays(host: Host) -> None:
    output = host.sh(write("environment", "good 2"), write("unit", "good 2"), RESTART)
    assert output.exit_code == 0, output
    assert host.file("unit").read_text() == "good 2"
    assert host.serves
    assert not host.kept.exists()


@pytest.mark.parametrize("bad", ["unit", "environment"])
def test_the_previous_version_serves_where_the_new_one_does_not(host: Host, bad: str) -> None:
    other = "unit" if bad == "environment" else "environment"
    owed = host.box.folder / "lib/provision/owed"
    output = host.sh(
        f'mkdir -p $owed; : >"$owed/restart-{UNIT}"', write(other, "good 2"), write(bad, "bad"), RESTART
    )
    assert output.exit_code == 1
    says = f"{UNIT} did not get ready: {REASON}; the previous version serves again"
    assert output.out.splitlines()[0] == says
    for kind in ("unit", "environment"):
        assert host.file(kind).read_text().startswith("good 1")
    assert host.serves
    assert not host.kept.exists()
    assert list(owed.iterdir()) == []
    assert (host.file("environment").stat().st_mode & 0o777) == 0o600
    refused = (
        host.box.folder / "backups/provision/r1/var/lib" / host.file(bad).relative_to(host.box.folder / "lib")
    )
    assert refused.read_text() == "bad"


def test_where_the_previous_version_fails_too_both_reasons_are_told(host: Host) -> None:
    (host.box.folder / "run/bin/journalctl").write_text(
        f"#!/bin/sh\ngrep -q good /var/lib/units/{UNIT} && exec echo 'error: creating server: no disk'\n"
        "cat /run/journal\n"
    )
    output = host.sh(
        write("unit", "bad"),
        "sed s/good/lost/ /run/bin/systemctl >/run/new; cat /run/new >/run/bin/systemctl",
        RESTART,
    )
    assert output.exit_code == 1
    says = (
        f"{UNIT} did not get ready: {REASON}; the previous version is back, and does not get ready either:"
        " error: creating server: no disk"
    )
    assert output.out.splitlines()[0] == says
    assert host.file("unit").read_text().startswith("good 1")
    assert host.kept.exists(), "the next run may go back as well"


def test_an_instance_that_never_served_is_not_put_back(host: Host) -> None:
    (host.box.folder / f"run/up-{UNIT}").unlink()
    output = host.sh(write("unit", "bad"), RESTART)
    assert output.exit_code == 1
    assert "previous version" not in output.out + output.err
    assert REASON in output.out
    assert host.file("unit").read_text() == "bad"
    assert not host.kept.exists()


def test_without_rollback_the_cause_comes_first_too(host: Host) -> None:
    host.file("unit").write_text("bad")
    output = host.sh(f"serve restart_unit {UNIT} 9 8000")
    assert output.exit_code == 1
    assert output.out.splitlines()[0] == f"{UNIT} did not get ready: {REASON}"
    assert len(output.out.splitlines()) <= 12, "so many lines are shown"


def test_without_a_change_there_is_nothing_to_go_back_to(host: Host) -> None:
    host.file("unit").write_text("bad")
    output = host.sh(RESTART)
    assert output.exit_code == 1
    assert "previous version" not in output.out + output.err


@pytest.mark.parametrize("gone", [False, True])
def test_an_image_that_was_tagged_anew_by_hand_goes_back_to_the_one_that_ran(host: Host, gone: bool) -> None:
    (host.box.folder / "run/tag").write_text("sha256:bad\n")
    if gone:
        (host.box.folder / "run/gone").touch()
    output = host.sh(RESTART)
    assert output.exit_code == 1
    assert host.serves is not gone
    if gone:
        says = "could not be put back: Error response from daemon: No such image: sha256:old\n"
        assert output.out.splitlines()[0].endswith(f"; the previous version {says}".rstrip())
    else:
        assert (host.box.folder / "run/tag").read_text() == "sha256:old\n"
        says = "example.org/a:1 is tagged as before; the image that did not get ready is sha256:bad"
        assert says in output.out
        assert output.out.splitlines()[0].endswith("; the previous version serves again")


@pytest.mark.parametrize(("restarts", "waits"), [(0, True), (1, False)])
def test_a_start_that_is_not_over_tells_whether_it_serves(host: Host, restarts: int, waits: bool) -> None:
    """As after a restart of Docker in the same run; a start after one that failed is not waited for."""
    (host.box.folder / f"run/up-{UNIT}").unlink()
    (host.box.folder / "run/coming").write_text(f"{restarts}\n")
    output = host.sh(write("unit", "bad"), RESTART)
    assert ("the previous version serves again" in output.out) is waits
    assert host.serves is waits


def test_a_run_that_was_cut_goes_back_to_what_served_before_it(host: Host) -> None:
    """The files of the run that was cut never served."""
    host.sh(write("environment", "good 2"), write("unit", "bad 2"))
    host.sh(write("unit", "bad 3"), RESTART)
    assert host.file("unit").read_text().startswith("good 1")
    assert host.file("environment").read_text().startswith("good 1")


def test_a_way_back_that_was_cut_is_found_by_the_next_run(host: Host) -> None:
    host.sh(
        write("environment", "good 2"), write("unit", "bad"), f"rm /run/up-{UNIT}", f"put_back_version {UNIT}"
    )
    assert host.kept.exists()
    output = host.sh(write("unit", "bad"), f"serve start_or_go_back {UNIT} 9 8000")
    assert output.out.splitlines()[0].endswith("the previous version serves again")
    assert host.file("environment").read_text().startswith("good 1")
    assert host.serves


def test_what_served_since_is_what_a_run_goes_back_to(host: Host) -> None:
    """A run was cut, and the instance came up by itself with the new files."""
    host.sh(write("unit", "good 2"))
    (host.box.folder / f"run/up-{UNIT}").write_text("2")
    output = host.sh(write("unit", "bad 3"), RESTART)
    assert output.exit_code == 1
    assert host.file("unit").read_text() == "good 2"


def test_what_changed_without_a_restart_is_not_what_a_run_goes_back_to(host: Host) -> None:
    """As canaries that the model does not answer: no start has seen them."""
    host.sh(write("unit", "bad canary", "keep_version"))
    assert host.serves
    output = host.sh(write("unit", "bad 3"), RESTART)
    assert output.out.splitlines()[0].endswith("; the previous version serves again")
    assert host.file("unit").read_text().startswith("good 1")
    assert host.serves


@pytest.mark.parametrize(("now", "then"), [(None, "old gate"), ("new gate", "new gate")])
def test_a_gate_of_the_previous_version_that_went_comes_back(host: Host, now: str | None, then: str) -> None:
    """As that of canaries, which the settings no longer had; one that is there is that of all instances."""
    gate = host.box.folder / "lib/gates/triton-canary"
    gate.parent.mkdir()
    gate.write_text("old gate")
    gate.chmod(0o755)
    host.file("unit").write_text("good 1\nExecStartPost=/var/lib/gates/triton-canary a b\n")
    host.sh(write("unit", "good 2", "keep_version"))
    gate.unlink() if now is None else gate.write_text(now)
    host.sh(write("unit", "bad 3"), RESTART)
    assert gate.read_text() == then
    assert gate.stat().st_mode & 0o777 == 0o755
    record = host.box.folder / "lib/provision/ours"
    assert (record.exists() and "triton file:/var/lib/gates/triton-canary" in record.read_text()) is (
        now is None
    ), "it goes when nobody wants it"


@pytest.mark.parametrize(
    ("up", "kept", "age", "unseen"),
    [
        (True, False, 100, True),
        (True, True, 100, False),
        (True, False, 300, False),
        (False, False, 100, False),
    ],
)
def test_files_that_no_start_has_seen_are_told(
    host: Host, up: bool, kept: bool, age: int, unseen: bool
) -> None:
    """The instance was started 200 seconds ago."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    (host.box.folder / "run/began").write_text(f"{int((uptime - 200) * 1e6)}\n")
    for kind in ("unit", "environment"):
        os.utime(host.file(kind), (time.time() - 900,) * 2)
    if kept:
        host.sh(f"keep_version {UNIT}")
    os.utime(host.file("unit"), (time.time() - age,) * 2)
    if not up:
        (host.box.folder / f"run/up-{UNIT}").unlink()
    output = host.sh(f"unseen_files {UNIT}")
    assert output.out == (f"unseen /var/lib/units/{UNIT}\n" if unseen else "")
    assert output.exit_code == 0


@pytest.mark.parametrize("age", [100, 300])
def test_a_drop_in_that_no_start_has_seen_is_told_though_files_are_kept(host: Host, age: int) -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    (host.box.folder / "run/began").write_text(f"{int((uptime - 200) * 1e6)}\n")
    for kind in ("unit", "environment"):
        os.utime(host.file(kind), (time.time() - 900,) * 2)
    host.sh(f"keep_version {UNIT}")
    drop_in = host.file("unit").parent / f"{UNIT}.d/a.conf"
    drop_in.parent.mkdir()
    drop_in.touch()
    os.utime(drop_in, (time.time() - age,) * 2)
    unseen = f"unseen /var/lib/units/{UNIT}.d/a.conf\n" if age < 200 else ""
    assert host.sh(f"unseen_files {UNIT}").out == unseen


def test_who_stopped_for_it_goes_back_too(host: Host) -> None:
    """Two instances swap their ports, and the first does not get ready."""
    host.file("unit", OTHER).write_text("good 2, --publish=127.0.0.1:9000:8000")
    content = base64.b64encode(b"good 1, --publish=127.0.0.1:8000:8000").decode()
    holders = f"holders() {{ echo {OTHER}; }}"
    line = f"file /var/lib/units/{OTHER} 0644 root:root {content}"
    served = f"mkdir -p $served_versions; echo '{line}' >$served_versions/{OTHER}"
    output = host.sh(served, holders, write("unit", "bad"), RESTART)
    assert output.exit_code == 1
    assert "8000:8000" in host.file("unit", OTHER).read_text()
    calls = (host.box.folder / "run/calls").read_text().splitlines()
    assert calls[-1] == f"start --no-block -- {OTHER}"
    assert not any(call.startswith("disable") for call in calls)
    assert host.serves


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("tritonserver: unrecognized option '--no-such'", "tritonserver: unrecognized option '--no-such'"),
        (
            "tritonserver: error while loading shared libraries: x",
            "tritonserver: error while loading shared libraries: x",
        ),
        (
            "mpirun noticed that process rank 1 with PID 0 on x",
            "mpirun noticed that process rank 1 with PID 0 on x",
        ),
        ("error: creating server: Internal - x", "error: creating server: Internal - x"),
        ('2026-11-22T14:56:22Z E 1 main.cc:5] "no port"', "no port"),
        ('2026-11-22T14:56:22Z I 1 main.cc:5] "error: not one"', "its journal does not say why"),
        (
            "docker: Error response from daemon: No such image: a:1.",
            "docker: Error response from daemon: No such image: a:1.",
        ),
        ("Error response from daemon: No such container: triton-main", "its journal does not say why"),
        ("not ready after 300 s (http://x)", "not ready after 300 s (http://x)"),
        ("canary adder: no output OUT", "canary adder: no output OUT"),
        ("model a is not ready: LOADING", "model a is not ready: LOADING"),
        (
            "2026-11-22T14:56:22Z E 1 a.cc:641] \"failed to load 'x' version 1: a\\n\\nAt:\\n\"",
            "failed to load 'x' version 1: a",
        ),
        ("", "its journal does not say why"),
    ],
)
def test_the_reason_is_in_the_words_of_who_failed(host: Host, line: str, reason: str) -> None:
    (host.box.folder / "run/lines").write_text(f"{line}\n")
    assert host.sh("reason_in /run/lines").out == f"{reason}\n"


def declared(**changes: Any) -> list[Declared]:
    instances = {
        name: {"image": IMAGE, "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, **changes}
        for name, port in (("one", 8000), ("two", 8100), ("three", 8200))
    }
    settings = TritonSettings.model_validate({"instances": instances})
    return [Declared("triton", resource) for resource in resources(settings, H100)]


def planned(**changes: Any) -> Plan:
    """The plan of three instances that serve with other arguments."""
    before = {item.resource.id: item.resource for item in declared(args=["--log-verbose=1"])}
    states: dict[str, Any] = {}
    for item in declared(**changes):
        resource = item.resource
        old = before[resource.id]
        states[resource.id] = resource.bare()
        if resource.kind == "file":
            content = old.rendered().content  # type: ignore[union-attr]
            states[resource.id] = FileState("file", old.mode, "root", "root", content)  # type: ignore[attr-defined]
        elif resource.kind == "directory":
            states[resource.id] = FileState("directory", "0755", "root", "root")
        elif resource.kind == "service":
            states[resource.id] = UnitState("active", "running", "enabled")
        elif resource.kind == "image":
            states[resource.id] = True
    return plan("h", declared(**changes), states)


def test_instances_are_restarted_one_after_another_and_each_proves_itself() -> None:
    """A step that fails ends the run, so the next restart begins only when the last one has ended well."""
    found = planned()
    kinds = [change.resource.partition(":")[0] for change in found.changes]
    assert kinds == ["file", "file", "file", "handler", "handler", "handler", "handler"]
    reload, *restarts = found.changes[3:]
    assert reload.script == "systemctl daemon-reload"
    units = [f"triton@{name}.service" for name in ("one", "two", "three")]
    assert [change.resource for change in restarts] == [f"handler:restart {unit}" for unit in units]
    for change, unit, port in zip(restarts, units, (8000, 8100, 8200), strict=True):
        assert change.script == f"serve restart_unit {unit} 360 {port} {port + 1} {port + 2}"


@pytest.mark.parametrize("rollback", [False, True])
def test_only_an_instance_with_rollback_goes_back(rollback: bool) -> None:
    *files, _, restart, _, _ = planned(rollback=rollback).changes
    assert [change.script.startswith("await_version triton@") for change in files] == [rollback] * 3
    assert (" restart_or_go_back " in restart.script) is rollback
    (server,) = [
        item.resource
        for item in declared(rollback=rollback)
        if item.resource.id == "service:triton@one.service"
    ]
    start = server.change(ABSENT, Planned())
    assert start is not None
    assert (" start_or_go_back " in start.script) is rollback


def test_what_it_serves_with_is_kept_before_any_change_of_its_files() -> None:
    """Also of one that restarts nothing; then no start is waited for."""
    (unit,) = [
        r for d in declared(rollback=True) if isinstance(r := d.resource, UnitFile) and "@one" in r.path
    ]
    (later,) = [
        r
        for d in declared(rollback=True, ready_timeout=900)
        if isinstance(r := d.resource, UnitFile) and "@one" in r.path
    ]
    change = later.change(FileState("file", "0644", "root", "root", unit.content), Planned())
    assert change is not None
    assert change.script.startswith("keep_version triton@one.service && write_file /etc/systemd/system/")
    (environment,) = [
        r for d in declared(rollback=True) if isinstance(r := d.resource, EnvironmentFile) and "one" in r.path
    ]
    change = environment.change(FileState("file", "0600", "root", "root", b"A=b"), Planned())
    assert change is not None
    assert change.script.startswith("await_version triton@one.service && write_file /etc/triton/one.env")
    content = environment.content
    change = environment.change(FileState("file", "0644", "root", "root", content), Planned())
    assert change is not None
    assert change.script.startswith("keep_version triton@one.service && write_file /etc/triton/one.env")


@pytest.mark.parametrize("rollback", [False, True])
def test_a_restart_that_could_not_go_back_is_refused_before_the_server_stops(rollback: bool) -> None:
    (restart,) = [
        r
        for d in declared(rollback=rollback)
        if isinstance(r := d.resource, ServerRestart) and r.unit == "triton@one.service"
    ]
    assert ("unseen_files triton@one.service" in restart.serving_now().script) is rollback
    change = restart.change(True, Planned())
    assert change is not None
    assert change.preview == restart.serving_now()
    file = "/etc/systemd/system/triton@one.service"
    with pytest.raises(Refusal, match=f"triton@one.service: {file} changed after its start") as caught:
        restart.refine(change, Output(0, f"state active\nunseen {file}\n".encode()))
    with pytest.raises(Refusal, match="Docker's client on the host is gone or cannot be run"):
        restart.refine(change, Output(0, b"client cannot\nstate active\n"))
    told = restart.refine(change, Output(0, b"state active\nholder triton@two.service\n")).impact
    assert ("once triton@one.service is ready, its ports are not given back" in told) is rollback
    assert "systemctl daemon-reload; systemctl restart triton@one.service" in str(caught.value.hint)
    assert restart.refine(change, Output(0, b"state active\n")).impact
