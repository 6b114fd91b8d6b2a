"""Files with approved plans, and the key of the digests in them, which is in a file of its own."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from provision.cli import terminal
from provision.data import base_folder, beside, content
from provision.errors import UsageError
from provision.plan import saved
from provision.plan.plan import Plan
from provision.role import Role, Settings

KEY = "PROVISION_PLAN_KEY"
"""Names the file of the key, for people and machines that apply each other's plans."""

SHORTEST = 32
"""Bytes of a key."""


def save(
    path: str, plans: Mapping[str, Plan], settings: Mapping[str, Mapping[Role, Settings]], inventory: str
) -> None:
    """Write plans to a file that only its owner can read.

    An older file is replaced as a whole, or stays; it stays where no host could be planned.

    :param inventory: the option of that name, for the command that applies it.
    :raises UsageError: if it, or the key, cannot be written.
    """
    require_room(path)
    if not plans:
        terminal.log(f"{path} is not written: no host could be planned")
        return
    file = Path(path).resolve()
    text = saved.save(plans, settings, key(make=True))
    try:
        beside(file, text.encode()).rename(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name another file: --out FILE") from error
    options = ["--plan", path, *(["--inventory", inventory] if inventory else [])]
    terminal.log(f"saved to {path}; apply it with: inv provision {shlex.join(options)}")


def require_room(path: str) -> None:
    """See that a plan can be saved there without taking somebody's file away.

    :raises UsageError: if it is no file, or one that is no saved plan, or in a folder that is not there.
    """
    file = Path(path)
    hint = "name another file: --out FILE"
    try:
        if not file.absolute().parent.is_dir():
            raise UsageError(f"{path}: its folder is not there", hint=hint)
        if file.exists() and not file.is_file():
            raise UsageError(f"{path}: not a regular file", hint=hint)
        with file.open("rb") as there:
            begin = there.read(64)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=hint) from error
    if begin and not re.match(rb'\{\s*"schema":', begin):
        raise UsageError(f"{path} is there, and is no saved plan: it is left as it is", hint=hint)


def load(path: str) -> saved.SavedPlans:
    """The plans saved in a file, with digests of our key.

    :raises UsageError: if it cannot be read, or was saved with another key.
    """
    try:
        found = saved.load(content(Path(path)).decode("utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        said = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UsageError(f"{path}: {said}", hint="make one with: inv plan --out FILE") from error
    if not found.hosts:
        raise UsageError(f"{path}: it holds the plan of no host", hint=saved.AGAIN)
    if saved.key_id(key()) != found.key:
        raise UsageError(
            f"{path}: it was saved with another key than {_key_file()}, so it cannot be compared",
            hint=f"{KEY}=FILE names the key of whoever saved it; or {saved.AGAIN}",
        )
    return found


def key(*, make: bool = False) -> bytes:
    """The key of the digests in saved plans.

    :param make: make it where there is none.
    :raises UsageError: if it cannot be read or made.
    """
    file = _key_file()
    try:
        if make and not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = beside(file, f"{secrets.token_hex(SHORTEST)}\n".encode())
            with contextlib.suppress(FileExistsError):  # somebody else was quicker
                os.link(made, file)
            made.unlink()
        found = content(file).strip()
    except OSError as error:
        raise UsageError(
            f"the key of saved plans, {file}: {error.strerror}",
            hint=f"{KEY}=FILE names another one; inv plan --out FILE makes it where there is none",
        ) from error
    if len(found) < SHORTEST:
        raise UsageError(
            f"the key of saved plans, {file}: shorter than {SHORTEST} bytes",
            hint="take it away: inv plan --out FILE makes another one",
        )
    return found


def _key_file() -> Path:
    state = base_folder("XDG_STATE_HOME", "~/.local/state")
    return Path(os.environ.get(KEY) or state / "gpu-provision" / "plan-key")
