"""testinfra's ``host.triton("main")``: an instance of Triton, its unit, its container and its server."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from testinfra.modules.base import Module

from provision.causes.known_messages import cause
from provision.finding import Missing
from provision.probe import Output, words
from provision.roles.triton import http
from provision.roles.triton.repository import Repository, parse, probe_of
from provision.roles.triton.role import GATE, container_of, unit_of
from provision.shell import assembled

VERIFY = "triton/verify.sh"
AGAIN = "inv provision --hosts {host} --roles triton"
HTTP, GRPC, METRICS = 8000, 8001, 8002
"""Ports of a server in its container."""

STUB = "triton_python_backend_stub"
"""The program of a model of the python backend, of which each has at least one process."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PROPERTIES = (
    *("LoadState", "ActiveState", "Result", "UnitFileState", "NeedDaemonReload", "FragmentPath"),
    *("DropInPaths", "ExecStart", "ExecStartPre", "MainPID", "NRestarts", "ExecMainStartTimestampMonotonic"),
)


class Triton(Module):  # type: ignore[misc]  # testinfra has no type information
    """An instance by its name. Each part stands on the one before it: unit, container, server."""

    def __init__(self, name: str) -> None:
        self.name, self.unit, self.container = name, unit_of(name), container_of(name)
        super().__init__()

    @classmethod
    def get_units(cls) -> list[str]:
        """The units of instances that provisioning wrote."""
        text: str = cls.run(f"{assembled('shell/own_units.sh')}own_units triton").stdout
        return [path.rpartition("/")[2] for path in text.splitlines()]

    def _ask(self, script: str, *files: str, seconds: float = 40) -> Output:
        result = self.run(f"{assembled(*files)}{script}", seconds=seconds)
        return Output(result.rc, result.stdout_bytes, result.stderr_bytes)

    # ── the unit ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def properties(self) -> Mapping[str, str]:
        """What systemd says of the unit; an ``ExecStart`` may have several lines."""
        text = self._ask(words("systemctl", "show", f"--property={','.join(PROPERTIES)}", self.unit)).out
        found = re.split(rf"^({'|'.join(PROPERTIES)})=", text, flags=re.MULTILINE)[1:]
        return dict(zip(found[::2], (value.rstrip("\n") for value in found[1::2]), strict=True))

    @property
    def is_running(self) -> bool:
        """Whether the unit is active."""
        return self.properties.get("ActiveState") == "active"

    @property
    def is_enabled(self) -> bool:
        """Whether the unit starts at boot."""
        return self.properties.get("UnitFileState") == "enabled"

    @property
    def running(self) -> Mapping[str, str]:
        """Properties of the unit, which runs.

        :raises Missing: if it does not, or what it stands on is not there.
        """
        found = self.properties
        if self.is_running:
            return found
        self._require_what_it_starts_with(found)
        state, result = found.get("ActiveState", "unknown"), found.get("Result", "success")
        raise Missing(
            self.unit,
            f"{self.unit} is {state}" + (f" ({result})" if result != "success" else ""),
            f"on the host: journalctl -u {self.unit} -n 50",
        )

    def _require_what_it_starts_with(self, found: Mapping[str, str]) -> None:
        engine = self._host.docker_engine
        if GATE in found.get("ExecStartPre", "") and self._host.nvidia.gpus:
            engine.require_gpus_in_containers()
        if image := re.search(r"(\S+) (?:tritonserver|mpirun) ", found.get("ExecStart", "")):
            engine.image_id(image[1])

    @property
    def seconds_running(self) -> float | None:
        """Seconds since the unit's process was started; None if that cannot be told."""
        try:
            uptime = float(self._host.file("/proc/uptime").content_string.split()[0])
            return uptime - int(self.running["ExecMainStartTimestampMonotonic"]) / 1e6
        except (LookupError, ValueError):
            return None

    @property
    def command(self) -> list[str]:
        """The command line of the unit's process."""
        pid = self.running.get("MainPID", "0")
        return self._ask(words("cat", f"/proc/{pid}/cmdline")).out.split("\0")[:-1]

    # ── the container ────────────────────────────────────────────────────────────────────────────────────

    @property
    def inspected(self) -> Mapping[str, Any]:
        """What Docker says of the running container.

        :raises Missing: if it knows none, or the unit does not run.
        """
        answer = (
            self._host.docker_engine.ask(f"docker inspect {self.container}") if self.running else Output(1)
        )
        restart = f"on the host: systemctl restart {self.unit}"
        try:
            found: Mapping[str, Any] = json.loads(answer.out)[0]
        except (ValueError, LookupError):
            why, hint = cause(answer)
            message = f"docker does not know {self.container}: {why}"
            advice = hint or restart
            raise Missing(f"container of {self.unit}", message, advice) from None
        if (status := found["State"]["Status"]) != "running":
            raise Missing(f"container of {self.unit}", f"{self.container} is {status}", restart)
        return found

    def require_mounted(self, folder: str) -> None:
        """See that the model repository of the container is this folder, where both are there.

        :raises Missing: if it is another one: a container keeps the folder that it was started with.
        """
        inside = f"/proc/{self.inspected['State'].get('Pid', 0)}/root/models"
        if len(set(self._ask(words("stat", "-L", "-c", "%d:%i", folder, inside)).out.split())) > 1:
            raise Missing(
                f"repository of {self.unit}",
                f"{self.container} still has the folder that was at {folder} when it was started, and another"
                " one is there now",
                f"on the host: systemctl restart {self.unit}",
            )

    @property
    def published(self) -> dict[int, list[tuple[Address, int]]]:
        """Where Docker publishes each port of the container."""
        found = self.inspected["NetworkSettings"]["Ports"] or {}
        return {
            int(port.partition("/")[0]): [
                (ipaddress.ip_address(place["HostIp"] or "0.0.0.0"), int(place["HostPort"]))  # noqa: S104
                for place in places or ()
            ]
            for port, places in found.items()
        }

    @property
    def nvidia_smi(self) -> Output:
        """What ``nvidia-smi -L`` in the container says."""
        engine = self._host.docker_engine
        command = words("docker", "exec", self.container, "nvidia-smi", "-L")
        return engine.ask(command, 60) if self.inspected else Output(1)

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        port: int = HTTP,
        how: str = "http_request",
        seconds: int = http.TIMEOUT,
        most: int | None = None,
    ) -> http.Answer:
        """The answer of the server to a request, within so many seconds, and with ``most`` bytes.

        :raises Missing: if the container's port is not published.
        """
        places = self.published.get(port)
        if not places:
            message = f"{self.container} publishes no port {port}"
            raise Missing(f"ports of {self.unit}", message, f"on the host: docker port {self.container}")
        address, published = places[0]
        request = words(how, *http.request(str(address), published, path, body))
        patience = "" if seconds == http.TIMEOUT else f"http_patience={seconds}; "
        limit = f"http_most={most}; " if most else ""
        return http.parse(
            self._ask(f"{patience}{limit}{request}", VERIFY, seconds=seconds + 25), seconds, most
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server.

        :raises Missing: if no Triton answers.
        """
        answer = self.ask("/v2")
        try:
            document = answer.json() if answer.status == 200 else None
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
        message = f"the server says: {answer.text[:300] or f'status {answer.status}'}"
        if answer.status == 200:
            message = f"what listens on the port does not speak as Triton does: {answer.text[:100]}"
        raise Missing(f"server of {self.unit}", message, f"on the host: journalctl -u {self.unit} -n 50")

    @property
    def version(self) -> str:
        """The version of the server."""
        return str(self.metadata.get("version"))

    @property
    def is_ready(self) -> bool:
        """Whether the server takes requests for all of its models."""
        return bool(self.metadata) and self.ask("/v2/health/ready").status == 200

    @property
    def models(self) -> list[dict[str, str]]:
        """The models as the server lists them: ``name``, ``version``, ``state`` and ``reason``.

        :raises Missing: if it does not.
        """
        answer = self.ask("/v2/repository/index", {}) if self.metadata else http.Answer(0)
        try:
            return http.models(answer)
        except ValueError as error:
            raise Missing(f"models of {self.unit}", str(error), self._models_hint) from None

    def require_models(self, *names: str, folder: str = "") -> None:
        """See that these models are ready; ``NAME/VERSION`` is one version, ``*`` alone all models.

        :param folder: their repository on the host, where that is looked at for the cause.
        :raises Missing: if one is not.
        """
        if missing := http.not_ready(self.models, names):
            if folder:
                self.require_mounted(folder)
            hint = self._models_hint
            if any(line.endswith("not loaded") for line in missing):
                restart = f"on the host, systemctl restart {self.unit}"
                hint = f"a model that came after the start is loaded by the next one: {restart}; or {hint}"
            raise Missing(f"models of {self.unit}", "; ".join(missing), hint)

    @property
    def _models_hint(self) -> str:
        return f"look at the model repository and at the server's log: journalctl -u {self.unit}"

    def repository(self, folder: str) -> Repository:
        """What is in a model repository on the host."""
        probe = probe_of([folder])
        return parse(self._ask(probe.script, *probe.shell)).get(folder, Repository())

    def infer(
        self, model: str, body: Mapping[str, Any], path: str = "", seconds: int = http.TIMEOUT
    ) -> http.Answer:
        """The answer to an inference request in the KServe v2 protocol.

        :param path: where it is sent to; empty: to the version that Triton takes.
        """
        self.require_models(model)
        return self.ask(path or f"/v2/models/{model}/infer", body, seconds=seconds)

    def without_process(self, models: Iterable[str]) -> list[str]:
        """Those of these models of the python backend that are ready, and have no process.

        Where it was killed, Triton goes on calling them ready, and no request to them is answered.

        :raises Missing: if Docker does not tell the processes.
        """
        ready = {row.get("name") for row in self.models if row.get("state") == "READY"}
        asked = [name for name in models if name in ready]
        if not asked:
            return []
        answer = self._host.docker_engine.ask(words("docker", "top", self.container, "-eo", "pid,args"))
        if not answer.ok:
            why, hint = cause(answer)
            raise Missing(f"container of {self.unit}", f"docker top {self.container} fails: {why}", hint)
        stubs = [line for line in answer.out.splitlines() if STUB in line]
        return [name for name in asked if not any(f"/{name}/" in line for line in stubs)]

    @property
    def metrics(self) -> str:
        """The metrics in Prometheus' format, asked again while GPUs in them still read 0."""
        answer = self.ask("/metrics", port=METRICS, how="risen_metrics")
        return answer.text if answer.status == 200 else ""

    def __repr__(self) -> str:
        return f"<triton {self.name}>"
