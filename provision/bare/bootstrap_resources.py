"""What a machine has after its first login: an account with keys and sudo, and an sshd that takes no more."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

from provision.bare.bootstrap_settings import BOOTSTRAP
from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import ABSENT, AnyResource, Change, Handler, Missing, Planned, Single, unified
from provision.resources.file import File, FileState
from provision.shell import constant

SHELL = "bare/first_login.sh"
CONFIG, DROP_IN = (constant("bare/sshd_match.sh", name) for name in ("sshd_config", "sshd_drop_in"))
SUDOERS = "/etc/sudoers.d/provision"
HEADER = "# Written by provision.\n"
SHELLS = (SHELL,)

FIRST_UID = 1000
"""The first number of people's accounts (login.defs); those of the system and of services are below it."""


def resources(
    user: str,
    keys: Sequence[str],
    sudo_password: str | None,
    *,
    lock_passwords: bool,
    lock_root: bool,
    others: Sequence[str] = (),
) -> list[AnyResource]:
    """All that the first login brings about, in order.

    :param user: the account that everything else is done with.
    :param keys: the public keys that it takes, ``TYPE BASE64`` with or without a comment.
    :param sudo_password: what its sudo asks for; None where it asks for nothing.
    :param others: further accounts that sshd's options are checked for.
    """
    rule = "ALL" if sudo_password is not None else "NOPASSWD: ALL"
    sudoers = f"{HEADER}{user} ALL=(ALL:ALL) {rule}\n".encode()
    options = {"PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no"} if lock_passwords else {}
    if lock_root:
        options["PermitRootLogin"] = "prohibit-password" if user == "root" else "no"
    users = tuple(dict.fromkeys((user, "root", *others)))
    found: list[AnyResource] = [Account(user, sudo_password), AuthorizedKeys(user, tuple(keys))]
    if user != "root":
        found.append(Sudoers(SUDOERS, sudoers, mode="0440"))
    reload = Handler("reload sshd", on=(SshdLock.kind,), script="reload_sshd", shell=SHELLS)
    return [*found, SshdLock(tuple(options.items()), users), reload]


def is_lock(change: Change) -> bool:
    """Whether a change takes away a way in, so that another one has to be proven before it."""
    return change.resource == SshdLock.kind or change.resource.startswith(f"{Handler.kind}:")


@dataclass(frozen=True)
class AccountState:
    """An account of a host: its shell, whether it has a password, and its number."""

    shell: str
    has_password: bool
    uid: int = FIRST_UID


@dataclass(frozen=True)
class Account(Single[AccountState | Missing]):
    """An account that can log in. Where sudo is to ask for a password and it has none, it gets this one."""

    user: str
    password: str | None = field(default=None, repr=False)
    shell: tuple[str, ...] = SHELLS
    kind: ClassVar[str] = "account"

    def question(self) -> Probe:
        return Probe(self.kind, words("account_of", self.user), SHELLS)

    def read(self, answer: Output) -> AccountState | Missing:
        if not answer.out:
            return ABSENT
        entry, told = answer.out.splitlines()
        fields = entry.split(":")
        return AccountState(fields[6], told == "set", int(fields[2]))

    def bare(self) -> Missing:
        return ABSENT

    def change(self, state: AccountState | Missing, planned: Planned) -> Change | None:  # noqa: ARG002
        """Make the account, or give it what it lacks.

        :raises Refusal: if it is an account of the system, which nobody logs in to.
        """
        why = []
        if isinstance(state, Missing):
            why.append("it does not exist")
        elif state.shell.endswith(("/nologin", "/false")):
            if state.uid < FIRST_UID:
                message = f"{self.user} is an account of the system: its uid is {state.uid}"
                raise Refusal(f"{message}, its shell {state.shell}", hint="take another name: ansible_user")
            why.append(f"its shell is {state.shell}")
        makes = bool(why)
        sets = self.password is not None and (isinstance(state, Missing) or not state.has_password)
        if sets:
            why.append("sudo is to ask for a password, and it has none")
        if not why:
            return None
        script, done = f"make_account {quote(self.user)} || return\n", f"is_account {quote(self.user)}"
        if sets and self.password is not None:
            line = base64.encodebytes(f"{self.user}:{self.password}\n".encode()).decode("ascii")
            script = f"{script if makes else ''}base64 -d <<'END' | chpasswd\n{line}END\n"
            done += f" && has_password {quote(self.user)}"
        return Change(
            resource=self.id,
            action="create" if isinstance(state, Missing) else "update",
            summary=f"account {self.user}" + (" with the password for sudo" if sets else ""),
            reason="; ".join(why),
            sign="+" if isinstance(state, Missing) else "~",
            script=script,
            done=done,
        )


@dataclass(frozen=True)
class AuthorizedKeys(Single[str]):
    """Public keys that log in to an account, without limits; other keys of the account stay."""

    user: str
    keys: tuple[str, ...]
    shell: tuple[str, ...] = SHELLS
    kind: ClassVar[str] = "authorized-keys"

    def question(self) -> Probe:
        return Probe(self.kind, words("authorized_keys_of", self.user), SHELLS)

    def read(self, answer: Output) -> str:
        return answer.out

    def bare(self) -> str:
        return ""

    def change(self, state: str, planned: Planned) -> Change | None:  # noqa: ARG002
        missing = [key for key in self.keys if not _counts(_bare_key(key), state.splitlines())]
        if not missing:
            return None
        bare_keys = [_bare_key(key) for key in self.keys]
        return Change(
            resource=self.id,
            action="update" if state else "create",
            summary=f"{len(missing)} key{'' if len(missing) == 1 else 's'} for {self.user}",
            reason="it does not take " + ("this key" if len(missing) == 1 else "these keys"),
            sign="~" if state else "+",
            diff=unified(state, "".join(f"{key}\n" for key in missing) + state, "authorized_keys"),
            script=f"authorize {words(self.user, *missing)}",
            done=f"takes_keys {words(self.user, *bare_keys)}",
        )


def _bare_key(line: str) -> str:
    """``TYPE BASE64`` of a public key."""
    return " ".join(line.split()[:2])


def _counts(key: str, lines: Sequence[str]) -> bool:
    """Whether the first line with a key has it without limits: sshd looks no further."""
    first = next((line for line in lines if key.split()[1] in line), "")
    return first == key or first.startswith(f"{key} ")


@dataclass(frozen=True)
class Sudoers(File):
    """A rule of sudo that visudo has checked. It stays whatever becomes of the settings."""

    shell: tuple[str, ...] = SHELLS
    kind: ClassVar[str] = "sudoers"

    @property
    def leaves(self) -> tuple[str, ...]:
        return ()

    def write(self, state: FileState | Missing, action: str, reason: str) -> Change:
        change = super().write(state, action, reason)
        encoded = base64.encodebytes(self.content).decode("ascii")
        script = f"write_sudoers {quote(self.path)} <<'END'\n{encoded}END\n"
        return replace(change, script=script, summary=f"{change.summary}, checked by visudo")


class Opening(NamedTuple):
    """What goes before the drop-in: where it stands, its option and value, and for whom it is."""

    place: str
    option: str
    value: str
    whom: str

    def __str__(self) -> str:
        return f"{self.place} has {self.option} {self.value} for {self.whom}"


@dataclass(frozen=True)
class SshdState:
    """What sshd's files say.

    :ivar values: the value of each option, by user and option in small letters.
    :ivar exceptions: what lets in more than the options, whatever the drop-in has.
    :ivar drop_in: what is in our drop-in; empty where there is none.
    :ivar unproven: whether a run was cut before it had proven that a login still works.
    """

    values: Mapping[tuple[str, str], str] = field(default_factory=dict)
    drop_in: str = ""
    unproven: bool = False
    exceptions: tuple[Opening, ...] = ()


@dataclass(frozen=True)
class SshdLock(Single[SshdState]):
    """The drop-in that keeps passwords and root out of sshd; without options there is none.

    :ivar options: name and value, as sshd_config(5) has them.
    :ivar users: the accounts that the options must hold for, whatever ``Match`` says.
    """

    options: tuple[tuple[str, str], ...]
    users: tuple[str, ...]
    shell: tuple[str, ...] = SHELLS
    kind: ClassVar[str] = "sshd"

    @property
    def content(self) -> str:
        """What is to be in the drop-in."""
        lines = "".join(f"{name} {value}\n" for name, value in self.options)
        return lines and HEADER + lines

    @property
    def lines(self) -> tuple[str, ...]:
        """The options as ``sshd -T`` prints them, which has an old name for one value."""
        return tuple(
            f"{name} {value}".lower().replace("prohibit-password", "without-password")
            for name, value in self.options
        )

    def question(self) -> Probe:
        return Probe(self.kind, words("sshd_state", " ".join(self.users), *self.lines), SHELLS)

    def read(self, answer: Output) -> SshdState:
        told, _, drop_in = answer.out.partition("\n\n")
        exceptions = tuple(Opening(*line.split("\t")) for line in told.splitlines() if "\t" in line)
        rows = [line.split() for line in told.splitlines() if "\t" not in line]
        values = {(row[0], row[1]): row[2] for row in rows if len(row) == 3}
        if not values:
            raise ValueError(f"`sshd -T` on the host tells nothing: {answer.err.strip()[-200:]}")
        return SshdState(values, drop_in, ["unproven"] in rows, exceptions)

    def bare(self) -> SshdState:
        return SshdState()

    def change(self, state: SshdState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Write the drop-in, or take it away.

        :raises Refusal: if sshd does something else although the drop-in is right, or would for some.
        """
        if state.exceptions:
            found = "; ".join(map(str, state.exceptions))
            message = f"sshd lets in more than {BOOTSTRAP} says, whatever its drop-in has: {found}"
            raise Refusal(message, hint=_way_out(state.exceptions))
        why = self._wrong(state)
        if state.drop_in == self.content and why:
            raise Refusal(
                f"sshd does not follow {DROP_IN}: {why}",
                hint=f"{CONFIG} must begin with: Include {CONFIG}.d/*.conf",
            )
        if state.drop_in != self.content:
            why = why or ("its content differs" if state.drop_in else "it does not exist")
        elif state.unproven:
            why = "an earlier run ended before it had proven that a login still works"
        else:
            return None
        encoded = base64.encodebytes(self.content.encode()).decode("ascii")
        arguments = words(" ".join(self.users), *self.lines)
        there = f"grep -q . {DROP_IN} 2>/dev/null"
        same = f'[ "$(cat {DROP_IN})" = {quote(self.content.rstrip())} ]'
        return Change(
            resource=self.id,
            action="update" if state.drop_in else "create",
            summary=f"{DROP_IN}: {', '.join(' '.join(pair) for pair in self.options) or 'nothing'}",
            reason=why,
            sign="~" if state.drop_in else "+",
            diff=unified(state.drop_in, self.content, DROP_IN),
            impact=self._impact(),
            script=f"lock_sshd {arguments} <<'END'\n{encoded}END\n" if self.options else "open_sshd",
            done=f"{same} && sshd_obeys {arguments}" if self.options else f"! {there}",
        )

    def _wrong(self, state: SshdState) -> str:
        """The first option that sshd has another value for."""
        for user in self.users if state.values else ():
            for name, value in (line.split() for line in self.lines):
                if (now := state.values.get((user, name), "unknown")) != value:
                    return f"{name} is {now} for {user}"
        return ""

    def _impact(self) -> tuple[str, ...]:
        return tuple(
            f"sshd refuses {what} from then on"
            for what, name in (("all passwords", "PasswordAuthentication"), ("root", "PermitRootLogin"))
            if dict(self.options).get(name) == "no"
        )


def _way_out(exceptions: Sequence[Opening]) -> str:
    """What to do about them."""
    settings = ("lock_root" if line.option == "permitrootlogin" else "lock_passwords" for line in exceptions)
    kept = ", ".join(f"{name}: false" for name in dict.fromkeys(settings))
    return f"take it away; or leave that to the host itself: {BOOTSTRAP}: {{{kept}}}"
