"""Role host: the machine itself, below driver and Docker."""
