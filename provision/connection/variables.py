"""The inventory's variables of one host that are about connecting, read with their kinds checked. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provision.connection.known_hosts import HostKey
from provision.errors import InventoryError
from provision.inventory.values import Vault, is_template, kind_of

A_KEY = "the whole line of /etc/ssh/ssh_host_ed25519_key.pub of the host: ssh-ed25519 AAAA…"


class Given:
    """The inventory's variables of one host, read with their kinds checked."""

    def __init__(self, host: str, values: Mapping[str, object]) -> None:
        self.host = host
        self.values = values

    def text(self, *names: str) -> str | None:
        """The first of these variables that has a value, which must be one line."""
        for name in names:
            value = self.values.get(name)
            if value is None or value == "":
                continue
            self.refuse_what_only_ansible_reads(name, value)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise InventoryError(f"{self.host}: {name} must be a string, not {kind_of(value)}")
            text = str(value)
            if "\0" in text or "\n" in text:
                raise InventoryError(f"{self.host}: {name} must be one line")
            return text
        return None

    def port(self, *names: str) -> int | None:
        """The first of these variables that has a value, as a port."""
        text = self.text(*names)
        return None if text is None else port_of(self.host, names[0], text)

    def seconds(self, *names: str) -> float | None:
        """The first of these variables that has a value, in seconds."""
        text = self.text(*names)
        return None if text is None else seconds_of(self.host, names[0], text)

    def flag(self, *names: str) -> bool:
        """The first of these variables that has a value, as Ansible reads booleans; else False."""
        for name in names:
            value = self.values.get(name)
            if value is not None:
                self.refuse_what_only_ansible_reads(name, value)
                return flag_of(self.host, name, value)
        return False

    def host_keys(self) -> tuple[str, ...]:
        """The keys of ``host_key:``, as ``TYPE BASE64``."""
        value = self.values.get("host_key")
        for part in value if isinstance(value, list) else [value]:
            self.refuse_what_only_ansible_reads("host_key", part)
        lines = value.splitlines() if isinstance(value, str) else value
        if lines is None:
            return ()
        if not isinstance(lines, Sequence) or not all(isinstance(line, str) for line in lines):
            raise InventoryError(f"{self.host}: host_key must be a line or a list of lines", hint=A_KEY)
        return tuple(_host_key(self.host, line) for line in lines if line.strip())

    def refuse_what_only_ansible_reads(self, name: str, value: object) -> None:
        """Refuse a value that is encrypted, or a template."""
        hint = "give the value itself; for secrets use an executable inventory source"
        if name.startswith("ansible_become_pass"):
            hint += ", or --ask-become-pass"
        if isinstance(value, Vault):
            hint = f"ansible-vault values are not decrypted: {hint}"
            raise InventoryError(f"{self.host}: {name} is encrypted with ansible-vault", hint=hint)
        if is_template(value):
            hint = f"templates are not evaluated: {hint}"
            raise InventoryError(f"{self.host}: {name} holds a Jinja template", hint=hint)

    def refuse_what_we_do_not_do(self) -> None:
        """Refuse another way to connect or to become root, and unchecked host keys."""
        kind = (self.text("ansible_connection") or "ssh").removeprefix("ansible.builtin.")
        if kind not in {"ssh", "smart", "paramiko", "paramiko_ssh", "community.general.paramiko_ssh"}:
            hint = "remove it, or set it to ssh: hosts are reached over SSH only"
            raise InventoryError(f"{self.host}: ansible_connection: {kind} is not supported", hint=hint)
        method = (self.text("ansible_become_method") or "sudo").removeprefix("ansible.builtin.")
        if method != "sudo":
            hint = "use sudo, or log in as root"
            raise InventoryError(f"{self.host}: ansible_become_method: {method} is not supported", hint=hint)
        for name in ("ansible_host_key_checking", "ansible_ssh_host_key_checking"):
            value = self.values.get(name)
            if value is not None and not flag_of(self.host, name, value):
                raise unchecked(self.host, f"{name}: {value}")


def port_of(host: str, name: str, text: str) -> int:
    """The number of a port.

    :raises InventoryError: if it is none.
    """
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise InventoryError(f"{host}: {name} must be a number from 1 to 65535, not {text!r}")
    return int(text)


def seconds_of(host: str, name: str, text: str) -> float:
    """Seconds of ``10``, ``10s``, ``2m`` or ``1h``.

    :raises InventoryError: if it is none of these.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 86400:
        raise InventoryError(f"{host}: {name} must be a number of seconds, not {text!r}")
    return seconds


def flag_of(host: str, name: str, value: object) -> bool:
    """Return ``value`` as Ansible's booleans are read (module_utils/parsing/convert_bool.py)."""
    text = str(value).strip().lower()
    if text in {"y", "yes", "on", "1", "true", "t", "1.0"}:
        return True
    if text in {"n", "no", "off", "0", "false", "f", "0.0", "none"}:
        return False
    raise InventoryError(f"{host}: {name} must be true or false, not {value!r}")


def _host_key(host: str, line: str) -> str:
    """Return ``TYPE BASE64`` from a public key line, with or without a host name in front of it."""
    fields = line.split()
    for index, word in enumerate(fields[:2]):
        if word.startswith(("ssh-", "ecdsa-", "sk-")) and len(fields) > index + 1:
            text = f"{word} {fields[index + 1]}"
            try:
                HostKey.of(text)
            except ValueError as error:
                raise InventoryError(f"{host}: host_key: {error}", hint=A_KEY) from None
            return text
    raise InventoryError(f"{host}: host_key is not a public key line: {line[:60]!r}", hint=A_KEY)


def unchecked(host: str, what: str) -> InventoryError:
    """The refusal of host keys that nobody checks."""
    hint = "host keys are always checked: give host_key in the inventory, or record keys once with --enroll"
    return InventoryError(f"{host}: {what} is refused", hint=hint)
