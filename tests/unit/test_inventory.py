"""Reading inventories: places, refusals, patterns, and no surprise from any text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import InventoryError, Location, UsageError
from provision.inventory import Inventory
from provision.inventory.addresses import expand
from provision.inventory.build import Builder, variables
from provision.inventory.document import parse
from provision.inventory.draft import Layer
from provision.inventory.values import Unsafe, Vault


def read(text: str) -> Inventory:
    builder = Builder()
    builder.add_document(parse(text, "inv.yml"))
    return builder.build()


FLEET = read(
    """\
all:
  vars:
    driver: {branch: 580}
  children:
    gpu:
      hosts:
        node[01:04]:
      vars: &shared
        triton:
          instances:
            main:
              image: 'example/triton:24.07'
              args:
                - --strict-readiness
                - --log-verbose=1
    canary:
      hosts:
        node04:
          docker: !unsafe '{{.Name}}'
      vars:
        <<: *shared
        own: 1
"""
)


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        (("driver",), 3, 5),
        (("driver", "branch"), 3, 14),
        (("triton",), 9, 9),
        (("triton", "instances", "main", "image"), 12, 15),
        (("triton", "instances", "main", "args", 0), 14, 19),
        (("triton", "instances", "main", "args", 1), 15, 19),
        (("docker",), 19, 11),
        (("own",), 22, 9),
        ((), 18, 9),
    ],
)
def test_every_value_has_a_place(path: tuple[str | int, ...], line: int, column: int) -> None:
    host = FLEET.hosts["node04"]
    if not path:
        host = FLEET.hosts["node04"]
        assert host.where() == Location("inv.yml", 7, 9)
        return
    assert host.where(*path) == Location("inv.yml", line, column)


@pytest.mark.parametrize(
    "path", [("nothing",), ("triton", "nothing"), ("triton", "instances", "main", "args", 2)]
)
def test_what_is_not_there_has_no_place(path: tuple[str | int, ...]) -> None:
    assert FLEET.hosts["node04"].where(*path) is None


def test_a_file_of_variables_wins_and_is_the_place() -> None:
    builder = Builder()
    builder.add_document(parse("gpu: {hosts: {n1: }, vars: {a: 1, b: 1}}", "inv.yml"))
    layer = Layer({"gpu": variables(parse("# comment\na: 2\n", "group_vars/gpu.yml"))}, {})
    host = builder.build([layer]).hosts["n1"]
    assert host.vars == {"a": 2, "b": 1}
    assert host.where("a") == Location("group_vars/gpu.yml", 2, 1)
    assert host.where("b") == Location("inv.yml", 1, 35)


def test_unsafe_is_a_string_and_vault_is_opaque() -> None:
    host = read("all: {hosts: {n: {u: !unsafe '{{ x }}', v: !vault 'secret text'}}}").hosts["n"]
    assert host.vars["u"] == "{{ x }}"
    assert isinstance(host.vars["u"], Unsafe)
    assert host.vars["v"] == Vault("secret text")
    assert "secret" not in repr(host.vars["v"])


def test_document_is_what_the_command_prints() -> None:
    inventory = read("web: {hosts: {w1: {day: 2024-07-31, 5: five}}}")
    assert inventory.document(inventory.select("all")) == {
        "schema": 1,
        "hosts": {"w1": {"groups": ["web"], "vars": {"day": "2024-07-31", "5": "five"}}},
    }


REFUSED = {
    "tab": ("all:\n\thosts:", "inv.yml:2", "tab"),
    "open bracket": ("all: [", "inv.yml:1", None),
    "unquoted template": ("all:\n  vars:\n    a: {{ b }}c\n", "inv.yml:3", "quoted"),
    "colon in a value": ("all:\n  vars:\n    a: b: c\n", "inv.yml:3", "quoted"),
    "unquoted star": ("all:\n  vars:\n    a: *\n", "inv.yml:3", "quoted"),
    "two documents": ("all:\n---\nall:\n", "inv.yml:2", None),
    "control character": ("all: \x01", "inv.yml", None),
    "duplicate key": ("all:\n  hosts:\n    n1:\n    n1:\n", "inv.yml:4: key 'n1' is given twice", "line 3"),
    "duplicate key in JSON": ('{"all": {"hosts": {}, "hosts": {}}}', "key 'hosts' is given twice", None),
    "empty": ("# nothing\n", "inv.yml: the inventory is empty", None),
    "a list": ("- all\n", "a mapping of groups, not a list", "all:"),
    "hosts as a list": (
        "web:\n  hosts:\n    - w1\n",
        "inv.yml:2: 'hosts' of group 'web' is a list",
        "'w1:'",
    ),
    "children as a list": (
        "all:\n  children: [web]\n",
        "inv.yml:2: 'children' of group 'all' is a list",
        "'web:'",
    ),
    "vars as a list": ("all:\n  vars: [1]\n", "inv.yml:2: 'vars' of group 'all' is a list", None),
    "child as a string": ("all:\n  children:\n    web: w1\n", "inv.yml:3: group 'web' is a string", "web:"),
    "host with a string": ("all:\n  hosts:\n    w1: here\n", "inv.yml:3: host 'w1' has a string", None),
    "host as a number": (
        "all:\n  hosts:\n    12:\n",
        "inv.yml:3: the host name 12 was read as a number",
        '"12"',
    ),
    "group as a boolean": ("on:\n  hosts: {a: }\n", "the group name true was read as a boolean", '"true"'),
    "own child": ("a: {children: {a: }}\n", "inv.yml:1: group 'a' cannot be a child of 'a'", "remove"),
    "circle": (
        "a: {children: {b: {children: {c: {children: {a: }}}}}}\n",
        "group 'b' cannot be a child of 'a'",
        "remove",
    ),
    "all as a child": ("a: {children: {all: }}\n", "circle", None),
    "priority": (
        "a: {vars: {ansible_group_priority: high}}\n",
        "inv.yml:1: the priority of group 'a'",
        "10",
    ),
    "alias inside of itself": ("all: {vars: {a: &a [*a]}}\n", "inside of what it refers to", None),
    "mapping inside of itself": ("all: {vars: &a {a: *a}}\n", "inside of what it refers to", None),
    "merge of itself": ("all: {vars: &a {<<: *a}}\n", "merged into itself", None),
    "merge of a string": ("all: {vars: {<<: text}}\n", "a mapping or a list of mappings", None),
    "unknown tag": ("all: {vars: {a: !secret x}}\n", "inv.yml:1: the tag !secret is not known", None),
    "python tag": ("all: {vars: {a: !!python/object/apply:os.system [ls]}}\n", "is not known", None),
    "binary": ("all: {vars: {a: !!binary aGVsbG8=}}\n", "!!binary is not known", None),
    "impossible date": ("all: {vars: {a: 2024-99-99}}\n", "not a valid timestamp", "quote"),
    "impossible number": ("all: {vars: {a: 0x_}}\n", "not a valid int", "quote"),
    "mapping as a key": ("all: {vars: {{a: b}: c}}\n", "a key has to be a plain word", "quote"),
    "vault of a number": ("all: {vars: {a: !vault 5}}\n", "encrypted string", None),
    "encrypted file": ("$ANSIBLE_VAULT;1.1;AES256\n3132\n", "encrypted", None),
    "deep brackets": ("all: " + "[" * 200_000, "nested more than", None),
    "deep braces": ("{a: " * 5000, "nested more than", None),
    "deep dashes": ("all:\n  " + "- " * 200_000, "nested more than", None),
    "deep indentation": ("".join(f"{' ' * depth}a:\n" for depth in range(500)), "nested more than", None),
    "deep JSON": ('{"a":' * 150 + "1" + "}" * 150, "nested more than", None),
    "aliases without end": (
        "x: {vars: {a0: &a0 [1, 1],"
        + ",".join(f" a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))
        + "}}",
        "aliases stand for more than",
        None,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_and_where(name: str) -> None:
    text, expected, hint = REFUSED[name]
    with pytest.raises(InventoryError) as caught:
        read(text)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("inv.yml") or name == "all as a child"
    assert "\n" not in str(caught.value)
    if hint:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("web: {host: {a: }, hosts: {b: }}", "inv.yml:1: 'host' of group 'web' has no effect: only vars, "),
        ("web: {hots: {a: }, hosts: {b: }}", "did you mean 'hosts'?"),
        ("web: {hosts: {b: }}\nlist: [a]", "inv.yml:2: 'list' is a list, not a group"),
        ("b: {hosts: {b: }}", "'b' is the name of a group and of a host"),
    ],
)
def test_what_ansible_ignores_is_a_warning(text: str, warning: str) -> None:
    inventory = read(text)
    assert list(inventory.hosts) == ["b"]
    assert len(inventory.warnings) == 1
    assert warning in inventory.warnings[0]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "all:\n  hosts:\n  gpu-03:\n",
            "inv.yml:3: 'gpu-03' of group 'all' has no effect: only vars, children and hosts do;"
            " nothing stands below 'hosts' in line 2: indent 'gpu-03' more than that",
        ),
        (
            "all:\n  children:\n  gpu-nodes: {hosts: {a: }}\n",
            "nothing stands below 'children' in line 2: indent 'gpu-nodes' more",
        ),
        ("hosts:\n  gpu-03:\n", "inv.yml:1: 'hosts' is read as a group: write 'all:' above it"),
        ("all:\nhosts: {gpu-03: }\n", "inv.yml:2: 'hosts' is read as a group: write 'all:' above it"),
    ],
)
def test_wrong_indentation_is_named_where_it_leaves_no_host(text: str, warning: str) -> None:
    inventory = read(text)
    assert not inventory.hosts
    assert warning in inventory.warnings[0]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("node[1:3]", ["node1", "node2", "node3"]),
        ("node[08:11]", ["node08", "node09", "node10", "node11"]),
        ("node[0:6:3]", ["node0", "node3", "node6"]),
        ("r[a:c]-[1:2]", ["ra-1", "ra-2", "rb-1", "rb-2", "rc-1", "rc-2"]),
        ("x[:2]", ["x0", "x1", "x2"]),
        ("x[5:5]", ["x5"]),
        ("été[1:2]", ["été1", "été2"]),
        ("fe80::1%eth0", ["fe80::1%eth0"]),
    ],
)
def test_ranges(pattern: str, names: list[str]) -> None:
    assert expand(pattern) == (names, None)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("node[3:1]", "ends before it begins"),
        ("node[c:a]", "ends before it begins"),
        ("node[01:100]", "padded"),
        ("node[1:]", "has no end"),
        ("node[1]", "is not [begin:end]"),
        ("node[1:2:3:4]", "is not [begin:end]"),
        ("node[1:9:0]", "step of 0"),
        ("node[1:9:-1]", "'-1' is neither"),
        ("node[a:9]", "'a' is neither"),
        ("node[ab:cd]", "'ab' is neither"),
        ("node[1:2", "brackets do not match"),
        ("node1:2]", "brackets do not match"),
        ("node[[1:2]]", "brackets do not match"),
        ("node[1:999999999]", "more than 100000 hosts"),
        ("n[1:999][1:999]", "998001 hosts"),
    ],
)
def test_impossible_ranges(pattern: str, why: str) -> None:
    with pytest.raises(InventoryError, match=re.escape(why)) as caught:
        expand(pattern, Location("inv.yml", 3))
    assert str(caught.value).startswith("inv.yml:3: the range in")
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-oProxyCommand=id",
        "a b",
        "a\nb",
        "a\0b",
        "a\x1b[0m",
        "a/b",
        "../x",
        ".",
        "a,b",
        "a;b",
        "$(id)",
        "a'b",
        "!a",
        "~a",
        "&a",
        "a*",
    ],
)
def test_names_that_no_host_can_have(name: str) -> None:
    with pytest.raises(InventoryError):
        expand(name)


def test_port_out_of_range() -> None:
    with pytest.raises(InventoryError, match="impossible port 70000"):
        expand("node1:70000")


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("", "names nothing", "all"),
        (" , ", "names nothing", "all"),
        ("gpus", "no host or group is called 'gpus'", "'gpu'"),
        ("all:!canray", "called 'canray'", "'canary'"),
        ("gpu:&nod01", "called 'nod01'", "'node01'"),
        ("localhost", "called 'localhost'", None),
        ("x*", "no host matches", "graph"),
        ("~x", "no host matches", None),
        ("gpu:!gpu", "no host matches the pattern 'gpu:!gpu'", None),
        ("canary[4]", "'canary[4]' is out of range", "1 hosts"),
        ("canary[-2]", "out of range", None),
        ("gpu[1-3]", "is not a slice", "gpu[1:3]"),
        ("~(", "is not a valid pattern", "regex"),
        ("~[", "brackets", "comma"),
        ("gpu:~[", "brackets", None),
        ("~", "without a name", None),
        ("!", "without a name", "!canary"),
        ("gpu,&", "without a name", None),
    ],
)
def test_patterns_that_name_nothing(pattern: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        FLEET.select(pattern)
    assert message in str(caught.value)
    assert (hint or "") in (caught.value.hint or "")


YAML = """all hosts children vars web web[1:3] - : , { } [ ] & * ! !vault !unsafe <<: | > ? # ' " --- 1
    yes null ~ 0x_ 1:30 2024-13-01 =: \\ % @ ` ansible_group_priority &a *a"""
WORDS = st.sampled_from([*YAML.split(), "\t", "\ufeff", "\x85"])
TEXTS = st.one_of(
    st.text(),
    st.lists(st.tuples(st.integers(0, 6), st.lists(WORDS, max_size=5))).map(
        lambda lines: "\n".join(" " * depth + " ".join(words) for depth, words in lines)
    ),
    st.lists(WORDS).map(lambda words: "all: {" + " ".join(words) + "}"),
)


@given(TEXTS)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        inventory = read(text)
    except InventoryError as error:
        assert str(error)
    else:
        assert inventory.document(inventory.hosts.values())["schema"] == 1


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["a", "a[1:2]"])
)
KEYS = st.sampled_from(["all", "hosts", "children", "vars", "_meta", "hostvars", "a", "b", "n[1:2]"])
TREES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner)), max_leaves=20
)


@given(TREES)
def test_any_listing_of_a_program_is_read_or_refused(data: object) -> None:
    builder = Builder()
    try:
        builder.add_listing(data, "program")
        builder.build()
    except InventoryError as error:
        assert str(error).startswith("program") or "circle" in str(error)


@given(st.text())
def test_any_pattern_is_answered_or_refused(pattern: str) -> None:
    try:
        assert FLEET.select(pattern)
    except UsageError as error:
        assert str(error)


HOSTS = [f"h{number}" for number in range(6)]
GROUPS = st.dictionaries(
    st.sampled_from(["one", "two", "three"]), st.lists(st.sampled_from(HOSTS), unique=True), min_size=3
)
TERM = st.tuples(
    st.sampled_from(["", "&", "!"]), st.sampled_from(["all", "one", "two", "three", "h0", "h[1-3]", "h*"])
)


@given(GROUPS, st.lists(TERM, min_size=1, max_size=6))
def test_patterns_are_the_algebra_of_sets(groups: dict[str, list[str]], terms: list[tuple[str, str]]) -> None:
    """Unions, then intersections, then differences, on sets written out."""
    builder = Builder()
    builder.add_listing(
        {"all": {"hosts": HOSTS}, **{name: {"hosts": names} for name, names in groups.items()}}, "x"
    )
    inventory = builder.build()
    sets = {name: set(names) for name, names in groups.items()}
    sets |= {"all": set(HOSTS), "h*": set(HOSTS), "h0": {"h0"}, "h[1-3]": {"h1", "h2", "h3"}}
    terms = [(sign, "h?" if name == "h[1-3]" else name) for sign, name in terms]
    sets["h?"] = set(HOSTS)
    wanted: set[str] = set().union(*(sets[name] for sign, name in terms if not sign))
    if all(sign for sign, _ in terms):
        wanted = set(HOSTS)
    for sign, name in terms:
        wanted = wanted & sets[name] if sign == "&" else wanted
    for sign, name in terms:
        wanted = wanted - sets[name] if sign == "!" else wanted
    pattern = ",".join(sign + name for sign, name in terms)
    if wanted:
        chosen = [host.name for host in inventory.select(pattern)]
        assert sorted(chosen) == sorted(wanted)
    else:
        with pytest.raises(UsageError):
            inventory.select(pattern)


def test_two_thousand_hosts_share_their_groups_variables() -> None:
    """The variables of a group are merged once, not for each of its hosts."""
    builder = Builder()
    builder.add_document(parse("gpu: {hosts: {'n[0001:2000]': }, vars: {big: {a: [1, 2, 3]}}}", "inv.yml"))
    hosts = builder.build().hosts
    assert len(hosts) == 2000
    assert len({id(host.vars["big"]) for host in hosts.values()}) == 1
