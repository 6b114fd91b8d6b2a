"""Plain testinfra tests against shells of this machine: a few execs, and the outcomes that they have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision.connection.login import Login
from provision.errors import HostError
from provision.probe import Output, Probe
from provision.run.target import Target
from provision.verify.backend import Backend, Mode
from provision.verify.suite import Choice, verify
from tests.unit.local_host import LocalHost
from tests.unit.verify.conftest import Try


def test_what_many_tests_ask_is_asked_once_and_together(attempt: Try) -> None:
    tried = attempt(
        """
@pytest.mark.parametrize("number", range(20))
def test_file(host, number):
    assert host.file("/etc/passwd").exists
    assert host.file("/etc/passwd").user == "root"
""",
        'def test_other(host):\n    assert host.file("/etc/passwd").exists\n',
        names=("h1", "h2", "h3"),
    )
    assert [host.status for host in tried.result.hosts] == ["ok"] * 3
    assert [len(host.checks) for host in tried.result.hosts] == [21] * 3
    # uname, what testinfra asks to know the system, the file, its owner
    assert tried.result.rounds <= 4
    assert [host.execs for host in tried.result.hosts] == [tried.result.rounds] * 3
    assert tried.result.live == ()
    asked = "".join(tried.hosts[0].scripts)
    assert asked.count("test -e /etc/passwd") == 1


def test_a_host_that_refused_is_not_asked_again() -> None:
    backend = Backend(LocalHost(Login("h1", "127.0.0.1", 22, "root")))
    backend.begin("test", Mode.REHEARSAL)
    backend.memory.lost = HostError("h1", "sudo refuses the password")
    with pytest.raises(HostError, match="sudo refuses"):
        backend.answers([Probe("system", "uname")])
    assert not backend.memory.wanted, "each time counts as a wrong password"


def test_what_a_test_runs_itself_happens_in_its_order(attempt: Try) -> None:
    tried = attempt(
        """
def test_writes(host):
    assert not host.file(T + "/x").exists
    assert host.run("echo one >>%s", T + "/x").rc == 0
    assert host.file(T + "/x").content_string == "one\\n"
    assert host.run("echo one >>%s", T + "/x").rc == 0
    assert host.file(T + "/x").content_string == "one\\none\\n"
    assert host.check_output("wc -l <%s", T + "/x") == "2"
def test_counts(host):
    host.run("echo >>%s", T + "/count")
    assert host.check_output("wc -l <%s", T + "/count") == "1"
    host.run("echo >>%s", T + "/count")
    assert host.check_output("wc -l <%s", T + "/count") == "2"
"""
    )
    assert set(tried.verdicts().values()) == {"pass"}, tried.result.text()
    assert tried.result.live == ("writes on h1 (it changes the host)", "counts on h1 (it changes the host)")


TOGETHER = """
@pytest.fixture
def folder(host):
    host.check_output("mkdir %s", T + "/made")
    yield T + "/made"
    host.check_output("rmdir %s", T + "/made")
def test_first(host, folder):
    assert host.file(folder).is_directory
def test_second(host, folder):
    assert host.file(folder).is_directory
def test_third(host):
    assert not host.file(T + "/made").exists
def test_writes(host):
    host.run("echo a >>%s", T + "/over")
    assert host.file(T + "/over").content_string == "a\\n"
def test_writes_too(host):
    host.run("echo b >%s", T + "/over")
    assert host.file(T + "/over").content_string == "b\\n"
"""


def test_tests_that_write_the_same_do_not_meet(attempt: Try) -> None:
    tried = attempt(TOGETHER)
    assert set(tried.verdicts().values()) == {"pass"}, tried.result.text()


def test_what_a_command_leaves_behind_prints_into_no_other_answer(attempt: Try, tmp_path: Path) -> None:
    tried = attempt(
        """
def test_late(host):
    assert host.run("(sleep 0.5; printf late) & printf early").stdout == "earlylate"
def test_slow(host):
    assert host.check_output("sleep 0.8; echo ok") == "ok"
def test_once(host):
    assert host.run("/bin/sh -c 'echo x; date +%N'").rc == 0
"""
    )
    assert set(tried.verdicts().values()) == {"pass"}, tried.result.text()
    assert tried.result.live == ()


def test_what_is_local_is_as_it_was_for_every_test(attempt: Try) -> None:
    tried = attempt(
        """
import os
def test_first(host):
    assert host.run("true").rc == 0
    assert "SET_BY_A_TEST" not in os.environ
    assert os.getcwd() != "/"
def test_second(host):
    assert host.run("true").rc == 0
    os.environ["SET_BY_A_TEST"] = "1"
    os.chdir("/")
def test_properties(host, record_property):
    record_property("ran", 1)
    assert host.run("true").rc == 0
def test_nul(host):
    with pytest.raises(ValueError, match="NUL"):
        host.run("tr '\\0' x")
def test_subtests(host, subtests):
    for number in range(3):
        with subtests.test(number=number):
            assert host.check_output(f"echo {number}") == str(number)
def test_stock():
    import testinfra
    assert testinfra.get_host("local://").run("true").rc == 0
""",
    )
    os.environ.pop("SET_BY_A_TEST", None)
    os.chdir(Path(__file__).parents[3])
    assert set(tried.verdicts().values()) == {"pass"}, tried.result.text()


def test_a_test_that_waits_asks_its_host_itself(attempt: Try) -> None:
    tried = attempt(
        """
def test_sleeps(host):
    host.run("python3 -c %s >/dev/null 2>&1 &", f"import time; time.sleep(0.4); open({T + '/late'!r}, 'w')")
    for _ in range(40):
        if host.file(T + "/late").exists:
            return
        time.sleep(0.05)
    assert False, "never"
def test_spins(host):
    end = time.monotonic() + 5
    host.run("python3 -c %s >/dev/null 2>&1 &", f"import time; time.sleep(0.6); open({T + '/later'!r}, 'w')")
    while time.monotonic() < end:
        if host.file(T + "/later").exists:
            return
    assert False, "never"
"""
    )
    assert tried.verdicts() == {"sleeps": "pass", "spins": "pass"}
    assert tried.result.live == ("sleeps on h1 (it waits)", "spins on h1 (it waits for a change)")


def test_what_a_test_does_on_this_machine_is_done_once(attempt: Try, tmp_path: Path) -> None:
    tried = attempt(
        """
import subprocess
def test_program(host):
    assert host.run("true").rc == 0
    subprocess.run(["sh", "-c", f"echo >>{T}/started"], check=True)
    assert host.run("true").rc == 0
"""
    )
    assert tried.verdicts() == {"program": "pass"}
    assert (tmp_path / "started").read_text() == "\n"
    assert tried.result.live == ("program on h1 (it uses this machine)",)


def test_what_a_test_asks_anew_each_time_is_asked_once(attempt: Try, tmp_path: Path) -> None:
    tried = attempt(
        """
def test_token(host):
    token = str(time.monotonic_ns())
    assert host.check_output("echo %s", token) == token
"""
    )
    assert tried.verdicts() == {"token": "pass"}
    assert tried.result.live == ("token on h1 (it asks something else each time)",)


def test_fixtures_set_up_and_clean_up_as_always(attempt: Try, tmp_path: Path) -> None:
    tried = attempt(
        """
@pytest.fixture(scope="module")
def made(host):
    host.run("echo made >>%s", T + "/log")
    yield host.check_output("cat %s", T + "/log")
    host.run("echo cleaned >>%s", T + "/log")
@pytest.fixture
def each(host, made):
    yield made
    host.run("echo each >>%s", T + "/log")
def test_one(host, each):
    assert each.startswith("made")
def test_two(host, each):
    assert each.startswith("made")
"""
    )
    assert tried.verdicts() == {"one": "pass", "two": "pass"}
    assert (tmp_path / "log").read_text().split() == ["made", "each", "each", "cleaned"]


def test_outcomes_of_pytest_are_what_they_are(attempt: Try) -> None:
    tried = attempt(
        """
@pytest.mark.skip(reason="not today")
def test_skip(host):
    assert host.run("touch %s", T + "/never").rc == 0
@pytest.mark.skipif("True", reason="never")
def test_skipif(host):
    assert False
@pytest.mark.xfail(reason="known")
def test_xfail(host):
    assert host.run("false").rc == 0
@pytest.mark.xfail(run=False)
def test_not_run(host):
    assert host.run("touch %s", T + "/never").rc == 0
def test_raises(host):
    with pytest.raises(AssertionError, match="Unexpected exit code 1"):
        host.check_output("false")
def test_swallows(host):
    try:
        found = host.run("echo 1").stdout
    except:
        found = "nothing"
    assert found == "1\\n"
def test_codes(host):
    assert host.run("exit 255").rc == 255
    assert host.run("kill -9 $$").rc == 137
    assert host.run("cat").stdout == ""
def test_bytes(host):
    assert host.run("printf '\\\\377\\\\0x'").stdout_bytes == b"\\xff\\0x"
def test_no_host():
    assert True
def test_finished(host):
    assert not host.file(T + "/never").exists
"""
    )
    assert tried.verdicts() == {
        "skip": "skip", "skipif": "skip", "xfail": "skip", "not run": "skip", "raises": "pass",
        "swallows": "pass", "codes": "pass", "bytes": "pass", "no host": "pass", "finished": "pass",
    }, tried.result.text()  # fmt: skip
    assert tried.checks["skip"].message == "not today"
    assert tried.checks["xfail"].message == "expected to fail: known"


def test_a_test_that_is_marked_live_runs_last_and_is_never_rehearsed(attempt: Try, tmp_path: Path) -> None:
    tried = attempt(
        """
count = 0
@pytest.mark.live
def test_first(host):
    global count
    count += 1
    assert (host.check_output("echo 1"), count) == ("1", 1)
def test_second(host):
    assert count == 0
"""
    )
    assert list(tried.verdicts().items()) == [("second", "pass"), ("first", "pass")]
    assert tried.result.live == ("first on h1 (it is marked live)",)


def test_a_lost_host_is_one_sentence_and_the_others_go_on(attempt: Try) -> None:
    def made(host: LocalHost) -> None:
        host.dies = 1 if host.login.host == "h1" else -1

    tried = attempt(
        "\n".join(
            f'def test_{number}(host):\n    assert host.file("/etc/passwd").user == "root"\n'
            for number in "abc"
        ),
        names=("h1", "h2"),
        made=made,
    )
    lost, well = tried.result.hosts
    assert (lost.status, lost.checks) == ("unreachable", ())
    assert "the connection was lost" in str(lost.error)
    assert (well.status, len(well.checks)) == ("ok", 3)
    assert tried.result.exit_code == 1
    assert tried.hosts[0].execs == 1, "a lost host is not asked again"


def test_a_host_lost_in_the_middle_keeps_the_verdicts_it_has(attempt: Try) -> None:
    def made(host: LocalHost) -> None:
        host.dies = 4

    tried = attempt(
        """
def test_a(host):
    assert host.file("/etc/passwd").user == "root"
@pytest.mark.live
def test_z(host):
    for _ in range(20):
        host.run("true")
""",
        made=made,
    )
    assert tried.result.hosts[0].status == "unreachable"
    assert tried.verdicts() == {"a": "pass"}


HANGS = """
def test_well(host):
    assert host.file("/etc/passwd").user == "root"
def test_own(host):
    assert host.run("sleep 100").rc == 124
def test_hangs(host):
    assert host.file(T + "/hangs").content_string == ""
def test_hangs_too(host):
    assert host.file(T + "/hangs").content_string == ""
def test_well_too(host):
    assert host.file("/etc/passwd").mode == 0o644
"""


def test_a_command_that_hangs_costs_its_own_tests_and_no_others(attempt: Try, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs")

    def made(host: LocalHost) -> None:
        host.patience = 1.0

    tried = attempt(HANGS, made=made)
    verdicts = tried.verdicts()
    assert {name for name, verdict in verdicts.items() if verdict == "pass"} >= {"well", "well too"}
    assert any("does not end well among others" in text for text in tried.result.live)


class Garbles(LocalHost):
    """A host whose answers to many questions at once cannot be read."""

    def run(self, script: str, **kwargs: object) -> Output:
        answer = super().run(script, **kwargs)  # type: ignore[arg-type]
        return Output(0, b"garbage") if "gather_mark=" in script else answer


def test_a_batch_that_cannot_be_read_is_asked_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        'def test_a(host):\n    assert host.file("/etc/passwd").user == "root"\n'
        'def test_b(host):\n    assert host.run("echo 1").stdout == "1\\n"\n'
    )
    target = Target("h1", Login("h1", "127.0.0.1", 22, "root"), {})
    found = verify([target], Choice(suites=(tmp_path,)), connect=Garbles)
    assert [check.verdict for check in found.hosts[0].checks] == ["pass", "pass"]
    assert len(found.live) == 2


def test_endless_questions_end(attempt: Try) -> None:
    tried = attempt(
        """
def test_many(host):
    for number in range(60):
        assert host.run("echo %s", str(number)).stdout == f"{number}\\n"
"""
    )
    assert tried.verdicts() == {"many": "pass"}
    assert tried.result.rounds == 25
    assert tried.result.live == ("many on h1 (it asks what no rehearsal asked)",)
