"""Bare GPU machines to NVIDIA Triton serving: inventory, facts, plan, apply, proof."""
