"""RPM packages at wanted versions, from the wanted module stream, installed together and locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from provision.errors import Refusal
from provision.probe import Output, Probe, quote, words
from provision.resource import Change, Planned, Resource, Signal
from provision.resources.packages import dnf
from provision.resources.packages.apt import HELD
from provision.resources.packages.deb import SIGNS, MajorVersion, Package, major, told

DNF = "shell/dnf.sh"

PLUGIN = "python3-dnf-plugin-versionlock"
"""The package that makes dnf heed the locks."""


@dataclass(frozen=True)
class Installed:
    """One installed instance of a package; of kernel packages there are several side by side."""

    epoch: str
    version: str
    release: str

    @property
    def text(self) -> str:
        """As people write it: version and release."""
        return f"{self.version}-{self.release}"

    def matches(self, wanted: str | None) -> bool:
        """Whether it is right: ``wanted`` is a version, with or without release and epoch, or a glob."""
        return wanted is None or any(
            fnmatchcase(form, wanted)
            for form in (self.version, self.text, f"{self.epoch}:{self.version}", f"{self.epoch}:{self.text}")
        )


@dataclass(frozen=True)
class RpmState:
    """What rpm and dnf know of a set.

    :ivar installed: instances by name.
    :ivar locks: lines of the versionlock list.
    :ivar ours: packages whose locks are ours.
    :ivar stream: the enabled stream of the set's module; empty without one.
    """

    installed: Mapping[str, tuple[Installed, ...]]
    locks: tuple[str, ...] = ()
    ours: frozenset[str] = frozenset()
    stream: str = ""

    def lock(self, name: str) -> str:
        """The lock of a package, or empty."""
        return next((lock for lock in self.locks if _locks(lock, name, self.installed.get(name, ()))), "")


@dataclass(frozen=True)
class RpmPackages(Resource[RpmState]):
    """Packages that belong together: one dnf transaction installs them.

    :ivar name: what the set is called in plans.
    :ivar hold: lock them at their version, so that no upgrade of the system moves them.
    :ivar stream: ``MODULE:STREAM`` that has to be enabled, such as ``nvidia-driver:580-open``.
    :ivar major: a major version that only a permission changes.
    :ivar why: reason for these packages and no others; shown where one of them moves.
    :ivar remarks: what an operator should know then, one line each.
    :ivar proof: sh text that succeeds when what was installed is what was asked for, beyond versions.
    :ivar signals: as in :class:`provision.resources.packages.deb.Packages`.
    :ivar shell: the files whose functions its change calls.
    """

    name: str
    packages: tuple[Package, ...]
    hold: bool = True
    stream: str | None = None
    major: MajorVersion | None = None
    why: str = ""
    remarks: tuple[str, ...] = ()
    proof: str = ""
    signals: tuple[tuple[str, Signal], ...] = ()
    shell: tuple[str, ...] = (DNF,)
    kind: ClassVar[str] = "rpm-packages"

    @property
    def id(self) -> str:
        """``packages:NAME``."""
        return f"packages:{self.name}"

    @property
    def module(self) -> str:
        """The name of the module whose stream counts; empty without one."""
        return (self.stream or "").partition(":")[0]

    @classmethod
    def probe(cls, resources: Sequence[RpmPackages]) -> Probe:
        """Ask rpm for every package of every set at once; locks and streams are files."""
        names = sorted({PLUGIN, *(n for r in resources for n in r.names())})
        form = r"%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n"
        modules = words(*sorted({f"{dnf.STREAMS}/{r.module}.module" for r in resources if r.module}))
        return Probe(
            "rpm-packages",
            f"echo machine $(uname -m)\n"
            f"sed 's/^/ours /' {HELD} 2>/dev/null\n"
            f"sed 's/^/lock /' {dnf.LOCKS} 2>/dev/null\n"
            + (f"sed 's/^/module /' {modules} 2>/dev/null\n" if modules else "")
            + f"rpm -qa --qf {quote('rpm ' + form)} {words(*names)}",
        )

    @classmethod
    def states(cls, resources: Sequence[RpmPackages], answer: Output) -> Mapping[str, RpmState]:
        """The state of each set.

        :raises ValueError: if rpm itself failed.
        """
        if answer.exit_code != 0:
            raise ValueError(f"rpm: exit {answer.exit_code}: {answer.err.strip()}")
        lines: dict[str, list[str]] = {}
        for line in answer.out.splitlines():
            what, _, rest = line.partition(" ")
            lines.setdefault(what, []).append(rest)
        native = (*lines["machine"], "noarch")
        installed: dict[str, tuple[Installed, ...]] = {}
        for row in lines.get("rpm", ()):
            name, epoch, version, release, architecture = row.split("\t")
            if architecture in native:
                installed[name] = (*installed.get(name, ()), Installed(epoch, version, release))
        locks = [line.strip() for line in lines.get("lock", ())]
        streams = dnf.streams(lines.get("module", ()))
        return {
            r.id: RpmState(
                {n: i for n, i in installed.items() if r._knows(n)},
                tuple(lock for lock in locks if lock and not lock.startswith(("#", "!"))),
                frozenset(lines.get("ours", ())),
                streams.get(r.module, ""),
            )
            for r in resources
        }

    def bare(self) -> RpmState:
        """No package is installed."""
        return RpmState({})

    def names(self) -> tuple[str, ...]:
        """Names and globs of all packages that count."""
        return (*(p.name for p in self.packages), *(self.major.others if self.major else ()))

    def _knows(self, name: str) -> bool:
        return name == PLUGIN or any(fnmatchcase(name, known) for known in self.names())

    def change(self, state: RpmState, planned: Planned) -> Change | None:  # noqa: ARG002
        """Enable the stream, install what is missing or at another version, and lock what is not locked.

        Its signals are ``package:NAME:VERB`` for every package that moves.

        :raises Refusal: if somebody else locks a package at another version.
        """
        moves = {p: _move(p, state.installed.get(p.name, ())) for p in self.packages}
        moved = [p for p in self.packages if moves[p]]
        loose = [p for p in self.packages if self.hold and not self._locked(p, state)]
        switch = bool(self.stream) and self.stream != f"{self.module}:{state.stream}"
        if not moved and not loose and not switch:
            return None
        self._refuse_foreign_locks(state, moved)
        verbs = {_verb(move) for move in moves.values() if move}
        action = next((v for v in ("downgrade", "upgrade", "repair", "install") if v in verbs), "")
        action = action or ("switch" if switch else "hold")
        swap = self.major.change(self._majors(state)) if self.major and (moved or switch) else ""
        stream = f"module {self.module}: stream {state.stream or 'none'} → {self.stream}" if switch else ""
        why = self.why if moved or switch else ""
        reasons = [r for r in (swap, why, stream, *(f"{p.name}: {moves[p]}" for p in moved)) if r]
        wanted = [*self._plugin(state), *(_selector(p) for p in moved)]
        named = [*([f"module {self.stream}"] if switch else []), *(_selector(p) for p in moved or loose)]
        return Change(
            resource=self.id,
            action=action,
            summary=f"{action} {' '.join(named)}",
            reason="; ".join(reasons) if moved or switch else "not locked",
            diff="".join(_lines(p, state.installed.get(p.name, ())) for p in moved),
            sign=SIGNS.get(action, "~"),
            signals=(
                *(f"package:{p.name}:{_verb(moves[p])}" for p in moved),
                *told(self.signals, verbs),
            ),
            done=self._done(),
            script=self._script(wanted, switch=switch),
            needs=self.major.permission if self.major and swap else None,
            preview=Probe("", dnf.simulate(wanted, str(self.stream) if switch else "")) if wanted else None,
            reloads_systemd=True,
        )

    def refine(self, change: Change, answer: Output) -> Change:
        """Show what dnf would do, and approve exactly the removals that it shows."""
        found = dnf.read(answer.out)
        approved = f"may_remove={quote(' '.join(found.removed))}\n" if found.removed else ""
        return replace(change, simulation=found.text, script=approved + change.script)

    def notes(self, state: RpmState, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """The remarks, where a package moves."""
        moves = any(_move(p, state.installed.get(p.name, ())) for p in self.packages)
        return self.remarks if moves else ()

    def _plugin(self, state: RpmState) -> list[str]:
        return [PLUGIN] if self.hold and PLUGIN not in state.installed else []

    def _locked(self, package: Package, state: RpmState) -> bool:
        return PLUGIN in state.installed and any(
            _accepts(lock, package.name, one)
            for lock in state.locks
            for one in state.installed.get(package.name, ())
        )

    def _refuse_foreign_locks(self, state: RpmState, moved: Sequence[Package]) -> None:
        for package in moved:
            lock = state.lock(package.name)
            if lock and package.name not in state.ours:
                raise Refusal(
                    f"{package.name} is held at {lock.removeprefix(f'{package.name}-')} by somebody,"
                    f" wanted {package.version or 'it installed'}",
                    hint=f"dnf versionlock delete {package.name}",
                )

    def _majors(self, state: RpmState) -> set[int]:
        """The major versions that are installed, by the packages whose version tells."""
        kept = self.major.version if self.major else None
        silent = {p.name for p in self.packages if p.version is None or major(p.version) != kept}
        silent.add(PLUGIN)
        return {major(i.version) for n, found in state.installed.items() if n not in silent for i in found}

    def _done(self) -> str:
        checks = [f"rpm_is {words(p.name, p.version or '*')}" for p in self.packages]
        if self.stream:
            checks.insert(0, f"stream_is {words(*self.stream.split(':', 1))}")
        if self.hold:
            checks += [f"rpm_locked {quote(p.name)}" for p in self.packages]
        return " && ".join(checks + ([self.proof] if self.proof else []))

    def _script(self, wanted: Sequence[str], *, switch: bool) -> str:
        names = [p.name for p in self.packages]
        stream = str(self.stream) if switch else ""
        lines = []
        if wanted:
            lines.append(f"dnf_install {quote(stream)} {quote(' '.join(names))} {words(*wanted)}")
        elif switch:
            lines.append(f"switch_stream {quote(stream)}")
        if self.hold:
            lines.append(f"lock_rpms {words(*names)}")
        return " && ".join(lines)


def _locks(lock: str, name: str, installed: Sequence[Installed]) -> bool:
    """Whether a line of the list is about a package: by its name, or by a pattern that it matches."""
    return lock.rsplit("-", 2)[0] == name or any(_accepts(lock, name, one) for one in installed)


def _accepts(lock: str, name: str, one: Installed) -> bool:
    forms = (f"{name}-{one.epoch}:{one.text}", f"{name}-{one.text}", f"{one.epoch}:{name}-{one.text}")
    return any(fnmatchcase(f"{form}.noarch", lock) or fnmatchcase(form, lock) for form in forms)


def _move(package: Package, installed: Sequence[Installed]) -> str:
    """What has to happen to a package, in words that begin with a verb; empty if it is right."""
    if not installed:
        return "install, it is not installed"
    right = any(one.matches(package.version) for one in installed)
    if package.name.startswith("kernel"):
        return "" if right else f"install, beside {' '.join(one.text for one in installed)}"
    if len(installed) > 1:
        return f"repair, {' and '.join(one.text for one in installed)} are installed"
    if right:
        return ""
    wanted = (package.version or "").rpartition(":")[2].rstrip("*")
    verb = "upgrade" if dnf.compare(wanted, installed[0].text) > 0 else "downgrade"
    return f"{verb} from {installed[0].text}"


def _verb(move: str) -> str:
    return move.partition(" ")[0].rstrip(",")


def _selector(package: Package) -> str:
    return package.name if package.version is None else f"{package.name}-{package.version}"


def _lines(package: Package, installed: Sequence[Installed]) -> str:
    old = (
        "" if package.name.startswith("kernel") else "".join(f"-{package.name} {i.text}\n" for i in installed)
    )
    return f"{old}+{package.name} {package.version or '(newest)'}\n"
