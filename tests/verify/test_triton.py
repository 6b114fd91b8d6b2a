"""Triton: every instance serves its models on its GPUs, and containers of its image see the GPUs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from provision.causes import known_messages
from provision.facts import Facts
from provision.gpu.driver_branches import read_driver
from provision.gpu.image_contents import Contents, contents_in, pair
from provision.gpu.nvidia_smi import selected, uuids
from provision.gpu.triton_releases import releases, server_version
from provision.probe import Output
from provision.resources.file import File
from provision.roles.docker.role import DockerSettings, daemon_of
from provision.roles.triton import http
from provision.roles.triton.arguments import MODEL_CONTROL, last, options
from provision.roles.triton.canaries import CANARY_MOST
from provision.roles.triton.fits_driver import is_exposed, known_vulnerabilities
from provision.roles.triton.instance import Instance
from provision.roles.triton.launch import CANARY_MODEL, expected_models
from provision.roles.triton.repository import faults, nothing_in, of_python, serves_nothing, warning
from provision.roles.triton.role import (
    TritonSettings,
    environment_file,
    gpus_in,
    models_of,
    resources,
    serving_of,
    unit_file,
    unit_of,
)
from provision.roles.triton.testinfra import AGAIN, Address, Triton
from provision.roles.triton.unit import command_of, needs_restart
from provision.verify import Missing, Target, fail, skip, warn
from provision.verify.written import differing, require_settled

ROLE = "triton"

TOLD = ("--publish=", "--env=NVIDIA_VISIBLE_DEVICES=", "--gpus=", "--device=nvidia.com/gpu=")
"""Options whose effect checks of their own tell."""

MEND = "mend the model on {host}, then: inv provision --hosts {host} --roles triton"

JOURNAL = "on the host: journalctl -u docker.service -u containerd.service -n 50"

YOUNG = 120.0
"""A unit that restarted within so many seconds may be about to do so again."""


@pytest.fixture
def declared(host: Host, settings: TritonSettings, facts: Facts) -> dict[str, File]:
    """The files that the role writes on this host, which has GPUs if an instance wants some."""
    if not facts.gpus and any(instance.gpus != "none" for instance in settings.servers.values()):
        assert host.nvidia.gpus
    return {file.path: file for file in resources(settings, facts) if isinstance(file, File)}


def require_files(host: Host, settings: TritonSettings, declared: Mapping[str, File]) -> None:
    """See that the files that instances share are as provisioning wrote them."""
    own = {path(name) for name in settings.servers for path in (unit_file, environment_file)}
    if wrong := differing(host, [file for path, file in declared.items() if path not in own]):
        raise Missing("files of triton", "; ".join(wrong), AGAIN)


def require_own_files(host: Host, declared: Mapping[str, File], name: str) -> None:
    """See that those of an instance are."""
    for path in (unit_file(name), environment_file(name)):
        if wrong := differing(host, [declared[path]]):
            unit = host.triton(name)
            if unit.properties.get("LoadState") == "masked":
                raise Missing(path, f"{unit.unit} is masked", f"on the host: systemctl unmask {unit.unit}")
            state = unit.properties.get("ActiveState", "unknown")
            raise Missing(
                path, wrong[0] if state == "active" else f"{wrong[0]}; {unit.unit} is {state}", AGAIN
            )


def require_sound_models(host: Host, name: str, instance: Instance, facts: Facts) -> None:
    """See that Triton can load the models."""
    folder = models_of(name, instance)
    unit = host.triton(name)
    for fault in faults(folder, instance, unit.repository(folder), gpus_in(instance, len(facts.gpus))):
        if fault.sure:
            raise Missing(f"repository of {unit.unit}", f"{unit.unit} cannot start: {fault}", MEND)


@pytest.fixture
def server(
    host: Host, settings: TritonSettings, declared: dict[str, File], instance_name: str, facts: Facts
) -> Triton:
    """The instance on its host; one that does not run may lack its files."""
    found: Triton = host.triton(instance_name)
    if not found.is_running:
        require_files(host, settings, declared)
        require_own_files(host, declared, instance_name)
        require_sound_models(host, instance_name, settings.servers[instance_name], facts)
    return found


@pytest.fixture
def require_as_set(
    host: Host, server: Triton, declared: dict[str, File], instance_name: str
) -> Callable[[], None]:
    """Sees that the settings were provisioned, and the instance restarted; else that is the cause."""

    def require() -> None:
        require_own_files(host, declared, instance_name)
        require_current(host, server, command_of(declared[unit_file(instance_name)].content.decode()))

    return require


@pytest.fixture
def wanted(host: Host, declared: dict[str, File], instance_name: str) -> list[str]:
    """The command of the unit, whose files are on the host as provisioning wrote them."""
    require_own_files(host, declared, instance_name)
    return command_of(declared[unit_file(instance_name)].content.decode())


def cause(answer: Output, *, inside: bool = False) -> tuple[str, str | None]:
    """Why a command failed, and what to do."""
    return (known_messages.cause_inside if inside else known_messages.cause)(answer)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_are_as_provisioned(host: Host, settings: TritonSettings, declared: dict[str, File]) -> None:
    require_files(host, settings, declared)


@pytest.mark.usefixtures("declared")
def test_no_run_ended_early(host: Host, settings: TritonSettings, facts: Facts) -> None:
    require_settled(host, resources(settings, facts))


@pytest.mark.hint(AGAIN)
def test_no_other_instance_is_there(host: Host, settings: TritonSettings) -> None:
    others = sorted(set(host.triton.get_units()) - {unit_of(name) for name in settings.servers})
    assert not others, f"{', '.join(others)} is of an earlier run, and the settings no longer name it"


@pytest.mark.usefixtures("wanted")
def test_unit_is_the_one_of_the_settings(server: Triton, instance_name: str) -> None:
    """On disk, and as systemd has loaded it."""
    found, path = server.properties, unit_file(instance_name)
    if found.get("FragmentPath") != path:
        fail(
            f"systemd runs {server.unit} from {found.get('FragmentPath') or 'no file'}, not from {path}",
            AGAIN,
        )
    if found.get("NeedDaemonReload") == "yes":
        fail(
            f"systemd has not loaded the files of {server.unit} as they are now",
            "on the host: systemctl daemon-reload",
        )


def test_model_repository_is_there(host: Host, instance_name: str, instance: Instance) -> None:
    folder, server = models_of(instance_name, instance), host.triton(instance_name)
    if not host.file(folder).is_directory:
        back = f"bring the folder back with its models; then, on the host: systemctl restart {server.unit}"
        fail(f"{folder} is not a folder", back if server.is_running else AGAIN)


# ── the unit ─────────────────────────────────────────────────────────────────────────────────────────────


def test_unit_is_active(server: Triton) -> None:
    assert server.running


@pytest.mark.hint("on the host: systemctl enable triton@{instance}.service")
def test_unit_starts_at_boot(host: Host, server: Triton, instance_name: str) -> None:
    path, state = unit_file(instance_name), server.properties.get("UnitFileState")
    if not host.file(path).exists:
        raise Missing(path, f"{path} is not there", AGAIN)
    assert server.is_enabled, f"{server.unit} is {state}"


@pytest.mark.hint("on the host: journalctl -u triton@{instance}.service -n 100")
def test_unit_does_not_restart(server: Triton) -> None:
    restarts, age = int(server.running.get("NRestarts") or 0), server.seconds_running
    again = restarts and age is not None and age < YOUNG
    assert not again, f"{server.unit} was restarted {restarts}×, the last time {age:.0f} s ago"


# ── the container ────────────────────────────────────────────────────────────────────────────────────────


def test_image_is_on_the_host(host: Host, instance: Instance) -> None:
    assert host.docker_engine.image_id(instance.image)


def test_what_runs_is_what_the_settings_say(
    host: Host, server: Triton, instance: Instance, wanted: list[str]
) -> None:
    """The command of the unit's process, the environment of its container, and its image."""
    require_current(host, server, wanted)
    restart = f"on the host: systemctl restart {server.unit}"
    environment = server.inspected["Config"]["Env"] or []
    if other := [key for key, value in instance.env.items() if f"{key}={value}" not in environment]:
        fail(f"{server.container} has another {', '.join(other)} than the settings say", restart)
    if server.inspected["Image"] != host.docker_engine.image_id(instance.image):
        fail(f"{server.container} runs another image than {instance.image} names now", restart)
    if others := [word for word in server.command if word not in wanted and not word.startswith(TOLD)]:
        files = ", ".join(overrides(host, server))
        warn(
            f"{files} starts {server.unit} with {' '.join(others)}",
            f"on the host: systemctl cat {server.unit}",
        )


def overrides(host: Host, server: Triton) -> list[str]:
    """The drop-ins that change the unit's command; local changes have their place there."""
    paths = server.properties.get("DropInPaths", "").split()
    return [path for path in paths if host.file(path).contains("^ExecStart=.")]


def require_current(host: Host, server: Triton, wanted: list[str]) -> None:
    """See that the unit's process was started with the command that is in its file, or in a drop-in."""
    runs = server.command
    if needs_restart(runs, wanted) and not overrides(host, server):
        others, lacks = (
            " ".join(word for word in one if word not in other) or "other words"
            for one, other in ((runs, wanted), (wanted, runs))
        )
        raise Missing(
            f"command of {server.unit}",
            f"{server.unit} runs with {others} and not with {lacks}",
            f"on the host: systemctl restart {server.unit}",
        )


def test_ports_are_on_the_configured_address_only(
    host: Host, server: Triton, instance: Instance, wanted: list[str]
) -> None:
    there = ipaddress.ip_address(instance.address)
    published = {place for places in server.published.values() for place in places}
    places = {(there, port) for port in instance.ports.values()}
    missing = sorted(places - published)
    if missing:
        require_current(host, server, wanted)
    listening = {place for place in map(listener, host.socket.get_listening_sockets()) if place}
    others = {place for place in published | listening if place[1] in instance.ports.values()} - places
    if others and not there.is_unspecified:
        message = f"reachable on {places_of(others)} and not on {instance.address} alone"
        hint = f"Triton has no authentication; {AGAIN}; on the host: systemctl cat {server.unit}"
        raise Missing(f"ports of {server.unit}", message, hint)
    if missing:
        message = f"{server.container} does not publish {places_of(missing)}"
        raise Missing(f"ports of {server.unit}", message, AGAIN)
    if there.is_unspecified:
        skip(f"published on {instance.address}, which is every address")


def places_of(places: Iterable[tuple[Address, int]]) -> str:
    """Addresses and ports in a row."""
    return ", ".join(sorted(f"{address}:{port}" for address, port in places))


def listener(socket: str) -> tuple[Address, int] | None:
    """Address and port of a listening TCP socket as testinfra writes it; IPv4 in IPv6 as IPv4."""
    found = re.fullmatch(r"tcp://\[?([^%\]]*?)\]?(?:%.*)?:(\d+)", socket)
    if not found:
        return None
    address = ipaddress.ip_address(found[1])
    return getattr(address, "ipv4_mapped", None) or address, int(found[2])


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────


def test_models_can_be_loaded(
    host: Host, server: Triton, instance_name: str, instance: Instance, facts: Facts
) -> None:
    """Of a server that runs, which has loaded what was there when it was started."""
    folder = models_of(instance_name, instance)
    for fault in faults(folder, instance, server.repository(folder), gpus_in(instance, len(facts.gpus))):
        warn(warning(fault), MEND)


def test_models_are_ready(server: Triton, instance_name: str, instance: Instance) -> None:
    wanted = expected_models(instance)
    if not wanted:
        skip("no model is expected, or Triton lists its models only to those who have a header")
    folder = models_of(instance_name, instance)
    server.require_models(*wanted, folder=folder)
    if serves_nothing(instance) and all(row.get("name") == CANARY_MODEL for row in server.models):
        server.require_mounted(folder)
        loads = f"on the host: systemctl restart {server.unit}"
        polls = "Triton finds them by itself, with model_control: poll"
        polling = last(options(instance.args), MODEL_CONTROL, instance.model_control) == "poll"
        fail(nothing_in(folder), f"put models there; then {polls if polling else loads}")


def test_python_models_have_their_processes(server: Triton, instance_name: str, instance: Instance) -> None:
    if not expected_models(instance):
        return
    models = of_python(server.repository(models_of(instance_name, instance)))
    if gone := server.without_process(models):
        which = "it" if len(gone) == 1 else "them"
        message = f"the process of {', '.join(gone)} is gone, and Triton calls {which} ready"
        fail(message, f"on the host: systemctl restart {server.unit}")


def test_canaries_answer_as_expected(server: Triton, instance_name: str, instance: Instance) -> None:
    if not instance.canaries:
        skip("canaries is empty")
    for canary in instance.canaries:
        answer = server.ask(canary.path, canary.body, seconds=canary.timeout, most=CANARY_MOST)
        hint = f"on the host: journalctl -u {server.unit} -n 50"
        try:
            document = answer.json() if answer.status == 200 else None
        except ValueError:
            document = None
        if document is None:
            server.require_mounted(models_of(instance_name, instance))
            fail(f"canary {canary.model}: {answer.text[:300] or f'status {answer.status}'}", hint)
        for difference in canary.differences(document):
            fail(f"canary {canary.model}: {difference}", "compare the model with canaries in the settings")


def test_server_is_ready(server: Triton, instance: Instance) -> None:
    if not server.is_ready:
        server.require_models(*(expected_models(instance) or ["*"]))
        fail(
            "the server answers, and is not ready: a model that is not expected did not load",
            f"on the host: journalctl -u {server.unit} -n 50",
        )


def test_server_is_of_the_version_of_its_tag(
    server: Triton, instance: Instance, require_as_set: Callable[[], None]
) -> None:
    wanted = server_version(instance.image)
    if wanted is None:
        skip(f"the version behind {instance.image} is not known")
    if (version := server.version) != wanted:
        require_as_set()
        fail(
            f"the server is version {version}, and {instance.image} holds {wanted}: the tag names another"
            " image on this host, as after docker tag, or was pushed anew",
            f"on the host: docker pull {instance.image}; then: {AGAIN}",
        )


@dataclass(frozen=True)
class Sight:
    """What an instance should see of the GPUs of its host.

    :ivar require_as_set: what is looked at before anything else is named as the cause.
    """

    host: Host
    server: Triton
    instance: Instance
    require_as_set: Callable[[], None]

    def require(self, found: list[str], where: str) -> None:
        """See that exactly the GPUs of the settings are seen."""
        gpus, base = self.instance.gpus, f"GPUs of {self.server.unit}"
        if isinstance(gpus, list) and any(str(name).startswith("MIG-") for name in gpus):
            skip("MIG devices are assigned, and are not compared")
        wanted, unknown = selected(gpus, self.host.nvidia.gpus if gpus != "none" else [])
        if unknown:
            message = f"GPU {', '.join(unknown)} of the settings is not on this host"
            raise Missing(base, message, "compare with nvidia-smi -L")
        if set(wanted) == set(found):
            return
        self.require_as_set()
        if gpus != "none":
            self.host.docker_engine.require_sight(self.server.container)
        if missing := sorted(set(wanted) - set(found)):
            raise Missing(
                base,
                f"{where} sees {len(found)} GPUs and not {', '.join(missing)}",
                f"on the host: systemctl cat {self.server.unit}, then restart it;"
                " keep mode = auto in /etc/nvidia-container-runtime/config.toml",
            )
        message = f"{where} sees {', '.join(sorted(set(found) - set(wanted)))}, which is not assigned to it"
        raise Missing(base, message, "look at env: and mounts: of the instance")


@pytest.fixture
def sight(host: Host, server: Triton, instance: Instance, require_as_set: Callable[[], None]) -> Sight:
    """The GPUs that the instance is to see."""
    return Sight(host, server, instance, require_as_set)


def test_container_sees_the_assigned_gpus(
    host: Host, server: Triton, instance: Instance, sight: Sight
) -> None:
    answer = server.nvidia_smi
    found = uuids(answer.out)
    if not answer.ok and instance.gpus != "none":
        host.docker_engine.require_sight(server.container)
        host.docker_engine.require_gpus_in_containers()
        assert host.nvidia.gpus
        why, hint = cause(answer, inside=True)
        base, message = f"GPUs of {server.unit}", f"nvidia-smi in {server.container} fails: {why}"
        raise Missing(base, message, hint)
    sight.require(found, server.container)


def test_canary_answers_from_the_assigned_gpus(server: Triton, instance: Instance, sight: Sight) -> None:
    if not instance.canary:
        skip("canary is false")
    answer = server.infer(CANARY_MODEL, http.canary_request())
    try:
        found = http.outputs(answer)
    except ValueError as error:
        fail(str(error) if answer.status else answer.text, f"on the host: journalctl -u {server.unit} -n 50")
    if found.get("TEXT") != [http.CANARY_TEXT]:
        fail(f"the canary was asked {http.CANARY_TEXT!r} and answers {found.get('TEXT')}", "restart the unit")
    sight.require([str(uuid) for uuid in found.get("GPUS", [])], "the server's process")


def test_metrics_show_the_assigned_gpus(server: Triton, instance: Instance, sight: Sight) -> None:
    if instance.gpus == "none":
        skip("this instance uses no GPU")
    if any(re.match(r"--allow-(gpu-)?metrics=(false|0)$", arg, re.IGNORECASE) for arg in instance.args):
        skip("GPU metrics are turned off in args")
    found = dict(
        re.findall(r'^nv_gpu_memory_total_bytes\{gpu_uuid="([^"]+)"\} (\S+)$', server.metrics, re.MULTILINE)
    )
    if not found:
        warn(
            "the server reports no GPU metrics: its CUDA sees no GPU, or DCGM does not work in its container",
            f"on the host: journalctl -u {server.unit} | grep -i -e cuda -e dcgm",
        )
    if zero := [uuid for uuid, value in found.items() if float(value) == 0]:
        fail(f"the server reports no memory for {', '.join(zero)}", "nvidia-smi -q -i UUID; restart the unit")
    sight.require(list(found), "the server's metrics")


def test_image_is_safe_where_it_is_reachable(instance: Instance) -> None:
    known = known_vulnerabilities(instance.image, instance.address)
    if known and is_exposed(instance.address):
        warn(*known)


def test_image_fits_the_driver(host: Host, instance_name: str, instance: Instance, facts: Facts) -> None:
    """By its tag; by its own configuration where the tag is of no known release."""
    serving = serving_of(instance_name, instance, facts)
    if not serving.devices:
        skip("this instance uses no GPU")
    driver, contents = read_driver(host.nvidia.gpus[0].driver), serving.contents
    if not isinstance(contents, Contents):
        newest = pair(list(releases().values())[-1].capability.value) if contents else (0, 0)
        contents = contents_in(host.docker_engine.image_config(instance.image), instance.image, newest)
    if driver is None or contents is None:
        skip(f"the CUDA version in {instance.image} is not known")
    verdicts = serving.judged(contents, driver)
    if all(verdict.kind == "fail" for verdict in verdicts):
        fail(verdicts[0].reason, verdicts[0].hint or None)


# ── containers of its image ──────────────────────────────────────────────────────────────────────────────


def docker_of(target: Target) -> DockerSettings | None:
    """The settings of the role docker, if the host has that role."""
    return next((found for found in target.settings.values() if isinstance(found, DockerSettings)), None)


@pytest.fixture
def image(host: Host, instance: Instance, target: Target) -> str:
    """The image; skipped where a container of it started without ``--gpus`` is to find nothing."""
    if instance.gpus == "none":
        skip("this instance uses no GPU")
    docker = docker_of(target)
    runtime = docker.default_runtime if docker else host.docker_engine.default_runtime
    if runtime != "nvidia":
        skip(f"the default runtime is {runtime}, so that only containers started with --gpus get any")
    return instance.image


@pytest.fixture
def nvml(host: Host, target: Target, image: str, facts: Facts) -> Output:
    """How NVML starts in a plain container, which needs the driver's library."""
    step: Output = host.docker_engine.plain_container(image, "nvml")
    if not step.ok and step.exit_code != 127:
        if docker := docker_of(target):
            host.docker_engine.require_on_disk(daemon_of(docker, facts).declared)
        host.docker_engine.require_gpus_in_containers()
        why, hint = cause(step)
        raise Missing(f"NVML in {image}", f"NVML does not start in docker run --rm {image}: {why}", hint)
    return step


@pytest.mark.containers
def test_plain_container_has_nvml(nvml: Output) -> None:
    if nvml.exit_code == 127:
        skip("the image has no python3")


@pytest.mark.containers
@pytest.mark.usefixtures("nvml")
def test_plain_container_imports_tensorrt_llm(host: Host, image: str) -> None:
    if "trtllm" not in image:
        skip("the image is not a TensorRT-LLM one")
    step = host.docker_engine.plain_container(image, "tensorrt_llm")
    if not step.ok:
        why, hint = cause(step)
        message = f"import tensorrt_llm fails in docker run --rm {image}: {why}"
        again = f"on the host: docker run --rm {image} python3 -c 'import tensorrt_llm'"
        raise Missing(f"tensorrt_llm in {image}", message, hint or again)


@pytest.mark.containers
@pytest.mark.usefixtures("nvml")
def test_plain_container_sees_all_gpus(host: Host, image: str) -> None:
    step = host.docker_engine.plain_container(image, "gpus")
    there, found = host.nvidia.gpus, uuids(step.out)
    if not found:
        why, hint = cause(step, inside=True)
        message = f"docker run --rm {image} nvidia-smi -L {'shows no GPU' if step.ok else 'fails'}: {why}"
        raise Missing(f"GPUs in {image}", message, hint)
    if set(found) != {card.uuid for card in there}:
        raise Missing(
            f"GPUs in {image}",
            f"a container sees {len(found)} of the {len(there)} GPUs of the host",
            "look for NVIDIA_VISIBLE_DEVICES in the image: docker image inspect",
        )


@pytest.mark.containers
def test_container_with_none_sees_no_gpu(host: Host, image: str) -> None:
    assert host.docker_engine.plain_container(image, "gpus")
    answer = host.docker_engine.container_without_gpus(image)
    if not answer.ok:
        why, hint = cause(answer)
        fail(f"docker run --env=NVIDIA_VISIBLE_DEVICES=none {image} does not start: {why}", hint or JOURNAL)
    if uuids(answer.out) or "device node" in answer.out:
        raise Missing(
            f"no GPUs in {image}",
            "a container with NVIDIA_VISIBLE_DEVICES=none sees GPUs",
            "look for NVIDIA_VISIBLE_DEVICES and mode in /etc/nvidia-container-runtime/config.toml",
        )
