"""Secrets of every kind that the inventory takes, after runs that fail and that succeed.

They are where they are used, for root alone, and nowhere else on the host or here.
"""

from __future__ import annotations

import base64
import copy
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from lab import registry
from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cli import Answer, inv, lab_inventory, write_inventory
from tests.lab.test_provision import converged, shell, wait_for

pytestmark = pytest.mark.lab

__all__ = ["converged"]

PORT = 5001
USER = "puller"
SECRETS = {
    "registry": "rg-s3cret-1",
    "env": "en-s3cret-2",
    "daemon.json": "dj-s3cret-3",
    "mirror": "mi-s3cret-4",
    "variable": "va-s3cret-5",
}
PLANTED = "/root/planted"
SEEN = "/root/seen"
ASIDE = "/root/aside"
DAEMON = ("/etc/docker/daemon.json", "/var/lib/provision/docker/daemon.json.ours")
USED = {"/etc/triton/main.env", *DAEMON}
"""Where secrets are on a host."""

DOCKERS = ("/var/lib/docker/", "/var/lib/containerd/", "/run/containerd/", "/run/docker/")
"""Where Docker keeps the environments of its containers, for root alone."""

WATCH = (
    f"while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -aF -f {PLANTED} >>{SEEN};"
    " sleep 0.1; done"
)


@dataclass(frozen=True)
class Left:
    """What runs with secrets said and left.

    :ivar forms: the secrets, and what they look like in base64.
    :ivar home: where the commands had their home and their temporary files.
    """

    machine: LabHost
    forms: tuple[str, ...]
    plan: Answer
    refused: Answer
    failed: Answer
    applied: Answer
    verified: Answer
    shown: Answer
    saved: Path
    home: Path


def forms(secret: str) -> Iterator[str]:
    """A secret as it is, and as it may be in the middle of a text in base64."""
    yield secret
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + secret.encode()).decode()
        yield encoded[-(-offset * 4 // 3) : len(encoded.rstrip("=")) - 1]


@pytest.fixture(scope="module")
def private_registry(converged: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The lab's images behind a login, on a port of their own."""
    folder, layout = tmp_path_factory.mktemp("registry"), converged.layout
    hashed = bcrypt.hashpw(SECRETS["registry"].encode(), bcrypt.gensalt(4, b"2a")).decode()
    (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
    address = f"{layout.gateway}:{PORT}"
    text = registry.configuration(layout.images, address, folder / "htpasswd")
    (folder / "config").write_text(text)
    program = registry.program(layout.cache)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program, "serve", folder / "config"], stdout=log, stderr=log)
        try:
            ask = ["curl", "-so", "/dev/null", f"http://{address}/v2/"]
            wait_for(lambda: subprocess.run(ask, check=False).returncode == 0, 20)
            yield address
        finally:
            server.terminate()
            server.wait()


def inventory(machine: LabHost, address: str, *, login: bool) -> dict[str, Any]:
    """The lab's, with a secret wherever one may be."""
    document = lab_inventory()
    settings = document["gpu-nodes"]["vars"]
    document["_meta"]["hostvars"][machine.name]["api_token"] = SECRETS["variable"]
    daemon, main = settings["docker"]["daemon"], settings["triton"]["instances"]["main"]
    daemon["insecure-registries"].append(address)
    daemon["labels"] = [f"proxy-password={SECRETS['daemon.json']}"]
    main["image"] = f"{address}/{main['image'].partition('/')[2]}"
    main["env"] = {"HF_TOKEN": SECRETS["env"]}
    if login:
        password = SECRETS["registry"]
        settings["triton"]["registry_logins"] = {address: {"user": USER, "password": password}}
    return document


@pytest.fixture(scope="module")
def left(converged: Lab, private_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """A host whose sudo asks for a password, after a plan, a run that fails, a good one, and verify."""
    machine, folder = converged.hosts[-1], tmp_path_factory.mktemp("secrets")
    home, saved = folder / "home", folder / "plan"
    home.mkdir()
    assert machine.sudo_password
    auth = base64.b64encode(f"{USER}:{SECRETS['registry']}".encode()).decode()
    secrets = (*SECRETS.values(), machine.sudo_password)
    found = (*dict.fromkeys(form for secret in secrets for form in forms(secret)), auth)
    document = inventory(machine, private_registry, login=True)
    image = document["gpu-nodes"]["vars"]["triton"]["instances"]["main"]["image"]
    bad = copy.deepcopy(document)
    bad["gpu-nodes"]["vars"]["mirror"]["base"] = f"http://me:{SECRETS['mirror']}@{converged.layout.gateway}"
    good = write_inventory(folder / "with", document)
    without = write_inventory(folder / "without", inventory(machine, private_registry, login=False))
    refused = write_inventory(folder / "bad", bad)
    shell(
        machine,
        f"docker rmi --force {image} 2>/dev/null; rm -rf {SEEN} {ASIDE} /var/backups/provision;"
        f" mkdir {ASIDE} && mv {' '.join(DAEMON)} {ASIDE}",
    )
    machine.run(["sh", "-c", f"umask 077; cat >{PLANTED}"], given="".join(f"{form}\n" for form in found))
    shell(machine, f'systemd-run --quiet --unit=watch-arguments sh -c "{WATCH}"')
    host = ("--hosts", machine.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(home))
        patch.delenv("XDG_CACHE_HOME", raising=False)
        runs = (
            inv("plan", *host, "--out", str(saved), "--json", inventory=good),
            inv("plan", *host, inventory=refused),
            inv("provision", *host, "--diff", "--yes", inventory=without),
            inv("provision", *host, "--diff", "--yes", "--json", inventory=good),
            inv("verify", *host, "--quick", "--json", inventory=good),
            inv("inventory", *host, "--json", inventory=good),
        )
    shell(machine, "systemctl stop watch-arguments.service")
    yield Left(machine, found, *runs, saved, home)
    # A dockerd that runs forgets labels at a restart only.
    back = "; ".join(f"mv {ASIDE}/{path.rpartition('/')[2]} {path}" for path in DAEMON)
    shell(machine, f"{back}; rm -rf {PLANTED} {SEEN} {ASIDE}; systemctl restart docker.service")


def test_a_pull_that_needs_a_login_says_so_and_works_with_one(left: Left) -> None:
    assert left.plan.code == 3, str(left.plan)
    assert left.failed.code == 1, str(left.failed)
    assert "no basic auth credentials" in left.failed.out
    assert "hint: the registry wants a login, or rejects the one that it got: triton.registry_logins" in (
        left.failed.out
    )
    assert left.applied.code == 0, str(left.applied)
    pulled = [row["resource"] for row in left.applied.host(left.machine.name)["changes"]]
    assert any(name.startswith("image:") and f":{PORT}/" in name for name in pulled)


def test_nothing_that_is_shown_or_kept_here_has_a_secret(left: Left) -> None:
    answers = (left.plan, left.refused, left.failed, left.applied, left.verified, left.shown)
    for answer in answers:
        assert [form for form in left.forms if form in answer.out + answer.err] == [], str(answer)
    assert left.refused.code == 2
    assert "names a user or a password" in left.refused.err
    assert "(hidden)" in left.plan.out
    assert left.shown.host(left.machine.name)["vars"]["ansible_become_password"] == "(hidden)"
    for file in left.home.rglob("*"):
        if file.is_file():
            assert [form for form in left.forms if form.encode() in file.read_bytes()] == [], file


def test_a_saved_plan_has_no_secret(left: Left) -> None:
    assert [form for form in left.forms if form in left.saved.read_text()] == []


def test_on_the_host_secrets_are_where_they_are_used_for_root_alone(left: Left) -> None:
    search = "grep -rlaF --exclude-dir=overlay2 -f {} /run /var /etc /tmp /usr/local /home 2>/dev/null"
    found = left.machine.run(["sh", "-c", search.format(PLANTED)], seconds=60).stdout.splitlines()
    ours = {path for path in found if not path.startswith(DOCKERS)}
    assert ours == USED
    modes = {path: shell(left.machine, f"stat -c %a {path}").strip() for path in ours}
    assert set(modes.values()) == {"600"}, modes
    anybody = [
        "setpriv",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "sh",
        "-c",
        search.format("-"),
    ]
    planted = "".join(f"{form}\n" for form in left.forms)
    assert left.machine.run(anybody, given=planted, seconds=60).stdout == ""


def test_on_the_host_no_argument_and_no_journal_has_a_secret(left: Left) -> None:
    assert shell(left.machine, f"cat {SEEN}") == ""
    journal = f"journalctl --no-pager --output=export | grep -aF -f {PLANTED} || :"
    dockerds = re.compile(r'MESSAGE=time=\S+ level=info msg="Reloaded configuration: ')
    found = [line for line in shell(left.machine, journal).splitlines() if not dockerds.match(line)]
    assert found == []
