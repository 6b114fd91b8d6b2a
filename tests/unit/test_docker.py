"""What dockerd has loaded of its configuration, and images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from provision.errors import Refusal
from provision.probe import Output, words
from provision.resource import ABSENT, UNKNOWN, Change, Missing, Planned
from provision.resources.dockerd import DOCKERD, OfDockerd, all_told
from provision.resources.image import Image
from provision.resources.signals import DOCKER_STORE_MOVED
from provision.roles.docker.daemon import DaemonLoaded, Loaded, declared_words, told_words
from provision.roles.docker.text import DAEMON_JSON
from provision.shell import assembled
from tests.unit.sandbox import SHELLS

# --- what dockerd has loaded ----------------------------------------------------------------------

LOADED = DaemonLoaded("nvidia", ("nvidia",))
INFO = (
    b'{"ID":"x","DefaultRuntime":"nvidia","Runtimes":{"io.containerd.runc.v2":{"path":"runc"},'
    b'"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}}\n 200\n'
)
REFUSED = b"/run/docker.sock: Connection refused\n"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Output(0, INFO), Loaded("nvidia", frozenset({"io.containerd.runc.v2", "nvidia", "runc"}))),
        (
            Output(0, b'{"DefaultRuntime":"runc","Runtimes":{"runc":{}}} 200\n'),
            Loaded("runc", frozenset({"runc"})),
        ),
        (Output(0, b'{"DefaultRuntime":"","Runtimes":null} 200\n'), UNKNOWN),
        (Output(0, b'{"message":"not now"} 500\n'), UNKNOWN),
        (Output(111, b"", REFUSED), UNKNOWN),
        (Output(142), UNKNOWN),
        (Output(0, b"nonsense 200\n"), UNKNOWN),
        (Output(0, b"[1] 200\n"), UNKNOWN),
        (Output(0, b'{"DefaultRuntime":"runc","Runtimes":7} [200]\n'), UNKNOWN),
        (Output(0, b'{"DefaultRuntime":"runc","Runtimes":7} 200\n'), Loaded("runc", frozenset())),
        (Output(0, INFO[:40]), UNKNOWN),
        (Output(0, INFO[:-4]), UNKNOWN),
    ],
)
def test_what_dockerd_says_of_its_runtimes(answer: Output, state: object) -> None:
    assert DaemonLoaded.states([LOADED], answer) == {"docker:loaded-configuration": state}


REGISTRIES = {
    "RegistryConfig": {
        "IndexConfigs": {"reg:5000": {"Secure": False}, "docker.io": {"Secure": True}, "odd": 7},
        "Mirrors": ["https://mirror.example/"],
    },
    "Debug": False,
    "LiveRestoreEnabled": True,
}


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (
            REGISTRIES,
            ["insecure=reg:5000", "mirror=https://mirror.example", "debug=false", "live-restore=true"],
        ),
        ({"RegistryConfig": {"IndexConfigs": None, "Mirrors": []}, "Debug": "yes"}, []),
        (
            {"RegistryConfig": {"IndexConfigs": {"reg:5000": {"Secure": False}}, "Mirrors": None}},
            ["insecure=reg:5000"],
        ),
        ({"RegistryConfig": 7}, []),
        ({}, []),
    ],
)
def test_what_dockerd_says_of_its_registries(info: dict[str, object], told: list[str]) -> None:
    assert list(told_words(info)) == told


def test_dockerd_is_reloaded_for_a_registry_that_it_has_not_read() -> None:
    daemon = {
        "insecure-registries": ["reg:5000", "10.0.0.0/8"],
        "registry-mirrors": ["https://m/"],
        "debug": False,
    }
    others = tuple(declared_words(daemon))
    assert others == ("insecure=reg:5000", "mirror=https://m", "debug=false")
    loaded = DaemonLoaded("nvidia", ("nvidia",), others)
    change = loaded.change(
        Loaded("nvidia", frozenset({"nvidia", "mirror=https://m", "debug=false"})), planned()
    )
    assert change is not None
    assert change.action == "reload"
    assert "without insecure=reg:5000, which" in change.reason
    assert "insecure=reg:5000" in change.done
    assert loaded.change(Loaded("nvidia", frozenset({"nvidia", *others})), planned()) is None


def planned(*resources: tuple[str, str]) -> Planned:
    return Planned(tuple(Change(name, action, "", "", "") for name, action in resources))


@pytest.mark.parametrize(
    ("state", "earlier", "reloads"),
    [
        (Loaded("nvidia", frozenset({"nvidia", "runc"})), planned(), False),
        (Loaded("runc", frozenset({"nvidia", "runc"})), planned(), True),
        (Loaded("nvidia", frozenset({"runc"})), planned(), True),
        (UNKNOWN, planned(), False),
        (Loaded("runc", frozenset({"runc"})), planned(("service:docker.service", "start")), False),
        (Loaded("runc", frozenset({"runc"})), planned(("service:docker.service", "enable")), True),
        (Loaded("runc", frozenset({"runc"})), planned(("handler:restart docker.service", "run")), False),
        (Loaded("runc", frozenset({"runc"})), planned(("handler:reload docker.service", "run")), False),
    ],
)
def test_a_dockerd_that_runs_with_something_else_is_reloaded(
    state: Loaded | Missing, earlier: Planned, reloads: bool
) -> None:
    change = LOADED.change(state, earlier)
    assert (change is not None) == reloads
    if change:
        assert (change.action, change.done) == ("reload", "docker_knows nvidia nvidia")


# --- images ---------------------------------------------------------------------------------------

TAG = "nvcr.io/nvidia/tritonserver:24.07-trtllm-python-py3"
DIGEST = "sha256:" + "0a" * 32


MISSING = b'{"message":"No such image: other:1"}\n 404\n'


def image_answer(tags: list[str] | None, digests: list[str] | None) -> bytes:
    return f"{json.dumps({'RepoTags': tags, 'RepoDigests': digests})}\n 200\n".encode()


@pytest.mark.parametrize(
    ("ref", "tags", "digests", "there"),
    [
        (TAG, [TAG], [], True),
        (TAG, ["nvcr.io/nvidia/tritonserver:24.08-py3"], [], False),
        ("docker.io/library/busybox:1.36", ["busybox:1.36"], None, True),
        ("docker.io/me/app:1", ["me/app:1"], None, True),
        ("busybox:1.36", ["docker.io/library/busybox:1.36"], None, True),
        (f"nvcr.io/nvidia/tritonserver@{DIGEST}", [], [f"nvcr.io/nvidia/tritonserver@{DIGEST}"], True),
        (f"{TAG}@{DIGEST}", [], [f"nvcr.io/nvidia/tritonserver@{DIGEST}"], True),
        (f"localhost:5000/t@{DIGEST}", None, [f"localhost:5000/t@{DIGEST}"], True),
        (f"localhost:5000/t:1@{DIGEST}", None, [f"localhost:5000/t@{DIGEST}"], True),
        (f"{TAG}@{DIGEST}", [TAG], [], False),
    ],
)
def test_an_image_is_known_by_any_of_its_names(
    ref: str, tags: list[str] | None, digests: list[str] | None, there: bool
) -> None:
    image = Image(ref)
    found = Image.states([image], Output(0, image_answer(tags, digests)))
    assert found == {image.id: True if there else ABSENT}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Output(0, MISSING), ABSENT),
        (Output(0, b'{"message":"invalid reference format"}\n 400\n'), UNKNOWN),
        (Output(111, b"", REFUSED), UNKNOWN),
        (Output(142), UNKNOWN),
    ],
)
def test_absent_and_unknown_images_are_told_apart(answer: Output, state: Missing) -> None:
    assert Image.states([Image(TAG)], answer) == {f"image:{TAG}": state}


def test_one_question_for_all_that_dockerd_knows() -> None:
    items: list[OfDockerd[Any]] = [LOADED, Image(TAG), Image("other:1"), Image("third:1")]
    assert {item.asked_by() for item in items} == {OfDockerd}
    images = f" /images/{TAG}/json /images/other:1/json /images/third:1/json"
    assert OfDockerd.probe(items).script == f"ask_dockerd_of {DAEMON_JSON} /info{images}"
    assert OfDockerd.probe(items[1:]).script == f"ask_dockerd{images}"
    answers = image_answer([TAG], []) + MISSING
    found = OfDockerd.states(items, Output(0, answers + MISSING + INFO))
    told = {name: state for name, state in found.items() if name.startswith("image:")}
    assert found[LOADED.id] == Loaded("nvidia", frozenset({"io.containerd.runc.v2", "nvidia", "runc"}))
    assert told == {f"image:{TAG}": True, "image:other:1": ABSENT, "image:third:1": ABSENT}
    found = OfDockerd.states(items, Output(142, answers))
    assert found[LOADED.id] is found["image:third:1"] is UNKNOWN


def test_a_name_of_an_image_cannot_ask_for_something_else() -> None:
    place = Image("a?b#c%2e\r\nDELETE /x").place
    assert place == "/images/a%3Fb%23c%252e%0D%0ADELETE%20/x/json"


class Dockerd(BaseHTTPRequestHandler):
    """Answers as dockerd does; under /slow, never."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(3)
            return
        body = json.dumps({"asked": self.path, "text": "a\r\n\r\nb 200\n"}).encode() + b"\n"
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def address_string(self) -> str:
        return "socket"


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a dockerd."""
    place = tmp_path_factory.mktemp("dockerd") / "docker.sock"

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    with Server(str(place), Dockerd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield place
        server.shutdown()


def asked(
    shell: str,
    socket: Path,
    program: str,
    *places: str,
    question: str = "ask_dockerd",
    pid: Path | str = "",
    active: bool = True,
) -> Output:
    """Run the question with only one of the two programs that can ask it."""
    head = f'command() {{ [ "$2" = {program} ]; }}\nsystemctl() {{ {str(active).lower()}; }}\n'
    head += f"{assembled(DOCKERD)}docker_socket={socket} docker_patience=1 docker_pid={pid}\n"
    script = head + words(question, *places)
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=False)
    return Output(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", ["perl", "curl"])
def test_the_question_and_its_answers(shell: str, program: str, dockerd: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    answer = asked(shell, dockerd, program, "/info", "/none", "/images/a/json")
    assert answer.ok, answer
    told = all_told(answer.out)
    assert [(one.status, one.document["asked"]) for one in told] == [
        (200, "/info"),
        (404, "/none"),
        (200, "/images/a/json"),
    ]
    slow = asked(shell, dockerd, program, "/info", "/slow", "/none")
    assert [one.status for one in all_told(slow.out) if one.status] == [200]
    assert slow.exit_code == 75
    with pytest.raises(Refusal, match="dockerd runs and does not answer"):
        OfDockerd.states([Image("a")], slow)
    starting = asked(shell, dockerd, program, "/slow", active=False)
    assert not starting.ok
    assert OfDockerd.states([Image("a")], starting) == {"image:a": UNKNOWN}, "it is not there yet"
    gone = asked(shell, dockerd.with_name("gone"), program, "/info")
    assert not gone.ok
    assert gone.stderr
    assert [one for one in all_told(gone.out) if one.status] == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_stopped_dockerd_is_not_asked(shell: str, dockerd: Path, tmp_path: Path) -> None:
    """systemd would start it, which listens on its socket; a process id may be somebody else's by now."""
    pid, program = tmp_path / "docker.pid", tmp_path / "dockerd"
    for content in (None, "", "0", f"{os.getpid()}", "9999999"):
        if content is not None:
            pid.write_text(content)
        stopped = asked(shell, dockerd, "perl", "/info", pid=pid, active=False)
        assert (stopped.ok, stopped.out, stopped.err) == (False, "", "")
    shutil.copy("/usr/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            pid.write_text(f"{process.pid}")
            assert asked(shell, dockerd, "perl", "/info", pid=pid, active=False).ok
        finally:
            process.kill()


@pytest.mark.parametrize("shell", SHELLS)
def test_dockerd_is_not_asked_what_it_has_read_at_its_start(
    shell: str, dockerd: Path, tmp_path: Path
) -> None:
    """Times are those of inodes, in whole seconds, and nobody can set them."""
    file, pid = tmp_path / "daemon.json", tmp_path / "docker.pid"

    def places() -> list[str]:
        told = all_told(
            asked(shell, dockerd, "perl", str(file), "/info", "/a", question="ask_dockerd_of", pid=pid).out
        )
        return [one.document["asked"] for one in told]

    assert places() == ["/a", "/info"]
    file.write_text("{}")
    assert places() == ["/a", "/info"]
    time.sleep(1.1)
    pid.write_text("1")
    assert places() == ["/a"]
    nothing = asked(shell, dockerd, "perl", str(file), "/info", question="ask_dockerd_of", pid=pid)
    assert (nothing.exit_code, nothing.out) == (0, "")
    time.sleep(1.1)
    os.utime(file, (0, 0))
    assert places() == ["/a", "/info"]
    time.sleep(1.1)
    pid.write_text("2")
    assert places() == ["/a"]
    file.rename(tmp_path / "old.json")
    pid.touch()
    file.symlink_to("old.json")
    assert places() == ["/a", "/info"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ABSENT, "it is not on the host"),
        (UNKNOWN, "Docker cannot be asked yet (assumed absent)"),
        (True, None),
    ],
)
def test_an_image_is_pulled_once(state: bool | Missing, reason: str | None) -> None:
    change = Image(TAG).change(state, Planned())
    assert (change.reason if change else None) == reason
    assert change is None or (change.action, change.script) == ("pull", f"pull_image {TAG}")


def test_an_image_is_pulled_again_where_dockers_store_is_another_one() -> None:
    moved = Change("file:/etc/docker/daemon.json", "update", "", "", "", signals=(DOCKER_STORE_MOVED.name,))
    change = Image(TAG).change(True, Planned((moved,)))
    assert change is not None
    assert (change.action, change.reason) == ("pull", "Docker's store is another one then")
