"""What sshd's files let in whatever the drop-in has: the plan refuses to lock beside it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.bare.bootstrap_resources import SHELL, Opening, SshdLock, SshdState
from provision.errors import Refusal
from provision.probe import Output
from provision.resource import Planned
from provision.shell import assembled
from tests.sshd import SSHD

LINES = ("passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no")
LOCK = SshdLock(
    (("PasswordAuthentication", "no"), ("KbdInteractiveAuthentication", "no"), ("PermitRootLogin", "no")),
    ("ops", "root"),
)
ADDRESS = Opening("/etc/ssh/sshd_config:9", "passwordauthentication", "yes", "Match Address 10.0.0.0/8")


def exceptions(folder: Path, *lines: str) -> list[Opening]:
    """What the shell's function says of the files in a folder."""
    at = f"sshd_config={folder}/sshd_config sshd_drop_in={folder}/sshd_config.d/00-provision.conf"
    at = f"{at} sshd_pid_file={folder}/pid\n"
    script = f'{assembled(SHELL)}{at}sshd_exceptions "$@"\n'
    ran = subprocess.run(
        ["sh", "-c", script, "sh", *(lines or LINES)], capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    found = [Opening(*line.split("\t")) for line in ran.stdout.splitlines()]
    return [one._replace(place=one.place.removeprefix(f"{folder}/")) for one in found]


def obeyed(folder: Path, who: str) -> list[str]:
    """What the real sshd says of one connection."""
    key = folder / "key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    argv = [str(SSHD), "-T", "-f", f"{folder}/sshd_config", "-h", str(key), "-C", who]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


ROOT = "user=root,host=localhost,addr=192.0.2.1"
FROM_10 = "user=ops,host=localhost,addr=10.1.2.3"

CASES = {
    "address": (
        "Match Address 10.0.0.0/8\n  PasswordAuthentication yes\n",
        FROM_10,
        "passwordauthentication yes",
    ),
    "user": ("Match User root\nPermitRootLogin yes\n", ROOT, "permitrootlogin yes"),
    "root with a key": (
        "Match User root\nPermitRootLogin prohibit-password\n",
        ROOT,
        "permitrootlogin without-password",
    ),
    "case and quotes": (
        'mATCH  address "10.0.0.0/8"\n\tPASSWORDauthentication = "yes"\n',
        FROM_10,
        "passwordauthentication yes",
    ),
    "an equals sign": (
        "Match Address=10.0.0.0/8\nPasswordAuthentication=yes\n",
        FROM_10,
        "passwordauthentication yes",
    ),
    "an older name": (
        "Match Address 10.0.0.0/8\nChallengeResponseAuthentication yes\n",
        FROM_10,
        "kbdinteractiveauthentication yes",
    ),
    "everybody": ("Match all\nPasswordAuthentication yes\n", FROM_10, "passwordauthentication yes"),
    "no line end": (
        "Match Address 10.0.0.0/8\nPasswordAuthentication yes",
        FROM_10,
        "passwordauthentication yes",
    ),
    "windows": (
        "Match Address 10.0.0.0/8\r\nPasswordAuthentication yes\r\n",
        FROM_10,
        "passwordauthentication yes",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a locked sshd_config and room for drop-ins."""
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "sshd_config.d/00-provision.conf").write_text(LOCK.content)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_a_match_block_that_lets_in_more_is_found(folder: Path, name: str) -> None:
    block, who, said = CASES[name]
    (folder / "sshd_config").write_text(f"Include {folder}/sshd_config.d/*.conf\nX11Forwarding no\n{block}")
    (found,) = exceptions(folder)
    assert found.place == "sshd_config:4"
    assert f"{found.option} {found.value}".replace("prohibit-", "without-") == said
    if SSHD.exists():
        assert said in obeyed(folder, who), "sshd reads the line as we do"


@pytest.mark.parametrize(
    "block",
    [
        "#Match Address 10.0.0.0/8\n#PasswordAuthentication yes\n",
        "Match Address 10.0.0.0/8\n# PasswordAuthentication yes\nPasswordAuthentication no\n",
        "Match Address 10.0.0.0/8\nX11Forwarding yes\nPermitEmptyPasswords yes\nAuthenticationMethods any\n",
        "PasswordAuthentication yes\nPermitRootLogin yes\n",
        "Match User git\nPermitRootLogin no\n",
    ],
)
def test_what_lets_in_no_more_is_left_alone(folder: Path, block: str) -> None:
    (folder / "sshd_config").write_text(f"Include {folder}/sshd_config.d/*.conf\n{block}")
    assert exceptions(folder) == []
    if SSHD.exists():
        for who in (ROOT, FROM_10, "user=git,host=localhost,addr=10.1.2.3"):
            assert set(LINES) <= set(obeyed(folder, who))


def test_included_files_are_followed_as_sshd_does(folder: Path) -> None:
    """Patterns, several of them, names with blanks, and an included file as a part of a block."""
    (folder / "more").mkdir()
    (folder / "sshd_config").write_text(
        f"Include {folder}/sshd_config.d/*.conf {folder}/more/*\n"
        f'Match Address 10.0.0.0/8\nInclude "{folder}/in a block"\n'
    )
    (folder / "sshd_config.d/50 cloud.conf").write_text("Match User a\nPasswordAuthentication yes\n")
    (folder / "sshd_config.d/60-x.conf").write_text("PermitRootLogin yes\n")
    (folder / "more/y").write_text("Match Group sudo\nKbdInteractiveAuthentication yes\n")
    (folder / "in a block").write_text("PasswordAuthentication yes\n")
    assert exceptions(folder) == [
        Opening("sshd_config.d/50 cloud.conf:2", "passwordauthentication", "yes", "Match User a"),
        Opening("more/y:2", "kbdinteractiveauthentication", "yes", "Match Group sudo"),
        Opening("in a block:1", "passwordauthentication", "yes", "Match Address 10.0.0.0/8"),
    ]
    if SSHD.exists():
        assert "passwordauthentication yes" in obeyed(folder, "user=a,host=localhost,addr=192.0.2.1")
        assert "passwordauthentication yes" in obeyed(folder, FROM_10)
        assert "permitrootlogin no" in obeyed(folder, ROOT)


BEFORE = {
    "a file that sorts before it": (
        {"00-a.conf": "X11Forwarding no\nPasswordAuthentication yes\n"},
        "Include {0}/sshd_config.d/*.conf\n",
        ["sshd_config.d/00-a.conf:2 passwordauthentication yes"],
    ),
    "sshd_config above its Include": (
        {},
        "PermitRootLogin yes\nInclude {0}/sshd_config.d/*.conf\n",
        ["sshd_config:1 permitrootlogin yes"],
    ),
    "an earlier Include": (
        {"site/x": "ChallengeResponseAuthentication yes\n"},
        "Include {0}/sshd_config.d/site/*\nInclude {0}/sshd_config.d/*.conf\n",
        ["sshd_config.d/site/x:1 kbdinteractiveauthentication yes"],
    ),
    "several patterns": (
        {"z.conf": "PermitRootLogin yes\n", "00-Z.conf": "PasswordAuthentication yes\n"},
        "Include sshd_config.d/z*.conf {0}/sshd_config.d/0*.conf\n",
        [
            "sshd_config.d/z.conf:1 permitrootlogin yes",
            "sshd_config.d/00-Z.conf:1 passwordauthentication yes",
        ],
    ),
    "its own name in a longer one": (
        {"00-provision.conf.conf": "PasswordAuthentication yes\n", "00-provision": "PermitRootLogin yes\n"},
        "Include {0}/sshd_config.d/*\n",
        ["sshd_config.d/00-provision:1 permitrootlogin yes"],
    ),
    "the first of two values counts": (
        {"00-a.conf": "PasswordAuthentication no\n", "00-b.conf": "PasswordAuthentication yes\n"},
        "Include {0}/sshd_config.d/*.conf\n",
        [],
    ),
    "files that sort after it": (
        {"00-z.conf": "PasswordAuthentication yes\n", "01-a.conf": "PermitRootLogin yes\n"},
        "Include {0}/sshd_config.d/*.conf\nPasswordAuthentication yes\n",
        [],
    ),
}


@pytest.mark.parametrize("drop_in", [True, False], ids=["locked", "not locked yet"])
@pytest.mark.parametrize("name", BEFORE)
def test_what_sshd_reads_before_the_drop_in_is_named(folder: Path, name: str, drop_in: bool) -> None:
    """sshd takes the first value of an option, so the drop-in comes too late."""
    files, config, expected = BEFORE[name]
    (folder / "sshd_config").write_text(config.format(folder))
    for file, text in files.items():
        (folder / "sshd_config.d" / file).parent.mkdir(exist_ok=True)
        (folder / "sshd_config.d" / file).write_text(text)
    if not drop_in:
        (folder / "sshd_config.d/00-provision.conf").unlink()
    found = exceptions(folder)
    assert [f"{one.place} {one.option} {one.value}" for one in found] == expected
    assert {one.whom for one in found} <= {"everybody"}
    if SSHD.exists() and drop_in and "sshd_config.d/z*" not in config:
        told, opened = set(obeyed(folder, ROOT)), {one.option: one.value for one in found}
        assert {f"{option} {value}" for option, value in opened.items()} <= told, "sshd reads them as we do"
        assert {line for line in LINES if line.split()[0] not in opened} <= told


@pytest.mark.parametrize(
    "config",
    ["PasswordAuthentication yes\n", "Match User a\nInclude {0}/sshd_config.d/*.conf\nPermitRootLogin no\n"],
)
def test_an_sshd_that_does_not_read_the_drop_in_is_no_question_of_order(folder: Path, config: str) -> None:
    """It is refused for that: no line of its files is to blame."""
    (folder / "sshd_config").write_text(f"PermitRootLogin yes\n{config.format(folder)}")
    assert exceptions(folder) == []


def test_names_without_a_folder_are_below_that_of_sshd_config(folder: Path) -> None:
    (folder / "sshd_config").write_text("Include sshd_config.d/*.conf\n")
    (folder / "sshd_config.d/50.conf").write_text("Match User a\nPasswordAuthentication yes\n")
    assert [found.place for found in exceptions(folder)] == ["sshd_config.d/50.conf:2"]


def test_only_what_the_lock_is_about_counts(folder: Path) -> None:
    (folder / "sshd_config").write_text(
        "Match User a\nPasswordAuthentication yes\nPermitRootLogin without-password\n"
    )
    assert [found.option for found in exceptions(folder)] == ["passwordauthentication", "permitrootlogin"]
    assert [found.option for found in exceptions(folder, LINES[2])] == ["permitrootlogin"]
    assert exceptions(folder, "permitrootlogin without-password") == []
    assert exceptions(folder, "permitrootlogin yes") == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"/usr/sbin/sshd\0-D\0", []),
        (b"/usr/sbin/sshd\0-D\0-oPasswordAuthentication=yes\0", ["passwordauthentication yes"]),
        (b"/usr/sbin/sshd\0-o\0PermitRootLogin yes\0", ["permitrootlogin yes"]),
        (
            b"sshd: /usr/sbin/sshd -D -o permitrootlogin=yes -o PasswordAuthentication=no -u0 [listener]",
            ["permitrootlogin yes"],
        ),
        (b"sshd: /usr/sbin/sshd -D -oCiphers=aes256-gcm@openssh.com -o UsePAM=yes [listener]", []),
    ],
)
def test_what_sshd_was_started_with_goes_before_its_files(
    folder: Path, line: bytes, found: list[str]
) -> None:
    (folder / "cmdline").write_bytes(line)
    (folder / "pid").write_text(f"../..{folder}\n")
    (folder / "sshd_config").write_text("")
    said = exceptions(folder)
    assert [f"{one.option} {one.value}" for one in said] == found
    assert {(one.place, one.whom) for one in said} <= {("sshd's command line", "everybody")}


@pytest.mark.parametrize("drop_in", ["", LOCK.content])
def test_the_plan_refuses_to_lock_beside_it(drop_in: str) -> None:
    """Before anything is locked, and on a host that an earlier run has locked."""
    values = {(user, line.split()[0]): "no" for user in LOCK.users for line in LINES}
    with pytest.raises(Refusal) as refused:
        LOCK.change(SshdState(values, drop_in, exceptions=(ADDRESS,)), Planned())
    assert str(refused.value) == (
        "sshd lets in more than bootstrap says, whatever its drop-in has: "
        "/etc/ssh/sshd_config:9 has passwordauthentication yes for Match Address 10.0.0.0/8"
    )
    assert refused.value.hint is not None
    assert "bootstrap: {lock_passwords: false}" in refused.value.hint


def test_the_answer_of_a_host_names_them() -> None:
    told = "ops passwordauthentication no\n" + "\t".join(ADDRESS) + "\nunproven\n\n# Written\n"
    state = LOCK.read(Output(0, told.encode()))
    assert (state.exceptions, state.unproven, state.drop_in) == ((ADDRESS,), True, "# Written\n")
    lines = replace(LOCK, options=LOCK.options[2:]).question().script
    assert "permitrootlogin no" in lines
    assert "passwordauthentication" not in lines
