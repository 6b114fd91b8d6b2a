"""Gathering through real shells, without ssh: what probes do to each other, and which bytes survive."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.probe import Output, Probe
from provision.run.gather import parse, script_of

PRESENT = [
    shell
    for shell in (("dash",), ("bash", "--posix"), ("bash",), ("busybox", "sh"))
    if shutil.which(shell[0])
]


MARK = "89abcdef"


def run(*probes: Probe, shell: tuple[str, ...] = ("sh",)) -> Output:
    text = script_of(probes, MARK).encode()
    done = subprocess.run(shell, input=text, capture_output=True, check=False, start_new_session=True)
    return Output(done.returncode, done.stdout, done.stderr)


def ask(*probes: Probe, shell: tuple[str, ...] = ("sh",)) -> dict[str, Output]:
    return parse(run(*probes, shell=shell), probes, MARK)


def probes_with(script: str) -> tuple[Probe, Probe, Probe]:
    return Probe("before", "echo one"), Probe("odd", script), Probe("after", "pwd; echo two; cat; false")


@pytest.mark.parametrize("shell", PRESENT, ids=" ".join)
@pytest.mark.parametrize(
    ("script", "code", "stdout"),
    [
        ("echo hi", 0, b"hi\n"),
        ("", 0, b""),
        ("# only a comment", 0, b""),
        ("printf 'no newline'", 0, b"no newline"),
        ("exit 7", 7, b""),
        ("echo x; kill -9 $(exec sh -c 'echo $PPID')", 137, b"x\n"),
        ("cd /tmp; echo moved", 0, b"moved\n"),
        ("exec >&- 2>&-; echo lost", None, b""),
        ('read -r line; echo "<$line>"', 0, b"<>\n"),
        ("set -e; false; echo not reached", 1, b""),
        ('set -u; echo "$undefined_name"; echo not reached', None, b""),
        ("if (", 2, b""),
        ("echo 'unterminated", 2, b""),
        ("no-such-command-anywhere", 127, b""),
        ("gather_mark=another; end_section() { :; }; echo mine", 0, b"mine\n"),
        ("trap 'echo trapped' EXIT; exit 3", 3, b"trapped\n"),
        ("umask 0; PATH=; LC_ALL=x; echo still", 0, b"still\n"),
        ("cat <<'EOF'\nprobe 0\n}\nEOF", 0, b"probe 0\n}\n"),
        ("alias echo=false; echo() { :; }; unset PATH", None, b""),
        (r"printf 'a\0b\377\n'", 0, b"a\0b\xff\n"),
    ],
)
def test_probes_do_not_disturb_each_other(
    shell: tuple[str, ...], script: str, code: int | None, stdout: bytes
) -> None:
    answers = ask(*probes_with(script), shell=shell)
    assert answers["before"] == Output(0, b"one\n")
    assert answers["after"].stdout.endswith(b"\ntwo\n")
    assert answers["after"].exit_code == 1
    assert answers["odd"].stdout == stdout
    if code is not None:
        # the shells disagree about syntax errors: 1, 2 or 127
        assert answers["odd"].exit_code == code or (code == 2 and answers["odd"].exit_code in {1, 2, 127})


@pytest.mark.parametrize("shell", PRESENT, ids=" ".join)
def test_megabytes_and_both_streams_arrive_whole(shell: tuple[str, ...]) -> None:
    big = Probe("big", "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero | tr '\\0' x >&2")
    answers = ask(big, Probe("small", "echo s"), shell=shell)
    assert answers["big"] == Output(0, bytes(3000000), b"x" * 1000000)
    assert answers["small"].stdout == b"s\n"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), min_size=1, max_size=6))
def test_any_bytes_survive(sections: list[tuple[bytes, bytes]]) -> None:
    def octal(data: bytes) -> str:
        return "".join(f"\\{byte:03o}" for byte in data)

    probes = [
        Probe(str(index), f"printf '{octal(out)}'; printf '{octal(err)}' >&2; exit {index}")
        for index, (out, err) in enumerate(sections)
    ]
    assert list(ask(*probes).values()) == [Output(i, out, err) for i, (out, err) in enumerate(sections)]


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="(){}'\"`$;|\\ \n#!&~=[]:", max_size=30))
def test_no_text_of_a_probe_breaks_out(text: str) -> None:
    answers = ask(*probes_with(text), shell=("dash",))
    assert answers["before"] == Output(0, b"one\n")
    assert answers["after"].exit_code == 1


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_refused_or_understood_never_worse(blob: bytes) -> None:
    try:
        answers = parse(Output(0, blob, blob), [Probe("a", "")], MARK)
    except ValueError:
        return
    assert set(answers) == {"a"}


TWO = (Probe("a", "echo hello; echo oh >&2"), Probe("b", "echo world; echo no >&2"))


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_answer_cut_short_anywhere_is_refused(stream: str) -> None:
    answer = run(*TWO)
    assert len(parse(answer, TWO, MARK)) == 2
    whole: bytes = getattr(answer, stream)
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"the answer ends in probe [ab]$"):
            parse(replace(answer, **{stream: whole[:end]}), TWO, MARK)  # type: ignore[arg-type]


def test_an_answer_that_goes_on_is_refused() -> None:
    answer = run(*TWO)
    with pytest.raises(ValueError, match="goes on"):
        parse(answer, TWO[:1], MARK)
    with pytest.raises(ValueError, match="goes on"):
        parse(replace(answer, stdout=answer.stdout + b"more"), TWO, MARK)


def test_names_must_be_unique() -> None:
    with pytest.raises(ValueError, match="called a"):
        script_of([Probe("a", ""), Probe("b", ""), Probe("a", "")], MARK)


@pytest.mark.parametrize("shell", PRESENT, ids=" ".join)
def test_a_probe_in_place_that_ends_the_script_is_named(shell: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="ends in probe leaver"):
        ask(Probe("a", "echo a"), Probe("leaver", "exit 0", in_place=True), Probe("c", "true"), shell=shell)


@pytest.mark.parametrize("shell", PRESENT, ids=" ".join)
def test_a_probe_in_place_answers_like_any_other(shell: tuple[str, ...]) -> None:
    script = "printf 'a\\0b'; echo oh >&2; cat; (exit 3)"
    alone, in_place = Probe("alone", script), Probe("in place", script, in_place=True)
    answers = ask(alone, in_place, shell=shell)
    assert answers["alone"] == answers["in place"] == Output(3, b"a\0b", b"oh\n")


def test_the_script_is_clean_for_shellcheck(tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    file = tmp_path / "gather.sh"
    file.write_text("#!/bin/sh\n" + script_of([Probe("a", 'echo "it\'s" $x'), Probe("b", "true")], MARK))
    # 2016: the quoted text of a probe is for another shell to expand.
    done = subprocess.run(
        [shellcheck, "--exclude=SC2016", str(file)], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


@pytest.mark.parametrize(("in_place", "forked"), [(False, 50), (True, 0)])
def test_a_host_forks_for_the_probes_alone(in_place: bool, forked: int) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    probes = [Probe(str(index), ":", in_place=in_place) for index in range(50)]
    command = [strace, "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "dash"]
    done = subprocess.run(command, input=script_of(probes, MARK).encode(), capture_output=True, check=True)
    forks = sum(
        b"resumed" not in line and b"= ?" not in line
        for line in done.stderr.splitlines()
        if b"clone" in line or b"fork(" in line
    )
    assert forks == forked
