"""``bare.seed``: what it writes, asks and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provision.bare.seed_folder import KEY
from provision.cli.options import Options
from provision.cli.seeds import write
from provision.connection import knows, ssh_config
from provision.connection.login import Login
from provision.errors import SettingsError, UsageError

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F ops@desk"
PASSWORD = "$6$saltsalt$0123456789abcdef"
SEED = f"system: debian, disk: /dev/sda, password: {PASSWORD}, authorized_keys: [{PUBLIC}]"


class Site:
    """A folder with an inventory of two machines that are to be.

    :ivar questions: what was asked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.out = folder, folder / "known_hosts", folder / "seeds"
        self.questions: list[str] = []
        self.arguments = f"-o UserKnownHostsFile={self.known} -o GlobalKnownHostsFile=/nonexistent"
        self.inventory()

    def inventory(self, seed: str = SEED, hosts: str = "gpu-01: {}, gpu-02: {}", user: str = "ops") -> None:
        """Write the inventory anew."""
        (self.folder / "hosts.yml").write_text(
            f"all:\n  hosts: {{{hosts}}}\n  vars:\n    ansible_user: {user}\n"
            f"    ansible_ssh_common_args: {self.arguments}\n    seed: {{{seed}}}\n"
        )

    def write(self, *, yes: bool = True, answer: bool = True, as_json: bool = False) -> None:
        """Run the command."""

        def ask(question: str, instead: str) -> bool:
            assert instead == "--yes"
            self.questions.append(question)
            return answer

        options = Options(hosts="all", inventory=str(self.folder / "hosts.yml"), json=as_json)
        write(options, str(self.out), yes=yes, ask=ask)

    def texts(self) -> dict[str, str]:
        """The seeds' files with their content."""
        return {
            str(file.relative_to(self.out)): file.read_text()
            for file in self.out.rglob("*")
            if file.is_file()
        }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_seeds_are_for_their_owner_and_their_keys_are_known(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(yes=False)
    assert site.questions == [f"Record 2 host keys in {site.known}?"]
    assert sorted(site.texts()) == sorted(
        f"{host}/{name}" for host in ("gpu-01", "gpu-02") for name in (KEY, f"{KEY}.pub", "preseed.cfg")
    )
    modes = {path.stat().st_mode & 0o777 for path in site.out.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (site.out, *site.out.iterdir())} == {0o700}
    for host in ("gpu-01", "gpu-02"):
        public = " ".join((site.out / host / f"{KEY}.pub").read_text().split()[:2])
        assert f"{host} {public}" in site.known.read_text().splitlines()
        login = Login.of(host, {"ansible_ssh_common_args": site.arguments}, ssh_config())
        assert knows(login), "so the first connection is trusted"
    said = capsys.readouterr()
    assert "gpu-01: debian, installer: " in said.out
    assert PASSWORD not in said.out + said.err
    assert "PRIVATE" not in said.out + said.err


def test_the_same_again_keeps_keys_and_asks_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.write()
    before, known = site.texts(), site.known.read_text()
    capsys.readouterr()
    site.write(yes=False, answer=False)
    assert (site.questions, site.texts(), site.known.read_text()) == ([], before, known)
    assert capsys.readouterr().out.count("host key kept") == 2


def test_nothing_is_overwritten_without_a_yes(site: Site) -> None:
    site.write()
    before = site.texts()
    site.inventory(f"{SEED}, root_gib: 60")
    with pytest.raises(UsageError, match="no seed was written"):
        site.write(yes=False, answer=False)
    assert site.questions == ["Overwrite 2 files?"]
    assert site.texts() == before
    site.write(yes=False)
    after = site.texts()
    assert {name for name in after if after[name] != before[name]} == {
        "gpu-01/preseed.cfg",
        "gpu-02/preseed.cfg",
    }


def test_what_a_run_left_undone_is_done_by_the_next(site: Site) -> None:
    site.write()
    site.known.unlink()
    (site.out / "gpu-02/preseed.cfg").unlink()
    key = (site.out / "gpu-01" / KEY).read_text()
    site.write()
    assert (site.out / "gpu-01" / KEY).read_text() == key
    assert (site.out / "gpu-02/preseed.cfg").exists()
    assert len(site.known.read_text().splitlines()) == 2


def test_another_key_than_the_known_one_is_refused(site: Site) -> None:
    site.write()
    site.out = site.folder / "others"
    with pytest.raises(
        UsageError, match="gpu-01: the host key of its seed is refused: the key contradicts"
    ) as no:
        site.write()
    assert no.value.hint == (
        f"name the --out of the earlier run; or, for a new key: `ssh-keygen -R 'gpu-01' -f {site.known}`"
    )
    assert not site.out.exists()


def test_a_key_that_is_none_is_left_alone(site: Site) -> None:
    (site.out / "gpu-01").mkdir(parents=True)
    (site.out / "gpu-01" / KEY).write_text("no key\n")
    with pytest.raises(UsageError, match=f"gpu-01/{KEY}: not a private key of the type ed25519"):
        site.write()
    assert site.texts() == {f"gpu-01/{KEY}": "no key\n"}


def test_json(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.write(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    one = found["hosts"]["gpu-01"]
    assert one["files"] == one["written"] == [KEY, f"{KEY}.pub", "preseed.cfg"]
    assert one["host_key"]["made"] is True
    assert one["known_hosts"] == str(site.known)


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        ("system: debian", "seed.authorized_keys is missing"),
        (f"{SEED}, dsik: /dev/sda", "unknown setting 'dsik' in seed; did you mean 'disk'?"),
        (SEED.replace(PASSWORD, "s3cret"), "the password is not a crypt hash"),
        (SEED.replace(PASSWORD, f'"{PASSWORD}\\n"'), "the password is not a crypt hash"),
        (SEED.replace(PUBLIC, PUBLIC[:60]), "is not a whole public key"),
        (SEED.replace(PUBLIC, f'"{PUBLIC}\\n{PUBLIC}"'), "does not match"),
        (SEED.replace("disk: /dev/sda, ", ""), "the installer needs a disk"),
        (SEED.replace("/dev/sda", "/dev/sda;reboot"), "does not match"),
        (f"{SEED}, hostname: 192.0.2.1", "is an address, not a host name"),
        (f"{SEED}, account: Ops", "does not match"),
        (f"{SEED}, network: {{}}", "one of interface and mac must be given"),
        (
            f"{SEED}, network: {{mac: '0c:42:a1:00:00:01'}}",
            "knows interfaces by name only",
        ),
        (f"{SEED}, network: {{interface: eno1, address: 192.0.2.1}}", "not an address with its prefix"),
        (
            f"{SEED}, network: {{interface: eno1, gateway: 192.0.2.1}}",
            "need an address",
        ),
        (
            f"{SEED}, network: {{interface: eno1, address: 192.0.2.1/24, gateway: 198.51.100.1}}",
            "the gateway 198.51.100.1 is not in the network 192.0.2.0/24",
        ),
        *(
            (f"{SEED}, network: {{interface: eno1, address: {address}, gateway: {gateway}}}", says)
            for address, gateway, says in (
                ("192.0.2.0/24", "192.0.2.1", "192.0.2.0 is the network address of 192.0.2.0/24"),
                ("192.0.2.255/24", "192.0.2.1", "192.0.2.255 is the broadcast address of 192.0.2.0/24"),
                ("192.0.2.9/24", "192.0.2.9", "192.0.2.9 is the machine's own address"),
                ("192.0.2.9/24", "192.0.2.0", "192.0.2.0 is the network address"),
                ("192.0.2.9/24", "192.0.2.255", "192.0.2.255 is the broadcast address"),
                ("2001:db8::/64", "2001:db8::1", "is the subnet-router address"),
            )
        ),
        (f"{SEED}, method: image", "an image needs the network"),
        (
            SEED.replace("debian, disk: /dev/sda", "ubuntu, disk: /dev/disk/by-id/wwn-0x5"),
            "cannot look for this name",
        ),
    ],
)
def test_settings_are_refused_with_their_place(site: Site, seed: str, says: str) -> None:
    site.inventory(seed)
    with pytest.raises(SettingsError) as caught:
        site.write()
    assert f"{site.folder}/hosts.yml:6: " in str(caught.value)
    assert says in str(caught.value)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert not site.out.exists()


@pytest.mark.parametrize(
    ("hosts", "user", "says"),
    [
        ("gpu_01: {}", "ops", "gpu_01 is not a name that a machine can have"),
        ("192.0.2.11: {}", "ops", "192.0.2.11 is not a name that a machine can have"),
        ("gpu-01: {}", "root", "gpu-01: root is not an account that an installer makes"),
        ("gpu-01: {}", "admin", "gpu-01: Debian's installer reserves the name admin, and would stop"),
        ("gpu-01: {}", "operator", "gpu-01: Debian's installer reserves the name operator"),
    ],
)
def test_hosts_that_cannot_be_seeded(site: Site, hosts: str, user: str, says: str) -> None:
    site.inventory(hosts=hosts, user=user)
    with pytest.raises(SettingsError, match=says) as caught:
        site.write()
    assert caught.value.hint
    assert not site.out.exists()


@pytest.mark.parametrize(
    ("seed", "account", "taken"),
    [
        ("system: debian, method: installer", "backup", True),
        ("system: debian, method: installer", "sshd", True),
        ("system: debian, method: installer", "ops", False),
        ("system: debian, method: image", "admin", False),
        ("system: debian, method: image", "sudo", True),
        ("system: ubuntu", "admin", False),
        ("system: ubuntu", "sudo", True),
        ("system: ubuntu", "systemd-network", True),
        ("system: ubuntu", "ubuntu", False),
        ("system: ubuntu", "wheel", False),
        ("system: rhel", "wheel", True),
        ("system: rhel", "sshd", True),
        ("system: rhel", "cloud-user", False),
    ],
)
def test_names_that_the_system_has_itself(site: Site, seed: str, account: str, taken: bool) -> None:
    of_system = SEED.replace("system: debian", seed)
    site.inventory(f"{of_system}, network: {{interface: eno1}}", user=account)
    if not taken:
        site.write()
        return
    with pytest.raises(SettingsError, match=f" {account}") as caught:
        site.write()
    assert "take another" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (
            "gpu-01: {ansible_host: 192.0.2.1}, gpu-02: {ansible_host: 192.0.2.1}",
            "the address in known_hosts 192.0.2.1",
        ),
        ("GPU-02: {}, gpu-02: {}", "(the host name|the address in known_hosts) gpu-02"),
        (
            "gpu-01: {ip: 192.0.2.7/24}, gpu-02: {ip: 192.0.2.7/25}",
            "seed.network.address 192.0.2.7",
        ),
    ],
)
def test_two_machines_with_one_address(site: Site, hosts: str, says: str) -> None:
    if "ip:" in hosts:
        for _ in range(2):
            hosts = hosts.replace("{ip: ", f"{{seed: {{{SEED}, network: {{interface: eno1, address: ", 1)
        hosts = hosts.replace("4}", "4}}}").replace("5}", "5}}}")
    site.inventory(hosts=hosts)
    with pytest.raises(UsageError, match=f"02 are both to have {says}") as no:
        site.write()
    assert "inv inventory --host" in str(no.value.hint)
    assert not site.known.exists()


def test_two_machines_with_one_mac(site: Site) -> None:
    site.inventory(SEED.replace("debian", "ubuntu") + ", network: {mac: '0c:42:a1:00:00:01'}")
    with pytest.raises(UsageError, match=r"are both to have seed\.network\.mac 0c:42:a1:00:00:01"):
        site.write()


def test_hosts_without_a_seed_are_left_out(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    text = (site.folder / "hosts.yml").read_text()
    (site.folder / "hosts.yml").write_text(text.replace("    seed: {", "    sed: {"))
    with pytest.raises(SettingsError, match="no role is called sed: did you mean seed"):
        site.write()
    (site.folder / "hosts.yml").write_text("all: {hosts: {gpu-01: {}, gpu-02: {}}}")
    with pytest.raises(UsageError, match="none of 2 hosts has seed: in the inventory"):
        site.write()
