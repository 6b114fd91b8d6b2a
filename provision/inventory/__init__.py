"""Ansible's inventory as values: hosts, groups, patterns, and where every variable was written.

The YAML format, ranges, precedence and host patterns are those of ansible-core 2.19: ``ansible-inventory
--list`` on the same files tells the same hosts, groups and variables. Strings with Jinja templates are kept
as written. ``provision.inventory.sources`` reads the files.
"""

from provision.inventory.model import Group, Host, Inventory

__all__ = ["Group", "Host", "Inventory"]
