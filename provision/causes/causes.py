"""Known messages of the driver, of Docker and of the toolkit: what they mean, and what to do. Pure.

Each message was seen on a host with an H100, driver 580.159.04, toolkit 1.20.0 and Docker 26.1.
"""

from __future__ import annotations

import re

from provision.causes.hints import hint_for
from provision.probe import Output

PROVISION = "provision this role again: inv provision --hosts HOST --roles {}"

CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"Driver/library version mismatch|DRIVER_LIBRARY_VERSION_MISMATCH",
        "the loaded kernel module and the driver's libraries are of different versions",
        "reboot the host: the module of the installed version is loaded then",
    ),
    (
        r"(?<!NVML_)ERROR_LIBRARY_NOT_FOUND|couldn't find libnvidia-ml\.so",
        "the host has no libnvidia-ml.so.1",
        PROVISION.format("driver"),
    ),
    (
        r"libnvidia-ml\.so\.1: cannot open|NVMLError_LibraryNotFound|NVML Shared Library Not Found",
        "the container was started without the driver's libraries",
        "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES: "
        "inv provision --hosts HOST --roles toolkit,docker",
    ),
    (
        r"couldn't communicate with the NVIDIA driver|ERROR_DRIVER_NOT_LOADED",
        "the kernel module nvidia is not loaded, or its device nodes are missing",
        "on the host: modprobe nvidia; dkms status; dmesg | grep -i -e nvrm -e 'key was rejected'",
    ),
    (
        r'"?nvidia-container-runtime"?: executable file not found',
        "the NVIDIA Container Toolkit is not installed",
        PROVISION.format("toolkit,docker"),
    ),
    (
        r"unknown or invalid runtime name: nvidia",
        "dockerd does not know the runtime nvidia",
        PROVISION.format("docker"),
    ),
    (
        r"could not select device driver",
        "dockerd was started before the toolkit was installed",
        "restart docker.service",
    ),
    (
        r"failed to get device handle from (index|UUID)",
        "a GPU that was asked for is not on this host",
        "compare gpus: in the settings with nvidia-smi -L",
    ),
    (
        r'"nvidia-smi": executable file not found|nvidia-smi: not found',
        "the container was started without a GPU",
        "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES",
    ),
    (
        r"Failed to initialize NVML: Unknown Error",
        "the container has lost its devices, as the legacy hook's do at systemctl daemon-reload",
        "restart its unit; keep mode = auto in /etc/nvidia-container-runtime/config.toml",
    ),
    (
        r"Insufficient Permissions",
        "the device nodes /dev/nvidia* are not open to this user",
        "set NVreg_DeviceFileMode back to 0666, or add the user to their group",
    ),
    (
        r"[Nn]o devices (were )?found|No devices found",
        "the driver shows no GPU",
        "on the host: dmesg | grep -i nvrm says why the driver did not take it",
    ),
    (
        r"No such image|Unable to find image",
        "the image is not on the host",
        PROVISION.format("triton"),
    ),
    (
        r"Cannot connect to the Docker daemon|docker daemon running",
        "dockerd is not running",
        "on the host: journalctl -u docker.service -n 50",
    ),
    (
        r"nvidia-smi.*(not found|No such file)",
        "nvidia-smi is not installed",
        PROVISION.format("driver"),
    ),
    (
        r"failed to run command .*No such file",
        "it is not installed",
        "provision the host again: inv provision --hosts HOST",
    ),
)
"""Pattern in the output, cause, hint; the first that matches counts."""


def cause(output: Output) -> tuple[str, str | None]:
    """Why a command failed, in a few words, and a hint where one is known."""
    text = f"{output.out}\n{output.err}"
    if output.exit_code == 137:
        return "it was killed, by its time limit or for want of memory", "on the host: dmesg | tail"
    if output.exit_code == 124:
        return (
            "it did not answer in time",
            "on the host: dmesg | tail; a GPU off the bus (Xid 79) hangs its users",
        )
    for pattern, why, hint in CAUSES:
        if re.search(pattern, text):
            return why, hint
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1][:300] if lines else "it printed nothing"
    return f"exit {output.exit_code}: {said}", hint_for(text)


def cause_inside(output: Output) -> tuple[str, str | None]:
    """As :func:`cause`, for a program in a container: one that is missing there was not given to it."""
    if output.exit_code == 127:
        return (
            "the container was started without a GPU",
            "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES",
        )
    return cause(output)
