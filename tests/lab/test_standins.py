"""The stand-ins against what was captured on a host with an H100, toolkit 1.20.0 and driver 580.159.04.

One lab host goes from Docker alone over the driver to the toolkit; a case names the capture that it repeats.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from lab.layout import cache_root
from lab.standins.build import build_packages
from lab.standins.packages import newer_kernel

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.campaign("lab", sample=8)]

DRIVER = (
    "nvidia-driver-cuda",
    "nvidia-kernel-open-dkms",
    "nvidia-kernel-support",
    "nvidia-modprobe",
    "nvidia-persistenced",
    "libnvidia-ml1",
    "libcuda1",
    "firmware-nvidia-gsp",
)
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
OCI = "OCI runtime create failed: "
JIT = (
    "could not apply required modification to OCI specification: error modifying OCI spec: failed to create"
    ' the automatic CDI modifier: failed to generate CDI spec for mode "auto": failed to construct device'
    " spec generators: "
)
HOOK = "error running hook: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\n"
NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest"
    " NVIDIA driver is installed and running.\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: "


@dataclass(frozen=True)
class Case:
    """A command, its exit code, and what must be in what it prints.

    :ivar capture: the capture's name, also the test's id.
    :ivar command: shell text; ``IMAGE`` and ``UUID1`` are filled in.
    """

    capture: str
    command: str
    code: int
    says: str

    def check(self, machine: LabHost, image: str) -> None:
        """Run it on a host and compare."""
        command = self.command.replace("IMAGE", image).replace("UUID1", uuids(machine)[1])
        code, text = sh(machine, command)
        assert (code, self.says in text) == (self.code, True), (
            f"{command}\n{text}\nwanted {self.code}: {self.says}"
        )


def sh(machine: LabHost, script: str, given: str = "") -> tuple[int, str]:
    """Run a script as root; exit code, and stdout and stderr together."""
    done: subprocess.CompletedProcess[str] = machine.run(["sh", "-c", f"exec 2>&1\n{script}"], given=given)
    return done.returncode, done.stdout


def must(machine: LabHost, script: str, given: str = "") -> str:
    """Run a script that has to succeed; what it prints."""
    code, text = sh(machine, script, given)
    assert code == 0, f"{script}: {text}"
    return text


def uuids(machine: LabHost) -> list[str]:
    """The UUIDs of the host's GPUs in order."""
    hardware = json.loads((machine.gpu_folder / "gpus.json").read_text(encoding="utf-8"))
    return [gpu["uuid"] for gpu in hardware["gpus"]]


def listing(machine: LabHost, *indexes: int) -> str:
    """What ``nvidia-smi -L`` prints when just these GPUs of the host are visible."""
    return "".join(
        f"GPU {position}: NVIDIA H100 80GB HBM3 (UUID: {uuids(machine)[index]})\n"
        for position, index in enumerate(indexes)
    )


def install(machine: LabHost, version: str, packages: tuple[str, ...]) -> None:
    """Install or change packages to a version."""
    wanted = " ".join(f"{package}={version}" for package in packages)
    must(
        machine,
        "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --allow-downgrades "
        + wanted,
    )


def reload_module(machine: LabHost) -> None:
    """Unload the module and load it again, with all that holds it."""
    must(
        machine,
        "systemctl stop nvidia-persistenced; modprobe -r nvidia-uvm; modprobe -r nvidia && modprobe nvidia"
        " && systemctl reset-failed && systemctl start nvidia-persistenced",
    )


# ---- the host, in stages


@pytest.fixture(scope="module")
def image(lab: Lab) -> str:
    """The image of the acceptance test in the lab's registry."""
    return f"{lab.layout.registry}/nvidia/tritonserver:24.07-trtllm-python-py3"


@pytest.fixture(scope="module")
def docker_host(lab: Lab, image: str) -> Iterator[LabHost]:
    """A host with Docker and the image, and NVIDIA's repository; bare again at the end."""
    machine = lab.host("gpu-02")
    machine.reset()
    key = (lab.layout.keys / "nvidia.asc").read_text(encoding="ascii")
    must(machine, "cat > /usr/share/keyrings/nvidia.asc", given=key)
    must(
        machine,
        f"echo 'deb [signed-by=/usr/share/keyrings/nvidia.asc] {lab.layout.apt_url}/nvidia/ /'"
        " > /etc/apt/sources.list.d/nvidia.list && apt-get update -q && mkdir -p /etc/docker"
        f' && echo \'{{"insecure-registries": ["{lab.layout.registry}"]}}\' > /etc/docker/daemon.json'
        " && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends docker.io tini"
        f" && docker pull -q {image} && useradd --create-home deploy",
    )
    yield machine
    machine.reset()


@pytest.fixture(scope="module")
def driver_host(docker_host: LabHost) -> LabHost:
    """The same with the driver."""
    must(docker_host, "apt-get install -q -y linux-headers-amd64")
    install(docker_host, "580.159.04-1", DRIVER)
    return docker_host


@pytest.fixture(scope="module")
def toolkit_host(driver_host: LabHost) -> LabHost:
    """The same with the toolkit, and nvidia as the default runtime."""
    install(driver_host, "1.20.0-1", TOOLKIT)
    must(
        driver_host,
        "nvidia-ctk runtime configure --runtime=docker --set-as-default && systemctl restart docker",
    )
    return driver_host


# ---- without the toolkit


@pytest.mark.parametrize(
    "case",
    [
        Case(
            "A2_seed_repro",
            "docker run --rm IMAGE python3 -c 'import tensorrt_llm'",
            1,
            "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found",
        ),
        Case(
            "A3_gpus_all_no_toolkit",
            "docker run --rm --gpus all IMAGE true",
            125,
            'could not select device driver "" with capabilities: [[gpu]].',
        ),
        Case(
            "A4_runtime_nvidia_missing",
            "docker run --rm --runtime=nvidia IMAGE true",
            125,
            "nvidia",
        ),
    ],
    ids=lambda case: case.capture,
)
def test_docker_alone_has_no_gpu(docker_host: LabHost, image: str, case: Case) -> None:
    case.check(docker_host, image)


# ---- the driver on the host


def test_the_driver_is_loaded_and_shows_itself_as_the_real_one(driver_host: LabHost) -> None:
    assert must(driver_host, "nvidia-smi -L") == listing(driver_host, 0, 1)
    assert must(driver_host, "cat /sys/module/nvidia/version") == "580.159.04\n"
    assert "Open Kernel Module for x86_64  580.159.04 " in must(
        driver_host, "cat /proc/driver/nvidia/version"
    )
    assert must(driver_host, "modinfo -F license nvidia") == "Dual MIT/GPL\n"
    assert re.search(r"^nvidia/580\.159\.04, .*: installed$", must(driver_host, "dkms status"))
    assert must(driver_host, "stat -c '%t:%T %a' /dev/nvidia1 /dev/nvidiactl") == "c3:1 666\nc3:ff 666\n"
    assert must(driver_host, "readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").endswith(
        ".580.159.04\n"
    )


def test_nvidia_smi_answers_as_the_real_one(driver_host: LabHost) -> None:
    assert must(driver_host, "nvidia-smi --version") == (
        "NVIDIA-SMI version  : 580.159.04\nNVML version        : 580.159\n"
        "DRIVER version      : 580.159.04\nCUDA Version        : 13.0\n"
    )
    assert sh(driver_host, "nvidia-smi --query-gpu=uuid,no_such_field --format=csv 2>/dev/null") == (
        2,
        'Field "no_such_field" is not a valid field to query.\n\n',
    )
    assert sh(driver_host, "nvidia-smi -i 7") == (6, "No devices were found\n")
    query = "index,persistence_mode,memory.total,clocks_throttle_reasons.active,fabric.state,mig.mode.current"
    rows = must(driver_host, f"nvidia-smi --query-gpu={query} --format=csv,noheader,nounits")
    assert rows.splitlines()[1] == "1, Enabled, 81559, 0x0000000000000001, N/A, Disabled"
    assert must(driver_host, "nvidia-smi --query-gpu=gpu_name,memory.total --format=csv").splitlines() == [
        "name, memory.total [MiB]",
        *["NVIDIA H100 80GB HBM3, 81559 MiB"] * 2,
    ]


def test_all_fields_of_the_help_can_be_asked_at_once(driver_host: LabHost) -> None:
    fields = re.findall(r'^"([^"]+)"', must(driver_host, "nvidia-smi --help-query-gpu"), re.MULTILINE)
    rows = must(driver_host, f"nvidia-smi --query-gpu={','.join(fields)} --format=csv,noheader").splitlines()
    assert [len(row.split(", ")) for row in rows] == [len(fields)] * 2


@pytest.mark.parametrize(
    ("capture", "fault", "code", "says"),
    [
        ("H1_fault_no_nodes", "rm /dev/nvidia[01] /dev/nvidiactl", 9, NOT_LOADED),
        ("H2_fault_no_nvidia0", "rm /dev/nvidia[01]", 0, "No devices found.\n"),
        (
            "H2b_fault_perm",
            "chmod 600 /dev/nvidia*",
            4,
            "Failed to initialize NVML: Insufficient Permissions\n",
        ),
    ],
)
def test_device_nodes_missing_for_a_user_are_made_again_by_root(
    driver_host: LabHost, capture: str, fault: str, code: int, says: str
) -> None:
    must(driver_host, fault)
    answer, text = sh(driver_host, "runuser -u deploy -- nvidia-smi -L")
    assert (answer, says in text) == (code, True), f"{capture}: {text}"
    assert must(driver_host, "nvidia-smi -L") == listing(driver_host, 0, 1)
    assert must(driver_host, "runuser -u deploy -- nvidia-smi -L") == listing(driver_host, 0, 1)


def test_a_missing_library_is_told(driver_host: LabHost) -> None:
    library = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    code, text = sh(
        driver_host,
        f"mv {library} {library}.gone; nvidia-smi -L; code=$?; mv {library}.gone {library}; exit $code",
    )
    assert code == 12
    assert text.startswith("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.")


def test_a_module_in_use_cannot_be_unloaded(driver_host: LabHost) -> None:
    code, text = sh(driver_host, "modprobe -r nvidia")
    assert (code, "Module nvidia is in use" in text) == (1, True)


def test_secure_boot_refuses_the_module(driver_host: LabHost) -> None:
    driver_host.break_gpus("secure-boot")
    try:
        must(driver_host, "systemctl stop nvidia-persistenced; modprobe -r nvidia-uvm; modprobe -r nvidia")
        code, text = sh(driver_host, "modprobe nvidia")
        assert (code, text.splitlines()[0]) == (
            1,
            "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service",
        )
        assert sh(driver_host, "nvidia-smi")[0] == 9
        assert sh(driver_host, "systemctl start nvidia-persistenced")[0] == 1
    finally:
        driver_host.break_gpus()
        reload_module(driver_host)
    assert must(driver_host, "nvidia-smi -L") == listing(driver_host, 0, 1)


def test_without_gpus_the_module_finds_no_device(driver_host: LabHost) -> None:
    driver_host.remove_gpus(0)
    try:
        must(driver_host, "systemctl stop nvidia-persistenced; modprobe -r nvidia-uvm; modprobe -r nvidia")
        assert "could not insert 'nvidia': No such device" in sh(driver_host, "modprobe nvidia")[1]
    finally:
        driver_host.remove_gpus(2)
        reload_module(driver_host)


def test_a_gpu_can_fall_off_the_bus_while_the_module_is_loaded(driver_host: LabHost) -> None:
    driver_host.break_gpus("missing-gpu:0")
    try:
        must(driver_host, "/usr/lib/nvidia-standin/module refresh nvidia")
        assert must(driver_host, "nvidia-smi -L") == listing(driver_host, 1)
    finally:
        driver_host.break_gpus()
        must(driver_host, "/usr/lib/nvidia-standin/module refresh nvidia")


def test_the_fabric_manager_needs_nvswitches_and_the_drivers_version(driver_host: LabHost) -> None:
    fabric = "nvidia-smi --query-gpu=fabric.state --format=csv,noheader"
    install(driver_host, "580.159.04-1", ("nvidia-fabricmanager",))
    start = "systemctl start nvidia-fabricmanager || journalctl -u nvidia-fabricmanager -n 20 -o cat"
    assert "[NV_WARN_NOTHING_TO_DO]" in must(driver_host, start)
    driver_host.add_nvswitches(4)
    try:
        reload_module(driver_host)
        assert must(driver_host, fabric) == "In Progress\n" * 2
        must(driver_host, "systemctl start nvidia-fabricmanager")
        assert must(driver_host, fabric) == "Completed\n" * 2
        must(driver_host, "DEBIAN_FRONTEND=noninteractive apt-get purge -q -y nvidia-fabricmanager")
        install(driver_host, "570.211.01-1", ("nvidia-fabricmanager-570",))
        assert (
            "fabric manager NVIDIA GPU driver interface version 570.211.01 don't match with driver version"
            " 580.159.04." in must(driver_host, start)
        )
    finally:
        must(driver_host, "DEBIAN_FRONTEND=noninteractive apt-get purge -q -y 'nvidia-fabricmanager*'")
        driver_host.add_nvswitches(0)
        reload_module(driver_host)


def test_dkms_builds_for_kernels_with_headers_and_says_why_it_does_not(driver_host: LabHost) -> None:
    newer = newer_kernel()
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -y"
    driver_host.break_gpus("dkms-build")
    try:
        must(driver_host, f"{apt} install linux-image-{newer}")
        assert newer not in must(driver_host, "dkms status")
        code, text = sh(driver_host, f"{apt} install linux-headers-{newer}")
        assert code == 100
        assert f"Error! Bad return status for module build on kernel: {newer} (x86_64)" in text
        driver_host.break_gpus()
        must(driver_host, "dpkg --configure -a")
        assert f"nvidia/580.159.04, {newer}, x86_64: installed" in must(driver_host, "dkms status")
    finally:
        driver_host.break_gpus()
        must(driver_host, f"dkms remove nvidia/580.159.04 -k {newer}; {apt} purge 'linux-*-{newer}'")


def test_the_driver_is_there_after_a_reboot(driver_host: LabHost) -> None:
    before = driver_host.boot_id()
    driver_host.run(["systemctl", "reboot"])
    driver_host.wait(after=before)
    must(driver_host, "systemctl is-system-running --wait || systemctl is-active nvidia-persistenced")
    assert (
        must(driver_host, "nvidia-smi --query-gpu=persistence_mode --format=csv,noheader") == "Enabled\n" * 2
    )


# ---- containers


@pytest.mark.parametrize(
    ("capture", "arguments", "visible"),
    [
        ("D3_env_all_nogpus", "IMAGE", (0, 1)),
        ("D8_env_uuid", "-e NVIDIA_VISIBLE_DEVICES=UUID1 IMAGE", (1,)),
        ("D9_env_idx0", "-e NVIDIA_VISIBLE_DEVICES=0 IMAGE", (0,)),
        ("two indexes", "-e NVIDIA_VISIBLE_DEVICES=1,0 IMAGE", (0, 1)),
        ("D11_gpus_all", "--gpus all IMAGE", (0, 1)),
        ("D12_gpus_device0", "--gpus device=0 IMAGE", (0,)),
        ("D13_gpus_device_uuid", "--gpus device=UUID1 IMAGE", (1,)),
        ("D15_gpus_1", "--gpus 1 IMAGE", (0,)),
        ("C4_gpus_all_runc", "--runtime=runc --gpus all IMAGE", (0, 1)),
        ("legacy, one GPU", "--runtime=runc --gpus device=1 IMAGE", (1,)),
        ("D20_nonroot", "--user 1000:1000 IMAGE", (0, 1)),
        (
            "D21_readonly_nnp",
            "--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges IMAGE",
            (0, 1),
        ),
        ("D22_require_bad", "-e 'NVIDIA_REQUIRE_CUDA=cuda>=99.0' IMAGE", (0, 1)),
    ],
)
def test_a_container_sees_the_gpus_that_it_asks_for(
    toolkit_host: LabHost, image: str, capture: str, arguments: str, visible: tuple[int, ...]
) -> None:
    arguments = arguments.replace("IMAGE", image).replace("UUID1", uuids(toolkit_host)[1])
    seen = sh(toolkit_host, f"docker run --rm {arguments} nvidia-smi -L")
    assert seen == (0, listing(toolkit_host, *visible)), capture


@pytest.mark.parametrize(
    "case",
    [
        Case("D2_seed_works", "docker run --rm IMAGE python3 -c 'import tensorrt_llm'", 0, ""),
        Case("D5_no_env", "docker run --rm -e NVIDIA_VISIBLE_DEVICES IMAGE nvidia-smi -L", 127, "not found"),
        Case(
            "D6_env_none",
            "docker run --rm -e NVIDIA_VISIBLE_DEVICES=none IMAGE nvidia-smi",
            0,
            "No devices found.\n",
        ),
        Case(
            "D7_env_void", "docker run --rm -e NVIDIA_VISIBLE_DEVICES=void IMAGE nvidia-smi", 127, "not found"
        ),
        Case(
            "D10_env_idx7",
            "docker run --rm -e NVIDIA_VISIBLE_DEVICES=7 IMAGE nvidia-smi -L",
            125,
            OCI + JIT + "failed to get device handle from index: Invalid Argument: unknown.",
        ),
        Case(
            "D16_gpus_2",
            "docker run --rm --gpus 3 IMAGE nvidia-smi -L",
            125,
            "failed to get device handle from index: Invalid Argument: unknown.",
        ),
        Case(
            "D18_inside",
            "docker run --rm IMAGE sh -c 'grep Modify /proc/driver/nvidia/params; ldconfig -p; env'",
            0,
            "ModifyDeviceFiles: 0\n",
        ),
        Case("D18_inside", "docker run --rm IMAGE env", 0, "NVIDIA_VISIBLE_DEVICES=void\n"),
        Case("D18_inside", "docker run --rm IMAGE ldconfig -p", 0, "libcuda.so.1 "),
        Case("D19_runtime_runc", "docker run --rm --runtime=runc IMAGE nvidia-smi -L", 127, "not found"),
        Case(
            "L4_require_legacy",
            "docker run --rm --runtime=runc --gpus all -e 'NVIDIA_REQUIRE_CUDA=cuda>=99.0' IMAGE true",
            125,
            HOOK
            + "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=99.0, please update your"
            " driver to a newer version, or use an earlier cuda container: unknown.",
        ),
        Case(
            "H6_fault_no_runtime",
            "mv /usr/bin/nvidia-container-runtime /usr/bin/gone; docker run --rm IMAGE true; code=$?;"
            " mv /usr/bin/gone /usr/bin/nvidia-container-runtime; exit $code",
            127,
            'exec: "nvidia-container-runtime": executable file not found in $PATH: unknown.',
        ),
        Case(
            "H3_fault_no_lib",
            "cd /usr/lib/x86_64-linux-gnu; mv libnvidia-ml.so.1 gone; docker run --rm IMAGE true; code=$?;"
            " mv gone libnvidia-ml.so.1; exit $code",
            125,
            OCI + JIT + "failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND: unknown.",
        ),
        Case(
            "B6_cdi_list",
            "nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml; nvidia-ctk cdi list",
            0,
            "nvidia.com/gpu=1\n",
        ),
    ],
    ids=lambda case: case.capture,
)
def test_the_toolkit_says_and_does_what_the_real_one_does(
    toolkit_host: LabHost, image: str, case: Case
) -> None:
    case.check(toolkit_host, image)


@pytest.mark.parametrize(
    ("mode", "code"), [("auto", 0), ("legacy", 0), ("cdi", 0), ("jit-cdi", 0), ("csv", 127)]
)
def test_modes(toolkit_host: LabHost, image: str, mode: str, code: int) -> None:
    change = "nvidia-ctk config --in-place --set nvidia-container-runtime.mode="
    must(toolkit_host, change + mode)
    try:
        assert sh(toolkit_host, f"docker run --rm {image} nvidia-smi -L")[0] == code
    finally:
        must(toolkit_host, change + "auto")


def test_cdi_refresh_writes_the_spec_and_does_nothing_where_modules_dep_has_no_driver(
    toolkit_host: LabHost,
) -> None:
    """J1, B3: both end well."""
    spec, dep = "/var/run/cdi/nvidia.yaml", "/lib/modules/$(uname -r)/modules.dep"
    must(toolkit_host, f"rm -f {spec}; systemctl start nvidia-cdi-refresh.service && grep -q ^kind: {spec}")
    must(
        toolkit_host, f"mv {dep} /root/dep && rm {spec} && systemctl reset-failed nvidia-cdi-refresh.service"
    )
    try:
        must(toolkit_host, f"systemctl restart nvidia-cdi-refresh.service && [ ! -e {spec} ]")
        shown = must(toolkit_host, "systemctl show -p Result nvidia-cdi-refresh.service")
        assert shown == "Result=exec-condition\n"
    finally:
        must(toolkit_host, f"mv /root/dep {dep}")


def test_a_name_in_two_specs_of_one_folder_is_resolved_by_neither(toolkit_host: LabHost) -> None:
    """The rules of CDI: the later folder wins, and within one folder there is no winner."""
    must(toolkit_host, "nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml")
    listed = "nvidia-ctk cdi list 2>/dev/null"
    names = must(toolkit_host, listed)
    try:
        must(toolkit_host, "mkdir -p /etc/cdi && cp /var/run/cdi/nvidia.yaml /etc/cdi/")
        assert must(toolkit_host, listed) == names
        must(toolkit_host, "cp /var/run/cdi/nvidia.yaml /var/run/cdi/copy.yaml")
        assert must(toolkit_host, listed) == ""
    finally:
        must(toolkit_host, "rm -f /etc/cdi/nvidia.yaml /var/run/cdi/copy.yaml")


def test_daemon_reload_takes_the_gpus_from_the_legacy_hook_only(toolkit_host: LabHost, image: str) -> None:
    """L1, L2: the device rules behind the hook are not systemd's; those of jit-cdi are in the unit."""
    start = "docker run -d --name"
    must(
        toolkit_host,
        f"{start} legacy --runtime=runc --gpus all {image} sleep 600; {start} jit {image} sleep 600",
    )
    try:
        for name in ("legacy", "jit"):
            assert sh(toolkit_host, f"docker exec {name} nvidia-smi -L") == (0, listing(toolkit_host, 0, 1))
        must(toolkit_host, "systemctl daemon-reload")
        assert sh(toolkit_host, "docker exec legacy nvidia-smi -L") == (
            255,
            "Failed to initialize NVML: Unknown Error\n",
        )
        assert sh(toolkit_host, "docker exec jit nvidia-smi -L") == (0, listing(toolkit_host, 0, 1))
    finally:
        must(toolkit_host, "docker rm -f legacy jit")


def test_tritonserver_serves_with_the_gpus_injected(toolkit_host: LabHost, image: str) -> None:
    must(
        toolkit_host,
        f"mkdir -p /srv/empty && docker run -d --init --name triton -v /srv/empty:/models:ro {image}"
        " tritonserver --model-repository=/models",
    )
    ask = (
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/v2/health/ready').status,"
        " u.urlopen('http://127.0.0.1:8000/v2').read().decode())"
    )
    try:
        text = must(
            toolkit_host,
            f'for i in $(seq 60); do docker exec triton python3 -c "{ask}" 2>/dev/null && exit 0;'
            " sleep 0.3; done; exit 1",
        )
        assert text.startswith("200 ")
        assert '"version":"2.48.0"' in text
        apps = must(
            toolkit_host, "nvidia-smi --query-compute-apps=process_name,gpu_uuid --format=csv,noheader"
        )
        assert apps.splitlines() == [f"tritonserver, {uuid}" for uuid in uuids(toolkit_host)]
    finally:
        must(toolkit_host, "docker rm -f triton")


def test_another_branch_mismatches_until_the_module_is_loaded_again(
    toolkit_host: LabHost, image: str
) -> None:
    """H7a, H7b: the library is new, the module in memory is old."""
    install(toolkit_host, "570.211.01-1", DRIVER)
    try:
        assert sh(toolkit_host, "nvidia-smi -L") == (18, MISMATCH + "570.211\n")
        for arguments, says in (
            ("", OCI + JIT + "failed to initialize NVML: Driver/library version mismatch: unknown."),
            (
                "--runtime=runc --gpus all",
                HOOK
                + "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch",
            ),
        ):
            code, text = sh(toolkit_host, f"docker run --rm {arguments} {image} nvidia-smi -L")
            assert (code, says in text) == (125, True), text
        reload_module(toolkit_host)
        assert (
            must(toolkit_host, "nvidia-smi --query-gpu=driver_version --format=csv,noheader")
            == "570.211.01\n" * 2
        )
    finally:
        install(toolkit_host, "580.159.04-1", DRIVER)
        reload_module(toolkit_host)


# ---- nvidia-ctk, on this machine


@pytest.fixture(scope="module")
def ctk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nvidia-ctk 1.20.0, out of its package."""
    folder = tmp_path_factory.mktemp("ctk")
    base = next(
        deb
        for deb in build_packages(cache_root())
        if deb.name.startswith("nvidia-container-toolkit-base_1.20")
    )
    subprocess.run(["dpkg-deb", "-x", str(base), str(folder)], check=True)
    return folder / "usr" / "bin" / "nvidia-ctk"


RUNTIMES = (
    '    "runtimes": {\n        "nvidia": {\n            "args": [],\n'
    '            "path": "nvidia-container-runtime"\n        }\n    }'
)
FRESH = '{\n    "default-runtime": "nvidia",\n' + RUNTIMES + "\n}"
WITH_CDI = (
    '{\n    "default-runtime": "nvidia",\n    "features": {\n        "cdi": true\n    },\n' + RUNTIMES + "\n}"
)


@pytest.mark.parametrize(
    ("given", "flags", "code", "result"),
    [
        (None, "--set-as-default", 0, FRESH),
        (None, "", 0, "{\n" + RUNTIMES + "\n}"),
        (None, "--set-as-default --cdi.enabled", 0, WITH_CDI),
        ("{}", "--set-as-default", 0, FRESH),
        (FRESH, "--set-as-default", 0, FRESH),
        ('{"features": {"buildkit": true}}', "--set-as-default --cdi.enabled", 0, WITH_CDI),
        ('{"default-runtime": 5}', "--set-as-default", 0, FRESH),
        ('{"a": 1, "a": 2}', "--set-as-default", 0, '{\n    "a": 2,' + FRESH[1:]),
        (
            '{"big": 12345678901234567890}',
            "--set-as-default",
            0,
            '{\n    "big": 12345678901234567000,' + FRESH[1:],
        ),
        ('{"a": 1e2, "b": 0.5}', "--set-as-default", 0, '{\n    "a": 100,\n    "b": 0.5,' + FRESH[1:]),
        (
            '{"a": "<a&b>\\u00e9"}',
            "--set-as-default",
            0,
            '{\n    "a": "\\u003ca\\u0026b\\u003eé",' + FRESH[1:],
        ),
        ('{"a": 1} trailing', "--set-as-default", 0, '{\n    "a": 1,' + FRESH[1:]),
        ("", "--set-as-default", 1, "unable to load config for runtime docker: EOF"),
        ("\n", "--set-as-default", 1, "unable to load config for runtime docker: EOF"),
        (
            '{ "a": 1, }\n',
            "--set-as-default",
            1,
            "invalid character '}' looking for beginning of object key string",
        ),
        ("\ufeff{}", "--set-as-default", 1, "invalid character 'ï' looking for beginning of value"),
        ("[]\n", "--set-as-default", 1, "json: cannot unmarshal array into Go value of type docker.Config"),
        ("null\n", "--set-as-default", 2, "panic: assignment to entry in nil map"),
        ('{"runtimes": null}', "--set-as-default", 2, "panic: interface conversion: interface {} is nil"),
        (
            '{"runtimes": []}',
            "--set-as-default",
            2,
            "panic: interface conversion: interface {} is []interface {}",
        ),
    ],
)
def test_runtime_configure(  # noqa: PLR0917 - pytest passes them by name
    ctk: Path, tmp_path: Path, given: str | None, flags: str, code: int, result: str
) -> None:
    """The inputs and outcomes of the captured matrix; a failure leaves the file alone."""
    config = tmp_path / "daemon.json"
    if given is not None:
        config.write_text(given, encoding="utf-8")
    done = subprocess.run(
        [str(ctk), "runtime", "configure", "--runtime=docker", f"--config={config}", *flags.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    if code == 0:
        assert config.read_text(encoding="utf-8") == result
    else:
        assert result in done.stderr
        assert config.read_text(encoding="utf-8") == given


def test_config_in_place_keeps_values_and_drops_comments(ctk: Path, tmp_path: Path) -> None:
    """What the package does each time that it is configured ("nvidia-ctk config", api/config/v1/toml.go)."""
    config = tmp_path / "config.toml"
    argv = [str(ctk), "--quiet", "config", f"--config-file={config}", "--in-place"]
    subprocess.run(argv, check=True)
    packaged = config.read_text(encoding="utf-8")
    assert "#no-cgroups = false\n" in packaged
    changed = packaged.replace('mode = "auto"', 'mode = "legacy"')
    config.write_text("# of the user\n" + changed, encoding="utf-8")
    subprocess.run(argv, check=True)
    assert config.read_text(encoding="utf-8") == changed
