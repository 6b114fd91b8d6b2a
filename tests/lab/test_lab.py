"""The lab itself: hosts are what bare servers are, faults happen as ordered, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.cgroup import lab_group
from lab.host import LabHost
from lab.lab import Lab
from lab.layout import NETWORKS, STATE_ROOT
from provision.errors import ProvisionError, UsageError
from tests.lab.cli import LAB

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.campaign("lab", sample=8)]

HOSTS_SCRIPT = Path(__file__).resolve().parents[2] / "inventories" / "lab" / "hosts.py"


def ssh(host: LabHost, command: str, *options: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as an operator would, with the lab's key and the recorded host key."""
    layout = host.layout
    strict = (
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={layout.known_hosts}",
        "-o",
        "ConnectTimeout=5",
    )
    return subprocess.run(
        ["ssh", "-i", layout.ssh_key, *strict, *options, f"admin@{host.address}", command],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def inside(host: LabHost, script: str) -> str:
    """Run a script as root on the host; its output."""
    done = host.run(["sh", "-c", script])
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def processes(lab: Lab) -> list[str]:
    """Command lines on this machine that speak of the lab."""
    marks = (lab.layout.bridge, str(lab.layout.state), f"provision-{lab.layout.name}/")
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(mark in line for mark in marks) and int(entry.name) != os.getpid():
                found.append(line)
    return found


@pytest.fixture
def spare(fit_machine: None) -> Iterator[Lab]:
    """A lab of its own, down at first and at the end."""
    lab = Lab("spare")
    lab.down()
    yield lab
    lab.down()


@pytest.fixture
def changed(lab: Lab) -> Iterator[LabHost]:
    """A host to change; bare at first and at the end."""
    host = lab.hosts[1]
    host.reset()
    yield host
    host.reset()


# A bare host


def test_hosts_are_up_and_known_by_their_keys(lab: Lab) -> None:
    assert [(row.name, row.power, row.login) for row in lab.status()] == [
        ("gpu-01", "on", True),
        ("gpu-02", "on", True),
        ("gpu-03", "on", True),
    ]
    for host in lab.hosts:
        done = ssh(host, "hostname; cat /etc/ssh/ssh_host_ed25519_key.pub", "-o", "StrictHostKeyChecking=yes")
        assert done.stdout.split()[:3] == [host.name, *host.host_key.split()], done.stderr
    assert len({host.host_key for host in lab.hosts}) == len(lab.hosts)


def test_only_the_key_opens_a_host(lab: Lab, tmp_path: Path) -> None:
    host = lab.hosts[0]
    as_root = ssh(host, "true", "-l", "root")
    assert "Permission denied (publickey)" in as_root.stderr
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    denied = subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(stranger), "-o", "BatchMode=yes", "-o", "IdentityAgent=none"),
            *("-o", f"UserKnownHostsFile={host.layout.known_hosts}", f"admin@{host.address}", "true"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Permission denied (publickey)" in denied.stderr


def test_sudo_asks_for_a_password_on_the_last_host_only(lab: Lab) -> None:
    *free, asking = lab.hosts
    for host in free:
        assert host.sudo_password is None
        assert ssh(host, "sudo -n id -u").stdout == "0\n"
    assert "a password is required" in ssh(asking, "sudo -n id -u").stderr
    assert ssh(asking, "sudo -S -p '' id -u", given=f"{asking.sudo_password}\n").stdout == "0\n"
    assert ssh(asking, "sudo -S -p '' id -u", given="wrong\n").returncode != 0


def test_a_host_is_bare_and_whole(lab: Lab) -> None:
    host = lab.hosts[0]
    host.reset()
    assert inside(host, "systemctl is-system-running --wait") == "running"
    assert inside(host, ". /etc/os-release; echo $ID $VERSION_CODENAME") == f"debian {host.suite}"
    assert inside(host, "stat --file-system --format %T /sys/fs/cgroup") == "cgroup2fs"
    for program in ("docker", "nvidia-smi", "nvidia-ctk", "python3"):
        assert host.run(["sh", "-c", f"command -v {program}"]).returncode != 0, program
    assert inside(host, "modprobe --version").startswith("kmod version")
    assert inside(host, "ls /etc/apt/sources.list.d") == "debian.sources"


def test_gpus_are_on_the_bus_before_any_driver(lab: Lab) -> None:
    lab.hosts[0].reset()
    found = inside(
        lab.hosts[0],
        "cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device $d/class); done",
    )
    nvidia = [line for line in found.splitlines() if "0x10de" in line]
    assert nvidia == ["0000:18:00.0 0x10de 0x2330 0x030200", "0000:3b:00.0 0x10de 0x2330 0x030200"]
    assert len(found.splitlines()) > len(nvidia), "a server has other devices too"


def test_nvswitches_are_on_the_bus_where_they_are_put_in(changed: LabHost) -> None:
    changed.add_nvswitches(4)
    switches = "grep -l 0x068000 /sys/bus/pci/devices/*/class | wc -l"
    assert inside(changed, switches) == "4"
    changed.reset()
    assert inside(changed, switches) == "0"


def test_every_gpu_has_its_own_uuid(lab: Lab) -> None:
    texts = [inside(host, "cat /usr/share/lab-gpu/gpus.json") for host in lab.hosts]
    uuids = [gpu["uuid"] for text in texts for gpu in json.loads(text)["gpus"]]
    assert len(set(uuids)) == 2 * len(lab.hosts)
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) for uuid in uuids)


def test_a_host_reaches_the_lab_and_nothing_else(lab: Lab) -> None:
    host = lab.hosts[0]
    routes = inside(host, "ip route")
    assert f"{lab.layout.prefix}.0/24" in routes
    assert "default" not in routes


# Packages and images


def test_apt_installs_from_the_signed_mirror(changed: LabHost) -> None:
    inside(changed, "apt-get update && apt-get install --yes hello")
    assert inside(changed, "hello") == "Hello, world!"


def test_apt_refuses_a_repository_signed_with_another_key(changed: LabHost) -> None:
    keyring = changed.root / "usr/share/keyrings/mirror-archive-keyring.asc"
    inside(changed, "apt-get update")
    keyring.write_text((changed.layout.keys / "nvidia.asc").read_text())
    refused = changed.run(["apt-get", "update", "--error-on=any"])
    assert refused.returncode != 0
    assert "NO_PUBKEY" in refused.stdout + refused.stderr or "not signed" in refused.stdout + refused.stderr


def test_docker_runs_an_image_of_the_registry(changed: LabHost) -> None:
    layout = changed.layout
    daemon = json.dumps({"insecure-registries": [layout.registry]})
    inside(changed, f"mkdir -p /etc/docker && echo '{daemon}' >/etc/docker/daemon.json")
    inside(changed, "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes docker.io tini")
    image = f"{layout.registry}/nvidia/tritonserver:24.07-py3"
    said = inside(changed, f"docker run --rm --init --entrypoint python3 {image} -c 'print(6 * 7)'")
    assert said.splitlines()[-1] == "42"
    driver = inside(changed, "docker info --format '{{.Driver}} {{.CgroupDriver}} {{.CgroupVersion}}'")
    assert driver == "overlay2 systemd 2"


# Power, disk and cable


@pytest.mark.parametrize("command", ["systemctl reboot", "reboot"])
def test_a_reboot_comes_back_with_another_boot_id(lab: Lab, command: str) -> None:
    host = lab.hosts[0]
    before = host.boot_id()
    host.run(["sh", "-c", f"echo kept >/root/mark; {command}"])
    host.wait(after=before)
    assert ssh(host, "cat /proc/sys/kernel/random/boot_id").stdout.strip() == host.boot_id() != before
    assert inside(host, "cat /root/mark") == "kept"


def test_a_power_cut_and_a_power_off_stay_off_until_boot(lab: Lab) -> None:
    host = lab.hosts[0]
    for off in (host.kill, host.stop, lambda: power_off(host)):
        off()
        assert not host.running()
        assert host.boot_id() is None
        assert [row.power for row in lab.status() if row.name == host.name] == ["off"]
        with pytest.raises(ProvisionError, match="gpu-01 is off"):
            host.run(["true"])
        host.boot()
        assert ssh(host, "true").returncode == 0


def power_off(host: LabHost) -> None:
    """Let the host switch itself off."""
    host.run(["systemctl", "poweroff"])
    deadline = time.monotonic() + 30
    while host.running():
        assert time.monotonic() < deadline, "the host did not switch itself off"
        time.sleep(0.1)


def test_reset_forgets_and_restore_brings_back(changed: LabHost) -> None:
    inside(changed, "echo disk >/root/mark; echo image >/var/lib/docker/mark; rm /usr/bin/less")
    changed.snapshot("marked")
    inside(changed, "rm /root/mark; echo other >/var/lib/docker/mark")
    changed.restore("marked")
    assert inside(changed, "cat /root/mark /var/lib/docker/mark") == "disk\nimage"
    assert changed.run(["test", "-e", "/usr/bin/less"]).returncode == 1
    key = changed.host_key
    changed.reset()
    assert changed.run(["test", "-e", "/root/mark"]).returncode == 1
    assert inside(changed, "ls /var/lib/docker; ls /usr/bin/less") == "/usr/bin/less"
    assert changed.host_key == key
    with pytest.raises(ProvisionError, match="no snapshot 'other'"):
        changed.restore("other")


def test_an_unreachable_host_is_silent_and_comes_back(lab: Lab) -> None:
    host = lab.hosts[0]
    with host.unreachable():
        assert not host.answers()
        assert inside(host, "hostname") == host.name
    host.wait()
    assert ssh(host, "true").returncode == 0


def test_a_host_can_refuse_to_come_back_from_a_reboot(changed: LabHost) -> None:
    before = changed.boot_id()
    changed.refuse_boot()
    changed.run(["systemctl", "reboot"])
    deadline = time.monotonic() + 30
    while changed.boot_id() is not None:
        assert time.monotonic() < deadline, "it did not go down"
        time.sleep(0.1)
    with pytest.raises(ProvisionError, match="nobody can log in on gpu-02 after 3 s"):
        changed.wait(seconds=3)
    changed.refuse_boot(False)
    changed.wait(after=before)


def test_nouveau_is_loaded_at_boot_unless_it_is_blacklisted(changed: LabHost) -> None:
    changed.break_gpus("nouveau")
    for script, loaded in (
        ("true", True),
        ("echo blacklist nouveau >/etc/modprobe.d/b.conf", False),
    ):
        inside(changed, script)
        before = changed.boot_id()
        changed.run(["systemctl", "reboot"])
        changed.wait(after=before)
        assert (changed.run(["test", "-d", "/sys/module/nouveau"]).returncode == 0) is loaded


def test_gpus_can_break_and_go_and_a_reset_repairs_them(changed: LabHost) -> None:
    changed.break_gpus("version-mismatch")
    assert json.loads(inside(changed, "cat /usr/share/lab-gpu/gpus.json"))["faults"] == ["version-mismatch"]
    changed.remove_gpus(1)
    assert inside(changed, "grep -l 0x10de /sys/bus/pci/devices/*/vendor | wc -l") == "1"
    changed.reset()
    assert inside(changed, "grep -l 0x10de /sys/bus/pci/devices/*/vendor | wc -l") == "2"
    assert json.loads(inside(changed, "cat /usr/share/lab-gpu/gpus.json"))["faults"] == []


# The inventory


def inventory(name: str) -> subprocess.CompletedProcess[str]:
    """What the dynamic inventory says of a lab."""
    return subprocess.run(
        [HOSTS_SCRIPT, "--list"],
        env={**os.environ, "PROVISION_LAB": name},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_inventory_says_how_hosts_are_reached(lab: Lab) -> None:
    document = json.loads(inventory(LAB).stdout)
    assert document["gpu-nodes"]["hosts"] == [host.name for host in lab.hosts]
    for host in lab.hosts:
        found = document["_meta"]["hostvars"][host.name]
        assert (found["ansible_host"], found["ansible_user"]) == (host.address, "admin")
        assert found["host_key"] == host.host_key
        assert found.get("ansible_become_password") == host.sudo_password
    assert document["gpu-nodes"]["vars"]["mirror"]["base"] == f"{lab.layout.apt_url}/mirror"


def test_the_inventory_of_a_lab_that_is_down_says_what_to_do(spare: Lab) -> None:
    done = inventory(spare.layout.name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the lab is not up: inv lab.up starts it; for hosts of your own: --inventory PATH\n"


# The whole


def test_nothing_is_left_after_down(spare: Lab) -> None:
    spare.up(1)
    layout = spare.layout
    assert processes(spare)
    spare.down()
    assert processes(spare) == []
    assert str(layout.state) not in Path("/proc/self/mounts").read_text()
    assert not Path("/sys/class/net", layout.bridge).exists()
    assert not layout.state.exists()
    assert not lab_group(layout.name).path.exists()
    assert not list(Path("/run/systemd/nspawn/propagate").glob(f"{layout.name}-*"))
    assert spare.status() == []
    heard: list[str] = []
    spare.down(heard.append)
    assert heard == ["lab 'spare' was not up"]


def test_up_keeps_hosts_adds_those_that_lack_and_boots_those_that_are_off(spare: Lab) -> None:
    spare.up(1)
    (first,) = spare.hosts
    inside(first, "echo kept >/root/mark")
    boot = first.boot_id()
    spare.up(1)
    assert spare.hosts[0].boot_id() == boot
    first.kill()
    spare.up(2)
    assert [host.name for host in spare.hosts] == ["gpu-01", "gpu-02"]
    assert inside(first, "cat /root/mark") == "kept"


def test_up_repairs_a_host_whose_container_was_killed(spare: Lab) -> None:
    spare.up(1)
    (host,) = spare.hosts
    kill_all(lambda line: "systemd-nspawn" in line and str(host.root) in line)
    spare.up(1)
    assert ssh(host, "true").returncode == 0


def test_up_starts_anew_when_everything_was_killed(spare: Lab) -> None:
    spare.up(1)
    old_key = spare.hosts[0].host_key
    kill_all(lambda line: any(mark in line for mark in (str(spare.layout.state), spare.layout.bridge)))
    heard: list[str] = []
    spare.up(1, heard.append)
    assert "removed what an earlier lab had left" in heard
    (host,) = spare.hosts
    assert host.host_key != old_key
    assert ssh(host, "true").returncode == 0


def kill_all(chosen: Callable[[str], bool]) -> None:
    """Kill the processes of the spare lab whose command line is chosen, as a crash would."""
    victims: list[int] = []
    for pid in lab_group("spare").pids():
        # Short-lived ones may be gone by now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if chosen(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()):
                victims.append(pid)
    assert victims
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while set(victims) & set(lab_group("spare").pids()):
        assert time.monotonic() < deadline, "processes do not die"
        time.sleep(0.02)


def test_a_network_in_use_is_refused(spare: Lab) -> None:
    gateway = spare.layout.gateway
    subprocess.run(["ip", "address", "add", f"{gateway}/32", "dev", "lo"], check=True)
    try:
        with pytest.raises(UsageError, match=r"is in use on this machine, by lo"):
            spare.up(1)
    finally:
        subprocess.run(["ip", "address", "delete", f"{gateway}/32", "dev", "lo"], check=True)


def test_labs_do_not_disturb_each_other(lab: Lab, spare: Lab) -> None:
    boots = [host.boot_id() for host in lab.hosts]
    spare.up(1)
    spare.down()
    assert [host.boot_id() for host in lab.hosts] == boots
    socket.create_connection((lab.layout.gateway, 8081), timeout=5).close()


def test_state_is_for_root_only(lab: Lab) -> None:
    assert lab.layout.state.stat().st_mode & 0o077 == 0
    assert lab.layout.state_file.stat().st_mode & 0o077 == 0
    assert lab.layout.state.parent == STATE_ROOT


@pytest.mark.parametrize("count", [0, -1, 201])
def test_a_senseless_number_of_hosts_is_refused(lab: Lab, count: int) -> None:
    with pytest.raises(UsageError, match="a lab has 1 to 200 hosts"):
        lab.up(count)


def test_an_unknown_lab_is_refused() -> None:
    with pytest.raises(UsageError, match="no lab is called 'x'") as caught:
        Lab("x")
    assert caught.value.hint == f"known: {', '.join(NETWORKS)}"
