"""Messages of Docker, the NVIDIA Container Toolkit and nvidia-smi, on the host and in containers.

Those with a cause were seen on a host with an H100, driver 580.159.04, toolkit 1.20.0 and Docker 26.1.
"""

from __future__ import annotations

from provision.causes.message import Message

CONTAINERS: tuple[Message, ...] = (
    Message(
        r"manifest unknown|not found: manifest",
        "the registry does not have this tag: check the image in the settings",
    ),
    Message(
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain HTTP: add it to docker.daemon insecure-registries",
    ),
    Message(
        r"error setting rlimit type",
        "the host does not allow raising this limit: set ulimits: {} for the instance",
    ),
    Message(
        r"port is already allocated|address already in use",
        "another process uses the port: choose another port",
    ),
    Message(
        r"(?<!NVML_)ERROR_LIBRARY_NOT_FOUND|couldn't find libnvidia-ml\.so",
        "provision again: inv provision --hosts HOST --roles driver",
        "the host has no libnvidia-ml.so.1",
    ),
    Message(
        r"libnvidia-ml\.so\.1: cannot open|NVMLError_LibraryNotFound|NVML Shared Library Not Found",
        "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES: inv "
        "provision --hosts HOST --roles toolkit,docker",
        "the container was started without the driver's libraries",
    ),
    Message(
        r"couldn't communicate with the NVIDIA driver|ERROR_DRIVER_NOT_LOADED",
        "on the host: modprobe nvidia; dkms status; dmesg | grep -i -e nvrm -e 'key was rejected'",
        "the kernel module nvidia is not loaded, or its device nodes are missing",
    ),
    Message(
        r'"?nvidia-container-runtime"?: executable file not found',
        "provision again: inv provision --hosts HOST --roles toolkit,docker",
        "the NVIDIA Container Toolkit is not installed",
    ),
    Message(
        r"unknown or invalid runtime name: nvidia",
        "reload docker.service, which then reads daemon.json; else inv provision --hosts HOST --roles docker",
        "dockerd does not know the runtime nvidia",
    ),
    Message(
        r"could not select device driver",
        "restart docker.service",
        "dockerd was started before the toolkit was installed",
    ),
    Message(
        r"failed to get device handle from (index|UUID)",
        "compare gpus: in the settings with nvidia-smi -L",
        "a GPU that was asked for is not on this host",
    ),
    Message(
        r'"nvidia-smi": executable file not found|nvidia-smi: not found',
        "the default runtime must be nvidia, and the image must set NVIDIA_VISIBLE_DEVICES",
        "the container was started without a GPU",
    ),
    Message(
        r"Failed to initialize NVML: Unknown Error",
        "restart its unit; keep mode = auto in /etc/nvidia-container-runtime/config.toml",
        "the container has lost its devices: in the toolkit's legacy mode, systemctl daemon-reload "
        "takes them away",
    ),
    Message(
        r"Insufficient Permissions",
        "set NVreg_DeviceFileMode back to 0666, or add the user to their group",
        "this user may not open the device nodes /dev/nvidia*",
    ),
    Message(
        r"[Nn]o devices (were )?found",
        "see why the driver rejected it, on the host: dmesg | grep -i nvrm",
        "the driver shows no GPU",
    ),
    Message(
        r"No such image|Unable to find image",
        "provision again: inv provision --hosts HOST --roles triton",
        "the image is not on the host",
    ),
    Message(
        r"Cannot connect to the Docker daemon|docker daemon running",
        "on the host: journalctl -u docker.service -n 50",
        "dockerd is not running",
    ),
    Message(
        r"nvidia-smi.*(not found|No such file)",
        "provision again: inv provision --hosts HOST --roles driver",
        "nvidia-smi is not installed",
    ),
    Message(
        r"failed to run command .*No such file",
        "provision again: inv provision --hosts HOST",
        "it is not installed",
    ),
)
