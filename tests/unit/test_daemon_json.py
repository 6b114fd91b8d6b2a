"""daemon.json: nothing of its owner's is lost, ours is set, and what is no longer ours goes."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import simplejson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provision.errors import Refusal
from provision.resource import ABSENT, Change, Planned
from provision.resources.file import FileState, checksum
from provision.resources.signals import DOCKER_STORE_MOVED
from provision.roles.docker.daemon_json import DaemonJson, DaemonJsonState
from provision.roles.docker.daemon_options import RELOADABLE, problem
from provision.roles.docker.memory import MEMORY, PENDING, as_memory
from provision.roles.docker.merge import merge, without
from provision.roles.docker.text import BOM, DAEMON_JSON, Number, as_text, equal, loads, parse

PATH = "nvidia-container-runtime"
NVIDIA: dict[str, Any] = {"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": PATH}}}
INITIAL: dict[tuple[str, ...], Any] = {("runtimes", "nvidia"): {"args": [], "path": PATH}}


def file(content: bytes | None, type_: str = "file", owner: str = "root") -> FileState:
    return FileState(type_, "0640", owner, "root", content)


def text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


@dataclass
class Host:
    """A host with a daemon.json, for one change after the other."""

    state: DaemonJsonState

    @staticmethod
    def having(content: bytes | None) -> Host:
        return Host(DaemonJsonState(ABSENT if content is None else file(content)))

    @property
    def content(self) -> bytes:
        assert isinstance(self.state.file, FileState)
        assert self.state.file.content is not None
        return self.state.file.content

    @property
    def document(self) -> dict[str, Any]:
        return parse(self.content)

    def edit(self, document: Mapping[str, Any]) -> None:
        """What its owner does."""
        self.state = replace(self.state, file=file(text(document)))

    def plan(self, wanted: Mapping[str, Any]) -> Change | None:
        return DaemonJson(wanted, INITIAL if "runtimes" in wanted else {}).change(self.state, Planned())

    def apply(self, wanted: Mapping[str, Any], *, until: str = "") -> Change | None:
        """Make the change, as its script does; ``until`` cuts it after the write of that path."""
        change = self.plan(wanted)
        if change is None:
            return None
        written = dict(writes(change.script))
        if PENDING in written and until != DAEMON_JSON:
            written[MEMORY] = written.pop(PENDING)
        if until == MEMORY:
            raise AssertionError("MEMORY comes last")
        for path, content in written.items():
            name = {DAEMON_JSON: "file", MEMORY: "memory", PENDING: "pending"}[path]
            found: dict[str, Any] = {name: file(content)}
            self.state = replace(self.state, **found)
        if MEMORY in written:
            self.state = replace(self.state, pending=ABSENT)
        return change


def writes(script: str) -> Iterator[tuple[str, bytes]]:
    """The files that a step writes."""
    for path, body in re.findall(
        r"^write_file (\S+) [^\n]*<<'END'[^\n]*\n(.*?)END$", script, re.MULTILINE | re.DOTALL
    ):
        yield path, base64.b64decode(body)


# --- any document ---------------------------------------------------------------------------------

NAMES = st.text(st.characters(), max_size=6) | st.sampled_from(
    ["runtimes", "nvidia", "default-runtime", "args", "path", "log-opts", "features"]
)
ODD = ["1e2", "1E+400", "-0", "-0.0", "0.10", "12345678901234567890", "1.0000000000000000001", "1", "1.0"]
NUMBERS = (st.sampled_from(ODD) | st.integers().map(str)).map(Number)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(st.characters(), max_size=12)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=4), max_leaves=12
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=6)
INDENTS = st.sampled_from([None, "  ", "\t", "    "])


def written(document: Any, indent: str | None, ascii_only: bool) -> bytes:
    dumped = simplejson.dumps(document, indent=indent, ensure_ascii=ascii_only)
    return dumped.encode("utf-8", "backslashreplace")


def lost(before: Any, after: Any, wanted: Any) -> list[str]:
    """Keys of ``before`` that ``after`` has not, or has with another value, though nobody wanted one."""
    found = []
    for key, value in before.items():
        if key not in after:
            found.append(key)
        elif key not in wanted:
            found += [] if equal(after[key], value) else [key]
        elif isinstance(value, dict) and isinstance(wanted[key], dict):
            found += lost(value, after[key], wanted[key])
    return found


@settings(max_examples=80, deadline=None)
@given(existing=DOCUMENTS, wanted=DOCUMENTS | st.just(NVIDIA), indent=INDENTS, ascii_only=st.booleans())
def test_nothing_of_the_owners_is_lost(
    existing: Any, wanted: Any, indent: str | None, ascii_only: bool
) -> None:
    content = written(existing, indent, ascii_only)
    assert equal(parse(content), existing)
    host = Host.having(content)
    change = host.apply(wanted)
    assert lost(existing, host.document, wanted) == []
    assert list(host.document)[: len(existing)] == list(existing)
    if change is None:
        assert host.content == content


@settings(max_examples=80, deadline=None)
@given(existing=DOCUMENTS | st.none(), wanted=DOCUMENTS | st.just(NVIDIA))
def test_twice_is_once(existing: Any, wanted: Any) -> None:
    host = Host.having(None if existing is None else written(existing, None, True))
    host.apply(wanted)
    content = host.content
    assert host.plan(wanted) is None
    assert equal(merge(host.document, (), wanted).document, host.document)
    assert host.content == content


@settings(max_examples=100, deadline=None)
@given(existing=DOCUMENTS, wanteds=st.lists(DOCUMENTS | st.just(NVIDIA), max_size=4))
@example(existing={}, wanteds=[{"runtimes": {"nvidia": {"args": None}}}])
@example(existing={}, wanteds=[{"runtimes": {"nvidia": None}}, {"runtimes": {}}, {"runtimes": None}])
def test_without_our_settings_it_means_what_it_meant(existing: Any, wanteds: list[Any]) -> None:
    """However often the settings changed in between."""
    host = Host.having(written(existing, None, True))
    for wanted in [*wanteds, {}]:
        host.apply(wanted)
    assert equal(host.document, existing)


@settings(max_examples=80, deadline=None)
@given(existing=DOCUMENTS, first=DOCUMENTS, edited=DOCUMENTS, second=DOCUMENTS)
def test_what_its_owner_wrote_after_us_is_theirs(existing: Any, first: Any, edited: Any, second: Any) -> None:
    """As soon as we no longer want it, it is as they wrote it. Of an object, that goes for each key in it."""
    host = Host.having(written(existing, None, True))
    host.apply(first)
    theirs = {
        key: value
        for key, value in edited.items()
        if not equal(host.document.get(key), value)
        and not (isinstance(value, dict) and isinstance(host.document.get(key), dict))
    }
    host.state = replace(host.state, file=file(written({**host.document, **theirs}, None, True)))
    host.apply(second)
    assert lost(theirs, host.document, second) == []
    host.apply({})
    assert all(equal(host.document[key], value) for key, value in theirs.items())


@settings(max_examples=80, deadline=None)
@given(existing=DOCUMENTS, first=DOCUMENTS, second=DOCUMENTS, cut=st.sampled_from([PENDING, DAEMON_JSON]))
def test_a_run_that_ends_between_the_files_converges(
    existing: Any, first: Any, second: Any, cut: str
) -> None:
    host = Host.having(written(existing, None, True))
    host.apply(first)
    change = host.plan(second)
    if change is not None:
        # As far as the run came: the new memory under its first name, and perhaps daemon.json.
        files = dict(writes(change.script))
        names = {PENDING: "pending"} | ({DAEMON_JSON: "file"} if cut == DAEMON_JSON else {})
        for path, name in names.items():
            if path in files:
                found: dict[str, Any] = {name: file(files[path])}
                host.state = replace(host.state, **found)
    host.apply(second)
    assert host.plan(second) is None
    host.apply({})
    assert equal(host.document, existing)


# --- by example -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "literal", ["1e2", "12345678901234567890", "1.0000000000000000001", "1e400", "-0", "0.10", "9" * 5000]
)
def test_a_number_stays_as_it_is_written(literal: str) -> None:
    host = Host.having(f'{{"a": [{literal}]}}'.encode())
    host.apply(NVIDIA)
    assert f"        {literal}\n".encode() in host.content


def test_keys_that_we_set_and_no_longer_want_go() -> None:
    host = Host.having(b'{"log-driver": "local", "labels": ["a"]}')
    first = host.apply({**NVIDIA, "log-driver": "journald", "debug": True, "log-opts": {"tag": "x"}})
    assert first is not None
    assert (
        first.summary == f"set log-driver, debug, log-opts, default-runtime, runtimes in {DAEMON_JSON}"
        or ("set log-driver" in first.summary)
    )
    second = host.apply(NVIDIA)
    assert second is not None
    assert second.summary == f"set log-driver and remove debug, log-opts in {DAEMON_JSON}"
    assert host.document["log-driver"] == "local"
    host.apply({})
    assert host.document == {"log-driver": "local", "labels": ["a"]}


def test_a_key_that_its_owner_changed_after_us_is_theirs() -> None:
    host = Host.having(b"{}")
    host.apply({"debug": True, "log-opts": {"max-size": "1m"}})
    host.edit({"debug": False, "log-opts": {"max-size": "1m", "max-file": "2"}})
    host.apply({})
    assert host.document == {"debug": False, "log-opts": {"max-file": "2"}}
    host.apply({"log-opts": {"tag": "x", "env": "y"}})
    host.apply({})
    assert host.document == {"debug": False, "log-opts": {"max-file": "2"}}


def test_what_its_owner_had_already_is_not_ours() -> None:
    host = Host.having(text({"debug": True}))
    assert host.apply({"debug": True}) is None
    assert host.apply({}) is None
    assert host.document == {"debug": True}


def test_drift_is_set_right_and_remembered() -> None:
    host = Host.having(None)
    host.apply(NVIDIA)
    host.edit({**host.document, "default-runtime": "runc"})
    change = host.apply(NVIDIA)
    assert change is not None
    assert change.summary == f"set default-runtime in {DAEMON_JSON}"
    host.apply({})
    assert host.document == {"default-runtime": "runc"}


def test_lists_are_replaced_and_come_back() -> None:
    host = Host.having(text({"insecure-registries": ["a:5000"]}))
    host.apply({"insecure-registries": ["b:5000"]})
    assert host.document == {"insecure-registries": ["b:5000"]}
    host.apply({})
    assert host.document == {"insecure-registries": ["a:5000"]}


def test_arguments_of_an_existing_runtime_stay() -> None:
    runtime = {"path": "/opt/old", "runtimeArgs": ["--debug"]}
    host = Host.having(text({"runtimes": {"nvidia": runtime, "kata": {"path": "/k"}}}))
    host.apply(NVIDIA)
    assert host.document["runtimes"] == {
        "nvidia": {"path": PATH, "runtimeArgs": ["--debug"]},
        "kata": {"path": "/k"},
    }
    host.apply({})
    assert host.document == {"runtimes": {"nvidia": runtime, "kata": {"path": "/k"}}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe{\x00}\x00", "daemon.json:1: it is UTF-16, and dockerd reads UTF-8"),
        (b"[]", "holds a JSON list, not an object"),
        (b'"x"', "holds a JSON text, not an object"),
        (b"null", "holds a JSON null, not an object"),
        (b"true", "holds a JSON true or false, not an object"),
        (b"1", "holds a JSON number, not an object"),
        (b"{}\n{}", "daemon.json:2: not JSON: text follows the end of the document"),
        (b'{"a": 1,\n}', "daemon.json:1: not JSON: Illegal trailing comma"),
        (b'{"a": NaN}', "daemon.json:1: not JSON"),
        (b'{\n"a": -Infinity}', "daemon.json:2: not JSON"),
        (b'{"a": 1,\n "b": {"c": 1,\n "c": 2}}', 'daemon.json:3: key "c" is there twice in one object'),
        (b'{"a": 1,\n "\\u0061": 2}', 'daemon.json:2: key "\\u0061" is there twice in one object'),
        (b"{'a': 1}", "daemon.json:1: not JSON"),
        (b'{"a": 1} // mine', "daemon.json:1: not JSON: text follows"),
        (b'{\n"a": "\xff"}', "daemon.json:2: not UTF-8: byte 8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_never_overwritten(content: bytes, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        Host.having(content).plan(NVIDIA)
    assert says in caught.value.message
    assert DAEMON_JSON in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", ['{"x": "{\\"x\\": 1}", "y": "}"}', '{"a": {"x": 1}, "b": [{"x": 1}, {"x": 2}], "x": 0}']
)
def test_a_key_may_be_in_several_objects_and_in_texts(content: str) -> None:
    assert equal(loads(content), simplejson.loads(content, parse_int=Number))


@pytest.mark.parametrize(("type_", "says"), [("directory", "is a directory"), ("file", "is too large")])
def test_what_is_not_a_readable_file_is_never_overwritten(type_: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        Host(DaemonJsonState(file(None, type_))).plan(NVIDIA)


@pytest.mark.parametrize(
    "memory",
    [b"", b"[]", b'{"schema": 2}', b'{"schema": 1, "settings": [{"path": 1}]}', b"\xff", b"[" * 100_000],
)
def test_a_memory_that_is_not_ours_is_refused(memory: bytes) -> None:
    with pytest.raises(Refusal, match=re.escape(MEMORY)) as caught:
        Host(DaemonJsonState(file(b"{}"), file(memory))).plan(NVIDIA)
    assert caught.value.hint
    assert "count as your own" in caught.value.hint


def test_a_link_that_points_to_nothing_is_refused() -> None:
    with pytest.raises(Refusal, match=f"there is a dangling link at {DAEMON_JSON}"):
        Host(DaemonJsonState(file(None, "dangling link"))).plan(NVIDIA)


def test_a_host_without_the_file() -> None:
    change = Host(DaemonJsonState()).plan(NVIDIA)
    assert change is not None
    assert (change.action, change.resource) == ("create", f"file:{DAEMON_JSON}")
    assert change.summary == f"set default-runtime, runtimes in {DAEMON_JSON}"
    assert change.guard == f"[ ! -e {DAEMON_JSON} ]"
    assert f"owned {DAEMON_JSON} '0644 root:root'" in change.done


RELOAD, RESTART, LIVE = "docker:reload", "docker:restart", "docker:live-restore"
STORE = DOCKER_STORE_MOVED.name
OURS = {**NVIDIA, "runtimes": {"nvidia": {"args": [], "path": PATH}}}


@pytest.mark.parametrize("content", [b"", b" \n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}", b"{}"])
def test_a_file_without_keys_is_an_object_without_keys(content: bytes) -> None:
    change = Host.having(content).plan(NVIDIA)
    assert change is not None
    assert change.summary == f"set default-runtime, runtimes in {DAEMON_JSON}"
    assert base64.b64encode(b"{\n")[:2].decode() in change.script


def test_mode_and_group_stay_as_they_are_and_the_owner_is_root() -> None:
    change = Host(DaemonJsonState(file(b"{}", owner="docker"))).plan(NVIDIA)
    assert change is not None
    assert f"write_file {DAEMON_JSON} 0640 root:root" in change.script
    nobodys = Host(DaemonJsonState(file(b"{}", owner="UNKNOWN"))).plan(NVIDIA)
    assert nobodys is not None
    assert f"write_file {DAEMON_JSON} 0644 root:root" in nobodys.script


RIGHT = text(OURS)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (FileState("file", "0666", "root", "root", RIGHT), "mode is 0666, wanted 0644"),
        (FileState("file", "0664", "root", "docker", RIGHT), "mode is 0664, wanted 0644"),
        (FileState("file", "0600", "docker", "docker", RIGHT), "owner is docker:docker, wanted root:docker"),
        (FileState("file", "0644", "root", "root", BOM + RIGHT), "its content differs"),
        (FileState("file", "0600", "root", "root", RIGHT), None),
        (FileState("file", "0640", "root", "docker", RIGHT), None),
    ],
)
def test_a_file_that_others_may_write_is_taken_back(state: FileState, reason: str | None) -> None:
    """What it says becomes root's: the path of a runtime, for one. dockerd has nothing to read again."""
    memory = FileState("file", "0600", "root", "root", as_memory((), RIGHT))
    change = Host(DaemonJsonState(state, memory)).plan(NVIDIA)
    assert (change and change.reason) == reason
    if change:
        assert change.signals == ()
        assert 'touch -d "$read_at"' in change.script, "dockerd read it at that time, and reads it no more"
        assert change.done.count("&&") >= 2


CONFLICT = (
    "== unit /etc/systemd/system/docker.service.d/x.conf\n[Service]\nExecStart=\nExecStart=dockerd -H fd://\n"
)


@pytest.mark.parametrize("content", [text({"hosts": ["fd://"]}), text({**OURS, "hosts": ["fd://"]})])
def test_a_flag_and_a_key_of_the_owner_are_refused_whatever_else_is_planned(content: bytes) -> None:
    """The next start of dockerd would fail, whether it comes from a plan or from a reboot."""
    with pytest.raises(Refusal, match=r"starts dockerd with -H, and .* has hosts"):
        Host(DaemonJsonState(file(content), unit_files=CONFLICT)).plan(NVIDIA)
    assert Host(DaemonJsonState(file(b"{}"), unit_files=CONFLICT)).plan(NVIDIA) is not None


def test_the_memory_is_for_root_alone_and_written_in_the_same_step() -> None:
    change = Host.having(b"{}").plan(NVIDIA)
    assert change is not None
    words = ("validate_daemon_json", "keep_working_daemon_json", "write_file", "mv")
    noted = "".join(f'{word}() {{ echo "{word} $*"; cat >/dev/null; }}\n' for word in words)
    ran = subprocess.run(
        ["sh", "-c", noted + change.script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip() for line in ran.stdout.splitlines()] == [
        "validate_daemon_json",
        "keep_working_daemon_json",
        f"write_file {PENDING} 0600 root:root",
        f"write_file {DAEMON_JSON} 0640 root:root",
        f"mv -f -T -- {PENDING} {MEMORY}",
    ]
    memory = dict(writes(change.script))[PENDING]
    assert f"holds {MEMORY} {checksum(memory)}" in change.done


def test_a_memory_that_is_behind_is_a_change_of_its_own() -> None:
    host = Host.having(b"{}")
    change = host.plan({"debug": True})
    assert change is not None
    files = dict(writes(change.script))
    host.state = replace(host.state, file=file(files[DAEMON_JSON]), pending=file(files[PENDING]))
    left = host.apply({"debug": True})
    assert left is not None
    assert (left.action, left.reason, left.signals) == ("remember", "an earlier run ended before it", ())
    assert host.plan({"debug": True}) is None
    host.edit({"debug": False})
    stale = host.apply({})
    assert stale is not None
    assert stale.reason == "its owner changed one of them"
    assert host.plan({}) is None


@pytest.mark.parametrize(("indent", "margin"), [(2, b"\n  "), ("\t", b"\n\t"), (None, b"\n    ")])
def test_the_indentation_stays(indent: Any, margin: bytes) -> None:
    host = Host.having(json.dumps({"debug": True}, indent=indent).encode())
    host.apply(NVIDIA)
    assert b"{" + margin + b'"debug": true,' in host.content


def test_the_diff_shows_only_what_changes() -> None:
    existing = {"log-driver": "local", "runtimes": {"kata": {"path": "/opt/kata"}}}
    change = Host.having(as_text(existing)).plan(NVIDIA)
    assert change is not None
    changed = [line[1:].strip() for line in change.diff.splitlines() if line[:1] in "+-" and line[1:2] == " "]
    assert '"log-driver": "local",' not in changed
    assert '"default-runtime": "nvidia"' in changed
    assert change.reason == "other keys stay as they are"


@pytest.mark.parametrize(
    ("existing", "wanted", "signals"),
    [
        ({}, NVIDIA, (RELOAD,)),
        ({"default-runtime": "runc", "x": 1}, NVIDIA, (RELOAD,)),
        (OURS, {**NVIDIA, "data-root": "/data"}, (RESTART, STORE)),
        (OURS, {**NVIDIA, "log-driver": "local", "debug": True}, (RESTART,)),
        ({**OURS, "data-root": "/data"}, {**NVIDIA, "data-root": "/data", "debug": True}, (RELOAD,)),
        ({}, {"bip": None}, (RESTART,)),
        ({"live-restore": 1}, {"live-restore": True}, (RELOAD, LIVE)),
        ({"live-restore": True}, {"bip": "10.0.0.1/24"}, (RESTART, LIVE)),
        ({"live-restore": True}, {"live-restore": False, "bip": "10.0.0.1/24"}, (RESTART,)),
        ({}, {"features": {"buildkit": False}}, (RELOAD,)),
        ({"features": {"buildkit": True}}, {"features": {"cdi": True}}, (RESTART,)),
        ({}, {"features": {"containerd-snapshotter": True}}, (RESTART, STORE)),
        ({"features": {"containerd-snapshotter": False}}, {"features": {"cdi": True}}, (RESTART,)),
        ({}, {"userns-remap": "default"}, (RESTART, STORE)),
        *[({}, {key: "x"}, (RELOAD,)) for key in sorted(RELOADABLE)],
    ],
)
def test_dockerd_is_restarted_only_where_a_reload_is_not_enough(
    existing: dict[str, Any], wanted: dict[str, Any], signals: tuple[str, ...]
) -> None:
    change = Host.having(text(existing)).plan(wanted)
    assert change is not None
    assert change.signals == signals


@pytest.mark.parametrize(
    ("gone", "signal"),
    [
        ({"default-runtime": "crun"}, RESTART),
        ({"debug": True}, RESTART),
        ({"features": {"buildkit": True}}, RELOAD),
        ({"max-concurrent-downloads": 9}, RELOAD),
        ({"bip": "10.0.0.1/24"}, RESTART),
    ],
)
def test_a_reload_does_not_reset_every_key_that_goes(gone: dict[str, Any], signal: str) -> None:
    host = Host.having(b"{}")
    host.apply(gone)
    change = host.plan({})
    assert change is not None
    assert change.signals == (signal,)


def test_a_change_of_any_kind_is_seen() -> None:
    """For Python True equals 1; dockerd refuses the one where it wants the other."""
    for existing, wanted in (({"live-restore": 1}, True), ({"live-restore": "true"}, True), ({}, None)):
        change = Host.having(text(existing)).plan({"live-restore": wanted})
        assert change is not None
        assert change.summary.startswith("set live-restore in")


def test_half_a_surrogate_pair_survives() -> None:
    content = b'{"label": "\\ud800"}'
    assert parse(as_text(parse(content))) == parse(content)


def test_the_layout_is_that_of_nvidia_ctk() -> None:
    """As nvidia-ctk 1.20.0 writes it, but for the newline at the end."""
    assert DaemonJson(NVIDIA, INITIAL).rendered().content.decode() == (
        '{\n    "default-runtime": "nvidia",\n    "runtimes": {\n        "nvidia": {\n'
        '            "args": [],\n            "path": "nvidia-container-runtime"\n        }\n    }\n}\n'
    )


def test_taking_back_what_was_never_there_does_nothing() -> None:
    earlier = merge({}, (), {"a": {"b": 1}}).settings
    documents: list[dict[str, Any]] = [{}, {"a": 1}, {"a": []}, {"a": {"b": 2}}, {"a": {}, "c": 1}]
    for document in documents:
        assert without(document, earlier) == document


@pytest.mark.parametrize(
    ("wanted", "mode"),
    [
        ({"log-opts": {"splunk-token": "pw2"}}, "0600"),
        ({"proxies": {"http-proxy": "http://me:pw@proxy:1"}}, "0600"),
        ({"proxies": {"http-proxy": "http://proxy:1"}, "debug": True}, "0644"),
    ],
)
def test_a_new_file_with_secrets_is_roots_alone(wanted: dict[str, Any], mode: str) -> None:
    change = Host.having(None).plan(wanted)
    assert change is not None
    assert f"write_file {DAEMON_JSON} {mode} root:root" in change.script
    rendered = DaemonJson(wanted).rendered()
    assert rendered.mode == mode
    there = Host(DaemonJsonState(replace(file(b"{}"), mode="0644")))
    assert f"write_file {DAEMON_JSON} 0644 root:root" in str(there.plan(wanted)), "the mode is its owner's"
    said = "".join(DaemonJson(wanted).notes(there.state, Planned()))
    assert ("everybody can read it" in said) is (mode == "0600")
    assert "pw" not in said


def test_a_diff_shows_no_secrets() -> None:
    existing = {"proxies": {"http-proxy": "http://me:pw1@proxy:1", "no-proxy": "a@b"}}
    logs = {"splunk-token": "pw2", "splunk-url": "https://splunk:8088"}
    change = Host.having(text(existing)).plan({"log-driver": "splunk", "log-opts": logs})
    assert change is not None
    assert "pw" not in change.diff
    assert '"http-proxy": "http://(hidden)@proxy:1"' in change.diff
    assert '"splunk-token": (hidden)' in change.diff
    assert '"splunk-url": "https://splunk:8088"' in change.diff
    assert '"no-proxy": "a@b"' in change.diff


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("max-concurrent-downloads", 0, 2**63 - 1),
        ("max-concurrent-uploads", 0, 2**63 - 1),
        ("max-download-attempts", 1, 2**63 - 1),
        ("mtu", 0, 65535),
        ("network-control-plane-mtu", 0, 65535),
        ("network-diagnostic-port", 0, 65535),
        ("oom-score-adjust", -1000, 1000),
        ("shutdown-timeout", -(2**63), 2**63 - 1),
        ("cpu-rt-period", -(2**63), 2**63 - 1),
    ],
)
def test_numbers_have_bounds(key: str, least: int, most: int) -> None:
    assert [problem(key, value) for value in (least, most)] == ["", ""]
    refused = f"must be from {least} to {most}"
    assert [problem(key, value) for value in (least - 1, most + 1)] == [refused, refused]
