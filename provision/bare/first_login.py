"""A machine's first login, and the account that everything else is done with from then on.

The order is what keeps a way in: the account with its keys and sudo first; a connection with them proves
that they work; then sshd stops taking passwords and root; another connection proves that the account still
gets in. If that is never proven, the host takes the last step back by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from provision.bare.bootstrap_resources import SHELL, is_lock, resources
from provision.bare.bootstrap_settings import BOOTSTRAP, USER, Bootstrap
from provision.connection import Connection, ExpiredPasswordError
from provision.connection.identities import public_key
from provision.connection.login import Login
from provision.data import at_home
from provision.errors import (
    ChangeError,
    HostError,
    InventoryError,
    LoginRefusedError,
    RefusedError,
    UnreachableError,
)
from provision.facts import Facts
from provision.inventory import Host
from provision.inventory.settings import read, refuse_misspelt
from provision.plan import plan as planning
from provision.plan.declared import Declared
from provision.plan.plan import Plan
from provision.plan.result import Result, Status
from provision.plan.stages import Stage
from provision.resource import AnyResource, Change
from provision.run.host import HostRun, OnEvent, Survey
from provision.run.target import Target
from provision.shell import assembled

PATIENCE = 60.0
"""Seconds for a command that proves a login."""

RETRIES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before sshd, which has just read its files again, is asked once more where it does not answer."""

UNASKED = Facts("", "", "", "", "", "", "", "", secure_boot=False)
"""Facts of a host that answers no question yet."""


@dataclass(frozen=True)
class Newcomer(Target):
    """A host before its first login. ``login`` is the account that it is to have.

    :ivar ways: the logins that may work until then, in the order in which they are tried.
    :ivar resources: what it is to have.
    :ivar new_password: what an expired password becomes.
    """

    ways: tuple[Login, ...] = ()
    resources: tuple[AnyResource, ...] = ()
    new_password: str | None = field(default=None, repr=False)

    def declared(self, facts: Facts) -> tuple[Declared, ...]:  # noqa: ARG002
        """What the first login brings about."""
        return tuple(Declared(BOOTSTRAP, resource) for resource in self.resources)


def newcomers(hosts: Sequence[Host], logins: Sequence[Login], password: str | None) -> list[Newcomer]:
    """Check the settings of all hosts before any connection, and say how each may be reached.

    :param logins: how they are to be reached in the end.
    :param password: of the first login, where the settings have none.
    :raises InventoryError: with file and line.
    """
    return [_newcomer(host, login, password) for host, login in zip(hosts, logins, strict=True)]


def _newcomer(host: Host, login: Login, asked: str | None) -> Newcomer:
    refuse_misspelt(host, {BOOTSTRAP: Bootstrap})
    settings = read(Bootstrap, host, BOOTSTRAP)
    account = replace(login, password=None, become=True, become_user="root")
    if not re.fullmatch(USER, account.user):
        raise InventoryError(
            f"{host.name}: {account.user!r} cannot be the name of an account",
            where=host.where("ansible_user"),
            hint="small letters, digits, - and _",
        )
    try:
        own = public_key(account)
    except UnreachableError as error:
        place = host.where("ansible_ssh_private_key_file") or host.where()
        raise InventoryError(f"{host.name}: {error.message}", where=place, hint=error.hint) from None
    new = settings.new_password.get_secret_value() if settings.new_password else None
    ways = tuple(_first_logins(account, settings, asked, new))
    keys = tuple(dict.fromkeys((f"{own} provision", *settings.authorized_keys)))
    declared = resources(
        account.user,
        keys,
        account.become_password,
        lock_passwords=settings.lock_passwords,
        lock_root=settings.lock_root,
        others=(settings.user,),
    )
    return Newcomer(host.name, account, {}, ways=ways, resources=tuple(declared), new_password=new)


def _first_logins(account: Login, settings: Bootstrap, asked: str | None, new: str | None) -> Iterator[Login]:
    """The login of the settings; then the same with the password that an earlier run gave it."""
    password = settings.password.get_secret_value() if settings.password else asked
    keys = () if password is not None else account.key_files
    if settings.key:
        keys = (str(at_home(settings.key)),)
    if password is None and (settings.user, keys) == (account.user, account.key_files):
        return  # which is the account itself
    first = replace(account, user=settings.user, key_files=keys, become_password=password, password=password)
    yield first
    if new is not None and password is not None:
        yield replace(first, become_password=new, password=new)


@dataclass
class FirstLogin(HostRun):
    """The run of a host that may not have its account yet.

    :ivar connect: makes connections.
    :ivar expired: the connection whose password has to be changed before anything else.
    :ivar used: connections that are closed.
    """

    connect: Callable[[Login], Connection] = Connection
    expired: Connection | None = None
    used: list[Connection] = field(default_factory=list)

    @classmethod
    def of(cls, target: Target, connection: Connection) -> FirstLogin:
        """The run of a host, whose connection is to be that of its account."""
        return cls(target, connection)

    @property
    def newcomer(self) -> Newcomer:
        """The host."""
        assert isinstance(self.target, Newcomer)
        return self.target

    def make_survey(self, on_event: OnEvent) -> None:
        """Find the way in, and plan. A host that wants another password first is planned as a bare one.

        :raises HostError: if there is no way in, or the host cannot be read or planned.
        """
        began = self.clock()
        try:
            self._find_way_in()
        finally:
            self.worked += self.clock() - began
        if self.expired is None:
            super().make_survey(on_event)
        else:
            self.survey = self._unasked_survey(self.expired.login.user)

    def _find_way_in(self) -> None:
        """Try the account first, then the first logins: one attempt each, since sshd counts failures."""
        refused: list[HostError] = []
        for login in (self.newcomer.login, *self.newcomer.ways):
            if refused:
                self._go_over(self.connect(login))
            try:
                self.connection.run("true", timeout=PATIENCE, what="a first command")
            except ExpiredPasswordError:
                if login.password is None or self.newcomer.new_password in (None, login.password):
                    raise
                self.expired = self.connection
                return
            except UnreachableError as error:
                if not isinstance(error, LoginRefusedError):
                    raise
                refused.append(error)
            except HostError as error:  # it has no sudo yet
                refused.append(error)
            else:
                return
        said = "; ".join(error.message for error in refused)
        last = refused[-1]
        if not isinstance(last, LoginRefusedError):
            raise HostError(last.host, said, hint=last.hint)
        hint = "are user, password and key below bootstrap right? sshd counts failures (PerSourcePenalties)"
        raise LoginRefusedError(last.host, said, hint=hint)

    def _go_over(self, connection: Connection) -> None:
        """Work over another connection from now on."""
        self.connection.close()
        self.used.append(self.connection)
        self.connection = connection

    def _unasked_survey(self, user: str) -> Survey:
        declared = self.target.declared(UNASKED)
        bare = {item.resource.id: item.resource.bare() for item in declared}
        plan = planning.plan(self.target.name, declared, bare, self.target.granted)
        change = Change(
            f"password:{user}",
            "update",
            f"change the password of {user} to bootstrap.new_password",
            "",
            "",
            reason="it has expired, and the host starts no command before",
            role=BOOTSTRAP,
        )
        note = "what else is right already is known when the password is changed"
        return Survey(UNASKED, declared, replace(plan, changes=(change, *plan.changes), notes=(note,)))

    def result(
        self,
        status: Status,
        *,
        error: HostError | None = None,
        changes: Sequence[Change] = (),
        not_run: int = 0,
    ) -> Result:
        """Sum up, with all connections."""
        found = super().result(status, error=error, changes=changes, not_run=not_run)
        every = (*self.used, self.connection)
        connects, execs = sum(one.connects for one in every), sum(one.execs for one in every)
        return replace(found, connects=connects, execs=execs)

    def _apply(self, run: str, on_event: OnEvent, done: list[Change]) -> None:
        """The account, its proof, the lock, its proof."""
        assert self.survey is not None
        approved = self.survey.plan
        if self.expired is not None:
            self._change_password(approved, on_event, done)
        plan = self.survey.plan
        first = tuple(change for change in plan.changes if not is_lock(change))
        locks = tuple(change for change in plan.changes if is_lock(change))
        self._apply_stage(Stage(replace(plan, changes=first)), run, on_event, done)
        if first or self.connection.login != self.newcomer.login:
            self._prove_account()
            on_event(self.target.name, f"{self.newcomer.login.user} logs in with its key, and has sudo")
        if locks:
            try:
                self._apply_stage(Stage(replace(plan, changes=locks)), f"{run}-1", on_event, done)
            except ChangeError:
                self._undo_lock()
                raise
            self._prove_lock()
            on_event(self.target.name, f"{self.newcomer.login.user} still logs in")
        self.require_converged(approved)

    def _change_password(self, approved: Plan, on_event: OnEvent, done: list[Change]) -> None:
        """Change the expired password, and plan anew over a connection with the new one.

        :raises RefusedError: if the new plan has more than was approved.
        """
        assert self.expired is not None
        assert self.newcomer.new_password is not None
        login, new = self.expired.login, self.newcomer.new_password
        self.expired.change_expired_password(new)
        self.expired = None
        done.append(approved.changes[0])
        self._go_over(self.connect(replace(login, password=new, become_password=new)))
        super().make_survey(on_event)
        assert self.survey is not None
        known = {change.resource for change in approved.changes}
        if beyond := [change for change in self.survey.plan.changes if change.resource not in known]:
            message = f"the plan has more than was approved: {beyond[0].summary} ({beyond[0].reason})"
            raise RefusedError(self.target.name, message, hint="run again, and look at the new plan")

    def _prove_account(self) -> None:
        """Log in as the account, over a connection of its own; everything else goes over that one.

        :raises HostError: where that does not work; sshd still takes what it took before.
        """
        proof = self.connect(self.newcomer.login)
        try:
            proof.run("true", timeout=PATIENCE, what="the proof")
        except HostError as error:
            proof.close()
            if isinstance(error, UnreachableError) and not isinstance(error, LoginRefusedError):
                raise
            raise ChangeError(
                self.target.name,
                f"the account is there and does not work, so nothing was locked: {error.message}",
                resource=f"account:{self.newcomer.login.user}",
                hint="AllowUsers in sshd_config, or a home that others may write? on it: journalctl -t sshd",
            ) from error
        self._go_over(proof)

    def _prove_lock(self) -> None:
        """Log in as the account once more, and tell the host that it need not take the lock back.

        :raises ChangeError: where that does not work; then the lock is taken back over the open connection.
        """
        for wait in (*RETRIES, None):
            proof = self.connect(self.newcomer.login)
            try:
                proof.run(f"{assembled(SHELL)}keep_lock\n", timeout=PATIENCE, what="the proof")
            except HostError as error:
                proof.close()
                if wait is None or isinstance(error, LoginRefusedError):
                    failure = error
                    break
                self.sleep(wait)
            else:
                self._go_over(proof)
                return
        raise ChangeError(
            self.target.name,
            f"no login works since sshd read its files again; {self._undo_lock()}: {failure.message}",
            resource="sshd",
            hint="sshd may have read another change of its files; on the host: journalctl -t sshd",
        ) from failure

    def _undo_lock(self) -> str:
        """Take the lock back over the connection that is open; says what becomes of it."""
        try:
            script = f"{assembled(SHELL)}undo_lock\n"
            undone = self.connection.run(script, timeout=PATIENCE, what="taking the lock back").ok
        except HostError:
            undone = False
        return "the lock was taken back" if undone else "the host takes the lock back within two minutes"
