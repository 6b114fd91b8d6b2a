"""NVIDIA Container Toolkit: its config.toml and its CDI specs."""
