"""What sources have said so far, and what follows from it: membership, depth, precedence.

The rules are those of ansible-core 2.19 (inventory/data.py, inventory/group.py, vars/manager.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from provision.errors import InventoryError, Location
from provision.inventory.addresses import check_name
from provision.inventory.model import Group, Host, Inventory
from provision.inventory.values import Item

# What Ansible sets itself and hides from users (INTERNAL_STATIC_VARS in ansible/constants.py).
_MAGIC = frozenset(
    {
        "ansible_async_path",
        "ansible_collection_name",
        "ansible_config_file",
        "ansible_dependent_role_names",
        "ansible_diff_mode",
        "ansible_facts",
        "ansible_forks",
        "ansible_inventory_sources",
        "ansible_limit",
        "ansible_play_batch",
        "ansible_play_hosts",
        "ansible_play_hosts_all",
        "ansible_play_role_names",
        "ansible_playbook_python",
        "ansible_role_name",
        "ansible_role_names",
        "ansible_run_tags",
        "ansible_skip_tags",
        "ansible_verbosity",
        "ansible_version",
        "groups",
        "group_names",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "play_hosts",
        "playbook_dir",
        "role_name",
        "role_names",
        "role_path",
        "role_uuid",
    }
)

Vars = dict[str, Item]


@dataclass
class _Group:
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    vars: Vars = field(default_factory=dict)
    priority: int = 1  # decides between groups of one depth, before the alphabet does


@dataclass
class _Host:
    place: Location
    vars: Vars = field(default_factory=dict)


@dataclass
class Layer:
    """The variables of one ``group_vars`` and ``host_vars`` pair, by the name of the group or host."""

    groups: dict[str, Vars]
    hosts: dict[str, Vars]


class Draft:
    """Groups and hosts under construction.

    :ivar warnings: what the sources say to no effect.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.groups: dict[str, _Group] = {}
        self.hosts: dict[str, _Host] = {}
        for name in ("all", "ungrouped"):
            self.add_group(name)
        self.link("all", "ungrouped", Location("inventory"))

    def add_group(self, name: str) -> None:
        """Add a group unless it is there."""
        if name not in self.groups:
            self.groups[name] = _Group()

    def add_host(self, name: str, group: str, port: int | None, item: Item) -> None:
        """Add a host to a group; ``item`` is where its name and port stand.

        :raises InventoryError: no host can have that name.
        """
        if name not in self.hosts:
            check_name(name, item.where)
            host = self.hosts[name] = _Host(item.where)
            if port:
                host.vars["ansible_port"] = Item(port, item.document, item.key)
        self.groups[group].hosts[name] = None

    def set_host(self, name: str, key: str, item: Item) -> None:
        """Set a variable of a host; Ansible gives it to the group of that name if there is one."""
        if name in self.groups:
            self.set_group(name, key, item)
        else:
            _put(self.hosts[name].vars, key, item)

    def set_group(self, name: str, key: str, item: Item) -> None:
        """Set a variable of a group, or its priority.

        :raises InventoryError: the priority is no number.
        """
        group = self.groups[name]
        if key != "ansible_group_priority":
            _put(group.vars, key, item)
            return
        try:
            group.priority = int(item.value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            message = f"the priority of group {name!r} is no number: {item.value!r}"
            hint = "write ansible_group_priority: 10"
            raise InventoryError(message, where=item.where, hint=hint) from None

    def link(self, parent: str, child: str, where: Location) -> None:
        """Make ``child`` a child of ``parent``.

        :raises InventoryError: that would close a circle.
        """
        if child in self.groups[parent].children:
            return
        if child == parent or child in self._ancestors(parent):
            raise InventoryError(
                f"group {child!r} cannot be a child of {parent!r}: that would be a circle",
                where=where,
                hint=f"remove {child!r} from the children of {parent!r}",
            )
        self.groups[parent].children[child] = None
        self.groups[child].parents[parent] = None

    def _ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        waiting = list(self.groups[name].parents)
        while waiting:
            group = waiting.pop()
            if group not in found:
                found.add(group)
                waiting += self.groups[group].parents
        return found

    def build(self, layers: Sequence[Layer] = ()) -> Inventory:
        """Return the inventory.

        :param layers: what ``group_vars`` and ``host_vars`` beside the sources hold, in their order.
        :raises InventoryError: ``all`` is made a child of a group.
        """
        for name, group in self.groups.items():
            if name != "all" and not group.parents:
                self.link("all", name, Location("inventory"))
        member_of: dict[str, set[str]] = {name: set() for name in self.hosts}
        for name, group in self.groups.items():
            inside = {name, *self._ancestors(name)}
            for host in group.hosts:
                member_of[host] |= inside
        self._settle_ungrouped(member_of)
        warnings = [
            f"{host.place}: {name!r} is the name of a group and of a host"
            for name, host in self.hosts.items()
            if name in self.groups
        ]
        hosts = {host.name: host for host in self._merge(member_of, layers)}
        groups = {
            name: Group(tuple(group.hosts), tuple(group.children)) for name, group in self.groups.items()
        }
        return Inventory(hosts, groups, (*self.warnings, *warnings))

    def _settle_ungrouped(self, member_of: dict[str, set[str]]) -> None:
        """Put hosts that are in no group into ``ungrouped``, and take the others out."""
        ungrouped = self.groups["ungrouped"]
        for name, groups in member_of.items():
            if groups - {"all", "ungrouped"}:
                ungrouped.hosts.pop(name, None)
                groups.discard("ungrouped")
            else:
                ungrouped.hosts[name] = None
                groups |= {"all", "ungrouped"}

    def _depths(self) -> dict[str, int]:
        """The longest way from ``all`` to every group; variables of deeper groups win."""
        parents = {name: group.parents for name, group in self.groups.items()}
        depths: dict[str, int] = {}
        for name in TopologicalSorter(parents).static_order():
            depths[name] = max((depths[parent] + 1 for parent in parents[name]), default=0)
        return depths

    def _merge(self, member_of: dict[str, set[str]], layers: Sequence[Layer]) -> Iterator[Host]:
        """Yield every host with its variables: those of groups, of all's files, groups' files, its own."""
        depths = self._depths()
        of_groups: dict[frozenset[str], list[Vars]] = {}
        for name, host in self.hosts.items():
            inside = frozenset(member_of[name] - {"all"})
            if inside not in of_groups:
                order = sorted(inside, key=lambda group: (depths[group], self.groups[group].priority, group))
                of_groups[inside] = [
                    *(self.groups[group].vars for group in ("all", *order)),
                    *(layer.groups.get("all", {}) for layer in layers),
                    *(layer.groups.get(group, {}) for layer in layers for group in order),
                ]
            own = (host.vars, *(layer.hosts.get(name, {}) for layer in layers))
            found = tuple(filter(None, (*of_groups[inside], *own)))
            nearest = {key: item for vars_ in found for key, item in vars_.items() if key not in _MAGIC}
            values = {key: item.value for key, item in nearest.items()}
            yield Host(name, tuple(sorted(inside)), values, found, host.place)


def _put(vars_: Vars, key: str, item: Item) -> None:
    """Set a variable; a value without a line does not replace the same value with one."""
    if item.node is None and key in vars_ and vars_[key].value == item.value:
        return
    vars_[key] = item
