"""Sources on disk: which files count, and what is said about those that cannot be read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from provision.errors import InventoryError, Location
from provision.inventory import sources
from provision.inventory.sources import default_path, load

ROOT = Path(__file__).resolve().parents[2]
GOOD = "all: {hosts: {n1: }}\n"


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROVISION_INVENTORY", raising=False)
    assert default_path() == str(ROOT / "inventories/lab")
    monkeypatch.setenv("PROVISION_INVENTORY", "")
    assert default_path() == str(ROOT / "inventories/lab")
    monkeypatch.setenv("PROVISION_INVENTORY", "/srv/fleet")
    assert default_path() == "/srv/fleet"


def test_places_name_the_file_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "fleet/hosts.yml", GOOD)
    write(tmp_path / "fleet/group_vars/all/a.yml", "# first\nkey: 1\n")
    monkeypatch.chdir(tmp_path)
    host = load(["fleet"]).hosts["n1"]
    assert host.where() == Location("fleet/hosts.yml", 1, 15)
    where = host.where("key")
    assert where is not None
    assert where.path.endswith("fleet/group_vars/all/a.yml")
    assert where.line == 2


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="there is no such inventory"):
        load([tmp_path / "missing"])
    with pytest.raises(InventoryError) as caught:
        load(["node1"])
    assert "'node1,'" in (caught.value.hint or "")


def test_a_folder_without_sources(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "text")
    write(tmp_path / "group_vars/all.yml", "a: 1")
    with pytest.raises(InventoryError, match="holds no inventory"):
        load([tmp_path])


def test_an_error_in_one_file_of_a_folder_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "10.yml", GOOD)
    write(tmp_path / "20.yml", "all:\n  hosts: [n2]\n")
    with pytest.raises(InventoryError, match=r"20\.yml:2: 'hosts' of group 'all' is a list"):
        load([tmp_path])


def test_a_file_of_variables_that_is_a_list(tmp_path: Path) -> None:
    write(tmp_path / "hosts.yml", GOOD)
    write(tmp_path / "host_vars/n1.yml", "- a\n")
    with pytest.raises(
        InventoryError, match=r"host_vars/n1\.yml:1: a file of variables is a mapping, not a list"
    ):
        load([tmp_path])


def test_an_encrypted_file_of_variables_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "hosts.yml", GOOD)
    write(tmp_path / "group_vars/all/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    write(tmp_path / "group_vars/all/plain.yml", "a: 1\n")
    inventory = load([tmp_path])
    assert inventory.hosts["n1"].vars == {"a": 1}
    assert "vault.yml: encrypted" in inventory.warnings[0]


def test_an_encrypted_inventory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="encrypted"):
        load([write(tmp_path / "hosts.yml", "$ANSIBLE_VAULT;1.1;AES256\n3132\n")])


def test_what_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_bytes(b"all:\n  hosts: {n1: }\n  vars: {city: M\xfcnchen}\n")
    with pytest.raises(InventoryError, match=r"hosts\.yml:3: this line is not UTF-8"):
        load([path])


def test_a_byte_order_mark_is_nothing(tmp_path: Path) -> None:
    assert list(load([write(tmp_path / "hosts.yml", "\ufeff" + GOOD)]).hosts) == ["n1"]


def test_a_folder_that_links_to_itself(tmp_path: Path) -> None:
    write(tmp_path / "hosts.yml", GOOD)
    (tmp_path / "loop").symlink_to(tmp_path)
    write(tmp_path / "group_vars/all/a.yml", "a: 1\n")
    (tmp_path / "group_vars/all/loop").symlink_to(tmp_path / "group_vars/all")
    with pytest.raises(InventoryError, match="leads back to itself"):
        load([tmp_path])


def test_an_x_bit_alone_makes_no_program_of_yaml(tmp_path: Path) -> None:
    assert list(load([write(tmp_path / "hosts.yml", GOOD, 0o755)]).hosts) == ["n1"]


def test_a_shebang_makes_a_program_of_yaml(tmp_path: Path) -> None:
    text = """#!/bin/sh\necho '{"_meta": {"hostvars": {}}, "all": {"hosts": ["made"]}}'\n"""
    assert list(load([write(tmp_path / "hosts.yml", text, 0o755)]).hosts) == ["made"]


PROGRAMS = {
    "fails": (
        "#!/bin/sh\necho 'no route to the CMDB' >&2\nexit 3\n",
        "source --list failed with exit code 3; it says:",
    ),
    "no JSON": ("#!/bin/sh\necho hello\necho why >&2\n", "source --list printed no valid JSON"),
    "a list": ("#!/bin/sh\necho '[]'\n", "the listing is a list, not a mapping"),
    "no interpreter": ("#!/does/not/exist\n", "cannot be run: No such file"),
    "no format": ("\0\0\0\0", "cannot be run: Exec format"),
    "hostvars": ("""#!/bin/sh\necho '{"_meta": {}}'\n""", "_meta.hostvars is nothing"),
    "hosts": (
        """#!/bin/sh\necho '{"a": {"hosts": "n1"}}'\n""",
        "the hosts of group 'a' are a string, not a list",
    ),
    "host name": ("""#!/bin/sh\necho '{"a": {"hosts": ["-oX"]}}'\n""", "'-oX' cannot be the name of a host"),
    "deep": ("#!/bin/sh\nprintf '[%.0s' $(seq 5000)\n", "printed no valid JSON"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_fail(tmp_path: Path, name: str) -> None:
    text, message = PROGRAMS[name]
    with pytest.raises(InventoryError) as caught:
        load([write(tmp_path / "source", text, 0o755)])
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "source"))


def test_a_failing_program_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="no route to the CMDB"):
        load([write(tmp_path / "source", PROGRAMS["fails"][0], 0o755)])


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_TIMEOUT", 1.5)
    program = write(tmp_path / "source", f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n", 0o755)
    with pytest.raises(InventoryError, match="took longer than"):
        load([program])
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_ansible_other_formats_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(InventoryError, match="ansible-inventory is not installed") as caught:
        load([write(tmp_path / "hosts.ini", "[gpu]\nn1\n")])
    assert "YAML" in (caught.value.hint or "")


def test_a_broken_ini_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="failed with exit code"):
        load([write(tmp_path / "hosts.ini", "[gpu\nn1\n")])


def test_values_read_through_ansible_keep_the_places_of_files(tmp_path: Path) -> None:
    write(tmp_path / "10.yml", "web:\n  hosts: {w1: }\n  vars:\n    x: 1\n")
    write(tmp_path / "20.yml", "plugin: ansible.builtin.constructed\nstrict: true\ngroups: {odd: x == 1}\n")
    inventory = load([tmp_path])
    assert inventory.hosts["w1"].groups == ("odd", "web")
    assert inventory.hosts["w1"].where("x") == Location(str(tmp_path / "10.yml"), 4, 5)
