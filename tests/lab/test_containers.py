"""Values of any kind reach process 1 of an instance's container byte for byte, through its own unit."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lab.host import LabHost
from lab.lab import Lab
from provision.resources.file import File
from provision.roles.triton.role import TritonSettings, environment_file, resources, unit_file, unit_of
from tests.lab.test_instances import NAME, OTHER_PORTS
from tests.lab.test_provision import converged, host, image, shell, wait_for
from tests.lab.test_quoting import NASTY, TEXTS, named
from tests.unit.examples import H100

pytestmark = [pytest.mark.lab, pytest.mark.campaign("instances", only=True)]

__all__ = ["converged"]

QUOTING = "quoting"
FILES = (unit_file(QUOTING), environment_file(QUOTING))
ANY = TEXTS.filter(lambda text: "\r" not in text)  # the settings refuse it
IDLE = 'FROM {}\nENTRYPOINT ["sh", "-c", "sleep 900", "sh"]\n'
"""The image with a program that takes any argument, and never gets ready; nobody waits for that."""


@pytest.fixture(scope="module")
def machine(converged: Lab) -> Iterator[LabHost]:
    """A host that has that image."""
    machine = host(converged, NAME)
    build = ["docker", "build", "--quiet", "--tag", f"{image()}-idle", "-"]
    assert machine.run(build, given=IDLE.format(image())).returncode == 0
    yield machine
    shell(machine, f"rm -f {' '.join(FILES)}; rm -r /srv/triton/{QUOTING}; systemctl daemon-reload")


def arrived(
    machine: LabHost, arguments: list[str], environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The last arguments of process 1 of an instance that is given these, and its environment."""
    instance = {
        "image": f"{image()}-idle",
        "ulimits": {},
        **OTHER_PORTS,
        "args": arguments,
        "env": environment,
    }
    chosen = TritonSettings.model_validate({"instances": {QUOTING: instance}})
    files = {found.path: found.content for found in resources(chosen, H100) if isinstance(found, File)}
    script = f"mkdir -p /srv/triton/{QUOTING}/models\n"
    for path in FILES:
        script += f"base64 -d >{path} <<'END'\n{base64.encodebytes(files[path]).decode()}END\n"
    unit, inside = unit_of(QUOTING), f"docker exec triton-{QUOTING}"
    ran = machine.run(["sh"], given=f"{script}systemctl daemon-reload; systemctl start --no-block {unit}")
    assert ran.returncode == 0, ran.stderr
    try:
        wait_for(lambda: machine.run(["sh", "-c", f"{inside} true"]).returncode == 0)
        read = f"for file in cmdline environ; do {inside} base64 -w0 /proc/1/$file; echo; done"
        told, env = (
            base64.b64decode(line).decode().split("\0")[:-1] for line in shell(machine, read).splitlines()
        )
    finally:
        shell(
            machine,
            f"docker kill triton-{QUOTING}; systemctl stop {unit}; systemctl reset-failed {unit} || :",
        )
    return told[-len(arguments) :], dict(pair.split("=", 1) for pair in env)


def check(machine: LabHost, values: list[str]) -> None:
    """Send all values both ways at once; name those that did not arrive."""
    # A word that begins with -- is an option, which the settings judge.
    words = [f"-{value}" if value.startswith("--") else value for value in values]
    arguments, environment = arrived(machine, words, named(values))
    assert [(word, got) for word, got in zip(words, arguments, strict=True) if word != got] == []
    assert [(v, environment.get(n)) for n, v in named(values).items() if environment.get(n) != v] == []


def test_values_that_are_special_somewhere(machine: LabHost) -> None:
    check(machine, NASTY)


@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(values=st.lists(ANY, min_size=100, max_size=200))
def test_any_value(machine: LabHost, values: list[str]) -> None:
    check(machine, values)
