"""What every role must be: the tests of the product's roles, and of a site's by ``inv check-roles``.

Whoever runs them says which roles are tested, by the fixtures ``checked`` and ``update_golden``.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic import ValidationError

from provision.cli.check_roles import CheckedRole
from provision.cli.rendered import assumed
from provision.errors import Refusal, RefusedError, SettingsError, UsageError
from provision.facts import Facts
from provision.inventory import Host
from provision.inventory.settings import read
from provision.plan import report
from provision.plan.declared import Declared
from provision.plan.plan import plan, probes
from provision.plan.script import script_of
from provision.resource import AnyResource
from provision.shell import assembled

KERNELS = {
    "debian:12": "6.1.0-32-amd64",
    "debian:13": "6.12.48+deb13-amd64",
    "ubuntu:22.04": "5.15.0-144-generic",
    "ubuntu:24.04": "6.8.0-60-generic",
    "rocky:9.6": "5.14.0-570.12.1.el9_6.x86_64",
}
"""The systems for which roles are planned, and a kernel of each."""

EXCLUDED = "SC2016,SC2317,SC2329"
"""Words for other shells stand in single quotes, and functions are called by what is appended to them."""

UNIT = re.compile(r"^/(etc|usr/lib)/systemd/system/[^/]+\.(service|socket|timer|path|mount|target)$")
PROGRAM = re.compile(r"^Exec\w+=[-@:+!|]*\"?(/[^\s\"]+)", re.MULTILINE)
RELATED = re.compile(r"^(?:Requires|Requisite|BindsTo|PartOf|After|Wants)=(.+)$", re.MULTILINE)
TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "network-online", "timers", "sockets", "paths")


def systems() -> dict[str, Facts]:
    """A host of each system, with one H100."""
    return {name: replace(assumed(name), kernel=kernel) for name, kernel in KERNELS.items()}


def resources(checked: CheckedRole, facts: Facts) -> list[AnyResource]:
    """What the role declares on a host with the example settings.

    :raises Refusal: if the role refuses the host.
    """
    settings = checked.role.settings.model_validate(dict(checked.example))
    return list(checked.role.resources(settings, facts))


def planned_systems(checked: CheckedRole) -> dict[str, list[Declared]]:
    """What is declared on a host of each system that the role does not refuse."""
    found = {}
    for name, facts in systems().items():
        try:
            found[name] = [Declared(checked.role.name, resource) for resource in resources(checked, facts)]
        except Refusal:
            continue
        except UsageError as error:
            _fail(f"on {name}: {error.message}")
    return found


def bare_plans(checked: CheckedRole) -> str:
    """The plans of bare hosts of all systems, or why the role refuses them."""
    found, refused = {}, []
    for name, facts in systems().items():
        try:
            declared = [Declared(checked.role.name, resource) for resource in resources(checked, facts)]
            found[name] = plan(name, declared, {item.resource.id: item.resource.bare() for item in declared})
        except (Refusal, RefusedError) as refusal:
            refused.append(f"{name}: refused: {refusal.message} (hint: {refusal.hint})\n")
    return (report.plans(found, diff=True) if found else "") + "".join(refused)


def compare(file: Path, text: str, *, update: bool) -> None:
    """Hold ``text`` to a golden file; with ``update`` write the file instead."""
    if update:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        except OSError as error:
            _fail(f"{file}: {error.strerror}")
        return
    if not file.is_file():
        _fail(f"there is no golden file {file}; write it with --update-golden, and read it")
    lines = difflib.unified_diff(
        file.read_text("utf-8").splitlines(), text.splitlines(), str(file), "now", lineterm=""
    )
    if difference := "\n".join(lines):
        _fail(f"{difference}\nif that is meant, write the file anew with --update-golden")


def _fail(message: str) -> NoReturn:
    pytest.fail(message, pytrace=False)


def _found_in(argv: list[str], text: str) -> str:
    """What a program that reads ``text`` from its standard input finds wrong; empty if nothing."""
    ran = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr if ran.returncode else ""


def write_root(root: Path, units: Mapping[str, bytes]) -> None:
    """Write a root folder for systemd-analyze: the units, and stubs of what they start and depend on."""
    files = dict(units)
    for content in units.values():
        text = content.decode()
        files |= {path: b"#!/bin/sh\n" for path in PROGRAM.findall(text) if path not in units}
        for name in " ".join(RELATED.findall(text)).split():
            stub = b"[Service]\nExecStart=/bin/stub\n" if name.endswith(".service") else b"[Unit]\n"
            if f"/etc/systemd/system/{name}" not in units:
                files[f"/usr/lib/systemd/system/{name}"] = stub
    files |= {f"/usr/lib/systemd/system/{name}.target": b"[Unit]\n" for name in TARGETS}
    files |= {f"/usr/lib/systemd/system/{name}": b"[Unit]\n" for name in ("system.slice", "-.slice")}
    files["/bin/stub"] = b"#!/bin/sh\n"
    for path, content in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if content.startswith(b"#!") else 0o644)


class TestRole:
    """The checks of one role."""

    def test_the_example_settings_are_valid(self, checked: CheckedRole) -> None:
        """``Role.example`` gives settings as an inventory does."""
        try:
            checked.role.settings.model_validate(dict(checked.example))
        except ValidationError as error:
            _fail(f"Role(example=…) of {checked.role.name} is refused: {error}")

    def test_unknown_settings_are_refused(self, checked: CheckedRole) -> None:
        """The refusal names the key."""
        values = {**checked.example, "no_such_setting": 1}
        try:
            read(checked.role.settings, Host("host", vars={checked.role.name: values}), checked.role.name)
        except SettingsError as error:
            if "no_such_setting" in error.message:
                return
            _fail(f"the refusal of an unknown setting does not name it: {error.message}")
        _fail("an unknown setting is not refused; derive the settings class from provision.role.Settings")

    def test_ids_are_unique(self, checked: CheckedRole) -> None:
        """No two resources of a host have the same id."""
        declared = planned_systems(checked)
        if not declared:
            _fail(f"the role refuses every system: {', '.join(KERNELS)}")
        for system, items in declared.items():
            ids = [item.resource.id for item in items]
            if twice := sorted({name for name in ids if ids.count(name) > 1}):
                _fail(f"on {system} two resources have the id {twice[0]}")

    def test_hosts_are_verified(self, checked: CheckedRole) -> None:
        """There is a file of tests that prove the outcome on hosts."""
        if not checked.verified.is_file():
            _fail(f"there is no {checked.verified}, whose tests prove on hosts what the role promises")

    def test_plans_of_bare_hosts_are_golden(self, checked: CheckedRole, update_golden: bool) -> None:
        """The plans are as in the golden file."""
        compare(checked.golden, bare_plans(checked), update=update_golden)

    def test_shell_is_sound(self, checked: CheckedRole) -> None:
        """Scripts and probes are read by sh, and by shellcheck where it is installed."""
        for system, items in planned_systems(checked).items():
            for item in items:
                assembled(*item.resource.shell)
            asked = probes(items)
            files = dict.fromkeys(file for probe in asked for file in probe.shell)
            calls = "".join(f"probe_{n}() {{\n{probe.script}\n}}\n" for n, probe in enumerate(asked))
            found = plan(system, items, {item.resource.id: item.resource.bare() for item in items})
            for what, text in (("plan", script_of(found, "check")), ("probes", assembled(*files) + calls)):
                if wrong := _found_in(["sh", "-n"], text):
                    _fail(f"{system}: sh cannot read the script of the {what}: {wrong}")
                if shutil.which("shellcheck"):
                    argv = ["shellcheck", "--shell=sh", f"--exclude={EXCLUDED}", "-"]
                    if wrong := _found_in(argv, text):
                        _fail(f"{system}: shellcheck on the script of the {what}: {wrong}")

    def test_units_are_sound(self, checked: CheckedRole, tmp_path: Path) -> None:
        """systemd reads every unit that the role writes, as systemd-analyze verify says."""
        for system, items in planned_systems(checked).items():
            files = [item.resource.rendered() for item in items]
            units = {file.path: file.content for file in files if file and UNIT.match(file.path)}
            if units and not shutil.which("systemd-analyze"):
                pytest.skip("systemd-analyze is not installed")
            root = tmp_path / system.replace(":", "-")
            write_root(root, units)
            for path in units:
                argv = ["systemd-analyze", "verify", f"--root={root}", "--man=no", path]
                ran = subprocess.run(argv, capture_output=True, text=True, check=False)
                if ran.returncode or ran.stderr:
                    _fail(f"{system}: {path}: {ran.stderr}")
