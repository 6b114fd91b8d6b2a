"""Pulls of images, with a client and a registry that play their parts: bounded by progress, not by time."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from provision.data import data
from provision.plan.plan import STEPS
from provision.probe import Output, quote
from provision.resource import ABSENT, Planned
from provision.resources.image import PULL, Image, RegistryLogin, archive_of, registry_of
from provision.shell import assembled
from tests.unit.sandbox import SHELLS, Sandbox

IMAGE = Image("registry.example.org/a:1")
CLIENT = """#!/bin/sh
case $1 in info) exit 1 ;; esac
[ "$1 $2" = "pull registry.example.org/a:1" ] || exit 9
[ -t 1 ] || {{ echo "no terminal"; exit 8; }}
{0}
"""
DONE = "printf '0123456789ab: Already exists\\r\\n1123456789ab: Verifying Checksum\\r\\n'"
PROGRESS = "printf '\\033[1A\\033[2K\\rab1234567890: Downloading [=>  ]  %s.5MB/2GB\\r\\033[1B' $n"
LOOP = f"n=0; while [ $n -lt 12 ]; do {PROGRESS}; sleep 0.1; n=$((n + 1)); done"
LONG = f"{DONE}; {LOOP}; echo; echo Status: got it"


@pytest.fixture(params=SHELLS[:1])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return Sandbox.make(tmp_path, request.param)


def pull(box: Sandbox, client: str, image: Image = IMAGE, second: float = 0.1) -> Output:
    """What pulling comes to where Docker's client does this; its patience is 4 seconds of this length."""
    folder = box.folder / "run/bin"
    folder.mkdir()
    (folder / "docker").write_text(CLIENT.format(client))
    (folder / "docker").chmod(0o755)
    change = image.change(ABSENT, Planned())
    assert change is not None
    head = (
        f"run=/run/provision/r1; mkdir -p $run\n{assembled(STEPS, PULL)}\nPATH=/run/bin:$PATH pull_patience=4"
        f"\nsleep() {{ command sleep {2 * second}; }}"
    )
    return box.sh(f"{head}\n{change.script}\n")


def test_a_pull_that_makes_progress_may_take_longer_than_its_patience(box: Sandbox) -> None:
    output = pull(box, LONG)
    assert (output.exit_code, output.err) == (0, "")
    *progress, last = output.out.splitlines()
    assert last == "Status: got it"
    progress = [line for line in progress if line.startswith("1 of 3 layers")]
    assert progress
    assert set(progress) <= {"1 of 3 layers", "1 of 3 layers, 0.0 of 2.0 GB"}
    assert output.out.replace("\n", "").isprintable()
    assert not (box.folder / "run/provision/r1/pulling").exists()


@pytest.mark.parametrize("silent", [f"n=1; {PROGRESS}; exec sleep 99", "trap '' TERM HUP; exec sleep 99"])
def test_a_registry_that_goes_silent_ends_the_pull(box: Sandbox, silent: str) -> None:
    began = time.monotonic()
    output = pull(box, silent)
    ended = "no progress in 4 s: the pull of registry.example.org/a:1 was ended\n"
    assert (output.exit_code, output.err) == (1, ended)
    assert time.monotonic() - began < 30


def test_what_the_client_printed_takes_little_room(box: Sandbox) -> None:
    """A pull of an hour prints megabytes, and /run is memory."""
    chatty = (
        "n=0; while [ $n -lt 6 ]; do head -c 500000 /dev/zero | tr '\\0' x; echo; sleep 1; n=$((n + 1)); done"
    )
    watched = f"{chatty}; stat -c %b /run/provision/r1/pulling >/run/blocks; echo done"
    output = pull(box, watched, second=1)
    assert output.out.splitlines()[-1] == "done"
    assert int((box.folder / "run/blocks").read_text()) * 512 < 2_600_000


def test_a_pull_that_fails_says_why(box: Sandbox) -> None:
    why = "Error response from daemon: manifest for a:1 not found: manifest unknown"
    output = pull(box, f"echo '{why}' >&2; exit 1")
    assert (output.exit_code, output.out) == (1, f"{why}\n")


LOGIN = RegistryLogin(user="$oauthtoken", password='pw "of" me')
ASKED = """
[ "$*" = "pull registry.example.org/a:1" ] || exit 9
stat -c '%a %U' "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json"
cat "$DOCKER_CONFIG/config.json"; """


@pytest.mark.parametrize("code", [0, 3])
def test_a_login_is_there_for_the_pull_alone(box: Sandbox, code: int) -> None:
    output = pull(box, f"{ASKED} echo; echo done; exit {code}", Image("registry.example.org/a:1", LOGIN))
    assert output.exit_code == code
    folder, file, document, done = output.out.splitlines()
    assert (folder, file, done) == ("700 root", "600 root", "done")
    (login,) = json.loads(document)["auths"].items()
    assert login[0] == "registry.example.org"
    assert base64.b64decode(login[1]["auth"]) == b'$oauthtoken:pw "of" me'
    assert [path.name for path in (box.folder / "run/provision/r1").iterdir()] == ["last"]


def test_a_login_is_shown_nowhere_but_in_the_script() -> None:
    image = Image("a:1", LOGIN)
    change = image.change(ABSENT, Planned())
    assert change is not None
    assert "of" not in f"{change.summary} {change.diff} {change.done} {change.guard} {change.reason}"
    assert "of" not in repr(image)


@pytest.mark.parametrize(
    ("ref", "registry"),
    [
        ("nvcr.io/nvidia/tritonserver:24.07-py3", "nvcr.io"),
        ("10.0.0.1:5000/x@sha256:0", "10.0.0.1:5000"),
        ("localhost/x:1", "localhost"),
        ("ubuntu:24.04", "docker.io"),
        ("me/x:1", "docker.io"),
        ("docker.io/me/x:1", "docker.io"),
    ],
)
def test_the_registry_of_an_image(ref: str, registry: str) -> None:
    assert registry_of(ref) == registry
    assert ("index.docker.io" in LOGIN.client_configuration(registry)) is (registry == "docker.io")


CHUNKS = (
    "24.07-py3: Pulling from nvidia/tritonserver\r\n",
    "aaaaaaaaaaaa: Pulling fs layer\r\nbbbbbbbbbbbb: Pulling fs layer\r\ncccccccccccc: Waiting\r\n",
    "\033[3A\033[2K\raaaaaaaaaaaa: Downloading [=>   ]  10.5MB/1.2GB\r\033[3B"
    "\033[2A\033[2K\rbbbbbbbbbbbb: Downloading [==>  ]  512kB/900MB\r\033[2B",
    "\033[3A\033[2K\raaaaaaaaaaaa: Download com",
    "plete\r\033[3B\033[3A\033[2K\raaaaaaaaaaaa: Extracting [=> ]  1MB/1.2GB\r\033[3B"
    "\033[3A\033[2K\raaaaaaaaaaaa: Pull comp",
    "lete \r\033[3B\033[2A\033[2K\rbbbbbbbbbbbb: Downloading [===> ]  450MB/900MB\r\033[2B",
)
TOLD = (
    "",
    "0 of 3 layers",
    "0 of 3 layers, 0.0 of 2.1 GB",
    "0 of 3 layers, 0.0 of 2.1 GB",
    "0 of 3 layers, 1.2 of 2.1 GB",
    "1 of 3 layers, 1.6 of 2.1 GB",
)


def test_layers_and_bytes_are_told_while_they_come(box: Sandbox) -> None:
    """Each look sees only what was written since the last one, and a line may be cut in two."""
    calls, at = [], 0
    for number, chunk in enumerate(CHUNKS):
        (box.folder / f"run/{number}").write_bytes(chunk.encode())
        calls.append(f'cat /run/{number} >>/run/told; echo "<$(layers_since {at} /run/told)>"')
        at += len(chunk)
    output = box.sh(f"run=/run\n{assembled(PULL)}\n" + "\n".join(calls))
    assert (output.out, output.err) == ("".join(f"<{line}>\n" for line in TOLD), "")


def test_what_is_known_of_layers_is_bounded(box: Sandbox) -> None:
    lines = "".join(f"{number:012x}: Waiting\r\n" for number in range(2000))
    (box.folder / "run/told").write_text(lines)
    output = box.sh(f"run=/run\n{assembled(PULL)}\nlayers_since 0 /run/told")
    assert output.out == "0 of 500 layers\n"


def room(ref: str, free_kb: int, info: str, config: str = "") -> str:
    return f"""run=/run
{assembled(STEPS, PULL)}
dockerd_runs() {{ :; }}
docker() {{ printf '%b' '{info}'; }}
containerd() {{ printf '%s\\n' {quote(config)}; }}
df() {{ echo head; echo "disk 1 1 {free_kb} 1% $4"; }}
timeout() {{ shift 3; "$@"; }}
has_room {ref} "$(room_of {ref})"
"""


NVIDIA = "nvcr.io/nvidia/tritonserver"


@pytest.mark.parametrize(
    ("ref", "free", "says"),
    [
        (f"{NVIDIA}:24.07-trtllm-python-py3", 13_000_000, "needs 14.0 GB, and 13.3 GB are free in /run"),
        (f"{NVIDIA}:24.07-trtllm-python-py3", 14_000_000, ""),
        (f"{NVIDIA}:24.07-py3", 4_000_000, "needs 5.0 GB, and 4.1 GB are free in /run"),
        (f"{NVIDIA}:24.07-py3@sha256:0", 4_000_000, "needs 5.0 GB"),
        (f"{NVIDIA}:24.07-py3-sdk", 4_000_000, ""),
        ("example.org/nvidia/tritonserver:24.07-py3", 1_000_000, ""),
        ("example.org/a:1", 900_000, "needs 1.0 GB, and 0.9 GB are free in /run"),
    ],
)
def test_room_is_looked_for_before_a_pull(box: Sandbox, ref: str, free: int, says: str) -> None:
    output = box.sh(room(ref, free, r"/run\n[]"))
    assert output.exit_code == bool(says)
    assert output.err == "" if not says else f"{ref} {says}" in output.err


STORE = r"/var/lib\n[[driver-type io.containerd.snapshotter.v1]]"


@pytest.mark.parametrize(
    ("info", "config", "where"),
    [
        (r"/var/lib\n[[Backing Filesystem extfs]]", "", "/var/lib"),
        (STORE, 'version = 2\nroot = "/run"', "/run"),
        (STORE, "root = '/run'", "/run"),
        (STORE, "", ""),
    ],
)
def test_room_is_looked_for_where_images_lie(box: Sandbox, info: str, config: str, where: str) -> None:
    """Of containerd's own default folder there is none here, so nobody can tell."""
    output = box.sh(room("a:1", 1, info, config))
    assert output.err == (f"a:1 needs 1.0 GB, and 0.0 GB are free in {where}\n" if where else "")


LOADS = """#!/bin/sh
echo "$*" >>/run/calls
case "$1 $2" in
  "info "*) exit 1 ;;
  "load ") cat >/run/read; [ ! -f /run/after ] || cat /run/after >/run/names ;;
  "image ls") [ ! -f /run/names ] || cat /run/names ;;
  "image inspect") [ -f /run/read ] && tar -xOf /run/read manifest.json | grep -q -F "\"$3\"" ;;
  "pull "*) echo pulled ;;
esac
"""


Members = Mapping[str, str | bytes | tuple[bytes, str]]


def archive(members: Members) -> bytes:
    """An archive with these files; a link has its type and where it leads to."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as files:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type, member.linkname = content
                files.addfile(member)
                continue
            data = content.encode() if isinstance(content, str) else content
            member.size = len(data)
            files.addfile(member, io.BytesIO(data))
    return made.getvalue()


def lists(*names: str) -> str:
    """The list of an archive as ``docker save`` makes it."""
    return json.dumps([{"Config": "c.json", "RepoTags": list(names), "Layers": ["a/layer.tar"]}])


def index(**annotations: str) -> str:
    """The list of an archive in OCI's form."""
    named = {key.replace("_", "."): value for key, value in annotations.items()}
    return json.dumps({"schemaVersion": 2, "manifests": [{"digest": "sha256:0", "annotations": named}]})


def load(
    box: Sandbox, files: dict[str, bytes], curl: str = "", archives: str = "/run/images", head: str = ""
) -> Output:
    """What an image comes to with these archives in a folder, or with this curl."""
    for name, text in {"docker": LOADS, "curl": f"#!/bin/sh\n{curl}\n"}.items():
        program = box.folder / f"run/bin/{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    (box.folder / "run/images").mkdir()
    for name, content in files.items():
        (box.folder / "run/images" / name).write_bytes(content)
    change = Image(IMAGE.ref, archive=archive_of(IMAGE.ref, archives)).change(ABSENT, Planned())
    assert change is not None
    return box.sh(
        f"run=/run/r1; mkdir $run\n{assembled(STEPS, PULL)}\nPATH=/run/bin:$PATH\n"
        f"sleep() {{ command sleep 0.1; }}\n{head}\n"
        f"do_1() {{ {change.script}\n}}\ndo_1\n"
    )


def calls(box: Sandbox) -> list[str]:
    """Docker's calls that count."""
    lines = (box.folder / "run/calls").read_text().splitlines()
    return [line for line in lines if not line.startswith(("info", "image ls"))]


RIGHT = archive({"a/layer.tar": bytes(70_000), "manifest.json": lists(IMAGE.ref)})
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a-1.tar": bytes,
    "a-1.tar.gz": gzip.compress,
    "a-1.tar.zst": lambda data: subprocess.run(["zstd"], input=data, capture_output=True, check=True).stdout,
}


@pytest.mark.parametrize("name", PACKED)
def test_an_archive_comes_before_the_registry(box: Sandbox, name: str) -> None:
    if name.endswith(".zst") and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    output = load(box, {name: PACKED[name](RIGHT)})
    assert output.exit_code == 0, output
    assert calls(box) == ["load", f"image inspect {IMAGE.ref}"]
    assert {path.name for path in (box.folder / "run/r1").iterdir()} == {"last"}


def test_a_name_that_a_load_takes_from_another_image_is_given_back(box: Sandbox) -> None:
    """dockerd may read an archive otherwise than tar does."""
    (box.folder / "run/names").write_text("sha256:old served:1\nsha256:x <none>:<none>\nsha256:y y:1\n")
    (box.folder / "run/after").write_text(f"sha256:new served:1\nsha256:new {IMAGE.ref}\nsha256:y y:1\n")
    output = load(box, {"a-1.tar": RIGHT})
    assert output.exit_code == 1
    says = "/run/images/a-1.tar also took served:1 from other images, which have their names again"
    assert output.err == f"{says}\n"
    assert calls(box) == ["load", "tag sha256:old served:1"]


def test_without_an_archive_the_registry_is_asked(box: Sandbox) -> None:
    output = load(box, {"a-2.tar": RIGHT})
    assert output.exit_code == 0, output
    assert calls(box) == [f"pull {IMAGE.ref}"]
    assert "there is no /run/images/a-1.tar, nor with .gz or .zst: the registry is asked" in output.out


OTHER = "registry.example.org/a:2"
OCI = "io_containerd_image_name"
BESIDE = f"it holds {OTHER} besides {IMAGE.ref}"
INSTEAD = f"it holds {OTHER}, and not {IMAGE.ref}"
CODES = "names in its list of images are written with codes"
REGULAR = "its list of images is no regular file"
NO_LIST = "it has no manifest.json"
FOREIGN: dict[str, tuple[Members, str]] = {
    "another": ({"manifest.json": lists(OTHER)}, INSTEAD),
    "two": ({"manifest.json": lists(IMAGE.ref, OTHER)}, BESIDE),
    "two in another order": ({"manifest.json": lists(OTHER, IMAGE.ref)}, BESIDE),
    "other case": ({"manifest.json": lists(OTHER).replace("RepoTags", "REPOTAGS")}, INSTEAD),
    "none": ({"manifest.json": lists()}, f"it holds no image with a name, and not {IMAGE.ref}"),
    "null": (
        {"manifest.json": '[{"RepoTags": null, "Config": "x:1"}]'},
        f"it holds no image with a name, and not {IMAGE.ref}",
    ),
    "without a tag": ({"manifest.json": lists(IMAGE.ref, "a")}, f"it holds a besides {IMAGE.ref}"),
    "index beside it": ({"manifest.json": lists(IMAGE.ref), "index.json": index(**{OCI: OTHER})}, BESIDE),
    "index alone": ({"index.json": index(**{OCI: OTHER})}, INSTEAD),
    "name of OCI": ({"index.json": index(org_opencontainers_image_ref_name=OTHER)}, INSTEAD),
    "other path": ({"manifest.json": lists(IMAGE.ref), "./x/../manifest.json": lists(OTHER)}, BESIDE),
    "code": ({"manifest.json": lists(IMAGE.ref, OTHER).replace("a:2", "\\u0061:2")}, CODES),
    "slash": ({"manifest.json": lists(OTHER).replace("/", "\\/")}, CODES),
    "folded letter": ({"manifest.json": lists(OTHER).replace("gs", "g\u017f")}, CODES),
    "nul": ({"manifest.json": b"\0" + lists(IMAGE.ref).encode()}, CODES),
    "link": ({"manifest.json": (tarfile.SYMTYPE, "x"), "x": lists(OTHER)}, REGULAR),
    "later link": (
        {"manifest.json": lists(IMAGE.ref), "x": lists(OTHER), "./manifest.json": (tarfile.LNKTYPE, "x")},
        REGULAR,
    ),
    "no list": ({"x": b"1"}, NO_LIST),
    "old form": ({"repositories": json.dumps({"registry.example.org/a": {"2": "0"}})}, NO_LIST),
    "endless list": ({"manifest.json": bytes(3 << 20)}, "its list of images is larger than 1 MiB"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_an_archive_that_holds_another_name_is_not_loaded(box: Sandbox, case: str) -> None:
    """Docker would give the name to what is in the archive, and take it from the image that serves."""
    members, says = FOREIGN[case]
    output = load(box, {"a-1.tar": archive(members)})
    assert (output.exit_code, output.err) == (1, f"nothing of /run/images/a-1.tar was loaded: {says}\n")
    assert not (box.folder / "run/calls").exists() or calls(box) == []
    assert {path.name for path in (box.folder / "run/r1").iterdir()} == {"last"}


ALONE: dict[str, Members] = {
    "of docker save": {"manifest.json": lists(IMAGE.ref), "repositories": "{}"},
    "of Docker 25": {
        "manifest.json": lists(IMAGE.ref),
        "index.json": index(**{OCI: IMAGE.ref, "org_opencontainers_image_ref_name": "1"}),
    },
    "with a folder": {"./manifest.json": lists(IMAGE.ref)},
    "in two lines": {"manifest.json": lists(IMAGE.ref).replace(",", ",\n\t")},
}


@pytest.mark.parametrize("case", ALONE)
def test_an_archive_that_holds_the_image_alone_is_loaded(box: Sandbox, case: str) -> None:
    load(box, {"a-1.tar": archive(ALONE[case])})
    assert calls(box)[0] == "load"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a-1.tar", b"<html></html>", "it has no manifest.json: This does not look like a tar archive"),
        ("a-1.tar", lzma.compress(RIGHT), "it has no manifest.json: "),
        ("a-1.tar.gz", gzip.compress(RIGHT)[:-300], "it has no manifest.json"),
        ("a-1.tar", b"", "it has no manifest.json"),
    ],
)
def test_what_is_no_archive_is_not_loaded(box: Sandbox, name: str, data: bytes, says: str) -> None:
    output = load(box, {name: data})
    assert output.exit_code == 1
    assert output.err.startswith(f"nothing of /run/images/{name} was loaded: {says}")
    assert not (box.folder / "run/calls").exists() or calls(box) == []


SERVES = """
case "$*" in
  *--head*.gz) printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n' ;;
  *--head*) exit 22 ;;
  *) cat /run/images/served ;;
esac
"""


def test_an_archive_of_a_server_goes_to_docker_as_it_comes(box: Sandbox) -> None:
    output = load(box, {"served": gzip.compress(RIGHT)}, SERVES, "http://mirror.example.org/images")
    assert output.exit_code == 0, output
    assert calls(box) == ["load", f"image inspect {IMAGE.ref}"]


@pytest.mark.parametrize(
    ("served", "code", "says"),
    [
        (archive(FOREIGN["another"][0]), 0, INSTEAD),
        (RIGHT, 18, "it cannot be read to its end"),
    ],
)
def test_an_archive_of_a_server_is_looked_at_as_well(
    box: Sandbox, served: bytes, code: int, says: str
) -> None:
    serves = SERVES.replace("served ;;", f"served; exit {code} ;;")
    output = load(box, {"served": gzip.compress(served)}, serves, "http://mirror.example.org/images")
    address = "http://mirror.example.org/images/a-1.tar.gz"
    assert (output.exit_code, output.err) == (1, f"nothing of {address} was loaded: {says}\n")
    assert not (box.folder / "run/calls").exists() or calls(box) == []


@pytest.mark.parametrize("code", [22, 7])
def test_a_server_without_the_archive_leaves_it_to_the_registry(box: Sandbox, code: int) -> None:
    output = load(box, {}, f"echo why >&2; exit {code}", "http://mirror.example.org")
    assert output.exit_code == 0, output
    assert calls(box) == [f"pull {IMAGE.ref}"]
    assert output.err.startswith("why\n")


def test_a_host_without_curl_says_so_and_asks_the_registry(box: Sandbox) -> None:
    without = 'command() { [ "$2" != curl ]; }'
    output = load(box, {}, "exit 9", "http://mirror.example.org", without)
    assert output.exit_code == 0, output
    assert calls(box) == [f"pull {IMAGE.ref}"]
    assert output.out.startswith(
        "curl is not installed, which would fetch http://mirror.example.org/a-1.tar: "
    )


@pytest.mark.parametrize(
    ("ref", "archive"),
    [
        ("nvcr.io/nvidia/tritonserver:24.07-py3", "/i/tritonserver-24.07-py3.tar"),
        ("localhost:5000/a:1", "/i/a-1.tar"),
        ("a:1@sha256:0", ""),
    ],
)
def test_the_name_of_an_archive(ref: str, archive: str) -> None:
    assert archive_of(ref, "/i") == archive
    assert archive_of(ref, None) == ""


def test_nothing_removes_an_image() -> None:
    """The previous one has to be there when the new one does not serve."""
    texts = [path.read_text("utf-8") for path in data("templates").rglob("*") if path.is_file()]
    removes = re.compile(r"^\s*(?!echo)\S.*docker (?:rmi|image (?:rm|prune)|system prune)", re.MULTILINE)
    assert len(texts) > 50
    assert [found for text in texts for found in removes.findall(text)] == []
