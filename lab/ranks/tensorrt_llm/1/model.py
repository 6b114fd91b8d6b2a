"""Stand-in for an engine of TensorRT-LLM: a model of the python backend whose ranks find each other by MPI.

As with the real one, all ranks join MPI while the model is loaded, and only the first goes on from there. In
orchestrator mode the first is alone, and spawns a rank for each of ``gpu_device_ids``, which runs this file.
Each leaves what it found in ``/tmp/rank-N.json``; the answer to any request is that of the first.
"""

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

MPI = ctypes.CDLL("libmpi.so.40", ctypes.RTLD_GLOBAL)
"""Open MPI 4; its handles are addresses of its own variables (mpi.h)."""

Handle = ctypes.c_void_p


def handle(name: str) -> Handle:
    """A predefined communicator, type or the like."""
    return Handle(ctypes.addressof(ctypes.c_char.in_dll(MPI, name)))


def joined(spawns: int) -> Handle:
    """A communicator of all ranks, with those that this one spawns, or that was spawned with it."""
    MPI.MPI_Init(None, None)
    between, everybody, world = Handle(), Handle(), handle("ompi_mpi_comm_world")
    if spawns:
        argv = (ctypes.c_char_p * 2)(__file__.encode(), None)
        info = handle("ompi_mpi_info_null")
        MPI.MPI_Comm_spawn(b"python3", argv, spawns, info, 0, world, ctypes.byref(between), None)
    else:
        MPI.MPI_Comm_get_parent(ctypes.byref(between))
    if between.value in (None, handle("ompi_mpi_comm_null").value):
        return world
    MPI.MPI_Intercomm_merge(between, int(not spawns), ctypes.byref(everybody))
    return everybody


def found(everybody: Handle) -> dict[str, Any]:
    """What this rank knows of itself and, by MPI, of the others."""
    rank, size, pid = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(os.getpid())
    MPI.MPI_Comm_rank(everybody, ctypes.byref(rank))
    MPI.MPI_Comm_size(everybody, ctypes.byref(size))
    pids, number = (ctypes.c_int * size.value)(), handle("ompi_mpi_int")
    MPI.MPI_Allgather(ctypes.byref(pid), 1, number, pids, 1, number, everybody)
    return {
        "rank": rank.value,
        "size": size.value,
        "pid": pid.value,
        "pids": list(pids),
        "server": Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")[:-1],
        "environment": {name: value for name, value in os.environ.items() if "OMPI_COMM_WORLD" in name},
        "cores": len(os.sched_getaffinity(0)),
    }


def leave(what: dict[str, Any]) -> None:
    """Write it where a test looks."""
    Path(f"/tmp/rank-{what['rank']}.json").write_text(json.dumps(what), encoding="utf-8")


class TritonPythonModel:
    """The model; Triton's python backend calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Join the others; only the first rank returns."""
        ids = json.loads(args["model_config"])["parameters"]["gpu_device_ids"]["string_value"].split(",")
        self.found = found(joined(len(ids) if os.environ.get("TRTLLM_ORCHESTRATOR") else 0))
        leave(self.found)
        while self.found["rank"]:
            time.sleep(60)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with what the first rank found, as many seconds later as it says."""
        import numpy
        import triton_python_backend_utils as triton  # type: ignore[import-not-found]

        answers = []
        for request in requests:
            text = triton.get_input_tensor_by_name(request, "TEXT").as_numpy()[0]
            time.sleep(float(text))
            output = numpy.array([json.dumps(self.found)], dtype=object)
            answers.append(triton.InferenceResponse(output_tensors=[triton.Tensor("TEXT", output)]))
        return answers


if __name__ == "__main__":
    leave(found(joined(0)))
    while True:
        time.sleep(60)
