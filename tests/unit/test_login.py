"""Inventory variables and ssh_config → Login: a table for each rule."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko import RSAKey

from provision.connection.client_config import SshConfig
from provision.connection.host_key_check import Pinned
from provision.connection.known_hosts import HostKey
from provision.connection.login import DEFAULT_KNOWN_HOSTS, Login
from provision.errors import InventoryError, UnreachableError
from provision.inventory.sources import load
from provision.inventory.values import Unsafe, Vault
from provision.run.ways_in import logins

ME = getpass.getuser()
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F"


def login(config: str = "", **variables: object) -> Login:
    return of(variables, config)


def of(variables: Mapping[str, object], config: str = "") -> Login:
    return Login.of("node1", variables, SshConfig.from_text(config))


def test_without_any_variable() -> None:
    expected = Login(host="node1", address="node1", port=22, user=ME, known_hosts=DEFAULT_KNOWN_HOSTS)
    assert login() == expected


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({"ansible_host": "10.0.0.1"}, "address", "10.0.0.1"),
        ({"ansible_ssh_host": "10.0.0.1"}, "address", "10.0.0.1"),
        ({"ansible_host": "fd00::1"}, "address", "fd00::1"),
        ({"ansible_port": 2222}, "port", 2222),
        ({"ansible_port": "2222"}, "port", 2222),
        ({"ansible_ssh_port": 2222}, "port", 2222),
        ({"ansible_user": "admin"}, "user", "admin"),
        ({"ansible_ssh_user": "admin"}, "user", "admin"),
        ({"ansible_user": 1000}, "user", "1000"),
        ({"ansible_ssh_private_key_file": "/k"}, "key_files", ("/k",)),
        ({"ansible_ssh_private_key_file": "~/k"}, "key_files", (str(Path("~/k").expanduser()),)),
        ({"ansible_private_key_file": "/k"}, "key_files", ("/k",)),
        ({"ansible_password": "pw"}, "password", "pw"),
        ({"ansible_ssh_pass": "pw"}, "password", "pw"),
        ({"ansible_password": 123456}, "password", "123456"),
        ({"ansible_become": True}, "become", True),
        ({"ansible_become": "yes"}, "become", True),
        ({"ansible_become": "no"}, "become", False),
        ({"ansible_become_user": "triton"}, "become_user", "triton"),
        ({"ansible_become_password": "pw"}, "become_password", "pw"),
        ({"ansible_become_pass": "pw"}, "become_password", "pw"),
        ({"ansible_become_method": "ansible.builtin.sudo"}, "become_user", "root"),
        ({"ansible_timeout": 3}, "connect_timeout", 3.0),
        ({"host_key": KEY}, "host_key", (KEY,)),
        ({"host_key": f"node1 {KEY} comment"}, "host_key", (KEY,)),
        ({"host_key": [KEY, f"x {KEY}"]}, "host_key", (KEY, KEY)),
        ({"host_key": f"{KEY}\n{KEY}\n"}, "host_key", (KEY, KEY)),
        ({"ansible_connection": "ssh"}, "address", "node1"),
        ({"ansible_connection": "paramiko"}, "address", "node1"),
        ({"ansible_connection": "smart"}, "address", "node1"),
        (
            {"ansible_ssh_common_args": "-o UserKnownHostsFile=/kh"},
            "known_hosts",
            ("/kh", DEFAULT_KNOWN_HOSTS[2]),
        ),
        (
            {"ansible_ssh_common_args": "-oUserKnownHostsFile=/kh"},
            "known_hosts",
            ("/kh", DEFAULT_KNOWN_HOSTS[2]),
        ),
        ({"ansible_ssh_extra_args": "-o 'ConnectTimeout 7'"}, "connect_timeout", 7.0),
        ({"ansible_ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s"}, "address", "node1"),
        ({"ansible_ssh_common_args": "-o StrictHostKeyChecking=yes"}, "address", "node1"),
        ({"ansible_ssh_common_args": "-o HostKeyAlias=gold"}, "known_as", "gold"),
        ({"ansible_ssh_common_args": "-p 2022 -l bob -i /key"}, "port", 2022),
        ({"ansible_ssh_common_args": "-p 2022 -l bob -i /key"}, "user", "bob"),
        ({"ansible_ssh_common_args": "-p 2022 -l bob -i /key"}, "key_files", ("/key",)),
        ({"triton": {"models": 3}, "ansible_python_interpreter": "/x"}, "address", "node1"),
    ],
)
def test_variables(variables: dict[str, object], field: str, value: object) -> None:
    assert getattr(of(variables), field) == value


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_port": 0}, "from 1 to 65535"),
        ({"ansible_port": 65536}, "from 1 to 65535"),
        ({"ansible_port": "ssh"}, "from 1 to 65535"),
        ({"ansible_port": True}, "must be a string, not a boolean"),
        ({"ansible_port": "²"}, "from 1 to 65535"),
        ({"ansible_host": ["a"]}, "must be a string, not a list"),
        ({"ansible_host": "a\nb"}, "one line"),
        ({"ansible_user": "a\0b"}, "one line"),
        ({"ansible_password": "{{ vault_password }}"}, "Jinja template"),
        ({"ansible_become": "perhaps"}, "must be true or false"),
        ({"ansible_become_method": "su"}, "ansible_become_method: su is not supported"),
        ({"ansible_connection": "local"}, "ansible_connection: local is not supported"),
        ({"ansible_connection": "winrm"}, "ansible_connection: winrm is not supported"),
        ({"ansible_timeout": "soon"}, "number of seconds"),
        ({"ansible_timeout": "nan"}, "number of seconds"),
        ({"ansible_ssh_common_args": "-o StrictHostKeyChecking=no"}, "StrictHostKeyChecking=no is refused"),
        ({"ansible_ssh_extra_args": "-oStrictHostKeyChecking=off"}, "StrictHostKeyChecking=off is refused"),
        ({"ansible_host_key_checking": False}, "ansible_host_key_checking: False is refused"),
        ({"ansible_ssh_common_args": "-o Ciphers=none"}, "option 'ciphers' is not supported"),
        ({"ansible_ssh_common_args": "-A"}, "'-A' is not supported"),
        ({"ansible_ssh_common_args": "-o ForwardAgent=yes"}, "option 'forwardagent' is not supported"),
        ({"ansible_ssh_common_args": "-F /other"}, "'-F' is not supported"),
        ({"ansible_ssh_common_args": "stray"}, "'stray' is not supported"),
        ({"ansible_ssh_common_args": "-J"}, "has no value"),
        ({"ansible_ssh_common_args": "-o 'unclosed"}, "No closing quotation"),
        ({"ansible_ssh_common_args": "-o ProxyCommand='nc %h %p'"}, "ProxyCommand is not supported"),
        *(
            ({"ansible_ssh_common_args": f"-o ProxyCommand='ssh {option} -W %h:%p b'"}, "is not supported")
            for option in ("-oPort=2222", "-i/etc/key", "-F/etc/jump.cfg", "-oProxyJump=outer")
        ),
        ({"ansible_ssh_common_args": '-o "ProxyCommand=ssh -W %h:%p o\'neill"'}, "No closing quotation"),
        ({"ansible_ssh_common_args": "-J a:b:c:@"}, "is not a jump host"),
        ({"host_key": "nonsense"}, "not a public key line"),
        ({"host_key": "ssh-ed25519 AAAA"}, "host_key: the key is cut short: 'ssh-ed25519 AAAA'"),
        ({"host_key": [KEY, KEY.replace("ed25519 ", "rsa ")]}, "does not have the type it claims, ssh-rsa"),
        ({"host_key": "{{ key }}"}, "host_key holds a Jinja template"),
        ({"ansible_become_password": Vault("x")}, "ansible_become_password is encrypted with ansible-vault"),
        ({"ansible_become": Vault("x")}, "ansible_become is encrypted with ansible-vault"),
        ({"ansible_become": "{{ root }}"}, "ansible_become holds a Jinja template"),
        ({"host_key": [Vault("x")]}, "host_key is encrypted with ansible-vault"),
        ({"host_key": 5}, "must be a line or a list"),
        ({"host_key": [5]}, "must be a line or a list"),
    ],
)
def test_what_cannot_be_honoured_is_refused(variables: dict[str, object], message: str) -> None:
    with pytest.raises(InventoryError, match=r"^node1: ") as caught:
        of(variables)
    assert message in str(caught.value)


def test_refusals_of_unchecked_host_keys_say_what_to_do() -> None:
    with pytest.raises(InventoryError) as caught:
        login(ansible_ssh_common_args="-o StrictHostKeyChecking=no")
    assert "--enroll" in str(caught.value.hint)


def test_a_password_that_ansible_encrypted_can_be_typed() -> None:
    with pytest.raises(InventoryError) as caught:
        login(ansible_become_password=Vault("x"))
    assert "not decrypted" in str(caught.value.hint)
    assert "--ask-become-pass" in str(caught.value.hint)
    assert login(ansible_become_password=Unsafe("{{")).become_password == "{{", "marked as no template"


def test_a_way_through_the_host_itself_is_refused() -> None:
    with pytest.raises(InventoryError, match="ProxyJump leads through the host itself, node1"):
        login(ansible_ssh_common_args="-J jump,node1")
    assert login(ansible_ssh_common_args="-J node1").jump == (), "as Host * gives it to the jump host itself"


def test_secrets_are_not_shown() -> None:
    shown = repr(login(ansible_password="s3cret", ansible_become_password="s3cret"))
    assert "s3cret" not in shown


CONFIG = """
Host 10.0.0.*
    User fleet
    Port 2200
    IdentityFile /keys/fleet
    IdentitiesOnly yes
    HostKeyAlias gold
    UserKnownHostsFile /kh1 /kh2
    ConnectTimeout 4
    ServerAliveInterval 9
    StrictHostKeyChecking no
Host node1
    HostName 192.0.2.7
"""


def test_ssh_config_is_honoured() -> None:
    found = login(CONFIG, ansible_host="10.0.0.5")
    assert found == Login(
        host="node1",
        address="10.0.0.5",
        port=2200,
        user="fleet",
        key_files=("/keys/fleet",),
        identities_only=True,
        host_key_alias="gold",
        known_hosts=("/kh1", "/kh2", "/etc/ssh/ssh_known_hosts"),
        connect_timeout=4.0,
        keepalive=9.0,
    )
    assert login(CONFIG).address == "192.0.2.7"


def test_the_inventory_wins_over_ssh_config() -> None:
    found = login(
        CONFIG,
        ansible_host="10.0.0.5",
        ansible_user="me",
        ansible_port=22,
        ansible_ssh_private_key_file="/mine",
        ansible_timeout=8,
        ansible_ssh_common_args="-o HostKeyAlias=silver",
    )
    assert (found.user, found.port, found.key_files) == ("me", 22, ("/mine",))
    assert (found.connect_timeout, found.host_key_alias) == (8.0, "silver")


@pytest.mark.parametrize(
    ("address", "port", "alias", "name"),
    [
        ("Node1.Example", 22, None, "node1.example"),
        ("10.0.0.1", 2222, None, "[10.0.0.1]:2222"),
        ("fd00::1", 22, None, "fd00::1"),
        ("10.0.0.1", 2222, "gold", "gold"),
    ],
)
def test_name_in_known_hosts(address: str, port: int, alias: str | None, name: str) -> None:
    assert Login("h", address, port, host_key_alias=alias).known_as == name


@pytest.mark.parametrize(
    ("args", "hops"),
    [
        ("-J bastion", [("bastion.example", 22, "jumper")]),
        ("-o ProxyJump=bastion", [("bastion.example", 22, "jumper")]),
        ("-J me@bastion:2022", [("bastion.example", 2022, "me")]),
        ("-J ssh://me@bastion:2022", [("bastion.example", 2022, "me")]),
        ("-J [fd00::2]:2022", [("fd00::2", 2022, ME)]),
        ("-J fd00::2", [("fd00::2", 22, ME)]),
        ("-J one,two", [("one", 22, ME), ("two", 22, ME)]),
        ("-J inner", [("bastion.example", 22, "jumper"), ("inner", 22, ME)]),
        ("-J one,inner", [("one", 22, ME), ("inner", 22, ME)]),
        ("-J none", []),
        ("-o ProxyCommand='ssh -W %h:%p -q bastion'", [("bastion.example", 22, "jumper")]),
        ("-o ProxyCommand='ssh -q -l me -p 2022 bastion -W %h:%p'", [("bastion.example", 2022, "me")]),
        ("-o ProxyCommand=none", []),
    ],
)
def test_jump_hosts(args: str, hops: list[tuple[str, int, str]]) -> None:
    config = "Host bastion\n HostName bastion.example\n User jumper\nHost inner\n ProxyJump bastion\n"
    found = login(config, ansible_ssh_common_args=args)
    assert [(hop.address, hop.port, hop.user) for hop in found.jump] == hops


def test_jump_hosts_from_ssh_config_and_none_in_the_inventory() -> None:
    config = "Host node*\n ProxyJump bastion\n"
    assert [hop.address for hop in login(config).jump] == ["bastion"]
    assert login(config, ansible_ssh_common_args="-J none").jump == ()


def test_a_jump_host_that_matches_its_own_rule_is_reached_directly() -> None:
    found = login("Host *\n ProxyJump bastion\n")
    assert [hop.address for hop in found.jump] == ["bastion"]
    assert Login.of("bastion", {}, SshConfig.from_text("Host *\n ProxyJump bastion\n")).jump == ()


def test_jump_hosts_in_a_circle_end() -> None:
    config = "Host node1\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n"
    assert [hop.address for hop in login(config).jump] == ["b", "a"]


def test_a_hop_has_the_options_of_ssh_config_and_nothing_of_the_host() -> None:
    config = "Host bastion\n IdentityFile /keys/bastion\n UserKnownHostsFile /kh\n"
    (hop,) = login(
        config, ansible_ssh_common_args="-J bastion", ansible_password="pw", ansible_become=True
    ).jump
    assert hop.key_files == ("/keys/bastion",)
    assert hop.known_hosts[0] == "/kh"
    assert (hop.password, hop.become) == (None, False)
    assert hop.host == "node1 (jump host bastion)"


@pytest.mark.parametrize(
    ("user", "become", "become_user", "needed"),
    [
        ("root", True, "root", False),
        ("admin", True, "root", True),
        ("root", True, "x", True),
        ("admin", False, "root", False),
    ],
)
def test_sudo_is_used_only_to_become_somebody_else(
    user: str, become: bool, become_user: str, needed: bool
) -> None:
    assert Login("h", "h", user=user, become=become, become_user=become_user).needs_sudo is needed


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=2),
)
NAMES = [
    "ansible_host", "ansible_port", "ansible_user", "ansible_password", "ansible_become",
    "ansible_become_user", "ansible_become_method", "ansible_connection", "ansible_timeout",
    "ansible_ssh_common_args", "host_key", "ansible_ssh_private_key_file",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_value_is_understood_or_refused_by_name(variables: dict[str, object]) -> None:
    try:
        found = of(variables)
    except InventoryError:
        return
    assert 0 < found.port < 65536


@given(st.text(max_size=40))
def test_any_arguments_are_understood_or_refused(text: str) -> None:
    try:
        login(ansible_ssh_common_args="-J " + text)
    except InventoryError:
        return


@pytest.mark.parametrize(("is_jump_host", "how"), [(True, "ssh to gate"), (False, "--enroll")])
@pytest.mark.parametrize("expected", [(), (HostKey("ssh-ed25519", "AAAA"),)])
def test_who_records_the_key_of_a_host_that_is_not_trusted(
    is_jump_host: bool, how: str, expected: tuple[HostKey, ...]
) -> None:
    """``--enroll`` asks hosts of the inventory, and no jump host."""
    login = Login("node", "gate", is_jump_host=is_jump_host)
    with pytest.raises(UnreachableError) as caught:
        Pinned(login, expected).missing_host_key(None, "", RSAKey.generate(1024))
    assert how in str(caught.value.hint)


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("ansible_user: '{{ admin }}'", "hosts.yml:5"),
        ("ansible_connection: docker", "hosts.yml:5"),
        ("ansible_port: abc", "hosts.yml:5"),
        ("ansible_ssh_common_args: -o ForwardAgent=yes", "hosts.yml:5"),
        ("ansible_ssh_common_args: -o ProxyCommand='nc %h %p'", "hosts.yml:5"),
        ("ansible_ssh_common_args: -o StrictHostKeyChecking=no", "hosts.yml:5"),
    ],
)
def test_what_is_refused_has_its_place(tmp_path: Path, variable: str, place: str) -> None:
    (tmp_path / "hosts.yml").write_text(f"all:\n  hosts:\n    h:\n  vars:\n    {variable}\n")
    with pytest.raises(InventoryError) as caught:
        logins(load([tmp_path / "hosts.yml"]).select("h"))
    assert f"{place}: h: " in str(caught.value)
