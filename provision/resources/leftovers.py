"""What a role has left on a host and nobody wants any more, by the record that runs keep there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from posixpath import normpath
from typing import Any, ClassVar

from provision.errors import Refusal
from provision.plan.declared import Declared
from provision.probe import Output, Probe, by_word, quote, words
from provision.resource import Change, Handler, Planned, Resource, unified
from provision.resources.file import gone, parse_contents
from provision.role import Role
from provision.shell import constant

SOURCES = ("file:/etc/apt/", "file:/etc/yum.repos.d/", "file:/etc/pki/rpm-gpg/")
"""Where the files are with which every package operation can stop."""

BACKUPS = constant("shell/files.sh", "backups")
RECORD = constant("shell/record.sh", "record")


@dataclass(frozen=True)
class Record:
    """What the record of a host has, as pairs of a role and what it left.

    :ivar rows: all of it.
    :ivar here: what is still there.
    :ivar other: what somebody made in the place of ours.
    """

    rows: frozenset[tuple[str, str]] = frozenset()
    here: frozenset[tuple[str, str]] = frozenset()
    other: frozenset[tuple[str, str]] = frozenset()

    def of(self, role: str) -> list[str]:
        """All that is noted of a role."""
        return sorted(item for one, item in self.rows if one == role)

    def left_by(self, role: str, besides: Iterable[str] = ()) -> list[str]:
        """Files and holds that are there because of a role, and of no other but those of ``besides``."""
        others = {item for one, item in self.rows if one not in (role, *besides)}
        items = (item for one, item in self.here if one == role and item not in others)
        return sorted(item for item in items if item.startswith(("file:", "hold:")))


@dataclass(frozen=True)
class Leftovers(Resource[Record]):
    """Nothing that a role has left is there but what it declares now.

    :ivar role: its name.
    :ivar wanted: what it declares, each with the ids of the resources that bring it.
    :ivar kept: what any role of this run declares.
    :ivar roles: the roles of this run.
    :ivar given: the roles that have settings for the host.
    :ivar why: the reason why things go.
    """

    role: str
    wanted: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    kept: frozenset[str] = frozenset()
    roles: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    why: str = "the settings no longer name it"
    kind: ClassVar[str] = "leftovers"
    shell = ("shell/leftovers.sh",)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.role}"

    @classmethod
    def asked_by(cls) -> type[Resource[Any]]:
        return Leftovers

    @classmethod
    def probe(cls, resources: Sequence[Leftovers]) -> Probe:  # noqa: ARG003
        """Read the record, which starts no process."""
        return Probe("leftovers", "recorded", ("shell/record.sh",), in_place=True)

    @classmethod
    def states(cls, resources: Sequence[Leftovers], answer: Output) -> Mapping[str, Record]:
        """The record, the same for all.

        :raises Refusal: if a line is not as we write it.
        """
        if not answer.ok:
            raise _damaged(answer.err.strip())
        lines = [_row(line) for line in answer.out.removesuffix("\n").split("\n") if line]
        rows = frozenset((role, item) for _, role, item in lines)
        here, other = (
            frozenset((role, item) for word, role, item in lines if word == wanted)
            for wanted in ("here", "other")
        )
        return {r.id: Record(rows, here, other) for r in resources}

    def bare(self) -> Record:
        return Record()

    def change(self, state: Record, planned: Planned) -> Change | None:
        """Take away what is not wanted; note what is ours and was not noted."""
        going = [item for item in self._going(state) if not planned.positions((gone(_name(item)),))]
        new = [f"{self.role} {item}" for item in self._new(state, planned)]
        if not going and not new:
            return None
        going.sort(key=lambda item: not item.startswith("file:/etc/systemd/"))  # units, then what they use
        files = [_name(item) for item in going if item.startswith("file:")]
        holds = [_name(item) for item in going if item.startswith("hold:")]
        summary = [f"remove {', '.join(files)} (kept in the backups)"] * bool(files)
        summary += [f"lift the hold of {', '.join(holds)}"] * bool(holds)
        summary += [f"note as ours: {', '.join(_name(item) for item in new)}"] * bool(new)
        script = [words("take_away", self.role, *going)] * bool(going)
        script += [words("remember", *new)] * bool(new)
        done = [f"[ ! -e {quote(path)} ]" for path in files] + [f"! is_ours {quote(name)}" for name in holds]
        done += [words("are_remembered", *new)] * bool(new)
        return Change(
            resource=self.id,
            action="remove" if going else "note",
            summary="; ".join(summary),
            reason=self.why if going else "so that it goes, or is named, when it is not wanted any more",
            sign="-" if going else "~",
            script=" && ".join(script),
            done=" && ".join(done),
            signals=tuple(map(gone, files)),
            # Another kernel can want other packages.
            after_reboot=not files,
            reloads_systemd=any(path.startswith("/etc/systemd/") for path in files),
            preview=_question("", "", files) if files else None,
        )

    def _going(self, state: Record) -> list[str]:
        found = state.left_by(self.role, self.roles)
        return [item for item in found if item not in self.kept and item.startswith(SOURCES) == self.first]

    def notes(self, state: Record, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """What somebody made in the place of ours."""
        found = sorted(item for role, item in state.other if role == self.role and item not in self.kept)
        return [
            f"{_name(item)} is not what role {self.role} wrote there, and stays"
            for item in found
            if item.startswith(SOURCES) == self.first
        ]

    def _new(self, state: Record, planned: Planned) -> Iterator[str]:
        """What is right and was not noted: an earlier version wrote it, or another role.

        A hold that nobody has noted may be somebody else's.
        """
        noted = [item.replace("before:", "file:", 1) for item in state.of(self.role)]
        ours = {item for _, item in state.here}
        for item, resources in self.wanted.items():
            if self.first or item in noted or planned.positions(resources):
                continue
            if not item.startswith("hold:") or item in ours:
                yield item

    def refine(self, change: Change, answer: Output) -> Change:
        """Show what goes and which units stop; and what stays, and how that is removed."""
        head, mark, data = answer.stdout.partition(b"==> ")
        told = by_word(head.decode("utf-8", "backslashreplace"))
        texts = parse_contents(mark + data)
        impact = [f"{unit} is running and will be stopped" for unit in told.get("runs", ())]
        for word, noun in (("package", "packages"), ("image", "images")):
            if names := " ".join(told.get(word, ())):
                impact.append(f"{noun} stay; to remove them: {''.join(told[f'{word}-tool'])} {names}")
        files = [item for item in change.signals if item.startswith(gone(""))]
        diff = "".join(_removal_of(item.removeprefix(gone("")), texts) for item in files)
        return replace(change, impact=tuple(impact), diff=diff)


@dataclass(frozen=True)
class OldSources(Leftovers):
    """The same for sources, keys and pins: they go after new ones came, and before packages are installed."""

    kind: ClassVar[str] = "old-sources"
    first: ClassVar[bool] = True


@dataclass(frozen=True)
class NothingOf(Leftovers):
    """Nothing of a role is there, nor in the record.

    :ivar users: the roles that need it.
    :ivar known: whether there is such a role.
    """

    users: tuple[str, ...] = ()
    known: bool = True
    why: str = "the role is removed"

    def change(self, state: Record, planned: Planned) -> Change | None:
        """Take away what is left, and forget the role.

        :raises Refusal: if another role needs it.
        """
        for user in self.users:
            there = "has settings for this host" if user in self.given else ""
            there = there or ("is still on this host" if state.of(user) else "")
            if there and user not in self.roles:
                raise Refusal(
                    f"role {self.role} is not removed: {user} needs it, and {there}",
                    hint=f"remove both: --roles {user},{self.role}",
                )
        if not state.of(self.role):
            return None
        change = super().change(state, planned) or Change(
            self.id, "forget", f"forget what role {self.role} has left", "", "", self.why, sign="-"
        )
        kinds = {
            kind: " ".join(_name(item) for item in state.of(self.role) if item.startswith(f"{kind}:"))
            for kind in ("package", "image")
        }
        files = [item.removeprefix(gone("")) for item in change.signals]
        return replace(
            change,
            script=" && ".join(filter(None, (change.script, words("forget_role", self.role)))),
            done=" && ".join(filter(None, (change.done, words("is_forgotten", self.role)))),
            preview=_question(kinds["package"], kinds["image"], files),
        )

    def notes(self, state: Record, planned: Planned) -> Sequence[str]:
        """That it comes back, where the inventory still has its settings; and what stays as we wrote it."""
        noted = state.of(self.role)
        if not noted:
            strange = f"there is no role {self.role!r}, and nothing of one on this host"
            return () if self.known else (strange,)
        found = [
            f"{_name(item)} was there before role {self.role}, and stays as it is now;"
            f" what it was before a run is in {BACKUPS}"
            for item in noted
            if item.startswith("before:")
        ]
        found += super().notes(state, planned)
        if self.role in self.given:
            found.append(f"role {self.role} still has settings for this host: provision brings it back")
        return found


@dataclass(frozen=True)
class LeftByOthers(Leftovers):
    """What roles have left that have no settings any more: it is named, and stays."""

    host: str = ""
    kind: ClassVar[str] = "left-by-others"

    def change(self, state: Record, planned: Planned) -> Change | None:  # noqa: ARG002
        """Nothing is done about it."""
        return None

    def notes(self, state: Record, planned: Planned) -> Sequence[str]:  # noqa: ARG002
        """A line for each such role."""
        roles = sorted({role for role, _ in state.here} - {*self.roles, *self.given})
        return [note for role in roles if (note := self._note(role, state))]

    def _note(self, role: str, state: Record) -> str:
        left = [_name(item) for item in state.left_by(role) if item not in self.kept]
        left += [f"our keys in {_name(item)}" for item in state.of(role) if item.startswith("keys:")]
        if not left:
            return ""
        some = f"{left[0]} is" if len(left) == 1 else f"{left[0]} and {len(left) - 1} more are"
        return (
            f"role {role} has no settings for this host, and {some} left of it;"
            f" to remove that: inv remove --roles {role} --hosts {self.host}"
        )


def with_leftovers(
    declared: Sequence[Declared], roles: Sequence[str], given: Sequence[str], host: str = "all"
) -> tuple[Declared, ...]:
    """What roles declare, and that nothing else of them is there.

    :param host: for the command that removes what others have left.
    """
    wanted: dict[str, dict[str, tuple[str, ...]]] = {role: {} for role in roles}
    for item in declared:
        for role, leaf in itertools.product((item.role, *item.also), item.resource.leaves):
            wanted[role][leaf] = (*wanted[role].get(leaf, ()), item.resource.id)
    kept = frozenset(leaf for item in declared for leaf in item.resource.leaves)
    sources, rest = [], []
    for role in roles:
        every = (role, wanted[role], kept, tuple(roles), tuple(given))
        sources.append(Declared(role, OldSources(*every)))
        rest.append(Declared(role, Leftovers(*every)))
    others = LeftByOthers("", {}, kept, tuple(roles), tuple(given), host=host)
    start = sum(item.resource.first for item in declared)  # they are sorted so
    return (*declared[:start], *sources, *declared[start:], *rest, Declared("", others))


def without(
    chosen: Sequence[Role], known: Sequence[Role], given: Sequence[str], strange: Sequence[str] = ()
) -> tuple[Declared, ...]:
    """What a host is without roles: those that need others go first.

    :param known: all roles.
    :param given: names of the roles that have settings for the host.
    :param strange: names of further roles that are to go, of which only hosts may know.
    """
    names = [*strange, *(role.name for role in reversed(chosen))]
    by_name = {role.name: role for role in chosen}
    sources, rest = [], []
    for name in names:
        own = list(by_name[name].removal()) if name in by_name else []
        users = tuple(role.name for role in known if name in role.needs)
        nothing = NothingOf(name, roles=tuple(names), given=tuple(given), users=users, known=name in by_name)
        old = OldSources(name, roles=nothing.roles, given=nothing.given, why=nothing.why)
        sources.append(Declared(name, old))
        rest += [Declared(name, resource) for resource in own if not isinstance(resource, Handler)]
        rest.append(Declared(name, nothing))
        rest += [Declared(name, resource) for resource in own if isinstance(resource, Handler)]
    return (*sources, *rest)


def _row(line: str) -> tuple[str, str, str]:
    """A word, a role and what it left.

    :raises Refusal: if we do not write such lines.
    """
    word, role, item = [*line.split(" ", 2), "", ""][:3]
    kind, _, name = item.partition(":")
    path = kind in ("file", "before", "folder", "keys")
    if not (role and kind and name) or (path and normpath(name) != name) or (path and name[0] != "/"):
        raise _damaged(f"a line is {line.partition(' ')[2][:200]!r}")
    return word, role, item


def _damaged(why: str) -> Refusal:
    hint = f"on the host: mv {RECORD} {RECORD}.damaged; the next run notes anew what is there"
    return Refusal(f"{RECORD} is not as provision writes it: {why}", hint=hint)


def _name(item: str) -> str:
    """``/etc/x`` of ``file:/etc/x``, with or without the role before it."""
    return item.partition(":")[2]


def _question(packages: str, images: str, files: Sequence[str]) -> Probe:
    """What is in files that go, which units run, and which packages and images stay."""
    return Probe("", words("about_leftovers", packages, images, *files), ("shell/leftovers_state.sh",))


def _removal_of(path: str, texts: Mapping[str, bytes]) -> str:
    if path not in texts:
        return f"--- {path}\n(content is not shown)\n"
    return unified(texts[path].decode("utf-8", "backslashreplace"), "", path)
