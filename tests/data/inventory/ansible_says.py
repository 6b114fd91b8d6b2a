"""What ansible-core itself makes of inventories: run with its Python, one process for all cases.

stdin:  {"cases": {NAME: {"sources": [PATH], "patterns": [PATTERN]}}}
stdout: {NAME: {"list": what ansible-inventory --list prints, "graph": …,
         "patterns": {PATTERN: [HOST] or an error},
         "ordered": whether no order hangs on that of a Python set}}
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import sys
from typing import Any

from ansible.cli.inventory import InventoryCLI
from ansible.errors import AnsibleError
from ansible.inventory.group import Group


def run(sources: list[str]) -> tuple[InventoryCLI, str]:
    """Run ansible-inventory --list in this process, which can be done once."""
    argv = ["ansible-inventory", "--list"]
    for source in sources:
        argv += ["-i", source]
    cli = InventoryCLI(argv)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.run()
    return cli, out.getvalue()


def is_ordered(group: Group) -> bool:
    """Whether Group.get_hosts has one order: below the first level it walks over sets."""
    level = {group}
    first = True
    while level:
        parents = [member for member in level if member.child_groups]
        if not first and len(parents) > 1:
            return False
        level = {child for member in parents for child in member.child_groups}
        first = False
    return True


def say(case: dict[str, Any]) -> dict[str, Any]:
    """Answer one case."""
    cli, listing = run(case["sources"])
    patterns: dict[str, Any] = {}
    for pattern in case["patterns"]:
        try:
            patterns[pattern] = [host.name for host in cli.inventory.get_hosts(pattern)]
        except AnsibleError as error:
            patterns[pattern] = str(error)
    return {
        "list": json.loads(listing),
        "graph": cli.inventory_graph(),
        "patterns": patterns,
        "ordered": all(is_ordered(group) for group in cli.inventory.groups.values()),
    }


def main() -> None:
    """Answer the cases on stdin."""
    cases = json.load(sys.stdin)["cases"]
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        answers = pool.map(say, cases.values(), chunksize=1)
    json.dump(dict(zip(cases, answers, strict=True)), sys.stdout)


if __name__ == "__main__":
    main()
