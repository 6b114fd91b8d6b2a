"""Seeds: the installers' own tools accept them, and read back what the settings say."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from debian.deb822 import Deb822
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from provision.bare.seed import Machine, files
from provision.bare.seed_folder import key_of
from provision.bare.seed_settings import CRYPT, Seed
from tests.unit.test_shell import needs_shellcheck, shellcheck

PYTHON = "/usr/bin/python3"
"""Debian's own, which has cloud-init's modules where cloud-init is installed."""

NETPLAN = Path("/usr/libexec/netplan/generate")

SYSTEMS = ("ubuntu", "debian", "rhel")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F ops@desk"

GIVEN: Mapping[str, Any] = {
    "authorized_keys": [KEY],
    "password": f"$6$salt${'0123456789' * 8}abcdef",
    "network": {
        "interface": "eno1",
        "address": "192.0.2.11/24",
        "gateway": "192.0.2.1",
        "nameservers": ["192.0.2.53", "192.0.2.54"],
    },
    "disk": "/dev/disk/by-id/nvme-SAMSUNG_MZQL2960HCJR_S64FNE0R123456",
    "time_servers": ["ntp1.example.com", "192.0.2.7"],
    "mirror": "http://mirror.example.com/os",
}

HOST_KEY, _ = key_of(Path("/nonexistent"))


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing; ``./inv test`` brings it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return pytest.mark.skipif(shutil.which(program, path=path) is None, reason=f"{program} is not installed")


def machine(system: str, hostname: str = "gpu-01.example.com", account: str = "ops", **given: Any) -> Machine:
    """A machine with all settings given, but for ``given``."""
    seed = Seed.model_validate_json(json.dumps({**GIVEN, "system": system, **given}))
    return Machine("gpu-01", hostname, account, seed, HOST_KEY)


def public_key(comment: str, curve: bool) -> str:
    private = generate_private_key(SECP256R1()) if curve else Ed25519PrivateKey.generate()
    text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{text} {comment}" if comment else text


KEYS = [public_key("", curve) for curve in (False, True)]
"""A few keys; what may be wrong with quoting is in their comments."""

printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
comments = st.one_of(
    printable, st.sampled_from(["it's", "a # b", "%end", "{{ x }}", "$(id)", "`id`", "\\", '"', " "])
)
keys = st.builds(lambda key, comment: f"{key} {comment}" if comment else key, st.sampled_from(KEYS), comments)
hashes = st.from_regex(CRYPT, fullmatch=True)
labels = st.builds(lambda a, b: f"{a}{b}{a}", st.sampled_from("ax0N9"), st.text("ab-Z09", max_size=20))
names = st.builds(lambda first, rest: ".".join([f"n{first}", *rest]), labels, st.lists(labels, max_size=3))
accounts = st.builds(lambda first, rest: first + rest, st.sampled_from("anz"), st.text("ay_-09", max_size=31))


def machines(system: str, **given: Any) -> st.SearchStrategy[Machine]:
    """Machines with any name, account, keys and password."""
    return st.builds(
        lambda hostname, account, found, password: machine(
            system, hostname, account, authorized_keys=found, password=password, **given
        ),
        names,
        accounts,
        st.lists(keys, min_size=1, max_size=3),
        st.none() | hashes,
    )


def batches(system: str, **given: Any) -> st.SearchStrategy[list[Machine]]:
    """So many that one start of a validator is worth it."""
    return st.lists(machines(system, **given), min_size=5, max_size=5)


def tried(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def run(*argv: str | Path, **more: Any) -> str:
    """What a program prints; it must succeed."""
    ran = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False, **more)
    said: str = ran.stdout
    assert ran.returncode == 0, said + ran.stderr
    return said


# cloud-init and Ubuntu's installer

VALIDATE = """
import sys
from cloudinit.config.schema import get_schema, validate_cloudconfig_file
schema = get_schema()
for path in sys.argv[1:]:
    validate_cloudconfig_file(path, schema)
"""


def valid_cloud_configs(texts: Sequence[str]) -> None:
    """Let cloud-init judge texts as its own command does, all in one process."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number, _ in enumerate(texts)]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        run(PYTHON, "-I", "-W", "ignore", "-c", VALIDATE, *paths)


def account_of(config: Mapping[str, Any], of: Machine) -> None:
    """The configuration has exactly the account, the keys and the names of the machine."""
    (user,) = config["users"]
    assert user["name"] == of.account
    assert user["ssh_authorized_keys"] == list(of.seed.authorized_keys)
    assert user.get("passwd") == of.password
    assert user["lock_passwd"] is (of.password is None)
    assert config["fqdn"] == of.hostname
    assert config["ssh_keys"]["ed25519_private"] == HOST_KEY.private
    assert config["ssh_keys"]["ed25519_public"].split()[1] == HOST_KEY.public.base64


@needs("cloud-init")
@pytest.mark.parametrize("system", SYSTEMS)
def test_cloud_init_accepts_what_an_image_reads(system: str, tmp_path: Path) -> None:
    found = files(machine(system, method="image"))
    assert list(found) == ["user-data", "meta-data", "network-config"]
    (tmp_path / "user-data").write_text(found["user-data"])
    said = run("cloud-init", "schema", "--config-file", tmp_path / "user-data")
    assert "Valid" in said


@needs("cloud-init")
@tried(2)
@given(st.one_of(*(batches(system, method="image") for system in SYSTEMS)))
def test_cloud_init_accepts_any_values(many: list[Machine]) -> None:
    found = [files(one) for one in many]
    valid_cloud_configs([texts["user-data"] for texts in found])
    for texts, one in zip(found, many, strict=True):
        account_of(yaml.safe_load(texts["user-data"]), one)
        assert yaml.safe_load(texts["meta-data"])["local-hostname"] == one.hostname


@needs("cloud-init")
@tried(2)
@given(batches("ubuntu"))
def test_cloud_init_accepts_what_ubuntus_installer_hands_on(many: list[Machine]) -> None:
    texts = [files(one)["user-data"] for one in many]
    handed_on = [yaml.safe_load(text)["autoinstall"]["user-data"] for text in texts]
    valid_cloud_configs([*texts, *(f"#cloud-config\n{json.dumps(config)}" for config in handed_on)])
    for config, one in zip(handed_on, many, strict=True):
        account_of(config, one)


def test_ubuntus_installer_is_told_all_that_it_would_ask() -> None:
    """The keys and their types are those of subiquity's autoinstall-schema.json."""
    found = yaml.safe_load(files(machine("ubuntu"))["user-data"])["autoinstall"]
    types = {
        "version": int, "locale": str, "keyboard": dict, "timezone": str, "ssh": dict, "packages": list,
        "drivers": dict, "updates": str, "storage": dict, "user-data": dict, "late-commands": list,
        "apt": dict, "network": dict,
    }  # fmt: skip
    assert {key: type(value) for key, value in found.items()} == types
    assert (found["version"], found["updates"], found["drivers"]) == (1, "security", {"install": False})
    assert found["apt"]["mirror-selection"] == {"primary": [{"uri": "http://mirror.example.com/os"}]}
    (late,) = found["late-commands"]
    assert late[:5] == ["curtin", "in-target", "--", "sh", "-c"]
    assert len(late) == 6


@pytest.mark.parametrize(
    ("disk", "match"),
    [
        ("/dev/nvme0n1", {"path": "/dev/nvme0n1"}),
        ("/dev/disk/by-id/nvme-SAMSUNG_MZQL2_S64F", {"serial": "SAMSUNG_MZQL2_S64F"}),
        ("/dev/disk/by-id/ata-INTEL_SSD-2_PHY", {"serial": "INTEL_SSD-2_PHY"}),
    ],
)
def test_ubuntus_disk_has_one_use_for_each_part(disk: str, match: dict[str, str]) -> None:
    """Every action names what an earlier one made; /var takes what / leaves."""
    actions = yaml.safe_load(files(machine("ubuntu", disk=disk, root_gib=60))["user-data"])["autoinstall"][
        "storage"
    ]["config"]
    made: list[str] = []
    for action in actions:
        used = [action[key] for key in ("device", "volume", "volgroup") if key in action]
        assert {*used, *action.get("devices", [])} <= set(made), action
        made.append(action["id"])
    assert len(set(made)) == len(made)
    assert actions[0]["match"] == match
    assert {a["path"] for a in actions if a["type"] == "mount"} == {"/", "/boot", "/boot/efi", "/var"}
    assert {a["name"]: a["size"] for a in actions if a["type"] == "lvm_partition"} == {
        "root": "60G",
        "var": -1,
    }


@pytest.mark.skipif(not NETPLAN.exists(), reason="netplan is not installed")
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"interface": "eno1"}, ["Name=eno1", "DHCP=ipv4"]),
        ({"mac": "0c:42:a1:00:00:01"}, ["PermanentMACAddress=0c:42:a1:00:00:01", "DHCP=ipv4"]),
        (
            GIVEN["network"],
            ["Address=192.0.2.11/24", "Gateway=192.0.2.1", "DNS=192.0.2.53", "DNS=192.0.2.54"],
        ),
        (
            {"interface": "eno1", "address": "2001:db8::b/64", "gateway": "2001:db8::1"},
            ["Address=2001:db8::b/64", "Destination=::/0", "Gateway=2001:db8::1"],
        ),
    ],
)
def test_netplan_makes_the_network(network: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    document = yaml.safe_load(files(machine("ubuntu", network=network))["network-config"])
    file = tmp_path / "etc/netplan/seed.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"network": document}))
    file.chmod(0o600)
    run(NETPLAN, "--root-dir", tmp_path)
    made = "".join(path.read_text() for path in (tmp_path / "run/systemd/network").glob("*.network"))
    assert [line for line in expected if line not in made.splitlines()] == []


# Debian's installer

DEBCONF = """\
Config: config
Templates: templates

Name: config
Driver: File
Filename: {folder}/config.dat

Name: templates
Driver: File
Filename: {folder}/templates.dat
"""


def answers(preseed: str, folder: Path) -> dict[str, str]:
    """What debconf remembers of a preseed: question → value."""
    (folder / "debconf.conf").write_text(DEBCONF.format(folder=folder))
    (folder / "preseed.cfg").write_text(preseed)
    env = {**os.environ, "DEBCONF_SYSTEMRC": str(folder / "debconf.conf"), "LC_ALL": "C.UTF-8"}
    run("debconf-set-selections", "--checkonly", folder / "preseed.cfg", env=env)
    run("debconf-set-selections", folder / "preseed.cfg", env=env)
    with (folder / "config.dat").open() as file:
        return {item["Name"]: item.get("Value", "") for item in Deb822.iter_paragraphs(file)}


@needs("debconf-set-selections")
@tried(4)
@given(machines("debian"))
def test_debconf_reads_back_what_debians_installer_is_told(one: Machine) -> None:
    with TemporaryDirectory() as folder:
        told = answers(files(one)["preseed.cfg"], Path(folder))
    assert told["passwd/username"] == one.account
    assert told["passwd/user-password-crypted"] == (one.password or "!")
    assert told["netcfg/hostname"] == one.hostname
    assert ".".join(filter(None, (told["netcfg/get_hostname"], told["netcfg/get_domain"]))) == one.hostname
    (late,) = re.fullmatch(
        r"in-target sh -c 'echo (\S+) \| base64 -d \| sh'", told["preseed/late_command"]
    ).groups()  # type: ignore[union-attr]
    assert put_by([base64.b64decode(late).decode()])["authorized_keys"] == [
        "".join(f"{key}\n" for key in one.seed.authorized_keys)
    ]


@needs("debconf-set-selections")
def test_debians_installer_is_told_all_that_it_would_ask(tmp_path: Path) -> None:
    told = answers(files(machine("debian", root_gib=60))["preseed.cfg"], tmp_path)
    assert told["netcfg/get_ipaddress"] == "192.0.2.11"
    assert told["netcfg/get_netmask"] == "255.255.255.0"
    assert told["netcfg/get_nameservers"] == "192.0.2.53 192.0.2.54"
    assert (told["mirror/http/hostname"], told["mirror/http/directory"]) == ("mirror.example.com", "/os")
    assert told["passwd/root-login"] == "false"
    assert told["partman-auto/disk"] == GIVEN["disk"]
    recipe = told["partman-auto/expert_recipe"].split()
    assert recipe.count("mountpoint{") == 3
    assert recipe.count(".") == 4
    assert recipe.count("{") == 0
    assert " ".join(recipe).startswith("provision :: 1024 1024 1024 free $iflabel{ gpt }")
    assert "64440 64440 64440 ext4 $lvmok{ } in_vg{ system } lv_name{ root }" in " ".join(recipe)
    assert {"openssh-server", "sudo", "chrony"} == set(told["pkgsel/include"].split())


# RHEL's installer


def kickstart(text: str, version: str = "RHEL9") -> Any:
    """What pykickstart reads; it raises for anything that the installer would refuse."""
    handler = makeVersion(version)
    parser = KickstartParser(handler, errorsAreFatal=True)
    parser.readKickstartFromString(text)
    return handler


@tried(12)
@given(machines("rhel"))
def test_pykickstart_reads_back_what_rhels_installer_is_told(one: Machine) -> None:
    found = kickstart(files(one)["ks.cfg"])
    (user,) = found.user.userList
    assert (user.name, user.password or None, user.isCrypted) == (
        one.account,
        one.password,
        one.password is not None,
    )
    assert user.lock is (one.password is None)
    (network,) = found.network.network
    assert network.hostname == one.hostname
    (script,) = found.scripts
    told = put_by([script.script])
    assert told["ssh_host_ed25519_key"] == [HOST_KEY.private]
    assert told["authorized_keys"] == ["".join(f"{key}\n" for key in one.seed.authorized_keys)]


@pytest.mark.parametrize("version", ["RHEL8", "RHEL9"])
@pytest.mark.parametrize(
    "network",
    [
        None,
        {"interface": "eno1"},
        {"mac": "0c:42:a1:00:00:01"},
        GIVEN["network"],
        {"interface": "eno1", "address": "2001:db8::b/64", "gateway": "2001:db8::1"},
    ],
)
def test_pykickstart_accepts_every_network(version: str, network: dict[str, Any] | None) -> None:
    found = kickstart(files(machine("rhel", network=network))["ks.cfg"], version)
    (read,) = found.network.network
    given = network or {}
    assert read.device == (given.get("interface") or given.get("mac") or "link")
    way = "" if "2001:db8::b/64" in given.values() else "static" if "address" in given else "dhcp"
    assert read.bootProto == way
    if given is GIVEN["network"]:
        assert (read.ip, read.netmask, read.gateway) == ("192.0.2.11", "255.255.255.0", "192.0.2.1")
        assert read.nameserver == "192.0.2.53,192.0.2.54"
    if "2001:db8::b/64" in given.values():
        assert (read.ipv6, read.ipv6gateway, read.noipv4) == ("2001:db8::b/64", "2001:db8::1", True)


def test_rhels_disk_and_packages() -> None:
    found = kickstart(files(machine("rhel", root_gib=60))["ks.cfg"])
    assert {lv.mountpoint: (lv.size, lv.grow) for lv in found.logvol.lvList} == {
        "/": (60 * 1024, False),
        "/var": (16384, True),
    }
    assert found.clearpart.drives == found.ignoredisk.onlyuse == [GIVEN["disk"]]
    assert "console=ttyS0,115200n8" in found.bootloader.appendLine
    assert "modprobe.blacklist=nouveau" in found.bootloader.appendLine
    assert found.packages.excludedList == ["dnf-automatic"]
    assert found.rootpw.lock


# What runs once on the new system

PUT = re.compile(r"^put\(\) \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)


def put_by(scripts: Sequence[str]) -> dict[str, list[str]]:
    """What the shell would write: last part of the path → the texts, one of each script."""
    noting = 'put() { printf "%s\\0" "$@"; }\n'
    nothing = "".join(
        f"{name}() {{ :; }}\n"
        for name in ("rm", "chmod", "chown", "restorecon", "sed", "getent", "systemctl", "grubby", "dracut")
    )
    told: dict[str, list[str]] = {}
    for script in scripts:
        assert len(PUT.findall(script)) == 1
        text = nothing + PUT.sub(lambda _: noting, script)
        text = text.replace("umask 022", "exec 3>/dev/null; command() { return 1; }").replace(
            ">>/etc/chrony.conf", ">&3"
        )
        said = run("sh", "-c", text).split("\0")[:-1]
        assert len(said) % 3 == 0
        for path, content in zip(said[1::3], said[2::3], strict=True):
            told.setdefault(path.rpartition("/")[2], []).append(content)
    return told


@needs_shellcheck
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("method", ["installer", "image"])
def test_shellcheck_finds_nothing(system: str, method: str) -> None:
    assert shellcheck(script_in(machine(system, method=method))) == ""


def script_in(one: Machine) -> str:
    """The script of a seed, as the installer or cloud-init gets it."""
    found = files(one)
    if "ks.cfg" in found:
        script: str = kickstart(found["ks.cfg"]).scripts[0].script
    elif "preseed.cfg" in found:
        script = base64.b64decode(re.findall(r"echo (\S+) \| base64", found["preseed.cfg"])[0]).decode()
    else:
        config = yaml.safe_load(found["user-data"])
        argv = (config.get("runcmd") or config["autoinstall"]["late-commands"])[0]
        assert argv[-3:-1] == ["sh", "-c"]
        script = argv[-1]
    return script


@pytest.mark.parametrize("method", ["installer", "image"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_what_a_new_system_has(system: str, method: str) -> None:
    script = script_in(machine(system, method=method))
    told = put_by([script])
    assert told["provision-nouveau.conf"][0].endswith("blacklist nouveau\noptions nouveau modeset=0\n")
    assert "PasswordAuthentication no\n" in told["50-provision-seed.conf"][0]
    assert ("60provision-seed" in told) is (system != "rhel")
    if system == "rhel":
        for server in ("ntp1.example.com", "192.0.2.7"):
            assert f"printf 'server %s iburst\\n' {server} >>/etc/chrony.conf\n" in script
        assert ("grubby" in script) is (method == "image")
    else:
        assert all(
            f'"{name}";' in told["60provision-seed"][0] for name in ("nvidia-", "docker", "containerd")
        )
        assert "console=tty0 console=ttyS0,115200n8" in told["50-provision-console.cfg"][0]
        assert told["provision.sources"] == ["server ntp1.example.com iburst\nserver 192.0.2.7 iburst\n"]
    own = system != "ubuntu" and method == "installer"
    assert ("ssh_host_ed25519_key" in told) is own, "else cloud-init writes it"


@needs("visudo")
@tried(2)
@given(st.lists(machines("debian"), min_size=10, max_size=10))
def test_visudo_accepts_the_rule_of_every_account(many: list[Machine]) -> None:
    from provision.bare.seed import script

    told = put_by([script(one) for one in many])
    with TemporaryDirectory() as folder:
        Path(folder, "sudoers").write_text("".join(told["provision"]))
        run(
            "visudo",
            "-c",
            "-f",
            Path(folder, "sudoers"),
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )
    assert [text.splitlines()[1].split()[0] for text in told["provision"]] == [one.account for one in many]


@needs("ssh-keygen")
def test_the_host_key_is_one(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(HOST_KEY.private)
    file.chmod(0o600)
    public = HOST_KEY.public
    assert run("ssh-keygen", "-y", "-f", file).split() == [public.kind, public.base64]
