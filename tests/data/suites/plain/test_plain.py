"""Plain testinfra tests of a Debian host, for any backend: each module that makes sense there."""

from __future__ import annotations

import pytest
from testinfra.host import Host

# ── packages and services ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["bash", "openssh-server", "systemd", "sudo", "docker.io", "containerd", "dbus"]
)
def test_package_is_installed(host: Host, name: str) -> None:
    assert host.package(name).is_installed
    assert host.package(name).version[0].isdigit()


@pytest.mark.parametrize("name", ["nothing-like-it", "nginx", "telnetd"])
def test_package_is_not_installed(host: Host, name: str) -> None:
    assert not host.package(name).is_installed


@pytest.mark.parametrize("name", ["ssh", "docker", "containerd", "dbus", "systemd-journald"])
def test_service_runs(host: Host, name: str) -> None:
    assert host.service(name).is_running


@pytest.mark.parametrize("name", ["ssh", "docker", "containerd"])
def test_service_starts_at_boot(host: Host, name: str) -> None:
    assert host.service(name).is_enabled
    assert not host.service(name).is_masked


def test_service_properties(host: Host) -> None:
    found = host.service("docker").systemd_properties
    assert found["Type"] == "notify"
    assert found["FragmentPath"].endswith("/docker.service")


def test_service_that_is_not_there(host: Host) -> None:
    assert not host.service("nothing-like-it").exists
    assert not host.service("nothing-like-it").is_running


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/passwd", 0o644),
        ("/etc/shadow", 0o640),
        ("/etc/sudoers", 0o440),
        ("/etc/docker/daemon.json", 0o644),
    ],
)
def test_file(host: Host, path: str, mode: int) -> None:
    file = host.file(path)
    assert file.exists
    assert file.is_file
    assert not file.is_directory
    assert file.user == "root"
    assert file.uid == 0
    assert file.mode == mode
    assert file.size > 0


@pytest.mark.parametrize("path", ["/etc", "/etc/docker", "/var/lib/dpkg", "/run/systemd/system"])
def test_folder(host: Host, path: str) -> None:
    assert host.file(path).is_directory
    assert host.file(path).mode == 0o755


def test_link(host: Host) -> None:
    file = host.file("/etc/os-release")
    assert file.is_symlink
    assert file.linked_to == "/usr/lib/os-release"


def test_content(host: Host) -> None:
    file = host.file("/etc/os-release")
    assert file.contains("^ID=debian$")
    assert b"VERSION_ID" in file.content
    assert len(file.sha256sum) == 64
    assert file.md5sum != file.sha256sum


def test_file_that_is_not_there(host: Host) -> None:
    assert not host.file("/nothing/like/it").exists


def test_folder_lists_its_files(host: Host) -> None:
    assert "passwd" in host.file("/etc").listdir()


def test_sizes_are_those_of_the_content(host: Host) -> None:
    file = host.file("/etc/hostname")
    assert file.size == len(file.content)


# ── the system ───────────────────────────────────────────────────────────────────────────────────────────


def test_system(host: Host) -> None:
    assert host.system_info.type == "linux"
    assert host.system_info.distribution == "debian"
    assert host.system_info.release.split(".")[0] in ("12", "13")
    assert host.system_info.arch in ("x86_64", "aarch64")


@pytest.mark.parametrize(
    ("name", "uid", "home"),
    [("root", 0, "/root"), ("daemon", 1, "/usr/sbin"), ("nobody", 65534, "/nonexistent")],
)
def test_user(host: Host, name: str, uid: int, home: str) -> None:
    user = host.user(name)
    assert user.exists
    assert user.uid == uid
    assert user.home == home


def test_user_that_is_not_there(host: Host) -> None:
    assert not host.user("nobody-like-it").exists


def test_groups(host: Host) -> None:
    assert host.group("root").gid == 0
    assert host.group("docker").exists
    assert "root" in host.user("root").groups


@pytest.mark.parametrize(("name", "value"), [("kernel.ostype", "Linux"), ("net.ipv4.ip_forward", 1)])
def test_kernel_parameter(host: Host, name: str, value: str | int) -> None:
    assert host.sysctl(name) == value


def test_listening(host: Host) -> None:
    assert host.socket("tcp://0.0.0.0:22").is_listening
    assert not host.socket("tcp://0.0.0.0:9").is_listening
    assert host.socket("unix:///run/docker.sock").is_listening


def test_processes(host: Host) -> None:
    assert host.process.get(pid=1).user == "root"
    assert len(host.process.filter(comm="dockerd")) == 1


def test_mounts(host: Host) -> None:
    assert host.mount_point("/proc").exists
    assert host.mount_point("/proc").filesystem == "proc"
    assert not host.mount_point("/nothing").exists


def test_addresses(host: Host) -> None:
    assert host.addr("localhost").is_resolvable
    assert "127.0.0.1" in host.addr("localhost").ipv4_addresses
    assert host.interface("lo").exists
    assert "127.0.0.1" in host.interface("lo").addresses


def test_environment(host: Host) -> None:
    assert "/usr/bin" in host.environment()["PATH"]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────


def test_command(host: Host) -> None:
    done = host.run("echo out; echo err >&2; exit 3")
    assert (done.rc, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.failed
    assert host.run("true").succeeded


def test_arguments_are_quoted(host: Host) -> None:
    assert host.check_output("printf %s", "it's a 'test'; $HOME") == "it's a 'test'; $HOME"


def test_empty_output(host: Host) -> None:
    assert host.run("true").stdout == ""
    assert host.check_output("true") == ""


def test_encoding(host: Host) -> None:
    assert host.check_output("printf %s", "zwölf 🚀") == "zwölf 🚀"
    assert host.run("printf '\\377'").stdout_bytes == b"\xff"


def test_much_output(host: Host) -> None:
    assert len(host.run("head -c 300000 /dev/zero | tr '\\0' x").stdout) == 300000


def test_both_streams_at_once(host: Host) -> None:
    done = host.run("for i in $(seq 2000); do echo $i; echo $i >&2; done")
    assert done.stdout == done.stderr
    assert done.stdout.count("\n") == 2000


def test_find_command(host: Host) -> None:
    assert host.exists("sh")
    assert not host.exists("nothing-like-it")
    assert host.find_command("sh").endswith("/sh")


def test_other_user(host: Host) -> None:
    with host.sudo("nobody"):
        assert host.check_output("id -un") == "nobody"
        assert host.run("cat /etc/shadow").failed
    with host.sudo("daemon"):
        assert host.check_output("id -un") == "daemon"
    assert host.check_output("id -un") == "root"


def test_writes_and_reads(host: Host) -> None:
    path = host.check_output("mktemp")
    assert host.file(path).content == b""
    assert host.run("echo x >%s", path).rc == 0
    assert host.file(path).content_string == "x\n"
    assert host.run("rm %s", path).rc == 0
    assert not host.file(path).exists


def test_counts(host: Host) -> None:
    first, second = host.check_output("cat /proc/uptime"), host.check_output("sleep 0.02; cat /proc/uptime")
    assert float(first.split()[0]) < float(second.split()[0])
