"""A host that is tried out: what it is asked and told over a connection of its own."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from provision.causes.known_messages import cause
from provision.connection import Connection
from provision.errors import HostError
from provision.gpu.nvidia_smi import GPUS, cards, selected
from provision.probe import Output, words
from provision.roles.triton import http
from provision.roles.triton.instance import STEERING, Instance
from provision.roles.triton.role import container_of, models_of, unit_file, unit_of
from provision.roles.triton.unit import command_of
from provision.shell import assembled

HERE = Path(__file__).parent
MODEL = "provision_acceptance"
VALUE = 173
SIZE = 256 << 20
"""Bytes of GPU memory that the model takes."""

USED = re.compile(r'^nv_gpu_memory_used_bytes\{gpu_uuid="([^"]+)"\} (\S+)', re.MULTILINE)

NO_GPU = "this instance uses no GPU"

METRICS_PATIENCE = 15
"""Seconds until the metrics show it; Triton reads them every 2 s."""

BARE = "provision-acceptance"
"""Name of the container that plain ``docker run`` starts."""

OF_UNITS = re.compile(r"--(init|rm|name=.*|label=.*|stop-timeout=.*)")
"""What a unit's container has and a plain one has not."""


class Machine:
    """A host."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = connection.login.host

    def ask(self, script: str, timeout: float = 60) -> Output:
        """The answer to a call of functions in ``host.sh``."""
        text = assembled(http.SHELL, "shell/nvidia_smi.sh") + (HERE / "host.sh").read_text("utf-8")
        return self.connection.run(text + script, timeout=timeout, what="the acceptance")

    def told(self, script: str, timeout: float = 60) -> list[str]:
        """The lines of an answer.

        :raises HostError: if the script failed.
        """
        answer = self.ask(script, timeout)
        if not answer.ok:
            why, hint = cause(answer)
            raise HostError(self.name, why, hint=hint)
        return answer.out.split("\n")[:-1]

    def what_runs(self) -> list[str]:
        """What serves or computes there."""
        return self.told("what_runs")

    def default_runtime(self) -> str:
        """The runtime of containers that name none, as dockerd says."""
        return self.told(words("docker", "info", "--format", "{{.DefaultRuntime}}"))[0]

    def gpus_of(self, instance: Instance) -> set[str]:
        """UUIDs of the GPUs that are assigned to an instance."""
        return set(selected(instance.gpus, cards(self.ask(GPUS.script)))[0])


class Served:
    """An instance on a host."""

    def __init__(self, machine: Machine, name: str, instance: Instance) -> None:
        self.machine, self.name, self.instance = machine, name, instance
        self.unit, self.container = unit_of(name), container_of(name)
        self.models = models_of(name, instance)
        self.patience = instance.ready_timeout + 60

    @property
    def health(self) -> tuple[str, str, str]:
        """The request that asks whether it is ready."""
        return http.request(self.instance.address, self.instance.http_port, "/v2/health/ready")

    def get(self, port: int, path: str, body: Any = None) -> http.Answer:
        """The answer to a request."""
        call = words("http_request", *http.request(self.instance.address, port, path, body))
        return http.parse(self.machine.ask(call))

    # ── a model on its GPUs ─────────────────────────────────────────────────────────────────────────────

    def without_cuda(self) -> str:
        """Why a model on its GPUs cannot be tried, whatever the driver does, or nothing."""
        if self.instance.gpus == "none":
            return NO_GPU
        if any(str(gpu).startswith("MIG-") for gpu in self.instance.gpus):
            return "MIG devices are assigned, and are not compared"
        test = 'import ctypes; ctypes.CDLL("libcuda.so.1").cuMemAlloc_v2'
        answer = self.machine.ask(words("docker", "exec", self.container, "python3", "-c", test))
        if "undefined symbol" in answer.err:
            return "libcuda.so.1 in the container is a stand-in without cuMemAlloc_v2"
        return "the image has no python3" if answer.exit_code == 127 else ""

    def place_model(self) -> None:
        """Write the model into the repository.

        :raises HostError: if the repository has one of this name, or cannot be written.
        """
        texts = [(HERE / "model" / file).read_text("utf-8") for file in ("config.pbtxt", "model.py")]
        self.machine.told(words("place_model", self.models, MODEL, *texts))

    def load_model(self) -> None:
        """Have it served.

        :raises HostError: if the server does not load it.
        """
        if self.instance.loads is None:
            self.restart()
            return
        answer = self.get(self.instance.http_port, f"/v2/repository/models/{MODEL}/load", {})
        if answer.status != 200:
            raise HostError(self.machine.name, f"{self.name} does not load {MODEL}: {answer.text}")

    def remove_model(self) -> None:
        """Take it out of the repository again, and out of the server."""
        self.machine.told(words("rm", "-rf", f"{self.models}/{MODEL}"))
        self.restart()

    def restart(self) -> None:
        """Restart the unit, which ends when it is ready."""
        clean = words("systemctl", "reset-failed", self.unit)
        self.machine.told(f"{clean}; {words('systemctl', 'restart', self.unit)}", self.patience)

    def infer(self) -> str:
        """One inference on a GPU; the GPU's UUID.

        :raises HostError: if the answer is another one.
        """
        body = {"inputs": [{"name": "VALUE", "datatype": "UINT8", "shape": [1], "data": [VALUE]}]}
        answer = self.get(self.instance.http_port, f"/v2/models/{MODEL}/infer", body)
        try:
            found = http.outputs(answer)
            if found["VALUE"] == [VALUE]:
                return str(found["GPU"][0])
        except (ValueError, LookupError):
            pass
        raise HostError(self.machine.name, f"{self.name} does not infer: {answer.text or answer.status}")

    def used_memory(self, gpus: set[str]) -> dict[str, int]:
        """Bytes in use by GPU as its metrics say, once they show the model on all these GPUs, or in vain."""
        end = time.monotonic() + METRICS_PATIENCE
        while True:
            text = self.get(self.instance.metrics_port, "/metrics").text
            found = {gpu: int(float(value)) for gpu, value in USED.findall(text)}
            if all(found.get(gpu, 0) >= SIZE for gpu in gpus) or time.monotonic() > end:
                return found
            time.sleep(1)

    # ── times ───────────────────────────────────────────────────────────────────────────────────────────

    def serving_since(self, before: list[str]) -> float | None:
        """Seconds from ``before``, what ``served_since`` said, until the unit was up; None after a reboot."""
        boot, _, active = self.machine.told(words("served_since", self.unit))
        return int(active) / 1e6 - float(before[1]) if boot == before[0] else None

    def time_unit(self) -> tuple[float, float]:
        """Seconds from its start until the server is ready, and until systemd calls the unit active."""
        call = words("time_unit", self.unit, str(self.instance.ready_timeout), *self.health)
        ready, active = self.machine.told(call, 2 * self.patience + self.instance.exit_timeout)
        return int(ready) / 1000, int(active) / 1000

    def time_bare(self, command: list[str]) -> float:
        """Seconds until a server is ready that ``docker run`` alone starts, in the unit's place."""
        patience = str(self.instance.ready_timeout)
        call = words("time_bare", self.unit, BARE, patience, *self.health, *command)
        # Not in the command line, which everybody on the host can read.
        env = {key: value for key, value in self.instance.env.items() if not STEERING.fullmatch(key)}
        exports = "".join(f"export {words(f'{key}={value}')}\n" for key, value in env.items())
        return (
            int(self.machine.told(exports + call, 2 * self.patience + self.instance.exit_timeout)[0]) / 1000
        )

    def bare_command(self) -> list[str]:
        """``docker run`` with all that the unit gives its container, but for what only units need."""
        its = command_of("\n".join(self.machine.told(words("cat", unit_file(self.name)))))
        image = its.index(self.instance.image)
        options = [word for word in its[2:image] if not OF_UNITS.fullmatch(word)]
        return ["docker", "run", "--detach", f"--name={BARE}", *options, *its[image:]]

    def time_recovery(self) -> float:
        """Seconds from ``kill -9`` of the server until another one serves."""
        limit = self.instance.ready_timeout + 30
        call = words("time_recovery", self.unit, self.container, str(limit), *self.health)
        return int(self.machine.told(call, limit + 60)[0]) / 1000
