"""testinfra's ``host.docker_engine``: the Docker Engine of a host, as it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from testinfra.modules.base import InstanceModule

from provision.causes.known_messages import cause
from provision.errors import Refusal
from provision.finding import Missing, fail
from provision.probe import Output, by_word, quote, words
from provision.resources.file import parse_paths, read_paths
from provision.resources.gpus_in_containers import SIGHT, Seen, seen
from provision.resources.packages.installed import INSTALLED, Installed, installed
from provision.roles.docker.containerd import CONTAINERD, RUNNING
from provision.roles.docker.containers import INFO, loaded, none_run, plain_run, steps
from provision.roles.docker.daemon_json import PATHS, DaemonJson
from provision.roles.docker.engine import ENGINES, QUESTION, EngineState, engine_here, refuse_look_alikes
from provision.roles.docker.flags import UNIT_FILES, conflict
from provision.roles.docker.memory import MEMORY, PENDING, recall
from provision.roles.docker.merge import differences, merge
from provision.roles.docker.text import DAEMON_JSON, equal, parse, plain
from provision.shell import assembled, constant

CLIENT = constant("docker/engine.sh", "docker_client")
UNIT = "docker.service"
JOURNAL = f"on the host: journalctl -u {UNIT} -u containerd.service -n 50"
PACKAGES = "docker packages"
AGAIN = "inv provision --hosts {host} --roles docker"


class DockerEngine(InstanceModule):  # type: ignore[misc]  # testinfra has no type information
    """The engine, what it has loaded, and containers. What it stands on comes first: the unit, its files."""

    def _ask(self, script: str, *files: str, seconds: float = 60) -> Output:
        """The answer of a command, or of functions below ``templates/``."""
        result = self.run(f"{assembled(*files)}{script}", seconds=seconds)
        return Output(result.rc, result.stdout_bytes, result.stderr_bytes)

    def ask(self, command: str, limit: int = 30) -> Output:
        """The answer to a command of Docker's client, which has so many seconds.

        :raises Missing: if the engine does not answer, or reaches no container.
        """
        script = f"timeout -k 5 {limit} {command}"
        answer = self._ask(script, seconds=limit + 30) if self.info else Output(1)
        if not answer.ok:
            self.require_containerd()
        return answer

    @property
    def unit(self) -> Mapping[str, str]:
        """Properties of docker.service."""
        found: Mapping[str, str] = self._host.service(UNIT).systemd_properties
        return found

    def require_containerd(self) -> None:
        """See that containerd runs where it is a unit.

        :raises Missing: if not.
        """
        found = self._host.service(CONTAINERD).systemd_properties
        if found.get("LoadState") == "loaded" and found.get("ActiveState") not in RUNNING:
            raise Missing(
                "containerd",
                f"{CONTAINERD} is {found.get('ActiveState')}, through which Docker reaches its containers",
                f"on the host: systemctl start {CONTAINERD}",
            )

    @property
    def here(self) -> EngineState:
        """What the host has of Docker.

        :raises Missing: if something else is in the place of the engine.
        """
        state = engine_here(self._ask(QUESTION.script, *QUESTION.shell))
        try:
            refuse_look_alikes(state)
        except Refusal as refusal:
            raise Missing("Docker Engine", refusal.message, refusal.hint) from refusal
        return state

    def packages(self, *names: str) -> dict[str, Installed]:
        """Those of these packages that are installed."""
        return installed(self._ask(words("installed_packages", *names), INSTALLED).out)

    def require_whole(self, *packages: str) -> None:
        """See that the files of these packages are as they came.

        :raises Missing: if one is missing or was changed.
        """
        lines = self._ask(words("damaged_files", *packages), INSTALLED).out.splitlines()
        if damaged := [f"{path} is {what}" for what, _, path in (line.partition(" ") for line in lines)]:
            hint = f"on the host: apt-get install --reinstall, or dnf reinstall, {' '.join(packages)}"
            raise Missing(PACKAGES, "; ".join(damaged[:3]), hint)

    @property
    def daemon_json(self) -> dict[str, Any]:
        """The document on disk, as dockerd reads it when it starts.

        :raises Missing: if there is none, or dockerd could not start with it.
        """
        file = self._host.file(DAEMON_JSON)
        if not file.exists:
            raise Missing("daemon.json", f"{DAEMON_JSON} is not there", AGAIN)
        try:
            document = plain(file.content)
        except Refusal as refusal:
            raise Missing("daemon.json", refusal.message, refusal.hint) from refusal
        if collision := conflict(self._ask(UNIT_FILES.script, *UNIT_FILES.shell).out, document):
            raise Missing("daemon.json", collision.message, collision.hint)
        return document

    def require_on_disk(self, declared: Mapping[str, Any]) -> None:
        """See that daemon.json can be read, and says this.

        :raises Missing: if not.
        """
        if wrong := list(_differences(self.daemon_json, declared)):
            raise Missing("daemon.json", f"daemon.json {'; '.join(wrong)}", AGAIN)

    def require_no_leftovers(self, daemon: DaemonJson) -> None:
        """See that daemon.json has no key of ours that is not declared any more, and that we know which are.

        :raises Missing: if not.
        """
        self.require_on_disk({})
        probe = read_paths("daemon.json", PATHS)
        found = parse_paths(PATHS, self._ask(probe.script, *probe.shell))
        content = self._host.file(DAEMON_JSON).content
        try:
            memory = recall(content, found[MEMORY], found[PENDING])
        except Refusal as refusal:
            raise Missing("daemon.json", refusal.message, refusal.hint) from refusal
        document = parse(content)
        merged = merge(document, memory.settings, daemon.declared, daemon.initial)
        changed, gone = differences(document, merged.document)
        if left := [key for key in (*changed, *gone) if key not in daemon.declared]:
            message = (
                f"an earlier run set {', '.join(left)} in {DAEMON_JSON}, and the settings name it no longer"
            )
            raise Missing("daemon.json", message, AGAIN)
        if not memory.settled:
            message = f"an earlier run ended before it noted which keys of {DAEMON_JSON} are ours"
            raise Missing("daemon.json", message, AGAIN)

    @property
    def info(self) -> dict[str, Any]:
        """What the running engine says of itself; files on disk may say something else.

        :raises Missing: if it does not answer, or what it stands on is not there.
        """
        if not self.here.programs:
            raise Missing(PACKAGES, "there is no Docker Engine on the host", AGAIN)
        active = self.unit.get("ActiveState")
        if active != "active":
            self.require_whole(*ENGINES)
            self.require_on_disk({})
            raise Missing("dockerd", f"dockerd is not running: {UNIT} is {active}", JOURNAL)
        answer = self._ask(INFO)
        if found := loaded(answer):
            return found
        why, hint = cause(answer)
        if answer.exit_code in (126, 127):
            runs = f"on the host: chmod 755 {CLIENT}, or install its package again"
            raise Missing("dockerd", f"Docker's client cannot be run: {why}", runs)
        advice = JOURNAL if answer.exit_code == 124 else hint or JOURNAL
        raise Missing("dockerd", f"dockerd does not answer: {why}", advice)

    @property
    def started_with(self) -> str:
        """The command line of the running dockerd."""
        return "".join(self._in_force.get("command", ()))

    @property
    def reloaded(self) -> dict[str, Any] | None:
        """What dockerd has had in force since its last reload; empty where it tells of none.

        None where daemon.json is as old as dockerd, which then has read all of it.
        """
        found = self._in_force
        if "younger" not in found:
            return None
        try:
            document = json.loads(json.loads(f'"{"".join(found.get("reloaded", ()))}"'))
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def _in_force(self) -> dict[str, list[str]]:
        return by_word(self._ask("dockerd_in_force", "docker/verify.sh").out)

    @property
    def default_runtime(self) -> str:
        """With what the running engine starts containers."""
        return str(self.info.get("DefaultRuntime"))

    @property
    def runtimes(self) -> Mapping[str, Any]:
        """What the running engine knows of runtimes."""
        return self.info.get("Runtimes") or {}

    def require_default_runtime(self, name: str) -> None:
        """See that the running engine starts containers with this runtime.

        :raises Missing: if it does not.
        """
        if (found := self.default_runtime) == name:
            return
        says = self.daemon_json.get("default-runtime")
        message = f"dockerd runs containers with {found} by default, not with {name}"
        if says == name:
            hint = f"on the host: systemctl reload {UNIT}"
            raise Missing("default runtime", f"{message}; daemon.json says {says}", hint)
        raise Missing(
            "daemon.json", message if says == found else f"{message}; daemon.json says {says}", AGAIN
        )

    def require_runtime(self, name: str) -> None:
        """See that the running engine knows a runtime, and that its program is there.

        :raises Missing: if not.
        """
        if name not in self.runtimes:
            known = ", ".join(sorted(self.runtimes)) or "none"
            on_disk = name in (self.daemon_json.get("runtimes") or {})
            raise Missing(
                f"runtime {name}" if on_disk else "daemon.json",
                f"dockerd knows no runtime {name}, only {known}",
                f"on the host: systemctl reload {UNIT}" if on_disk else AGAIN,
            )
        path = self.runtimes[name].get("path")
        if path and not self._host.exists(path):
            raise Missing(
                "toolkit packages" if name == "nvidia" else f"program of runtime {name}",
                f"{path} is not installed, so that no container starts with the runtime {name}",
                "inv provision --hosts {host} --roles toolkit",
            )

    def require_gpus_in_containers(self) -> None:
        """See that nothing keeps containers from their GPUs; for what was started in vain.

        :raises Missing: if something does.
        """
        self.require_runtime("nvidia")
        self._host.container_toolkit.require_working()

    def image_id(self, image: str) -> str:
        """The id of what a tag names on the host.

        :raises Missing: if the image is not there.
        """
        answer = self.ask(f"docker image inspect --format '{{{{.Id}}}}' {quote(image)}")
        if answer.ok:
            return answer.out.strip()
        why, hint = cause(answer)
        raise Missing(
            f"image {image}", f"{image}: {why}", hint or "inv provision --hosts {host} --roles triton"
        )

    def image_config(self, image: str) -> Mapping[str, Any]:
        """What an image gives its containers, such as ``Env`` and ``Labels``; empty if it cannot be read.

        :raises Missing: if the image is not there.
        """
        self.image_id(image)
        answer = self.ask(f"docker image inspect --format '{{{{json .Config}}}}' {quote(image)}")
        try:
            found = json.loads(answer.out)
        except (ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {}

    @property
    def containers_with_gpus(self) -> list[Seen]:
        """Running containers that were given GPUs."""
        return seen(self._ask(SIGHT.script, *SIGHT.shell, seconds=300)) if self.info else []

    def require_sight(self, container: str | None = None) -> None:
        """See that running containers, or this one, see the GPUs that they were given.

        :raises Missing: if one does not, with all that do not.
        """
        blind = [found for found in self.containers_with_gpus if found.blind]
        if any(container in (None, found.name) for found in blind):
            raise Missing(
                "GPUs of running containers",
                f"no longer sees its GPUs: {', '.join(map(str, blind))}",
                _sight_again(blind),
            )

    def plain_container(self, image: str, step: str) -> Output:
        """How a step ended in a container of an image that was started without ``--gpus``.

        :raises Missing: if it does not start, or what it needs is not there.
        """
        answer = self._try(image, *plain_run(image))
        found = steps(answer)
        if step in found:
            return found[step]
        why, hint = cause(answer)
        if found:
            fail(f"docker run --rm {image} ended before its step {step}: {why}", hint or "dmesg | tail")
        self.require_containerd()
        self.require_gpus_in_containers()
        base = PACKAGES if "docker-init" in f"{answer.out}{answer.err}" else f"containers of {image}"
        raise Missing(base, f"docker run --rm {image} does not start a container: {why}", hint or JOURNAL)

    def container_without_gpus(self, image: str) -> Output:
        """What a container of an image saw that was started to see no GPU."""
        return self._try(image, *none_run(image))

    def _try(self, image: str, script: str, seconds: float) -> Output:
        gpus = self._host.nvidia.gpus
        self.require_default_runtime("nvidia")
        self.require_runtime("nvidia")
        return self._ask(script, seconds=seconds) if gpus and self.image_id(image) else Output(1)

    def __repr__(self) -> str:
        return "<docker_engine>"


def _sight_again(blind: list[Seen]) -> str:
    """What gives containers their GPUs back, and keeps them."""
    units = [
        f"triton@{found.instance}.service" for found in blind if re.fullmatch(r"[\w.-]+", found.instance)
    ]
    ways = [
        f"on the host: systemctl restart {' '.join(units)}; with injection: runtime they keep their GPUs"
    ] * bool(units)
    if len(units) < len(blind):
        ways.append(
            "re-create what is of no unit, with --runtime=nvidia"
            if units
            else "re-create it, with --runtime=nvidia"
        )
    return f"{'; '.join(ways)}; keep mode = auto in /etc/nvidia-container-runtime/config.toml"


def _differences(document: Mapping[str, Any], declared: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """What of a declared object a document says otherwise; it may say more."""
    for key, value in declared.items():
        if key not in document:
            yield f"lacks {above}{key}"
        elif isinstance(value, Mapping) and isinstance(document[key], dict):
            yield from _differences(document[key], value, f"{above}{key}.")
        elif not equal(document[key], value):
            yield f"has another {above}{key} than is declared"
