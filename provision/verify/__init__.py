"""Verification: the suite in tests/verify run against hosts, over our own connections.

A test module of the suite is a testinfra module. Beside testinfra's ``host`` it may use:

- ``ROLE = "driver"``: the module is for hosts that have this role; without it, for all hosts.
- Fixtures ``settings`` (of the role), ``facts``, ``hardware``, ``expect`` (what was ordered), ``target`` (the
  host with the settings of all its roles), and ``instance`` with ``instance_name``, which repeat a test for
  every instance in the settings.
- ``host.NAME`` for each class in a role's ``testinfra.py``, such as ``host.nvidia``.
- ``fail()``, ``warn()`` and ``skip()``, each with a sentence and a hint; ``Missing`` for what many checks
  stand on.
- Marks: ``hint("what to do")``, ``containers`` for what starts containers, ``expects("gpus.memory")`` for
  hosts whose ``expect:`` gives that, ``live`` for tests that must not be rehearsed, because they change
  something for other tests or count in Python.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

from provision.finding import Concern, Finding, Missing, fail, warn
from provision.run.target import Target

__all__ = ["Concern", "Finding", "Missing", "Target", "fail", "skip", "warn"]


def skip(reason: str) -> NoReturn:
    """End the check: it does not apply, or cannot be answered, for a reason."""
    pytest.skip(reason)
