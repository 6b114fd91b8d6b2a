"""Every run of the unit tests tries the same examples; ``--hypothesis-profile=default`` tries others."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")
