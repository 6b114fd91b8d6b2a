"""Ansible's inventory as values: hosts, groups, patterns, and where every variable was written.

The YAML format, ranges, precedence and host patterns are those of ansible-core 2.19: ``ansible-inventory
--list`` on the same files tells the same hosts, groups and variables. Strings with Jinja templates are kept
as written. ``provision.inventory.sources`` reads the files.
"""

from provision.inventory.build import Builder, variables
from provision.inventory.document import load_json, of_data, parse
from provision.inventory.draft import Layer
from provision.inventory.model import Group, Host, Inventory
from provision.inventory.values import Document, Item, Unsafe, Value, Vault, plain

__all__ = [
    "Builder",
    "Document",
    "Group",
    "Host",
    "Inventory",
    "Item",
    "Layer",
    "Unsafe",
    "Value",
    "Vault",
    "load_json",
    "of_data",
    "parse",
    "plain",
    "variables",
]
