"""Verification: the suite in tests/verify run against hosts, over our own connections.

What a test module of the suite may use, besides pytest itself:

- ``ROLE = "driver"``: the module is for hosts that have this role; without it, for all hosts.
- ``def probes(settings) -> list[Probe]``: what its tests want to know, as data. The probes of all modules are
  asked with one exec a host, before the first test runs.
- Fixtures ``evidence`` (the answers by name of probe), ``settings`` (of the role), ``facts``, ``target``, and
  ``instance`` with ``instance_name``, which repeat a test for every instance in the settings.
- Fixture ``host``: testinfra's Host over the same connection, for questions that need an answer to be asked.
- ``fail()``, ``warn()`` and ``skip()``, each with a sentence and a hint.
"""

from __future__ import annotations

from provision.verify.evidence import Evidence
from provision.verify.verdict import fail, skip, warn

__all__ = ["Evidence", "fail", "skip", "warn"]
