"""What handlers and services answer to: names that some change of the roles bears, on at least one system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from provision.cli.rendered import assumed
from provision.errors import RefusedError
from provision.facts import Facts
from provision.plan.declared import Declared, declare
from provision.plan.plan import plan
from provision.resource import AWAIT, Handler, Planned, names_of
from provision.resources.file import File, gone
from provision.resources.packages.sets import PackageSet, moves_of
from provision.resources.service import Service
from provision.roles import all_roles
from tests.roles.test_role import systems
from tests.unit.examples import REPO, bare, settings_of, with_gpus

VARIANTS: tuple[dict[str, dict[str, Any]], ...] = (
    {},
    {"driver": {"source": "archive", "version": None, "repo": None, "branch": 535}},
    {"docker": {"daemon": {}}},
    {"docker": {"daemon": {"data-root": "/data"}}},
    {"docker": {"source": "docker", "repo": REPO}},
    {"docker": {"packages": {"moby-engine": None}}},
)
"""Settings that differ from the examples, by role."""


def hosts() -> Iterator[Facts]:
    """A host of each system, with and without NVSwitches, and one with NVLink 5."""
    for facts in systems().values():
        yield facts
        yield replace(facts, nvswitches=4)
    yield replace(assumed("ubuntu:24.04"), nvlink5=True, gpus=with_gpus("Blackwell").gpus)


class Asked(Planned):
    """Nothing is planned yet; notes what it is asked for."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        object.__setattr__(self, "names", names)

    def positions(self, names: Any) -> tuple[int, ...]:
        vars(self)["names"].update(names)
        return ()


def listened(item: Declared, state: Any) -> set[str]:
    """The names that a resource answers to, or asks the plan for."""
    resource = item.resource
    names: set[str] = set()
    for attribute in ("on", "covered_by", "holds_back", "after"):
        names.update(names_of(getattr(resource, attribute, ())))
    resource.change(state, Asked(names))
    return names


def answers_to(resource: Any) -> Iterator[str]:
    """What a change of a resource may bear on a host that has something already."""
    if isinstance(resource, File):
        yield f"{resource.id}:update"
    if path := getattr(resource, "path", ""):
        yield gone(path)
    if isinstance(resource, Service):
        yield f"{resource.id}:{AWAIT}"
    if isinstance(resource, PackageSet):
        yield from moves_of([package.name for package in resource.packages])


def test_every_name_that_is_listened_to_is_borne_by_a_change() -> None:
    """On a bare host, where packages may then move in any way, and every handler may be owed."""
    borne: set[str] = set()
    heard: dict[str, str] = {}
    for facts in hosts():
        for variant in VARIANTS:
            items: list[Declared] = []
            for role in all_roles():
                try:
                    settings = settings_of(role.name, **variant.get(role.name, {}))
                    items += declare("h", {role: settings}, facts)
                except RefusedError:
                    continue
            states = bare(items)
            borne.update(item.resource.id for item in items)
            owed = [
                item.resource.change(True, Planned()) for item in items if isinstance(item.resource, Handler)
            ]
            for change in (*plan("h", items, states).changes, *filter(None, owed)):
                borne.update((f"{change.resource}:{change.action}", *change.signals))
            for item in items:
                borne.update(answers_to(item.resource))
                for name in listened(item, states[item.resource.id]):
                    heard.setdefault(name, item.resource.id)
    assert {name: who for name, who in heard.items() if name not in borne} == {}
    assert {"packages:docker", "docker restarted", "module:nvidia"} <= heard.keys(), "all kinds are heard"
