"""The toolkit role: what its settings refuse, and what it wants of different systems."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from provision.facts import Facts
from provision.resource import Handler
from provision.resources.file import File
from provision.resources.packages.deb import Packages
from provision.resources.packages.other_sources import OtherSources
from provision.resources.packages.repository import KeyFile, RepositoryFile
from provision.resources.packages.rpm import RpmPackages
from provision.resources.signals import DRIVER_LOADED, DRIVER_MOVED, TOOLKIT_INSTALLED
from provision.roles import all_roles
from provision.roles.toolkit.cdi import REFRESH, CdiSpecs
from provision.roles.toolkit.config import ConfigToml
from provision.roles.toolkit.role import HOOK_RUNS, LDCONFIG, MODE, NO_CGROUPS, PACKAGES, ROLE, declared
from tests.unit.examples import H100, REPO, settings_of, with_gpus

UBUNTU = replace(H100, os="ubuntu", version="24.04", codename="noble")
ROCKY = replace(H100, os="rocky", version="9.4", codename="", architecture="")


def found(facts: Facts = H100, **changes: Any) -> list[Any]:
    return list(ROLE.resources(settings_of("toolkit", **changes), facts))


def others(facts: Facts = H100, **changes: Any) -> OtherSources:
    """What is to go because it brings the toolkit's packages."""
    return next(r for r in found(facts, **changes) if r.id == "other-sources:toolkit")  # type: ignore[no-any-return]


def only(kind: type[Any], facts: Facts = H100, **changes: Any) -> Any:
    (one,) = (resource for resource in found(facts, **changes) if isinstance(resource, kind))
    return one


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"nvidia-container-runtime": {"mode": "cdi"}}, "makes docker run --gpus fail"),
        ({MODE: "jit-cdi"}, "makes docker run --gpus fail"),
        ({MODE: "csv"}, "is not one of auto, cdi, jit-cdi, legacy"),
        ({MODE: "auto", "nvidia-container-runtime": {"mode": "auto"}}, "is given twice"),
        ({NO_CGROUPS: True}, "without access to the GPUs"),
        ({NO_CGROUPS: "no"}, "must be true or false"),
        ({LDCONFIG: "/sbin/ldconfig"}, "is a program of the container"),
        ({"nvidia-container-cli": {"no-cgroup": False}}, "has no key 'nvidia-container-cli.no-cgroup'"),
    ],
)
def test_config_that_cannot_be_meant(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        settings_of("toolkit", config=config)


@pytest.mark.parametrize(
    "config",
    [
        {MODE: "legacy"},
        {MODE: "cdi", HOOK_RUNS: True},
        {LDCONFIG: "/sbin/ldconfig", "features.allow-ldconfig-from-container": True},
        {"nvidia-container-runtime": {"log-level": "debug", "modes": {"cdi": {"default-kind": "a.b/c"}}}},
    ],
)
def test_config_that_can_be_meant(config: dict[str, Any]) -> None:
    only(ConfigToml, config=config)


@pytest.mark.parametrize(
    ("facts", "ldconfig"),
    [(H100, "@/sbin/ldconfig"), (ROCKY, "@/sbin/ldconfig"), (UBUNTU, "@/sbin/ldconfig.real")],
    ids=lambda value: value.os if isinstance(value, Facts) else "",
)
def test_what_every_system_needs_of_config_toml(facts: Facts, ldconfig: str) -> None:
    assert only(ConfigToml, facts).keys == {MODE: "auto", NO_CGROUPS: False, LDCONFIG: ldconfig}
    assert declared(settings_of("toolkit", config={LDCONFIG: "@/x"}), facts)[LDCONFIG] == "@/x"  # type: ignore[arg-type]


def test_rhel_has_the_same_but_apts_pin() -> None:
    packages = only(RpmPackages, ROCKY)
    assert [(p.name, p.version) for p in packages.packages] == [(name, "1.20.0-1") for name in PACKAGES]
    assert packages.hold
    assert packages.signals == (("install", TOOLKIT_INSTALLED),)
    gone = others(ROCKY)
    assert (gone.family, gone.architecture) == ("rhel", "x86_64")
    files = [resource.path for resource in found(ROCKY) if isinstance(resource, File)]
    assert not [path for path in files if path.startswith("/etc/apt")]
    assert set(gone.own) <= set(files)


def test_other_sources_go_when_ours_was_read_and_config_comes_before_packages() -> None:
    kinds = [type(resource) for resource in found()]
    assert kinds[:4] == [KeyFile, RepositoryFile, OtherSources, OtherSources]
    assert kinds.index(ConfigToml) < kinds.index(Packages) < kinds.index(CdiSpecs)
    assert set(others().own) == {r.path for r in found() if isinstance(r, File)} - {
        "/etc/apt/preferences.d/provision-toolkit"
    }


@pytest.mark.parametrize(("facts", "changes"), [(with_gpus(), {}), (H100, {"cdi": False})])
def test_no_spec_where_there_is_nothing_to_describe(facts: Facts, changes: dict[str, Any]) -> None:
    assert not [r for r in found(facts, **changes) if isinstance(r, CdiSpecs | Handler)]


def test_the_spec_is_made_anew_after_the_driver() -> None:
    handler = only(Handler)
    assert handler.name == REFRESH
    assert {DRIVER_MOVED, DRIVER_LOADED, "package:nvidia-container-toolkit-base:install"} <= set(handler.on)
    ids = [resource.id for resource in found()]
    assert ids[-3:] == ["cdi:others", handler.id, "cdi:generated"]


@pytest.mark.parametrize(("choice", "remove"), [("keep", False), ("remove", True)])
def test_other_specs_stay_or_go(choice: str, remove: bool) -> None:
    assert CdiSpecs("others", remove=remove) in found(other_cdi_specs=choice)


@pytest.mark.parametrize(
    ("role", "changes"),
    [
        ("driver", {}),
        ("toolkit", {}),
        ("docker", {"source": "docker", "repo": {**REPO, "suite": "x", "components": ["y"]}}),
    ],
)
def test_every_role_replaces_other_sources_of_its_repository(role: str, changes: dict[str, Any]) -> None:
    wanted = settings_of(role, **changes)
    resources = list(next(known for known in all_roles() if known.name == role).resources(wanted, H100))
    slug = wanted.repo.slug  # type: ignore[attr-defined]
    ids = [resource.id for resource in resources]
    source = f"file:/etc/apt/sources.list.d/{slug}.sources"
    assert ids.index(f"other-sources:{slug}") > ids.index(source)
    assert source.removeprefix("file:") in next(r for r in resources if r.id == f"other-sources:{slug}").own  # type: ignore[attr-defined]
