"""The acceptance of a real machine: ``inv test --real -i INVENTORY``."""
