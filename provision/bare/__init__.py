"""Bare metal: from the installer to a host that roles can take over."""
