"""Unknown host keys are shown, and written only when somebody agrees."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from provision.cli.arguments import enroll_hosts
from provision.cli.options import Options
from provision.connection import knows
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.errors import UnreachableError, UsageError

KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIJGu1vJVBJzCXh1xcLyvnI9XGVgcLVLPzfkO4ZNUJp7F")
OTHER = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIMeM8Y5TBNmT5iUTVTRkqAoQT9OTRzYxfNpPH1QvQYkq")


ENROLL = Options(enroll=True)


@dataclass
class Operator:
    """Somebody who is asked, and hosts that show a key each.

    :ivar fetched: the hosts whose keys were looked at.
    """

    answer: bool = True
    questions: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def ask(self, question: str, instead: str) -> bool:
        assert instead == "--accept-new"
        self.questions.append(question)
        return self.answer

    def fetch(self, login: Login) -> HostKey:
        self.fetched.append(login.host)
        if login.host == "off":
            raise UnreachableError("off", "no route to host")
        return OTHER if login.host == "other" else KEY

    def enroll(self, *logins: Login, options: Options = ENROLL) -> None:
        enroll_hosts(options, logins, self.ask, self.fetch)


def login(file: Path, name: str = "h1", port: int = 22) -> Login:
    return Login(name, f"{name}.example.org", port, known_hosts=(str(file), "/nonexistent"))


def test_a_key_is_shown_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ssh/known_hosts"
    operator = Operator()
    operator.enroll(login(file))
    assert file.read_text() == f"h1.example.org {KEY.kind} {KEY.base64}\n"
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert operator.questions == ["Trust this key from now on?"]
    assert capsys.readouterr() == ("", f"h1: ssh-ed25519 {KEY.fingerprint}\n")
    assert knows(login(file))


def test_keys_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"h0.example.org {OTHER.kind} {OTHER.base64}\n")
    operator = Operator()
    operator.enroll(login(file), login(file, "other", 2222))
    assert operator.questions == ["Trust these 2 keys from now on?"]
    assert [line.split()[0] for line in file.read_text().splitlines()] == [
        "h0.example.org",
        "h1.example.org",
        "[other.example.org]:2222",
    ]


@pytest.mark.parametrize("before", ["", "\n", "h0.example.org ssh-ed25519 AAAA", "# caf\u00e9"])
def test_a_file_without_a_final_newline_keeps_its_last_line(tmp_path: Path, before: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(before)
    Operator().enroll(login(file))
    assert file.read_text().splitlines() == [*before.splitlines(), f"h1.example.org {KEY.kind} {KEY.base64}"]
    assert knows(login(file))


def test_a_revoked_key_is_not_enrolled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"@revoked * {KEY.kind} {KEY.base64}\n")
    operator = Operator()
    operator.enroll(login(file))
    assert operator.questions == []
    said = capsys.readouterr().err
    assert said.startswith(
        f"h1: the host key of h1.example.org is revoked: {KEY.kind} {KEY.fingerprint} ({file}:1)"
    )


def test_clones_are_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of which the key is trusted already counts, and a name more of one address does not."""
    file = tmp_path / "known_hosts"
    operator = Operator()
    operator.enroll(*(login(file, name) for name in ("h1", "h2", "h3", "h4", "h5", "other")))
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["other.example.org"]
    said = capsys.readouterr().err
    assert (
        "h1: it has the host key of h2, h3, h4 and 1 more, so each can pretend to be the other: "
        f"ssh-ed25519 {KEY.fingerprint}\n  hint: clones of one image? on all: rm /etc/ssh/ssh_host_*; "
    ) in said
    assert "h5: it has the host key of h1, h2, h3 and 1 more, so" in said
    file.write_text(f"h1.example.org {KEY.kind} {KEY.base64}\n")
    operator.enroll(login(file), login(file, "h2"))
    assert "h2: it has the host key of h1, so" in capsys.readouterr().err
    file.unlink()
    operator.enroll(login(file), replace(login(file), host="alias"))
    assert operator.questions[-1] == "Trust these 2 keys from now on?"


def test_hosts_that_hang_do_not_add_up(tmp_path: Path) -> None:
    def fetch(_: Login) -> HostKey:
        time.sleep(0.5)
        return KEY

    began = time.monotonic()
    enroll_hosts(
        ENROLL, [login(tmp_path / "known_hosts", f"h{n}") for n in range(20)], lambda *_: True, fetch
    )
    assert time.monotonic() - began < 5


def test_without_a_yes_nothing_is_written(tmp_path: Path) -> None:
    operator = Operator(answer=False)
    with pytest.raises(UsageError, match="the keys were not recorded") as caught:
        operator.enroll(login(tmp_path / "known_hosts"))
    assert caught.value.hint == "compare them on the hosts' consoles first"
    assert list(tmp_path.iterdir()) == []


def test_keys_are_only_looked_at_where_that_is_wanted(tmp_path: Path) -> None:
    operator = Operator()
    operator.enroll(login(tmp_path / "known_hosts"), options=Options())
    assert (operator.fetched, operator.questions, list(tmp_path.iterdir())) == ([], [], [])


def test_new_keys_are_recorded_unasked_where_an_option_says_so(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    operator = Operator(answer=False)
    operator.enroll(login(file), options=Options(accept_new=True))
    assert operator.questions == []
    assert file.read_text() == f"h1.example.org {KEY.kind} {KEY.base64}\n"


def test_a_known_host_is_left_alone_even_where_it_shows_another_key(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    known = f"h1.example.org {OTHER.kind} {OTHER.base64}\n"
    file.write_text(known)
    operator = Operator()
    operator.enroll(login(file))
    assert (operator.fetched, operator.questions, file.read_text()) == ([], [], known)


def test_a_host_that_does_not_answer_is_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "known_hosts"
    operator = Operator()
    operator.enroll(login(file, "off"), login(file))
    assert operator.questions == ["Trust this key from now on?"]
    assert "off: no route to host\n" in capsys.readouterr().err
    assert file.read_text().startswith("h1.example.org ")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/known_hosts: ") as caught:
        Operator().enroll(login(tmp_path / "file/known_hosts"))
    assert caught.value.hint == "name another UserKnownHostsFile"
