"""Options of a run, verdicts and the sentences that go with them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from provision.connection.login import Login
from provision.errors import UsageError
from provision.plan.result import Doing
from provision.run.target import Target
from provision.verify import suite
from provision.verify.suite import Choice, listed, verify
from tests.unit.local_host import LocalHost
from tests.unit.verify.conftest import Try

SENTENCES = """
from provision.verify import Missing, fail, skip, warn

def test_plain(host):
    assert host.package("not-there").is_installed
def test_value(host):
    assert host.user("root").uid == 1
def test_mode(host):
    assert host.file("/etc/passwd").mode == 0o600
def test_text(host):
    assert host.user("root").uid == 1, "root is somebody else"
@pytest.mark.hint("on {host}: passwd root")
def test_hint(host):
    assert host.user("root").shell == "/bin/none"
def test_fail():
    fail("{host} is broken", "mend {host}")
def test_warn():
    warn("it is old", "renew {host}")
def test_skip():
    skip("nothing to see")
def test_boom():
    {}["missing"]
def test_first():
    raise Missing("base", "the base is not there", "put it there")
def test_second():
    raise Missing("base", "the base is not there, seen from here")
def test_third():
    raise Missing("another base", "something else")
"""


def test_every_verdict_has_a_sentence(attempt: Try) -> None:
    tried = attempt(SENTENCES)
    said = {name: (check.verdict, check.message, check.hint) for name, check in tried.checks.items()}
    assert said["fail"] == ("fail", "{host} is broken", "mend {host}")
    assert said["warn"] == ("warn", "it is old", "renew {host}")
    assert said["skip"] == ("skip", "nothing to see", None)
    assert said["text"] == ("fail", "root is somebody else", None)
    assert said["first"] == ("fail", "the base is not there", "put it there")
    assert said["second"] == ("skip", "for the same cause as 'first'", None)
    assert said["third"] == ("fail", "something else", None)
    for name, message in {
        "plain": r'host.package\("not-there"\).is_installed is not true \(test_0.py:\d+\): exit 1: dpkg.*',
        "value": r'host.user\("root"\).uid == 1 is not true: 0 == 1 \(test_0.py:\d+\)',
        "mode": r'host.file\("/etc/passwd"\).mode == 0o600 is not true: 0o644 == 0o600 \(test_0.py:\d+\)',
        "boom": r"KeyError: 'missing' \(test_0.py:\d+\)",
    }.items():
        assert said[name][0] == "fail"
        assert re.fullmatch(message, said[name][1]), said[name][1]
    assert said["hint"][2] == "on {host}: passwd root"


def test_junit_has_warnings_skips_and_hints_with_the_name_of_the_host(attempt: Try, tmp_path: Path) -> None:
    file = tmp_path / "verify.xml"
    attempt(SENTENCES, junit=file)
    cases = {case.get("name"): case for case in ElementTree.parse(file).getroot().iter("testcase")}
    failure = cases["test_fail[h1]"].find("failure")
    assert failure is not None
    assert failure.text == "h1 is broken\nhint: mend h1"
    assert [p.attrib for p in cases["test_warn[h1]"].iter("property")] == [
        {"name": "warning", "value": "it is old"}
    ]
    for name, reason in {"skip": "nothing to see", "second": "for the same cause as 'first'"}.items():
        skipped = cases[f"test_{name}[h1]"].find("skipped")
        assert skipped is not None
        assert reason in str(skipped.get("message"))


MARKED = """
@pytest.mark.containers
def test_slow(host):
    assert host.run("echo slow").rc == 0
def test_fast(host):
    assert host.run("echo fast").rc == 0
def test_broken(host):
    assert host.run("false").rc == 0
def test_last(host):
    assert host.run("true").rc == 0
"""


def test_a_quick_look_starts_no_containers(attempt: Try) -> None:
    tried = attempt(MARKED, quick=True)
    assert list(tried.checks) == ["fast", "broken", "last"]
    assert "echo slow" not in "".join(tried.hosts[0].scripts)


def test_a_host_is_done_when_its_last_test_has_run(attempt: Try) -> None:
    live = "@pytest.mark.live\ndef test_b(host):\n    assert host.run('false').rc == 0\n"
    tried = attempt(f"def test_a():\n    pass\n{live}", names=("h1", "h2"))
    ends = [(name, event.phase) for name, event in tried.told if isinstance(event, Doing)]
    assert [end for end in ends if end[1] in ("ok", "failed")] == [("h1", "failed"), ("h2", "failed")]


def test_an_expression_selects_and_only_that_is_asked(attempt: Try) -> None:
    tried = attempt(MARKED, expression="fast and h2", names=("h1", "h2"))
    assert [(host.host, [c.name for c in host.checks]) for host in tried.result.hosts] == [("h2", ["fast"])]
    assert tried.hosts[0].execs == 0


def test_the_first_failure_can_end_the_run(attempt: Try) -> None:
    tried = attempt(MARKED, first=True, names=("h1", "h2"))
    assert list(tried.checks) == ["slow", "fast", "broken"]
    assert tried.result.stopped
    assert not attempt(MARKED, first=True, expression="fast").result.stopped


def test_what_failed_the_last_time_can_be_run_alone(
    attempt: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "CACHE", tmp_path / "cache")
    attempt(MARKED)
    assert list(attempt(MARKED, last_failed=True).checks) == ["broken"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_it", r"test_0\.py: .*No module named 'nothing_like_it'"),
        ("ROLE = 'rle'\ndef test_x(): pass", "no role 'rle'"),
        (
            "import unittest\nclass TestX(unittest.TestCase):\n    def test_x(self): pass",
            "a unittest.TestCase cannot be repeated for hosts",
        ),
        ("def test_x(instance): pass", "test_x asks for an instance, and its file names no role"),
        ("testinfra_hosts = ['ssh://a']\ndef test_x(host): pass", "test_0.py has testinfra_hosts"),
    ],
)
def test_a_suite_that_cannot_run_is_refused(attempt: Try, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attempt(text)


def test_tests_that_are_spread_over_processes_are_refused(attempt: Try, tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "conftest.py").write_text(
        "import types\ndef pytest_configure(config):\n"
        "    config.pluginmanager.register(types.ModuleType('xdist'), 'xdist')\n"
    )
    with pytest.raises(UsageError, match="pytest-xdist cannot be used"):
        attempt("def test_x(host): pass")


@pytest.mark.parametrize(
    ("expression", "message"),
    [("nothing-like-it", "no check is selected by -k 'nothing-like-it'"), ("and and", "-k 'and and' is not")],
)
def test_an_expression_that_selects_nothing_is_refused(attempt: Try, expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attempt(MARKED, expression=expression)


@pytest.mark.parametrize("place", [".", "none/x.xml"])
def test_a_junit_report_that_cannot_be_written_is_refused(attempt: Try, tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        attempt(MARKED, junit=tmp_path / place)


def test_the_checks_are_named_without_asking_a_host(tmp_path: Path) -> None:
    (tmp_path / "test_named.py").write_text(f"import pytest\n{MARKED}")
    targets = [Target(name, Login(name, "127.0.0.1", 22, "root"), {}) for name in ("h1", "h2")]
    assert listed(targets, Choice(suites=(tmp_path,), quick=True)) == {
        "fast": ["h1", "h2"], "broken": ["h1", "h2"], "last": ["h1", "h2"],
    }  # fmt: skip


def test_a_fixture_that_there_is_not_is_named(attempt: Try) -> None:
    check = attempt("def test_x(nothing): pass").checks["x"]
    assert (check.verdict, check.message) == ("fail", "there is no fixture 'nothing'")


def test_nothing_reaches_standard_output(attempt: Try, capfd: pytest.CaptureFixture[str]) -> None:
    attempt("def test_x(host):\n    print(host.run('echo loud').stdout)\n")
    assert capfd.readouterr().out == ""


def test_what_a_host_prints_cannot_stop_the_run(attempt: Try) -> None:
    def made(host: LocalHost) -> None:
        host.patience = 20

    tried = attempt(
        "def test_x(host):\n    assert host.run('head -c 300000 /dev/urandom; false').rc == 0\n", made=made
    )
    assert tried.checks["x"].verdict == "fail"
    assert len(tried.checks["x"].message) < 1000


def test_a_test_that_ends_the_run_says_so(attempt: Try) -> None:
    tried = attempt(
        "def test_a(host):\n    assert host.run('true').rc == 0\n"
        "def test_b():\n    pytest.exit('bye', returncode=0)\n"
        "def test_c(host):\n    assert host.run('false').rc == 0\n"
    )
    assert tried.verdicts() == {"a": "pass"}
    assert tried.result.stopped
    assert tried.result.exit_code != 0


def test_what_was_found_before_an_interrupt_is_kept(attempt: Try, tmp_path: Path) -> None:
    file = tmp_path / "verify.xml"
    tried = attempt(
        "def test_a(host):\n    assert host.run('true').rc == 0\n"
        "def test_b(host):\n    assert host.run('false').rc == 0\n"
        "@pytest.mark.live\ndef test_c():\n    raise KeyboardInterrupt\n",
        junit=file,
    )
    assert tried.verdicts() == {"a": "pass", "b": "fail"}
    assert tried.result.interrupted
    assert "checks are missing" in tried.result.text()
    cases = [case.get("name") for case in ElementTree.parse(file).getroot().iter("testcase")]
    assert cases[:2] == ["test_a[h1]", "test_b[h1]"]


def test_a_report_without_space_takes_nothing_of_what_was_found_with_it(attempt: Try) -> None:
    tried = attempt(MARKED, junit=Path("/dev/full"))
    assert len(tried.checks) == 4
    assert str(tried.result.unwritten) == "/dev/full: No space left on device"


def test_a_file_alone_and_what_lies_beside_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words_beside_it.py").write_text("WORD = 'said'\n")
    file = tmp_path / "test_alone.py"
    file.write_text(
        "import os, words_beside_it\ndef test_x(host):\n    os.write(1, b'loud')\n"
        "    assert host.check_output('echo said') == words_beside_it.WORD\n"
    )
    target = Target("h1", Login("h1", "127.0.0.1", 22, "root"), {})
    found = verify([target], Choice(suites=(file,)), connect=LocalHost)
    assert [(check.name, check.verdict) for check in found.hosts[0].checks] == [("x", "pass")]
    assert capfd.readouterr().out == ""


def test_a_finding_is_shown_without_what_is_known_to_be_secret(tmp_path: Path) -> None:
    file = tmp_path / "test_secret.py"
    file.write_text("def test_x(host):\n    said = 'X was envSECRETplain22'\n    assert not said, said\n")
    variables = ({"triton": {"env": {"X": "envSECRETplain22"}}},)
    target = Target("h1", Login("h1", "127.0.0.1", 22, "root", variables=variables), {})
    found = verify([target], Choice(suites=(file,)), connect=LocalHost)
    assert [check.message for check in found.hosts[0].checks] == ["X was (hidden)"]
