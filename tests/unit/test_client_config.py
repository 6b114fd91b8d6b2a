"""ssh_config files: what they include is honoured or refused with its place, and no line is ignored."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from provision.connection import ssh_config
from provision.connection.login import Login
from provision.errors import InventoryError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``.ssh`` of a user who has none yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path / ".ssh"


def write(home: Path, **files: str) -> None:
    for name, text in files.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)


def login(name: str = "node1") -> Login:
    return Login.of(name, {}, ssh_config())


FLEET = "Host node*\n  Port 2022\n  User fleet\nHost other\n  Port 2033\n"


@pytest.mark.parametrize(
    "config",
    [
        "Include fleet",
        "include=fleet",
        'Include "fleet"',
        "Include ~/.ssh/fleet",
        "Include nothing fleet",
        "Include fl*t",
        "Host x\n  Port 1\nHost *\n  Include fleet",
        "Include outer",
        "Host node*\n  Include plain",
        "Match host node*\n  Include plain",
    ],
)
def test_what_is_included_is_honoured_as_ssh_does(home: Path, config: str) -> None:
    write(home, config=f"{config}\n", fleet=FLEET, outer="Include fleet\n", plain="Port 2022\nUser fleet\n")
    assert (login().port, login().user) == (2022, "fleet")


def test_an_absolute_path_is_included_and_the_rest_of_the_file_counts_for_all_hosts(home: Path) -> None:
    write(home, config=f"Include {home}/fleet\nUser me\nPort 9\n", fleet=FLEET)
    assert (login().port, login().user) == (2022, "fleet"), "the first value counts"
    assert (login("x").port, login("x").user) == (9, "me"), "a block ends with its file"
    if shutil.which("ssh"):
        told = subprocess.run(
            ["ssh", "-F", home / "config", "-G", "x"], capture_output=True, check=True
        ).stdout
        assert {b"port 9", b"user me"} < set(told.splitlines())


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"config": "Port 22\nPort\n"}, "config:2: this line cannot be read: Port"),
        ({"config": "Include sub\n", "sub": "\n= x\n"}, "sub:2: this line cannot be read: = x"),
        ({"config": 'Include "sub\n'}, 'config:1: Include "sub: No closing quotation'),
        ({"config": "Include ${X}/a\n"}, "config:1: Include ${X}/a: tokens and variables are not supported"),
        ({"config": "Include config\n"}, "config:1: more than 16 files include each other"),
        (
            {"config": "Host a\n  Include sub\n", "sub": "Host b\n Port 2\n"},
            "config:2: Include in a block is",
        ),
        ({"config": "Host 'a\n"}, "config:1: Host 'a: "),
        ({"config": "User me\nMatch host\n"}, "config:2: Match host: Missing parameter"),
        (
            {"config": "Match localnetwork 10.0.0.0/8\n"},
            "config:1: Match localnetwork 10.0.0.0/8: 'localnetwork'",
        ),
        ({"config": "Host node*\n  Port 2x\n"}, "config:2: node1: Port must be a number from 1 to 65535"),
        ({"config": "Include sub\n", "sub": "\nConnectTimeout soon\n"}, "sub:2: node1: ConnectTimeout must"),
        ({"config": "Host x\n Port 1\nHost *\n ServerAliveInterval x\n"}, "config:4: node1: ServerAlive"),
        ({"config": "IdentitiesOnly maybe\n"}, "config:1: node1: IdentitiesOnly must be true or false"),
        ({"config": "\nProxyJump a:xx\n"}, "config:2: node1: ProxyJump must be a number"),
        ({"config": "Host node1\n ProxyJump a:x,b\nHost b\n ProxyJump c\n"}, "config:2: node1: "),
        ({"config": "Host node1\n ProxyJump a\nHost a\n ProxyCommand nc %h\n"}, "config:4: node1: this"),
        ({"config": "ProxyCommand ssh -W %h:%p a:xx\n"}, "config:1: node1: "),
        ({"config": "ProxyJump a,node1\n"}, "config:1: node1: ProxyJump leads through the host itself"),
        ({"config": "CanonicalizeHostname yes\n"}, "node1: ssh_config cannot be applied to node1: "),
        (
            {"config": "ProxyCommand ssh -W %h:%p o'neill\n"},
            "ProxyCommand ssh -W node1:22 o'neill: No closing quotation",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(
    home: Path, files: dict[str, str], says: str
) -> None:
    write(home, **files)
    with pytest.raises(InventoryError) as caught:
        login()
    assert says in str(caught.value)


WORDS = st.sampled_from(
    ["Host", "Match", "Include", "Port", "User", "ProxyJump", "ProxyCommand", "HostName", "IdentityFile",
     "all", "final", "canonical", "host", "*", "node1", "!x", "sub", "config", "none", "22", "%h", "'", '"',
     "=", "ssh -W %h:%p a", "#", "~", "${X}", ",", "\n", "\n", "\n", " ", "\t", "\\", "caf\u00e9"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(max_size=40))
@example("Match")
@example("Host")
@example("CanonicalizeMaxDots x")
@example("Match '")
@example("Match \\")
def test_any_file_is_read_or_refused(home: Path, text: str) -> None:
    (home / "config").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        login()
    except InventoryError as error:
        assert str(error)
