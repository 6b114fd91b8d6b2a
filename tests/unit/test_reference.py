"""The reference of settings, its schema, and where a host's values stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.cli import reference
from provision.inventory import sources
from provision.inventory.values import plain
from provision.role import Role
from provision.roles import all_roles

EXAMPLE = Path(__file__).parents[2] / "inventories/example"
ROLES = {role.name: role for role in all_roles()}


@pytest.mark.parametrize("role", (*all_roles(), *reference.OF_HOSTS), ids=lambda role: role.name)
def test_every_setting_says_what_it_is(role: Role) -> None:
    found = reference.settings(role)
    assert [s.name for s in found if not s.meaning] == []
    assert [s.name for s in found if "anything" in s.type] == []
    # Where neither the default nor an example shows what a value looks like, nobody can write one.
    bare = [s.name for s in found if not s.example and s.default in ("", "null") and s.type != "mapping"]
    assert bare == []


def test_a_setting_is_a_few_lines() -> None:
    found = {setting.name: setting for setting in reference.settings(ROLES["triton"])}
    assert found["triton.instances.NAME.http_port"].text(80).splitlines()[0] == (
        "triton.instances.NAME.http_port: integer from 1 to 65535, default 8000"
    )
    image = found["triton.instances.NAME.image"].text(80)
    assert image.startswith("triton.instances.NAME.image: string, must be given\n")
    assert image.endswith('example: image: "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"')
    gpus = found["triton.instances.NAME.gpus"]
    assert gpus.type == "all | none or list of integer from 0 or string"


def resolved(document: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """A part of a schema, its reference followed."""
    while "$ref" in place or "anyOf" in place:
        place = place["anyOf"][0] if "anyOf" in place else place
        if "$ref" not in place:
            continue
        place = document["$defs"][place["$ref"].rpartition("/")[2]]
    return place


def test_the_schema_knows_roles_parts_and_what_they_share() -> None:
    document = reference.schema(all_roles())
    assert set(document["properties"]) == {*ROLES, "mirror"}
    triton = resolved(document, document["properties"]["triton"])
    assert triton["additionalProperties"] is False
    (instance,) = triton["properties"]["instances"]["patternProperties"].values()
    assert {"type": "null"} in instance["anyOf"], "NAME: null takes an instance away"
    mirror = resolved(document, document["properties"]["mirror"])
    assert set(mirror["properties"]) == {"base", "key", "fingerprint"}


def test_the_example_fleet_fits_the_schema() -> None:
    """Every key of its settings is one that the schema names."""
    document = reference.schema(all_roles())
    for host in sources.load([EXAMPLE]).hosts.values():
        for name in (*ROLES, "mirror"):
            part = resolved(document, document["properties"][name])
            assert set(plain(host.settings(name)) or ()) <= set(part["properties"]), name


def test_a_hosts_values_have_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE)
    host = sources.load([EXAMPLE]).hosts["par-h100-08.example.com"]
    lines = reference.origins(host, all_roles()).splitlines()
    assert lines[0] == "par-h100-08.example.com  [canary, canary-llm, gpu-nodes, h100, paris]"
    assert (
        '  triton.instances.llm-b.image: "nvcr.io/nvidia/tritonserver:24.10-trtllm-python-py3"'
        "  (group_vars/canary-llm.yml:6)" in lines
    )
    assert "  triton.instances.llm-b.http_port: 8010  (group_vars/h100.yml:18)" in lines
    assert (
        '  mirror.key: "-----BEGIN PGP PUBLIC KEY BLOCK----- …  (group_vars/gpu-nodes/driver.yml:14)' in lines
    )


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        "all: {hosts: {n1: {ansible_become_password: s3cret, api_token: s3cret,"
        " x: !vault '$ANSIBLE_VAULT;1.1;AES256\n  61'}}}\n"
    )
    host = sources.load([tmp_path / "hosts.yml"]).hosts["n1"]
    shown = reference.origins(host, [])
    assert "s3cret" not in shown
    assert shown.count("(hidden)") == 2
    assert "x: (encrypted)" in shown
    assert reference.origins(host, [], secrets=True).count("s3cret") == 2
