"""Values of any kind reach a real systemd intact: as arguments of a command, and as environment."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lab.host import LabHost
from lab.lab import Lab
from provision.probe import words
from provision.render import render, systemd_text, systemd_word

pytestmark = pytest.mark.lab

NASTY = [
    "",
    " ",
    "  two  words ",
    "'",
    '"',
    "''\"\"",
    "\\",
    "\\\\",
    "trailing\\",
    "\\n\\x41\\u0041\\101\\s",
    "%",
    "%%",
    "%n %i %h %H %%n",
    "$",
    "$$",
    "$HOME",
    "${HOME}",
    "${HOME:-x}",
    "$(id)",
    "`id`",
    ";",
    "a;b",
    "\\;",
    "&&",
    "|",
    ">/dev/null",
    "*",
    "~",
    "#",
    "# comment",
    "a # b",
    "-n",
    "--flag=a b",
    "@",
    "+",
    "!",
    "!!",
    ":",
    "=",
    "A=B",
    "\n",
    "a\nb\n",
    "\na",
    "a\\\nb",
    "[Service]\nExecStart=/bin/false",
    "\t",
    "a\tb",
    "\x01\x02\x1b[31m\x7f",
    "\x85\u2028\u2029\u00a0\ufeff",
    "é",
    "日本語",
    "🙂",
    "x" * 3000,
]
NONCHARACTERS = [
    *map(chr, range(0xFDD0, 0xFDF0)),
    *(chr(p << 16 | n) for p in range(17) for n in (0xFFFE, 0xFFFF)),
]
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="".join(["\0", *NONCHARACTERS])), max_size=40
)

SHOW = """printf '%s\\0' "$@" | base64 -w0
echo
env -0 | base64 -w0
echo
"""


def through_systemd(
    host: LabHost, arguments: list[str], environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """What a program gets that systemd starts with these arguments and this environment file."""
    folder = f"/run/quoting-{secrets.token_hex(4)}"
    name = folder.removeprefix("/run/") + ".service"
    unit = f"""[Unit]
Description={systemd_text(" ".join(arguments))}
[Service]
Type=oneshot
EnvironmentFile={folder}/environment
StandardOutput=truncate:{folder}/answer
ExecStart=/bin/sh {folder}/show {" ".join(map(systemd_word, arguments))}
"""
    files = {
        f"{folder}/environment": render("triton/env.j2", env=environment),
        f"{folder}/show": SHOW,
        f"/run/systemd/system/{name}": unit,
    }
    script = f"mkdir -p {folder} /run/systemd/system\n"
    for path, text in files.items():
        script += f"base64 -d >{path} <<'END'\n{base64.encodebytes(text.encode()).decode()}END\n"
    script += f"""systemctl start {name} || {{ journalctl --no-pager -n 20 -u {name}; exit 1; }}
cat {folder}/answer
rm -rf {folder} /run/systemd/system/{name}
"""
    ran = host.run(["sh"], given=script)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    given, env = (base64.b64decode(line).decode().split("\0")[:-1] for line in ran.stdout.split("\n")[:2])
    return given, dict(pair.split("=", 1) for pair in env)


def named(values: list[str]) -> dict[str, str]:
    return {f"VALUE_{number}": value for number, value in enumerate(values)}


def check(host: LabHost, values: list[str]) -> None:
    """Send all values both ways at once; name those that did not arrive."""
    arguments, environment = through_systemd(host, values, named(values))
    assert [(v, got) for v, got in zip(values, arguments, strict=True) if v != got] == []
    assert [(v, environment.get(n)) for n, v in named(values).items() if environment.get(n) != v] == []


def test_values_that_are_special_somewhere(lab: Lab) -> None:
    check(lab.hosts[0], NASTY)


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(values=st.lists(TEXTS, min_size=100, max_size=200))
def test_any_value(lab: Lab, values: list[str]) -> None:
    check(lab.hosts[0], values)


@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(values=st.lists(TEXTS | st.sampled_from(NASTY), min_size=100, max_size=200))
def test_any_value_reaches_the_sh_of_a_host(lab: Lab, values: list[str]) -> None:
    ran = lab.hosts[0].run(["sh"], given=f"printf '%s\\0' {words(*values)} | base64 -w0")
    assert base64.b64decode(ran.stdout).decode().split("\0")[:-1] == values
