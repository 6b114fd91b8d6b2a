"""Inventory sources on this machine → Inventory: files, folders, programs, and lists of hosts.

What a source is, and in which order things are read, is as in ansible-core 2.19; but a source that cannot be
read is an error here, where Ansible goes on with a warning and fewer hosts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from provision.data import CLONE, at_home, content, require_end
from provision.errors import InventoryError, Location
from provision.inventory.build import Builder, variables
from provision.inventory.document import load_json, of_data, parse
from provision.inventory.draft import Layer, Vars
from provision.inventory.model import Inventory
from provision.inventory.values import Document

VARIABLE = "PROVISION_INVENTORY"

_YAML = (".yml", ".yaml", ".json")
_VARS = ("", *_YAML)
# INVENTORY_IGNORE_EXTS of ansible-core: endings, "~" among them, that a folder's sources cannot have.
_IGNORED = (".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry")
_NEVER = {"host_vars", "group_vars", "vars_plugins"}
_TIMEOUT = 60.0  # seconds for one run of an executable source


def default_path() -> str:
    """The inventory of a command line that names none: ``$PROVISION_INVENTORY``, else the clone's lab.

    :raises InventoryError: if there is neither.
    """
    if named := os.environ.get(VARIABLE):
        return named
    if CLONE is None:
        raise InventoryError("no inventory is named", hint=f"--inventory PATH, or set ${VARIABLE}")
    return str(CLONE / "inventories" / "lab")


def load(paths: Sequence[Path | str]) -> Inventory:
    """Read sources in their order; later ones add to earlier ones, and their variables win.

    A source is a file, a folder of sources, an executable that prints Ansible's JSON for ``--list``, or a
    list of hosts with at least one comma. Variables come from ``group_vars`` and ``host_vars`` beside it too.

    :raises InventoryError: a source that does not exist, cannot be read, or makes no sense.
    """
    try:
        return _loaded(paths)
    except OSError as error:
        raise _unreadable(Path(error.filename), error) from None


def _loaded(paths: Sequence[Path | str]) -> Inventory:
    builder = Builder()
    folders: dict[Path, None] = {}
    seen: list[str] = []
    for source in paths:
        path = at_home(str(source))
        if isinstance(source, str) and "," in source and not os.path.exists(path):  # noqa: PTH110  # a long list
            builder.add_names(filter(None, (name.strip() for name in source.split(","))))
            seen.append(source)
            continue
        if not path.exists():
            hint = (
                "a comma at the end makes a name a list of hosts: 'node1,'"
                if path.name == str(source)
                else None
            )
            raise InventoryError("there is no such inventory", where=Location(str(source)), hint=hint)
        if path.is_dir():
            if not _read_folder(builder, path, seen):
                raise InventoryError("the folder holds no inventory", where=Location(str(path)))
        else:
            _read_file(builder, path, seen)
        folder = (path if path.is_dir() else path.parent).resolve()
        # Of two sources in one folder the last counts: Ansible reads the folder's variables once for each.
        folders.pop(folder, None)
        folders[folder] = None
    return builder.build([_read_layer(builder, folder) for folder in folders])


def _read_folder(builder: Builder, folder: Path, seen: list[str]) -> int:
    """Read every source in a folder, in the order of their names; return how many there were."""
    count = 0
    for name in sorted(_list(folder), key=os.fsencode):
        if name.startswith(".") or name in _NEVER or name.endswith(_IGNORED):
            continue
        path = folder / name
        if path.is_dir():
            _refuse_loop(path)
            count += _read_folder(builder, path, seen)
        elif path.exists():
            _read_file(builder, path, seen)
            count += 1
    return count


def _read_file(builder: Builder, path: Path, seen: list[str]) -> None:
    """Read one file as what it is: a program, YAML, or something that only Ansible can read.

    :param seen: what was read before it; an inventory plugin may build on that.
    """
    suffix = path.suffix
    if os.access(path, os.X_OK) and (suffix not in _YAML or _head(path) == b"#!"):
        _read_program(builder, path)
    elif suffix in _YAML:
        document = _read_yaml(path)
        if isinstance(document.root.value, dict) and document.root.value.get("plugin"):
            _ask_ansible(builder, path, seen)
        else:
            builder.add_document(document)
    elif suffix == "":
        _read_bare(builder, path)
    else:
        _ask_ansible(builder, path)
    seen.append(str(path))


def _read_bare(builder: Builder, path: Path) -> None:
    """Read a file whose name tells nothing: YAML if it is a mapping, else Ansible's ini format."""
    try:
        document = _read_yaml(path)
    except InventoryError:
        if not _read_text(path).lstrip().startswith("["):
            raise
    else:
        if isinstance(document.root.value, dict) or document.encrypted:
            builder.add_document(document)
            return
    _ask_ansible(builder, path)


def _read_yaml(path: Path) -> Document:
    return parse(_read_text(path), str(path))


def _read_layer(builder: Builder, folder: Path) -> Layer:
    """Read the variables beside a source for every group and host that is known."""
    return Layer(
        _read_vars(folder / "group_vars", builder.groups, builder.warnings),
        _read_vars(folder / "host_vars", builder.hosts, builder.warnings),
    )


def _read_vars(folder: Path, names: Iterable[str], warnings: list[str]) -> dict[str, Vars]:
    found: dict[str, Vars] = {}
    for name, path in _files(folder, names):
        document = _read_yaml(path)
        if document.encrypted:
            warnings.append(f"{path}: encrypted with ansible-vault; its variables are not known here")
        else:
            found[name] = found.get(name, {}) | variables(document)
    return found


def _files(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files of variables, each with the name that it belongs to.

    Of ``NAME/``, ``NAME``, ``NAME.yml``, ``NAME.yaml`` and ``NAME.json`` only the first that exists counts,
    as in Ansible's DataLoader.find_vars_files.
    """
    if not folder.is_dir():
        return
    present = set(_list(folder))
    for name in names:
        if "/" in name:
            continue
        for suffix in _VARS:
            path = folder / (name + suffix)
            if path.name in present and path.exists():
                files = list(_walk(path)) if path.is_dir() else [path]
                yield from ((name, file) for file in files)
                break


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files of variables in a folder and below, sorted by name at every level."""
    for name in sorted(_list(folder)):
        path = folder / name
        if name.startswith(".") or name.endswith("~"):
            continue
        if path.is_dir():
            if not path.suffix:
                _refuse_loop(path)
                yield from _walk(path)
        elif path.is_file() and path.suffix in _VARS:
            yield path


def _read_program(builder: Builder, path: Path) -> None:
    """Run an executable source as Ansible does: ``--list``, and ``--host NAME`` if that has no ``_meta``."""
    data = _run_json([str(path.absolute()), "--list"], path)
    listed = builder.add_listing(data, str(path))
    if isinstance(data, dict) and "_meta" not in data:
        for name in sorted(listed):
            answer = _run_json([str(path.absolute()), "--host", name], path, empty={})
            builder.add_host_vars(name, of_data(answer, str(path)))


def _ask_ansible(builder: Builder, path: Path, after: Sequence[str] = ()) -> None:
    """Read a source through ansible-inventory, after those that it may build on."""
    beside = Path(sys.executable).with_name("ansible-inventory")
    program = str(beside) if beside.exists() else shutil.which("ansible-inventory")
    if program is None:
        raise InventoryError(
            "only Ansible can read this source, and ansible-inventory is not installed",
            where=Location(str(path)),
            hint="install ansible-core, or write the inventory in Ansible's YAML format (.yml)",
        )
    arguments = [word for source in (*after, str(path)) for word in ("-i", source)]
    # The variables beside the sources are read here, in their order, and a bad source is not to be skipped.
    settings = {"ANSIBLE_VARS_ENABLED": ",", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"}
    data = _run_json([program, *arguments, "--list", "--export"], path, settings)
    builder.add_listing(data, str(path))


def _run_json(
    argv: list[str], path: Path, settings: dict[str, str] | None = None, empty: object = None
) -> object:
    """Run a program and decode the JSON that it prints.

    :param empty: what an empty output stands for, where it is allowed.
    :raises InventoryError: it fails, takes longer than a minute, or prints something else.
    """
    where = Location(str(path))
    try:
        done = _run(argv, {**os.environ, **(settings or {})})
    except subprocess.TimeoutExpired:
        raise InventoryError(f"{_call(argv)} took longer than {_TIMEOUT:.0f} seconds", where=where) from None
    except OSError as error:
        hint = "is the interpreter in its first line installed? If it is no program, take away its x bit"
        raise InventoryError(f"cannot be run: {error.strerror}", where=where, hint=hint) from None
    if done.returncode:
        _refuse(f"{_call(argv)} failed with exit code {done.returncode}", done.stderr, where)
    text = done.stdout.decode("utf-8", "replace")
    if empty is not None and not text.strip():
        return empty
    try:
        return load_json(text, str(path))
    except (ValueError, RecursionError) as error:
        _refuse(f"{_call(argv)} printed no valid JSON: {error}", done.stderr, where)


def _run(argv: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process group of its own, and end that group when it hangs or we are interrupted."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=_TIMEOUT)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def _call(argv: list[str]) -> str:
    return " ".join([Path(argv[0]).name, *argv[1:]])


def _refuse(message: str, stderr: bytes, where: Location) -> NoReturn:
    """Refuse a source whose program failed, with the last lines that it wrote to stderr."""
    lines = stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-10:]
    tail = "".join(f"\n  {line}" for line in lines)
    raise InventoryError(message + (f"; it says:{tail}" if tail else ""), where=where)


def _refuse_loop(folder: Path) -> None:
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        hint = "remove the link"
        raise InventoryError("this link leads back to itself", where=Location(str(folder)), hint=hint)


def _unreadable(path: Path, error: OSError) -> InventoryError:
    hint = "check its owner and mode, and those of the folders above it"
    if not isinstance(error, PermissionError):
        hint = "check the path and the disk"
    return InventoryError(f"cannot be read: {error.strerror}", where=Location(str(path)), hint=hint)


def _list(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise _unreadable(folder, error) from None


def _head(path: Path) -> bytes:
    try:
        require_end(path)
        with path.open("rb") as file:
            return file.read(2)
    except OSError as error:
        raise _unreadable(path, error) from None


def _read_text(path: Path) -> str:
    try:
        return content(path).decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        where = Location(str(path), line)
        raise InventoryError("this line is not UTF-8", where=where, hint="save the file as UTF-8") from None
