"""Flags that units start dockerd with, and the keys of daemon.json that they collide with."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provision.roles.docker.flags import UNIT_FILES, Flag, conflict, flags
from tests.unit.examples import script_of
from tests.unit.sandbox import SHELLS

UNIT = """== unit /lib/systemd/system/docker.service
[Unit]
Description=Docker Application Container Engine
[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
# ExecStart=/usr/sbin/dockerd --debug
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID

"""
DROPIN = "== unit /etc/systemd/system/docker.service.d/override.conf\n[Service]\nExecStart=\n"
DEFAULTS = "== environment /etc/default/docker\n"


def keys(answer: str) -> list[tuple[str, str]]:
    return [(flag.key, flag.file.rpartition("/")[2]) for flag in flags(answer)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", []),
        (UNIT, [("hosts", "docker.service"), ("containerd", "docker.service")]),
        (
            UNIT + DEFAULTS + '#DOCKER_OPTS="--debug"\nDOCKER_OPTS="--dns 8.8.8.8 --bip=10.0.0.1/24"\n',
            [
                ("hosts", "docker.service"),
                ("containerd", "docker.service"),
                ("dns", "docker"),
                ("bip", "docker"),
            ],
        ),
        (UNIT + DROPIN + "ExecStart=/usr/bin/dockerd --debug\n", [("debug", "override.conf")]),
        (
            UNIT + DROPIN + "ExecStart=/usr/bin/dockerd -D \\\n  -l info\n",
            [("debug", "override.conf"), ("log-level", "override.conf")],
        ),
        (UNIT + DROPIN, []),
        (
            UNIT + DROPIN + 'Environment="OPTS=--mtu=9000" X=y\nExecStart=-/usr/bin/dockerd ${OPTS}\n',
            [("mtu", "override.conf")],
        ),
        (UNIT + DROPIN + "ExecStart=/usr/bin/dockerd $NOWHERE_SET\n", []),
        (
            UNIT
            + DROPIN
            + "ExecStart=/usr/bin/dockerd --log-opt max-size=1m --exec-opt=native.cgroupdriver=systemd\n",
            [("log-opts", "override.conf"), ("exec-opts", "override.conf")],
        ),
    ],
)
def test_flags_of_a_unit(answer: str, expected: list[tuple[str, str]]) -> None:
    assert keys(answer) == expected


def test_a_flag_knows_its_value() -> None:
    answer = (
        UNIT
        + DROPIN
        + "ExecStart=/usr/bin/dockerd --add-runtime nvidia=/usr/bin/n --default-runtime=nvidia\n"
    )
    file = "/etc/systemd/system/docker.service.d/override.conf"
    assert flags(answer) == [
        Flag("--add-runtime", "runtimes", "nvidia=/usr/bin/n", file),
        Flag("--default-runtime", "default-runtime", "nvidia", file),
    ]


OURS: dict[str, Any] = {"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "n"}}}


@pytest.mark.parametrize(
    ("command", "wanted", "says"),
    [
        ("-H fd://", OURS, None),
        ("-H fd://", {**OURS, "hosts": ["fd://"]}, "with -H, and /etc/docker/daemon.json has hosts"),
        ("--host=fd://", {"hosts": []}, "with --host"),
        ("--add-runtime=nvidia=/usr/bin/n", OURS, None),
        ("--add-runtime nvidia=/usr/bin/n", OURS, None),
        ("--add-runtime=kata=/usr/bin/kata", OURS, None),
        ("--default-runtime=runc", OURS, "has default-runtime"),
        ("--data-root=/data", OURS, None),
        ("-g /data", {"data-root": "/d"}, "with -g"),
        ("--log-driver=local", {"log-driver": "local"}, "with --log-driver"),
        ("--label a=b", {"labels": []}, "with --label"),
        ("--registry-mirror=x", {"registry-mirrors": []}, "with --registry-mirror"),
        ("--config-file=/etc/docker/daemon.json", OURS, None),
    ],
)
def test_conflicts(command: str, wanted: dict[str, Any], says: str | None) -> None:
    found = conflict(UNIT + DROPIN + f"ExecStart=/usr/bin/dockerd {command}\n", wanted)
    assert (found is not None) == (says is not None)
    if found is not None:
        assert str(says) in found.message
        assert "/etc/systemd/system/docker.service.d/override.conf starts dockerd" in found.message
        assert "dockerd does not start" in found.message
        assert str(found.hint).startswith("take -")


def test_another_configuration_file() -> None:
    found = conflict(UNIT + DROPIN + "ExecStart=/usr/bin/dockerd --config-file /data/docker.json\n", OURS)
    assert found is not None
    assert found.message.endswith(
        "starts dockerd with --config-file /data/docker.json: it does not read /etc/docker/daemon.json"
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_the_files_that_count_are_those_on_disk(shell: str, tmp_path: Path) -> None:
    """A drop-in that systemd has not read yet counts at its next reload, which may be ours."""
    for name, content in {
        "etc/docker.service.d/20-own.conf": "[Service]\nExecStart=\nExecStart=/dockerd --debug $OPTS\n",
        "etc/docker.service.d/10-env.conf": f"[Service]\nEnvironmentFile=-{tmp_path}/env\n",
        "run/docker.service.d/20-own.conf": "[Service]\nExecStart=/hidden --icc\n",
        "usr/docker.service.d/30-theirs.conf": "[Service]\nExecStart=/gone --icc\n",
        "usr/docker.service": "[Service]\nExecStart=/usr/bin/dockerd -H fd://",
        "lib/docker.service": "[Service]\nExecStart=/usr/bin/dockerd --icc\n",
        "env": "OPTS=--mtu=9000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "etc/docker.service.d/30-theirs.conf").symlink_to("/dev/null")
    script = re.sub(
        r"^unit_folders=.*$",
        f"unit_folders='{' '.join(f'{tmp_path}/{part}' for part in ('etc', 'run', 'usr', 'lib'))}'",
        script_of(UNIT_FILES),
        flags=re.MULTILINE,
    )
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True, text=True)
    assert ran.stderr == ""
    assert keys(ran.stdout) == [("debug", "20-own.conf"), ("mtu", "env")]
    shutil.rmtree(tmp_path / "etc")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "usr/docker.service.d/30-theirs.conf").unlink()
    ran = subprocess.run([shell, "-c", f"PATH=\n{script}"], capture_output=True, check=True, text=True)
    assert keys(ran.stdout) == [("hosts", "docker.service")], "without a process"
