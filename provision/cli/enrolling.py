"""Host keys of many hosts: shown side by side, and recorded when somebody agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from provision.bare.enrolment import Console, elsewhere, from_consoles, from_network, told_apart
from provision.bare.seed_settings import SEED, is_address
from provision.cli import arguments, terminal
from provision.cli.options import Options
from provision.connection.enrolment import record
from provision.connection.known_hosts import HostKey
from provision.connection.login import Login
from provision.connection.session import fetch_host_key
from provision.data import content as content_of
from provision.errors import UsageError
from provision.inventory import Host, Inventory
from provision.plan.report import counted
from provision.run import ways_in


def enroll(
    options: Options,
    files: Sequence[str],
    *,
    yes: bool,
    ask: Callable[[str, str], bool] = terminal.confirmed,
    fetch: Callable[[Login], HostKey] = fetch_host_key,
) -> None:
    """Show what hosts, or the logs of their consoles, show; record new keys; end with the exit code.

    :param files: the logs, as ``FILE`` or ``HOST=FILE``; without any, the hosts are asked.
    :raises UsageError: if a log cannot be read, or nobody agrees.
    """
    selected = arguments.select(options)
    logins = ways_in.logins(selected)
    if files:
        loaded = arguments.load_inventory(options.inventory)
        consoles = [_console(text, loaded) for text in files]
        rows = from_consoles(logins, consoles, names(loaded.hosts.values()), terminal.log)
    else:
        rows = from_network(logins, fetch)
    rows = told_apart(rows)
    width = max(len(row.login.host) for row in rows)
    if not options.json:
        terminal.write_data("\n".join(line for row in rows for line in row.text(width)))
    for row in rows:
        if row.message and row.hint:
            terminal.log(f"{row.login.host}: {row.message}\n  hint: {row.hint}")
        if remark := elsewhere(row):
            terminal.log(f"{row.login.host}: {remark}")
    new = [(row.login, key) for row in rows if row.status == "new" for key in row.keys]
    question = f"Trust {'this key' if len(new) == 1 else f'these {len(new)} keys'} from now on?"
    if new and not yes and not ask(question, "--yes"):
        raise UsageError("the keys were not recorded", hint="compare them on the hosts' consoles first")
    record(new)
    for file in dict.fromkeys(login.known_hosts[0] for login, _ in new):
        there = [login for login, _ in new if login.known_hosts[0] == file]
        terminal.log(f"{counted(len(there), 'key')} of {counted(len(set(there)), 'host')} recorded in {file}")
    if options.json:
        terminal.write_json({"schema": 1, "hosts": {row.login.host: row.document() for row in rows}})
    raise SystemExit(0 if all(row.status in ("new", "known") for row in rows) else 1)


def names(hosts: Iterable[Host]) -> Mapping[str, Sequence[str]]:
    """What a host may call itself, in lower case → the hosts that it may be; first labels count, too."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        settings = host.settings(SEED)
        given = settings.get("hostname") if isinstance(settings, Mapping) else None
        own = {host.name, *([given] if isinstance(given, str) else [])}
        own |= {name.partition(".")[0] for name in own if not is_address(name)}
        for name in sorted(own):
            found.setdefault(name.lower(), []).append(host.name)
    return found


def _console(text: str, inventory: Inventory) -> Console:
    """The log that ``FILE`` or ``HOST=FILE`` names.

    :raises UsageError: if it cannot be read, or the inventory has no such host.
    """
    host, equals, file = text.partition("=")
    if not equals or (host not in inventory.hosts and Path(text).exists()):
        host, file = "", text
    elif host not in inventory.hosts:
        raise UsageError(
            f"--from-console {text}: no host of the inventory is called {host}",
            hint="FILE or HOST=FILE; inv inventory --graph shows what there is",
        )
    if not file:
        raise UsageError(f"--from-console {text} names no file", hint="FILE or HOST=FILE")
    try:
        content = content_of(Path(file)).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"--from-console {file}: {error.strerror}", hint="FILE or HOST=FILE") from error
    return Console(file, content, host or None)
