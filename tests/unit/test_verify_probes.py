"""What the suite's probes do on a real shell, and how their answers are read."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.causes.known_messages import KNOWN_MESSAGES, cause
from provision.gpu.nvidia_smi import cards, selected, sysfs_address, uuids
from provision.probe import Output, Probe, words
from provision.roles.docker.containers import plain_run, steps
from provision.roles.driver.health import FIELDS, HEALTH, readings
from provision.roles.triton import http
from provision.shell import assembled
from tests.unit.examples import script_of as text_of

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "h100-580"
UUID = "GPU-00000000-1111-2222-3333-444444444444"


def sh(script: str, **environment: str) -> Output:
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"} | environment
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, check=False, env=env, stdin=subprocess.DEVNULL
    )
    return Output(done.returncode, done.stdout, done.stderr)


def asked(probe: Probe) -> Output:
    """The answer of this machine to a probe."""
    return sh(text_of(probe))


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────


class Server(BaseHTTPRequestHandler):
    """Answers as Triton does; GPU metrics rise from 0 at the third look."""

    protocol_version = "HTTP/1.1"
    looks = 0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            type(self).looks += 1
            memory = 0 if self.looks < 3 else 85520809984
            self.answer(
                f'nv_gpu_utilization{{gpu_uuid="{UUID}"}} 0\n'
                f'nv_gpu_memory_total_bytes{{gpu_uuid="{UUID}"}} {memory}\nnv_cpu_utilization 0\n'
            )
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"abc")
            self.close_connection = True
        else:
            self.answer("", 200 if self.path == "/v2/health/ready" else 400)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def answer(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    Server.looks = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("path", "status"), [("/v2/health/ready", 200), ("/nothing", 400)])
def test_http_status(port: int, path: str, status: int) -> None:
    assert http.parse(asked(http.probe("x", "127.0.0.1", port, path))).status == status


def test_http_through_the_unspecified_address(port: int) -> None:
    assert http.parse(asked(http.probe("x", "0.0.0.0", port, "/v2/health/ready"))).status == 200


@pytest.mark.parametrize("text", ["plain", 'it\'s "quoted" $HOME `id` %s \\n', "zwölf 🚀", "a\r\nb"])
def test_http_body_arrives_as_it_was(port: int, text: str) -> None:
    answer = http.parse(asked(http.probe("x", "127.0.0.1", port, "/x", http.canary_request(text))))
    assert answer.json() == http.canary_request(text)


def test_http_chunked(port: int) -> None:
    assert http.parse(asked(http.probe("x", "127.0.0.1", port, "/chunked"))).body == b"abc"


def test_http_cut_off(port: int) -> None:
    answer = http.parse(asked(http.probe("x", "127.0.0.1", port, "/short")))
    assert (answer.status, answer.text) == (0, "the answer was cut off after 3 bytes")


def test_http_refused() -> None:
    answer = http.parse(asked(http.probe("x", "127.0.0.1", 1, "/")))
    assert (answer.status, answer.text) == (0, "connection refused: nothing listens there")


@given(st.binary(max_size=200))
def test_http_answer_of_anything_is_no_crash(data: bytes) -> None:
    assert http.parse(Output(0, data)).status >= 0


def metrics(port: int) -> Output:
    """The metrics as verification asks for them."""
    request = words("risen_metrics", *http.request("127.0.0.1", port, "/metrics"))
    return sh(f"{assembled('triton/verify.sh')}{request}")


def test_metrics_are_asked_until_they_rise(port: int) -> None:
    answer = http.parse(metrics(port))
    assert f'nv_gpu_memory_total_bytes{{gpu_uuid="{UUID}"}} 85520809984' in answer.text
    assert Server.looks == 3


def test_metrics_of_a_server_that_is_not_there_end_at_once() -> None:
    assert http.parse(metrics(1)).status == 0


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"outputs": 5}', b'{"outputs": [{}]}', b"null", b"no"])
def test_inference_answer_of_another_kind_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        http.outputs(http.Answer(200, body))


# ── nvidia-smi ───────────────────────────────────────────────────────────────────────────────────────────


def test_cards() -> None:
    answer = Output(0, f"0, {UUID}, 00000000:18:00.0, 580.159.04, Enabled\n".encode())
    (card,) = cards(answer)
    assert (card.index, card.uuid, card.address, card.driver) == (0, UUID, "0000:18:00.0", "580.159.04")


@pytest.mark.parametrize(
    "text", ["No devices found.", "", "NVIDIA-SMI has failed because, a, b, c, d", "0, GPU-1"]
)
def test_what_is_no_gpu_is_left_out(text: str) -> None:
    assert cards(Output(0, text.encode())) == []


@pytest.mark.parametrize(
    ("bus_id", "address"),
    [
        ("00000000:18:00.0", "0000:18:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("0000000A:C1:00.0", "000a:c1:00.0"),
    ],
)
def test_bus_id_as_sysfs_has_it(bus_id: str, address: str) -> None:
    assert sysfs_address(bus_id) == address


def test_uuids_of_mig_devices_are_left_out() -> None:
    text = (CAPTURES / "nvidia-smi/smi_L.txt").read_text() + "  MIG 3g.40gb Device 0: (UUID: MIG-0000-1)\n"
    assert uuids(text) == [UUID]


def test_selected() -> None:
    there = cards(Output(0, f"0, {UUID}, 0:1:0.0, 1, E\n1, GPU-b, 0:2:0.0, 1, E\n".encode()))
    assert selected("all", there) == ([UUID, "GPU-b"], [])
    assert selected("none", there) == ([], [])
    assert selected([1, UUID], there) == (["GPU-b", UUID], [])
    assert selected(["0", 7, "GPU-c"], there) == ([UUID], ["7", "GPU-c"])


def program(folder: Path, text: str) -> str:
    """A PATH on which ``nvidia-smi`` is this sh text."""
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_health_asks_only_for_what_is_offered(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """case $1 in
  --help-query-gpu) printf '"index"\\n"compute_mode"\\n"temperature.gpu.tlimit"\\n' ;;
  --query-gpu=index,compute_mode) echo 0, Prohibited ;;
  *) echo "Field is not a valid field to query."; exit 2 ;;
esac""",
    )
    answer = sh(text_of(HEALTH), PATH=path)
    found = readings(answer)
    assert found is not None
    assert [reading.message for reading in found] == ["its compute mode is Prohibited"]


def test_health_of_a_driver_that_does_not_answer(tmp_path: Path) -> None:
    assert readings(sh(text_of(HEALTH), PATH=program(tmp_path, "echo broken; exit 9"))) is None


VALUES = dict(zip(FIELDS, (
    "0", "0", "0", "Enabled", "Enabled", "[N/A]", "No", "No", "Disabled", "Disabled", "16", "16",
    "0x0000000000000001", "35", "None", "valid", "Default",
), strict=True))  # fmt: skip
"""A healthy GPU."""
HANDLE = "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error"
LOST = "is lost (fell off the bus)"


@pytest.mark.parametrize("fields", [FIELDS, FIELDS[:14]], ids=["580", "535"])
@pytest.mark.parametrize(
    ("text", "verdict", "says"),
    [
        ("[GPU is lost]", "fail", LOST),
        *((text, "fail", f"nvidia-smi shows {text} for ")
          for text in ("[Unknown Error]", "Unknown Error", "ERR!", "[ERR!]", "[GPU requires reset]",
                       "[Reset Required]")),
        ("[Insufficient Permissions]", "warn", "nvidia-smi shows [Insufficient Permissions] for "),
        ("[No data]", "warn", "nvidia-smi shows [No data] for "),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_read_is_told_once(
    fields: tuple[str, ...], text: str, verdict: str, says: str
) -> None:
    rows = [[VALUES[field] for field in fields], ["1", *[text] * (len(fields) - 1)]]
    lines = [",".join(fields), *map(", ".join, rows)]
    told = readings(Output(0, "\n".join(lines).encode()))
    assert told is not None
    (found,) = told
    assert (found.gpu, found.verdict) == ("1", verdict)
    assert found.message.startswith(says)
    assert ("slot" in found.hint) is (says == LOST)


@pytest.mark.parametrize("code", [0, 15])
def test_a_line_of_nvidia_smi_that_is_no_row_is_shown(code: int) -> None:
    row = ", ".join(VALUES.values())
    text = f"{','.join(FIELDS)}\n{row}\n{HANDLE}\nWARNING: infoROM is corrupted at gpu 0000:3B:00.0\n"
    found = readings(Output(code, text.encode())) or ()
    assert [(r.gpu, r.verdict, r.message) for r in found] == [
        ("0000:0B:00.0", "fail", f"{LOST}: {HANDLE}"),
        ("0000:3B:00.0", "warn", "nvidia-smi says: WARNING: infoROM is corrupted at gpu 0000:3B:00.0"),
    ]


@given(st.text(max_size=300))
def test_health_of_anything_is_no_crash(text: str) -> None:
    readings(Output(0, text.encode("utf-8", "replace")))
    cards(Output(0, text.encode("utf-8", "replace")))


# ── containers ───────────────────────────────────────────────────────────────────────────────────────────


def test_steps_inside_a_container(tmp_path: Path) -> None:
    """The script that a container runs, run here: each step has its own output and exit code."""
    path = program(tmp_path, "echo 'GPU 0: X (UUID: GPU-1)'; exit 3")
    (tmp_path / "docker").write_text('#!/bin/sh\nwhile [ "$1" != sh ]; do shift; done\nexec "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "python3").write_text('#!/bin/sh\necho "said $2" >&2; exit 1\n')
    (tmp_path / "python3").chmod(0o755)
    found = steps(sh(plain_run("image:1-trtllm")[0], PATH=path))
    assert list(found) == ["nvml", "gpus", "tensorrt_llm"]
    assert (found["gpus"].exit_code, found["gpus"].out.strip()) == (3, "GPU 0: X (UUID: GPU-1)")
    assert (found["tensorrt_llm"].exit_code, found["tensorrt_llm"].out.strip()) == (
        1,
        "said import tensorrt_llm",
    )


def test_nvml_step_is_the_failure_that_started_it_all(tmp_path: Path) -> None:
    """On a machine without a driver the real python3 says what the first users saw."""
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    (tmp_path / "docker").write_text('#!/bin/sh\nwhile [ "$1" != sh ]; do shift; done\nexec "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    found = steps(sh(plain_run("image:1")[0], PATH=f"{tmp_path}:/usr/bin:/bin"))
    assert "libnvidia-ml.so.1: cannot open shared object file" in found["nvml"].out
    assert cause(found["nvml"])[0] == "the container was started without the driver's libraries"
    assert found["gpus"].exit_code == 127


# ── dockerd ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_dockerd_has_in_force_is_asked_where_its_file_is_younger(tmp_path: Path) -> None:
    (tmp_path / "journalctl").write_text(
        """#!/bin/sh
echo 'time="x" level=info msg="Reloaded configuration: {\\"bip\\":\\"172.30.0.1/16\\"}"'
echo 'time="y" level=info msg="Reloaded configuration: {\\"bip\\":\\"172.31.0.1/16\\"}"'
"""
    )
    (tmp_path / "journalctl").chmod(0o755)
    (tmp_path / "pid").write_text(str(os.getpid()))
    (tmp_path / "daemon.json").write_text("{}")
    paths = f"docker_pid={tmp_path}/pid daemon_json={tmp_path}/daemon.json"
    script = f"{assembled('docker/verify.sh')}{paths}; dockerd_in_force"
    for age, told in ((1, []), (-1, ["younger", 'reloaded {\\"bip\\":\\"172.31.0.1/16\\"}'])):
        at = (tmp_path / "pid").stat().st_mtime - age
        os.utime(tmp_path / "daemon.json", (at, at))
        command, *rest = sh(script, PATH=f"{tmp_path}:/usr/bin:/bin").out.splitlines()
        assert command.startswith("command ")
        assert "python" in command
        assert rest == told


# ── causes ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("A2_seed_repro", "the container was started without the driver's libraries"),
        ("A3_gpus_all_no_toolkit", "dockerd was started before the toolkit was installed"),
        ("A4_runtime_nvidia_missing", "dockerd does not know the runtime nvidia"),
        ("D14_gpus_device7", "a GPU that was asked for is not on this host"),
        ("H1_fault_no_nodes", "the kernel module nvidia is not loaded, or its device nodes are missing"),
        ("H3_fault_no_lib", "the host has no libnvidia-ml.so.1"),
        ("H6_fault_no_runtime", "the NVIDIA Container Toolkit is not installed"),
        ("H7a_mismatch", "the loaded kernel module and the driver's libraries are of different versions"),
    ],
)
def test_captured_messages_have_their_cause(file: str, why: str) -> None:
    text = (CAPTURES / f"docker/{file}.txt").read_text()
    found, hint = cause(Output(1, text.encode()))
    assert found == why
    assert hint


def test_pynvml_in_a_container_is_not_taken_for_the_host() -> None:
    """Its traceback names NVML_ERROR_LIBRARY_NOT_FOUND; Docker's error on a host without driver does, too."""
    text = (
        "    _nvmlCheckReturn(NVML_ERROR_LIBRARY_NOT_FOUND)\n"
        "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found\n"
    )
    assert cause(Output(1, text.encode()))[0] == "the container was started without the driver's libraries"


def test_unknown_message_is_shown_with_its_exit_code() -> None:
    assert cause(Output(3, b"first\n\nlast words\n")) == ("exit 3: last words", None)
    assert cause(Output(3)) == ("exit 3: it printed nothing", None)


def test_causes_are_all_said_for_people() -> None:
    rows = [row for row in KNOWN_MESSAGES if row.cause]
    assert rows
    assert all(row.hint and not row.cause.endswith(".") for row in rows)
