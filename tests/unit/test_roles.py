"""What every role has to be, and what single roles refuse.

``pytest --update-golden tests/unit/test_roles.py`` writes the golden plans; look at the difference in git.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provision.cli.check_roles import CheckedRole
from provision.errors import Refusal, SettingsError
from provision.facts import Facts
from provision.inventory import Host
from provision.inventory.settings import read
from provision.inventory.sources import load
from provision.plan import report
from provision.plan.plan import plan
from provision.resource import AnyResource, Handler, names_of
from provision.resources.signals import TOOLKIT_INSTALLED
from provision.role import Role, Settings
from provision.roles import all_roles, choose
from tests.roles.test_role import TestRole, compare
from tests.unit.examples import (
    FINGERPRINT,
    H100,
    IMAGE,
    KEY,
    REPO,
    bare,
    declared,
    example_of,
    repo,
    settings_of,
    with_gpus,
)

GOLDEN = Path(__file__).parent.parent / "golden/plan_of_a_bare_h100_host.txt"
ROLES = pytest.mark.parametrize("role", all_roles(), ids=lambda role: str(role.name))


def resources(role: str, facts: Any = H100, **changes: Any) -> list[AnyResource]:
    found = next(known for known in all_roles() if known.name == role)
    return list(found.resources(settings_of(role, **changes), facts))


# --- every role -----------------------------------------------------------------------------------


@pytest.fixture(params=all_roles(), ids=lambda role: str(role.name))
def checked(request: pytest.FixtureRequest) -> CheckedRole:
    """Each role, for the checks that sites' roles pass, too."""
    role: Role = request.param
    tests = GOLDEN.parent.parent
    return CheckedRole(
        role,
        example_of(role),
        tests / f"golden/roles/{role.name}.txt",
        tests / f"verify/test_{role.name}.py",
    )


__all__ = ["TestRole"]


def test_the_order_of_the_roles() -> None:
    ours = ["host", "driver", "toolkit", "docker", "triton"]
    assert [role.name for role in all_roles() if role.name in ours] == ours
    assert [role.name for role in choose(all_roles(), ["triton", "driver"])] == ["driver", "triton"]
    assert choose(all_roles(), []) == all_roles()


@ROLES
def test_an_unknown_setting_is_refused_with_file_and_line(role: Role, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(f"all:\n  hosts:\n    h1:\n      {role.name}:\n        no_such_setting: 1\n")
    host = load([str(file)]).hosts["h1"]
    with pytest.raises(SettingsError) as caught:
        read(role.settings, host, role.name)
    line = next(line for line in caught.value.message.splitlines() if "no_such_setting" in line)
    assert line.startswith(f"{file}:5: ")
    assert f"unknown setting 'no_such_setting' in {role.name}" in line


@ROLES
def test_the_example_settings_are_read_from_an_inventory(role: Role) -> None:
    host = Host("h1", vars={role.name: dict(example_of(role))})
    assert read(role.settings, host, role.name) == settings_of(role.name)


def settings_classes(model: type[Settings]) -> Iterator[ast.ClassDef]:
    """The settings classes of the file of a role, as they are written."""
    tree = ast.parse(Path(inspect.getfile(model)).read_text("utf-8"))
    names = {base.__name__ for base in _subclasses(Settings)}
    yield from (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in names)


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


@ROLES
def test_every_setting_is_documented_where_it_is_written(role: Role) -> None:
    for node in settings_classes(role.settings):
        assert ast.get_docstring(node), node.name
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign):
                continue
            # Settings in a row, such as three ports, are what their names say.
            told = isinstance(following, ast.Expr | ast.AnnAssign)
            assert told, f"{node.name}.{ast.unparse(statement.target)}"


def test_no_two_roles_declare_one_resource_differently() -> None:
    by_id: dict[str, AnyResource] = {}
    for item in declared():
        assert by_id.setdefault(item.resource.id, item.resource) == item.resource


def test_notes_of_handlers_are_unique() -> None:
    notes = [item.resource.note for item in declared() if isinstance(item.resource, Handler)]
    assert len(notes) == len(set(notes))


def test_handlers_come_after_what_they_listen_to() -> None:
    """A cause behind its handler would leave a debt that the same run does not settle."""
    order = [item.resource.id for item in declared()]
    for handler in (item.resource for item in declared() if isinstance(item.resource, Handler)):
        for name in names_of(handler.on):
            known = [index for index, other in enumerate(order) if name.startswith(other)]
            assert all(index < order.index(handler.id) for index in known), (handler.id, name)


def test_the_golden_plan_of_a_bare_host(update_golden: bool) -> None:
    unique = list({item.resource.id: item for item in reversed(declared())}.values())[::-1]
    found = plan("gpu-01", unique, bare(unique))
    text = report.plans({"gpu-01": found}, diff=True)
    compare(GOLDEN, text, update=update_golden)


# --- single roles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["driver", "toolkit", "docker"])
def test_a_system_of_no_known_family_is_refused(role: str) -> None:
    arch = replace(H100, os="arch", version="", codename="", architecture="")
    with pytest.raises(Refusal, match=f"role {role} does not know arch") as caught:
        resources(role, arch)
    assert "supported: Debian 12 and 13" in str(caught.value.hint)


def test_triton_without_gpus() -> None:
    with pytest.raises(Refusal, match="triton instance main wants GPUs"):
        resources("triton", with_gpus())
    cpu = {"cpu": {"image": IMAGE.replace("-trtllm-python", ""), "gpus": "none"}}
    unit = next(r for r in resources("triton", with_gpus(), instances=cpu) if r.id.endswith("@cpu.service"))
    text = unit.content.decode()  # type: ignore[attr-defined]
    assert "--runtime=runc" in text
    assert "NVIDIA_VISIBLE_DEVICES" not in text


def triton(**changes: Any) -> dict[str, Any]:
    return {"instances": {"a": {"image": IMAGE, **changes}}}


@pytest.mark.parametrize(
    ("role", "changes", "says"),
    [
        ("driver", {"version": "575.57.08-1"}, "version 575.57.08-1 is not of branch 580"),
        ("driver", {"version": "5800.1-1"}, "is not of branch 580"),
        ("driver", {"version": "580; rm"}, "should match"),
        ("driver", {"source": "archive"}, "source archive with a repo"),
        ("driver", {"branch": "580"}, "valid integer"),
        (
            "driver",
            {"repo": {**REPO, "fingerprint": "0" * 40}},
            f"the key has fingerprint {FINGERPRINT}, expected 000",
        ),
        ("driver", {"repo": {**REPO, "key": "x"}}, "not an ASCII-armoured public key"),
        (
            "driver",
            {"repo": {**REPO, "key": KEY + KEY}},
            f"the key has fingerprint {FINGERPRINT}, {FINGERPRINT}",
        ),
        ("driver", {"repo": {**REPO, "suite": "stable"}}, "suite stable with 0 components"),
        ("driver", {"repo": {**REPO, "components": ["main"]}}, "suite / with 1 components"),
        ("driver", {"repo": {**REPO, "suite": "a", "components": ["a\nSigned-By: b"]}}, "should match"),
        ("driver", {"repo": {**REPO, "uri": "https://a b"}}, "should match"),
        ("toolkit", {"version": "1.20.*"}, "should match"),
        ("docker", {"packages": {"docker.io": "20.10.*; rm"}}, "should match"),
        ("docker", {"packages": {"-o=x": None}}, "should match"),
        ("docker", {"default_runtime": "kata"}, "'nvidia' or 'runc'"),
        ("triton", triton(image="tritonserver"), "has no tag"),
        ("triton", triton(image="localhost:5000/tritonserver"), "has no tag"),
        (
            "triton",
            triton(image="nvcr.io/nvidia/tritonserver:latest"),
            ":latest': tag latest changes its content",
        ),
        ("triton", triton(image="a b:1"), "is not an image reference"),
        ("triton", triton(image="a:"), "is not an image reference"),
        ("triton", triton(image="--privileged"), "is not an image reference"),
        ("triton", triton(image="é:1"), "is not an image reference"),
        ("triton", triton(http_port=8001), "port 8001 is both a.http_port and a.grpc_port"),
        (
            "triton",
            {"instances": {n: {"image": IMAGE} for n in "ab"}},
            "port 8000 is both a.http_port and b.http_port",
        ),
        ("triton", triton(http_port=0), "greater than or equal to 1"),
        ("triton", triton(gpus=[]), "at least 1 item"),
        ("triton", triton(gpus=["0,1"]), "should match"),
        ("triton", triton(gpus=[-1]), "greater than or equal to 0"),
        ("triton", triton(gpus="some"), "'all' or 'none'"),
        ("triton", triton(env={"A B": "x"}), "should match"),
        ("triton", triton(env={"A": "x\0"}), "should match"),
        ("triton", triton(models="relative"), "should match"),
        ("triton", triton(models="/a:b"), "should match"),
        ("triton", {"instances": {"a/b": {"image": IMAGE}}}, "should match"),
        ("triton", {"instances": {"a": {"image": IMAGE, "ports": 1}}}, "Extra inputs"),
    ],
)
def test_settings_that_are_refused(role: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_of(role, **changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        "tritonserver:24.07-py3",
        "10.0.0.1:5000/nvidia/tritonserver:24.07-py3",
        "Registry.example.org/a/b__c:1@sha256:" + "0a" * 32,
        "a@sha256:" + "0a" * 32,
        "a:latest@sha256:" + "0a" * 32,
        "a:24",
    ],
)
def test_images_that_name_a_version(image: str) -> None:
    assert settings_of("triton", **triton(image=image))


def test_a_fingerprint_may_be_written_as_gpg_shows_it() -> None:
    spaced = " ".join(FINGERPRINT[n : n + 4] for n in range(0, 40, 4)).lower()
    assert repo(fingerprint=spaced).slug == "provision-packages-example-org-nvidia"


def test_gpus_are_chosen_by_index_or_uuid() -> None:
    assert settings_of("triton", **triton(gpus=[0, 1, "GPU-8f7e", "MIG-8f7e"]))


def test_docker_is_restarted_only_where_that_is_needed() -> None:
    """A new toolkit takes a restart, unless this very run brings dockerd; a package beside it does not."""
    handlers = {r.id: r for r in resources("docker") if isinstance(r, Handler)}
    restart = handlers["handler:restart docker.service"]
    assert TOOLKIT_INSTALLED in restart.on
    assert "package:docker.io:install" in restart.covered_by
    assert "package:tini:install" not in restart.covered_by


def test_daemon_json_takes_further_keys_and_runtimes() -> None:
    daemon = {"bip": "10.0.0.1/24", "runtimes": {"kata": {"path": "/kata"}}}
    found = {r.id: r for r in resources("docker", daemon=daemon)}
    document = found["file:/etc/docker/daemon.json"].declared  # type: ignore[attr-defined]
    assert document["bip"] == "10.0.0.1/24"
    assert document["default-runtime"] == "nvidia"
    assert sorted(document["runtimes"]) == ["kata", "nvidia"]
    assert found["docker:loaded-configuration"].runtimes == ("nvidia", "kata")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("facts", "default", "runtimes"),
    [
        (H100, "nvidia", ("nvidia",)),
        (H100, "runc", ("nvidia",)),
        (replace(H100, gpus=()), "nvidia", ("nvidia",)),
        (replace(H100, gpus=()), "runc", ()),
    ],
)
def test_a_host_for_the_cpu_alone_needs_no_toolkit(
    facts: Facts, default: str, runtimes: tuple[str, ...]
) -> None:
    """The program of the runtime nvidia comes with the toolkit."""
    role = next(role for role in all_roles() if role.name == "docker")
    found = {r.id: r for r in role.resources(settings_of("docker", default_runtime=default), facts)}
    document = found["file:/etc/docker/daemon.json"].declared  # type: ignore[attr-defined]
    assert tuple(document.get("runtimes", ())) == runtimes
    assert found["docker:loaded-configuration"].runtimes == runtimes  # type: ignore[attr-defined]
    assert found["service:docker.service"].runtimes == (default, *runtimes)  # type: ignore[attr-defined]


def test_images_are_there_before_anything_of_a_server_changes() -> None:
    """A pull that fails leaves units as they are, so that servers go on and can start again."""
    two = {"a": {"image": IMAGE}, "b": {"image": IMAGE, "http_port": 1, "grpc_port": 2, "metrics_port": 3}}
    ids = [resource.id for resource in resources("triton", instances=two)]
    assert ids[0] == f"image:{IMAGE}"
    assert ids.count(ids[0]) == 1
    assert ids.index("no-other-units:triton") > ids.index("service:triton@b.service")
