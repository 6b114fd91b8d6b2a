"""Bad input at the command line: one line that says what, where and what to do; exit code 2, no traceback."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import provision
from provision.cli import program, program_name, tasks

ROOT = Path(__file__).resolve().parents[2]

TRITON = """
gpu-nodes:
  hosts:
    gpu-01:
  vars:
    triton:
      instances:
        main:
          image: registry.example.com/tritonserver:24.07-py3
"""

CASES: dict[str, tuple[str, list[str], str]] = {
    "yaml syntax": ("all:\n  hosts: [a\n", ["--hosts", "all"], "hosts.yml:"),
    "duplicate key": ("all:\n  hosts:\n    a:\n    a:\n", ["--hosts", "all"], "hosts.yml:4: "),
    "unknown setting": (
        TRITON.replace("image:", "gpu: all\n          image:"),
        ["--hosts", "all"],
        "hosts.yml:9: ",
    ),
    "wrong type": (
        TRITON + "          http_port: eight\n",
        ["--hosts", "all"],
        "hosts.yml:10: ",
    ),
    "no tag": (TRITON.replace(":24.07-py3", ""), ["--hosts", "all"], "hosts.yml:9: "),
    "one port twice": (
        TRITON + "        other:\n          image: registry.example.com/tritonserver:24.07-py3\n",
        ["--hosts", "all"],
        "port 8000 is both main.http_port and other.http_port",
    ),
    "impossible range": ("all:\n  hosts:\n    gpu[9:1]:\n", ["--hosts", "all"], "hosts.yml:3: "),
    "almost a role's name": (
        TRITON.replace("triton:\n", "tritn:\n"),
        ["--hosts", "all"],
        "hosts.yml:6: no role is called tritn: did you mean triton?",
    ),
    "unknown pattern": (TRITON, ["--hosts", "gpu-nodse"], "gpu-nodse"),
    "cyclic groups": (
        "a:\n  children:\n    b:\nb:\n  children:\n    a:\n",
        ["--hosts", "all"],
        "hosts.yml:",
    ),
    "empty inventory": ("", ["--hosts", "gpu-nodes"], "hosts.yml: the inventory is empty"),
    "no hosts": (TRITON, [], "no hosts are named"),
    "unknown role": (TRITON, ["--hosts", "all", "--roles", "tritn"], "tritn"),
    "unknown host key": (
        TRITON.replace("gpu-01:", "gpu-01: {ansible_ssh_common_args: -o UserKnownHostsFile=/nonexistent}"),
        ["--hosts", "all"],
        "hosts.yml:4: the SSH host key of gpu-01 is not known",
    ),
    "no settings": ("all:\n  hosts:\n    a:\n", ["--hosts", "all"], "hosts.yml:3: "),
    "bad serial": (TRITON, ["--hosts", "all", "--serial", "half"], "--serial half"),
    "no saved plan": (TRITON, ["--hosts", "all", "--plan", "/nonexistent/plan"], "/nonexistent/plan"),
}


INV = str(ROOT / "inv")
"""What hints call the program in another folder than the clone."""


def run(folder: Path, text: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """``inv provision`` on an inventory that holds ``text``."""
    source = folder / "hosts.yml"
    source.write_text(text)
    return subprocess.run(
        [sys.executable, ROOT / "tasks.py", "provision", "--inventory", source.name, *arguments],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_with_a_hint(tmp_path: Path, name: str) -> None:
    text, arguments, expected = CASES[name]
    done = run(tmp_path, text, arguments)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert "did you mean" in lines[0] or lines[1].startswith("hint: ")
    assert len(lines) <= 2, lines


@pytest.mark.parametrize("system", ["rhel:8", "rhel:9", "rocky:9", "almalinux:9"])
def test_render_names_what_the_host_fetches(tmp_path: Path, system: str) -> None:
    fleet = tmp_path / "hosts.yml"
    fleet.write_text("all: {hosts: {gpu-01: {driver: {branch: 580}, toolkit: {}, docker: {}}}}\n")
    argv = [sys.executable, str(ROOT / "tasks.py"), "render", "--inventory", str(fleet), "--hosts", "all"]
    argv += ["--system", system, "--out", str(tmp_path / "files")]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    told = [line.rpartition(" ")[2] for line in done.stderr.splitlines() if "the host fetches" in line]
    cuda = "https://developer.download.nvidia.com/compute/cuda/repos"
    assert told == [
        f"{cuda}/rhel{system[-1]}/x86_64/D42D0685.pub",
        "https://download.docker.com/linux/rhel/gpg",
    ]
    written = [file.name for file in (tmp_path / "files/gpu-01/etc/pki/rpm-gpg").iterdir()]
    assert written == ["provision-C95B321B61E88C1809C4F759DDCAE044F796ECB0"]
    assert len(list((tmp_path / "files/gpu-01/etc/yum.repos.d").iterdir())) == 3


def test_a_template_that_lacks_a_variable_is_named(tmp_path: Path) -> None:
    from provision import render
    from provision.errors import RenderError

    with pytest.raises(RenderError, match=r"templates/triton/canary\.pbtxt\.j2:1: 'name' is undefined"):
        render.render("triton/canary.pbtxt.j2")


USAGE = {
    "unknown task": ("provison", "error: there is no task provison\nhint: did you mean provision?\n"),
    "unknown option": (
        "plan --hostss x",
        "error: plan has no option --hostss\nhint: did you mean --hosts?\n",
    ),
    "option of Invoke's own": ("--dry plan", "error: there is no option --dry\nhint: INV --help\n"),
    "an empty value": ("provision --plan=", "error: --plan needs a value\nhint: INV --help provision\n"),
    "a value of an option that has none": (
        "provision --hosts x --yes=no",
        "error: --yes takes no value\nhint: INV --help provision\n",
    ),
    "a list with a blank": (
        "plan --hosts x --roles docker, triton",
        "error: docker, triton is two words\nhint: a list has no blanks: docker,triton\n",
    ),
    "no value before an option": (
        "bare.enroll --hosts x --from-console --yes",
        "error: --from-console needs a value\nhint: INV --help bare.enroll\n",
    ),
    "no value at the end": (
        "bare.enroll --hosts x --from-console",
        "error: --from-console needs a value\nhint: INV --help bare.enroll\n",
    ),
    "no value": ("render --out", "error: --out needs a value\nhint: INV --help render\n"),
    "no number": (
        "plan --forks many",
        "error: --forks: 'many' is not a whole number\nhint: INV --help plan\n",
    ),
    "unknown shell": (
        "--print-completion-script nosh",
        'error: Completion for shell "nosh" not supported (options are: bash, fish, zsh)\nhint: INV --help\n',
    ),
}


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors(name: str, tmp_path: Path) -> None:
    arguments, expected = USAGE[name]
    done = inv(*arguments.split(), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected.replace("INV", INV))


def inv(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``inv ARGUMENTS`` from a folder."""
    return subprocess.run(
        [sys.executable, ROOT / "tasks.py", *arguments],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_the_help_has_our_options_only(tmp_path: Path) -> None:
    shown = inv(folder=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout == inv("--help", folder=tmp_path).stdout
    assert shown.stdout.startswith(f"Usage: {INV} TASK [OPTIONS]\n")
    assert "--prompt-for-sudo-password" not in shown.stdout
    assert inv("--version", folder=tmp_path).stdout == f"gpu-provision {provision.__version__}\n"
    assert inv("plan", "--help", folder=tmp_path).stdout.startswith(
        f"Usage: {INV} plan [OPTIONS]\n\nShow what"
    )


def test_plain_invoke_has_the_same_tasks(tmp_path: Path) -> None:
    """Also from a folder below, which it does not leave."""
    invoke = subprocess.run(
        [sys.executable, "-m", "invoke", "--list"],
        cwd=ROOT / "bench",
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = {line.split()[0] for line in invoke.stdout.splitlines() if line.startswith("  ")}
    listed = inv("--list", folder=tmp_path).stdout
    ours = {line.split()[0] for line in listed.splitlines() if line.startswith("  ")}
    assert theirs & ours == ours


def test_the_bare_command_shows_tasks_in_groups_with_a_line_each() -> None:
    lines = inv(folder=ROOT).stdout.splitlines()
    headings = [heading for heading, _ in program.GROUPS]
    assert [line for line in lines if line in headings] == headings
    assert "Others" not in lines, "a task is in no group"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("task", [name for _, names in program.GROUPS for name in names])
def test_the_help_of_a_task_fits_a_screen_and_has_an_example(task: str) -> None:
    lines = inv(task, "--help", folder=ROOT).stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"./inv {task}") for line in lines)


def test_a_reader_that_leaves_is_no_failure(tmp_path: Path) -> None:
    argv = f"{sys.executable} {ROOT}/tasks.py settings | head -n 1"
    ran = subprocess.run(["sh", "-c", argv], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("host.profile: ")
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("settings", "triton"), "triton.instances: mapping, default {}"),
        (("settings", "--role", "docker"), "docker.source: "),
        (("settings", "--schema"), '"$schema": '),
        (("settings", "--json", "driver"), '"name": "driver.source"'),
    ],
)
def test_the_reference_of_settings(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    assert says in inv(*arguments, folder=tmp_path).stdout


def clone_tasks() -> Any:
    """The clone's tasks.py as a module."""
    spec = importlib.util.spec_from_file_location("clone_tasks", ROOT / "tasks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tasks_that_need_the_clone_are_known_by_name() -> None:
    theirs = set(clone_tasks().ns.task_names) - set(tasks.COLLECTION.task_names)
    assert theirs == set(program.NEED_THE_CLONE)


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("/usr/bin/gpu-provision", "gpu-provision"),
        ("/lib/provision/__main__.py", "python -m provision"),
        ("/lib/invoke/__main__.py", "inv"),
        ("tasks.py", "./inv"),
        ("/srv/clone/tasks.py", "/srv/clone/inv"),
        (".venv/bin/invoke", "inv"),
    ],
)
def test_the_name_of_the_program(called: str, expected: str) -> None:
    assert program_name(called) == expected


def test_a_second_task_in_one_call_is_refused(tmp_path: Path) -> None:
    """The words of a call belong to one task, so that a question is about one thing."""
    done = inv("settings", "triton", "plan", "--hosts", "all", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: two tasks in one call: settings and plan\nhint: call {INV} for each\n"


def test_hosts_that_are_called_like_a_task_are_hosts(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(TRITON.replace("gpu-nodes", "settings"))
    done = inv("render", "--hosts", "settings", "--inventory", str(inventory), "--out", "x", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "written below x\n")
    old = tmp_path / "x/gpu-01/etc/triton/renamed.env"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.touch()
    done = inv("render", "--hosts", "settings", "--inventory", str(inventory), "--out", "x", folder=tmp_path)
    left = "not of this rendering, and left: x/gpu-01/etc/triton/renamed.env\n"
    assert (done.returncode, done.stderr) == (0, f"written below x\n{left}")


def test_output_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    for arguments in ("settings", "settings --schema"):
        argv = f"{sys.executable} {ROOT}/tasks.py {arguments} >/dev/full"
        ran = subprocess.run(["sh", "-c", argv], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert ran.stderr == "error: standard output cannot be written: No space left on device\n"


def closed(arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with some of its streams closed."""
    argv = f"{sys.executable} {ROOT}/tasks.py {arguments}"
    return subprocess.run(["sh", "-c", argv], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", ["settings", "--version", "--help"])
def test_a_closed_standard_output_is_said(arguments: str, tmp_path: Path) -> None:
    ran = closed(f"{arguments} >&-", tmp_path)
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (2, "error: standard output is closed")


def test_other_closed_streams_are_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(TRITON)
    given = "--inventory hosts.yml --hosts all --json"
    ran = closed(f"plan {given} 2>&-", tmp_path)
    assert (ran.returncode, ran.stdout) == (2, ""), "what is said is no data"
    ran = closed("lint-manifest - <&-", tmp_path)
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (
        2,
        "error: standard input: it holds no object of Kubernetes",
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("plan", "gpu-01"), "hosts are named by an option: INV plan --hosts gpu-01"),
        (("plan", "--serial", "1"), "INV --help plan"),
        (("verify", "-k"), "INV --help verify"),
        (("plan", "--hosts", "a", "--hosts=b"), "INV --help plan"),
        (("provision", "--hosts", "a", "--serial", "1,0%"), "--serial 1,10%"),
    ],
)
def test_hints_of_usage_errors_lead_somewhere(arguments: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    done = inv(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith(f"hint: {hint.replace('INV', INV)}\n")


def invoke(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Invoke's own program, in the clone."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", *arguments],
        check=False,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_plain_invoke_runs_one_task_after_the_other() -> None:
    both = invoke("compat", "--driver", "580", "settings", "--role", "docker")
    assert (both.returncode, both.stderr) == (0, "")
    alone = [invoke("compat", "--driver", "580"), invoke("settings", "--role", "docker")]
    assert both.stdout == "".join(one.stdout for one in alone)
    image = ("--image", "24.07-py3", "--driver", "580", "--gpu", "h100")
    judged = invoke("compat", *image, "settings", "--role", "docker")
    assert judged.returncode == 0, "a task that ends with exit code 0 keeps the next one from running"
    assert "docker.source: " in judged.stdout


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (("compat", "--image", "24.07-py3", "--driver", "450", "--gpu", "h100"), 3),
        (("settings", "--role", "nothing"), 2),
    ],
)
def test_a_task_that_fails_ends_plain_invokes_call_with_its_code(first: tuple[str, ...], code: int) -> None:
    done = invoke(*first, "settings", "--role", "docker")
    assert done.returncode == code
    assert "docker.source: " not in done.stdout


def test_developers_tasks_let_the_next_one_run() -> None:
    """Lint-imports and mypy take long, so the code alone is asked here."""
    with pytest.raises(SystemExit) as caught:
        clone_tasks()._end(3)
    assert caught.value.code == 3
    clone_tasks()._end(0)
    text = (ROOT / "tasks.py").read_text("utf-8")
    assert [line.strip() for line in text.splitlines() if "raise SystemExit" in line] == [
        "raise SystemExit(code)",
        "raise SystemExit(2)",
    ]


@pytest.mark.parametrize("task", ["provision", "plan", "remove", "verify", "stop"])
def test_invokes_dry_run_is_refused(task: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(TRITON)
    done = invoke("--dry", task, "--hosts", "all", "--inventory", str(inventory))
    assert (done.returncode, done.stdout) == (2, "")
    shown = f"inv provision --inventory {inventory} --hosts all --check only plans"
    assert done.stderr == (
        "error: invoke's --dry is not for these tasks, which run no commands of this machine\n"
        f"hint: {shown}\n"
    )
    by_variable = invoke("provision", "--hosts", "all", "--inventory", str(inventory), INVOKE_RUN_DRY="1")
    assert by_variable.returncode == 2
