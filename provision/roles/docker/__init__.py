"""Docker: its configuration file, its engine, and what a restart of it does to containers."""
