"""Keys of many hosts side by side: new ones are recorded when somebody agrees, contradicting ones refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provision.cli.enrolling import enroll
from provision.cli.options import Options
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.errors import UnreachableError, UsageError
from tests.sshd import SSHD, sshd
from tests.unit.test_console import EC, ED, OTHER, block

THIRD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFQKE0R0euI9QbJEAlruKW4h4r/iEXh9c7/qOnhM+zmN"


class Site:
    """A folder with an inventory, a known_hosts file and logs of consoles.

    :ivar questions: what was asked.
    """

    def __init__(self, folder: Path, hosts: str = "gpu-01: {}, gpu-02: {}, gpu-03: {}") -> None:
        self.folder = folder
        self.known = folder / "known_hosts"
        self.questions: list[str] = []
        (folder / "hosts.yml").write_text(
            f"all: {{hosts: {{{hosts}}}, vars: {{ansible_user: ops, ansible_ssh_common_args: "
            f"'-o UserKnownHostsFile={self.known} -o GlobalKnownHostsFile=/nonexistent'}}}}\n"
        )

    def log(self, text: str, name: str = "sol.log") -> str:
        """The path of a new log."""
        (self.folder / name).write_text(text, newline="")
        return str(self.folder / name)

    def ask(self, question: str, instead: str) -> bool:
        assert instead == "--yes"
        self.questions.append(question)
        return True

    def enroll(self, *files: str, hosts: str = "all", **more: object) -> int:
        """Run the command; its exit code."""
        options = Options(
            hosts=hosts, inventory=str(self.folder / "hosts.yml"), json=bool(more.pop("json", 0))
        )
        with pytest.raises(SystemExit) as ended:
            enroll(options, files, **{"yes": False, "ask": self.ask, **more})  # type: ignore[arg-type]
        assert isinstance(ended.value.code, int)
        return ended.value.code


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_keys_of_several_consoles_in_one_log(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    log = site.log(block() + block(f"{OTHER} root@gpu-02").replace("\n", "\r\n"))
    assert site.enroll(log) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["gpu-01", "new", "ecdsa-sha2-nistp256"],
        ["gpu-01", "new", "ssh-ed25519"],
        ["gpu-02", "new", "ssh-ed25519"],
    ]
    assert lines[3] == "gpu-03  missing  no log has a whole key of it with its fingerprint before it"
    assert site.questions == ["Trust these 3 keys from now on?"]
    assert site.known.read_text() == f"gpu-01 {EC}\ngpu-01 {ED}\ngpu-02 {OTHER}\n"
    assert f"3 keys of 2 hosts recorded in {site.known}" in said.err
    assert site.enroll(log, hosts="gpu-01:gpu-02") == 0, "they are known, and nobody is asked again"
    assert len(site.questions) == 1


def test_a_key_that_contradicts_a_known_one_is_refused(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.known.write_text(f"gpu-01 {OTHER}\n")
    log = site.log(block() + block(f"{THIRD} root@gpu-02"))
    assert site.enroll(log, hosts="gpu-01:gpu-02") == 1
    said = capsys.readouterr()
    assert "gpu-01  refused" in said.out
    assert f"gpu-01: the key contradicts the known one: gpu-01 shows {ED.split()[0]} SHA256:" in said.err
    assert f"(`ssh-keygen -R 'gpu-01' -f {site.known}`)" in said.err
    assert site.known.read_text() == f"gpu-01 {OTHER}\ngpu-02 {THIRD}\n", "the other host is recorded"


def test_a_key_that_contradicts_the_inventory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, f"gpu-01: {{host_key: '{OTHER}'}}")
    assert site.enroll(site.log(block())) == 1
    assert "host_key in the inventory" in capsys.readouterr().err
    assert (site.questions, site.known.exists()) == ([], False)


def test_one_known_key_is_enough_and_a_type_more_is_left_alone(site: Site) -> None:
    site.known.write_text(f"gpu-01 {EC}\n")
    assert site.enroll(site.log(block()), hosts="gpu-01") == 0
    assert site.known.read_text() == f"gpu-01 {EC}\n"


def test_two_installations_in_the_logs_are_refused(site: Site) -> None:
    log = site.log(block(f"{ED} root@gpu-01"))
    again = site.log(block(f"{OTHER} root@gpu-01"), "later.log")
    assert site.enroll(log, again, hosts="gpu-01") == 1
    assert (site.questions, site.known.exists()) == ([], False)


def test_a_log_without_a_name_needs_its_host(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    log = site.log("\n" + block(ED))
    assert site.enroll(log, hosts="gpu-01") == 1
    said = capsys.readouterr().err
    assert (
        f"{log}:5: nothing in the log tells which host they are of; nothing is taken from this block" in said
    )
    assert f"--from-console HOST={log}" in said
    assert site.enroll(f"gpu-01={log}", hosts="gpu-01") == 0
    assert site.known.read_text() == f"gpu-01 {ED}\n"


def test_a_log_of_another_host_than_is_said(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.enroll(f"gpu-02={site.log(block())}", hosts="gpu-02") == 1
    assert "this log is said to be of gpu-02, and names gpu-01" in capsys.readouterr().err
    assert not site.known.exists()


def test_cut_logs_say_where(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    whole = f"{EC} root@gpu-01"
    cut = site.log(block()[:-8])
    assert site.enroll(cut, hosts="gpu-01") == 1
    assert f"{cut}:5: the block of host keys has no end; nothing is taken from it" in capsys.readouterr().err
    damaged = site.log(block(whole, f"{ED[:-9]}", f"{ED[-9:]} root@gpu-01", prints=[whole]))
    assert site.enroll(damaged, hosts="gpu-01") == 0
    assert f"{damaged}:6: cut, or not a key alone; nothing is taken from this line" in capsys.readouterr().err
    assert site.known.read_text() == f"gpu-01 {EC}\n"


def test_an_empty_log_leaves_what_the_others_have(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    empty, good = site.log("", "empty.log"), site.log(block())
    assert site.enroll(empty, good, hosts="gpu-01") == 0
    assert f"{empty}: no host keys of cloud-init are in it" in capsys.readouterr().err
    assert site.known.read_text() == f"gpu-01 {EC}\ngpu-01 {ED}\n"


def test_a_key_without_its_fingerprint_is_not_recorded(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    log = site.log(block().replace("Gu1v", "Gu2v"))
    assert site.enroll(log, hosts="gpu-01") == 0
    said = capsys.readouterr().err
    assert f"{log}:7: its fingerprint is not printed before it: ssh-ed25519 SHA256:" in said
    assert site.known.read_text() == f"gpu-01 {EC}\n"
    assert site.enroll(site.log(block(f"{OTHER} root@gpu-02", prints=[])), hosts="gpu-02") == 1
    assert "gpu-02" not in site.known.read_text()


def test_without_a_yes_nothing_is_recorded(site: Site) -> None:
    options = Options(hosts="gpu-01", inventory=str(site.folder / "hosts.yml"))
    with pytest.raises(UsageError, match="the keys were not recorded"):
        enroll(options, [site.log(block())], yes=False, ask=lambda *_: False)
    assert not site.known.exists()


def test_logs_that_are_not_there(site: Site) -> None:
    options = Options(hosts="gpu-01", inventory=str(site.folder / "hosts.yml"))
    with pytest.raises(UsageError, match="/nonexistent: No such file"):
        enroll(options, ["/nonexistent"], yes=True)
    with pytest.raises(UsageError, match="--from-console gpu-01= names no file"):
        enroll(options, ["gpu-01="], yes=True)
    with pytest.raises(UsageError, match="no host of the inventory is called gpu-09"):
        enroll(options, ["gpu-09=/nonexistent"], yes=True)


def test_json_has_every_host(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def fetch(login: Login) -> HostKey:
        if login.host == "gpu-02":
            raise UnreachableError("gpu-02", "no route to host", hint="is it up?")
        return HostKey(*(OTHER if login.host == "gpu-03" else ED).split())

    site.known.write_text(f"gpu-03 {THIRD}\n")
    assert site.enroll(json=True, yes=True, fetch=fetch) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert {name: host["status"] for name, host in found["hosts"].items()} == {
        "gpu-01": "new",
        "gpu-02": "missing",
        "gpu-03": "refused",
    }
    assert found["hosts"]["gpu-02"]["error"] == {"message": "no route to host", "hint": "is it up?"}
    assert site.known.read_text() == f"gpu-03 {THIRD}\ngpu-01 {ED}\n"


def test_consoles_of_clones_are_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Machines of one image with its host keys: who has the key of one can be all of them."""
    log = site.log(
        block() + block(f"{OTHER} root@gpu-02", f"{EC} root@gpu-02") + block(f"{THIRD} root@gpu-03")
    )
    assert site.enroll(log) == 1
    said = capsys.readouterr()
    assert [line.split()[:2] for line in said.out.splitlines()] == [
        ["gpu-01", "refused"],
        ["gpu-01", "refused"],
        ["gpu-02", "refused"],
        ["gpu-02", "refused"],
        ["gpu-03", "new"],
    ]
    fingerprint = HostKey.of(EC).fingerprint
    for one, other in (("gpu-01", "gpu-02"), ("gpu-02", "gpu-01")):
        assert (
            f"{one}: it has the host key of {other}, so each can pretend to be the other: "
            f"ecdsa-sha2-nistp256 {fingerprint}\n  hint: clones of one image? on all: rm /etc/ssh/ssh_host_*"
        ) in said.err
    assert site.known.read_text() == f"gpu-03 {THIRD}\n"


def test_a_clone_of_a_trusted_host_is_refused_over_the_network_too(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.known.write_text(f"gpu-01 {ED}\n")
    assert site.enroll(hosts="gpu-01:gpu-02", fetch=lambda _: HostKey.of(ED)) == 1
    said = capsys.readouterr()
    assert [line.split()[:2] for line in said.out.splitlines()] == [
        ["gpu-01", "known"],
        ["gpu-02", "refused"],
    ]
    assert "gpu-01: it has the host key of gpu-02, so" in said.err
    assert "gpu-02: it has the host key of gpu-01, so" in said.err
    assert (site.questions, site.known.read_text()) == ([], f"gpu-01 {ED}\n")


def test_one_machine_with_two_names_is_no_clone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, "a: {ansible_host: 192.0.2.1}, b: {ansible_host: 192.0.2.1}")
    assert site.enroll(fetch=lambda _: HostKey.of(ED)) == 0
    assert "pretend" not in capsys.readouterr().err
    given = f"host_key: '{ED}'"
    site = Site(tmp_path, f"a: {{ansible_host: 192.0.2.1, {given}}}, b: {{ansible_host: 192.0.2.2, {given}}}")
    assert site.enroll(fetch=lambda _: HostKey.of(ED)) == 0
    assert "a: it has the host key of b, so" in capsys.readouterr().err, (
        "the inventory says so, and it is told"
    )


def test_a_new_key_that_known_hosts_has_for_another_name_is_told(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another name of the machine, as ssh(1) has it after a login, or the machine that it was cloned from."""
    site.known.write_text(f"192.0.2.1,rack-9 {ED}\ngpu-01 {OTHER}\n")
    assert site.enroll(hosts="gpu-02", fetch=lambda _: HostKey.of(ED)) == 0
    assert (
        "gpu-02: known_hosts has this key for 192.0.2.1, rack-9, too: is that the same machine, or a clone?"
        in capsys.readouterr().err
    )
    assert site.enroll(hosts="gpu-02", fetch=lambda _: HostKey.of(ED)) == 0
    assert "too:" not in capsys.readouterr().err


@pytest.mark.skipif(not SSHD.exists(), reason="sshd is not installed")
def test_a_real_sshd_is_enrolled_and_then_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sshd() as server:
        site = Site(tmp_path, f"gpu-01: {{ansible_host: 127.0.0.1, ansible_port: {server.port}}}")
        assert site.enroll() == 0
        assert site.known.read_text() == f"[127.0.0.1]:{server.port} {server.host_key}\n"
        # Of a host that is known by a key of another type, that one is asked for.
        ecdsa = (server.folder / "host_ecdsa.pub").read_text().split()
        site.known.write_text(f"[127.0.0.1]:{server.port} {ecdsa[0]} {ecdsa[1]}\n")
        assert site.enroll() == 0
        site.known.write_text(f"[127.0.0.1]:{server.port} {OTHER}\n")
        assert site.enroll() == 1
        assert "the key contradicts the known one" in capsys.readouterr().err
        assert site.questions == ["Trust this key from now on?"]
