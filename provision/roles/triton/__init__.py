"""Triton Inference Server: its settings and its units, and how it is asked."""
