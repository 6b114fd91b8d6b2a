"""Settings of a role come from all groups of a host, merged; other variables are replaced, as in Ansible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import SettingsError
from provision.inventory import Host, sources
from provision.inventory.settings import read
from provision.inventory.values import overlaid, plain
from provision.roles import all_roles

ROLES = {role.name: role for role in all_roles()}
EXAMPLE = Path(__file__).parents[2] / "inventories/example"

HOSTS = """\
all:
  vars:
    mirror: {base: "http://mirror"}
    triton: {instances: {a: {image: "x/tritonserver:24.07-py3", env: {A: "1", B: "2"}, args: [--x]}}}
    other: {one: 1}
  children:
    big:
      vars:
        other: {two: 2}
        triton:
          instances:
            b: {image: "x/tritonserver:24.07-py3", http_port: 9000, grpc_port: 9001, metrics_port: 9002}
      hosts:
        plain:
        changed:
          triton: {instances: {a: {env: {B: "3"}, args: [--y]}}}
        less:
          triton: {instances: {b: null}}
        wrong:
          triton: {instances: {a: {gpus: some}}}
        bad_mirror:
          driver: {branch: 580}
          mirror: {base: nowhere}
"""


def hosts(tmp_path: Path) -> dict[str, Host]:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    return dict(sources.load([tmp_path / "hosts.yml"]).hosts)


def triton(host: Host) -> Any:
    return read(ROLES["triton"].settings, host, "triton")


def test_the_nearest_value_wins_and_the_rest_stays(tmp_path: Path) -> None:
    found = hosts(tmp_path)
    assert list(triton(found["plain"]).servers) == ["a", "b"]
    changed = triton(found["changed"]).servers["a"]
    assert (changed.image, changed.env, changed.args) == (
        "x/tritonserver:24.07-py3",
        {"A": "1", "B": "3"},
        ["--y"],
    )


def test_null_takes_an_instance_away(tmp_path: Path) -> None:
    assert list(triton(hosts(tmp_path)["less"]).servers) == ["a"]


def test_variables_are_what_ansible_makes_of_them(tmp_path: Path) -> None:
    host = hosts(tmp_path)["changed"]
    assert plain(host.vars["other"]) == {"two": 2}
    assert plain(host.vars["triton"]) == {"instances": {"a": {"env": {"B": "3"}, "args": ["--y"]}}}


def test_each_value_has_the_place_where_it_stands(tmp_path: Path) -> None:
    host = hosts(tmp_path)["changed"]
    lines = [
        host.where("triton", "instances", *path)
        for path in (("a", "image"), ("a", "env", "B"), ("b", "http_port"), ("c",))
    ]
    assert [place and place.line for place in lines] == [4, 16, 12, None]


@pytest.mark.parametrize(
    ("host", "role", "line", "says"),
    [
        ("wrong", "triton", 20, "triton.instances.a.gpus: 'some'"),
        ("bad_mirror", "driver", 23, "mirror.base: 'nowhere' does not match"),
    ],
)
def test_a_refused_value_is_named_where_it_stands(
    tmp_path: Path, host: str, role: str, line: int, says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(ROLES[role].settings, hosts(tmp_path)[host], role, ROLES[role].shared)
    assert f"hosts.yml:{line}: {says}" in str(caught.value)


def test_the_canaries_of_the_example_serve_what_the_others_serve() -> None:
    """The page invites to copy it: the next release replaces an image, and takes no server away."""
    found = sources.load([EXAMPLE]).hosts
    llm, others = (triton(found[f"par-h100-0{n}.example.com"]).servers for n in (8, 1))
    assert list(llm) == list(others) == ["llm-a", "llm-b"]
    assert "24.10" in llm["llm-b"].image
    assert llm["llm-a"] == others["llm-a"]
    assert llm["llm-b"].gpus == others["llm-b"].gpus
    vision = triton(found["osl-l40s-a.example.com"]).servers
    assert list(vision) == ["vision"]
    assert vision["vision"].models == "/srv/models/vision"


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=2), st.lists(st.integers(), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES, VALUES, VALUES)
def test_merging_layers_is_associative_and_keeps_the_nearest(below: Any, middle: Any, above: Any) -> None:
    assert overlaid(overlaid(below, above), above) == overlaid(below, above)
    assert overlaid(None, above) == above
    if all(isinstance(value, dict) for value in (below, middle, above)):
        whole: Any = overlaid(overlaid(below, middle), above)
        assert whole.keys() == below.keys() | middle.keys() | above.keys()
        assert all(whole[key] == value for key, value in above.items() if not isinstance(value, dict))
