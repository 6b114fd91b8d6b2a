"""``bare.seed``: what it writes, asks and refuses."""

from __future__ import annotations

import json
import shutil
import sys
import zoneinfo
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provision.bare import seed_settings
from provision.bare.bootstrap_settings import Bootstrap
from provision.bare.seed_folder import KEY
from provision.cli.options import Options
from provision.cli.seeds import write
from provision.connection import knows, ssh_config
from provision.connection.login import Login
from provision.errors import SettingsError, UsageError

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F ops@desk"
PASSWORD = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc" + (
    "1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
)
SEED = f"system: debian, disk: /dev/sda, password: {PASSWORD}, authorized_keys: [{PUBLIC}]"


def public(private: Any) -> str:
    """The line of a .pub file."""
    line: bytes = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return line.decode()


SHORT_RSA = public(rsa_key(65537, 1024))
SECURITY_KEY = "sk-ssh-ed25519@openssh.com " + (
    "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7FAAAABHNzaDo="
)


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
        (SEED.replace(PASSWORD, "s3cret"), "the password is not a whole crypt hash"),
        (SEED.replace(PASSWORD, PASSWORD[:-1]), "the password is not a whole crypt hash"),
        (SEED.replace(PASSWORD, f'"{PASSWORD}\\n"'), "the password is not a whole crypt hash"),
        (SEED.replace(PUBLIC, PUBLIC[:60]), "is not a whole public key"),
        (SEED.replace(PUBLIC, f'"{PUBLIC}\\n{PUBLIC}"'), "does not match"),
        (SEED.replace("disk: /dev/sda, ", ""), "the installer needs a disk"),
        (SEED.replace("/dev/sda", "/dev/sda;reboot"), "does not match"),
        (f"{SEED}, hostname: 192.0.2.1", "192.0.2.1 is not a name that a machine can have"),
        (f"{SEED}, hostname: {'a' * 40}.{'b' * 40}", "is not a name that a machine can have"),
        (f"{SEED}, hostname: '10.7'", "10.7 is not a name that a machine can have"),
        (f"{SEED}, hostname: localhost", "localhost is not a name that a machine can have"),
        (f"{SEED}, timezone: Europe/Atlantis", "has no time zone Europe/Atlantis"),
        (f"{SEED}, timezone: europe/berlin", "has no time zone europe/berlin (did you mean Europe/Berlin?)"),
        (f"{SEED}, mirror: 'http://m:99999/debian'", "http://m:99999/debian names no host"),
        (f"{SEED}, mirror: 'http://./debian'", "http://./debian names no host"),
        (f"{SEED}, network: {{interface: lo}}", "lo leads to no network"),
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
                ("192.0.2.9/0.0.0.255", "192.0.2.1", "not an address with its prefix"),
                ("192.0.2.9/255.255.255.0", "192.0.2.1", "not an address with its prefix"),
                ("192.0.2.9/0", "192.0.2.1", "not an address with its prefix"),
                ("127.0.0.1/8", "127.0.0.2", "127.0.0.1 is not an address at which a network has a machine"),
                ("224.0.0.9/24", "224.0.0.1", "224.0.0.9 is not an address at which"),
                ("192.0.2.9/24", "0.0.0.0", "0.0.0.0 is not an address at which"),
                ("2001:db8::/64", "2001:db8::1", "is the subnet-router address"),
            )
        ),
        *(
            (
                SEED.replace("debian", "ubuntu") + f", network: {{mac: '{mac}'}}",
                f"{mac} is not the hardware address",
            )
            for mac in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01")
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
    assert says in f"{caught.value} ({caught.value.hint})"
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


BY_ID = "/dev/disk/by-id/"


@pytest.mark.parametrize("name", ["nvme-SAMSUNG_MZQL2_S64F", "ata-INTEL_SSD_PHY", "scsi-35000c500a1b2c3d4"])
def test_two_machines_with_one_disk(site: Site, name: str) -> None:
    """A copied line: where both disks are there, the wrong one would be wiped."""
    site.inventory(SEED.replace("/dev/sda", BY_ID + name))
    with pytest.raises(UsageError, match=f"gpu-01 and gpu-02 are both to have seed.disk {name}") as no:
        site.write()
    assert no.value.hint == "inv inventory --host gpu-02 shows where each value stands"
    assert not site.out.exists()


@pytest.mark.parametrize("name", ["scsi-0QEMU_QEMU_HARDDISK_drive-scsi0", "md-name-any:0", "dm-name-mpatha"])
def test_names_that_disks_of_many_machines_have(site: Site, name: str) -> None:
    site.inventory(SEED.replace("/dev/sda", BY_ID + name))
    site.write()


def test_an_image_leaves_disks_alone(site: Site) -> None:
    seed = SEED.replace("/dev/sda", f"{BY_ID}ata-A_B")
    site.inventory(f"{seed}, method: image, network: {{interface: eno1}}")
    site.write()


def test_a_copied_seed_has_the_host_key_of_another_machine(site: Site) -> None:
    site.write()
    shutil.copy(site.out / "gpu-01" / KEY, site.out / "gpu-02" / KEY)
    site.known.unlink()
    with pytest.raises(UsageError, match="gpu-01 and gpu-02 are both to have the host key SHA256:") as no:
        site.write()
    assert no.value.hint == f"one is a copy: take {site.out}/gpu-02/{KEY} away, if no machine has it yet"
    assert not site.known.exists()


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        ("/dev/sda1", "/dev/sda1 is a partition (disk: /dev/sda; all that it holds is lost)"),
        ("/dev/vdb12", "disk: /dev/vdb;"),
        ("/dev/nvme0n1p1", "/dev/nvme0n1p1 is a partition (disk: /dev/nvme0n1;"),
        ("/dev/mmcblk0p2", "disk: /dev/mmcblk0;"),
        ("/dev/md127p1", "disk: /dev/md127;"),
        (f"{BY_ID}ata-A_B-part1", f"{BY_ID}ata-A_B-part1 is a partition (disk: {BY_ID}ata-A_B;"),
        (f"{BY_ID}dm-uuid-part1-mpath-36", f"is a partition (disk: {BY_ID}dm-uuid-mpath-36;"),
        ("/dev/nvme0", "/dev/nvme0 is a controller, and no disk (disk: /dev/nvme0n1;"),
        *(
            (disk, f"{disk} is not the name of a disk (ls -l {BY_ID} shows disks by model and serial number)")
            for disk in (
                "/dev/null",
                "/dev/sr0",
                "/dev/loop0",
                "/dev/disk",
                "/dev/..",
                f"{BY_ID}..",
                f"{BY_ID}lvm-pv-uuid-x",
            )
        ),
    ],
)
def test_what_is_no_whole_disk(site: Site, disk: str, says: str) -> None:
    site.inventory(SEED.replace("/dev/sda", disk))
    with pytest.raises(SettingsError) as caught:
        site.write()
    assert says in f"{caught.value} ({caught.value.hint})"


@pytest.mark.parametrize(
    "disk",
    [
        "/dev/sdaa",
        "/dev/nvme10n1",
        "/dev/md127",
        "/dev/mmcblk0",
        f"{BY_ID}wwn-0x5000c500",
        f"{BY_ID}ata-part1-X_2",
    ],
)
def test_whole_disks(site: Site, disk: str) -> None:
    site.inventory(SEED.replace("/dev/sda", disk), hosts="gpu-01: {}")
    site.write()


def test_a_machine_without_tzdata_takes_any_zone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_settings, "_timezones", zoneinfo.available_timezones)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath([])
    try:
        site.inventory(f"{SEED}, timezone: Europe/Atlantis")
        site.write()
    finally:
        zoneinfo.reset_tzpath()


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP1/U4EddRIpUt9K", "sshd takes no public key of the type ssh-dss"),
        (
            PUBLIC.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
            "no public key of the type ssh-ed25519-cert",
        ),
        (SHORT_RSA, "an RSA key must have 2048 bits, and this one has 1024"),
        (PUBLIC[:60], "is not a whole public key"),
    ],
)
def test_public_keys_that_sshd_would_not_take(site: Site, key: str, says: str) -> None:
    site.inventory(SEED.replace(PUBLIC, key))
    with pytest.raises(SettingsError, match=says):
        site.write()
    with pytest.raises(ValueError, match=says):
        Bootstrap.model_validate_json(json.dumps({"authorized_keys": [key]}))


@pytest.mark.parametrize("key", [SECURITY_KEY, public(ec_key(SECP256R1())), public(rsa_key(65537, 2048))])
def test_public_keys_that_sshd_takes(key: str) -> None:
    assert Bootstrap(authorized_keys=(key,)).authorized_keys == (key,)


def test_what_an_earlier_seed_had_does_not_stay(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """cloud-init would read the network of it; and an installer of another system would be answered."""
    ubuntu = SEED.replace("debian", "ubuntu")
    site.inventory(f"{ubuntu}, network: {{interface: eno1}}", hosts="gpu-01: {}")
    site.write()
    (site.out / "gpu-01/notes").write_text("mine\n")
    site.inventory(ubuntu, hosts="gpu-01: {}")
    before = site.texts()
    with pytest.raises(UsageError, match="no seed was written"):
        site.write(yes=False, answer=False)
    assert site.questions == [f"Overwrite 1 file and remove {site.out}/gpu-01/network-config?"]
    assert site.texts() == before
    capsys.readouterr()
    site.write(yes=False)
    assert "  removed: network-config\n" in capsys.readouterr().out
    assert "gpu-01/network-config" not in site.texts()
    site.inventory(hosts="gpu-01: {}")
    site.write()
    assert {name for name in site.texts() if KEY not in name} == {"gpu-01/preseed.cfg", "gpu-01/notes"}


def test_a_host_key_that_others_could_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        site.write()
        assert "others could read" not in capsys.readouterr().err
        key = site.out / "gpu-01" / KEY
        for path, mode in ((key, 0o644), (key.parent, 0o755), (site.out, 0o755), (Path(folder), 0o755)):
            path.chmod(mode)
        site.write()
        said = capsys.readouterr().err
        assert f"gpu-01: others could read the host key of its seed, {key}\n" in said
        assert "gpu-02" not in said
        assert key.stat().st_mode & 0o777 == 0o600
        key.chmod(0o644)
        site.write()
        assert "others could read" not in capsys.readouterr().err, "its folder lets nobody in"


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
