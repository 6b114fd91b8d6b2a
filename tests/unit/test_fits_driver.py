"""Plans refuse what the driver does not run, and say what an operator can do about the rest."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.cli.rendered import assumed, rendered
from provision.connection.login import Login
from provision.errors import Refusal, RefusedError
from provision.facts import Facts
from provision.plan.declared import Declared, declare
from provision.probe import Output
from provision.resource import Change, Planned
from provision.resources.packages.sets import PackageSet
from provision.resources.signals import DRIVER_MOVED
from provision.role import Role, Settings
from provision.roles import all_roles
from provision.roles.triton.fits_driver import FitsDriver
from provision.roles.triton.role import TritonSettings, resources
from provision.run.target import Target
from tests.unit.examples import H100, script_of, with_gpus
from tests.unit.sandbox import SHELLS

IMAGE = "nvcr.io/nvidia/tritonserver:{}"
ANEW = Planned((Change("file:/etc/systemd/system/triton@main.service", "update", "", "", ""),))
VULNERABLE = "release 24.07 has 57 known vulnerabilities, fixed in 26.06; the worst is CVE-2026-47627"


def fits(tag: str, facts: Facts = H100, **instance: Any) -> FitsDriver:
    """The resource of a host with one instance."""
    main = {"image": IMAGE.format(tag), **instance}
    settings = TritonSettings.model_validate({"instances": {"main": main}})
    (found,) = (one for one in resources(settings, facts) if isinstance(one, FitsDriver))
    return found


@pytest.mark.parametrize(
    ("tag", "driver", "facts", "instance"),
    [
        ("24.07-py3", "580.159.04", H100, {}),
        ("26.07-py3", "580.159.04", H100, {}),
        ("26.07-py3", "535.309.01", H100, {}),  # forward compatibility
        ("26.07-py3", "550.163.01", H100, {}),  # not known
        ("26.07-py3", "", H100, {}),  # no driver is loaded, and none declared
        ("26.07-py3", "a driver of our own", H100, {}),
        ("27.01-py3", "545.23.08", H100, {}),
        ("26.07-trtlm-python-py3", "545.23.08", H100, {}),  # no variant of NVIDIA's
        ("26.07-py3", "545.23.08", replace(H100, gpus=()), {"gpus": "none"}),
        ("24.12-py3", "580.159.04", with_gpus("Volta", "Turing"), {}),
        ("24.12-py3", "580.159.04", with_gpus("Volta", "Turing"), {"gpus": [1]}),
        ("24.12-py3", "580.159.04", with_gpus("Volta", "Turing"), {"gpus": ["GPU-0"]}),
    ],
)
def test_what_may_run_is_not_refused(tag: str, driver: str, facts: Facts, instance: dict[str, Any]) -> None:
    assert fits(tag, facts, **instance).change(driver, Planned()) is None


@pytest.mark.parametrize(
    ("found", "driver", "says", "hint"),
    [
        (fits("26.07-py3"), "545.23.08", "too old for CUDA 13.3", "driver.branch: 580, or image 25.06-py3"),
        (fits("24.12-py3", with_gpus("Volta")), "580.1", "V100 has 7.0", "image 24.10-py3 is the last"),
        (fits("24.12-py3", with_gpus("Volta", "Turing"), gpus=[0]), "580.1", "V100 has", "image 24.10-py3"),
    ],
)
def test_what_cannot_run_is_refused(found: FitsDriver, driver: str, says: str, hint: str) -> None:
    with pytest.raises(Refusal) as caught:
        found.change(driver, Planned())
    assert caught.value.message.startswith("triton@main.service: ")
    assert says in caught.value.message
    assert (caught.value.hint or "").startswith(hint)


def test_an_image_that_is_not_nvidias_is_not_judged() -> None:
    found = fits("26.07-py3", image="registry.example/own-server:26.07-py3", address="0.0.0.0")
    assert found.change("545.23.08", Planned()) is None
    assert found.notes("545.23.08", ANEW) == []


@pytest.mark.parametrize(
    ("tag", "driver", "planned", "instance", "notes"),
    [
        # Nothing is said of a host that has nothing to do, nor of what runs as it should.
        ("26.07-py3", "580.159.04", Planned(), {}, []),
        ("26.07-py3", "615.71.10", ANEW, {}, []),
        ("24.07-py3", "580.159.04", Planned(), {}, []),
        # What is started anew.
        ("26.07-py3", "580.159.04", ANEW, {}, ["by minor-version compatibility.*driver.branch: 620 has all"]),
        ("26.07-py3", "535.309.01", ANEW, {}, ["compatibility libraries of the image.*driver.branch: 580"]),
        ("26.07-py3", "550.163.01", ANEW, {}, ["whether 550 is forward-compatible.*driver.branch: 580"]),
        ("27.01-py3", "580.159.04", ANEW, {}, ["27.01-py3 is newer than the releases.*inv verify judges it"]),
        # A driver that changes, and ports that others reach.
        ("26.07-py3", "580.159.04", DRIVER_MOVED, {}, ["by minor-version compatibility"]),
        ("24.07-py3", "580.159.04", Planned(), {"address": "0.0.0.0"}, [f"{VULNERABLE}.*or publish on 127"]),
        ("26.06-py3", "615.71.10", Planned(), {"address": "0.0.0.0"}, []),
    ],
)
def test_notes_are_for_those_who_can_do_something(
    tag: str, driver: str, planned: Any, instance: dict[str, Any], notes: list[str]
) -> None:
    if planned is DRIVER_MOVED:
        planned = Planned((Change("packages:driver", "upgrade", "", "", "", signals=(DRIVER_MOVED.name,)),))
    found = fits(tag, **instance).notes(driver, planned)
    assert len(found) == len(notes), found
    assert all(re.search(words, note) for words, note in zip(notes, found, strict=True)), found


def test_instances_with_the_same_note_share_it() -> None:
    one = {"image": IMAGE.format("24.07-py3"), "address": "::"}
    ports = {"http_port": 1, "grpc_port": 2, "metrics_port": 3}
    settings = TritonSettings.model_validate({"instances": {"a": one, "b": {**one, **ports}}})
    (found,) = (item for item in resources(settings, H100) if isinstance(item, FitsDriver))
    (note,) = found.notes("580.159.04", Planned())
    assert note.startswith(f"triton@a.service, triton@b.service: {VULNERABLE}")


def test_a_gpu_that_the_image_does_not_use_is_a_note_beside_one_that_it_does() -> None:
    found = fits("26.07-py3", with_gpus("Volta", "Turing")).notes("580.159.04", ANEW)
    assert any("V100 has 7.0" in note for note in found)


def both(tag: str, **driver: Any) -> dict[Role, Settings]:
    """Settings of a host with a driver and an instance."""
    roles = {role.name: role for role in all_roles()}
    main = {"image": IMAGE.format(tag)}
    return {
        roles["driver"]: roles["driver"].settings.model_validate(driver),
        roles["triton"]: TritonSettings.model_validate({"instances": {"main": main}}),
    }


def fits_of(items: tuple[Declared, ...]) -> FitsDriver:
    (found,) = (item.resource for item in items if isinstance(item.resource, FitsDriver))
    return found


def test_the_driver_that_the_plan_installs_counts_and_not_the_one_that_runs() -> None:
    found = fits_of(declare("host", both("26.07-py3", branch=580), H100))
    assert found.declared == "580.*"
    assert found.change("545.23.08", Planned()) is None
    exact = fits_of(declare("host", both("26.07-py3", version="580.159.04-1"), H100))
    assert exact.declared == "580.159.04"


def test_a_driver_of_the_settings_that_does_not_run_the_image_is_refused_offline() -> None:
    target = Target("gpu-01", Login("gpu-01", "root"), both("26.07-py3", branch=545))
    with pytest.raises(RefusedError, match=r"triton@main\.service: driver 545 is too old") as caught:
        list(rendered(target, assumed("ubuntu:24.04")))
    assert caught.value.hint == "driver.branch: 580, or image 25.06-py3"


def test_a_role_that_asks_for_no_driver_declares_none() -> None:
    without = {role: values for role, values in both("26.07-py3").items() if role.name == "triton"}
    assert fits_of(declare("host", without, H100)).declared == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("content", ["580.159.04\n", None])
def test_the_running_driver_is_read_in_place(shell: str, content: str | None, tmp_path: Path) -> None:
    question, file = fits("24.07-py3").question(), tmp_path / "version"
    if content is not None:
        file.write_text(content)
    script = f"set -eu\n{script_of(question).replace('/sys/module/nvidia/version', str(file))}"
    told = subprocess.run([shell, "-c", script], capture_output=True, check=True).stdout
    assert fits("24.07-py3").read(Output(0, told)) == (content or "").strip()
    assert question.in_place


@pytest.mark.parametrize(
    ("role", "settings", "remark"),
    [
        ("toolkit", {"version": "1.17.4-1"}, "nvidia-container-toolkit 1.17.4-1 has 3 known vulnerabilities"),
        ("toolkit", {"version": "1.20.0-1"}, ""),
        ("toolkit", {}, ""),
        ("driver", {"version": "580.95.05-1"}, "nvidia-driver 580.95.05 has 13 known vulnerabilities"),
        ("driver", {"version": "580.159.04-1"}, ""),
        ("driver", {}, ""),
    ],
)
def test_a_version_with_known_vulnerabilities_is_named_where_it_is_installed(
    role: str, settings: dict[str, str], remark: str
) -> None:
    known = next(one for one in all_roles() if one.name == role)
    found = known.resources(known.settings.model_validate(settings), H100)
    remarks = [said for one in found if isinstance(one, PackageSet) for said in one.remarks]
    told = [said for said in remarks if "known vulnerabilit" in said]
    assert len(told) == bool(remark)
    assert all(said.startswith(remark) for said in told)
