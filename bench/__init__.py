"""Measurements against peers, both taken in the same run."""
