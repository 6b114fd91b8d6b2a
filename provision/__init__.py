"""Bare GPU machines to NVIDIA Triton serving: inventory, plan, apply, proof."""

__version__ = "0.1.0"
