"""What roles tell each other: the signals that handlers of other roles listen to."""

from __future__ import annotations

from provision.resource import Signal

DRIVER_MOVED = Signal("driver moved")
"""A package of the driver was installed, or has another version."""

DRIVER_LOADED = Signal("driver loaded")
"""The driver's kernel module was loaded, or the host was rebooted for it."""

TOOLKIT_INSTALLED = Signal("toolkit installed")
"""A package of the container toolkit was installed that was not there."""

DOCKER_MOVED = Signal("docker moved")
"""Packages of the Docker Engine were touched, so that they may have restarted it."""

DOCKER_RESTARTED = Signal("docker restarted")
"""dockerd was restarted, and with it the units that are part of it."""

DOCKER_STORE_MOVED = Signal("docker's store moved")
"""dockerd has another place for images and containers: it does not know those that it has now."""
