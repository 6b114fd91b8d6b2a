"""A role's settings: what is accepted, and what a refusal says and points at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from provision.bare.seed_settings import Seed
from provision.errors import SettingsError
from provision.expectation.settings import Expect
from provision.inventory import Host
from provision.inventory.build import Builder
from provision.inventory.document import parse
from provision.inventory.settings import read, refuse_misspelt
from provision.inventory.sources import load
from provision.roles import all_roles
from provision.roles.docker import role as docker
from provision.roles.driver import role as driver
from provision.roles.toolkit import role as toolkit
from provision.roles.triton import role as triton
from provision.run.fleet import targets
from tests.unit.examples import REPO

EXAMPLE = Path(__file__).parents[2] / "inventories" / "example"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Server(Strict):
    image: str
    port: int = Field(default=8000, ge=1, le=65535)
    gpus: Literal["all", "none"] | tuple[int, ...] = "all"
    args: tuple[str, ...] = ()
    limit: int | str | None = None


class Role(Strict):
    servers: dict[str, Server] = {}
    version: str = Field(default="1", pattern=r"^[0-9.]+$", min_length=1, max_length=8)
    hold: bool = True
    ratio: float = Field(default=0.5, gt=0, lt=1)
    mode: Literal["open", "closed"] = "open"
    token: SecretStr | None = None
    fallback: Server | None = None
    paths: list[Path] = []
    keys: tuple[Annotated[str, Field(pattern="^ssh-")], ...] = Field(("ssh-a", "ssh-b"), min_length=2)
    chosen: Literal["all", "none"] | Annotated[tuple[int, ...], Field(min_length=1)] = "all"
    names: dict[str, int] = Field({"a": 1}, min_length=1, max_length=2)

    @model_validator(mode="after")
    def _go_together(self) -> Role:
        if self.mode == "closed" and self.hold:
            raise ValueError("mode closed cannot be held")
        return self


def settings(text: str) -> Role:
    """Read ``role: TEXT`` of a host; the text starts in line 2 of the inventory."""
    builder = Builder()
    indented = "".join(f"      {line}\n" for line in text.splitlines())
    builder.add_document(parse(f"all: {{hosts: {{n1: }}, vars: {{role: {{\n{indented}}}}}}}", "inv.yml"))
    return read(Role, builder.build().hosts["n1"], "role")


def test_without_the_key_the_defaults_hold() -> None:
    assert read(Role, Host("n1"), "role") == Role()
    assert read(Role, Host("n1", vars={"role": None}), "role") == Role()


def test_values_of_every_kind() -> None:
    found = settings(
        "servers: {main: {image: a, gpus: [0, 1], args: [x, y], limit: 5}}, version: '24.10', ratio: 0.25,\n"
        "paths: [/a, /b], token: s3cret, hold: off, fallback: {image: !unsafe '{{.Name}}'}"
    )
    assert found.servers["main"] == Server(image="a", gpus=(0, 1), args=("x", "y"), limit=5)
    assert (found.version, found.ratio, found.hold) == ("24.10", 0.25, False)
    assert found.paths == [Path("/a"), Path("/b")]
    assert found.fallback is not None
    assert found.fallback.image == "{{.Name}}"


REFUSED = [
    ("vresion: '1'", "inv.yml:2: unknown setting 'vresion' in role; did you mean 'version'?", None),
    (
        "zzz: 1",
        "inv.yml:2: unknown setting 'zzz' in role",
        "known: chosen, fallback, hold, keys, mode, names, paths, ratio, servers",
    ),
    (
        "servers:\n {main:\n  {image: a,\n   imgae: b}}",
        "inv.yml:5: unknown setting 'imgae' in role.servers.main; did you mean 'image'?",
        None,
    ),
    ("servers:\n {main:\n  {port: 1}}", "inv.yml:3: role.servers.main.image is missing", "add image:"),
    ("fallback:\n {port: 1}", "inv.yml:2: role.fallback.image is missing", "below role.fallback"),
    ("servers: {m: {image: a, port: abc}}", "inv.yml:2: role.servers.m.port: 'abc' is not an integer", None),
    ("servers: {m: {image: a, port: '80'}}", "role.servers.m.port: '80' is not an integer", "without quotes"),
    ("servers: {m: {image: a, port: yes}}", "role.servers.m.port: true is not an integer", None),
    ("servers: {m: {image: a, port: 70000}}", "role.servers.m.port: 70000 is not at most 65535", None),
    ("servers: {m: {image: a, args: x}}", "role.servers.m.args: 'x' is not a list", "dash"),
    (
        "servers: {m: {image: a, args: [x,\n 1]}}",
        "inv.yml:3: role.servers.m.args[1]: 1 is not a string",
        "quote it",
    ),
    ("servers: {m: {image: a, gpus: al}}", "'al' is not one of 'all' or 'none'; did you mean 'all'?", None),
    ("servers: {m: {image: a, gpus: [0, x]}}", "role.servers.m.gpus[1]: 'x' is not an integer", None),
    ("servers: {m: {image: a, limit: []}}", "limit: a list is not an integer or a string", None),
    ('servers: {"x\\ny": {image: 1}}', "role.servers.x\\ny.image: 1 is not a string", None),
    ("servers: {m: }", "role.servers.m: an empty value is not a mapping", None),
    ("servers: [a]", "inv.yml:2: role.servers: a list is not a mapping", None),
    ("version: 24.10", "role.version: 24.1 is not a string", "24.10 becomes 24.1"),
    ("version: no", "role.version: false is not a string", "booleans"),
    ("version: abc", "role.version: 'abc' does not match ^[0-9.]+$", None),
    ("version: ''", "role.version: the value is empty", None),
    ("version: '123456789'", "is not at most 8 characters long", None),
    ("hold: 'yes'", "role.hold: 'yes' is not true or false", "without quotes"),
    ("hold: 1", "role.hold: 1 is not true or false", None),
    ("ratio: 1", "role.ratio: 1 is not less than 1.0", None),
    ("ratio: 1e-05", "role.ratio: '1e-05' is not a number", "1.0e-05"),
    ("ratio: .nan", "role.ratio is nan", None),
    ("mode: opne", "role.mode: 'opne' is not one of 'open' or 'closed'; did you mean 'open'?", None),
    ("mode: closed", "inv.yml:1: role: mode closed cannot be held", None),
    ("version: '{{ triton_version }}'", "inv.yml:2: role.version is a template", "!unsafe"),
    ("paths: [/a,\n '{% if x %}']", "inv.yml:3: role.paths[1] is a template", "not evaluated"),
    ("token: !vault x", "inv.yml:2: role.token is encrypted with ansible-vault", "not decrypted"),
    ("keys: [x, ssh-b]", "inv.yml:2: role.keys[0]: 'x' does not match ^ssh-", None),
    ("keys: []", "inv.yml:2: role.keys: the list is empty", None),
    ("keys: [ssh-a]", "role.keys: the list has 1 item, not at least 2", None),
    ("chosen: []", "role.chosen: the list is empty", None),
    ("chosen: [x]", "role.chosen[0]: 'x' is not an integer", None),
    ("chosen: al", "'al' is not one of 'all' or 'none'; did you mean 'all'?", None),
    ("names: {}", "role.names: the mapping is empty", None),
    ("names: {a: 1, b: 2, c: 3}", "role.names: the mapping has 3 items, not at most 2", None),
    ("paths: 2024-07-31", "role.paths: '2024-07-31' is not a list", None),
]


@pytest.mark.parametrize(("text", "message", "hint"), REFUSED)
def test_refusals_say_what_and_where(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("inv.yml:")
    assert "\n" not in str(caught.value)
    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("!vault x", "inv.yml:1: role is encrypted with ansible-vault", "not decrypted"),
        ("'{{ settings }}'", "inv.yml:1: role is a template: '{{ settings }}'", "not evaluated"),
        ("[1]", "inv.yml:1: role is a list, not a mapping", "NAME: VALUE"),
    ],
)
def test_what_stands_in_the_place_of_settings_is_named(value: str, message: str, hint: str) -> None:
    builder = Builder()
    builder.add_document(parse(f"all: {{hosts: {{h: {{role: {value}}}}}}}", "inv.yml"))
    with pytest.raises(SettingsError) as caught:
        read(Role, builder.build().hosts["h"], "role")
    assert str(caught.value) == message
    assert hint in (caught.value.hint or "")


def test_several_problems_are_lines_in_the_order_of_the_file() -> None:
    with pytest.raises(SettingsError) as caught:
        settings("hold: 1,\nversion: 24.10,\nservers: {a: {imag: x}}")
    assert str(caught.value).splitlines() == [
        "inv.yml:2: role.hold: 1 is not true or false",
        "inv.yml:3: role.version: 24.1 is not a string"
        " (quote it: without quotes YAML reads a number, and 24.10 becomes 24.1)",
        "inv.yml:4: role.servers.a.image is missing (add image: below role.servers.a)",
        "inv.yml:4: unknown setting 'imag' in role.servers.a; did you mean 'image'?",
    ]


def test_many_problems_are_counted() -> None:
    with pytest.raises(SettingsError) as caught:
        settings("servers: {" + ", ".join(f"s{number}: {{}}" for number in range(30)) + "}")
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 10 more problems"


def test_secrets_are_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        settings("token: 31337")
    assert "31337" not in f"{caught.value} {caught.value.hint}"


def test_settings_that_are_no_mapping() -> None:
    builder = Builder()
    builder.add_document(parse("all:\n  hosts:\n    n1:\n      role: [a]\n", "inv.yml"))
    with pytest.raises(SettingsError, match=r"inv\.yml:4: role is a list, not a mapping"):
        read(Role, builder.build().hosts["n1"], "role")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*Role.model_fields, *Server.model_fields, "x"]), inner),
    ),
    max_leaves=15,
)


@given(VALUES)
def test_any_value_is_accepted_or_refused(value: Any) -> None:
    try:
        read(Role, Host("n1", vars={"role": value}), "role")
    except SettingsError as error:
        assert str(error)


@pytest.mark.parametrize(
    "role", [driver.ROLE, toolkit.ROLE, docker.ROLE, triton.ROLE], ids=lambda role: role.name
)
def test_the_example_fleet_is_valid(role: Any) -> None:
    for host in load([EXAMPLE]).hosts.values():
        assert role.name in host.vars
        read(role.settings, host, role.name)


def host_with(text: str) -> Host:
    """A host with these variables."""
    builder = Builder()
    builder.add_document(parse(f"all: {{hosts: {{n1: {{{text}}}}}}}", "inv.yml"))
    (host,) = builder.build().select("all")
    return host


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("dokcer: {}", "docker"),
        ("tritn: {instances: {}}", "triton"),
        ("drivers: {branch: 580}", "driver"),
        ("tool-kit: {version: 1.20.0-1}", "toolkit"),
    ],
)
def test_a_role_under_almost_its_name_is_refused(text: str, meant: str) -> None:
    host = host_with(text)
    with pytest.raises(SettingsError, match=f"did you mean {meant}"):
        refuse_misspelt(host, {role.name: role.settings for role in all_roles()})


@pytest.mark.parametrize(
    "text",
    ["docker: {}", "dockers: [a]", "tritons: {count: 3}", "drivers: {nvidia: 1}", "chrony: {}", "driver_: x"],
)
def test_other_variables_are_none_of_our_business(text: str) -> None:
    refuse_misspelt(host_with(text), {role.name: role.settings for role in all_roles()})


NAMES = {
    "env: {yes: a}": ("yes", "true"),
    "env: {010: a}": ("010", "8"),
    "env: {1.50: a}": ("1.50", "1.5"),
    "env: {Null: a}": ("Null", "null"),
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_that_yaml_reads_as_another_word_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    head = "all:\n  hosts:\n    n1:\n      triton:\n        instances:\n          main:\n"
    file.write_text(f"{head}            image: a/b:1\n            {text}\n")
    written, read_as = NAMES[text]
    with pytest.raises(SettingsError) as caught:
        read(triton.TritonSettings, load([file]).hosts["n1"], "triton")
    assert str(caught.value) == f"{file}:8: YAML reads the name {written} as {read_as}"
    assert caught.value.hint == f'quote it: "{written}", or "{read_as}"'


def test_a_fault_of_a_variable_of_the_host_has_its_own_name() -> None:
    host = Host("n1", vars={"mirror": {"base": "nowhere"}, "toolkit": {}})
    with pytest.raises(SettingsError) as caught:
        read(toolkit.ToolkitSettings, host, "toolkit", ("mirror",))
    assert caught.value.message.startswith("inventory: mirror.base: ")


def test_one_repository_in_two_ways_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    ways = {"driver": {"repo": REPO}, "toolkit": {"repo": {**REPO, "uri": f"{REPO['uri']}/"}}}
    file.write_text(json.dumps({"all": {"hosts": {"n1": ways}}}, indent=1))
    hosts = load([file]).hosts.values()
    with pytest.raises(SettingsError) as caught:
        targets(hosts, [driver.ROLE, toolkit.ROLE])
    said = "driver.repo and toolkit.repo are one repository, and differ in uri"
    assert re.fullmatch(rf"{re.escape(str(file))}:\d+: {said}", str(caught.value))
    file.write_text(json.dumps({"all": {"hosts": {"n1": ways | {"toolkit": {"repo": REPO}}}}}))
    assert targets(load([file]).hosts.values(), [driver.ROLE, toolkit.ROLE])


IMAGE = "nvcr.io/nvidia/tritonserver:24.07-py3"


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("expect", "{gpus: {model: H1000}}", "expect.gpus.model: no PCI id is known of 'H1000'"),
        ("expect", "{gpus: {slots: ['0000:18:00.0', '0000:18:00.0']}}", "expect.gpus.slots: 0000:18:00.0 is"),
        ("expect", "{gpus: {count: 7, slots: ['0000:18:00.0']}}", "expect.gpus: count is 7, and slots has 1"),
        ("docker", "{daemon: {mtu: 1.5}}", "docker.daemon.mtu: dockerd wants a whole number"),
        ("docker", "{daemon: {mtu: -1}}", "docker.daemon.mtu: must be from 0 to 65535"),
        (
            "triton",
            f"{{instances: {{a: {{image: '{IMAGE}', ulimits: {{nproc: -5}}}}}}}}",
            "triton.instances.a.ulimits.nproc: -5 is no limit",
        ),
        (
            "triton",
            f"{{instances: {{a: {{image: '{IMAGE}', env: {{LD_TOKEN: x}}}}}}}}",
            "triton.instances.a.env.LD_TOKEN: the value would stand in the unit",
        ),
        (
            "seed",
            "{system: debian, disk: /dev/sda, timezone: UTC, authorized_keys: [], network:"
            " {interface: eno1, address: 192.0.2.11/24, gateway: 192.0.2.1, nameservers: ['2001:db8::1']}}",
            "seed.network.nameservers: must be of IPv4",
        ),
    ],
)
def test_a_setting_is_named_once(key: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(f"all:\n  hosts:\n    h:\n      {key}: {text}\n")
    (host,) = load([tmp_path / "hosts.yml"]).select("h")
    models: dict[str, type[BaseModel]] = {role.name: role.settings for role in all_roles()}
    with pytest.raises(SettingsError) as caught:
        read((models | {"expect": Expect, "seed": Seed})[key], host, key)
    assert f"hosts.yml:4: {says}" in caught.value.message
