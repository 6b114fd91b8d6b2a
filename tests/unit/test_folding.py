"""Names of hosts, folded and expanded again."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision.inventory.folding import folded

NAMES = st.from_regex(r"[a-c]{0,2}-?[0-9]{1,3}(\.[ab]{1,2}[0-9]{0,2}){0,2}", fullmatch=True)
SAFE = st.text("ab019-_.%@*?:/ ", min_size=1).filter(lambda name: name == name.strip())
ODD = st.builds("".join, st.tuples(st.text(max_size=4), st.sampled_from("[],!&^"), st.text(max_size=4)))


def expanded(text: str) -> list[str]:
    return list(NodeSet(text, resolver=RESOLVER_NOGROUP))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["gpu-01"], "gpu-01"),
        ([f"gpu-{n:02}" for n in range(1, 49) if n != 47], "gpu-[01-46,48]"),
        (["h1", "h01", "h2"], "h[1-2,01]"),
        (["r1n1.x", "r1n2.x", "r2n1.x", "r2n2.x"], "r[1-2]n[1-2].x"),
        (["192.0.2.7", "192.0.2.8"], "192.0.2.[7-8]"),
        (["b", "a"], "a,b"),
        (["a[b", "h1", "c,d", "h2"], "h[1-2],a[b,c,d"),
        (["h[1-2]", "x"], "x,h[1-2]"),
        (["@rack", "*", "%s"], "%s,*,@rack"),
        (["", " a"], ", a"),
        (["１"], "１"),
    ],
)
def test_names_are_folded(names: list[str], text: str) -> None:
    assert folded(names) == text


@settings(max_examples=40)
@given(st.lists(NAMES | SAFE, unique=True, max_size=8))
@example(["h1", "h01", "h001", "h10", "h010"])
def test_a_fold_expands_to_exactly_its_names(names: list[str]) -> None:
    assert sorted(expanded(folded(names))) == sorted(names)


@given(st.lists(NAMES, unique=True, max_size=6), st.lists(ODD, min_size=1, unique=True, max_size=6))
def test_names_that_cannot_be_folded_stand_behind_the_others(names: list[str], odd: list[str]) -> None:
    assert folded([*odd, *names]) == ",".join([*([folded(names)] if names else []), *odd])


@given(st.lists(st.text(), unique=True))
def test_no_name_is_lost_or_refused(names: list[str]) -> None:
    text = folded(names)
    assert all(name in text for name in names if not any(c.isdigit() for c in name))


def test_listing_the_tasks_does_not_load_the_library() -> None:
    code = (
        "import contextlib, sys\n"
        "from provision.cli.program import main\n"
        "sys.argv = ['inv', '--list']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "sys.exit('ClusterShell' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "verify" in done.stdout
