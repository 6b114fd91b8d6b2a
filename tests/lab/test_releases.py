"""Two real releases of Triton: up, down, by digest, and back from one that does not start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from lab.registry import REPOSITORY
from lab.triton_image import NEWER, USUAL, Release
from tests.lab.cli import inv
from tests.lab.test_instances import NAME, apply, instances, machine, of_main, ready
from tests.lab.test_provision import converged, shell

pytestmark = [pytest.mark.lab, pytest.mark.campaign("instances", only=True)]

__all__ = ["converged", "machine"]


@pytest.fixture(scope="module")
def repository(converged: Lab) -> str:
    """The images of both releases, without their tags."""
    converged.offer(NEWER)
    return f"{converged.layout.registry}/{REPOSITORY}"


def version(machine: LabHost) -> str:
    """What the server of main says of itself."""
    ask = "printf 'GET /v2 HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3"
    document = machine.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/8000; {ask}"]).stdout
    return str(json.loads(document)["version"])


def change_to(image: str, folder: Path) -> Path:
    return instances(folder, main={"image": image, "rollback": True})


def tag_of(repository: str, release: Release) -> str:
    return f"{repository}:{release.tags[1]}"


def test_an_instance_goes_up_to_the_next_release_and_down_again(
    machine: LabHost, repository: str, tmp_path: Path
) -> None:
    assert apply(change_to(tag_of(repository, USUAL), tmp_path / "0")).code == 0
    for number, release in enumerate((NEWER, USUAL), 1):
        source = change_to(tag_of(repository, release), tmp_path / str(number))
        answer = apply(source)
        assert answer.code == 0, str(answer)
        assert version(machine) == release.server
        proof = inv("verify", "--hosts", NAME, "--roles", "triton", inventory=source)
        assert proof.code == 0, str(proof)
        assert apply(source).host(NAME)["changes"] == []
    kept = shell(machine, "docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert {tag_of(repository, release) for release in (NEWER, USUAL)} <= set(kept)


def test_a_release_that_does_not_start_gives_way_to_the_one_that_served(
    machine: LabHost, repository: str, tmp_path: Path
) -> None:
    good = change_to(tag_of(repository, USUAL), tmp_path / "1")
    assert apply(good).code == 0
    before, bad = of_main(machine), f"{repository}:24.10-broken-trtllm"
    newer, library = tag_of(repository, NEWER), "/opt/tritonserver/lib/libtritonserver*.so"
    build = f"printf 'FROM {newer}\\nRUN rm {library}\\n' | docker build --quiet --tag {bad} -"
    shell(machine, f"docker pull --quiet {newer} && {build}")
    answer = apply(change_to(bad, tmp_path / "2"))
    assert answer.code == 1, str(answer)
    said = str(answer)
    assert "did not get ready: tritonserver: error while loading shared libraries: libtritonserver" in said
    assert "; the previous version serves again" in said
    assert ready(machine)
    assert version(machine) == USUAL.server
    assert of_main(machine) == before
    assert apply(good).host(NAME)["changes"] == []


def test_an_image_is_taken_by_its_digest(machine: LabHost, repository: str, tmp_path: Path) -> None:
    for number, release in enumerate((NEWER, USUAL)):
        tag = tag_of(repository, release)
        shell(machine, f"docker pull --quiet {tag}")
        form = "{{range .RepoDigests}}{{println .}}{{end}}"
        digests = shell(machine, f"docker image inspect --format '{form}' {tag}").split()
        (digest,) = {found.partition("@")[2] for found in digests}
        source = change_to(f"{tag}@{digest}", tmp_path / str(number))
        answer = apply(source)
        assert answer.code == 0, str(answer)
        assert version(machine) == release.server
        assert f"@{digest}" in shell(machine, "systemctl cat triton@main.service")
        assert apply(source).host(NAME)["changes"] == []
    assert apply(instances(tmp_path / "last", main={})).code == 0
