"""The linters: what ``inv check`` runs, and the unit tests too."""

LINTERS = {
    "ruff": ("ruff", "check", "--quiet", "."),
    "format": ("ruff", "format", "--check", "--quiet", "."),
    "types": ("mypy", "provision", "tasks.py", "tests", "lab", "bench", "tools"),
    "imports": ("lint-imports", "--no-cache"),
}
"""Name → command, run at the project's top level."""
